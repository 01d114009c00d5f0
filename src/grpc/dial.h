/* SPDX-License-Identifier: Apache-2.0 */
/* What client.c (calls, when to connect, time) and link.c (one connection) share. */
#ifndef CM_GRPC_DIAL_H
#define CM_GRPC_DIAL_H

#include <nghttp2/nghttp2.h>

#include "ev/loop.h"
#include "grpc/client.h"
#include "grpc/framing.h"

struct cm_grpc_link {
    struct cm_grpc_link *prev, *next;
    struct cm_grpc_client *client;
    struct cm_stream *stream;
    nghttp2_session *session;
    struct cm_grpc_request *requests;
    unsigned count;
    uint64_t began;
    uint64_t ready_by;  /* the server's SETTINGS must have come; 0: they have */
    uint64_t heard_at;  /* the last byte, or the first call after none */
    uint64_t pinged_at; /* 0: no PING is out */
    bool open;          /* the stream is */
    bool retiring;      /* takes no calls any more and closes behind its last one */
    bool gone;          /* lost: `why` says how */
    struct cm_err why;
};

struct cm_grpc_request {
    struct cm_grpc_request *prev, *next; /* in the client's waiting or ended, or the link's */
    struct cm_grpc_client *client;
    struct cm_grpc_link *link; /* NULL: it waits, or has ended */
    int32_t id;
    const struct cm_grpc_request_ops *ops;
    void *arg;
    uint64_t deadline, patience; /* patience: when it has waited enough for a connection; 0: never */
    struct cm_buf head; /* path NUL, then key NUL value NUL ... */
    struct cm_buf body; /* the message with its prefix */
    size_t body_sent;
    struct cm_grpc_reader reader;
    struct cm_buf text; /* grpc-message decoded, or our reason */
    size_t header_size;
    int http;
    enum cm_grpc_status status;
    bool is_grpc, has_status, ended, sent, repeated, in_callback, cancelled;
};

struct cm_grpc_client {
    struct cm_loop *loop;
    char *target, *host, *user_agent;
    unsigned port;
    struct cm_tls *tls;
    struct cm_grpc_client_options options;
    struct cm_grpc_link *link;       /* where calls go, or NULL */
    struct cm_grpc_link *retiring;
    struct cm_grpc_request *waiting; /* in their order */
    struct cm_grpc_request *ended;   /* `done` is about to be called */
    unsigned calls;                  /* waiting and running */
    size_t queued;                   /* bytes of their messages that are not with a session yet */
    struct cm_task task;
    struct cm_timer *timer;
    uint64_t timer_at, attempt_after, idle_since;
    uint64_t attempted; /* when the last attempt that failed began */
    unsigned failures; /* attempts since a connection worked */
    struct cm_err why; /* of the last one */
    uint64_t dice;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
};

/* client.c */

void cm_grpc_client_go_on(struct cm_grpc_client *c);
void cm_grpc_client_go_on_soon(struct cm_grpc_client *c);
/* The call is over: `done` comes before this turn ends. It leaves its link; the stream is the caller's to reset. */
void cm_grpc_request_end(struct cm_grpc_request *r, enum cm_grpc_status status, const char *text);
/* Back to the front of those that wait. */
void cm_grpc_request_wait_again(struct cm_grpc_request *r);
void cm_grpc_request_free(struct cm_grpc_request *r);

/* link.c */

void cm_grpc_link_callbacks(nghttp2_session_callbacks *callbacks);
/* Begins to connect. Failure comes later, as `gone`. NULL when there is no memory. */
struct cm_grpc_link *cm_grpc_link_new(struct cm_grpc_client *c);
/* How many calls may be added. */
unsigned cm_grpc_link_room(const struct cm_grpc_link *l);
/* Takes a waiting call. False: the connection can take none any more. */
bool cm_grpc_link_take(struct cm_grpc_link *l, struct cm_grpc_request *r);
/* Ends the stream of a call that is about to leave. */
void cm_grpc_link_reset(struct cm_grpc_link *l, struct cm_grpc_request *r);
void cm_grpc_link_forget(struct cm_grpc_link *l, struct cm_grpc_request *r);
/* Sends what there is; finds out whether the connection has ended (`gone`). */
void cm_grpc_link_step(struct cm_grpc_link *l);
/* Time has come: pings, and gives up on a server that does not answer. */
void cm_grpc_link_tick(struct cm_grpc_link *l, uint64_t now);
/* When to call tick, 0: never. */
uint64_t cm_grpc_link_due(const struct cm_grpc_link *l);
/* Says goodbye where there is somebody. No calls are left in it. */
void cm_grpc_link_close(struct cm_grpc_link *l);

#endif
