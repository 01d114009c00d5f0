/* SPDX-License-Identifier: Apache-2.0 */
/* A private sandbox: the session manager on a loop of our own, which turns only while something is awaited. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/backend.h"
#include "cli/interrupt.h"
#include "conf/conf.h"
#include "conf/policy.h"
#include "ev/loop.h"
#include "roles/probe.h"
#include "session/session.h"

#define SETTLE_EVERY_MS 5

struct local {
    struct cm_backend base;
    struct cm_conf conf;
    struct cm_sandbox_arguments arguments;
    struct cm_loop *loop;
    struct cm_sessions *sessions;
    struct cm_watch *interrupt;
    struct cm_exec *exec; /* while one runs */
    char session[CM_SESSION_ID_MAX];
    double timeout_s;
    bool atomic;
    bool interrupted;
    int rc; /* of what was awaited last */
    struct cm_err err;
    struct cm_outcome outcome;
};

static void on_interrupt(void *arg, int events)
{
    struct local *l = arg;

    (void)events;
    if (!cm_interrupt_take())
        return;
    l->interrupted = true;
    cm_loop_stop(l->loop);
}

static void fail(struct local *l, const struct cm_err *err)
{
    l->err = *err;
    l->rc = err->code;
}

static void on_created(void *arg, const char *id, const struct cm_err *err)
{
    struct local *l = arg;

    if (id)
        memcpy(l->session, id, strlen(id) + 1);
    else
        fail(l, err);
    cm_loop_stop(l->loop);
}

static void on_output(void *arg, int stream, const char *data, size_t len)
{
    (void)arg;
    cm_fd_write_all(stream == 1 ? STDOUT_FILENO : STDERR_FILENO, data, len);
}

static void on_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
{
    struct local *l = arg;

    l->exec = NULL;
    if (res) {
        struct cm_answer a = {
            .success = res->success,
            .timed_out = res->timed_out,
            .rolled_back = res->state == CM_STATE_ROLLED_BACK,
            .err = res->err,
            .err_len = res->err_len,
            .result = res->result,
            .result_len = res->result_len,
            .error = res->error,
            .error_len = res->error_len,
            .traceback = res->traceback,
            .traceback_len = res->traceback_len,
        };
        l->rc = cm_outcome_from(&a, &l->outcome, &l->err);
    } else {
        fail(l, err);
    }
    cm_loop_stop(l->loop);
}

/* The loop turns until a callback stops it. */
static int await(struct local *l, struct cm_err *err)
{
    l->rc = 0;
    l->interrupted = false;
    cm_loop_run(l->loop);
    if (l->rc < 0 && err)
        *err = l->err;
    return l->rc;
}

static void check_settled(void *arg)
{
    struct local *l = arg;
    struct cm_session_info info;

    if (cm_sessions_info(l->sessions, l->session, &info, NULL) < 0 || strcmp(info.state, "idle") == 0)
        cm_loop_stop(l->loop);
}

/* At the prompt the loop stands still, and with it the deadline of the interrupt: without this, an execution that
 * has long stopped would seem to have ignored it. */
static void settle(struct local *l)
{
    struct cm_timer *timer = cm_timer_open(l->loop, check_settled, l, NULL);

    if (!timer)
        return;
    cm_timer_start(timer, 0, SETTLE_EVERY_MS);
    await(l, NULL);
    cm_timer_close(timer);
}

static int run(struct cm_backend *b, const char *code, size_t len, struct cm_outcome *ret, struct cm_err *err)
{
    static const struct cm_exec_ops ops = {.output = on_output, .done = on_done};
    struct local *l = (struct local *)b;
    struct cm_exec_request req = {
        .code = code,
        .code_len = len,
        .timeout_s = l->timeout_s,
        .correlation_id = "cli",
        .mode = l->session[0] ? CM_EXEC_SESSION : CM_EXEC_ONESHOT,
        .atomic = l->atomic,
    };
    int rc = cm_sessions_execute(l->sessions, l->session[0] ? l->session : NULL, &req, &ops, l, &l->exec, err);

    if (rc < 0 || (rc = await(l, err)) < 0)
        return rc;
    if (l->interrupted && l->exec) {
        cm_exec_abandon(l->exec);
        l->exec = NULL;
        if (l->session[0])
            settle(l);
        l->outcome = (struct cm_outcome){.end = CM_RUN_INTERRUPTED};
    }
    *ret = l->outcome;
    return 0;
}

static void close_local(struct cm_backend *b)
{
    struct local *l = (struct local *)b;

    cm_sessions_free(l->sessions);
    cm_watch_close(l->interrupt);
    cm_loop_free(l->loop);
    free(l);
}

static int open_sessions(struct local *l, struct cm_err *err)
{
    struct cm_conf *c = &l->conf;

    cm_sandbox_arguments(c, &l->arguments);
    struct cm_sessions_config config = {
        .sandbox_path = c->sandbox_path,
        .image_path = c->image_path,
        .sandbox_args = l->arguments.list,
        .max_sessions = 1,
        .session_ttl_s = 0,
        .queue_total = 8,
        .spare_workers = 0,
        .grace_s = c->grace,
    };

    if (l->timeout_s > c->max_timeout) /* who starts the server sets its caps */
        c->max_timeout = l->timeout_s;
    cm_conf_limits(c, &config.limits, &config.caps);
    cm_conf_policy(c, &config.strict, config.strict_rules, NULL); /* checked when it was loaded */
    return cm_sessions_open(l->loop, &config, NULL, &l->sessions, err);
}

/* One sentence now, instead of a sandbox that does not come up. */
static int check_machine(const struct local *l, struct cm_err *err)
{
    struct cm_probe p;
    int rc = cm_probe_sandbox(&l->conf, &p, err);

    if (rc < 0 || p.fit)
        return rc;
    *err = p.problem;
    return err->code;
}

static int set_up(struct local *l, const struct cm_target *target, struct cm_err *err)
{
    int rc = cm_conf_environment(&l->conf, err);

    if (rc < 0 || (rc = check_machine(l, err)) < 0)
        return rc;
    l->loop = cm_loop_new(err);
    if (!l->loop)
        return err->code;
    l->interrupt = cm_watch_open(l->loop, cm_interrupt_fd(), CM_EV_READ, on_interrupt, l, err);
    if (!l->interrupt)
        return err->code;
    if ((rc = open_sessions(l, err)) < 0 || !target->keep_state)
        return rc;
    rc = cm_sessions_create(l->sessions, NULL, "cli", on_created, l, err);
    if (rc == 0)
        rc = await(l, err);
    return rc == 0 && l->interrupted ? cm_err_set(err, CM_ERR_CANCELLED, "interrupted") : rc;
}

int cm_backend_open_local(const struct cm_target *target, struct cm_backend **ret, struct cm_err *err)
{
    struct local *l = calloc(1, sizeof(*l));

    if (!l)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a private sandbox");
    l->base = (struct cm_backend){run, close_local};
    l->timeout_s = target->timeout_s;
    l->atomic = target->atomic;
    int rc = set_up(l, target, err);
    if (rc < 0) {
        close_local(&l->base);
        return rc;
    }
    *ret = &l->base;
    return 0;
}
