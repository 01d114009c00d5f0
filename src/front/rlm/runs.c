/* SPDX-License-Identifier: Apache-2.0 */
/* Runs: those that work, and the newest of those that have ended, with their events.
 *
 * Events are kept as the bytes that followers get. A follower has a place in that list and moves on as its client reads; who
 * is slow loses what is dropped at the front meanwhile, and is told so by the gap in the ids.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "front/rlm/internal.h"
#include "obs/log.h"

#define BACKLOG_MAX  (32u << 20) /* of one follower: one event, however large */
#define BACKLOG_FULL (1u << 20) /* no more is given to who has as much */
#define EVENT_MAX    (16u << 20)

#define TRIMMED_AT_ONCE 100

static void on_event(void *arg, const char *type, const char *json, size_t len);
static void on_done(void *arg, const struct cm_rlm_result *res);
static const struct cm_rlm_ops engine_ops = {on_event, on_done};

unsigned run_http_status(const struct run *r)
{
    if (r->status == RUN_SUCCEEDED)
        return 200;
    return r->err.code == CM_ERR_BAD_FIELD ? 422 : 500;
}

const char *run_status_name(enum run_status status)
{
    static const char *const status_names[] = {"running", "succeeded", "failed", "cancelled"};

    return status_names[status];
}

/* Memory */

static void count_bytes(struct run *r, size_t more, size_t less)
{
    r->bytes += more - less;
    r->f->run_bytes += more - less;
    r->holder->run_bytes += more - less;
}

/* Followers that would have got it get the next one. */
static void drop_event(struct run *r, struct event *before, struct event *e)
{
    struct follower *w;

    DL_FOREACH(r->followers, w)
    if (w->at == e)
        w->at = e->next;
    if (before)
        before->next = e->next;
    else
        r->first = e->next;
    if (r->last == e)
        r->last = before;
    count_bytes(r, 0, e->len + sizeof *e);
    free(e);
}

static void drop_events(struct run *r)
{
    while (r->first)
        drop_event(r, NULL, r->first);
}

static void drop_part(struct run *r, size_t max, enum cm_infer_part part)
{
    struct event *before = NULL, *e = r->first;

    while (e && r->bytes > max) {
        struct event *next = e->next;
        if (e->part != part)
            before = e;
        else
            drop_event(r, before, e);
        e = next;
    }
}

/* What a trajectory needs goes last. */
static void bound_events(struct run *r, size_t max)
{
    drop_part(r, max, CM_PART_NONE);
    drop_part(r, max, CM_PART_CHILD);
    while (r->first && r->first != r->last && r->bytes > max)
        drop_event(r, NULL, r->first);
}

static void free_run(struct run *r)
{
    struct cm_infer *f = r->f;

    while (r->followers) {
        struct follower *w = r->followers;
        DL_DELETE(r->followers, w);
        free(w);
    }
    drop_events(r);
    count_bytes(r, 0, r->bytes);
    DL_DELETE(f->runs, r);
    f->run_count--;
    if (r->engine) {
        f->running--;
        r->holder->running--;
    } else {
        r->holder->kept--;
    }
    holders_leave(f, r->holder);
    free(r->query);
    free(r->model);
    free(r->answer);
    free(r->partial);
    free(r->usage);
    free(r);
}

static void cut_followers(struct run *r)
{
    while (r->followers) {
        struct follower *w = r->followers;
        DL_DELETE(r->followers, w);
        cm_request_end(w->rq, true);
        free(w);
    }
}

/* Which of the runs that have ended goes next */

enum victim { EVENTS_OF, UNFOLLOWED, ANY };

static bool can_go(const struct run *r, enum victim which)
{
    return !r->engine && (which == ANY || !r->followers) && (which != EVENTS_OF || r->first);
}

static uint64_t weight(const struct holder *h, bool many)
{
    return many ? h->kept : h->run_bytes;
}

/* The oldest one of the key that has most, so that no key can drive out what others keep. NULL: none can go. */
static struct run *victim(const struct cm_infer *f, enum victim which, bool many)
{
    struct run *found = NULL;

    for (struct run *r = f->runs ? f->runs->prev : NULL; r; r = r == f->runs ? NULL : r->prev)
        if (can_go(r, which) && (!found || weight(r->holder, many) > weight(found->holder, many)))
            found = r;
    return found;
}

