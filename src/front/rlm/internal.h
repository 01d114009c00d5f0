/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_INFER_INTERNAL_H
#define CM_INFER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "access/access.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "conf/rlm.h"
#include "ev/loop.h"
#include "front/rlm/ask.h"
#include "front/rlm/infer.h"
#include "front/rlm/models.h"
#include "front/rlm/trajectory.h"
#include "http/http.h"
#include "obs/metrics.h"
#include "rlm/rlm.h"

#define QUERY_SHOWN 4000 /* bytes of a query in lists */
#define ANSWER_MAX  (128u << 20) /* bytes of one answer */

/* One event of a run, as it goes to followers. */
struct event {
    struct event *next;
    uint64_t id;
    size_t len, data, data_len; /* of the text; where its JSON stands in it */
    enum cm_infer_part part; /* of a trajectory */
    char type; /* its first letter */
    char text[];
};

/* A client that reads a run's events. */
struct follower {
    struct run *run;
    struct cm_request *rq;
    struct event *at; /* the next one for it; NULL: it has all */
    struct follower *prev, *next;
};

/* Who has keys of that name, or everybody where there are no keys: what its requests hold. It goes with the last of that. */
struct holder {
    char name[CM_KEY_NAME_MAX];
    unsigned things;
    unsigned running, kept, contexts, conversations;
    uint64_t run_bytes, context_bytes;
    struct holder *prev, *next;
};

enum run_status { RUN_RUNNING, RUN_SUCCEEDED, RUN_FAILED, RUN_CANCELLED };

struct run {
    struct cm_infer *f;
    struct cm_rlm_run *engine; /* NULL: it has ended */
    enum run_status status;
    struct holder *holder;
    char id[CM_RLM_ID_MAX], created[CM_CLOCK_ISO8601_MAX];
    uint64_t started_ns;
    char *query, *model;
    unsigned max_depth, iterations;
    double seconds;
    char *answer, *partial, *usage; /* of its result; NULL: none */
    size_t answer_len, partial_len;
    struct cm_err err; /* code 0: none */
    struct event *first, *last;
    uint64_t event_count;
    size_t bytes; /* of events and texts */
    struct follower *followers;
    struct conversation *conversation;
    void (*ended)(void *arg, struct run *r); /* or NULL */
    void *ended_arg;
    struct run *prev, *next; /* newest first */
};

/* A context that comes, is checked, or waits for its run: in the list then. It counts from its beginning. */
struct context {
    struct cm_infer *f; /* NULL: it has gone */
    struct holder *holder;
    char id[CM_RLM_ID_MAX];
    int kind, fd;
    uint64_t len, until_ns;
    struct context *prev, *next;
};

struct conversation {
    struct cm_rlm_conversation *engine;
    struct holder *holder;
    bool ending; /* deleted while it had a run */
    uint64_t used_ns;
    struct conversation *prev, *next;
};

/* A stream of an answer, to be kept alive. */
struct alive {
    struct cm_request *rq;
    struct alive *prev, *next;
};

struct cm_infer {
    struct cm_loop *loop;
    struct cm_infer_config config;
    struct cm_http *http;
    struct cm_http_limits limits;
    struct cm_timer *tick, *sweep;
    uint64_t alive_ns; /* when streams were last kept alive */
    bool ticking, sweeping;
    struct holder *holders;
    struct run *runs;
    unsigned run_count, running;
    size_t run_bytes;
    struct context *contexts, *checking; /* those in a thread's hands */
    unsigned context_count;
    uint64_t context_bytes;
    struct conversation *conversations;
    unsigned conversation_count;
    struct alive *streams;
};

static inline struct cm_infer *infer_of(const struct cm_request *rq)
{
    return cm_request_app(rq);
}

