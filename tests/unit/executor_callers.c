/* SPDX-License-Identifier: Apache-2.0 */
/* Tools that the caller of an execution answers himself. */
#include "executor_world.h"

static struct cm_call *asked; /* the newest call that came to the caller */
static char asked_name[60];
static unsigned asked_times, gone_times;
static int mark; /* what the face keeps with its calls */

static void on_call(void *arg, struct cm_call *call, const struct cm_call_request *rq)
{
    (void)arg;
    asked = call;
    asked_times++;
    cm_call_set_user(call, &mark);
    copy_text(asked_name, sizeof asked_name, rq->name, rq->name_len);
}

static void on_gone(void *arg, struct cm_call *call)
{
    (void)arg;
    gone_times++;
    assert_ptr_equal(cm_call_user(call), &mark);
    call->over = true;
}

static int ask_with(struct client *c, const char *own, const char *available)
{
    static const struct cm_exec_ops ops = {.done = on_done, .output = on_output, .call = on_call, .call_gone = on_gone};
    struct cm_run_request rq = request("tools", available);
    struct cm_err err = {0};

    asked = NULL;
    asked_times = gone_times = 0;
    rq.caller_tools = own;
    rq.caller_tools_len = strlen(own);
    rq.idempotency_key = "again";
    *c = (struct client){0};
    int rc = cm_executor_run(executor, &rq, &ops, c, &c->run, &err);
    copy_text(c->heard, sizeof c->heard, err.text, rc ? strlen(err.text) : 0);
    return rc;
}

#define OWN "[\"rlm.llm_query\",\"weather\"]"

static void exist_without_a_service(void **state)
{
    struct cm_call k;
    struct client c;

    (void)state;
    cm_executor_free(executor);
    open_executor("none");
    assert_int_equal(ask_with(&c, OWN, NULL), 0);
    assert_string_equal(newest()->tools, "[[\"rlm.llm_query\",0],[\"weather\",0]]");
    call(newest(), &k, "rlm.llm_query", "{\"prompt\":\"x\"}", NULL, 1);
    assert_ptr_equal(asked, &k);
    assert_string_equal(asked_name, "rlm.llm_query");
    cm_call_answer(asked, "\"yes\"", 5);
    assert_string_equal(k.heard, "\"yes\"");
    call(newest(), &k, "rlm.llm_quer", "{}", NULL, 2);
    assert_string_equal(k.heard, "!1 there is no such tool; did you mean 'rlm.llm_query'?");
    assert_int_equal(asked_times, 1);
    finish(newest(), "1", NULL);
    assert_string_equal(c.heard, "1");
}

static void questions_about_them(void **state)
{
    struct cm_call k;
    struct client c;

    (void)state;
    cm_executor_free(executor);
    open_executor("none");
    assert_int_equal(ask_with(&c, "[\"get_weather\",\"b\"]", NULL), 0);
    call(newest(), &k, "__list__", "{}", NULL, 1);
    assert_string_equal(
        k.heard, "{\"tools\":[{\"name\":\"get_weather\",\"description\":\"\",\"is_async\":false,\"has_context\":false,"
                 "\"has_input_schema\":false,\"has_output_schema\":false},{\"name\":\"b\",\"description\":\"\","
                 "\"is_async\":false,\"has_context\":false,\"has_input_schema\":false,\"has_output_schema\":false}],"
                 "\"count\":2}");
    call(newest(), &k, "__schema__", "{\"name\":\"b\"}", NULL, 2);
    assert_string_equal(k.heard,
                        "{\"tool_name\":\"b\",\"input_schema\":null,\"output_schema\":null,\"description\":\"\","
                        "\"is_async\":false,\"has_context\":false}");
    call(newest(), &k, "__schema__", "{\"name\":\"c\"}", NULL, 3);
    assert_string_equal(k.heard, "!1 there is no tool 'c'; there are 'get_weather', 'b'");
    call(newest(), &k, "__search__", "{\"query\":\"weather\"}", NULL, 4);
    assert_non_null(strstr(k.heard, "\"name\":\"get_weather\""));
    assert_non_null(strstr(k.heard, "\"count\":1}"));
    assert_int_equal(asked_times, 0);
    finish(newest(), "1", NULL);
}

static void win_over_those_of_the_service(void **state)
{
    struct cm_call k, query;
    struct client c;

    (void)state;
    assert_int_equal(ask_with(&c, OWN, NULL), 0);
    world_list(app, 3);
    world_turn();
    assert_string_equal(newest()->tools, "[[\"rlm.llm_query\",0],[\"weather\",0],[\"query\",1],[\"agents.writer\",0]]");
    call(newest(), &k, "weather", "{\"no\":\"city\"}", NULL, 1); /* which the service's schema would refuse */
    assert_ptr_equal(asked, &k);
    cm_call_fail(asked, CM_CALL_TOOL_ERROR, "rain", 4);
    assert_string_equal(k.heard, "!0 rain");
    call(newest(), &query, "query", "{}", NULL, 2);
    assert_int_equal(asked_times, 1);
    assert_int_equal(world_waiting(), 1); /* that one went to the service */
    call(newest(), &k, "__schema__", "{\"name\":\"weather\"}", NULL, 3);
    assert_non_null(strstr(k.heard, "\"input_schema\":null"));
    call(newest(), &k, "__list__", "{}", NULL, 4);
    assert_non_null(strstr(k.heard, "\"count\":4}"));
    finish(newest(), "1", NULL);
}