/* Those that ended first lose their events first, then themselves. Who is followed goes last, and only for want of room: a
 * client that reads slowly would keep its run's answer for as long as it likes. After bounds were lowered it takes several
 * calls. */
void runs_trim(struct cm_infer *f)
{
    const struct cm_rlm_conf *c = f->config.conf;
    struct run *r = NULL;

    for (unsigned n = 0; n < TRIMMED_AT_ONCE; n++) {
        bool many = f->run_count - f->running > c->kept_runs;
        bool large = f->run_bytes > c->total_run_events;
        if (large && (r = victim(f, EVENTS_OF, false))) {
            drop_events(r);
            continue;
        }
        r = many ? victim(f, UNFOLLOWED, true) : NULL;
        if (!r && large && !(r = victim(f, UNFOLLOWED, false)))
            r = victim(f, ANY, false);
        if (!r)
            return;
        cut_followers(r);
        free_run(r);
    }
}

void runs_free(struct cm_infer *f)
{
    while (f->runs) {
        struct run *r = f->runs;
        if (r->engine && r->ended) /* its client has gone by now */
            r->ended(r->ended_arg, r);
        free_run(r);
    }
}

/* Followers */

static void end_follower(struct follower *w)
{
    DL_DELETE(w->run->followers, w);
    cm_request_end(w->rq, false);
    free(w);
}

static void on_gone(void *arg)
{
    struct follower *w = arg;

    DL_DELETE(w->run->followers, w);
    free(w);
}

/* An event that is too large for any client is left out. */
static void pump(struct follower *w)
{
    while (w->at && cm_request_backlog(w->rq) < BACKLOG_FULL) {
        int rc = cm_request_write(w->rq, w->at->text, w->at->len);
        if (rc < 0 && cm_request_backlog(w->rq) > 0)
            return;
        w->at = w->at->next;
    }
    if (!w->at && !w->run->engine)
        end_follower(w);
}

static void pump_run(struct run *r)
{
    struct follower *w, *next;

    DL_FOREACH_SAFE(r->followers, w, next)
    pump(w);
}

void runs_pump(struct cm_infer *f)
{
    struct run *r;

    DL_FOREACH(f->runs, r)
    pump_run(r);
}

bool runs_lag(const struct cm_infer *f)
{
    struct run *r;

    DL_FOREACH(f->runs, r)
    if (r->followers)
        return true;
    return false;
}

void runs_keep_alive(struct cm_infer *f)
{
    struct run *r;
    struct follower *w;

    DL_FOREACH(f->runs, r)
    DL_FOREACH(r->followers, w)
    if (cm_request_backlog(w->rq) == 0)
        cm_request_write(w->rq, ":\n\n", 3);
}

void runs_follow(struct run *r, struct cm_request *rq, uint64_t after)
{
    struct follower *w = calloc(1, sizeof *w);

    if (!w) {
        infer_fail(rq, CM_ERR_NO_MEMORY, "no memory for a stream");
        return;
    }
    *w = (struct follower){.run = r, .rq = rq, .at = r->first};
    while (w->at && w->at->id <= after)
        w->at = w->at->next;
    DL_APPEND(r->followers, w);
    cm_request_stream(rq, "text/event-stream; charset=utf-8", BACKLOG_MAX, on_gone, w);
    cm_request_write(rq, ":\n\n", 3); /* so that the client has its headers at once */
    pump(w);
    infer_plan(r->f);
}

/* What the engine says */

static struct event *new_event(struct run *r, const char *type, const char *json, size_t len)
{
    char head[128];
    int head_len =
        snprintf(head, sizeof head, "event: %.40s\nid: %llu\ndata: ", type, (unsigned long long)r->event_count + 1);
    struct event *e = len > EVENT_MAX ? NULL : malloc(sizeof *e + (size_t)head_len + len + 3);

    if (!e)
        return NULL;
    *e = (struct event){.id = ++r->event_count, .data = (size_t)head_len, .data_len = len, .type = type[0]};
    memcpy(e->text, head, (size_t)head_len);
    memcpy(e->text + head_len, json, len);
    memcpy(e->text + head_len + len, "\n\n", 3);
    e->len = (size_t)head_len + len + 2;
    return e;
}

