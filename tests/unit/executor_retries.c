/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that come again do not run again. */
#include "executor_world.h"

static struct cm_run_request known(const char *code, const char *id)
{
    struct cm_run_request rq = request(code, NULL);

    rq.exec.correlation_id = id;
    rq.correlation_is_clients = true;
    return rq;
}

static void answers_a_repeated_request_from_the_record(void **state)
{
    struct client first, second, third;
    struct cm_run_request rq = known("n += 1", "id-1"), other;
    const struct cm_key alice = {.name = "alice"}, again = {.name = "alice", .max_sessions = 5}, bob = {.name = "bob"};

    (void)state;
    rq.key = &alice;
    ask_all(&first, &rq);
    rq.key = &again; /* her keys were read again */
    ask_all(&second, &rq); /* while it runs */
    assert_int_equal(executed, 1);
    assert_false(cm_run_repeated(first.run));
    assert_true(cm_run_repeated(second.run));
    newest()->ops.output(newest()->arg, 1, "hi", 2);
    assert_string_equal(first.output, "1:hi;");
    assert_string_equal(second.output, "1:hi;");
    finish(newest(), "41", NULL);
    assert_string_equal(first.heard, "41");
    assert_string_equal(second.heard, "41");
    assert_string_equal(second.id, "exec-0");
    world_pass(599000);
    ask_all(&third, &rq);
    assert_true(cm_run_repeated(third.run));
    world_turn();
    assert_int_equal(executed, 1);
    assert_string_equal(third.heard, "41");
    assert_string_equal(third.id, "exec-0");
    assert_int_equal(third.res.out_bytes, 70);
    assert_int_equal(third.res.cpu_ns, 5);
    assert_true(third.res.success);
    /* everything that makes it another request */
    other = known("n += 2", "id-1");
    other.key = &alice;
    ask_all(&third, &other);
    other = known("n += 1", "id-2");
    other.key = &alice;
    ask_all(&third, &other);
    other = rq;
    other.session = "session-1";
    ask_all(&third, &other);
    other = rq;
    other.exec.context = "{}";
    other.exec.context_len = 2;
    ask_all(&third, &other);
    other = rq;
    other.exec.config = "{}";
    other.exec.config_len = 2;
    ask_all(&third, &other);
    other = rq;
    other.key = &bob;
    ask_all(&third, &other);
    other = rq;
    other.idempotency_key = "id-1";
    ask_all(&third, &other);
    other = rq;
    other.correlation_is_clients = false; /* we made it up */
    ask_all(&third, &other);
    assert_int_equal(executed, 9);
    for (unsigned i = 1; i < executed; i++)
        finish(execs[i], "0", NULL);
    world_pass(2000);
    ask_all(&third, &rq); /* ten minutes are over */
    assert_int_equal(executed, 10);
    finish(newest(), "42", NULL);
}

/* What the application may know a call by; for free(). */
static char *call_id(const struct cm_run_request *rq)
{
    struct client c;
    struct cm_call k;

    ask_all(&c, rq);
    if (world_waiting())
        world_list(app, 3);
    world_turn();
    call(newest(), &k, "query", "{}", NULL, 3);
    world_turn();
    const char *at = strstr(world_call("CallTool")->metadata, "x-codemode-call=");
    assert_non_null(at);
    char *id = strndup(at + 16, strcspn(at + 16, ";"));
    world_result(true, "", "{}");
    finish(newest(), "1", NULL);
    return id;
}

static void names_calls_alike_wherever_they_run(void **state)
{
    struct cm_run_request rq = known("tools", "id-1"), other = known("tools ", "id-1");
    char *first = call_id(&rq), *second, *third;

    (void)state;
    cm_executor_free(executor);
    open_executor("app:1");
    second = call_id(&rq);
    third = call_id(&other);
    assert_string_equal(first, second);
    assert_string_not_equal(first, third); /* a correlation id alone does not make it the same */
    assert_int_equal(strncmp(first, "id-1.", 5), 0);
    assert_string_equal(strchr(first, ':'), ":3");
    free(first);
    free(second);
    free(third);
    rq.idempotency_key = "key-1";
    first = call_id(&rq);
    assert_int_equal(strncmp(first, "key-1.", 6), 0);
    free(first);
    rq = request("tools", NULL);
    first = call_id(&rq);
    assert_string_equal(first, "cm-1:3"); /* our own id is of one execution only */
    free(first);
}

