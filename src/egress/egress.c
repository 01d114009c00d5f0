/* SPDX-License-Identifier: Apache-2.0 */
/* curl must not be called from inside its own callbacks, but our callers' callbacks are called from there, and they start
 * and cancel. So beginning and cancelling are always work for the next turn, which a fetch's own task does; a fetch that is
 * cancelled says nothing more to its caller and does not touch the caller's body from that moment on.
 *
 * The limit of connections is kept here, in a queue: curl has one too, but a request that waits there cannot be told from
 * one that is connecting, and so has no right timeouts. */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/clock.h"
#include "egress/internal.h"

static void collect(struct cm_egress *e);

/* curl's watches and its timer */

static void on_ready(void *arg, int events);

/* Goes with a socket as long as curl watches it. */
struct socket {
    struct cm_egress *e;
    struct cm_watch *watch;
    curl_socket_t fd;
};

static void on_ready(void *arg, int events)
{
    struct socket *s = arg;
    struct cm_egress *e = s->e;
    int running, ours = (events & CM_EV_READ ? CURL_CSELECT_IN : 0) | (events & CM_EV_WRITE ? CURL_CSELECT_OUT : 0);

    curl_multi_socket_action(e->multi, s->fd, ours, &running);
    collect(e);
}

static int forget_socket(struct cm_egress *e, struct socket *s)
{
    curl_multi_assign(e->multi, s->fd, NULL);
    cm_watch_close(s->watch);
    free(s);
    return 0;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned)
{
    struct cm_egress *e = arg;
    struct socket *s = assigned;
    int events = (what & CURL_POLL_IN ? CM_EV_READ : 0) | (what & CURL_POLL_OUT ? CM_EV_WRITE : 0);

    (void)easy;
    if (what == CURL_POLL_REMOVE)
        return s ? forget_socket(e, s) : 0;
    if (s) {
        cm_watch_set(s->watch, events);
        return 0;
    }
    s = calloc(1, sizeof *s);
    if (!s)
        return -1;
    *s = (struct socket){.e = e, .fd = fd};
    s->watch = cm_watch_open(e->loop, fd, events, on_ready, s, NULL);
    if (!s->watch) {
        free(s);
        return -1;
    }
    curl_multi_assign(e->multi, fd, s);
    return 0;
}

static void on_timer(void *arg)
{
    struct cm_egress *e = arg;
    int running;

    curl_multi_socket_action(e->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(e);
}

static int on_timeout_wanted(CURLM *multi, long ms, void *arg)
{
    struct cm_egress *e = arg;

    (void)multi;
    if (ms < 0)
        cm_timer_stop(e->timer);
    else
        cm_timer_start(e->timer, (uint64_t)ms, 0);
    return 0;
}

/* A fetch from its beginning to its end */

static void set_running(struct cm_fetch *f, bool running)
{
    struct cm_egress *e = f->e;

    f->running = running;
    e->running += running ? 1u : -1u;
    if (!f->beside)
        e->counted += running ? 1u : -1u;
    /* What curl keeps when one more has ended: it counts those that are in use, too, and takes 0 for another word. */
    long keep = (long)(e->running + e->idle_max) - 1;
    curl_multi_setopt(e->multi, CURLMOPT_MAXCONNECTS, keep > 0 ? keep : 1L);
}

static void withdraw(struct cm_fetch *f)
{
    if (f->queued)
        DL_DELETE2(f->e->queue, f, queue_prev, queue_next);
    f->queued = false;
    if (!f->running)
        return;
    curl_multi_remove_handle(f->e->multi, f->easy);
    set_running(f, false);
}

static void dispose(struct cm_fetch *f)
{
    withdraw(f);
    cm_task_cancel(f->e->loop, &f->task);
    DL_DELETE(f->e->all, f);
    cm_fetch_dispose(f);
}

static void work(void *arg);

static void admit_next(struct cm_egress *e)
{
    if (e->queue && e->counted < e->connections_max)
        cm_task_post(e->loop, &e->queue->task, work, e->queue);
}

static void finish(struct cm_fetch *f, CURLcode code)
{
    struct cm_egress *e = f->e;
    struct cm_fetch_end end;

    if (f->state != CANCELLED) {
        cm_fetch_conclude(f, code, &end);
        withdraw(f);
        f->state = ENDED;
        f->timer = cm_timer_close(f->timer);
        f->ops.done(f->arg, &end);
    }
    dispose(f);
    admit_next(e);
}

static void collect(struct cm_egress *e)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(e->multi, &left))) {
        struct cm_fetch *f;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &f);
        finish(f, code);
    }
}

