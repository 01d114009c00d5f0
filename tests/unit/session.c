/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions against the stand-in sandbox: real processes, scripted workers. */
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
};

static unsigned order;

static void on_limit(void *arg)
{
    struct world *w = arg;
    w->awaited = NULL;
    cm_loop_stop(w->loop);
}

static void look(struct world *w)
{
    if (w->awaited && *w->awaited)
        cm_loop_stop(w->loop);
}

static void on_tick(void *arg)
{
    look(arg);
}

static void await(struct world *w, const bool *what)
{
    w->awaited = what;
    if (!*what)
        cm_loop_run(w->loop);
    if (!*what)
        fail_msg("waited in vain");
    w->awaited = NULL;
}

static void run_for(struct world *w, unsigned ms)
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
    [CM_LIMIT_FILE_BYTES] = 1 << 20, [CM_LIMIT_QUEUE] = 2

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

static struct world *open_world(struct cm_sessions_config c)
{
    struct world *w = calloc(1, sizeof *w);
    struct cm_err err = {0};

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
static void close_world(struct world *w)
{
    w->m = cm_sessions_free(w->m);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    cm_timer_close(w->limit);
    cm_timer_close(w->tick);
    cm_metrics_free(w->metrics);
    cm_loop_free(w->loop);
    free(w);
}

static void on_created(void *arg, const char *id, const struct cm_err *err)
{
    struct world *w = arg;

    w->created = true;
    if (id)
        strcpy(w->id, id);
    else
        w->err = *err;
    look(w);
}

static const char *create(struct world *w)
{
    w->created = false;
    w->id[0] = '\0';
    assert_int_equal(cm_sessions_create(w->m, w->asked, "corr", on_created, w, NULL), 0);
    assert_false(w->created); /* never from within the call */
    await(w, &w->created);
    return w->id;
}

static void copy(char *to, size_t size, const char *text, size_t len)
{
    snprintf(to, size, "%.*s", (int)(text ? len : 0), text ? text : "");
}

static void on_output(void *arg, int stream, const char *data, size_t len)
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

static void on_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
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
    if (a->delete_on_done)
        cm_sessions_delete(a->w->m, a->w->id);
    look(a->w);
}

static int begin(struct world *w, const char *id, const char *code, double timeout_s, struct answer *a)
{
    static const struct cm_exec_ops ops = {on_output, on_done};
    struct cm_exec_request req = {.code = code,
                                  .code_len = strlen(code),
                                  .timeout_s = timeout_s,
                                  .context = "{\"k\": [1, 2]}",
                                  .context_len = 13};
    bool abandon = a->abandon_on_output, delete = a->delete_on_done;

    req.atomic = a->atomic;
    *a = (struct answer){.w = w, .abandon_on_output = abandon, .delete_on_done = delete, .atomic = req.atomic};
    int r = cm_sessions_execute(w->m, id, &req, &ops, a, &a->exec, NULL);
    assert_false(a->done);
    return r;
}

static struct answer *execute(struct world *w, const char *id, const char *code, double timeout_s)
{
    static struct answer a;

    a = (struct answer){0};
    assert_int_equal(begin(w, id, code, timeout_s, &a), 0);
    await(w, &a.done);
    return &a;
}

/* flows */

