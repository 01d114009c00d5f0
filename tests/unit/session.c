/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions from their creation to their end. */
#include "session_world.h"

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

/* Sessions that were made for somebody are nobody else's, and none of their limits is above his. */
static void owners(void **state)
{
    struct world *w = open_world(standard);
    struct cm_limits caps = standard.caps;
    struct cm_session_info info;
    struct cm_err foreign = {0}, absent = {0};
    (void)state;

    caps.at[CM_LIMIT_TIMEOUT] = 0.05;
    struct cm_session_owner alice = {.name = "alice", .caps = &caps, .max_sessions = 1};
    const char *id = w->id;
    w->created = false;
    assert_int_equal(cm_sessions_create_for(w->m, &alice, NULL, "corr", on_created, w, NULL), 0);
    assert_int_equal(cm_sessions_create_for(w->m, &alice, NULL, "corr", on_created, w, NULL), CM_ERR_MAX_SESSIONS);
    await(w, &w->created);
    assert_int_equal(cm_sessions_info(w->m, id, &info, NULL), 0);
    assert_string_equal(info.owner, "alice");
    assert_true(info.limits.at[CM_LIMIT_TIMEOUT] == 0.05);
    assert_int_equal(cm_sessions_check_owner(w->m, id, "alice", NULL), 0);
    assert_int_equal(cm_sessions_check_owner(w->m, id, "", &foreign), CM_ERR_NO_SESSION);
    assert_int_equal(cm_sessions_check_owner(w->m, "session-no", "bob", NULL), 0);
    assert_int_equal(cm_sessions_info(w->m, "session-no", &info, &absent), CM_ERR_NO_SESSION);
    assert_string_equal(foreign.text, absent.text);
    /* A timeout of its own does not get an execution above the caps either. */
    struct answer a = {.w = w};
    struct cm_exec_request req = {.code = "sleep 5", .code_len = 7, .timeout_s = 3, .caps = &caps};
    static const struct cm_exec_ops ops = {.done = on_done};
    assert_int_equal(cm_sessions_execute(w->m, id, &req, &ops, &a, &a.exec, NULL), 0);
    await(w, &a.done);
    assert_true(a.res.timed_out && a.res.duration_ns < 2000000000);
    cm_sessions_delete(w->m, id);
    w->created = false;
    assert_int_equal(cm_sessions_create_for(w->m, &alice, NULL, "corr", on_created, w, NULL), 0);
    await(w, &w->created);
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

/* A zygote that comes up while the machine refuses it a layer must not fork workers without it. */
static void weaker_zygote_does_not_serve(void **state)
{
    char folder[] = "/tmp/cm-weakens-XXXXXX", image[64];
    struct cm_sessions_config c = standard;
    (void)state;

    assert_non_null(mkdtemp(folder));
    snprintf(image, sizeof image, "%s/weakens", folder);
    c.image_path = image;
    struct world *w = open_world(c);
    create(w);
    assert_string_equal(execute(w, w->id, "count", 0)->result, "1");
    int pid = zygote_pid();
    if (pid != 0) { /* a kernel with the list of children */
        kill(pid, SIGKILL);
        run_for(w, 400);
        assert_false(cm_sessions_ready(w->m));
        assert_true(cm_metrics_get(w->metrics, CM_M_ZYGOTE_RESTARTS, 0) >= 2); /* and it is tried again */
        assert_int_equal(cm_metrics_get(w->metrics, CM_M_LAYER_ACTIVE, 1), 1);
        assert_string_equal(execute(w, w->id, "count", 0)->result, "2"); /* workers that are there do not mind */
        assert_int_equal(unlink(image), 0);
        run_for(w, 1500);
        assert_true(cm_sessions_ready(w->m));
    }
    close_world(w);
    unlink(image);
    assert_int_equal(rmdir(folder), 0);
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
    for (int i = 0; i < 1000 && (cm_sessions_info(w->m, second, &info, NULL) < 0 || strcmp(info.state, "queued") == 0);
         i++)
        run_for(w, 5);
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
        cmocka_unit_test(owners),
        cmocka_unit_test(timeout_interrupts_and_keeps),
        cmocka_unit_test(abandoned_runs_are_interrupted),
        cmocka_unit_test(output_is_bounded_and_clean),
        cmocka_unit_test(delete_while_running),
        cmocka_unit_test(idle_sessions_expire),
        cmocka_unit_test(zygote_death_harms_no_session),
        cmocka_unit_test(spawn_failures_are_answers),
        cmocka_unit_test(silent_zygote_has_a_deadline),
        cmocka_unit_test(zygote_dies_between_birth_and_word),
        cmocka_unit_test(weaker_zygote_does_not_serve),
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
