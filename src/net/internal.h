/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of streams share. */
#ifndef CM_NET_INTERNAL_H
#define CM_NET_INTERNAL_H

#include "base/buf.h"
#include "ev/loop.h"
#include "net/resolve.h"
#include "net/stream.h"

#define CM_STREAM_PEER_MAX 64
#define CM_STREAM_ALPN_MAX 16

/* RESOLVING -> CONNECTING -> OPENING -> OPEN -> ENDED, in that order, from where it begins; LINGERING after the owner has
 * closed it with something left to send. */
enum stream_state {
    RESOLVING,
    CONNECTING,
    OPENING, /* the handshake, or with a plain stream one turn */
    OPEN,
    ENDED, /* `closed` was called: the peer sends no more; what is written still goes out unless `failed` */
    LINGERING, /* nobody owns it any more */
};

struct cm_stream {
    struct cm_loop *loop;
    const struct cm_stream_ops *ops;
    void *arg;
    struct cm_stream_limits limits;
    enum stream_state state;
    int fd;
    int events; /* what the watch waits for */
    struct cm_watch *watch;
    struct cm_timer *timer; /* the deadline of opening, and of lingering */
    struct cm_task task; /* what has to be said in the next turn */
    struct cm_buf queue; /* bytes for the socket */
    struct cm_stream *prev, *next; /* of those that linger */
    size_t dropped; /* bytes that it has read since */
    unsigned busy; /* callbacks that are being run: until they return, the memory stays */
    bool gone; /* to be freed as soon as it is not busy */
    bool paused, ended; /* ended: nothing more to be read; `closed` has been or is being said */
    bool failed; /* and nothing more can be written */
    bool turn; /* in the line of those that wait for a step of their handshake */
    bool kept; /* `drained` is owed */
    bool shut; /* the sending side is shut down */
    struct cm_err why; /* of `closed`; code 0: the peer has closed */
    char peer[CM_STREAM_PEER_MAX];
    char alpn[CM_STREAM_ALPN_MAX];
    /* of TLS */
    struct cm_tls_session *tls;
    struct cm_task read_task; /* there is something to be read that the socket does not know of */
    struct cm_stream *turn_prev, *turn_next;
    /* of cm_stream_connect() */
    struct cm_tls *rules; /* for when it is connected; NULL: plain */
    struct cm_resolve *resolve;
    struct cm_addresses addresses;
    unsigned address; /* that is being tried */
    uint64_t until_ns; /* deadline of all of it */
    char host[256];
    unsigned port;
};

/* stream.c */
/* Says `closed` in the next turn. *err is copied; NULL: the peer has closed. The first one counts. */
void cm_stream_end(struct cm_stream *s, const struct cm_err *err);
/* The socket is connected: goes on to OPENING. */
void cm_stream_begin(struct cm_stream *s);
/* Goes on to OPEN, and says so. From the loop only. */
void cm_stream_ready(struct cm_stream *s);
/* Waits for what the state and the queue ask for. */
void cm_stream_rewatch(struct cm_stream *s);
/* 0 with s->watch open for `fd`, which the stream now owns. */
int cm_stream_take_fd(struct cm_stream *s, int fd, struct cm_err *err);

/* handshake.c */
/* The stream's handshake gets a step when it is its turn. */
void cm_stream_handshake(struct cm_stream *s);
/* Not any more. */
void cm_stream_handshake_stop(struct cm_stream *s);
/* Writes what the queue holds. 0, or a positive errno; what the socket does not take stays. */
int cm_stream_flush(struct cm_stream *s);

/* connect.c */
int cm_stream_dial(struct cm_stream *s, struct cm_err *err);
/* The socket says something while CONNECTING. */
void cm_stream_dialled(struct cm_stream *s);
/* The time for this address, or for all, is over. */
void cm_stream_dial_timeout(struct cm_stream *s);

#endif
