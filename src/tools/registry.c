/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include "base/clock.h"
#include "ev/loop.h"
#include "obs/log.h"
#include "obs/metrics.h"

#define FRESH_NS    CM_NS_PER_S /* a list, or a failure, that is this young is the answer to who asks for a new one */
#define OLD_NS      (30 * CM_NS_PER_S)
#define ATTEMPT_NS  (2 * CM_NS_PER_S) /* for one answer */
#define LEARNED_MAX 1000
#define WHY_MAX     1200

struct cm_registry_wait {
    struct cm_registry_wait *prev, *next; /* of those that wait, or of those that are answered next turn */
    struct cm_registry *r;
    unsigned left; /* attempts */
    cm_registry_done *done;
    void *arg;
    bool good, answered;
    bool next_one; /* the list that is on its way was asked for before */
    struct cm_task task;
};

struct learned {
    UT_hash_handle hh;
    struct cm_tool *tool;
};

struct cm_registry {
    struct cm_loop *loop;
    struct cm_tool_client *service;
    struct cm_metrics *metrics;
    struct cm_toolset *set;
    struct cm_tool_request *request; /* while one is under way */
    struct cm_timer *pause; /* until the next attempt */
    bool pausing;
    unsigned failures; /* attempts that have failed since the last good one */
    unsigned breaks; /* of the service, when the list came */
    uint64_t fetched_ns, failed_ns; /* 0: never */
    uint64_t asked_ns; /* for the newest list, or the one under way */
    struct cm_registry_wait *waiting, *answered;
    struct learned *learned;
    char why[WHY_MAX];
};

static void attempt(struct cm_registry *r);

static void on_pause_over(void *arg)
{
    struct cm_registry *r = arg;

    r->pausing = false;
    attempt(r);
}

struct cm_registry *cm_registry_new(struct cm_loop *loop, struct cm_tool_client *service, struct cm_metrics *metrics,
                                    struct cm_err *err)
{
    struct cm_registry *r = calloc(1, sizeof *r);

    if (!r) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the registry of tools");
        return NULL;
    }
    r->loop = loop;
    r->service = service;
    r->metrics = metrics;
    r->pause = cm_timer_open(loop, on_pause_over, r, err);
    return r->pause ? r : cm_registry_free(r);
}

static void forget(struct cm_registry *r, struct learned *l)
{
    HASH_DEL(r->learned, l);
    free(l->tool);
    free(l);
}

struct cm_registry *cm_registry_free(struct cm_registry *r)
{
    if (!r)
        return NULL;
    while (r->waiting)
        cm_registry_wait_cancel(r->waiting);
    while (r->answered)
        cm_registry_wait_cancel(r->answered);
    if (r->request)
        cm_tool_request_cancel(r->request);
    while (r->learned)
        forget(r, r->learned);
    cm_timer_close(r->pause);
    cm_toolset_unref(r->set);
    free(r);
    return NULL;
}

/* Waiting */

static void on_answer(void *arg)
{
    struct cm_registry_wait *w = arg;
    struct cm_registry *r = w->r;

    DL_DELETE(r->answered, w);
    w->done(w->arg, w->good ? r->set : NULL, r->why);
    free(w);
}

/* In the next turn, so that nobody is called back from inside a call. */
static void answer(struct cm_registry_wait *w, bool good)
{
    w->good = good;
    w->answered = true;
    DL_APPEND(w->r->answered, w);
    cm_task_post(w->r->loop, &w->task, on_answer, w);
}

void cm_registry_wait_cancel(struct cm_registry_wait *w)
{
    if (w->answered) {
        cm_task_cancel(w->r->loop, &w->task);
        DL_DELETE(w->r->answered, w);
    } else {
        DL_DELETE(w->r->waiting, w);
    }
    free(w);
}

static bool is_within(uint64_t then, uint64_t ns)
{
    return then && cm_clock_ns() - then < ns;
}

struct cm_registry_wait *cm_registry_fetch(struct cm_registry *r, unsigned attempts, uint64_t since_ns,
                                           cm_registry_done *done, void *arg, struct cm_err *err)
{
    struct cm_registry_wait *w = calloc(1, sizeof *w);

    if (!w) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory to wait for the list of tools");
        return NULL;
    }
    w->r = r;
    w->left = attempts;
    w->done = done;
    w->arg = arg;
    if (r->failures == 0 && is_within(r->fetched_ns, FRESH_NS) &&
        (since_ns == 0 || (r->asked_ns >= since_ns && !r->request))) {
        answer(w, true);
    } else if (r->failures >= attempts && is_within(r->failed_ns, FRESH_NS)) {
        answer(w, false);
    } else {
        w->next_one = r->request && r->asked_ns < since_ns;
        DL_APPEND(r->waiting, w);
        if (!r->pausing)
            attempt(r);
    }
    return w;
}

