/* SPDX-License-Identifier: Apache-2.0 */
#include "infer_world.h"

static void reads_a_request(void **state)
{
    struct cm_ask a;
    struct cm_err err;

    (void)state;
    assert_int_equal(
        read_ask(&a, CM_ASK_RUN,
                 "{\"sampling\":{\"temperature\":1},\"query\":\"a \\\"b\\\" \\u00e9\",\"context\":[1,{\"x\":2}] "
                 ",\"max_depth\":3,\"max_budget\":0.5,\"recursive_models\":[\"m1\",\"m2\"],"
                 "\"custom_tools\":{\"t\":1},\"orchestrator\":false,\"unknown\":[]}",
                 &err),
        0);
    assert_string_equal(a.req.query, "a \"b\" \xc3\xa9");
    assert_int_equal(a.req.context.kind, CM_CONTEXT_JSON);
    assert_int_equal(a.req.context.len, 11);
    assert_memory_equal(a.req.context.data, "[1,{\"x\":2}]", 11);
    assert_int_equal(a.req.limits.max_depth, 3);
    assert_int_equal(a.req.limits.max_iterations, 20);
    assert_true(a.req.limits.max_budget == 0.5 && a.req.limits.execution_timeout_s == 30);
    assert_int_equal(a.recursive_count, 2);
    assert_string_equal(a.recursive[1], "m2");
    assert_string_equal(a.sampling, "{\"temperature\":1}");
    assert_string_equal(a.req.custom_tools, "{\"t\":1}");
    assert_true(a.req.no_orchestrator && !a.req.compaction);
    cm_ask_done(&a);
}

static void a_large_context_goes_to_a_file(void **state)
{
    size_t len = 300000;
    cm_autofree char *json = malloc(len + 64), *back = malloc(len);
    struct cm_ask a;

    (void)state;
    size_t head = (size_t)sprintf(json, "{\"query\":\"q\",\"context\":\"\\n");
    memset(json + head, 'x', len - 1);
    strcpy(json + head + len - 1, "\"}");
    assert_int_equal(read_ask(&a, CM_ASK_RUN, json, NULL), 0);
    assert_true(a.req.context.fd >= 0 && !a.req.context.data);
    assert_int_equal(a.req.context.len, len);
    assert_int_equal(pread(a.req.context.fd, back, len, 0), len);
    assert_true(back[0] == '\n' && back[1] == 'x' && back[len - 1] == 'x');
    cm_ask_done(&a);
    assert_int_equal(a.req.context.fd, -1);
}

static void refuses_a_request(void **state)
{
    static const struct {
        enum cm_ask_shape shape;
        int code;
        const char *json, *says;
    } cases[] = {
        {CM_ASK_RUN, CM_ERR_BAD_JSON, "", ""},
        {CM_ASK_RUN, CM_ERR_BAD_JSON, "[]", "no JSON object"},
        {CM_ASK_RUN, CM_ERR_BAD_JSON, "{\"query\":\"a\",\"query\":\"b\"}", ""},
        {CM_ASK_RUN, CM_ERR_BAD_REQUEST, "{\"context\":1}", "Query is required"},
        {CM_ASK_RUN, CM_ERR_BAD_FIELD, "{\"query\":\"\\ud800\"}", "query"},
        {CM_ASK_RUN, CM_ERR_BAD_FIELD, "{\"query\":\"a\\u0000b\"}", "query"},
        {CM_ASK_RUN, CM_ERR_BAD_FIELD, "{\"query\":\"a\",\"max_depth\":17}",
         "max_depth: must be a whole number from 1 to 16"},
        {CM_ASK_RUN, CM_ERR_BAD_FIELD, "{\"query\":\"a\",\"max_timeout\":1e999}", "max_timeout"},
        {CM_ASK_RUN, CM_ERR_BAD_FIELD, "{\"query\":\"a\",\"recursive_models\":[\"\"]}", "recursive_models"},
        {CM_ASK_RUN, CM_ERR_BAD_FIELD, "{\"query\":\"a\",\"context\":1,\"context_id\":\"c\"}", "context_id"},
        {CM_ASK_CHAT, CM_ERR_BAD_FIELD, "{\"messages\":{}}", "messages"},
        {CM_ASK_CHAT, CM_ERR_BAD_FIELD, "{\"messages\":[1]}", "messages"},
        {CM_ASK_CHAT, CM_ERR_BAD_FIELD, "{\"messages\":[{\"role\":\"user\",\"content\":3}]}", "messages"},
        {CM_ASK_CHAT, CM_ERR_BAD_FIELD, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"n\":2}", "n: must be"},
        {CM_ASK_CHAT, CM_ERR_BAD_FIELD, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temperature\":3}",
         "temperature"},
    };

    (void)state;
    for (size_t i = 0; i < CM_COUNT_OF(cases); i++) {
        struct cm_ask a;
        struct cm_err err = {0};
        int rc = read_ask(&a, cases[i].shape, cases[i].json, &err);
        if (rc != cases[i].code || !strstr(err.text, cases[i].says))
            fail_msg("%s: %d \"%s\"", cases[i].json, rc, err.text);
        cm_ask_done(&a);
    }
}

