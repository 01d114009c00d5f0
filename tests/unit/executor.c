/* SPDX-License-Identifier: Apache-2.0 */
/* Which tools an execution has, and its calls. */
#include "executor_world.h"

/* Which tools */

static void runs_code_without_tools_at_once(void **state)
{
    struct client c;

    (void)state;
    assert_int_equal(ask(&c, "1 + 1", NULL), 0);
    assert_int_equal(executed, 1);
    assert_string_equal(newest()->tools, "[]");
    assert_int_equal(world_waiting(), 1); /* the list is asked for all the same */
    finish(newest(), "2", NULL);
    assert_string_equal(c.heard, "2");
    assert_string_equal(c.id, "exec-0");
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
    ask(&c, "import itertools", NULL); /* no word of ours */
    assert_int_equal(executed, 2);
    assert_int_equal(world_waiting(), 0);
    finish(newest(), NULL, "ValueError: x");
    assert_string_equal(c.heard, "! ValueError: x");
}

static void tells_code_of_the_tools(void **state)
{
    struct client c;

    (void)state;
    ask(&c, "tools['weather']", NULL);
    assert_int_equal(executed, 0);
    world_list(app, 3);
    world_turn();
    assert_int_equal(executed, 1);
    assert_string_equal(newest()->tools, "[[\"weather\",2],[\"query\",1],[\"agents.writer\",0]]");
    finish(newest(), "1", NULL);
    ask(&c, "x", "[]"); /* an empty list is all */
    assert_string_equal(newest()->tools, "[[\"weather\",2],[\"query\",1],[\"agents.writer\",0]]");
    finish(newest(), "1", NULL);
    ask(&c, "x", "[\"qu\\u0065ry\", \"__list__\"]");
    assert_string_equal(newest()->tools, "[[\"query\",1]]");
    finish(newest(), "1", NULL);
    ask(&c, "x", "[\"__list__\"]"); /* ours need no permission, and give none */
    assert_string_equal(newest()->tools, "[]");
    finish(newest(), "1", NULL);
    assert_int_equal(world_waiting(), 0);
}

static void waits_a_little_for_what_may_be_used(void **state)
{
    struct client c;

    (void)state;
    ask(&c, "x = agents.writer", NULL);
    assert_int_equal(executed, 0);
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
    world_turn();
    assert_int_equal(executed, 1); /* it may have meant something else */
    assert_string_equal(newest()->tools, "[]");
    finish(newest(), "1", NULL);
    assert_string_equal(c.heard, "1");
}

static void refuses_to_run_without_the_named_tools(void **state)
{
    struct client c;

    (void)state;
    ask(&c, "1", "[\"weather\"]");
    for (int i = 0; i < 3; i++) {
        world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused \xff");
        world_pass(1001);
    }
    assert_int_equal(executed, 0);
    assert_non_null(strstr(c.heard, "refused \xef\xbf\xbd")); /* an answer is UTF-8, whatever a service says */
    assert_int_equal(
        strncmp(c.heard, "!RuntimeError RuntimeError: the tool service at app:50051 cannot be reached", 70), 0);
    assert_int_equal(strncmp(c.id, "exec-", 5), 0);
    world_pass(1001);
    ask(&c, "1", "[\"weathr\",\"query\"]");
    world_list(app, 3);
    world_turn();
    assert_string_equal(c.heard, "!RuntimeError RuntimeError: the tool service does not list 'weathr'; did you mean "
                                 "'weather'?");
    world_pass(1);
    ask(&c, "1", "[\"nothing\",\"like that\"]"); /* the list is young, but they may have been registered since */
    world_list(app, 3);
    world_turn();
    assert_string_equal(c.heard, "!RuntimeError RuntimeError: the tool service does not list 'nothing', 'like that'; "
                                 "there are 'weather', 'query', 'agents.writer'");
    world_pass(1001);
    ask(&c, "1", "[\"late\"]");
    static const struct world_tool more[] = {{"late", "", NULL, false, false}};
    world_list(more, 1);
    world_turn();
    assert_int_equal(executed, 1);
    assert_string_equal(newest()->tools, "[[\"late\",0]]");
    finish(newest(), "1", NULL);
    cm_executor_free(executor);
    open_executor("none");
    assert_string_equal(cm_executor_target(executor), "");
    ask(&c, "1", "[\"weather\"]");
    world_turn();
    assert_non_null(strstr(c.heard, "no tool service is configured"));
    ask(&c, "tools", NULL);
    assert_string_equal(newest()->tools, "-");
    finish(newest(), "1", NULL);
}