/* Fetching */

static void succeed(struct cm_registry *r, struct cm_toolset *set)
{
    struct cm_registry_wait *w, *next;
    struct learned *l, *more;

    if (!r->set || r->failures)
        cm_log(CM_LOG_INFO, "tools_listed", CM_LOG_STR("target", cm_tool_service_target(r->service)),
               CM_LOG_INT("tools", set->count), CM_LOG_INT("left_out", set->left_out));
    cm_toolset_unref(r->set);
    r->set = set;
    r->failures = 0;
    r->fetched_ns = cm_clock_ns();
    r->breaks = cm_tool_service_breaks(r->service);
    HASH_ITER(hh, r->learned, l, more)
    {
        long at = cm_toolset_find(set, l->tool->name, l->tool->name_len);
        if (at < 0 || set->tools[at]->input_schema)
            forget(r, l);
    }
    DL_FOREACH_SAFE(r->waiting, w, next)
    {
        if (w->next_one) {
            w->next_one = false;
            continue;
        }
        DL_DELETE(r->waiting, w);
        answer(w, true);
    }
    if (r->waiting)
        attempt(r);
}

static void fail(struct cm_registry *r, const char *why)
{
    struct cm_registry_wait *w, *next;

    snprintf(r->why, sizeof r->why, "%s", why);
    cm_log(r->failures == 0 ? CM_LOG_WARNING : CM_LOG_DEBUG, "tools_not_listed",
           CM_LOG_STR("target", cm_tool_service_target(r->service)), CM_LOG_STR("reason", why));
    cm_metrics_add(r->metrics, CM_M_TOOL_LIST_FAILURES, 0, 1);
    r->failures++;
    r->failed_ns = cm_clock_ns();
    DL_FOREACH_SAFE(r->waiting, w, next)
    {
        if (--w->left > 0)
            continue;
        DL_DELETE(r->waiting, w);
        answer(w, false);
    }
    if (r->waiting) {
        r->pausing = true;
        cm_timer_start(r->pause, r->failures == 1 ? 500 : 1000, 0);
    }
}

static void on_list(void *arg, const uint8_t *message, size_t len, enum cm_grpc_status status, const char *text)
{
    struct cm_registry *r = arg;
    struct cm_err err = {0};

    (void)status;
    r->request = NULL;
    struct cm_toolset *set = message ? cm_toolset_read(message, len, &err) : NULL;
    if (set)
        succeed(r, set);
    else
        fail(r, message ? err.text : text);
}

static void attempt(struct cm_registry *r)
{
    struct cm_err err;

    if (r->request)
        return;
    r->asked_ns = cm_clock_ns();
    r->request = cm_tool_service_list(r->service, cm_clock_ns() + ATTEMPT_NS, on_list, r, &err);
    if (!r->request)
        fail(r, err.text);
}

struct cm_toolset *cm_registry_set(struct cm_registry *r)
{
    bool old = !is_within(r->fetched_ns, OLD_NS) || r->breaks != cm_tool_service_breaks(r->service);

    if (old && !r->pausing && !is_within(r->failed_ns, FRESH_NS))
        attempt(r);
    return r->set;
}

/* Details */

void cm_registry_learn(struct cm_registry *r, struct cm_tool *tool)
{
    struct learned *l;

    HASH_FIND(hh, r->learned, tool->name, tool->name_len, l);
    if (l)
        forget(r, l);
    l = HASH_COUNT(r->learned) < LEARNED_MAX ? calloc(1, sizeof *l) : NULL;
    if (!l) {
        free(tool);
        return;
    }
    l->tool = tool;
    HASH_ADD_KEYPTR(hh, r->learned, tool->name, tool->name_len, l);
    if (!l->hh.tbl) { /* no memory for the table */
        free(tool);
        free(l);
    }
}

const struct cm_tool *cm_registry_details(struct cm_registry *r, const struct cm_tool *tool)
{
    struct learned *l = NULL;

    if (!tool->input_schema)
        HASH_FIND(hh, r->learned, tool->name, tool->name_len, l);
    return l ? l->tool : tool;
}
