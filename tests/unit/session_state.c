/* SPDX-License-Identifier: Apache-2.0 */
/* What a session goes back to when its worker dies, is ended, or is told to forget. */
#include "session_world.h"

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
    struct answer a = {0}, next = {0};
    bool stopped = true;
    (void)state;

    const char *id = create(w);
    assert_int_equal(cm_sessions_interrupt(w->m, id, NULL, &stopped, NULL), 0);
    assert_false(stopped);
    assert_int_equal(begin(w, id, "sleep 5", 0, &a), 0);
    assert_int_equal(begin(w, id, "count", 0, &next), 0);
    run_for(w, 30);
    stopped = true;
    assert_int_equal(cm_sessions_interrupt(w->m, id, "exec-0", &stopped, NULL), 0);
    assert_false(stopped);
    stopped = true;
    assert_int_equal(cm_sessions_interrupt(w->m, id, cm_exec_id(next.exec), &stopped, NULL), 0); /* it waits */
    assert_false(stopped);
    assert_int_equal(cm_sessions_interrupt(w->m, id, cm_exec_id(a.exec), &stopped, NULL), 0);
    assert_true(stopped);
    await(w, &a.done);
    assert_string_equal(a.error_type, "KeyboardInterrupt");
    assert_int_equal(a.res.state, CM_STATE_KEPT);
    assert_false(a.res.timed_out);
    await(w, &next.done);
    assert_string_equal(next.result, "2");
    assert_int_equal(begin(w, id, "hang", 0, &a), 0);
    run_for(w, 30);
    assert_int_equal(cm_sessions_interrupt(w->m, id, NULL, &stopped, NULL), 0);
    run_for(w, 10);
    assert_int_equal(cm_sessions_interrupt(w->m, id, NULL, &stopped, NULL), 0); /* once more changes nothing */
    await(w, &a.done);
    assert_string_equal(a.error_type, "KeyboardInterrupt");
    assert_int_equal(a.res.state, CM_STATE_ROLLED_BACK);
    assert_string_equal(execute(w, id, "count", 0)->result, "3");
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

/* A state that was not saved is told to somebody who listens: not lost with a second process, ... */
static void reverted_and_dead_again(void **state)
{
    struct world *w = open_world(standard);
    struct cm_session_info info;
    struct answer again = {0};
    (void)state;

    const char *id = create(w);
    execute(w, id, "count", 0);
    execute(w, id, "lastwords", 0);
    run_for(w, 100);
    assert_int_equal(cm_sessions_info(w->m, id, &info, NULL), 0);
    assert_int_equal(info.restores, 1);
    assert_int_equal(kill(info.pid, SIGKILL), 0);
    run_for(w, 100);
    assert_int_equal(cm_sessions_info(w->m, id, &info, NULL), 0);
    assert_int_equal(info.restores, 2);
    assert_int_equal(begin(w, id, "count", 0, &again), CM_ERR_REVERTED);
    assert_string_equal(execute(w, id, "count", 0)->result, "2");
    close_world(w);
}

/* ... nor told to a client that has gone. */
static void reverted_below_a_client_that_left(void **state)
{
    struct world *w = open_world(standard);
    struct answer last = {0}, left = {0}, again = {0};
    (void)state;

    const char *id = create(w);
    execute(w, id, "count", 0);
    assert_int_equal(begin(w, id, "lastwords", 0, &last), 0);
    assert_int_equal(begin(w, id, "count", 0, &left), 0);
    last.abandon_on_done = &left;
    await(w, &last.done);
    assert_string_equal(last.result, "last");
    run_for(w, 100);
    assert_false(left.done);
    assert_int_equal(begin(w, id, "count", 0, &again), CM_ERR_REVERTED);
    assert_string_equal(execute(w, id, "count", 0)->result, "2");
    close_world(w);
}

/* What nobody can read is given up at once, and without harm to others. */
static void broken_states_are_lost(void **state)
{
    struct world *w = open_world(standard);
    struct cm_session_info info;
    struct cm_err err;
    (void)state;

    const char *id = create(w);
    execute(w, id, "count", 0);
    struct answer *a = execute(w, id, "poison", 0);
    assert_int_equal(a->code, CM_ERR_SESSION_LOST);
    assert_non_null(strstr(a->err, "the saved state is broken"));
    assert_non_null(strstr(a->err, "exit status 1"));
    assert_int_equal(cm_sessions_info(w->m, id, &info, &err), CM_ERR_SESSION_LOST);
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_SPAWN_FAILURES, 0), 0);
    close_world(w);
}

/* The zygote dies when it has made the worker that restores, and has not named it: that one may be at work. */
static void restored_by_the_next_zygote(void **state)
{
    struct cm_sessions_config c = standard;
    (void)state;

    c.image_path = "dies-third";
    c.spare_workers = 1;
    struct world *w = open_world(c);
    const char *id = create(w);
    assert_string_equal(execute(w, id, "count", 0)->result, "1");
    run_for(w, 50); /* the second birth is the spare one's */
    struct answer *a = execute(w, id, "exit 1", 0);
    assert_int_equal(a->res.state, CM_STATE_ROLLED_BACK);
    assert_string_equal(execute(w, id, "count", 0)->result, "2");
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_ZYGOTE_RESTARTS, 0), 1);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timeout_rolls_back_after_grace),
        cmocka_unit_test(interrupt_on_request),
        cmocka_unit_test(undo_on_request),
        cmocka_unit_test(atomic_executions),
        cmocka_unit_test(deaths_and_violations),
        cmocka_unit_test(words_and_death_together),
        cmocka_unit_test(reverted_and_dead_again),
        cmocka_unit_test(reverted_below_a_client_that_left),
        cmocka_unit_test(broken_states_are_lost),
        cmocka_unit_test(restored_by_the_next_zygote),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