static void create_execute_delete(void **state)
{
    struct world *w = open_world(standard);
    struct cm_session_info info;
    (void)state;

    const char *id = create(w);
    assert_int_equal(strlen(id), 40);
    assert_int_equal(strncmp(id, "session-", 8), 0);
    struct answer *a = execute(w, id, "echo hello", 0);
    assert_true(a->res.success);
    assert_string_equal(a->out, "hello");
    assert_string_equal(a->result, "hello");
    assert_string_equal(a->locals, "{}");
    assert_int_equal(a->streamed, 5);
    assert_int_equal(a->res.memory_bytes, 1 << 20);
    assert_string_equal(execute(w, id, "context", 0)->locals, "{\"k\": [1, 2]}");
    assert_string_equal(execute(w, id, "count", 0)->result, "3");
    a = execute(w, id, "error", 0);
    assert_int_equal(a->code, 0);
    assert_false(a->res.success);
    assert_string_equal(a->error_type, "ValueError");
    assert_int_equal(cm_sessions_info(w->m, id, &info, NULL), 0);
    assert_int_equal(info.executions, 4);
    assert_string_equal(info.state, "idle");
    assert_true(info.expires_in_s < 0);
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_SESSIONS_ACTIVE, 0), 1);
    assert_true(cm_sessions_delete(w->m, id));
    assert_false(cm_sessions_delete(w->m, id));
    assert_int_equal(cm_sessions_info(w->m, id, &info, NULL), CM_ERR_NO_SESSION);
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_SESSIONS_ACTIVE, 0), 0);
    close_world(w);
}

static void large_code_arrives(void **state)
{
    struct world *w = open_world(standard);
    size_t len = 5 << 20;
    cm_autofree char *code = malloc(len + 1);
    (void)state;

    memset(code, ' ', len);
    memcpy(code, "count", 5);
    code[len] = '\0';
    const char *id = create(w);
    assert_string_equal(execute(w, id, code, 0)->result, "1");
    assert_string_equal(execute(w, id, "count", 0)->result, "2");
    close_world(w);
}

static void oneshot(void **state)
{
    struct world *w = open_world(standard);
    (void)state;

    for (int i = 0; i < 4; i++)
        assert_string_equal(execute(w, NULL, "count", 0)->result, "1"); /* never a used process */
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_SESSIONS_ACTIVE, 0), 0);
    assert_int_equal(execute(w, NULL, "exit 4", 0)->code, CM_ERR_SESSION_LOST);
    close_world(w);
}

static void queue_keeps_its_order_and_limit(void **state)
{
    struct world *w = open_world(standard);
    struct answer a[4] = {0};
    (void)state;

    const char *id = create(w);
    assert_int_equal(begin(w, id, "sleep 0.05", 0, &a[0]), 0);
    assert_int_equal(begin(w, id, "count", 0, &a[1]), 0);
    assert_int_equal(begin(w, id, "count", 0, &a[2]), 0);
    assert_int_equal(begin(w, id, "count", 0, &a[3]), CM_ERR_QUEUE_FULL);
    cm_exec_abandon(a[1].exec);
    await(w, &a[2].done);
    assert_true(a[0].order < a[2].order);
    assert_string_equal(a[2].result, "2"); /* the abandoned one has never run */
    assert_false(a[1].done);
    close_world(w);
}

static void sessions_run_side_by_side(void **state)
{
    struct world *w = open_world(standard);
    struct answer a[2] = {0};
    char first[CM_SESSION_ID_MAX];
    (void)state;

    strcpy(first, create(w));
    const char *second = create(w);
    assert_int_equal(begin(w, first, "sleep 0.3", 0, &a[0]), 0);
    assert_int_equal(begin(w, second, "count", 0, &a[1]), 0);
    await(w, &a[0].done);
    assert_true(a[1].order < a[0].order);
    close_world(w);
}

static void admission(void **state)
{
    struct world *w = open_world(standard);
    struct answer a = {0};
    (void)state;

    char ids[3][CM_SESSION_ID_MAX];
    for (int i = 0; i < 3; i++)
        strcpy(ids[i], create(w));
    assert_int_equal(cm_sessions_create(w->m, NULL, NULL, on_created, w, NULL), CM_ERR_MAX_SESSIONS);
    assert_int_equal(begin(w, NULL, "count", 0, &a), CM_ERR_MAX_SESSIONS);
    assert_int_equal(begin(w, "session-no", "count", 0, &a), CM_ERR_NO_SESSION);
    cm_sessions_delete(w->m, ids[1]);
    create(w);
    close_world(w);
}

