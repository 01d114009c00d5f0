/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of tools that code makes: with the stand-in sandbox, whose workers send what they are told, and with the real
 * one. The tools are here: see on_call(). */
#include <signal.h>

#include "session_world.h"

#include "ipc/frame.h"

enum { KEPT_MAX = 600 };

static struct cm_call *kept[KEPT_MAX]; /* calls that wait */
static unsigned kept_count, called, gone;
static char last_name[300], last_arguments[2000], last_context[100];
static uint64_t last_deadline_ns;

/* echo: the arguments; number: its number; fail: a failure; bad: one that is no UTF-8; keep, never: nothing yet; big:
 * as many bytes as limits allow, bigger: one more. */
static void on_call(void *arg, struct cm_call *call, const struct cm_call_request *r)
{
    struct answer *a = arg;
    static char big[1002];
    char text[40];

    assert_false(a->done);
    called++;
    copy(last_name, sizeof last_name, r->name, r->name_len);
    copy(last_arguments, sizeof last_arguments, r->arguments, r->arguments_len);
    copy(last_context, sizeof last_context, r->context, r->context_len);
    last_deadline_ns = r->deadline_ns;
    memset(big, '7', sizeof big);
    if (!strcmp(last_name, "echo") || !strcmp(last_name, "aecho") || !strcmp(last_name, "agents.x"))
        cm_call_answer(call, r->arguments, r->arguments_len);
    else if (!strcmp(last_name, "number"))
        cm_call_answer(call, text, (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)r->number));
    else if (!strcmp(last_name, "fail"))
        cm_call_fail(call, CM_CALL_ARGUMENTS, "city: is missing", 16);
    else if (!strcmp(last_name, "bad"))
        cm_call_fail(call, CM_CALL_TOOL_ERROR, "a\xff", 2);
    else if (!strcmp(last_name, "big") || !strcmp(last_name, "bigger"))
        cm_call_answer(call, big, strlen(last_name) == 3 ? 1000 : 1001);
    else
        kept[kept_count++] = call;
    assert_true(kept_count < KEPT_MAX);
}

static bool answers_the_rest; /* who hears that one call is gone may answer another one */

static void on_gone(void *arg, struct cm_call *call)
{
    unsigned i = 0;

    (void)arg;
    while (i < kept_count && kept[i] != call)
        i++;
    assert_true(i < kept_count); /* each once, and no other */
    kept[i] = kept[--kept_count];
    gone++;
    if (answers_the_rest && kept_count > 0)
        cm_call_answer(kept[--kept_count], "{}", 2);
}

static int64_t counted(const struct world *w, unsigned label)
{
    return cm_metrics_get(w->metrics, CM_M_TOOL_CALLS, label);
}

static struct world *tool_world(struct cm_sessions_config c)
{
    kept_count = called = gone = 0;
    world_ops.call = on_call;
    world_ops.call_gone = on_gone;
    return open_world(c);
}

static void end_world(struct world *w)
{
    assert_int_equal(kept_count, 0);
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_TOOL_CALLS_RUNNING, 0), 0);
    close_world(w);
}

static void await_calls(struct world *w, unsigned n)
{
    for (int i = 0; i < 1000 && kept_count < n; i++)
        run_for(w, 2);
    assert_int_equal(kept_count, n);
}

