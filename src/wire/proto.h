/* SPDX-License-Identifier: Apache-2.0 */
/* Protobuf messages in and out of bytes. The structs are protobuf-c's, made from proto/ ("codemode.pb-c.h"), in a shape
 * that the wire does not see (tools/proto_for_c.py): a string is a ProtobufCBinaryData, because text may hold NUL, and so
 * is a Struct, for wire/structs.h. A Struct and an `optional` are there when `has_NAME_case` is not 0.
 */
#ifndef CM_WIRE_PROTO_H
#define CM_WIRE_PROTO_H

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"

struct cm_buf;

/* What unpacking may take of memory: a repeated field of two bytes becomes an element of sixteen and an allocation. */
#define CM_PROTO_MEMORY_FACTOR 8 /* times the message's size */
#define CM_PROTO_MEMORY_FLOOR  (1u << 20)

/* Unpacks and checks that every string is UTF-8. NULL with CM_ERR_BAD_FIELD, CM_ERR_TOO_LARGE or CM_ERR_NO_MEMORY.
 * For cm_proto_free(). */
void *cm_proto_unpack(const ProtobufCMessageDescriptor *type, const void *bytes, size_t len, struct cm_err *err);
/* Accepts NULL, returns NULL. */
void *cm_proto_free(void *message);
/* Appends the packed message. 0 or the buffer's error. */
int cm_proto_pack(const ProtobufCMessage *message, struct cm_buf *to);

/* A field that points at bytes of the caller's. */
ProtobufCBinaryData cm_proto_bytes(const void *data, size_t len);
ProtobufCBinaryData cm_proto_text(const char *text); /* NULL counts as "" */

#endif