static void checks_the_target(void **state)
{
    struct cm_executor *x = NULL;
    struct cm_err err;

    (void)state;
    snprintf(conf.main_app_target, sizeof conf.main_app_target, "localhost");
    assert_int_equal(cm_executor_open(NULL, &conf, NULL, NULL, NULL, &x, &err), CM_ERR_CONFIG);
    assert_non_null(strstr(err.text, "must be host:port"));
    assert_null(x);
}

/* Calls */

static void passes_calls_on(void **state)
{
    struct client c;
    struct cm_call k[3];
    char asked[1000];

    (void)state;
    struct cm_exec *e = running(&c, NULL, "{\"user\":\"u1\",\"t\\u0065nant\":7,\"x\":[1]}");
    call(e, &k[0], "weather", "{\"city\":\"Rome\"}", NULL, 1);
    assert_string_equal(world_asked(asked, sizeof asked),
                        "weather {\"city\":\"Rome\"} {\"user\":\"u1\",\"tenant\":7,\"x\":[1]} cm-1");
    assert_non_null(strstr(world_call("CallTool")->metadata, "x-codemode-call=cm-1:1;"));
    assert_non_null(strstr(strstr(world_call("CallTool")->metadata, "x-codemode-run="), cm_run_id(c.run)));
    assert_int_equal(world_call("CallTool")->deadline_ns, world_now + CM_NS_PER_S);
    world_result(true, "", "{\"temp\":72}");
    assert_string_equal(k[0].heard, "{\"temp\":72}");
    call(e, &k[0], "query", "{}", "{\"tenant\":8,\"y\":null}", 2);
    assert_string_equal(world_asked(asked, sizeof asked),
                        "query {} {\"user\":\"u1\",\"x\":[1],\"tenant\":8,\"y\":null} cm-1");
    call(e, &k[1], "agents.writer", "{\"task\":\"t\"}", NULL, 3);
    world_result(false, "no such table", NULL);
    assert_string_equal(k[0].heard, "!0 no such table");
    world_fail("CallTool", CM_GRPC_DEADLINE_EXCEEDED, "");
    assert_int_equal(strncmp(k[1].heard, "!4 ", 3), 0);
    finish(e, "1", NULL);
    e = running(&c, NULL, NULL);
    call(e, &k[0], "weather", "{\"city\":\"Rome\"}", NULL, 1);
    assert_string_equal(world_asked(asked, sizeof asked), "weather {\"city\":\"Rome\"} - cm-1");
    call(e, &k[1], "weather", "{\"city\":\"Bonn\"}", "{}", 2);
    e->ops.call_gone(e->arg, &k[0]);
    assert_string_equal(world_asked(asked, sizeof asked), "weather {\"city\":\"Bonn\"} {} cm-1");
    e->ops.call_gone(e->arg, &k[1]);
    assert_int_equal(world_waiting(), 0); /* both were cancelled */
    finish(e, "1", NULL);
}

/* A list of questions only is a list all the same: it allows nothing of the service's, whether its tools are known yet or
 * not, and whether they can be had. */