static void timeout_interrupts_and_keeps(void **state)
{
    struct world *w = open_world(standard);
    (void)state;

    const char *id = create(w);
    struct answer *a = execute(w, id, "sleep 5", 0.1);
    assert_int_equal(a->code, 0);
    assert_true(a->res.timed_out);
    assert_false(a->res.success);
    assert_int_equal(a->res.state, CM_STATE_KEPT);
    assert_string_equal(a->error, "TimeoutError: Execution timed out (timeout of 0.1 s)");
    assert_string_equal(a->error_type, "Timeout");
    assert_in_range(a->res.duration_ns, 90000000, 300000000);
    assert_string_equal(execute(w, id, "count", 0)->result, "2");
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_EXECUTIONS_FINISHED, CM_L_OUTCOME_TIMEOUT), 1);
    close_world(w);
}

static void timeout_rolls_back_after_grace(void **state)
{
    struct world *w = open_world(standard);
    struct cm_session_info info;
    struct answer queued = {0}, a = {0};
    (void)state;

    const char *id = create(w);
    assert_string_equal(execute(w, id, "count", 0)->result, "1");
    assert_int_equal(begin(w, id, "hang", 0.1, &a), 0);
    assert_int_equal(begin(w, id, "count", 0, &queued), 0);
    await(w, &a.done);
    assert_true(a.res.timed_out);
    assert_int_equal(a.res.state, CM_STATE_ROLLED_BACK);
    assert_string_equal(a.error_type, "Timeout");
    assert_non_null(strstr(a.error, "back in the state before"));
    await(w, &queued.done);
    assert_string_equal(queued.result, "2"); /* the first one is there, the second has left nothing */
    assert_int_equal(cm_sessions_info(w->m, id, &info, NULL), 0);
    assert_int_equal(info.restores, 1);
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_WORKER_DEATHS, CM_L_DEATH_TIMEOUT), 1);
    close_world(w);
}

static void interrupt_on_request(void **state)
{
    struct world *w = open_world(standard);
    struct answer a = {0};
    bool stopped = true;
    (void)state;

    const char *id = create(w);
    assert_int_equal(cm_sessions_interrupt(w->m, id, &stopped, NULL), 0);
    assert_false(stopped);
    assert_int_equal(begin(w, id, "sleep 5", 0, &a), 0);
    run_for(w, 30);
    assert_int_equal(cm_sessions_interrupt(w->m, id, &stopped, NULL), 0);
    assert_true(stopped);
    await(w, &a.done);
    assert_string_equal(a.error_type, "KeyboardInterrupt");
    assert_int_equal(a.res.state, CM_STATE_KEPT);
    assert_false(a.res.timed_out);
    assert_int_equal(begin(w, id, "hang", 0, &a), 0);
    run_for(w, 30);
    assert_int_equal(cm_sessions_interrupt(w->m, id, &stopped, NULL), 0);
    await(w, &a.done);
    assert_string_equal(a.error_type, "KeyboardInterrupt");
    assert_int_equal(a.res.state, CM_STATE_ROLLED_BACK);
    assert_string_equal(execute(w, id, "count", 0)->result, "2");
    close_world(w);
}

static void on_rolled_back(void *arg, const char *id, const struct cm_err *err)
{
    struct world *w = arg;

    w->created = true;
    w->err = err ? *err : (struct cm_err){0};
    assert_int_equal(id == NULL, err != NULL);
    look(w);
}

static int roll_back(struct world *w, const char *id)
{
    struct cm_err err = {0};

    w->created = false;
    if (cm_sessions_roll_back(w->m, id, on_rolled_back, w, &err) < 0)
        return err.code;
    assert_false(w->created);
    await(w, &w->created);
    return w->err.code;
}

