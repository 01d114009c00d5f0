/* SPDX-License-Identifier: Apache-2.0 */
/* Runs against stand-ins for models and the sidecar: how they come to an answer, what models and sessions are sent, what is
 * said of it. */
#include "rlm_world.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/mman.h>

#include "rlm/internal.h"

/* Finishes */

static void answers_from_a_block(void **state)
{
    struct cm_rlm_request q = request("What is it?", "the context");

    (void)state;
    SCRIPT(SAID(BLOCK("print hello\nvariable x")), SAID(BLOCK("final 42\nprint done")));
    complete(&q);
    ends_with_answer("42");
    assert_int_equal(world.result.iterations, 2);
    assert_int_equal(world.created, 1);
    has(&world.requests, "USER The query: What is it?\n\n`context` is a str with 11 characters in all. A sub-query can "
                         "read about 384000 characters at once.\n\nTurn 1/20.");
    has(&world.requests, "ASSISTANT Now:\n```repl\nprint hello");
    has(&world.requests, "USER Output:\nhello\nVariables: x\n\nTurn 2/20.");
    has_not(&world.requests, "the context\n");
    assert_string_equal(world.usage,
                        "{\"model_usage_summaries\":{\"root\":{\"total_calls\":2,\"total_input_tokens\":20,"
                        "\"total_output_tokens\":10}}}");
}

static void an_answer_may_be_empty(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID(BLOCK("final \nprint x")));
    complete(&q);
    ends_with_answer("");
}

static void blocks_run_in_order_until_an_answer(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID(BLOCK("print one") BLOCK("error ValueError: two") BLOCK("value 3")),
           SAID(BLOCK("final yes") BLOCK("print not")));
    complete(&q);
    ends_with_answer("yes");
    has(&world.requests,
        "USER Output of block 1:\none\n\nOutput of block 2:\nTraceback\nValueError: two\n\nOutput of block "
        "3:\n3\n\nTurn 2/20.");
    has_not(&world.codes, "print not");
}

static void answers_in_text(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID("FINAL(f(x) = (1))"));
    complete(&q);
    ends_with_answer("f(x) = (1)");
    SCRIPT(SAID(BLOCK("print x") "FINAL(after the block)"));
    complete(&q);
    ends_with_answer("after the block");
    has(&world.codes, "print x");
    SCRIPT(SAID(BLOCK("final block wins") "FINAL(text)"));
    complete(&q);
    ends_with_answer("block wins");
}

static void answers_by_variable(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID("FINAL_VAR(unknown)"), SAID(BLOCK("print x") "FINAL_VAR(other)"), SAID("FINAL_VAR('known')"));
    complete(&q);
    ends_with_answer("value of known");
    has(&world.requests, "USER Error: FINAL_VAR: there is no variable 'unknown'.\n\nTurn 2/20.");
    has(&world.requests, "USER Output:\nx\n\nError: FINAL_VAR: there is no variable 'other'.\n\nTurn 3/20.");
}

static void says_that_nothing_ran(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID("Hm."), SAID("```repl\nprint 1"), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    has(&world.requests,
        "USER Your reply has no `repl` block and no final answer, so nothing has run. Code runs in a fence");
    has(&world.requests, "USER The `repl` block in your reply has no closing fence");
}

static void asks_for_an_answer_when_turns_are_over(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.limits.max_iterations = 2;
    SCRIPT(SAID(BLOCK("print 1")), SAID(BLOCK("print 2")), SAID("\n It is seven.\n"));
    complete(&q);
    ends_with_answer("It is seven.");
    assert_int_equal(world.result.iterations, 2);
    has(&world.requests, "Turn 2/2, the last one.");
    has(&world.requests, "USER Output:\n2\n\nNo turns are left");
    SCRIPT(SAID(BLOCK("print 1")), SAID(BLOCK("print 2")), SAID("So:\nFINAL(seven)"));
    complete(&q);
    ends_with_answer("seven");
    SCRIPT(SAID(BLOCK("print 1")), SAID(BLOCK("print 2")), SAID("FINAL_VAR(known)"));
    complete(&q);
    ends_with_answer("value of known");
    SCRIPT(SAID(BLOCK("print 1")), SAID(BLOCK("print 2")), SAID("FINAL_VAR(unknown)"));
    complete(&q);
    ends_with_answer("FINAL_VAR(unknown)");
    SCRIPT(SAID(BLOCK("print 1")), SAID(BLOCK("print 2")), SAID(BLOCK("print 3")));
    complete(&q);
    assert_int_equal(world.result.err.code, 0);
    has_not(&world.codes, "print 3");
}