static void names_of_ours_allow_nothing_else(void **state)
{
    struct client c;
    struct cm_call k;

    (void)state;
    for (int known_list = 0; known_list < 2; known_list++) {
        struct cm_exec *e = running(&c, "[\"__search__\"]", NULL);
        assert_string_equal(e->tools, "[]");
        call(e, &k, "weather", "{\"city\":\"Rome\"}", NULL, 1);
        assert_int_equal(strncmp(k.heard, "!1 it is not one of the execution's available_tools", 51), 0);
        call(e, &k, "__list__", "{}", NULL, 2);
        assert_string_equal(k.heard, "{\"tools\":[],\"count\":0}");
        finish(e, "1", NULL);
    }
    executor = cm_executor_free(executor);
    open_executor("none");
    ask(&c, "1", "[\"__search__\"]");
    finish(newest(), "2", NULL);
    assert_string_equal(c.heard, "2");
}

static void refuses_calls_before_they_are_sent(void **state)
{
    static char big[(1 << 20) + 100];
    struct client c;
    struct cm_call k;

    (void)state;
    struct cm_exec *e = running(&c, "[\"weather\"]", NULL);
    call(e, &k, "weather", "{\"citty\":\"Rome\",\"city\":1}", NULL, 1);
    assert_string_equal(k.heard, "!2 argument 'city': is 1, wanted a string");
    call(e, &k, "weather", "{\"citi\":\"Rome\"}", NULL, 2);
    assert_string_equal(k.heard, "!2 unknown argument 'citi'; did you mean 'city'?\n"
                                 "argument 'city' is missing, wanted a string");
    call(e, &k, "query", "{}", NULL, 3);
    assert_string_equal(k.heard, "!1 it is not one of the execution's available_tools; there are 'weather'");
    call(e, &k, "wether", "{}", NULL, 4);
    assert_string_equal(k.heard, "!1 there is no such tool; did you mean 'weather'?");
    call(e, &k, "__nothing__", "{}", NULL, 5);
    assert_string_equal(k.heard, "!1 there are '__list__', '__schema__' and '__search__'");
    world_refuses = true;
    call(e, &k, "weather", "{\"city\":\"Rome\"}", NULL, 6);
    assert_string_equal(k.heard, "!3 too many calls");
    world_refuses = false;
    call(e, &k, "weather", "{\"city\":\"Rome\",\"n\":1e999}", NULL, 7);
    assert_int_equal(strncmp(k.heard, "!2 arguments: ", 14), 0);
    finish(e, "1", NULL);
    memset(big, 'x', sizeof big);
    memcpy(big, "{\"a\":\"", 6);
    strcpy(big + sizeof big - 3, "\"}");
    e = running(&c, NULL, big); /* too large a context: only who wants one misses it */
    call(e, &k, "weather", "{\"city\":\"Rome\"}", NULL, 1);
    assert_int_equal(strncmp(k.heard, "!3 the execution's context has", 30), 0);
    call(e, &k, "query", "{}", NULL, 2);
    world_result(true, "", "{}");
    assert_string_equal(k.heard, "{}");
    finish(e, "1", NULL);
}

/* What reading one context for each member of the other would cost, a client and its code choose together. */
static void large_contexts_are_not_put_together(void **state)
{
    static char general[200000], own[300000];
    char *at = general;
    struct client c;
    struct cm_call k;

    (void)state;
    for (int i = 0; i < 100; i++)
        at += sprintf(at, "%c\"m%d\":1", i ? ',' : '{', i);
    strcpy(at, "}");
    memset(own, 'x', sizeof own);
    memcpy(own, "{\"a\":\"", 6);
    strcpy(own + sizeof own - 3, "\"}");
    struct cm_exec *e = running(&c, NULL, general);
    call(e, &k, "query", "{}", own, 1);
    assert_int_equal(strncmp(k.heard, "!3 the contexts of the call", 27), 0);
    call(e, &k, "query", "{}", "{\"a\":1}", 2);
    world_result(true, "", "{}");
    assert_string_equal(k.heard, "{}");
    finish(e, "1", NULL);
}