static void undo_on_request(void **state)
{
    struct world *w = open_world(standard);
    struct answer a = {0};
    (void)state;

    char id[CM_SESSION_ID_MAX];
    strcpy(id, create(w));
    assert_int_equal(roll_back(w, id), CM_ERR_NOTHING_TO_UNDO);
    for (int i = 0; i < 3; i++)
        execute(w, id, "count", 0);
    assert_int_equal(roll_back(w, id), 0);
    assert_int_equal(roll_back(w, id), CM_ERR_NOTHING_TO_UNDO);
    assert_string_equal(execute(w, id, "count", 0)->result, "3");
    assert_int_equal(begin(w, id, "sleep 0.1", 0, &a), 0);
    assert_int_equal(roll_back(w, id), CM_ERR_BUSY);
    await(w, &a.done);
    assert_int_equal(roll_back(w, "session-no"), CM_ERR_NO_SESSION);
    close_world(w);
}

/* An execution that fails leaves no trace, one that succeeds stays. */
static void atomic_executions(void **state)
{
    struct world *w = open_world(standard);
    static struct answer a;
    (void)state;

    const char *id = create(w);
    a = (struct answer){.atomic = true};
    assert_int_equal(begin(w, id, "count", 0, &a), 0);
    await(w, &a.done);
    assert_string_equal(a.result, "1");
    assert_int_equal(a.res.state, CM_STATE_KEPT);
    assert_int_equal(begin(w, id, "error", 0, &a), 0);
    await(w, &a.done);
    assert_string_equal(a.error, "ValueError: asked for");
    assert_int_equal(a.res.state, CM_STATE_ROLLED_BACK);
    assert_int_equal(begin(w, id, "sleep 5", 0.05, &a), 0);
    await(w, &a.done);
    assert_true(a.res.timed_out);
    assert_int_equal(a.res.state, CM_STATE_ROLLED_BACK);
    assert_string_equal(execute(w, id, "count", 0)->result, "2");
    close_world(w);
}

static void abandoned_runs_are_interrupted(void **state)
{
    struct world *w = open_world(standard);
    struct answer a = {0}, next = {0};
    (void)state;

    const char *id = create(w);
    assert_int_equal(begin(w, id, "sleep 5", 0, &a), 0);
    run_for(w, 50);
    cm_exec_abandon(a.exec);
    assert_int_equal(begin(w, id, "count", 0, &next), 0);
    await(w, &next.done);
    assert_string_equal(next.result, "2");
    assert_false(a.done);
    a = (struct answer){.abandon_on_output = true};
    assert_int_equal(begin(w, id, "flood 300000", 0, &a), 0);
    assert_string_equal(execute(w, id, "count", 0)->result, "4");
    assert_false(a.done);
    assert_int_equal(begin(w, NULL, "hang", 0, &a), 0);
    run_for(w, 30);
    cm_exec_abandon(a.exec);
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_SESSIONS_ACTIVE, 0), 1);
    close_world(w);
}

/* Whatever a worker does, its session alone is concerned: it learns the reason and goes on from the state before. */
static void deaths_and_violations(void **state)
{
    static const struct {
        const char *code, *reason;
        enum cm_label_death cause;
    } cases[] = {
        {"exit 3", "exit status 3", CM_L_DEATH_EXIT},
        {"signal 11", "SIGSEGV", CM_L_DEATH_SIGNAL},
        {"trap out of bounds\x01", "trapped: out of bounds?", CM_L_DEATH_TRAP},
        {"crash write at 8\nregisters", "fault of our own: write at 8", CM_L_DEATH_CRASH},
        {"garbage", "broke the protocol", CM_L_DEATH_PROTOCOL},
        {"forge", "broke the protocol", CM_L_DEATH_PROTOCOL},
        {"badlocals", "broke the protocol", CM_L_DEATH_PROTOCOL},
        {"wrongid", "broke the protocol", CM_L_DEATH_PROTOCOL},
        {"hangup", "SIGKILL", CM_L_DEATH_SIGNAL},
    };
    struct world *w = open_world(standard);
    char bystander[CM_SESSION_ID_MAX];
    (void)state;

    strcpy(bystander, create(w));
    for (size_t i = 0; i < CM_COUNT_OF(cases); i++) {
        int64_t before = cm_metrics_get(w->metrics, CM_M_WORKER_DEATHS, cases[i].cause);
        const char *id = create(w);
        execute(w, id, "count", 0);
        struct answer *a = execute(w, id, cases[i].code, 0);
        assert_false(a->res.success);
        assert_int_equal(a->res.state, CM_STATE_ROLLED_BACK);
        assert_string_equal(a->error_type, "RuntimeError");
        if (!strstr(a->error, cases[i].reason))
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].code, a->error, cases[i].reason);
        assert_string_equal(execute(w, id, "count", 0)->result, "2");
        assert_true(cm_sessions_delete(w->m, id));
        assert_int_equal(cm_metrics_get(w->metrics, CM_M_WORKER_DEATHS, cases[i].cause), before + 1);
    }
    assert_string_equal(execute(w, bystander, "count", 0)->result, "1");
    close_world(w);
}