static void answers_reach_the_code(void **state)
{
    struct world *w = tool_world(standard);
    struct answer a = {0};
    (void)state;

    const char *id = create(w);
    assert_string_equal(execute(w, id, "call echo", 0)->result, "1: {\"a\":1}");
    assert_string_equal(execute(w, id, "calls 3 number", 0)->result, "1: 1\n2: 2\n3: 3\n");
    assert_string_equal(execute(w, id, "call fail", 0)->result, "1: failure 2: city: is missing");
    assert_string_equal(execute(w, id, "call bad", 0)->result, "1: failure 0: a\xef\xbf\xbd");
    assert_string_equal(last_name, "bad");
    assert_string_equal(last_arguments, "{\"a\":1}");
    assert_string_equal(last_context, "");
    /* Answers in another order than the calls', some time later. */
    assert_int_equal(begin(w, id, "calls 3 keep", 0, &a), 0);
    await_calls(w, 3);
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_TOOL_CALLS_RUNNING, 0), 3);
    cm_call_set_user(kept[2], &a);
    assert_ptr_equal(cm_call_user(kept[2]), &a);
    assert_null(cm_call_user(kept[1]));
    for (kept_count = 3; kept_count > 0;)
        cm_call_answer(kept[--kept_count], "null", 4);
    await(w, &a.done);
    assert_string_equal(a.result, "3: null\n2: null\n1: null\n");
    assert_int_equal(counted(w, CM_L_CALL_OK), 7);
    assert_int_equal(counted(w, CM_L_CALL_ARGUMENTS), 1);
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_TOOL_CALL_DURATION, 0), 9);
    end_world(w);
}

static void nobody_serves_tools(void **state)
{
    struct world *w = tool_world(standard);
    (void)state;

    world_ops.call = NULL;
    assert_string_equal(execute(w, NULL, "call echo", 0)->result, "1: failure 1: no tool service is configured");
    end_world(w);
}

static void limits_of_results(void **state)
{
    struct world *w = tool_world(standard);
    (void)state;

    assert_memory_equal(execute(w, NULL, "call big", 0)->result, "1: 777", 6);
    assert_non_null(strstr(execute(w, NULL, "call bigger", 0)->result, "1: failure 3: the result has 1001 bytes"));
    assert_int_equal(counted(w, CM_L_CALL_LIMIT), 1);
    end_world(w);
}

static void deadlines_of_calls(void **state)
{
    struct cm_sessions_config c = standard;
    struct cm_limits_asked asked = {.named = 1u << CM_LIMIT_TOOL_TIMEOUT, .value.at = {[CM_LIMIT_TOOL_TIMEOUT] = 0.05}};
    struct world *w = tool_world(c);
    (void)state;

    w->asked = &asked;
    const char *id = create(w);
    uint64_t before = cm_clock_ns();
    assert_string_equal(execute(w, id, "call never", 0)->result, "1: failure 4: no answer within 0.05 s");
    assert_in_range(last_deadline_ns, before + 50 * CM_NS_PER_MS, cm_clock_ns());
    assert_int_equal(gone, 1);
    assert_string_equal(execute(w, id, "calls 2 never", 0)->result,
                        "1: failure 4: no answer within 0.05 s\n2: failure 4: no answer within 0.05 s\n");
    assert_int_equal(counted(w, CM_L_CALL_TIMEOUT), 3);
    execute(w, NULL, "call echo", 1.5); /* the execution's own is nearer than the call's */
    assert_in_range(last_deadline_ns, cm_clock_ns(), cm_clock_ns() + 1500 * CM_NS_PER_MS);
    end_world(w);
}