/* infer.c */
void infer_fail(struct cm_request *rq, int code, const char *text);
/* The key's name, "" for none. */
const char *infer_owner(const struct cm_request *rq);
/* Starts the timers that what is there now needs. */
void infer_plan(struct cm_infer *f);
/* "error", "detail", "code", "remediation": members without braces. */
int infer_put_error(struct cm_buf *to, const struct cm_err *err);

void infer_local_model(const struct cm_infer *f, struct cm_models_local *ret);

/* shares.c */
struct holder *holders_find(const struct cm_infer *f, const char *name); /* or NULL */
/* One thing more of that name's; NULL without memory. */
struct holder *holders_take(struct cm_infer *f, const char *name);
void holders_leave(struct cm_infer *f, struct holder *h);
/* A room that several may have to share: what is in it, the setting that bounds it, how to make room. */
struct room {
    const char *what, *setting, *relief;
    uint64_t max;
};
/* Whether `more` fits where all together have `all` and the one who asks has `mine`: CM_ERR_OVERLOADED, CM_ERR_KEY_SHARE. */
int shares_check(const struct cm_infer *f, const struct room *room, uint64_t all, uint64_t mine, uint64_t more,
                 struct cm_err *err);

/* runs.c */
struct run_order {
    struct cm_ask *ask; /* its context's descriptor is taken */
    const char *owner, *correlation;
    bool deltas;
    void (*ended)(void *arg, struct run *r);
    void *arg;
};
int runs_start(struct cm_infer *f, const struct run_order *order, struct run **ret, struct cm_err *err);
/* NULL where there is none of that id that this owner may see. */
struct run *runs_find(struct cm_infer *f, const char *id, const char *owner);
void runs_follow(struct run *r, struct cm_request *rq, uint64_t after);
/* Sends what is new to those that lag behind. */
void runs_pump(struct cm_infer *f);
bool runs_lag(const struct cm_infer *f);
void runs_keep_alive(struct cm_infer *f);
/* Forgets what is beyond the bounds. */
void runs_trim(struct cm_infer *f);
void runs_free(struct cm_infer *f);
const char *run_status_name(enum run_status status);
/* Of a run that has ended: 200, 422 when what was asked showed its fault in the session only, else 500. */
unsigned run_http_status(const struct run *r);

/* told.c: answers with it */
void infer_tell_trajectory(struct cm_request *rq, const struct run *r);

/* contexts.c */
/* Before the body comes: of struct cm_http_config. */
int contexts_admit(struct cm_request *rq, struct cm_err *err);
int contexts_grow(struct cm_request *rq, uint64_t len, struct cm_err *err);
void contexts_over(struct cm_request *rq);
struct context *contexts_find(struct cm_infer *f, const char *id, const char *owner);
void contexts_drop(struct cm_infer *f, struct context *c);
void contexts_sweep(struct cm_infer *f, uint64_t now);
void contexts_free(struct cm_infer *f);

/* conversations.c */
struct conversation *conversations_find(struct cm_infer *f, const char *id, const char *owner);
void conversations_run_ended(struct cm_infer *f, struct conversation *c);
void conversations_sweep(struct cm_infer *f, uint64_t now);
void conversations_free(struct cm_infer *f);

/* chat.c */
void chat_answer(struct cm_request *rq, const struct cm_ask *ask, const struct run *r);
/* The words of a stream that has begun, and its end. */
void chat_begin_stream(struct cm_request *rq, const struct cm_ask *ask, const struct run *r);
void chat_end_stream(struct cm_request *rq, const struct cm_ask *ask, const struct run *r);
/* 0, or CM_ERR_NOT_FOUND for a model that there is not. */
int chat_take_model(struct cm_ask *ask, struct cm_err *err);
int chat_error_body(const struct cm_err *err, unsigned status, struct cm_buf *to);

/* The handlers of rlm_routes.def */
#define CM_ROUTE(method, path, handler, body, key) void cm_infer_##handler(struct cm_request *rq);
#include "rlm_routes.def"
#undef CM_ROUTE

#endif