/* A worker that dies between its answer and its save: the answer is given, and the next call learns that its state
 * is not there. */
static void words_and_death_together(void **state)
{
    struct world *w = open_world(standard);
    struct cm_session_info info;
    struct answer again = {0};
    (void)state;

    const char *id = create(w);
    execute(w, id, "count", 0);
    struct answer *a = execute(w, id, "lastwords", 0);
    assert_int_equal(a->code, 0);
    assert_string_equal(a->result, "last");
    run_for(w, 100);
    assert_int_equal(roll_back(w, id), CM_ERR_NOTHING_TO_UNDO);
    assert_int_equal(begin(w, id, "count", 0, &again), CM_ERR_REVERTED);
    assert_string_equal(execute(w, id, "count", 0)->result, "2");
    /* The same, with somebody waiting already. */
    assert_int_equal(begin(w, id, "lastwords", 0, &again), 0);
    struct answer next = {0};
    assert_int_equal(begin(w, id, "count", 0, &next), 0);
    await(w, &next.done);
    assert_true(next.code == CM_ERR_REVERTED || next.res.state == CM_STATE_ROLLED_BACK);
    id = create(w);
    assert_string_equal(execute(w, id, "twice", 0)->result, "1");
    run_for(w, 100);
    assert_int_equal(cm_sessions_info(w->m, id, &info, NULL), 0);
    close_world(w);
}

static void output_is_bounded_and_clean(void **state)
{
    struct world *w = open_world(standard);
    (void)state;

    const char *id = create(w);
    struct answer *a = execute(w, id, "flood 1000000", 0);
    assert_true(a->res.out_truncated);
    assert_false(a->res.err_truncated);
    assert_int_equal(a->streamed, 1000000);
    assert_in_range(a->res.out_len, 1000, 1060);
    assert_non_null(strstr(a->out, "x\n... 999000 bytes dropped ...\nx"));
    a = execute(w, id, "badutf", 0);
    assert_string_equal(a->out, "a\xef\xbf\xbd\xef\xbf\xbd"
                                "b");
    assert_string_equal(a->result, "\xef\xbf\xbd");
    close_world(w);
}

static void delete_while_running(void **state)
{
    struct world *w = open_world(standard);
    struct answer a[2] = {0};
    (void)state;

    const char *id = create(w);
    assert_int_equal(begin(w, id, "hang", 0, &a[0]), 0);
    assert_int_equal(begin(w, id, "count", 0, &a[1]), 0);
    run_for(w, 20);
    assert_true(cm_sessions_delete(w->m, id));
    assert_false(a[0].done);
    await(w, &a[1].done);
    assert_int_equal(a[0].code, CM_ERR_NO_SESSION);
    assert_int_equal(a[1].code, CM_ERR_NO_SESSION);
    a[0].delete_on_done = true;
    id = create(w);
    assert_int_equal(begin(w, id, "count", 0, &a[0]), 0);
    assert_int_equal(begin(w, id, "hang", 0, &a[1]), 0);
    await(w, &a[1].done);
    assert_string_equal(a[0].result, "1");
    assert_int_equal(a[1].code, CM_ERR_NO_SESSION);
    close_world(w);
}

