/* SPDX-License-Identifier: Apache-2.0 */
/* What both sides of gRPC share: messages with a length in front, the texts of headers, and the way from an HTTP/2
 * session to a stream. */
#ifndef CM_GRPC_FRAMING_H
#define CM_GRPC_FRAMING_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/status.h"

struct cm_stream;

#define CM_GRPC_PREFIX   5   /* bytes in front of each message: a flag and the length, big end first */
#define CM_GRPC_TEXT_MAX 1000 /* bytes of a status text */

/* Messages out of a run of bytes that comes in any pieces. */
struct cm_grpc_reader {
    uint8_t prefix[CM_GRPC_PREFIX];
    unsigned prefix_len;
    size_t want; /* of the message whose prefix is complete */
    struct cm_buf body;
};

/* `max`: bytes of one message. */
void cm_grpc_reader_init(struct cm_grpc_reader *r, size_t max);
void cm_grpc_reader_done(struct cm_grpc_reader *r);
/* Takes bytes from *data up to the end of one message. CM_GRPC_OK, and *ret_whole when r->body is a whole message: then
 * cm_grpc_reader_next() before anything else. Otherwise the status and the words that end the call. */
enum cm_grpc_status cm_grpc_reader_feed(struct cm_grpc_reader *r, const uint8_t **data, size_t *len, bool *ret_whole,
                                        char why[static CM_ERR_TEXT_MAX]);
void cm_grpc_reader_next(struct cm_grpc_reader *r);
/* Nothing of a message has come yet. */
bool cm_grpc_reader_between(const struct cm_grpc_reader *r);
/* Appends a message with its prefix. 0 or the buffer's error. */
int cm_grpc_put_message(struct cm_buf *to, const void *message, size_t len);

/* "100m" and its like: at most eight digits and a unit. False when it is none of these. */
bool cm_grpc_timeout_parse(const char *text, uint64_t *ret_ns);
/* The shortest unit that has room, rounded up. */
void cm_grpc_timeout_format(uint64_t ns, char ret[static 16]);
/* grpc-message: printable ASCII and %XX. Appends at most CM_GRPC_TEXT_MAX bytes of text, encoded. */
int cm_grpc_percent_encode(struct cm_buf *to, const char *text);
/* Appends at most CM_GRPC_TEXT_MAX bytes of UTF-8; what is neither becomes U+FFFD. */
int cm_grpc_percent_decode(struct cm_buf *to, const char *text, size_t len);
/* "application/grpc", with "+proto" or parameters behind it or not. */
bool cm_grpc_content_type(const char *value, size_t len);

/* An answer without grpc-status, and a stream that was reset: what gRPC makes of them. */
enum cm_grpc_status cm_grpc_status_of_http(int http);
enum cm_grpc_status cm_grpc_status_of_h2(uint32_t code);
const char *cm_grpc_status_name(enum cm_grpc_status status);

/* A header; `never` keeps it out of the compression's memory, on this hop and on those behind it. */
nghttp2_nv cm_grpc_nv(const char *name, const char *value, bool never);

#define CM_GRPC_OUT_HIGH (256u * 1024) /* bytes in a stream's queue above which nothing is added */

/* Writes what the session has to send, all in one go while the stream's queue is below CM_GRPC_OUT_HIGH. 0; 1 when the
 * queue is full: go on when it has drained; negative when the session or the stream has failed. */
int cm_grpc_pump(nghttp2_session *session, struct cm_stream *stream, struct cm_err *err);
/* For cm_stream_limits.queue_max: what one pump can add to a queue. */
#define CM_GRPC_QUEUE_MAX (CM_GRPC_OUT_HIGH + 256u * 1024)

#endif