static void reads_a_chat(void **state)
{
    struct cm_ask a;

    (void)state;
    assert_int_equal(
        read_ask(
            &a, CM_ASK_CHAT,
            "{\"model\":\"rlm\",\"messages\":[{\"role\":\"user\",\"content\":\"first\"},"
            "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\\n\"},{\"type\":\"text\",\"text\":\"b\"}]}"
            ","
            "{\"role\":\"assistant\",\"content\":null}],\"stream\":true,\"stream_options\":{\"include_usage\":true},"
            "\"temperature\":0.25,\"top_p\":1,\"max_tokens\":5,\"tools\":[]}",
            NULL),
        0);
    assert_string_equal(a.req.query, "a\nb");
    assert_int_equal(a.req.context.kind, CM_CONTEXT_JSON);
    assert_int_equal(a.req.context.data[0], '[');
    assert_non_null(memmem(a.req.context.data, a.req.context.len, "\"a\\n\"", 5)); /* as it was sent */
    assert_string_equal(a.sampling, "{\"temperature\":0.25,\"top_p\":1}");
    assert_true(a.stream && a.include_usage && a.answer_tokens == 5);
    assert_int_equal(a.req.limits.max_tokens, 0); /* that is about something else */
    cm_ask_done(&a);
}

/* Models */

static void expect(const struct cm_llm_model *m, const char *name, enum cm_llm_api api, const char *url,
                   const char *key)
{
    assert_string_equal(m->name, name);
    assert_int_equal(m->api, api);
    assert_string_equal(m->base_url, url);
    assert_string_equal(m->api_key ? m->api_key : "", key);
}

static void fill(const char *arguments, const char *local, const char *model, struct cm_rlm_request *to)
{
    static struct cm_rlm_conf c;
    static char text[1000], space[CM_MODELS_SPACE];
    char *argv[10], *rest = text;
    int argc = 0;

    snprintf(text, sizeof text, "%s", arguments);
    for (char *word; (word = strsep(&rest, " ")) && *word;)
        argv[argc++] = word;
    assert_int_equal(cm_rlm_conf_load(argc, argv, &c, NULL), 0);
    *to = (struct cm_rlm_request){0};
    cm_models_fill(&c, &(struct cm_models_local){.name = local ? "own" : NULL, .url = local}, model, NULL, 0, space,
                   to);
}