/* Whoever ends the execution, its calls go with it: the code hears of it where it lives on, the tool's side always. */
static void calls_end_with_their_execution(void **state)
{
    struct world *w = tool_world(standard);
    struct answer a = {0};
    bool stopped;
    (void)state;

    const char *id = create(w);
    assert_string_equal(execute(w, id, "call keep", 0.1)->error_type, "Timeout");
    assert_int_equal(gone, 1);
    assert_int_equal(begin(w, id, "call keep", 0, &a), 0);
    await_calls(w, 1);
    assert_int_equal(cm_sessions_interrupt(w->m, id, NULL, &stopped, NULL), 0);
    assert_int_equal(gone, 2);
    await(w, &a.done);
    assert_string_equal(a.result, "1: failure 6: the execution was interrupted");
    assert_string_equal(execute(w, id, "leavecall keep", 0)->result, "left");
    assert_int_equal(gone, 3);
    assert_string_equal(execute(w, id, "hangcall keep", 0.1)->error_type, "Timeout"); /* killed */
    assert_int_equal(gone, 4);
    assert_int_equal(execute(w, id, "diecall keep", 0)->res.state, CM_STATE_ROLLED_BACK);
    assert_int_equal(gone, 5);
    assert_string_equal(execute(w, id, "cancelcall keep", 0)->result, "2: {\"a\":1}");
    assert_int_equal(gone, 6);
    assert_int_equal(begin(w, id, "call keep", 0, &a), 0);
    await_calls(w, 1);
    cm_exec_abandon(a.exec);
    assert_int_equal(gone, 7);
    assert_string_equal(execute(w, id, "call echo", 0)->result, "1: {\"a\":1}");
    assert_int_equal(begin(w, id, "call keep", 0, &a), 0);
    await_calls(w, 1);
    assert_true(cm_sessions_delete(w->m, id));
    assert_int_equal(gone, 8);
    await(w, &a.done);
    assert_int_equal(begin(w, NULL, "call keep", 0, &a), 0);
    await_calls(w, 1);
    cm_exec_abandon(a.exec);
    assert_int_equal(gone, 9);
    assert_int_equal(counted(w, CM_L_CALL_CANCELLED), 9);
    end_world(w);
}

/* The process is gone by the time that its first call is, so there is nobody to take the second one's answer. */
static void calls_are_answered_while_their_process_ends(void **state)
{
    struct world *w = tool_world(standard);
    struct cm_session_info info;
    struct answer a = {0};
    (void)state;

    const char *id = create(w);
    assert_int_equal(begin(w, id, "calls 2 keep", 0, &a), 0);
    await_calls(w, 2);
    assert_int_equal(cm_sessions_info(w->m, id, &info, NULL), 0);
    answers_the_rest = true;
    assert_int_equal(kill((pid_t)info.pid, SIGKILL), 0);
    await(w, &a.done);
    answers_the_rest = false;
    assert_int_equal(a.res.state, CM_STATE_ROLLED_BACK);
    assert_int_equal(gone, 1);
    assert_string_equal(execute(w, id, "call echo", 0)->result, "1: {\"a\":1}");
    end_world(w);
}

static void an_atomic_execution_fails_with_calls(void **state)
{
    struct world *w = tool_world(standard);
    struct answer a = {.atomic = true};
    (void)state;

    const char *id = create(w);
    assert_int_equal(begin(w, id, "call keep", 0.1, &a), 0);
    await(w, &a.done);
    assert_int_equal(a.res.state, CM_STATE_ROLLED_BACK);
    assert_int_equal(gone, 1);
    assert_string_equal(execute(w, id, "call echo", 0)->result, "1: {\"a\":1}");
    end_world(w);
}

static void broken_promises_end_the_worker(void **state)
{
    static const char *const codes[] = {"badcall number", "badcall zero",  "badcall again",     "badcall name",
                                        "badcall empty",  "badcall utf8",  "badcall arguments", "badcall array",
                                        "badcall json",   "badcall large", "badcall cancel",    "badcall many",
                                        "badcall limit"};
    struct world *w = tool_world(standard);
    (void)state;

    const char *id = create(w);
    for (size_t i = 0; i < CM_COUNT_OF(codes); i++) {
        struct answer *a = execute(w, id, codes[i], 0);
        assert_int_equal(a->res.state, CM_STATE_ROLLED_BACK);
        assert_non_null(strstr(a->error, "broke the protocol"));
        assert_int_equal(cm_metrics_get(w->metrics, CM_M_WORKER_DEATHS, CM_L_DEATH_PROTOCOL), i + 1);
        assert_int_equal(kept_count, 0);
    }
    execute(w, id, "badcall late", 0);
    for (int i = 0; i < 500 && cm_metrics_get(w->metrics, CM_M_WORKER_DEATHS, CM_L_DEATH_PROTOCOL) < 14; i++)
        run_for(w, 2);
    assert_int_equal(cm_metrics_get(w->metrics, CM_M_WORKER_DEATHS, CM_L_DEATH_PROTOCOL), 14);
    end_world(w);
}

