/* SPDX-License-Identifier: Apache-2.0 */
/* A gRPC server over HTTP/2 (nghttp2): framing, deadlines, metadata and limits. It knows methods by their paths and
 * messages as bytes; what they mean is its owner's.
 *
 * Every call has one request message. An answer is any number of messages and one status. A call lives from `request`
 * until cm_grpc_call_finish(), or until `cancelled`, whichever comes first.
 */
#ifndef CM_GRPC_SERVER_H
#define CM_GRPC_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/status.h"

struct cm_loop;
struct cm_stream;
struct cm_grpc_server;
struct cm_grpc_call;

struct cm_grpc_server_limits {
    size_t message_max;        /* bytes of one request message; longer: RESOURCE_EXHAUSTED */
    size_t metadata_max;       /* bytes of all headers of one call, as HPACK counts them */
    size_t requests_max;       /* bytes of all requests that are not complete; 0: four times message_max */
    size_t unread_max;         /* bytes of answers that one connection has not taken yet */
    unsigned streams_max;      /* calls of one connection at once */
    unsigned connections_max;
    unsigned idle_ms; /* a connection without calls is told to go away after this; so long may a request take to
                                * arrive, and a finished answer to be read */
    unsigned resets_max; /* streams that a client may reset in ten seconds before its connection goes (rapid reset) */
};

struct cm_grpc_method {
    const char *path; /* "/codemode.ExecutorService/Execute" */
    /* Before the message is read: CM_GRPC_OK lets the call in. `why` (480 bytes) goes to the client. May be NULL. The call
     * may still go away before `request`, and nobody is told: hang nothing on it that must be freed. */
    enum cm_grpc_status (*admit)(void *arg, struct cm_grpc_call *call, char *why);
    /* A whole request. `message` lives until it returns. The answer may come now or later. */
    void (*request)(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len);
    /* The client has left, cancelled, or the deadline has passed: the call is gone when it returns. Not after finish. */
    void (*cancelled)(void *arg, struct cm_grpc_call *call);
    /* What was queued has left, after cm_grpc_call_send() said false. May be NULL. */
    void (*writable)(void *arg, struct cm_grpc_call *call);
};

/* `methods` and `arg` must outlive the server. */
struct cm_grpc_server *cm_grpc_server_new(struct cm_loop *loop, const struct cm_grpc_server_limits *limits,
                                          const struct cm_grpc_method *methods, size_t count, void *arg,
                                          struct cm_err *err);
/* Serves a connection. Takes the socket in any case; it may block, or be non-blocking. */
int cm_grpc_server_adopt_fd(struct cm_grpc_server *s, int fd, struct cm_err *err);
/* The same for a stream that is ready (TLS): the server becomes its owner, in any case. `head` are bytes of it that were
 * read already; calls that are complete in them come from inside. */
int cm_grpc_server_adopt(struct cm_grpc_server *s, struct cm_stream *stream, const void *head, size_t len,
                         struct cm_err *err);
/* GOAWAY to all; running calls go on. */
void cm_grpc_server_drain(struct cm_grpc_server *s);
unsigned cm_grpc_server_connections(const struct cm_grpc_server *s);
/* Cancels every call, closes every connection. Not from one of the callbacks. Accepts NULL, returns NULL. */
struct cm_grpc_server *cm_grpc_server_free(struct cm_grpc_server *s);

/* The first value of a metadata key (lower case), or NULL. Valid while the call lives. */
const char *cm_grpc_call_metadata(const struct cm_grpc_call *call, const char *key);
/* Within `cancelled`: whether the connection has broken. Else the client, or its deadline, has ended this call alone. */
bool cm_grpc_call_lost(const struct cm_grpc_call *call);
/* Monotonic nanoseconds by grpc-timeout; 0: none. The server itself ends a call that is over it. */
uint64_t cm_grpc_call_deadline(const struct cm_grpc_call *call);
const char *cm_grpc_call_peer(const struct cm_grpc_call *call);
/* The owner's pointer, NULL at first. */
void cm_grpc_call_set_user(struct cm_grpc_call *call, void *user);
void *cm_grpc_call_user(const struct cm_grpc_call *call);
/* A header of the answer, before its first message. Values are ASCII, cut to 200 bytes. */
void cm_grpc_call_header(struct cm_grpc_call *call, const char *key, const char *value);
/* What send and finish queue leaves in this turn when they are called from `request`, else at the start of the next. */

/* Queues one message, which is copied. 0: and there is room for more. 1: queued, but wait for `writable`.
 * Negative: CM_ERR_TOO_LARGE or CM_ERR_NO_MEMORY, nothing was queued. */
int cm_grpc_call_send(struct cm_grpc_call *call, const void *message, size_t len, struct cm_err *err);
/* Ends the call; the pointer is dead afterwards. `text` may be NULL. */
void cm_grpc_call_finish(struct cm_grpc_call *call, enum cm_grpc_status status, const char *text);

#endif
