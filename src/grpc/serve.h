/* SPDX-License-Identifier: Apache-2.0 */
/* What server.c (connections) and call.c (calls) share. */
#ifndef CM_GRPC_SERVE_H
#define CM_GRPC_SERVE_H

#include <nghttp2/nghttp2.h>

#include "ev/loop.h"
#include "grpc/framing.h"
#include "grpc/server.h"

struct cm_grpc_conn {
    struct cm_grpc_conn *prev, *next;
    struct cm_grpc_server *server;
    struct cm_stream *stream;
    nghttp2_session *session;
    struct cm_task flush;
    struct cm_timer *timer;
    uint64_t timer_at;    /* when it fires, 0: it does not run */
    struct cm_grpc_call *calls;
    unsigned call_count;
    uint64_t idle_since;  /* since there are no calls */
    uint64_t stalled_at;  /* since the stream's queue is full, 0: it is not */
    uint64_t drain_at;    /* when the second GOAWAY goes at the latest, 0: no drain or done */
    size_t unread;        /* bytes of answers that wait in its calls */
    uint64_t abuse_since; /* start of the ten seconds in which the two are counted */
    unsigned resets, noise;
    bool ready, inside; /* inside: a function of the session runs, so what it has to say is sent when that is over */
    bool broken; /* the session has failed: what it still has to say is sent, then the connection closes */
    bool told_full; /* some call was told to wait for `writable` */
    bool last_goaway;
    bool gone;            /* it is being closed, with the calls that it still has */
};

enum cm_grpc_phase {
    CM_CALL_HEADERS, /* its headers are coming */
    CM_CALL_READING, /* its message is */
    CM_CALL_RUNNING, /* the owner has it */
    CM_CALL_DONE /* the owner has finished it, or never had it: what is left goes out */
};

struct cm_grpc_call {
    struct cm_grpc_call *prev, *next;
    struct cm_grpc_conn *conn;
    int32_t id;
    enum cm_grpc_phase phase;
    const struct cm_grpc_method *method;
    uint64_t deadline; /* 0: none */
    uint64_t since; /* of its first header, then of its end: neither waits for ever */
    size_t header_size; /* as HPACK counts */
    struct cm_buf metadata; /* key NUL value NUL ... */
    struct cm_buf headers; /* of the answer, the same way */
    struct cm_buf trailer; /* the encoded grpc-message */
    struct cm_grpc_reader reader;
    struct cm_buf out; /* what waits to be sent */
    enum cm_grpc_status status;
    void *user;
    int http; /* what the headers deserve, when that is not gRPC at all: 405, 415 */
    bool is_post, is_grpc, bad_timeout, bad_encoding, has_message, answering, deferred, full;
};

struct cm_grpc_server {
    struct cm_loop *loop;
    struct cm_grpc_server_limits limits;
    const struct cm_grpc_method *methods;
    size_t method_count;
    void *arg;
    struct cm_grpc_conn *conns;
    unsigned conn_count;
    size_t assembling; /* bytes of requests that are not complete */
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    bool draining;
};

/* server.c */

/* Lets the connection's timer fire at this time at the latest; 0: never. */
void cm_grpc_conn_wake_at(struct cm_grpc_conn *c, uint64_t at);
/* Something is to be sent: in this turn when a function of the session runs, else at the start of the next. */
void cm_grpc_conn_flush_soon(struct cm_grpc_conn *c);

/* call.c */

void cm_grpc_call_callbacks(nghttp2_session_callbacks *callbacks);
/* Tells the owner, who must not hear of it any more. */
void cm_grpc_call_withdraw(struct cm_grpc_call *call);
/* Ends a call that the owner does not have. */
void cm_grpc_call_end(struct cm_grpc_call *call, enum cm_grpc_status status, const char *text);
void cm_grpc_call_free(struct cm_grpc_call *call);
/* A stream was reset by one side, or a frame came that has no use. Too many of them end the connection. */
void cm_grpc_conn_count_reset(struct cm_grpc_conn *c);

#endif