static void need_no_permission(void **state)
{
    struct cm_call k;
    struct client c;

    (void)state;
    assert_int_equal(ask_with(&c, OWN, "[\"query\",\"weather\"]"), 0); /* one of each */
    world_list(app, 3);
    world_turn();
    assert_string_equal(newest()->tools, "[[\"rlm.llm_query\",0],[\"weather\",0],[\"query\",1]]");
    call(newest(), &k, "rlm.llm_query", "{}", NULL, 1);
    assert_int_equal(asked_times, 1);
    cm_call_answer(asked, "1", 1);
    finish(newest(), "1", NULL);
    cm_executor_free(executor);
    open_executor("none");
    assert_int_equal(ask_with(&c, OWN, "[\"weather\"]"), 0); /* no service is needed for that */
    assert_string_equal(newest()->tools, "[[\"rlm.llm_query\",0],[\"weather\",0]]");
    finish(newest(), "1", NULL);
    assert_int_equal(ask_with(&c, OWN, "[\"weather\",\"query\"]"), 0);
    world_turn();
    assert_non_null(strstr(c.heard, "no tool service is configured"));
}

static void do_not_wait_for_a_list(void **state)
{
    struct cm_call k;
    struct client c;

    (void)state;
    assert_int_equal(ask_with(&c, OWN, NULL), 0);
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
    world_turn();
    assert_string_equal(newest()->tools, "[[\"rlm.llm_query\",0],[\"weather\",0]]");
    call(newest(), &k, "weather", "{}", NULL, 1);
    assert_int_equal(asked_times, 1);
    assert_int_equal(world_waiting(), 0);
    cm_call_answer(asked, "1", 1);
    finish(newest(), "1", NULL);
}

/* The face's calls and ours, each told by its own end. */
static void calls_that_nobody_waits_for(void **state)
{
    struct cm_call own, ours;
    struct client c;

    (void)state;
    assert_int_equal(ask_with(&c, OWN, NULL), 0);
    world_list(app, 3);
    world_turn();
    call(newest(), &own, "weather", "{}", NULL, 1);
    call(newest(), &ours, "query", "{}", NULL, 2);
    assert_int_equal(world_waiting(), 1);
    newest()->ops.call_gone(newest()->arg, &ours);
    assert_int_equal(gone_times, 0);
    assert_int_equal(world_waiting(), 0);
    newest()->ops.call_gone(newest()->arg, &own);
    assert_int_equal(gone_times, 1);
    call(newest(), &own, "weather", "{}", NULL, 3);
    call(newest(), &ours, "query", "{}", NULL, 4);
    cm_run_abandon(c.run, true);
    assert_true(newest()->abandoned); /* whatever is lost: nobody can ask for it again */
    assert_int_equal(gone_times, 1);
    assert_int_equal(c.times, 0);
}

static void are_not_remembered(void **state)
{
    struct client c, d;

    (void)state;
    cm_executor_free(executor);
    open_executor("none");
    assert_int_equal(ask_with(&c, OWN, NULL), 0);
    assert_int_equal(ask_with(&d, OWN, NULL), 0);
    assert_int_equal(executed, 2);
    assert_false(cm_run_repeated(d.run));
    finish(newest(), "2", NULL);
    finish(execs[0], "1", NULL);
    assert_string_equal(c.heard, "1");
    assert_string_equal(d.heard, "2");
    struct cm_run_request rq = request("x", NULL);
    rq.idempotency_key = "again";
    rq.streamed = true;
    assert_int_equal(ask_all(&c, &rq), 0);
    assert_int_equal(ask_all(&d, &rq), 0);
    assert_int_equal(executed, 4);
    cm_run_abandon(c.run, true);
    assert_true(execs[2]->abandoned);
    finish(newest(), "4", NULL);
    assert_string_equal(d.heard, "4");
}

static void names_that_are_none(void **state)
{
    static const char *const bad[] = {
        "[1]",           "[\"\"]",         "[\"__list__\"]", "[\"a\",\"a\"]", "[\"a\\u0000\"]",
        "[\"\\ud800\"]", "[\"a\\u007f\"]", "[\"a\\u0085\"]", "{\"a\":1}",     "[[\"a\"]]",
        "[null]",        "[\"a\\n\"]",     "\"a\""};
    char many[500] = "[\"x\"", large[300] = "[\"";
    struct client c;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(ask_with(&c, bad[i], NULL), CM_ERR_BAD_FIELD);
        assert_int_equal(strncmp(c.heard, "caller_tools: ", 14), 0);
    }
    for (int i = 1; i < 64; i++)
        sprintf(many + strlen(many), ",\"%d\"", i);
    strcat(many, "]");
    assert_int_equal(ask_with(&c, many, NULL), 0);
    cm_run_abandon(c.run, true);
    strcpy(many + strlen(many) - 1, ",\"64\"]");
    assert_int_equal(ask_with(&c, many, NULL), CM_ERR_BAD_FIELD);
    memset(large + 2, 'x', 201);
    strcpy(large + 203, "\"]");
    assert_int_equal(ask_with(&c, large, NULL), CM_ERR_BAD_FIELD);
    strcpy(large + 202, "\"]");
    assert_int_equal(ask_with(&c, large, NULL), 0);
    cm_run_abandon(c.run, true);
    assert_int_equal(ask_with(&c, "[]", NULL), 0);
    cm_run_abandon(c.run, true);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(exist_without_a_service), TEST(questions_about_them),   TEST(win_over_those_of_the_service),
        TEST(need_no_permission),      TEST(do_not_wait_for_a_list), TEST(calls_that_nobody_waits_for),
        TEST(are_not_remembered),      TEST(names_that_are_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
