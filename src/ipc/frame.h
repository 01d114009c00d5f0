/* SPDX-License-Identifier: Apache-2.0 */
/* Frames and fields between our processes, as declared in tables/messages.def and tables/fields.def.
 *
 * A frame is a header of 16 bytes, little-endian - u32 payload length, u16 type, u16 protocol version, u64 id -
 * and a payload: a run of fields, each u8 tag, u32 length, bytes. Nothing here allocates, reads or writes, or
 * needs more than libc. A receiver knows which role its peer has; a frame that this peer may not send, that is
 * larger than the table allows, or whose fields do not add up is CM_ERR_PROTOCOL, and the peer has to go.
 */
#ifndef CM_IPC_FRAME_H
#define CM_IPC_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

#define CM_IPC_VERSION     1
#define CM_IPC_HEADER_SIZE 16
#define CM_IPC_FIELD_SIZE  5 /* tag and length in front of a field's bytes */

#define CM_IPC_EXECUTE_MAX (64u << 20)
#define CM_IPC_OUTPUT_MAX  (256u << 10)
#define CM_IPC_RESULT_MAX  (16u << 20)
#define CM_IPC_CALL_MAX    ((16u << 20) + 1024) /* arguments and context of the largest limit, a name, heads */
#define CM_IPC_ANSWER_MAX  ((16u << 20) + 1024)

#define CM_IPC_LOAD_MAX    512 /* a name of 256 bytes and numbers */
#define CM_IPC_CONTENT_MAX ((1u << 30) + CM_IPC_FIELD_SIZE)

#define CM_CALL_NAME_MAX 256 /* bytes of a tool's name */
#define CM_CALLS_AT_ONCE 512 /* calls of one execution that wait for their answers */

/* What the number in field SAVE means. */
enum cm_save { CM_SAVE_NEVER = 0, CM_SAVE_ALWAYS = 1, CM_SAVE_SUCCESS = 2 };

enum cm_ipc_role { CM_IPC_GATEWAY, CM_IPC_ZYGOTE, CM_IPC_WORKER };

enum cm_ipc_type {
#define CM_MESSAGE(name, number, sender, receiver, max_payload, max_fds) CM_MSG_##name = (number),
#include "messages.def"
#undef CM_MESSAGE
};

enum cm_ipc_field {
#define CM_FIELD(name, tag, type) CM_FIELD_##name = (tag),
#include "fields.def"
#undef CM_FIELD
    CM_FIELD_END /* one above the highest tag: new fields are appended to the table */
};

struct cm_ipc_message_info {
    enum cm_ipc_type type;
    const char *name;
    enum cm_ipc_role sender, receiver;
    uint32_t max_payload;
    unsigned max_fds; /* descriptors that come with the header, exactly */
};
/* NULL for a type that the table does not know. */
const struct cm_ipc_message_info *cm_ipc_message(unsigned type);

struct cm_ipc_header {
    uint32_t len; /* of the payload */
    uint16_t type;
    uint64_t id;
};
/* Reads a header that `sender` has sent to `receiver`. 0 or CM_ERR_PROTOCOL. */
int cm_ipc_header_get(const uint8_t bytes[static CM_IPC_HEADER_SIZE], enum cm_ipc_role sender,
                      enum cm_ipc_role receiver, struct cm_ipc_header *ret, struct cm_err *err);

/* Reading: all fields of a payload at once. Pointers go into the payload. */
struct cm_ipc_fields {
    struct {
        const uint8_t *data; /* NULL when the field is absent */
        uint32_t len;
    } at[CM_FIELD_END];
};
/* Refuses unknown tags, a field that comes twice, wrong sizes and rests. 0 or CM_ERR_PROTOCOL. */
int cm_ipc_fields_get(const void *payload, size_t len, struct cm_ipc_fields *ret, struct cm_err *err);
bool cm_ipc_has(const struct cm_ipc_fields *f, enum cm_ipc_field tag);
/* A number of any width; `absent` when the field is not there. */
uint64_t cm_ipc_get_uint(const struct cm_ipc_fields *f, enum cm_ipc_field tag, uint64_t absent);
/* NULL and length 0 when absent. */
const char *cm_ipc_get_bytes(const struct cm_ipc_fields *f, enum cm_ipc_field tag, size_t *ret_len);

/* Writing: a frame is gathered as an iovec. Bytes are not copied and must live until the frame is written; the
 * struct must not move in between, for the vector points into it. */
#define CM_IPC_FIELDS_MAX 16
struct cm_ipc_msg {
    const struct cm_ipc_message_info *info;
    uint64_t id, len; /* of the payload so far */
    bool broken;      /* more fields or a longer one than a frame holds */
    unsigned fields;
    int iovcnt; /* valid after finish */
    struct iovec iov[1 + 2 * CM_IPC_FIELDS_MAX];
    uint8_t header[CM_IPC_HEADER_SIZE];
    uint8_t small[CM_IPC_FIELDS_MAX][CM_IPC_FIELD_SIZE + 8];
};
void cm_ipc_msg_begin(struct cm_ipc_msg *m, enum cm_ipc_type type, uint64_t id);
/* Writes a number in the width that the table gives the field. */
void cm_ipc_put_uint(struct cm_ipc_msg *m, enum cm_ipc_field tag, uint64_t value);
void cm_ipc_put_bytes(struct cm_ipc_msg *m, enum cm_ipc_field tag, const void *data, size_t len);
/* The last field of a frame, whose bytes somebody writes behind the vector. */
void cm_ipc_put_rest(struct cm_ipc_msg *m, enum cm_ipc_field tag, size_t len);
/* True when this is its head. */
bool cm_ipc_is_rest(const uint8_t head[static CM_IPC_FIELD_SIZE], enum cm_ipc_field tag, uint32_t len);
/* Makes iov[0..iovcnt) the whole frame. 0, or CM_ERR_TOO_LARGE when the table's maximum is passed. */
int cm_ipc_msg_finish(struct cm_ipc_msg *m, struct cm_err *err);
size_t cm_ipc_msg_size(const struct cm_ipc_msg *m);

#endif