/* Without memory it is missing; so is one that is larger than any that there should be. */
static void on_event(void *arg, const char *type, const char *json, size_t len)
{
    struct run *r = arg;
    struct follower *w;
    struct event *e = new_event(r, type, json, len);

    if (!e)
        return;
    e->part = cm_infer_trajectory_part(type, json, len);
    if (r->last)
        r->last->next = e;
    else
        r->first = e;
    r->last = e;
    count_bytes(r, e->len + sizeof *e, 0);
    DL_FOREACH(r->followers, w)
    if (!w->at)
        w->at = e;
    pump_run(r);
    bound_events(r, r->f->config.conf->run_events);
    runs_trim(r->f);
}

static char *keep(struct run *r, const char *text, size_t len)
{
    char *copy = text ? malloc(len + 1) : NULL;

    if (!copy)
        return NULL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    count_bytes(r, len, 0);
    return copy;
}

static enum cm_label_run outcome(const struct run *r)
{
    int code = r->err.code;

    if (r->status == RUN_SUCCEEDED)
        return CM_L_RUN_SUCCEEDED;
    if (r->status == RUN_CANCELLED)
        return CM_L_RUN_CANCELLED;
    return code == CM_ERR_LIMIT_TIMEOUT || code == CM_ERR_LIMIT_TOKENS || code == CM_ERR_LIMIT_BUDGET ||
                   code == CM_ERR_LIMIT_ERRORS
               ? CM_L_RUN_LIMIT
               : CM_L_RUN_FAILED;
}

static void count_end(struct run *r)
{
    struct cm_metrics *m = r->f->config.metrics;

    cm_metrics_add(m, CM_M_RLM_RUNS, outcome(r), 1);
    cm_metrics_set(m, CM_M_RLM_RUNNING, 0, r->f->running);
    cm_metrics_observe_ns(m, CM_M_RLM_DURATION, cm_clock_ns() - r->started_ns);
    cm_log(CM_LOG_INFO, "run_ended", CM_LOG_STR("run", r->id), CM_LOG_STR("status", run_status_name(r->status)),
           CM_LOG_STR("code", r->err.code ? cm_err_info(r->err.code)->short_name : NULL),
           CM_LOG_INT("iterations", r->iterations), CM_LOG_REAL("seconds", r->seconds));
}

static void on_done(void *arg, const struct cm_rlm_result *res)
{
    struct run *r = arg;
    struct cm_infer *f = r->f;

    r->engine = NULL;
    r->holder->running--;
    r->holder->kept++;
    r->err = res->err;
    r->status = res->err.code == CM_ERR_CANCELLED ? RUN_CANCELLED : res->answer ? RUN_SUCCEEDED : RUN_FAILED;
    r->answer = keep(r, res->answer, res->answer_len);
    r->answer_len = r->answer ? res->answer_len : 0;
    r->partial = res->partial_len > 0 ? keep(r, res->partial, res->partial_len) : NULL;
    r->partial_len = r->partial ? res->partial_len : 0;
    r->usage = keep(r, res->usage, res->usage ? strlen(res->usage) : 0);
    r->iterations = res->iterations;
    r->seconds = res->seconds;
    f->running--;
    count_end(r);
    if (r->conversation)
        conversations_run_ended(f, r->conversation);
    r->conversation = NULL;
    pump_run(r);
    if (r->ended)
        r->ended(r->ended_arg, r);
    runs_trim(f);
}

/* Start */

static char *copy_cut(const char *text, size_t max)
{
    size_t len = strlen(text);

    if (len > max)
        len = max - cm_utf8_cut_end(text, max);
    return strndup(text, len);
}

static struct run *new_run(struct cm_infer *f, const struct run_order *o, const struct cm_rlm_request *req)
{
    struct holder *h = holders_take(f, o->owner);
    struct run *r = h ? calloc(1, sizeof *r) : NULL;

    if (!r) {
        if (h)
            holders_leave(f, h);
        return NULL;
    }
    *r = (struct run){.f = f,
                      .holder = h,
                      .started_ns = cm_clock_ns(),
                      .max_depth = req->limits.max_depth,
                      .ended = o->ended,
                      .ended_arg = o->arg};
    cm_clock_iso8601(r->created);
    r->query = copy_cut(req->query ? req->query : "", QUERY_SHOWN);
    r->model = strdup(req->models[0].name);
    if (r->query && r->model)
        return r;
    holders_leave(f, h);
    free(r->query);
    free(r->model);
    free(r);
    return NULL;
}