static void idle_sessions_expire(void **state)
{
    struct cm_sessions_config c = standard;
    struct cm_session_info info;
    c.session_ttl_s = 1;
    struct world *w = open_world(c);
    (void)state;

    const char *id = create(w);
    run_for(w, 600);
    assert_string_equal(execute(w, id, "count", 0)->result, "1");
    run_for(w, 600);
    assert_int_equal(cm_sessions_info(w->m, id, &info, NULL), 0);
    assert_true(info.expires_in_s > 0 && info.expires_in_s < 0.6);
    run_for(w, 700);
    assert_int_equal(cm_sessions_info(w->m, id, &info, NULL), CM_ERR_NO_SESSION);
    close_world(w);
}

static int zygote_pid(void)
{
    char name[64], line[64] = "";
    int pid = 0;

    snprintf(name, sizeof name, "/proc/self/task/%d/children", getpid());
    FILE *f = fopen(name, "r");
    if (f && fgets(line, sizeof line, f))
        pid = atoi(line); /* the eldest child */
    if (f)
        fclose(f);
    return pid;
}

static void zygote_death_harms_no_session(void **state)
{
    struct world *w = open_world(standard);
    (void)state;

    char id[CM_SESSION_ID_MAX];
    strcpy(id, create(w));
    int pid = zygote_pid();
    if (pid == 0)
        skip(); /* a kernel without the list of children */
    kill(pid, SIGKILL);
    create(w);
    create(w); /* more than the spares that the dead one had left */
    assert_string_equal(execute(w, id, "count", 0)->result, "1");
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_ZYGOTE_RESTARTS, 0), 1);
    close_world(w);
}

static void spawn_failures_are_answers(void **state)
{
    static const struct {
        const char *image, *reason;
    } cases[] = {{"refuses", "step 1: refused"}, {"stillborn", "exit status 9"}};
    (void)state;

    for (size_t i = 0; i < CM_COUNT_OF(cases); i++) {
        struct cm_sessions_config c = standard;
        c.image_path = cases[i].image;
        struct world *w = open_world(c);
        create(w);
        assert_string_equal(w->id, "");
        assert_int_equal(w->err.code, CM_ERR_SANDBOX);
        assert_non_null(strstr(w->err.text, cases[i].reason));
        struct answer *a = execute(w, NULL, "count", 0);
        assert_int_equal(a->code, CM_ERR_SANDBOX);
        close_world(w);
    }
}

static void silent_zygote_has_a_deadline(void **state)
{
    struct cm_sessions_config c = standard;
    (void)state;

    c.image_path = "mute";
    struct world *w = open_world(c);
    create(w);
    assert_int_equal(w->err.code, CM_ERR_SANDBOX);
    close_world(w);
}

/* Workers whose birth was never announced: nothing may be left of them. */
static void zygote_dies_between_birth_and_word(void **state)
{
    struct cm_sessions_config c = standard;
    (void)state;

    c.image_path = "dies-silent";
    struct world *w = open_world(c);
    run_for(w, 400);
    assert_true(cm_metrics_get(w->metrics, CM_M_ZYGOTE_RESTARTS, 0) >= 1);
    close_world(w);
}

static void missing_sandbox(void **state)
{
    struct cm_loop *loop = cm_loop_new(NULL);
    struct cm_sessions_config c = standard;
    struct cm_sessions *m = NULL;
    struct cm_err err = {0};
    (void)state;

    c.sandbox_path = "/nonexistent/codemode-sandbox";
    assert_int_equal(cm_sessions_open(loop, &c, NULL, &m, &err), CM_ERR_SANDBOX);
    assert_null(m);
    assert_non_null(strstr(err.text, "/nonexistent/codemode-sandbox: No such file"));
    cm_loop_free(loop);
}