static void a_key_goes_where_it_belongs(void **state)
{
    struct cm_rlm_request q;

    (void)state;
    fill("--llm-api-key=k", NULL, NULL, &q);
    assert_int_equal(q.models_count, 1);
    expect(&q.models[0], "gpt-5", CM_LLM_OPENAI, "https://api.openai.com/v1", "k");
    fill("--llm-api-key=k", NULL, "claude-x", &q); /* a caller's choice: another place */
    expect(&q.models[0], "claude-x", CM_LLM_ANTHROPIC, "https://api.anthropic.com", "");
    fill("--llm-api-key=k --anthropic-api-key=a", NULL, "claude-x", &q);
    expect(&q.models[0], "claude-x", CM_LLM_ANTHROPIC, "https://api.anthropic.com", "a");
    fill("--llm-api-key=k --model=claude-x", NULL, NULL, &q);
    expect(&q.models[0], "claude-x", CM_LLM_ANTHROPIC, "https://api.anthropic.com", "k");
    fill("--llm-api-key=k --base-url=http://here/v1", NULL, "claude-x", &q);
    expect(&q.models[0], "claude-x", CM_LLM_OPENAI, "http://here/v1", "k");
    fill("--llm-api-key=k --recursive-base-url=http://there/v1", NULL, NULL, &q);
    assert_int_equal(q.models_count, 2);
    expect(&q.models[1], "gpt-5", CM_LLM_OPENAI, "http://there/v1", "");
    fill("--llm-api-key=k --recursive-base-url=http://there/v1 --recursive-api-key=r --recursive-model=x,y", NULL, NULL,
         &q);
    assert_int_equal(q.models_count, 3);
    expect(&q.models[2], "y", CM_LLM_OPENAI, "http://there/v1", "r");
    fill("--llm-api-key=k --recursive-api-key=r --recursive-model=x,claude-y", NULL, NULL, &q);
    expect(&q.models[1], "x", CM_LLM_OPENAI, "https://api.openai.com/v1", "r");
    expect(&q.models[2], "claude-y", CM_LLM_ANTHROPIC, "https://api.anthropic.com", "");
    fill("", "http://127.0.0.1:9/v1", NULL, &q);
    expect(&q.models[0], "own", CM_LLM_OPENAI, "http://127.0.0.1:9/v1", "");
    fill("--model=gpt-5", "http://127.0.0.1:9/v1", NULL, &q); /* said, though it is the default */
    expect(&q.models[0], "gpt-5", CM_LLM_OPENAI, "http://127.0.0.1:9/v1", "");
    fill("--llm-api-key=k", "http://127.0.0.1:9/v1", NULL, &q); /* there is a service: ours is not started */
    expect(&q.models[0], "gpt-5", CM_LLM_OPENAI, "https://api.openai.com/v1", "k");
    fill("--recursive-base-url=http://there/v1", "http://127.0.0.1:9/v1", "asked", &q);
    expect(&q.models[0], "asked", CM_LLM_OPENAI, "http://127.0.0.1:9/v1", "");
    expect(&q.models[1], "asked", CM_LLM_OPENAI, "http://there/v1", "");
}

/* Runs */

static void say_of(struct run *r, int node, const char *type, size_t len)
{
    char *json = malloc(len + 100);
    int head = sprintf(json, "{\"type\":\"%s\",\"node\":%d,\"prompt\":[],\"text\":\"", type, node);

    memset(json + head, 'x', len);
    strcpy(json + head + len, "\"}");
    engine.ops.event(r, type, json, strlen(json));
    free(json);
}

static void say(struct run *r, const char *type, size_t len)
{
    say_of(r, 0, type, len);
}

static unsigned count(const struct run *r, char type)
{
    unsigned n = 0;

    for (const struct event *e = r->first; e; e = e->next)
        n += e->type == type;
    return n;
}

static void events_are_bounded(void **state)
{
    struct cm_infer f = {.config.conf = &conf};

    (void)state;
    conf.run_events = 100000;
    conf.total_run_events = 1 << 20;
    struct run *r = start(&f, "{\"query\":\"q\"}", "", NULL);
    say(r, "metadata", 10);
    say(r, "iteration", 10);
    for (int i = 0; i < 1000; i++)
        say(r, "delta", 1000);
    assert_in_range(r->bytes, 90000, 100000);
    assert_int_equal(r->bytes, f.run_bytes);
    assert_int_equal(r->event_count, 1002);
    assert_int_equal(r->last->id, 1002);
    assert_int_equal(count(r, 'm') + count(r, 'i'), 2); /* a trajectory needs them */
    say_of(r, 7, "iteration", 80000);
    assert_int_equal(count(r, 'i'), 2); /* more than it needs words as they come */
    say(r, "iteration", 30000);
    assert_int_equal(count(r, 'm') + count(r, 'i'), 3); /* more than it needs those of a child */
    say(r, "iteration", 200000); /* larger than all: it is there, and alone */
    assert_ptr_equal(r->first, r->last);
    end(r, "done");
    runs_free(&f);
    assert_int_equal(f.run_bytes, 0);
}

