/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions against the stand-in sandbox: real processes, scripted workers. Include it in one file of a program. */
#ifndef CM_TESTS_SESSION_WORLD_H
#define CM_TESTS_SESSION_WORLD_H
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "ev/loop.h"
#include "obs/metrics.h"
#include "session/session.h"

/* A test's world: the loop runs until what is awaited has happened, or ten seconds are over. */
struct world {
    struct cm_loop *loop;
    struct cm_metrics *metrics;
    struct cm_sessions *m;
    struct cm_timer *limit, *tick;
    const bool *awaited;
    const struct cm_limits_asked *asked; /* of the next session */
    bool created, drained;
    char id[CM_SESSION_ID_MAX];
    struct cm_err err;
};

/* What one execution answered. */
struct answer {
    struct world *w;
    struct cm_exec *exec;
    struct cm_exec_result res; /* numbers only; the texts are below */
    size_t streamed;
    int code; /* of the error, 0 with a result */
    unsigned order;
    char err[CM_ERR_TEXT_MAX], out[4096], error[200], error_type[40], result[100], locals[200];
    bool done, abandon_on_output, delete_on_done, atomic;
    struct answer *abandon_on_done; /* another one that nobody waits for from then on */
};

static unsigned order;

static inline void on_limit(void *arg)
{
    struct world *w = arg;
    w->awaited = NULL;
    cm_loop_stop(w->loop);
}

static inline void look(struct world *w)
{
    if (w->awaited && *w->awaited)
        cm_loop_stop(w->loop);
}

static inline void on_tick(void *arg)
{
    look(arg);
}

static inline void await(struct world *w, const bool *what)
{
    w->awaited = what;
    if (!*what)
        cm_loop_run(w->loop);
    if (!*what)
        fail_msg("waited in vain");
    w->awaited = NULL;
}

static inline void run_for(struct world *w, unsigned ms)
{
    static const bool never = false;
    struct cm_timer *t = cm_timer_open(w->loop, on_limit, w, NULL);

    w->awaited = &never;
    cm_timer_start(t, ms, 0);
    cm_loop_run(w->loop);
    cm_timer_close(t);
}

#define STANDARD_LIMITS                                                                                                \
    [CM_LIMIT_CPU_TIME] = 9, [CM_LIMIT_MEMORY] = 1 << 20, [CM_LIMIT_OUTPUT] = 1000, [CM_LIMIT_RESULT] = 1000,          \
    [CM_LIMIT_LOCALS] = 1000, [CM_LIMIT_RECURSION] = 1000, [CM_LIMIT_CODE_LENGTH] = 64 << 20, [CM_LIMIT_FILES] = 100,  \
    [CM_LIMIT_FILE_BYTES] = 1 << 20, [CM_LIMIT_QUEUE] = 2, [CM_LIMIT_TOOL_CALLS] = 600,                                \
    [CM_LIMIT_TOOL_ARGUMENT] = 1000, [CM_LIMIT_TOOL_RESULT] = 1000, [CM_LIMIT_TOOL_TIMEOUT] = 5

static const struct cm_sessions_config standard = {
    .image_path = "plain",
    .max_sessions = 3,
    .session_ttl_s = 0,
    .queue_total = 100,
    .spare_workers = 1,
    .grace_s = 0.3,
    .limits.at = {[CM_LIMIT_TIMEOUT] = 8, STANDARD_LIMITS},
    .caps.at = {[CM_LIMIT_TIMEOUT] = 9, STANDARD_LIMITS},
};

static inline struct world *open_world(struct cm_sessions_config c)
{
    struct world *w = calloc(1, sizeof *w);
    struct cm_err err = {0};

    if (!c.sandbox_path)
        c.sandbox_path = getenv("CM_FAKE_SANDBOX");
    assert_non_null(c.sandbox_path);
    w->loop = cm_loop_new(NULL);
    w->metrics = cm_metrics_new();
    w->limit = cm_timer_open(w->loop, on_limit, w, NULL);
    cm_timer_start(w->limit, 10000, 0);
    w->tick = cm_timer_open(w->loop, on_tick, w, NULL);
    cm_timer_start(w->tick, 5, 5);
    if (cm_sessions_open(w->loop, &c, w->metrics, &w->m, &err) < 0)
        fail_msg("%s", err.text);
    return w;
}

/* No child may be left, whatever the test did. */
static inline void close_world(struct world *w)
{
    w->m = cm_sessions_free(w->m);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    cm_timer_close(w->limit);
    cm_timer_close(w->tick);
    cm_metrics_free(w->metrics);
    cm_loop_free(w->loop);
    free(w);
}

static inline void on_created(void *arg, const char *id, const struct cm_err *err)
{
    struct world *w = arg;

    w->created = true;
    if (id)
        strcpy(w->id, id);
    else
        w->err = *err;
    look(w);
}

static inline const char *create(struct world *w)
{
    w->created = false;
    w->id[0] = '\0';
    assert_int_equal(cm_sessions_create(w->m, w->asked, "corr", on_created, w, NULL), 0);
    assert_false(w->created); /* never from within the call */
    await(w, &w->created);
    return w->id;
}

static inline void copy(char *to, size_t size, const char *text, size_t len)
{
    snprintf(to, size, "%.*s", (int)(text ? len : 0), text ? text : "");
}

static inline void on_output(void *arg, int stream, const char *data, size_t len)
{
    struct answer *a = arg;

    (void)stream;
    (void)data;
    a->streamed += len;
    if (a->abandon_on_output) {
        cm_exec_abandon(a->exec);
        a->exec = NULL;
    }
}

static inline void on_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
{
    struct answer *a = arg;

    assert_false(a->done);
    a->done = true;
    a->order = ++order;
    if (!res) {
        a->code = err->code;
        strcpy(a->err, err->text);
    } else {
        a->res = *res;
        copy(a->out, sizeof a->out, res->out, res->out_len);
        copy(a->error, sizeof a->error, res->error, res->error_len);
        copy(a->error_type, sizeof a->error_type, res->error_type, res->error_type_len);
        copy(a->result, sizeof a->result, res->result, res->result_len);
        copy(a->locals, sizeof a->locals, res->locals, res->locals_len);
    }
    if (a->abandon_on_done)
        cm_exec_abandon(a->abandon_on_done->exec);
    if (a->delete_on_done)
        cm_sessions_delete(a->w->m, a->w->id);
    look(a->w);
}

static struct cm_exec_ops world_ops = {.output = on_output, .done = on_done}; /* a test may add to it */
static const char *world_tools; /* the list of tools of the executions that follow */

static inline int begin(struct world *w, const char *id, const char *code, double timeout_s, struct answer *a)
{
    struct cm_exec_request req = {.code = code,
                                  .code_len = strlen(code),
                                  .timeout_s = timeout_s,
                                  .context = "{\"k\": [1, 2]}",
                                  .context_len = 13};
    bool abandon = a->abandon_on_output, delete = a->delete_on_done;

    req.atomic = a->atomic;
    req.tools = world_tools;
    req.tools_len = world_tools ? strlen(world_tools) : 0;
    *a = (struct answer){.w = w, .abandon_on_output = abandon, .delete_on_done = delete, .atomic = req.atomic};
    int r = cm_sessions_execute(w->m, id, &req, &world_ops, a, &a->exec, NULL);
    assert_false(a->done);
    return r;
}

static inline struct answer *execute(struct world *w, const char *id, const char *code, double timeout_s)
{
    static struct answer a;

    a = (struct answer){0};
    assert_int_equal(begin(w, id, code, timeout_s, &a), 0);
    await(w, &a.done);
    return &a;
}

#endif