static void on_drained(void *arg)
{
    struct world *w = arg;
    w->drained = true;
    look(w);
}

static void drain_finishes_and_refuses(void **state)
{
    struct world *w = open_world(standard);
    struct answer a = {0}, late = {0};
    (void)state;

    const char *id = create(w);
    assert_int_equal(begin(w, id, "sleep 0.2", 0, &a), 0);
    cm_sessions_drain(w->m, 5, on_drained, w);
    assert_false(cm_sessions_ready(w->m));
    assert_int_equal(begin(w, id, "count", 0, &late), CM_ERR_DRAINING);
    assert_int_equal(cm_sessions_create(w->m, NULL, NULL, on_created, w, NULL), CM_ERR_DRAINING);
    await(w, &w->drained);
    assert_string_equal(a.result, "slept");
    close_world(w);
}

static void drain_has_a_deadline(void **state)
{
    struct world *w = open_world(standard);
    struct answer a = {0};
    (void)state;

    const char *id = create(w);
    assert_int_equal(begin(w, id, "hang", 0, &a), 0);
    cm_sessions_drain(w->m, 0.1, on_drained, w);
    await(w, &w->drained);
    assert_int_equal(a.code, CM_ERR_DRAINING);
    close_world(w);
}

static void free_answers_what_is_open(void **state)
{
    struct world *w = open_world(standard);
    struct answer a = {0}, b = {0};
    (void)state;

    const char *id = create(w);
    assert_int_equal(begin(w, id, "hang", 0, &a), 0);
    assert_int_equal(begin(w, NULL, "count", 0, &b), 0);
    close_world(w);
    assert_int_equal(a.code, CM_ERR_DRAINING);
    assert_int_equal(b.code, CM_ERR_DRAINING);
}

/* CPU time stops what computes, at its limit, and leaves what sleeps alone. */
static void cpu_time_has_a_limit(void **state)
{
    struct cm_limits_asked asked = {.named = 1u << CM_LIMIT_CPU_TIME, .value.at = {[CM_LIMIT_CPU_TIME] = 0.2}};
    struct world *w = open_world(standard);
    struct answer a = {0};
    (void)state;

    w->asked = &asked;
    const char *id = create(w);
    w->asked = NULL;
    a = *execute(w, id, "sleep 0.4", 0);
    assert_string_equal(a.result, "slept");
    assert_in_range(a.res.cpu_ns, 0, 190 * CM_NS_PER_MS);
    a = *execute(w, id, "burn 0.1", 0);
    assert_string_equal(a.result, "burnt");
    assert_in_range(a.res.cpu_ns, 100 * CM_NS_PER_MS, 200 * CM_NS_PER_MS);
    a = *execute(w, id, "burn 5", 0);
    assert_string_equal(a.error_type, "Timeout");
    assert_string_equal(a.error, "TimeoutError: Execution used up its CPU time (limits.cpu_time of 0.2 s)");
    assert_true(a.res.timed_out);
    assert_in_range(a.res.cpu_ns, 200 * CM_NS_PER_MS, 1000 * CM_NS_PER_MS);
    a = *execute(w, id, "burn 5", 0.1);
    assert_string_equal(a.error, "TimeoutError: Execution timed out (timeout of 0.1 s)");
    close_world(w);
}

static struct cm_sessions_config one_at_once(void)
{
    struct cm_sessions_config c = standard;

    c.max_running = 1;
    c.queue_total = 2;
    return c;
}