static void answers_questions_about_tools(void **state)
{
    struct client c;
    struct cm_call k;

    (void)state;
    struct cm_exec *e = running(&c, "[\"weather\",\"query\"]", NULL);
    call(e, &k, "__list__", "{}", NULL, 1);
    assert_string_equal(
        k.heard, "{\"tools\":[{\"name\":\"weather\",\"description\":\"The weather of a city\",\"is_async\":false,"
                 "\"has_context\":true,\"has_input_schema\":true,\"has_output_schema\":false},"
                 "{\"name\":\"query\",\"description\":\"Asks the database\",\"is_async\":true,\"has_context\":false,"
                 "\"has_input_schema\":false,\"has_output_schema\":false}],\"count\":2}");
    call(e, &k, "__schema__", "{\"name\":\"weather\"}", NULL, 2);
    assert_string_equal(k.heard, "{\"tool_name\":\"weather\",\"input_schema\":" CITY ",\"output_schema\":null,"
                                 "\"description\":\"The weather of a city\",\"is_async\":false,\"has_context\":true}");
    call(e, &k, "__schema__", "{\"tool_name\":\"agents.writer\"}", NULL, 3);
    assert_string_equal(k.heard, "!1 there is no tool 'agents.writer'; there are 'weather', 'query'");
    call(e, &k, "__schema__", "{}", NULL, 4);
    assert_string_equal(k.heard, "!1 name= must name a tool; there are 'weather', 'query'");
    call(e, &k, "__search__", "{\"query\":\"DATABASE\",\"limit\":5}", NULL, 5);
    assert_non_null(strstr(k.heard,
                           "{\"tools\":[{\"name\":\"query\",\"description\":\"Asks the database\",\"is_async\":true,"
                           "\"score\":"));
    assert_non_null(strstr(k.heard, "\"input_schema\":null}],\"count\":1}"));
    call(e, &k, "__search__", "{\"query\":\"writer\"}", NULL, 6);
    assert_string_equal(k.heard, "{\"tools\":[],\"count\":0}");
    call(e, &k, "__search__", "{}", NULL, 7);
    assert_non_null(strstr(k.heard, "\"count\":2}"));
    call(e, &k, "__search__", "{\"limit\":0}", NULL, 8);
    assert_string_equal(k.heard, "{\"tools\":[],\"count\":0}");
    finish(e, "1", NULL);
}

static void asks_for_a_schema_that_the_list_lacks(void **state)
{
    /* tool_name "query", input_schema {"required":["sql"]} */
    static const char told[] = "\x0a\x05query\x12\x16\x0a\x14{\"required\":[\"sql\"]}";
    struct client c;
    struct cm_call k;

    (void)state;
    struct cm_exec *e = running(&c, NULL, NULL);
    call(e, &k, "__schema__", "{\"name\":\"query\"}", NULL, 1);
    world_fail("GetToolSchema", CM_GRPC_NOT_FOUND, "none");
    assert_non_null(strstr(k.heard, "\"input_schema\":null"));
    call(e, &k, "__schema__", "{\"name\":\"query\"}", NULL, 2);
    world_answer(world_call("GetToolSchema"), CM_GRPC_OK, "", told, sizeof told - 1);
    assert_non_null(strstr(k.heard, "\"input_schema\":{\"required\":[\"sql\"]}"));
    call(e, &k, "__schema__", "{\"name\":\"query\"}", NULL, 3); /* once is enough */
    assert_non_null(strstr(k.heard, "\"input_schema\":{\"required\":[\"sql\"]}"));
    call(e, &k, "query", "{}", NULL, 4); /* and it counts */
    assert_int_equal(strncmp(k.heard, "!2 argument 'sql' is missing", 28), 0);
    call(e, &k, "__schema__", "{\"name\":\"agents.writer\"}", NULL, 5);
    world_answer(world_call("GetToolSchema"), CM_GRPC_OK, "", told, sizeof told - 1); /* of somebody else */
    assert_non_null(strstr(k.heard, "\"input_schema\":null"));
    call(e, &k, "__schema__", "{\"name\":\"agents.writer\"}", NULL, 6);
    e->ops.call_gone(e->arg, &k);
    assert_int_equal(world_waiting(), 0);
    finish(e, "1", NULL);
}

