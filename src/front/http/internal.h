/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share. */
#ifndef CM_HTTP_INTERNAL_H
#define CM_HTTP_INTERNAL_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "access/access.h"
#include "base/buf.h"
#include "conf/conf.h"
#include "ev/loop.h"
#include "executor/executor.h"
#include "front/http/http.h"
#include "session/session.h"

#define CORRELATION_MAX 128
#define CONN_MAGIC      0x434f4e4eu
#define REQUEST_MAGIC   0x52455155u

struct cm_http {
    struct cm_loop *loop;
    const struct cm_conf *conf;
    struct cm_sessions *sessions;
    struct cm_executor *executor;
    struct cm_metrics *metrics;
    struct cm_access *access; /* NULL: everybody may call */
    struct MHD_Daemon *daemon;
    struct cm_watch *daemon_watch; /* the daemon's own epoll descriptor */
    struct cm_watch *hangup_watch;
    unsigned connections;
    void (*left)(void *arg);
    void *left_arg;
    struct cm_timer *tick;    /* lets the daemon see its idle connections */
    struct cm_task run_task;  /* the daemon has something to do: a resumed connection, or bytes left over */
    struct request *waiting;  /* list of the suspended requests */
    struct conn *conns;       /* list of the connections */
    int hangup_fd; /* an epoll of all client sockets, for their hang-ups only */
    bool draining, closing;
    bool loopback;           /* nobody from outside can connect */
    struct cm_limits caps;   /* the most that a request may ask for */
    size_t answer_max;       /* bytes of one answer */
    size_t held;             /* bytes of all request bodies in memory */
    size_t unread;           /* bytes of all answers that are under way */
    char id_seed[17];        /* of the correlation ids that we make */
    uint64_t id_count;
};

struct conn {
    unsigned magic;
    int fd;
    bool hung; /* the client has closed its side */
    struct request *receiving; /* whose body has not ended yet */
    struct request *waiting;
    struct conn *prev, *next;
    uint64_t head_until_ns; /* when the next request's head must be there; 0 = it is */
};

/* What the path's variable parts hold; empty where it has none. */
struct ids {
    char session[CM_SESSION_ID_MAX], execution[CM_SESSION_ID_MAX];
};

enum body_rule { BODY_NONE, BODY_OPTIONAL, BODY_JSON };
enum key_rule { KEY_OPEN, KEY_KEY };

struct request;
struct route {
    const char *method, *path;
    void (*handle)(struct request *rq);
    enum body_rule body;
    enum key_rule key;
};

/* RECEIVING -> ANSWERED, or RECEIVING -> WAITING -> ANSWERED or GONE. */
enum request_state { RECEIVING, WAITING, ANSWERED, GONE };

struct answer {
    unsigned status; /* 0 = there is none */
    struct cm_buf body;
    const char *content_type, *allow;
    char allow_text[64];
    struct cm_output_info output; /* of an answer that is one */
    bool has_output;
    unsigned retry_after; /* seconds; 0 = nothing is said */
    bool repeated; /* it is the answer of an earlier request */
    bool close;
};

/* One request. Shared by the daemon's connection and, while a session is being created, by that creation. */
struct request {
    unsigned magic, refs;
    struct cm_http *http; /* this and the next two are NULL once the daemon is done with the request */
    struct MHD_Connection *mhd;
    struct conn *conn;
    const struct route *route;
    const struct cm_key *key; /* who asks; NULL where no key is needed */
    size_t drop_max;          /* bytes of a refused body that are read for nothing */
    enum request_state state;
    struct request *prev, *next; /* in http->waiting */
    struct cm_run *run;          /* while an execution waits or runs */
    struct cm_buf body;
    uint64_t started_ns, received; /* received: bytes of body, also the dropped ones */
    size_t unread;                 /* its part of http->unread */
    struct ids ids;
    char correlation[CORRELATION_MAX + 1];
    bool correlation_is_clients;
    char method[8], path[128]; /* for the log, cut */
    struct answer answer;
};

/* The headers that decide something, as the client sent them; NULL where there is none. */
struct headers {
    const char *host, *origin, *content_type, *content_length, *transfer_encoding, *expect, *correlation;
    const char *authorization, *api_key, *idempotency_key, *session;
    const char *twice; /* name of one that may appear only once and did not */
    bool malformed;
    bool page; /* a header that browsers send and other programs have no reason to */
};

/* routes.c: finds the route and the ids in the path. 0, CM_ERR_NOT_FOUND or, with `allow` filled, CM_ERR_METHOD. */
int cm_http_route(const char *method, const char *path, const struct route **ret, struct ids *ids,
                  char allow[static 64], struct cm_err *err);

/* guard.c */
void cm_http_headers(struct MHD_Connection *mhd, struct headers *ret);
/* Framing, origin, host and content type. Errors: BAD_REQUEST, FORBIDDEN, MEDIA_TYPE. */
int cm_http_guard(const struct cm_http *h, const struct route *route, const struct headers *hd, struct cm_err *err);
/* The given id, or a new one when there is none that could be logged: false then. */
bool cm_http_correlation(struct cm_http *h, const char *given, char ret[static CORRELATION_MAX + 1]);
bool cm_http_origin_allowed(const char *origin, const char *allowed);
bool cm_http_host_is_local(const char *host);

/* answer.c: set rq->answer. */
void cm_http_answer_error(struct request *rq, const struct cm_err *err);
void cm_http_answer_text(struct request *rq, unsigned status, const char *json);
/* Takes the buffer's contents; JSON unless content_type says otherwise. `rc` is the result of writing them:
 * negative answers that error instead. */
void cm_http_answer_buf(struct request *rq, unsigned status, struct cm_buf *body, int rc);
/* Hands the answer to the daemon. */
enum MHD_Result cm_http_send(struct request *rq);
/* Sends an error past the daemon, which cannot answer before the end of a body; close the connection after it. */
void cm_http_send_raw(struct request *rq, const struct cm_err *err);

/* result.c. `correlation`, not NULL, makes it the answer of POST /execute. */
int cm_http_write_result(struct cm_buf *buf, const struct cm_exec_result *res, const char *session_id,
                         const char *execution_id, const char *correlation);

/* server.c: lets the daemon do what there is to do; not from its own callbacks. */
void cm_http_run(struct cm_http *h);

/* request.c */
enum MHD_Result cm_http_on_request(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                                   const char *version, const char *data, size_t *len, void **state);
void cm_http_on_completed(void *cls, struct MHD_Connection *mhd, void **state, enum MHD_RequestTerminationCode why);
/* The body has taken longer than BODY_TIMEOUT: answers that; the connection has to be closed then. */
void cm_http_too_slow(struct request *rq);
/* The handler's answer comes later: parks the connection. */
void cm_http_wait(struct request *rq);
/* The answer of a waiting request is set. */
void cm_http_resume(struct request *rq);
/* The client of a waiting request is gone, or the server ends. */
void cm_http_gone(struct request *rq);
void cm_http_drop_body(struct request *rq);
struct request *cm_http_ref(struct request *rq);
void cm_http_unref(struct request *rq);

#define CM_ROUTE(method, path, handler, body, key) void cm_http_##handler(struct request *rq);
#include "routes.def"
#undef CM_ROUTE

#endif