static void runs_are_bounded(void **state)
{
    struct cm_infer f = {.config.conf = &conf};
    struct run *r[5];

    (void)state;
    conf.kept_runs = 3;
    for (int i = 0; i < 5; i++)
        r[i] = start(&f, "{\"query\":\"q\"}", "", NULL);
    assert_int_equal(f.running, 5);
    for (int i = 0; i < 5; i++)
        end(r[i], "x");
    assert_int_equal(f.run_count, 3);
    assert_null(runs_find(&f, "run-1", ""));
    conf.total_run_events = 5000;
    struct run *large = start(&f, "{\"query\":\"q\"}", "", NULL);
    say(large, "output", 4000);
    char answer[2001] = {0};
    memset(answer, 'y', 2000);
    end(large, answer); /* its events make room first, then whole runs */
    assert_non_null(runs_find(&f, large->id, ""));
    assert_null(large->first);
    assert_in_range(f.run_bytes, 2000, 5000);
    conf.total_run_events = 1 << 20;
    runs_free(&f);
    conf.kept_runs = 200;
}

/* A follower keeps its run, but not when there is no room for it: one that reads slowly stays for as long as it likes. */
static void slow_followers_do_not_keep_everything(void **state)
{
    struct cm_infer f = {.config.conf = &conf};
    struct cm_request rq = {.http = NULL};
    char answer[2001] = {0};
    struct run *r[3];

    (void)state;
    memset(answer, 'y', 2000);
    conf.kept_runs = 3;
    for (int i = 0; i < 3; i++) {
        r[i] = start(&f, "{\"query\":\"q\"}", "", NULL);
        struct follower *w = calloc(1, sizeof *w);
        *w = (struct follower){.run = r[i], .rq = &rq};
        say(r[i], "output", 100);
        end(r[i], answer);
        DL_APPEND(r[i]->followers, w);
    }
    conf.kept_runs = 0;
    runs_trim(&f);
    assert_int_equal(f.run_count, 3);
    conf.total_run_events = f.run_bytes - 1;
    runs_trim(&f);
    assert_int_equal(f.run_count, 2);
    assert_ptr_equal(f.runs->next, r[1]);
    conf.total_run_events = 1 << 20;
    runs_free(&f);
    conf.kept_runs = 200;
}

static void runs_have_owners(void **state)
{
    struct cm_infer f = {.config.conf = &conf};

    (void)state;
    struct run *r = start(&f, "{\"query\":\"q\",\"model\":\"big\",\"recursive_models\":[\"small\"]}", "ann", NULL);
    assert_string_equal(engine.model, "big");
    assert_string_equal(engine.sub, "small");
    assert_ptr_equal(runs_find(&f, r->id, "ann"), r);
    assert_null(runs_find(&f, r->id, "bob"));
    assert_null(runs_find(&f, "", "ann"));
    end(r, "x");
    runs_free(&f);
}

/* A context is used up by the run that has begun with it, and by no other. */
static void contexts_wait_for_their_run(void **state)
{
    struct cm_infer f = {.config.conf = &conf};
    struct context *c = calloc(1, sizeof *c);
    struct cm_err err;

    (void)state;
    strcpy(c->id, "context-1");
    c->f = &f;
    c->holder = holders_take(&f, "ann");
    c->holder->contexts = 1;
    c->holder->context_bytes = 7;
    c->fd = dup(STDOUT_FILENO);
    c->len = 7;
    DL_APPEND(f.contexts, c);
    f.context_bytes = 7;
    f.context_count = 1;
    assert_null(start(&f, "{\"query\":\"q\",\"context_id\":\"context-1\"}", "bob", &err));
    assert_int_equal(err.code, CM_ERR_NO_CONTEXT);
    engine.refuse = CM_ERR_OVERLOADED;
    assert_null(start(&f, "{\"query\":\"q\",\"context_id\":\"context-1\"}", "ann", &err));
    assert_int_equal(err.code, CM_ERR_OVERLOADED);
    assert_ptr_equal(f.contexts, c);
    engine.refuse = 0;
    struct run *r = start(&f, "{\"query\":\"q\",\"context_id\":\"context-1\"}", "ann", &err);
    assert_non_null(r);
    assert_null(f.contexts);
    assert_int_equal(f.context_bytes, 0);
    assert_int_equal(f.context_count, 0);
    end(r, "x");
    runs_free(&f);
}

