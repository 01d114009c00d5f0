/* SPDX-License-Identifier: Apache-2.0 */
/* google.protobuf.Struct <-> JSON text, without a tree: from the wire's bytes to text and back.
 *
 * Struct knows one kind of number, the double. On the way to JSON an integral double up to 2^53 is written without a
 * fraction (72, not 72.0), so that Python gets its int back. On the way from JSON, a number beyond the double's range is
 * refused, and NaN or an infinity from the wire is refused as well: JSON has no word for them. Nesting is bounded by
 * CM_JSON_DEPTH_MAX in both directions.
 */
#ifndef CM_WIRE_STRUCTS_H
#define CM_WIRE_STRUCTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct cm_buf;

/* Appends the JSON object that the encoded Struct means. CM_ERR_BAD_FIELD, or the buffer's error. */
int cm_struct_to_json(const uint8_t *bytes, size_t len, struct cm_buf *json, struct cm_err *err);
/* Appends the encoded Struct that a JSON object means; the text is checked. CM_ERR_BAD_JSON, CM_ERR_BAD_FIELD, or the
 * buffer's error. */
int cm_struct_from_json(const char *json, size_t len, struct cm_buf *bytes, struct cm_err *err);

#endif