static void thoughts_are_not_sent_back(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID("<think>FINAL(wrong)</think>\n" BLOCK("print 1")), SAID("FINAL(right)"));
    complete(&q);
    ends_with_answer("right");
    has_not(&world.requests, "wrong");
    has(&world.events, "wrong");
}

/* Contexts, prompts */

static void put_is(const struct cm_rlm_request *q, const char *puts, const char *words)
{
    SCRIPT(MADE(.never = true));
    start(q);
    until(model_is_asked);
    assert_string_equal(cm_buf_data(&world.sessions->puts), puts);
    has(&world.requests, words);
    cancel();
    nothing_left(0);
}

static void sends_contexts(void **state)
{
    struct cm_rlm_request q = request("q", NULL);

    (void)state;
    put_is(&q, "context_0=;", "`context` is an empty text");
    q = request(NULL, "what is 1 + 1?");
    put_is(&q, "context_0=what is 1 + 1?;", "The query is part of `context`");
    q = request("q", "[1]");
    q.context.kind = CM_CONTEXT_JSON;
    put_is(&q, "json context_0=[1];", "`context` is a str with 3");
    q = request("q", NULL);
    q.context.fd = memfd_create("context", MFD_CLOEXEC);
    q.context.len = 9;
    assert_int_equal(write(q.context.fd, "from file", 9), 9);
    int fd = q.context.fd;
    put_is(&q, "context_0=from file;", "9 characters");
    assert_int_equal(close(fd), -1); /* the engine has closed it */
}

static void refuses_what_cannot_be(void **state)
{
    struct cm_rlm_request good = request("q", "c"), q;
    struct cm_rlm_run *run;
    struct cm_err err;

    (void)state;
#define REFUSED(change, words)                                                                                         \
    q = good;                                                                                                          \
    change;                                                                                                            \
    err = (struct cm_err){0};                                                                                          \
    assert_int_equal(cm_rlm_start(world.rlm, &q, &run_ops, NULL, &run, &err), CM_ERR_BAD_FIELD);                       \
    if (!strstr(err.text, words))                                                                                      \
        fail_msg("%s: %s", words, err.text);
    REFUSED(q.query = NULL; q.context.data = NULL, "query")
    REFUSED(q.query = "\xff", "query")
    REFUSED(q.models_count = 0, "model")
    REFUSED(q.models[1].name = "", "model")
    REFUSED(q.limits.max_depth = 0, "max_depth")
    REFUSED(q.limits.max_iterations = 0, "max_iterations")
    REFUSED(q.limits.max_budget = -1, "max_budget")
    REFUSED(q.limits.max_timeout_s = 0.0 / 0.0, "max_timeout")
    REFUSED(q.limits.execution_timeout_s = 0, "execution_timeout")
    REFUSED(q.limits.max_concurrent_subcalls = 0, "max_concurrent_subcalls")
    REFUSED(q.compaction_threshold = 2, "compaction_threshold")
    REFUSED(q.custom_tools = "[]", "custom_tools")
    REFUSED(q.custom_tools = "{\"llm_query\": 1}", "llm_query")
    REFUSED(q.custom_sub_tools = "{\"answer\": 1}", "custom_sub_tools")
    REFUSED(q.custom_tools = "{\"a b\": 1}", "a b")
    REFUSED(q.custom_tools = "{\"_x\": 1}", "_x")
    nothing_left(0);
}

struct names {
    const char *says; /* what a refusal has in it; NULL: it is none */
    size_t count;
};

static bool check_name(void *arg, struct cm_json_value *value)
{
    struct names *n = arg;
    struct cm_buf tools;
    struct cm_err err = {0};

    cm_buf_init(&tools, 1000);
    assert_int_equal(cm_buf_printf(&tools, "{%.*s: 1}", (int)value->len, value->raw), 0);
    int rc = cm_preface_check_tools(cm_buf_data(&tools), "custom_tools", &err);
    if (rc != (n->says ? CM_ERR_BAD_FIELD : 0) || (n->says && !strstr(err.text, n->says)))
        fail_msg("%s: %s", cm_buf_data(&tools), err.text);
    cm_buf_done(&tools);
    n->count++;
    return true;
}