/* Nanoseconds until time can be up at the earliest; 0: it is. */
static uint64_t wait_ns(const struct cm_fetch *f, uint64_t now)
{
    uint64_t until = UINT64_MAX;

    if (f->total_ns > 0)
        until = f->start_ns + f->total_ns;
    if (f->idle_ns > 0) {
        uint64_t idle = (f->moved_ns ? f->moved_ns : now) + f->idle_ns;
        until = idle < until ? idle : until;
    }
    return until <= now ? 0 : until - now;
}

/* Looks again when it could be, not at each byte. */
static void on_deadline(void *arg)
{
    struct cm_fetch *f = arg;
    uint64_t wait = wait_ns(f, cm_clock_ns());

    if (wait > 0) {
        cm_timer_start(f->timer, wait / CM_NS_PER_MS + 1, 0);
    } else {
        f->why = CM_FETCH_TIMEOUT;
        finish(f, CURLE_OPERATION_TIMEDOUT);
    }
}

static void work(void *arg)
{
    struct cm_fetch *f = arg;
    struct cm_egress *e = f->e;

    if (f->state == CANCELLED) {
        dispose(f);
        admit_next(e);
    } else if (f->state == NEW && (f->beside || e->counted < e->connections_max)) {
        withdraw(f);
        f->state = RUNNING;
        if (curl_multi_add_handle(e->multi, f->easy) == CURLM_OK)
            set_running(f, true);
        else
            finish(f, CURLE_OUT_OF_MEMORY);
        admit_next(e);
    } else if (f->state == NEW && !f->queued) {
        DL_APPEND2(e->queue, f, queue_prev, queue_next);
        f->queued = true;
    }
}

int cm_fetch_start(struct cm_egress *e, const struct cm_fetch_request *req, const struct cm_fetch_ops *ops, void *arg,
                   struct cm_fetch **ret, struct cm_err *err)
{
    struct cm_fetch *f = calloc(1, sizeof *f);

    if (!f)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request");
    *f = (struct cm_fetch){
        .e = e, .ops = *ops, .arg = arg, .beside = req->beside, .body_fd = -1, .start_ns = cm_clock_ns()};
    int rc = cm_fetch_set_up(f, req, err);
    if (rc == 0 && (f->idle_ns > 0 || f->total_ns > 0)) {
        f->timer = cm_timer_open(e->loop, on_deadline, f, err);
        rc = f->timer ? 0 : CM_ERR_NO_MEMORY;
    }
    if (rc < 0) {
        cm_fetch_dispose(f);
        return rc;
    }
    if (f->timer)
        cm_timer_start(f->timer, wait_ns(f, f->start_ns) / CM_NS_PER_MS + 1, 0);
    DL_APPEND(e->all, f);
    cm_task_post(e->loop, &f->task, work, f);
    *ret = f;
    return 0;
}

void cm_fetch_cancel(struct cm_fetch *f)
{
    if (!f || f->state == ENDED)
        return;
    f->state = CANCELLED;
    f->timer = cm_timer_close(f->timer);
    cm_task_post(f->e->loop, &f->task, work, f);
}

/* The room */

int cm_egress_open(struct cm_loop *loop, const struct cm_egress_config *config, struct cm_egress **ret,
                   struct cm_err *err)
{
    static bool initialized; /* by the one thread that has the loop */
    struct cm_egress *e = calloc(1, sizeof *e);

    if (!e)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for outgoing requests");
    *e = (struct cm_egress){
        .loop = loop, .connections_max = config->connections_max, .idle_max = config->idle_connections_max};
    e->timer = cm_timer_open(loop, on_timer, e, err);
    if (!initialized)
        initialized = curl_global_init(CURL_GLOBAL_DEFAULT) == 0;
    e->multi = initialized ? curl_multi_init() : NULL;
    e->ca_file = config->ca_file ? strdup(config->ca_file) : NULL;
    if (!e->timer || !e->multi || (config->ca_file && !e->ca_file)) {
        cm_egress_free(e);
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for outgoing requests");
    }
    if (e->connections_max == 0)
        e->connections_max = 1;
    curl_multi_setopt(e->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(e->multi, CURLMOPT_SOCKETDATA, e);
    curl_multi_setopt(e->multi, CURLMOPT_TIMERFUNCTION, on_timeout_wanted);
    curl_multi_setopt(e->multi, CURLMOPT_TIMERDATA, e);
    *ret = e;
    return 0;
}

struct cm_egress *cm_egress_free(struct cm_egress *e)
{
    if (!e)
        return NULL;
    while (e->all)
        dispose(e->all);
    if (e->multi)
        curl_multi_cleanup(e->multi); /* closes connections and with them the watches */
    cm_timer_close(e->timer);
    free(e->ca_file);
    free(e);
    return NULL;
}