/* Their clients may have left, so nothing else counts them. */
static void few_requests_wait_for_a_list(void **state)
{
    static char code[20000000];
    struct client c[4], later;
    struct cm_err err;

    (void)state;
    memset(code, '#', sizeof code - 1);
    for (int i = 0; i < 3; i++) {
        char id[8];
        sprintf(id, "id-%d", i);
        struct cm_run_request rq = known(code, id);
        rq.available_tools = "[\"weather\"]";
        rq.available_tools_len = 11;
        assert_int_equal(ask_all(&c[i], &rq), 0);
        cm_run_abandon(c[i].run, true);
    }
    struct cm_run_request rq = request(code, "[\"weather\"]");
    static const struct cm_exec_ops ops = {.done = on_done};
    assert_int_equal(cm_executor_run(executor, &rq, &ops, &c[3], &c[3].run, &err), CM_ERR_OVERLOADED);
    assert_int_equal(ask(&later, "1", "[\"weather\"]"), 0);
    world_list(app, 3);
    world_turn();
    assert_int_equal(executed, 4);
    while (executed > 0) {
        finish(newest(), "1", NULL);
        free(execs[--executed]);
    }
    ask(&later, code, NULL); /* there is room again */
    finish(newest(), "2", NULL);
    assert_string_equal(later.heard, "2");
}

static void goes_on_for_a_client_that_is_lost(void **state)
{
    struct client first, second;
    struct cm_run_request rq = known("n += 1", "id-1");
    struct cm_call k;

    (void)state;
    ask_all(&first, &rq);
    world_list(app, 3);
    cm_run_abandon(first.run, true);
    assert_false(newest()->abandoned);
    call(newest(), &k, "query", "{}", NULL, 1);
    world_turn(); /* its list has come after its start */
    world_result(true, "", "{}");
    ask_all(&second, &rq);
    cm_run_abandon(second.run, true);
    finish(newest(), "41", NULL);
    ask_all(&second, &rq);
    world_turn();
    assert_string_equal(second.heard, "41");
    assert_int_equal(first.times, 0);
    ask_all(&second, &rq); /* lost while its answer is on the way */
    cm_run_abandon(second.run, true);
    world_turn();
    assert_int_equal(second.times, 0);
    /* without an id nobody could ask again */
    ask(&first, "1", NULL);
    cm_run_abandon(first.run, true);
    assert_true(newest()->abandoned);
}

static void ends_what_its_client_does_not_want(void **state)
{
    struct client first, second;
    struct cm_run_request rq = known("n += 1", "id-1");
    struct cm_call k;

    (void)state;
    ask_all(&first, &rq);
    world_list(app, 3);
    ask_all(&second, &rq);
    call(newest(), &k, "query", "{}", NULL, 1);
    world_turn();
    assert_int_equal(world_waiting(), 1);
    cm_run_abandon(first.run, false);
    assert_false(newest()->abandoned); /* the other one still does */
    cm_run_abandon(second.run, false);
    assert_true(newest()->abandoned);
    assert_true(k.over);
    assert_int_equal(world_waiting(), 0);
    ask_all(&first, &rq); /* it may have had effects */
    world_turn();
    assert_int_equal(executed, 1);
    assert_true(atoi(first.heard + 2) == CM_ERR_CANCELLED);
    rq = request("tools", NULL);
    ask_all(&first, &rq);
    finish(newest(), "1", NULL);
}

static void does_not_remember_what_did_not_run(void **state)
{
    struct client c;
    struct cm_run_request rq = known("n += 1", "id-1");
    struct cm_call k;

    (void)state;
    refuse_with = CM_ERR_QUEUE_FULL;
    assert_int_equal(ask_all(&c, &rq), CM_ERR_QUEUE_FULL);
    refuse_with = 0;
    ask_all(&c, &rq);
    fail_exec(newest(), CM_ERR_MAX_SESSIONS);
    assert_int_equal(atoi(c.heard + 2), CM_ERR_MAX_SESSIONS);
    ask_all(&c, &rq);
    assert_int_equal(executed, 2);
    world_list(app, 3);
    call(newest(), &k, "query", "{}", NULL, 1); /* now something has happened */
    newest()->ops.call_gone(newest()->arg, &k);
    fail_exec(newest(), CM_ERR_SANDBOX);
    ask_all(&c, &rq);
    world_turn();
    assert_int_equal(executed, 2);
    assert_int_equal(atoi(c.heard + 2), CM_ERR_SANDBOX);
    rq = known("n += 1", "id-2");
    ask_all(&c, &rq);
    fail_exec(newest(), CM_ERR_SESSION_LOST);
    ask_all(&c, &rq);
    world_turn();
    assert_int_equal(executed, 3);
    assert_int_equal(atoi(c.heard + 2), CM_ERR_SESSION_LOST);
    /* named tools that were not there: it may go well the next time */
    rq = known("1", "id-3");
    rq.available_tools = "[\"late\"]";
    rq.available_tools_len = 8;
    ask_all(&c, &rq);
    world_pass(1100);
    if (world_waiting())
        world_list(app, 3);
    world_turn();
    assert_int_equal(strncmp(c.heard, "!RuntimeError", 13), 0);
    world_pass(1100);
    ask_all(&c, &rq);
    static const struct world_tool late[] = {{"late", "", NULL, false, false}};
    world_list(late, 1);
    world_turn();
    assert_int_equal(executed, 4);
    finish(newest(), "5", NULL);
}

