/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share. */
#ifndef CM_HTTP_INTERNAL_H
#define CM_HTTP_INTERNAL_H

#include <microhttpd.h>

#include "access/access.h"
#include "base/buf.h"
#include "base/correlation.h"
#include "ev/loop.h"
#include "http/http.h"

#define VARIABLES     3   /* {...} of one path */
#define VARIABLE_MAX  800 /* with the final NUL; a name of 256 bytes, each of which may be an escape */
#define EXTRA_HEADERS 8
#define CONN_MAGIC    0x434f4e4eu
#define REQUEST_MAGIC 0x52455155u

struct cm_http {
    struct cm_loop *loop;
    struct cm_http_config config;
    const struct cm_http_limits *limits; /* of the config */
    struct MHD_Daemon *daemon;
    struct cm_watch *daemon_watch; /* the daemon's own epoll descriptor */
    struct cm_watch *hangup_watch;
    unsigned connections;
    struct cm_timer *tick;      /* lets the daemon see its idle connections */
    struct cm_task run_task;    /* the daemon has something to do: a resumed connection, or bytes left over */
    struct cm_request *waiting; /* list of those that wait or stream */
    struct conn *conns;         /* list of the connections */
    int hangup_fd; /* an epoll of all client sockets, for their hang-ups only */
    bool draining;
    uint64_t held;       /* bytes of all request bodies in memory */
    uint64_t held_files; /* and in files */
    uint64_t unread;     /* bytes of all answers and streams that are under way */
    struct cm_correlations correlations;
};

struct conn {
    unsigned magic;
    int fd;
    bool hung; /* the client has closed its side */
    struct cm_request *receiving; /* whose body has not ended yet */
    struct cm_request *waiting;   /* or streaming */
    struct cm_request *request;   /* in whatever state; NULL between two */
    struct conn *prev, *next;
    uint64_t head_until_ns; /* when the next request's head must be there; 0 = it is */
};

/* RECEIVING -> ANSWERED, or RECEIVING -> WAITING -> ANSWERED or GONE; a stream comes after RECEIVING or WAITING. */
enum request_state { RECEIVING, WAITING, STREAMING, ANSWERED, GONE };

struct answer {
    unsigned status; /* 0 = there is none */
    struct cm_buf body;
    const char *content_type; /* NULL: JSON */
    char type_text[64], allow[64];
    char *extra[EXTRA_HEADERS][2];
    unsigned retry_after; /* seconds; 0 = nothing is said */
    bool close;
};

/* What has been written and not yet been taken by the daemon is the answer's body. */
struct stream {
    bool on;        /* the answer is one */
    bool suspended; /* the daemon waits for more */
    bool ended, cut;
    size_t backlog_max;
    bool overrun;   /* a piece found no room: the client does not read */
};

struct file {
    int fd; /* -1: there is none, or it was taken */
    uint64_t len;
};

struct cm_request {
    unsigned magic;
    struct cm_http *http;
    struct MHD_Connection *mhd;
    struct conn *conn;
    const struct cm_http_route *route;
    const struct cm_key *key; /* who asks; NULL where no key is needed */
    void *user;
    uint64_t drop_max; /* bytes of a refused body that are read for nothing */
    enum request_state state;
    bool admitted;
    struct cm_request *prev, *next; /* in http->waiting */
    void (*gone)(void *arg);
    void *gone_arg;
    struct cm_task gone_task;
    size_t body_taken; /* bytes of it that the owner has */
    struct cm_buf body;
    struct file file;
    uint64_t declared; /* bytes of body */
    uint64_t started_ns, received; /* received: bytes of body, also the dropped ones */
    uint64_t unread;               /* its part of http->unread */
    char variables[VARIABLES][VARIABLE_MAX];
    char correlation[CM_CORRELATION_MAX + 1];
    bool correlation_is_clients;
    char method[8], path[128]; /* for the log, cut */
    struct answer answer;
    struct stream stream;
};

/* The headers that decide something, as the client sent them; NULL where there is none. */
struct headers {
    const char *host, *origin, *content_type, *content_length, *transfer_encoding, *expect, *correlation;
    const char *authorization, *api_key;
    const char *idempotency_key, *session; /* of the routes' owner, who may rely on it that they come once */
    const char *twice; /* name of one that may appear only once and did not */
    bool malformed;
    bool page; /* a header that browsers send and other programs have no reason to */
};

/* routes.c: finds the route and what the path's variables stand for. 0, CM_ERR_NOT_FOUND or, with `allow` filled,
 * CM_ERR_METHOD. */
int cm_http_route(const struct cm_http_route *routes, const char *method, const char *path,
                  const struct cm_http_route **ret, char variables[static VARIABLES][VARIABLE_MAX],
                  char allow[static 64], struct cm_err *err);

/* guard.c */
void cm_http_headers(struct MHD_Connection *mhd, struct headers *ret);
/* Framing, origin, host and content type. Errors: BAD_REQUEST, FORBIDDEN, MEDIA_TYPE. */
int cm_http_guard(const struct cm_http *h, const struct cm_http_route *route, const struct headers *hd,
                  struct cm_err *err);
/* An enum cm_upload_kind, or -1: no type that a file may have. `type` may be NULL. */
int cm_http_upload_kind(const char *type);
bool cm_http_origin_allowed(const char *origin, const char *allowed);
bool cm_http_host_is_local(const char *host);

/* body.c */
bool cm_http_takes_file(const struct cm_request *rq);
/* What is declared is more than there may be of one body. */
bool cm_http_body_too_long(const struct cm_request *rq, uint64_t declared);
/* Keeps a piece. 0, CM_ERR_TOO_LARGE, CM_ERR_NO_MEMORY or CM_ERR_SYSTEM with *err filled. */
int cm_http_keep(struct cm_request *rq, const char *data, size_t len, struct cm_err *err);
int cm_http_say_too_long(const struct cm_request *rq, struct cm_err *err);
/* Gives back what it takes; of a file also its share of all files. */
void cm_http_forget_body(struct cm_request *rq);

/* answer.c: set rq->answer. */
void cm_http_set_error(struct cm_request *rq, const struct cm_err *err);
/* Hands the answer to the daemon. */
enum MHD_Result cm_http_send(struct cm_request *rq);
/* Sends an error past the daemon, which cannot answer before the end of a body; close the connection after it. */
void cm_http_send_raw(struct cm_request *rq, const struct cm_err *err);
void cm_http_answer_done(struct cm_request *rq);
/* Bytes of all answers and streams together. */
uint64_t cm_http_unread_max(const struct cm_http *h);

/* stream.c */
struct MHD_Response *cm_http_stream_response(struct cm_request *rq);

/* server.c: lets the daemon do what there is to do; not from its own callbacks. */
void cm_http_run(struct cm_http *h);
void cm_http_run_soon(struct cm_http *h);

/* request.c */
enum MHD_Result cm_http_on_request(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                                   const char *version, const char *data, size_t *len, void **state);
void cm_http_on_completed(void *cls, struct MHD_Connection *mhd, void **state, enum MHD_RequestTerminationCode why);
/* The body has taken longer than it may: answers that; the connection has to be closed then. */
void cm_http_too_slow(struct cm_request *rq);
/* The client of one that waits or streams is gone, or the server ends. */
void cm_http_gone(struct cm_request *rq);
/* Of one that waits: the answer, or the stream, is there. */
void cm_http_resume(struct cm_request *rq, enum request_state state);
void cm_http_join_waiting(struct cm_request *rq, void (*gone)(void *arg), void *arg);

#endif