/* With a descriptor of its own: a run that cannot start now has not used it up. */
static int fill_context(struct cm_infer *f, const struct run_order *o, struct context **ret, struct cm_err *err)
{
    struct cm_rlm_context *to = &o->ask->req.context;
    struct context *c = contexts_find(f, o->ask->context_id, o->owner);

    if (!c)
        return cm_err_set(err, CM_ERR_NO_CONTEXT, "there is no context \"%.60s\"", o->ask->context_id);
    to->kind = c->kind;
    to->len = c->len;
    to->fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
    *ret = c;
    return to->fd < 0 ? cm_err_sys(err, errno, "context") : 0;
}

/* The names in a request become what they stand for. */
static int fill_request(struct cm_infer *f, const struct run_order *o, char *space, struct conversation **ret,
                        struct context **ret_context, struct cm_err *err)
{
    struct cm_ask *a = o->ask;
    struct cm_models_local local;
    const char *reason = "";

    infer_local_model(f, &local);
    if (!cm_models_configured(f->config.conf) && !local.url && !f->config.ready(f->config.arg, &reason))
        return cm_err_set(err, CM_ERR_NOT_READY, "%s", reason);
    cm_models_fill(f->config.conf, &local, a->model, a->recursive, a->recursive_count, space, &a->req);
    for (unsigned i = 0; i < a->req.models_count; i++)
        a->req.models[i].sampling = a->sampling;
    a->req.correlation = o->correlation;
    a->req.key = cm_access_shared(f->config.access) ? o->owner : NULL;
    a->req.deltas = o->deltas;
    if (a->conversation_id) {
        *ret = conversations_find(f, a->conversation_id, o->owner);
        if (!*ret)
            return cm_err_set(err, CM_ERR_NO_CONVERSATION, "there is no conversation \"%.60s\"", a->conversation_id);
        a->req.conversation = (*ret)->engine;
    }
    return a->context_id ? fill_context(f, o, ret_context, err) : 0;
}

static int check_share(const struct cm_infer *f, const char *owner, struct cm_err *err)
{
    const struct room room = {"runs at once", "MAX_RUNS", "wait until one ends, or cancel one",
                              f->config.conf->max_runs};
    const struct holder *h = holders_find(f, owner);

    return shares_check(f, &room, f->running, h ? h->running : 0, 1, err);
}

int runs_start(struct cm_infer *f, const struct run_order *o, struct run **ret, struct cm_err *err)
{
    char space[CM_MODELS_SPACE];
    struct conversation *c = NULL;
    struct context *context = NULL;
    int rc = check_share(f, o->owner, err);

    if (rc == 0)
        rc = fill_request(f, o, space, &c, &context, err);
    struct run *r = rc < 0 ? NULL : new_run(f, o, &o->ask->req);

    cm_metrics_add(f->config.metrics, CM_M_RLM_REQUESTS, 0, 1);
    if (!r)
        return rc < 0 ? rc : cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a run");
    DL_PREPEND(f->runs, r);
    f->run_count++;
    rc = cm_rlm_start(f->config.engine, &o->ask->req, &engine_ops, r, &r->engine, err);
    o->ask->req.context.fd = -1; /* the engine's */
    if (rc < 0) {
        r->engine = NULL;
        r->holder->kept++; /* as one that has ended */
        free_run(r);
        return rc;
    }
    r->holder->running++;
    if (context)
        contexts_drop(f, context);
    snprintf(r->id, sizeof r->id, "%s", cm_rlm_run_id(r->engine));
    r->conversation = c;
    f->running++;
    cm_metrics_set(f->config.metrics, CM_M_RLM_RUNNING, 0, f->running);
    cm_log(CM_LOG_INFO, "run_started", CM_LOG_STR("run", r->id), CM_LOG_STR("model", r->model),
           CM_LOG_STR("key", *o->owner ? o->owner : NULL), CM_LOG_STR("correlation_id", o->correlation));
    *ret = r;
    return 0;
}

struct run *runs_find(struct cm_infer *f, const char *id, const char *owner)
{
    struct run *r;

    DL_FOREACH(f->runs, r)
    if (*id && strcmp(r->id, id) == 0 && strcmp(r->holder->name, owner) == 0)
        return r;
    return NULL;
}