static void a_trajectory_has_all_messages(void **state)
{
    static const struct {
        const char *type, *json, *line;
    } cases[] = {
        {"metadata", "{\"node\":0}", "{\"node\":0}\n"},
        {"iteration", "{\"node\":0,\"prompt\":[1,2],\"response\":\"a\"}",
         "{\"node\":0,\"prompt\":[1,2],\"response\":\"a\"}\n"},
        {"iteration", "{\"node\":0,\"prompt\":[\"a\",3],\"response\":\"b\"}",
         "{\"node\":0,\"prompt\":[1,2,\"a\",3],\"response\":\"b\"}\n"},
        {"compaction", "{\"node\":0}", ""},
        {"iteration", "{\"node\":0,\"prompt\":[4],\"response\":\"c\"}",
         "{\"node\":0,\"prompt\":[4],\"response\":\"c\"}\n"},
    };
    struct cm_infer_trajectory t;
    cm_autobuf struct cm_buf b;

    (void)state;
    cm_buf_init(&b, 1000);
    cm_infer_trajectory_init(&t, 1000);
    for (size_t i = 0; i < CM_COUNT_OF(cases); i++) {
        size_t len = strlen(cases[i].json);
        cm_buf_clear(&b);
        assert_int_equal(cm_infer_trajectory_part(cases[i].type, cases[i].json, len), CM_PART_ROOT);
        assert_int_equal(cm_infer_trajectory_put(&t, cases[i].type[0], cases[i].json, len, &b), 0);
        assert_string_equal(cm_buf_data(&b), cases[i].line);
    }
    assert_int_equal(cm_infer_trajectory_part("iteration", "{\"node\":1}", 10), CM_PART_CHILD);
    assert_int_equal(cm_infer_trajectory_part("delta", "{\"node\":0}", 10), CM_PART_NONE);
    assert_int_equal(cm_infer_trajectory_part("iteration", "{\"node\":-1}", 11), CM_PART_NONE);
    cm_infer_trajectory_done(&t);
}

#define CALLS(calls)              ",\"code_blocks\":[{\"code\":\"x\",\"result\":{\"rlm_calls\":[" calls "]}}],\"z\":1}"
#define TURN(node, prompt, calls) "{\"node\":" #node ",\"prompt\":[" #prompt "]" CALLS(calls)
#define CALL(node)                "{\"p\":1,\"node\":" #node ",\"metadata\":null}"
#define BEGINS(node)                                                                                                   \
    "{\"type\":\"metadata\",\"timestamp\":\"t\",\"node\":" #node                                                       \
    ",\"run_id\":\"r\",\"parent\":0,\"call\":1,\"depth\":1,"                                                           \
    "\"root_model\":\"m" #node "\",\"query\":null}"
#define MADE(node, iterations)                                                                                         \
    "{\"p\":1,\"metadata\":{\"run_metadata\":{\"root_model\":\"m" #node                                                \
    "\",\"query\":null},\"iterations\":[" iterations "]}}"
#define NONE "{\"p\":1,\"metadata\":null}"

static void feed(struct cm_infer_trajectory *t, const char *const *events, size_t count, struct cm_buf *to)
{
    cm_buf_clear(to);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(cm_infer_trajectory_put(t,
                                                 strstr(events[i], "metadata\",\"t") ? 'm'
                                                 : strstr(events[i], "compact")      ? 'c'
                                                                                     : 'i',
                                                 events[i], strlen(events[i]), to),
                         0);
}

/* Two children of the root at once, one of them with a child of its own, as their events come. */
static void a_trajectory_has_children_inside(void **state)
{
    static const char *const events[] = {
        BEGINS(1),
        BEGINS(2),
        TURN(1, 1, ""),
        BEGINS(3),
        TURN(2, 20, ""),
        TURN(3, 3, ""),
        TURN(1, 10, CALL(3)),
        "{\"node\":2,\"compact\":1}",
        TURN(2, 21, NONE),
        TURN(0, 0, CALL(2) "," NONE "," CALL(1) "," CALL(4)),
        TURN(0, 5, CALL(1)), /* that has been told already */
    };
    struct cm_infer_trajectory t;
    cm_autobuf struct cm_buf b;

    (void)state;
    cm_buf_init(&b, 10000);
    cm_infer_trajectory_init(&t, 10000);
    feed(&t, events, CM_COUNT_OF(events), &b);
    assert_string_equal(
        cm_buf_data(&b),
        TURN(0, 0,
             MADE(2, TURN(2, 20, "") "," TURN(2, 21, NONE)) "," NONE "," MADE(
                 1, TURN(1, 1, "") ","
                                   "{\"node\":1,\"prompt\":[1,10]" CALLS(MADE(
                                       3, TURN(3, 3, "")))) "," NONE) "\n"
                                                                      "{\"node\":0,\"prompt\":[0,5]" CALLS(NONE) "\n");
    assert_null(t.children);
    assert_int_equal(t.held, 0);
    cm_infer_trajectory_done(&t);
}