static void keeps_answers_within_bounds(void **state)
{
    static char big[60000];
    struct client c;
    struct cm_run_request rq;
    char ids[30][10];

    (void)state;
    for (int i = 0; i < 30; i++) {
        sprintf(ids[i], "id-%d", i);
        rq = known("1", ids[i]);
        ask_all(&c, &rq);
        finish(newest(), ids[i], NULL);
    }
    for (int i = 0; i < 30; i++) {
        rq = known("1", ids[i]);
        if (i < 20) { /* ten answers are kept */
            assert_int_equal(ask_all(&c, &rq), CM_ERR_NOT_KEPT);
            continue;
        }
        ask_all(&c, &rq);
        world_turn();
        assert_string_equal(c.heard, ids[i]);
    }
    assert_int_equal(executed, 30);
    memset(big, 'x', sizeof big - 1);
    rq = known("1", "big");
    ask_all(&c, &rq);
    finish(newest(), big, NULL);
    assert_int_equal(ask_all(&c, &rq), CM_ERR_NOT_KEPT);
    conf.kept_answers = 1;
    cm_executor_reload(executor, &conf, NULL);
    rq = known("1", ids[28]);
    assert_int_equal(ask_all(&c, &rq), CM_ERR_NOT_KEPT);
    rq = known("1", ids[29]);
    assert_int_equal(ask_all(&c, &rq), 0);
    world_turn();
    assert_string_equal(c.heard, ids[29]);
}

static void bounds_what_it_remembers(void **state)
{
    struct cm_records *r = cm_records_new(3, 1000000);
    const struct cm_exec_result res = {.success = true, .result = "0123456789", .result_len = 10};

    (void)state;
    for (uint64_t i = 0; i < CM_RECORDS_MAX + 10; i++) {
        struct cm_hash h = {{i, 0}};
        assert_null(cm_records_find(r, &h));
        cm_records_finish(r, cm_records_begin(r, &h, &h), &res, NULL, "exec-1");
    }
    assert_int_equal(cm_records_count(r), CM_RECORDS_MAX);
    struct cm_hash last = {{CM_RECORDS_MAX + 9, 0}}, fourth = {{CM_RECORDS_MAX + 6, 0}}, first = {{0, 0}};
    assert_int_equal(cm_records_find(r, &last)->state, CM_RECORD_KEPT);
    assert_int_equal(cm_records_find(r, &fourth)->state, CM_RECORD_GONE);
    assert_null(cm_records_find(r, &first));
    assert_true(cm_records_bytes(r) < 3 * 1000);
    struct cm_kept *kept = cm_kept_ref(cm_records_find(r, &last)->kept);
    world_pass(600001);
    assert_null(cm_records_find(r, &last));
    assert_int_equal(cm_records_count(r), 0);
    assert_int_equal(cm_records_bytes(r), 0);
    assert_string_equal(kept->res.result, "0123456789"); /* whoever is being answered has it still */
    cm_kept_unref(kept);
    cm_records_free(r);
}

/* Everything is under way when the executor goes. */
static void leaves_in_order(void **state)
{
    static struct client c[5]; /* the fixture ends them */
    static struct cm_call k[2];
    struct cm_run_request rq = known("1", "id-1");

    (void)state;
    ask(&c[0], "tools", NULL);
    world_list(app, 3);
    world_turn();
    call(newest(), &k[0], "query", "{}", NULL, 1);
    ask_all(&c[1], &rq);
    finish(newest(), "1", NULL);
    ask_all(&c[2], &rq);
    world_pass(1100);
    ask(&c[3], "x", "[\"unknown\"]");
    rq = known("2", "id-2");
    ask_all(&c[4], &rq);
    cm_run_abandon(c[4].run, true);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(answers_a_repeated_request_from_the_record),
        TEST(names_calls_alike_wherever_they_run),
        TEST(few_requests_wait_for_a_list),
        TEST(goes_on_for_a_client_that_is_lost),
        TEST(ends_what_its_client_does_not_want),
        TEST(does_not_remember_what_did_not_run),
        TEST(keeps_answers_within_bounds),
        TEST(leaves_in_order),
        cmocka_unit_test(bounds_what_it_remembers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
