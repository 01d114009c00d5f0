/* SPDX-License-Identifier: Apache-2.0 */
/* How runs end that do not find their answer: every limit, every failure in the middle, and a cancel in each state. */
#include "rlm/internal.h"
#include "rlm_world.h"

/* Limits */

static void stops_at_tokens(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.limits.max_tokens = 100;
    SCRIPT(SAID("First words.\n" BLOCK("llm cost\nprint not this")), SAID("FINAL(x)"));
    complete(&q);
    fails_with(CM_ERR_LIMIT_TOKENS, "1015 of 100 tokens");
    assert_non_null(strstr(world.partial, "First words."));
    assert_int_equal(world.asked, 2);
}

static void stops_at_the_budget(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.limits.max_budget = 1;
    SCRIPT(SAID("First words.\n" BLOCK("llm cost\nprint not this")), SAID("FINAL(x)"));
    complete(&q);
    fails_with(CM_ERR_LIMIT_BUDGET, "spent 2 of 1 USD");
    assert_non_null(strstr(world.usage, "\"total_cost\":2"));
    q.limits.max_budget = 3;
    SCRIPT(SAID(BLOCK("llm cost")), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
}

static void stops_at_errors(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.limits.max_errors = 2;
    SCRIPT(SAID(BLOCK("error A: 1")), SAID(BLOCK("print fine")), SAID(BLOCK("error B: 2")), SAID(BLOCK("error C: 3")));
    complete(&q);
    fails_with(CM_ERR_LIMIT_ERRORS, "2 turns in a row had errors in their code (max_errors), the last one: C: 3");
}

static void stops_in_time(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.limits.max_timeout_s = 0.05;
    SCRIPT(MADE(.never = true));
    complete(&q);
    fails_with(CM_ERR_LIMIT_TIMEOUT, "0.05 seconds");
    SCRIPT(SAID("words " BLOCK("hang")));
    complete(&q);
    fails_with(CM_ERR_LIMIT_TIMEOUT, "0.05 seconds");
    assert_int_equal(world.abandoned, 1);
    assert_non_null(strstr(world.partial, "words"));
    SCRIPT(SAID(BLOCK("llm never")));
    complete(&q);
    fails_with(CM_ERR_LIMIT_TIMEOUT, "0.05 seconds");
}

static void a_block_has_its_own_time(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.limits.execution_timeout_s = 0.03;
    SCRIPT(SAID(BLOCK("print before\nhang")), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    assert_int_equal(world.interrupts, 1);
    has(&world.requests, "USER Output:\nbefore\nTraceback\nKeyboardInterrupt\nError: the block has run for 0.03 "
                         "seconds and was interrupted.");
}

static unsigned looks;

static bool looked_often(void)
{
    return ++looks > 100; /* of a millisecond or more each */
}

static void waiting_for_queries_is_not_the_blocks_time(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.limits.execution_timeout_s = 0.03;
    SCRIPT(SAID(BLOCK("llm never\nprint after")), SAID("FINAL(x)"));
    start(&q);
    looks = 0;
    until(looked_often);
    assert_int_equal(world.interrupts, 0);
    struct cm_llm_call *c;
    DL_FOREACH(world.calls, c)
    if (strcmp(c->last, "never") == 0) {
        c->said = SAID("at last");
        cm_task_post(world.loop, &c->task, call_ends, c);
    }
    finish();
    ends_with_answer("x");
    assert_int_equal(world.interrupts, 0);
    has(&world.requests, "Output:\n\"at last\"\nafter\n");
}

/* Bounds of what code can choose */

static char *long_reply;

static struct said answers_at_length(const char *model, const struct cm_llm_message *messages, size_t count)
{
    if (strcmp(model, "root") == 0)
        return scripted(model, messages, count);
    return SAID(long_reply);
}

static void replies_are_cut_to_what_a_call_may_return(void **state)
{
    const size_t size = 13u << 20;
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    long_reply = malloc(size + 1);
    memset(long_reply, 'y', size);
    long_reply[size] = '\0';
    SCRIPT(SAID(BLOCK("llm one")), SAID(BLOCK("llms one|two")), SAID("FINAL(x)"));
    world.reply = answers_at_length;
    complete(&q);
    ends_with_answer("x");
    has(&world.requests, "characters dropped: more than a sub-query may return ...\"");
    has(&world.requests, "characters dropped: more than a sub-query may return ...\"]");
    free(long_reply);
}

static void a_block_makes_only_so_many_queries(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID(BLOCK("flood 10001\nflood 9999\nllms a|b\nllm c")), SAID(BLOCK("llm d")), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    assert_int_equal(times(&world.requests, "ToolError: a block may make 10000 sub-queries, no more"), 2 * 2);
    assert_non_null(strstr(world.usage, "\"sub\":{\"total_calls\":10001,"));
}

static struct said children_are_quick(const char *model, const struct cm_llm_message *messages, size_t count)
{
    return strcmp(model, "root") == 0 ? scripted(model, messages, count) : SAID("FINAL(quick)");
}

static void a_run_starts_only_so_many_nodes(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.limits.max_depth = 2;
    SCRIPT(SAID(BLOCK("floodr 1002")), SAID("FINAL(x)"));
    world.reply = children_are_quick;
    complete(&q);
    ends_with_answer("x");
    assert_int_equal(world.created, 1001);
    has(&world.requests,
        "\"quick\",\"Error: a run may start 1000 recursive queries, no more\",\"Error: a run may start 1000 "
        "recursive queries, no more\"]");
}

/* Failures in the middle */

static void a_weak_reply_is_asked_for_again(void **state)
{
    static const enum cm_llm_failure weak[] = {CM_LLM_EMPTY, CM_LLM_BAD_ANSWER, CM_LLM_CUT, CM_LLM_TOO_LARGE,
                                               CM_LLM_REFUSAL};
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    for (size_t i = 0; i < sizeof weak / sizeof weak[0]; i++) {
        SCRIPT(MADE(.failure = weak[i]), SAID("FINAL(x)"));
        complete(&q);
        ends_with_answer("x");
        assert_int_equal(world.result.iterations, 1);
        SCRIPT(MADE(.failure = weak[i]), MADE(.failure = weak[i]), SAID("FINAL(x)"));
        complete(&q);
        fails_with(CM_ERR_MODEL, cm_llm_failure_name(weak[i]));
    }
    SCRIPT(SAID("<think>only"), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
}

static void other_failures_end_the_run(void **state)
{
    static const enum cm_llm_failure hard[] = {CM_LLM_UNREACHABLE, CM_LLM_TIMEOUT,  CM_LLM_RATE_LIMITED, CM_LLM_REFUSED,
                                               CM_LLM_BAD_REQUEST, CM_LLM_TOO_LONG, CM_LLM_NO_MEMORY};
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    for (size_t i = 0; i < sizeof hard / sizeof hard[0]; i++) {
        SCRIPT(SAID("Words. " BLOCK("print 1")), MADE(.failure = hard[i]), SAID("FINAL(x)"));
        complete(&q);
        fails_with(CM_ERR_MODEL, cm_llm_failure_name(hard[i]));
        assert_non_null(strstr(world.partial, "Words."));
        assert_int_equal(script_at, 2);
    }
    SCRIPT(MADE(.failure = CM_LLM_OK, .refuse = true, .text = ""));
    complete(&q);
    fails_with(CM_ERR_MODEL, "the fake takes no request");
}

static void a_cut_reply_is_good_for_its_blocks(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID(BLOCK("print whole") "```repl\nprint hal", .failure = CM_LLM_CUT),
           SAID("FINAL(not whole", .failure = CM_LLM_CUT), SAID("FINAL(x) and", .failure = CM_LLM_OK),
           SAID("FINAL(x)\nand", .failure = CM_LLM_CUT));
    complete(&q);
    ends_with_answer("x");
    has(&world.requests, "Output:\nwhole\n\nThe `repl` block in your reply has no closing fence");
    assert_int_equal(world.result.iterations, 3);
}

static void a_refusal_is_a_reply(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID("I will not.", .failure = CM_LLM_REFUSAL), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    has(&world.requests, "ASSISTANT I will not.\nUSER Your reply has no `repl` block");
}

static void sessions_end_badly(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID("Words. " BLOCK("lost")));
    complete(&q);
    fails_with(CM_ERR_SIDECAR, "the session was lost: the process has ended");
    assert_non_null(strstr(world.partial, "Words."));
    SCRIPT(SAID(BLOCK("gone")));
    complete(&q);
    fails_with(CM_ERR_SIDECAR, "the fake breaks off");
    SCRIPT(SAID(BLOCK("print a\nrollback")), SAID(BLOCK("die") BLOCK("print b")), SAID(BLOCK("refuse")),
           SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x"); /* the session was still there each time */
    has(&world.requests, "Error: the session went back to the state before this block: MemoryError: too much");
    has(&world.requests, "Output of block 1:\nError: the connection to the session broke while the block ran");
    has(&world.requests, "Output of block 2:\nb");
    has(&world.requests, "Output:\nError: the fake breaks off");
    world.report_fails = true;
    SCRIPT(SAID(BLOCK("print a")), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
}

static void long_reports_come_in_parts(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    world.long_reports = true;
    SCRIPT(SAID(BLOCK("variable v")), SAID(BLOCK("final at last")));
    complete(&q);
    ends_with_answer("at last");
    has(&world.events, "\"locals\":{\"v\":\"int\"}");
}

static void nonsense_in_a_report_says_nothing(void **state)
{
    static const char *const reports[] = {"",
                                          "None",
                                          "[]",
                                          "{",
                                          "{}",
                                          "{\"final\": 5}",
                                          "{\"final\": {\"key\": \"none\"}}",
                                          "{\"key\": \"none\"}",
                                          "{\"key\": 5}",
                                          "{\"key\": {}}",
                                          "{\"final\": \"\\ud800\", \"variables\": []}"};
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    for (size_t i = 0; i < sizeof reports / sizeof *reports; i++) {
        world.report = reports[i];
        SCRIPT(SAID(BLOCK("final stolen")), SAID("FINAL_VAR(known)"), SAID("FINAL(x)"));
        complete(&q);
        ends_with_answer("x");
    }
}

static void setups_fail(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    world.create_fails = CM_ERR_MAX_SESSIONS;
    complete(&q);
    fails_with(CM_ERR_MAX_SESSIONS, "no session: the fake fails here");
    assert_memory_equal(cm_buf_data(&world.events), "metadata {", 10); /* even so */
    has(&world.events, "\nresult {");
    world.create_fails = CM_ERR_SIDECAR;
    complete(&q);
    fails_with(CM_ERR_SIDECAR, "no session");
    world.create_fails = 0;
    world.put_fails = CM_ERR_NO_ROOM;
    complete(&q);
    fails_with(CM_ERR_NO_ROOM, "a variable could not be sent");
    world.put_fails = 0;
    world.setup_fails = true;
    complete(&q);
    fails_with(CM_ERR_SIDECAR, "the session could not be prepared: NameError: x");
}

/* The end from outside, in each state */

static bool is_executing(void)
{
    return world.execs != NULL;
}

static bool has_op(void)
{
    return world.ops != NULL;
}

static bool a_sub_query_waits(void)
{
    struct cm_llm_call *c;

    DL_FOREACH(world.calls, c)
    if (strcmp(c->last, "never") == 0)
        return true;
    return false;
}

static bool a_block_hangs(void)
{
    struct cm_sidecar_exec *x;

    DL_FOREACH(world.execs, x)
    if (x->hangs)
        return true;
    return false;
}

static bool a_report_waits(void)
{
    return strstr(cm_buf_data(&world.codes), ".report()") && world.execs;
}

static void cancelled_when(const struct cm_rlm_request *q, bool (*condition)(void))
{
    start(q);
    until(condition);
    cancel();
    nothing_left(0);
    start(q);
    until(condition);
    cm_rlm_free(world.rlm); /* the service ends: no word of it */
    assert_int_equal(world.done, 0);
    assert_null(world.sessions);
    assert_null(world.calls);
    const struct cm_rlm_config config = {.runs_max = 3, .model_calls_max = 64};
    assert_int_equal(cm_rlm_open(world.loop, &config, &world.rlm, NULL), 0);
    cm_buf_clear(&world.codes);
}

static struct said in_a_child(const char *model, const struct cm_llm_message *messages, size_t count)
{
    if (count == 1)
        return sub_reply(messages[0].text);
    if (strcmp(model, "root") == 0)
        return SAID(BLOCK("rlms a|b|c"));
    return SAID(BLOCK("llm never"));
}

static struct said child_hangs(const char *model, const struct cm_llm_message *messages, size_t count)
{
    (void)messages;
    (void)count;
    return strcmp(model, "root") == 0 ? SAID(BLOCK("rlms a|b|c")) : SAID(BLOCK("hang"));
}

static struct said never(const char *model, const struct cm_llm_message *messages, size_t count)
{
    (void)model;
    (void)messages;
    (void)count;
    return MADE(.never = true);
}

static struct said hangs(const char *model, const struct cm_llm_message *messages, size_t count)
{
    (void)messages;
    (void)count;
    return strcmp(model, "root") == 0 ? SAID(BLOCK("hang")) : MADE(.never = true);
}

static struct said queries_never(const char *model, const struct cm_llm_message *messages, size_t count)
{
    (void)count;
    return strcmp(model, "root") == 0 ? SAID(BLOCK("llms a|never|b|never")) : sub_reply(messages[0].text);
}

static void is_cancelled_in_each_state(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    world.reply = never;
    world.create_never = true;
    cancelled_when(&q, has_op);
    world.create_never = false;
    world.put_never = true;
    cancelled_when(&q, has_op);
    world.put_never = false;
    world.setup_never = true;
    cancelled_when(&q, is_executing);
    world.setup_never = false;
    cancelled_when(&q, model_is_asked);
    world.reply = hangs;
    cancelled_when(&q, a_block_hangs);
    world.report_never = true;
    world.reply = scripted;
    SCRIPT(SAID(BLOCK("print 1")), SAID(BLOCK("print 1")));
    cancelled_when(&q, a_report_waits);
    world.report_never = false;
    world.reply = queries_never;
    cancelled_when(&q, a_sub_query_waits);
    q.limits.max_depth = 2;
    world.reply = in_a_child;
    cancelled_when(&q, a_sub_query_waits);
    world.reply = child_hangs;
    cancelled_when(&q, a_block_hangs);
}

static void cancel_in_an_event(const char *type, const char *json)
{
    (void)json;
    if (strcmp(type, "iteration") == 0)
        cm_rlm_cancel(world.run);
}

static void is_cancelled_by_an_event(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID("FINAL(x)"));
    world.on_event = cancel_in_an_event;
    complete(&q);
    fails_with(CM_ERR_CANCELLED, "cancelled");
}

static void a_query_that_nobody_waits_for_ends(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID(BLOCK("llm never\nprint on")), SAID("FINAL(x)"));
    start(&q);
    until(a_sub_query_waits);
    struct cm_sidecar_exec *x = world.execs;
    unsigned number = x->call;
    x->call = 0;
    x->ops->call_gone(x->arg, number);
    assert_null(world.calls);
    go_on(x);
    finish();
    ends_with_answer("x");
    has(&world.requests, "Output:\non\n");
}

static void only_so_many_runs(void **state)
{
    struct cm_rlm_request q = request("q", "c");
    struct cm_rlm_run *runs[3], *more;
    struct cm_err err = {0};

    (void)state;
    world.reply = never;
    for (int i = 0; i < 3; i++)
        assert_int_equal(cm_rlm_start(world.rlm, &q, &run_ops, NULL, &runs[i], &err), 0);
    assert_int_equal(cm_rlm_start(world.rlm, &q, &run_ops, NULL, &more, &err), CM_ERR_OVERLOADED);
    assert_int_equal(cm_rlm_running(world.rlm), 3);
    assert_string_not_equal(cm_rlm_run_id(runs[0]), cm_rlm_run_id(runs[1]));
}

/* Runs of one key have one part of the room for long texts; it goes with the last of them. */
static void keys_have_parts_of_the_room(void **state)
{
    static const char *const names[] = {"ann", "ann", "bob"};
    struct cm_rlm_request q = request("q", "c");
    struct cm_rlm_run *runs[3];

    for (int i = 0; i < 3; i++) {
        char name[4]; /* which is the caller's */
        q.key = strcpy(name, names[i]);
        assert_int_equal(cm_rlm_start(world.rlm, &q, &run_ops, NULL, &runs[i], NULL), 0);
        memset(name, 'x', 3);
    }
    assert_ptr_equal(runs[0]->room.above, runs[1]->room.above);
    assert_ptr_not_equal(runs[0]->room.above, runs[2]->room.above);
    assert_ptr_equal(runs[0]->room.above->above, &world.rlm->room);
    assert_ptr_equal(runs[2]->room.above->above, &world.rlm->room);
    assert_ptr_equal(runs[0]->held.above, runs[1]->held.above);
    assert_ptr_not_equal(runs[0]->held.above, runs[2]->held.above);
    assert_ptr_equal(runs[2]->held.above->above, &world.rlm->held);
    assert_string_equal(runs[2]->key->name, "bob");
    cm_rlm_cancel(runs[2]);
    finish();
    assert_ptr_equal(world.rlm->keys, runs[0]->key);
    assert_null(world.rlm->keys->next);
    assert_int_equal(world.rlm->keys->runs, 2);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stops_at_tokens),
        TEST(stops_at_the_budget),
        TEST(stops_at_errors),
        TEST(stops_in_time),
        TEST(a_block_has_its_own_time),
        TEST(waiting_for_queries_is_not_the_blocks_time),
        TEST(replies_are_cut_to_what_a_call_may_return),
        TEST(a_block_makes_only_so_many_queries),
        TEST(a_run_starts_only_so_many_nodes),
        TEST(a_weak_reply_is_asked_for_again),
        TEST(other_failures_end_the_run),
        TEST(a_cut_reply_is_good_for_its_blocks),
        TEST(a_refusal_is_a_reply),
        TEST(sessions_end_badly),
        TEST(long_reports_come_in_parts),
        TEST(nonsense_in_a_report_says_nothing),
        TEST(setups_fail),
        TEST(is_cancelled_in_each_state),
        TEST(is_cancelled_by_an_event),
        TEST(a_query_that_nobody_waits_for_ends),
        TEST(only_so_many_runs),
        TEST(keys_have_parts_of_the_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