static void a_child_that_is_not_whole_is_left_out(void **state)
{
    static const char *const no_beginning[] = {TURN(1, 1, ""), TURN(0, 0, CALL(1))};
    static const char *const no_room[] = {BEGINS(1), TURN(1, 1, ""), TURN(1, 2, ""), TURN(1, 3, ""), TURN(1, 4, "")};
    /* A service that is not ours may say anything. */
    static const char *const nonsense[] = {
        BEGINS(1),
        BEGINS(1),
        "[1]",
        "{\"node\":0,\"code_blocks\":[1,{},{\"result\":1},{\"result\":{\"rlm_calls\":1}}]}",
        TURN(0, ,
             "1,{\"node\":1},{\"metadata\":null,\"node\":1},{\"node\": 1,\"metadata\":null},"
             "{\"node\":1,\"metadata\": null},{\"node\":\"1\",\"metadata\":null},{\"node\":1,\"metadata\":2}"),
    };
    struct cm_infer_trajectory t;
    cm_autobuf struct cm_buf b;

    (void)state;
    cm_buf_init(&b, 10000);
    cm_infer_trajectory_init(&t, 400);
    feed(&t, no_beginning, CM_COUNT_OF(no_beginning), &b);
    assert_string_equal(cm_buf_data(&b), TURN(0, 0, NONE) "\n");
    feed(&t, no_room, CM_COUNT_OF(no_room), &b);
    assert_in_range(t.held, 200, 400);
    cm_infer_trajectory_done(&t);
    assert_int_equal(t.held, 0);
    cm_infer_trajectory_init(&t, 10000);
    feed(&t, nonsense, CM_COUNT_OF(nonsense), &b);
    assert_int_equal(b.len, strlen(nonsense[3]) + strlen(nonsense[4]) + 2);
    assert_memory_equal(cm_buf_data(&b), nonsense[3], strlen(nonsense[3]));
    assert_non_null(strstr(cm_buf_data(&b), nonsense[4]));
    cm_infer_trajectory_done(&t);
}

/* An answer that a child would make too large goes without it. */
static void a_line_has_room_for_its_own(void **state)
{
    static const char *const events[] = {BEGINS(1), TURN(1, 1, ""), TURN(0, 0, CALL(1))};
    struct cm_infer_trajectory t;
    cm_autobuf struct cm_buf b;

    (void)state;
    cm_buf_init(&b, 150);
    cm_infer_trajectory_init(&t, 10000);
    feed(&t, events, CM_COUNT_OF(events), &b);
    assert_string_equal(cm_buf_data(&b), TURN(0, 0, NONE) "\n");
    cm_infer_trajectory_done(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_request),
        cmocka_unit_test(a_large_context_goes_to_a_file),
        cmocka_unit_test(refuses_a_request),
        cmocka_unit_test(reads_a_chat),
        cmocka_unit_test(a_key_goes_where_it_belongs),
        cmocka_unit_test(events_are_bounded),
        cmocka_unit_test(runs_are_bounded),
        cmocka_unit_test(slow_followers_do_not_keep_everything),
        cmocka_unit_test(runs_have_owners),
        cmocka_unit_test(contexts_wait_for_their_run),
        cmocka_unit_test(a_trajectory_has_all_messages),
        cmocka_unit_test(a_trajectory_has_children_inside),
        cmocka_unit_test(a_child_that_is_not_whole_is_left_out),
        cmocka_unit_test(a_line_has_room_for_its_own),
    };

    return cmocka_run_group_tests_name("infer", tests, load, NULL);
}