static void looks_again_for_tools_when_they_are_called(void **state)
{
    struct client c;
    struct cm_call k, gone;

    (void)state;
    ask(&c, "f()", NULL);
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
    struct cm_exec *e = newest();
    world_pass(1100);
    call(e, &k, "weather", "{\"city\":\"Rome\"}", NULL, 1);
    call(e, &gone, "query", "{}", NULL, 2);
    e->ops.call_gone(e->arg, &gone);
    world_list(app, 3);
    world_turn();
    world_result(true, "", "{}");
    assert_string_equal(k.heard, "{}");
    finish(e, "1", NULL);
    cm_executor_free(executor);
    open_executor("app:1");
    ask(&c, "f()", NULL);
    e = newest();
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
    world_pass(1100);
    call(e, &k, "__list__", "{}", NULL, 1);
    for (int i = 0; i < 3; i++) {
        world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
        world_pass(1001);
    }
    assert_int_equal(strncmp(k.heard, "!5 the tool service at app:1 cannot be reached", 46), 0);
    finish(e, "1", NULL);
}

/* Else */

static enum cm_tool_service seen;

static void on_ping(void *arg, enum cm_tool_service state)
{
    ++*(int *)arg;
    seen = state;
}

static void says_whether_the_service_is_there(void **state)
{
    int times = 0;

    (void)state;
    assert_string_equal(cm_executor_target(executor), "app:50051");
    cm_executor_ping(executor, on_ping, &times);
    assert_int_equal(times, 0);
    world_list(app, 3);
    world_turn();
    assert_int_equal(seen, CM_TOOLS_REACHABLE);
    world_pass(1100);
    cm_executor_ping(executor, on_ping, &times);
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
    world_turn();
    assert_int_equal(seen, CM_TOOLS_UNREACHABLE);
    assert_int_equal(times, 2);
    cm_executor_ping(executor, on_ping, &times); /* never answered: the executor goes */
    cm_executor_free(executor);
    open_executor("none");
    world_turn();
    assert_int_equal(times, 2);
    cm_executor_ping(executor, on_ping, &times);
    world_turn();
    assert_int_equal(seen, CM_TOOLS_NONE);
    assert_int_equal(times, 3);
    cm_executor_ping(executor, on_ping, &times);
}

static void maps_exceptions_to_types(void **state)
{
    static const char *const cases[][2] = {
        {"KeyError", "KeyError"}, {"ModuleNotFoundError", "ImportError"}, {"UnknownTool", "RuntimeError"},
        {"OSError", "Unknown"},   {"IndentationError", "SyntaxError"},    {"KeyErro", "Unknown"},
        {"KeyErrors", "Unknown"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_exec_result res = {.error_type = cases[i][0], .error_type_len = strlen(cases[i][0])};
        assert_string_equal(cm_error_type(&res), cases[i][1]);
        res.timed_out = true;
        assert_string_equal(cm_error_type(&res), "Timeout");
        res.success = true;
        assert_null(cm_error_type(&res));
    }
    struct cm_exec_result res = {0};
    assert_string_equal(cm_error_type(&res), "Unknown");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(runs_code_without_tools_at_once),
        TEST(tells_code_of_the_tools),
        TEST(waits_a_little_for_what_may_be_used),
        TEST(refuses_to_run_without_the_named_tools),
        TEST(checks_the_target),
        TEST(passes_calls_on),
        TEST(names_of_ours_allow_nothing_else),
        TEST(refuses_calls_before_they_are_sent),
        TEST(large_contexts_are_not_put_together),
        TEST(answers_questions_about_tools),
        TEST(asks_for_a_schema_that_the_list_lacks),
        TEST(looks_again_for_tools_when_they_are_called),
        TEST(says_whether_the_service_is_there),
        cmocka_unit_test(maps_exceptions_to_types),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