static void knows_names_of_tools(void **state)
{
    struct cm_json_member m[] = {{.name = "good"}, {.name = "taken"}, {.name = "bad"}};
    static const char *const says[] = {NULL, "a name of the session's own", "no name for a tool"};
    struct names n = {0};
    char path[4096], json[8192];

    (void)state;
    snprintf(path, sizeof path, "%s/cases/names.json", getenv("CM_RLM"));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t len = read(fd, json, sizeof json);
    close(fd);
    assert_true(len > 0 && (size_t)len < sizeof json);
    assert_int_equal(cm_json_object(json, (size_t)len, m, 3, NULL), 0);
    for (size_t i = 0; i < 3; i++) {
        n.says = says[i];
        cm_json_elements(&m[i].value, check_name, &n);
    }
    assert_true(n.count >= 60);
}

static void custom_tools_are_told_of(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.custom_tools =
        "{\"table\": {\"tool\": [1, 2], \"description\": \"Some numbers\"}, \"pi\": 3.14, \"plain\": {\"a\": 1},"
        "\"search\": {\"code\": \"def search(x): pass\", \"description\": \"Finds \\\"x\\\"\"}}";
    SCRIPT(SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    has(&world.requests, "There are also:\n\n- `table` (list): Some numbers\n- `pi` (float)\n- `plain` (dict)\n- "
                         "`search(...)`: Finds \"x\"\n\nHow to work:");
    has(&world.codes, ".add(_rlm_tools)");
    world.setup_fails = true;
    SCRIPT(SAID("FINAL(x)"));
    complete(&q);
    fails_with(CM_ERR_BAD_FIELD, "custom_tools: the session could not be prepared: NameError: x");
}

static void a_system_prompt_takes_the_place_of_ours(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.system_prompt = "Mine {{\"a\"}} {output_limit} {other}";
    q.user_prologue = "Be brief.";
    SCRIPT(SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    has(&world.requests, "SYSTEM Mine {\"a\"} 20000 {other}\nUSER The query: q");
    has(&world.requests, "at once.\n\nBe brief.\n\nTurn 1/20.");
    has_not(&world.requests, "You direct the work");
    cm_buf_clear(&world.requests);
    q = request("q", "c");
    SCRIPT(SAID("FINAL(x)"));
    complete(&q);
    has(&world.requests, "You direct the work");
    has(&world.requests, "the same as `llm_query`");
    cm_buf_clear(&world.requests);
    q.no_orchestrator = true;
    q.limits.max_depth = 2;
    SCRIPT(SAID("FINAL(x)"));
    complete(&q);
    has_not(&world.requests, "You direct the work");
    has(&world.requests, "hands a whole task to a worker");
}

/* Sub-queries */

static void queries_models(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID(BLOCK("llm one\nllms a|b|fail|d|refuse\nrlm two\nrlms e|f")), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    has(&world.requests,
        "USER Output:\n\"re one\"\n[\"re a\",\"re b\",\"Error: unreachable: the fake says so\",\"re d\",\"Error: "
        "bad_request: the fake takes no request\"]\n\"re two\"\n[\"re e\",\"re f\"]");
    assert_int_equal(world.created, 1);
    has(&world.requests, "sub\nUSER one\n");
    assert_non_null(strstr(world.usage, "\"sub\":{\"total_calls\":8"));
}

static void models_are_chosen(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.other = (struct cm_llm_model){.name = "other", .base_url = "http://other"};
    SCRIPT(SAID(BLOCK("llm one\nllm two@sub\nllm three@not-one-of-them")), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    has(&world.requests, "other\nUSER one\n");
    has(&world.requests, "sub\nUSER two\n");
    has(&world.requests, "other\nUSER three\n"); /* the name of no model of the run means the usual one */
}

static void batches_are_bounded(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID(BLOCK("llms 1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16|17|18|19|20")), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    assert_int_equal(world.most_calls, 16);
    has(&world.requests, "\"re 19\",\"re 20\"]");
    world.most_calls = 0;
    SCRIPT(SAID(BLOCK("rlms 1|2|3|4|5|6|7|8|9")), SAID("FINAL(x)"));
    complete(&q);
    assert_int_equal(world.most_calls, 4);
}

static void all_runs_share_the_gate(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID(BLOCK("llms 1|2|3|4|5|6|7|8")), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    assert_int_equal(world.most_calls, 2);
}

/* A tree of three levels: replies depend on what is asked. */
static struct said tree_reply(const char *model, const struct cm_llm_message *messages, size_t count)
{
    const char *first = messages[1].text, *last = messages[count - 1].text;

    if (count == 1)
        return sub_reply(last);
    if (strstr(first, "The query: top"))
        return count == 2 ? SAID(BLOCK("rlms left|right")) : SAID("FINAL(top)");
    assert_non_null(strstr(first, "The query is part of `context`"));
    if (strcmp(model, "sub") == 0)
        return count == 2 ? SAID(BLOCK("rlm deep\nllm leaf\nfinal level one")) : SAID("FINAL(never)");
    return count == 2 ? SAID(BLOCK("rlm bottom")) : SAID("FINAL(level two)");
}

static void recursion_has_a_session_for_each_level(void **state)
{
    struct cm_rlm_request q = request("top", "c");

    (void)state;
    q.limits.max_depth = 3;
    q.models[2] = (struct cm_llm_model){.name = "deepest", .base_url = "http://model"};
    q.models_count = 3;
    world.reply = tree_reply;
    complete(&q);
    ends_with_answer("top");
    assert_int_equal(world.created, 5);
    assert_int_equal(world.deleted, 5);
    has(&world.requests, "USER Output:\n[\"level one\",\"level one\"]\n\nTurn 2/20.");
    has(&world.requests, "deepest\nUSER bottom\n"); /* at depth 3 a plain completion */
    has(&world.requests, "USER Output:\n\"re bottom\"\n\nTurn 2/20.");
    assert_int_equal(times(&world.events, "metadata {"), 5);
    assert_int_equal(times(&world.events, "\nresult {"), 5);
    has(&world.events, "\"parent\":0,\"call\":1,\"depth\":1,\"root_model\":\"sub\"");
}

static struct said failing_child(const char *model, const struct cm_llm_message *messages, size_t count)
{
    (void)model;
    if (strstr(messages[1].text, "The query: top"))
        return count == 2 ? SAID(BLOCK("rlms good|bad|good")) : SAID("FINAL(top)");
    if (strcmp(world.sessions->prev->newest, "bad") == 0 || messages[1].len == 0)
        return MADE(.failure = CM_LLM_RATE_LIMITED);
    return SAID("FINAL(fine)");
}

static void a_child_that_fails_is_a_text(void **state)
{
    struct cm_rlm_request q = request("top", "c");

    (void)state;
    q.limits.max_depth = 2;
    q.limits.max_concurrent_subcalls = 1;
    world.reply = failing_child;
    complete(&q);
    ends_with_answer("top");
    has(&world.requests,
        "[\"fine\",\"Error: the model `sub` gave no reply of use: rate_limited: the fake says so\",\"fine\"]");
}

static void long_prompts_come_in_parts(void **state)
{
    struct cm_rlm_request q = request("top", "c");

    (void)state;
    q.limits.max_depth = 2;
    SCRIPT(SAID(BLOCK("part p1 begin \npart p1 middle \npart p1 end\nkeyed p1\nkeyed p1\nkeyed p2")), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    /* The child's model is not the script's: it answers "re ..." until its turns are over. */
    has(&world.codes, "part p1 begin");
    has(&world.requests,
        "ToolError: a text was not sent before it was used\nToolError: a text was not sent before it was used");
}

static void nonsense_from_a_session_is_refused(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    SCRIPT(SAID(BLOCK(
               "call rlm.llm_query {}\ncall rlm.llm_query {\"prompt\":1}\ncall rlm.llm_query {\"prompt\":\"\\ud800\"}\n"
               "call rlm.llm_query_batched {\"prompts\":\"x\"}\ncall rlm.llm_query_batched {\"prompts\":[1]}\n"
               "call rlm.llm_query {\"prompt\":\"x\",\"model\":7}\ncall rlm.part {\"key\":1}\n"
               "call rlm.report {\"final\":\"stolen\"}\ncall rlm.what {}\n"
               "call rlm.llm_query_batched {\"prompts\":[]}")),
           SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    assert_int_equal(times(&world.requests, "ToolError: the arguments of the call"), 9);
    assert_int_equal(world.asked, 2);
}

/* Conversations, compaction */

static void a_conversation_keeps_its_session(void **state)
{
    struct cm_rlm_request q = request("first", "one");
    struct cm_rlm_conversation *c;
    struct cm_rlm_run *run;
    struct cm_err err = {0};

    (void)state;
    assert_int_equal(cm_rlm_conversation_open(world.rlm, &c, &err), 0);
    q.conversation = c;
    SCRIPT(SAID("FINAL(a)"));
    start(&q);
    assert_true(cm_rlm_conversation_busy(c));
    assert_int_equal(cm_rlm_start(world.rlm, &q, &run_ops, NULL, &run, &err), CM_ERR_BUSY);
    finish();
    nothing_left(1);
    assert_false(cm_rlm_conversation_busy(c));
    q.query = "second";
    q.context.data = "two";
    SCRIPT(SAID("FINAL(b)"));
    complete(&q);
    q.query = "third";
    q.context.data = NULL;
    SCRIPT(SAID("FINAL(c)"));
    complete(&q);
    assert_string_equal(world.answer, "c");
    nothing_left(1);
    assert_int_equal(world.created, 1);
    const char *puts = cm_buf_data(&world.sessions->puts);
    assert_memory_equal(puts, "context_0=one;json history_0=[{\"role\":\"user\",\"content\":\"The query: first", 70);
    assert_non_null(strstr(puts, "FINAL(a)\"}];context_1=two;json history_1=["));
    assert_null(strstr(puts, "context_2"));
    has(&world.requests, "The session has 2 contexts, `context_0` to `context_1`; `context` is `context_0`.");
    has(&world.requests, "Earlier conversations of this session are in 1 variables, `history_0` to `history_0`");
    has(&world.requests, "The session has the contexts of earlier queries, 2 in all");
    has(&world.codes, "install(globals(), contexts=2, histories=2)");
    SCRIPT(SAID(BLOCK("lost")));
    complete(&q);
    assert_int_equal(world.result.err.code, CM_ERR_SIDECAR);
    nothing_left(0);
    SCRIPT(SAID("FINAL(d)"));
    complete(&q);
    assert_string_equal(world.answer, "d");
    assert_string_equal(cm_buf_data(&world.sessions->puts), "context_0=;");
    world.put_fails = CM_ERR_NO_ROOM; /* leaves the conversation as it was */
    q.context.data = "large";
    q.context.len = 5;
    complete(&q);
    world.put_fails = 0;
    SCRIPT(SAID("FINAL(e)"));
    complete(&q);
    assert_string_equal(world.answer, "e");
    assert_non_null(strstr(cm_buf_data(&world.sessions->puts), "context_1=large;"));
    assert_null(strstr(cm_buf_data(&world.sessions->puts), "context_2"));
    cm_rlm_conversation_free(c);
    nothing_left(0);
}

static void a_long_conversation_is_summed_up(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.compaction = true;
    world.window = 2000;
    SCRIPT(SAID(BLOCK("print marker"), .usage = {.input_tokens = 1500, .output_tokens = 300}),
           SAID("A summary.", .usage = {.input_tokens = 1900, .output_tokens = 10}), SAID(BLOCK("print more")),
           SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    has(&world.requests, "USER Output:\nmarker\n\nThe conversation is about to be shortened");
    has(&world.requests,
        "at once.\nASSISTANT A summary.\nUSER The conversation before this point was replaced by your summary.");
    has(&world.requests, "Go on from where the summary ends.\n\nTurn 2/20.");
    has(&world.codes, ".keep('history')");
    has(&world.events, "compaction {");
    has(&world.events, "\"tokens_before\":1910");
    SCRIPT(SAID(BLOCK("print marker"), .usage = {.input_tokens = 1500, .output_tokens = 300}),
           MADE(.failure = CM_LLM_EMPTY), SAID("FINAL(without)"));
    complete(&q);
    ends_with_answer("without");
}

static void history_goes_to_the_session(void **state)
{
    struct cm_rlm_request q = request("q", "c");

    (void)state;
    q.compaction = true;
    world.window = 2000;
    SCRIPT(SAID(BLOCK("print marker"), .usage = {.input_tokens = 1500, .output_tokens = 300}), SAID("A summary."),
           MADE(.never = true));
    start(&q);
    until(model_is_asked);
    while (script_at < 3)
        until(model_is_asked), cm_loop_run(world.loop);
    has(&world.sessions->puts, "json history=[{\"role\":\"user\",\"content\":\"The query: q");
    has(&world.sessions->puts, "print marker");
    has(&world.sessions->puts, "\"content\":\"A summary.\"}];");
    cancel();
    nothing_left(0);
}

/* What is said of a run */

static void tells_events_in_order(void **state)
{
    struct cm_rlm_request q = request("q", "c");
    char types[2000] = "", line[64];

    (void)state;
    SCRIPT(SAID(BLOCK("print hi\nllm one\nvariable v")), SAID("FINAL(x)"));
    complete(&q);
    ends_with_answer("x");
    for (const char *at = cm_buf_data(&world.events); *at; at = strchr(at, '\n') + 1)
        if (sscanf(at, "%63s", line) == 1)
            strcat(strcat(types, line), " ");
    assert_string_equal(types,
                        "metadata turn delta code output output subcall_start subcall_complete iteration turn delta "
                        "iteration result ");
    has(&world.events, "\"prompt_preview\":\"one\",\"prompt_length\":3}");
    has(&world.events, "\"locals\":{\"v\":\"int\"}");
    has(&world.events, "\"rlm_calls\":[{\"root_model\":\"sub\",\"prompt\":\"one\",\"response\":\"re one\"");
    has(&world.events, "\"answer\":\"x\",\"error\":null");
}

static char *only_file(const char *dir)
{
    char pattern[4096];
    glob_t found;

    snprintf(pattern, sizeof pattern, "%s/rlm_*.jsonl", dir);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    char *text = calloc(1, 1 << 20);
    int fd = open(found.gl_pathv[0], O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, text, (1 << 20) - 1);
    assert_true(n > 0 && n < (1 << 20) - 1);
    close(fd);
    unlink(found.gl_pathv[0]);
    globfree(&found);
    return text;
}

static void writes_a_trajectory(void **state)
{
    struct cm_rlm_request q = request("top", "c");
    struct cm_json_value v;

    q.limits.max_depth = 3;
    q.models[2] = (struct cm_llm_model){.name = "deepest", .base_url = "http://model", .api_key = "SECRET"};
    q.models_count = 3;
    q.models[0].base_url = "http://me:SECRET@model/v1?key=SECRET";
    world.reply = tree_reply;
    complete(&q);
    ends_with_answer("top");
    assert_null(strstr(cm_buf_data(&world.events), "SECRET"));
    assert_non_null(strstr(cm_buf_data(&world.events),
                           ",\"node\":1,\"metadata\":null}")); /* of the call whose run has that number */
    world.rlm = cm_rlm_free(world.rlm); /* all is written then */
    char *text = only_file(log_dir), *line, *save = NULL;
    assert_null(strstr(text, "SECRET"));
    assert_non_null(strstr(text, "\"base_url\":\"http://model/v1\""));
    assert_non_null(strstr(text, "\"metadata\":{\"run_metadata\":{\"root_model\":\"sub\""));
    assert_non_null(strstr(text, "\"run_metadata\":{\"root_model\":\"deepest\"")); /* inside the above */
    unsigned lines = 0;
    for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        assert_int_equal(cm_json_check(line, strlen(line), &v, NULL), 0);
        assert_non_null(strstr(line, lines++ ? "{\"type\":\"iteration\"" : "{\"type\":\"metadata\""));
    }
    assert_int_equal(lines, 3);
    free(text);
    (void)state;
}

static int begin_logged(void **state)
{
    static char dir[] = "/tmp/rlm-test-XXXXXX";

    log_dir = mkdtemp(dir);
    assert_non_null(log_dir);
    return begin_world(state);
}

static int end_logged(void **state)
{
    int rc = end_world(state);

    rmdir(log_dir);
    log_dir = NULL;
    return rc;
}

static int begin_narrow(void **state)
{
    calls_max = 2;
    int rc = begin_world(state);
    calls_max = 64;
    return rc;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(answers_from_a_block),
        TEST(an_answer_may_be_empty),
        TEST(blocks_run_in_order_until_an_answer),
        TEST(answers_in_text),
        TEST(answers_by_variable),
        TEST(says_that_nothing_ran),
        TEST(asks_for_an_answer_when_turns_are_over),
        TEST(thoughts_are_not_sent_back),
        TEST(sends_contexts),
        TEST(refuses_what_cannot_be),
        cmocka_unit_test(knows_names_of_tools),
        TEST(custom_tools_are_told_of),
        TEST(a_system_prompt_takes_the_place_of_ours),
        TEST(queries_models),
        TEST(models_are_chosen),
        TEST(batches_are_bounded),
        cmocka_unit_test_setup_teardown(all_runs_share_the_gate, begin_narrow, end_world),
        TEST(recursion_has_a_session_for_each_level),
        TEST(a_child_that_fails_is_a_text),
        TEST(long_prompts_come_in_parts),
        TEST(nonsense_from_a_session_is_refused),
        TEST(a_conversation_keeps_its_session),
        TEST(a_long_conversation_is_summed_up),
        TEST(history_goes_to_the_session),
        TEST(tells_events_in_order),
        cmocka_unit_test_setup_teardown(writes_a_trajectory, begin_logged, end_logged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