/* Whoever waits for a tool does not keep others from computing. */
static void waiting_takes_no_turn(void **state)
{
    struct cm_sessions_config c = standard;
    struct answer a = {0};
    (void)state;

    c.max_running = 1;
    struct world *w = tool_world(c);
    const char *id = create(w);
    assert_int_equal(begin(w, id, "call keep", 0, &a), 0);
    await_calls(w, 1);
    assert_string_equal(execute(w, NULL, "echo x", 0)->result, "x");
    cm_call_answer(kept[--kept_count], "1", 1);
    await(w, &a.done);
    assert_string_equal(a.result, "1: 1");
    end_world(w);
}

/* ---- the real sandbox */

static struct cm_sessions_config real(void)
{
    struct cm_sessions_config c = standard;

    c.sandbox_path = getenv("CM_SANDBOX");
    c.image_path = getenv("CM_IMAGE");
    assert_true(c.sandbox_path && c.image_path);
    c.limits.at[CM_LIMIT_MEMORY] = c.caps.at[CM_LIMIT_MEMORY] = 256 << 20;
    c.limits.at[CM_LIMIT_LOCALS] = c.caps.at[CM_LIMIT_LOCALS] = 10000;
    return c;
}

static const struct {
    const char *code, *result, *error_type;
} cells[] = {
    {"tools['echo'].run(x=[1, 2.5, None, 'ä'])", "{'x': [1, 2.5, None, 'ä']}", ""},
    {"import asyncio\nawait asyncio.gather(*[tools.aecho(i=i) for i in range(3)])", "[{'i': 0}, {'i': 1}, {'i': 2}]",
     ""},
    {"print('before')\ntools['number'].run()", "1", ""},
    {"try: tools['fail'].run()\nexcept RuntimeError as e: r = str(e)\nr", "\"tools['fail']: city: is missing\"", ""},
    {"tools['fail'].run()", "", "ToolArgumentError"},
    {"tools['nope']", "", "UnknownTool"},
    {"echo(x='y' * 1000)", "", "ToolLimitError"},
    {"agents['x'].execute_task('do it')", "{'task': 'do it'}", ""},
};

static void the_real_thing(void **state)
{
    struct world *w = tool_world(real());
    struct answer *a, b = {0};
    (void)state;

    world_tools =
        "[[\"echo\",0],[\"aecho\",1],[\"number\",0],[\"fail\",0],[\"keep\",0],[\"bigger\",0],[\"agents.x\",0]]";
    const char *id = create(w);
    for (size_t i = 0; i < CM_COUNT_OF(cells); i++) {
        a = execute(w, id, cells[i].code, 0);
        assert_string_equal(a->error_type, cells[i].error_type);
        assert_string_equal(a->result, cells[i].result);
    }
    assert_int_equal(begin(w, id, "x = 1\nkeep()", 0.2, &b), 0); /* a timeout while it waits: the state stays */
    await(w, &b.done);
    assert_true(b.res.timed_out);
    assert_int_equal(b.res.state, CM_STATE_KEPT);
    assert_string_equal(execute(w, id, "x, echo(a=1)", 0)->result, "(1, {'a': 1})");
    assert_string_equal(execute(w, id, "bigger()", 0)->error_type, "ToolLimitError");
    world_tools = NULL;
    assert_non_null(strstr(execute(w, id, "tools['echo']", 0)->error, "no tool service is configured"));
    end_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_reach_the_code),
        cmocka_unit_test(nobody_serves_tools),
        cmocka_unit_test(limits_of_results),
        cmocka_unit_test(deadlines_of_calls),
        cmocka_unit_test(calls_end_with_their_execution),
        cmocka_unit_test(calls_are_answered_while_their_process_ends),
        cmocka_unit_test(an_atomic_execution_fails_with_calls),
        cmocka_unit_test(broken_promises_end_the_worker),
        cmocka_unit_test(waiting_takes_no_turn),
        cmocka_unit_test(the_real_thing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