static void turns_come_in_order(void **state)
{
    struct world *w = open_world(one_at_once());
    struct answer a = {0}, b = {0}, c = {0}, d = {0};
    struct cm_session_info info;
    char second[CM_SESSION_ID_MAX], third[CM_SESSION_ID_MAX];
    (void)state;

    strcpy(second, create(w));
    strcpy(third, create(w));
    const char *first = create(w);
    begin(w, first, "burn 0.3", 0, &a);
    begin(w, second, "burn 0.2", 0, &b);
    begin(w, third, "echo c", 0, &c);
    assert_int_equal(cm_sessions_info(w->m, third, &info, NULL), 0);
    assert_string_equal(info.state, "queued");
    assert_int_equal(info.queued, 1);
    assert_int_equal(begin(w, first, "echo d", 0, &d), CM_ERR_OVERLOADED); /* queue_total */
    await(w, &a.done);
    assert_false(b.done || c.done);
    run_for(w, 20); /* the second one starts */
    assert_int_equal(begin(w, first, "echo d", 0, &d), 0);
    await(w, &d.done);
    assert_true(a.order < b.order && b.order < c.order && c.order < d.order);
    assert_string_equal(b.result, "burnt");
    assert_string_equal(c.result, "c");
    close_world(w);
}

static void sleepers_take_no_turn(void **state)
{
    struct world *w = open_world(one_at_once());
    struct answer a = {0}, b = {0}, c = {0};
    char second[CM_SESSION_ID_MAX];
    (void)state;

    strcpy(second, create(w));
    const char *first = create(w);
    begin(w, first, "sleep 3", 0, &a);
    begin(w, second, "echo b", 0, &b);
    await(w, &b.done);
    assert_false(a.done);
    c = *execute(w, second, "echo b", 0);
    assert_string_equal(c.result, "b");
    assert_false(a.done);
    cm_exec_abandon(a.exec);
    close_world(w);
}

/* Whoever leaves while waiting takes its place along. */
static void a_turn_can_be_given_up(void **state)
{
    struct world *w = open_world(one_at_once());
    struct answer a = {0}, b = {0}, c = {0};
    char second[CM_SESSION_ID_MAX], third[CM_SESSION_ID_MAX];
    (void)state;

    strcpy(second, create(w));
    strcpy(third, create(w));
    const char *first = create(w);
    begin(w, first, "burn 0.3", 0, &a);
    begin(w, second, "echo b", 0, &b);
    begin(w, third, "echo c", 0, &c);
    cm_exec_abandon(b.exec);
    assert_true(cm_sessions_delete(w->m, third));
    await(w, &c.done);
    assert_int_equal(c.code, CM_ERR_NO_SESSION);
    await(w, &a.done);
    c = *execute(w, second, "echo e", 0);
    assert_string_equal(c.result, "e");
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_execute_delete),
        cmocka_unit_test(large_code_arrives),
        cmocka_unit_test(oneshot),
        cmocka_unit_test(queue_keeps_its_order_and_limit),
        cmocka_unit_test(sessions_run_side_by_side),
        cmocka_unit_test(admission),
        cmocka_unit_test(timeout_interrupts_and_keeps),
        cmocka_unit_test(timeout_rolls_back_after_grace),
        cmocka_unit_test(interrupt_on_request),
        cmocka_unit_test(undo_on_request),
        cmocka_unit_test(atomic_executions),
        cmocka_unit_test(abandoned_runs_are_interrupted),
        cmocka_unit_test(deaths_and_violations),
        cmocka_unit_test(words_and_death_together),
        cmocka_unit_test(output_is_bounded_and_clean),
        cmocka_unit_test(delete_while_running),
        cmocka_unit_test(idle_sessions_expire),
        cmocka_unit_test(zygote_death_harms_no_session),
        cmocka_unit_test(spawn_failures_are_answers),
        cmocka_unit_test(silent_zygote_has_a_deadline),
        cmocka_unit_test(zygote_dies_between_birth_and_word),
        cmocka_unit_test(missing_sandbox),
        cmocka_unit_test(drain_finishes_and_refuses),
        cmocka_unit_test(drain_has_a_deadline),
        cmocka_unit_test(free_answers_what_is_open),
        cmocka_unit_test(cpu_time_has_a_limit),
        cmocka_unit_test(turns_come_in_order),
        cmocka_unit_test(sleepers_take_no_turn),
        cmocka_unit_test(a_turn_can_be_given_up),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
