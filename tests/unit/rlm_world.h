/* SPDX-License-Identifier: Apache-2.0 */
/* Runs against the stand-ins of rlm_fakes.h: their beginning, their script, their end. */
#ifndef CM_TEST_RLM_WORLD_H
#define CM_TEST_RLM_WORLD_H

#include "rlm_fakes.h"

/* A run, and what comes of it */

static void on_event(void *arg, const char *type, const char *json, size_t len)
{
    struct cm_json_value v;

    (void)arg;
    assert_int_equal(cm_json_check(json, len, &v, NULL), 0);
    assert_int_equal(v.kind, CM_JSON_OBJECT);
    assert_null(memchr(json, '\n', len));
    assert_null(strstr(json, "SECRET"));
    assert_int_equal(cm_buf_printf(&world.events, "%s %.*s\n", type, (int)len, json), 0);
    if (world.on_event)
        world.on_event(type, json);
}

static void on_done(void *arg, const struct cm_rlm_result *res)
{
    (void)arg;
    world.done++;
    world.result = *res;
    world.answer = res->answer ? strndup(res->answer, res->answer_len) : NULL;
    world.partial = strndup(res->partial, res->partial_len);
    world.usage = strdup(res->usage);
    world.run = NULL;
    cm_loop_stop(world.loop);
}

static const struct cm_rlm_ops run_ops = {on_event, on_done};

static struct cm_rlm_request request(const char *query, const char *context)
{
    return (struct cm_rlm_request){
        .query = query,
        .context = {CM_CONTEXT_TEXT, context, -1, context ? strlen(context) : 0},
        .models = {{.name = "root", .base_url = "http://model", .api_key = "SECRET"},
                   {.name = "sub", .base_url = "http://model", .api_key = "SECRET"}},
        .models_count = 2,
        .limits = {.max_depth = 1, .max_iterations = 20, .max_concurrent_subcalls = 4, .execution_timeout_s = 30},
        .deltas = true,
    };
}

static void forget_result(void)
{
    free(world.answer);
    free(world.partial);
    free(world.usage);
    world.answer = world.partial = world.usage = NULL;
    world.done = 0;
}

__attribute__((unused)) static void start(const struct cm_rlm_request *req)
{
    struct cm_err err = {0};

    forget_result();
    if (cm_rlm_start(world.rlm, req, &run_ops, NULL, &world.run, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(world.done, 0);
}

static void on_too_long(void *arg)
{
    (void)arg;
    fail_msg("nothing happens any more");
}

static void finish(void)
{
    struct cm_timer *timer = cm_timer_open(world.loop, on_too_long, NULL, NULL);

    assert_non_null(timer);
    cm_timer_start(timer, 40000, 0);
    while (!world.done)
        cm_loop_run(world.loop);
    cm_timer_close(timer);
    assert_int_equal(world.done, 1);
}

__attribute__((unused)) static void complete(const struct cm_rlm_request *req)
{
    start(req);
    finish();
}

/* Nothing of a run is left in the rooms below. */
static void nothing_left(unsigned sessions)
{
    unsigned count = 0;
    struct session *s;

    DL_COUNT(world.sessions, s, count);
    assert_int_equal(count, sessions);
    assert_null(world.calls);
    assert_null(world.ops);
    assert_null(world.execs);
    assert_int_equal(cm_rlm_running(world.rlm), 0);
}

static struct said no_reply(const char *model, const struct cm_llm_message *messages, size_t count)
{
    (void)model;
    (void)messages;
    (void)count;
    fail_msg("no model shall be asked");
    return (struct said){0};
}

static const char *log_dir; /* for the next world */
static unsigned calls_max = 64;

static int begin_world(void **state)
{
    struct cm_err err = {0};

    (void)state;
    world = (struct world){.window = 128000, .reply = no_reply};
    cm_buf_init(&world.requests, 64 << 20);
    cm_buf_init(&world.codes, 64 << 20);
    cm_buf_init(&world.events, 64 << 20);
    world.loop = cm_loop_new(&err);
    const struct cm_rlm_config config = {.runs_max = 3, .model_calls_max = calls_max, .log_dir = log_dir};
    return world.loop ? cm_rlm_open(world.loop, &config, &world.rlm, &err) : -1;
}

static int end_world(void **state)
{
    (void)state;
    cm_rlm_free(world.rlm);
    world.rlm = NULL;
    forget_result();
    assert_null(world.sessions);
    assert_null(world.calls);
    assert_null(world.ops);
    assert_null(world.execs);
    cm_buf_done(&world.requests);
    cm_buf_done(&world.codes);
    cm_buf_done(&world.events);
    if (world.loop)
        cm_loop_free(world.loop);
    return 0;
}

/* Scripts */

#define BLOCK(code) "Now:\n```repl\n" code "\n```\n"

/* The root's model answers from a list, in order; any other one answers what its prompt asks for. */
static struct said script[40];
static unsigned script_at;

static struct said sub_reply(const char *prompt)
{
    static char text[TEXT_MAX];

    if (strncmp(prompt, "fail", 4) == 0)
        return (struct said){.failure = CM_LLM_UNREACHABLE};
    if (strncmp(prompt, "never", 5) == 0)
        return (struct said){.never = true};
    if (strncmp(prompt, "refuse", 6) == 0)
        return (struct said){.refuse = true};
    if (strncmp(prompt, "cost", 4) == 0)
        return (struct said){.text = "dear",
                             .usage = {.input_tokens = 500, .output_tokens = 500, .priced = true, .cost = 2}};
    snprintf(text, sizeof text, "re %.100s", prompt);
    return (struct said){.text = text};
}

static struct said scripted(const char *model, const struct cm_llm_message *messages, size_t count)
{
    if (strcmp(model, "root") == 0) {
        if (script_at >= 40 || (!script[script_at].text && !script[script_at].failure && !script[script_at].never))
            fail_msg("the script has no reply %u", script_at);
        return script[script_at++];
    }
    return sub_reply(messages[count - 1].text);
}

#define SCRIPT(...)                                                                                                    \
    do {                                                                                                               \
        const struct said list[] = {__VA_ARGS__};                                                                      \
        memset(script, 0, sizeof script);                                                                              \
        memcpy(script, list, sizeof list);                                                                             \
        script_at = 0;                                                                                                 \
        world.reply = scripted;                                                                                        \
    } while (0)
#define SAID(words, ...) ((struct said){.text = words __VA_OPT__(, ) __VA_ARGS__})
#define MADE(...)        ((struct said){__VA_ARGS__})

static void has(struct cm_buf *b, const char *text)
{
    if (!strstr(cm_buf_data(b), text))
        fail_msg("missing: %s\nin: ... %s", text, cm_buf_data(b) + (b->len > 2000 ? b->len - 2000 : 0));
}

__attribute__((unused)) static void has_not(struct cm_buf *b, const char *text)
{
    if (strstr(cm_buf_data(b), text))
        fail_msg("present: %s\nin: %.6000s", text, cm_buf_data(b));
}

__attribute__((unused)) static unsigned times(struct cm_buf *b, const char *text)
{
    unsigned n = 0;

    for (const char *at = cm_buf_data(b); (at = strstr(at, text)); at++)
        n++;
    return n;
}

__attribute__((unused)) static void ends_with_answer(const char *answer)
{
    if (world.result.err.code)
        fail_msg("the run has failed: %s", world.result.err.text);
    assert_string_equal(world.answer, answer);
    nothing_left(0);
}

__attribute__((unused)) static void fails_with(int code, const char *words)
{
    assert_int_equal(world.result.err.code, code);
    assert_null(world.answer);
    if (!strstr(world.result.err.text, words))
        fail_msg("the reason is: %s", world.result.err.text);
    nothing_left(0);
}

/* Lets the loop turn until `done` says so. */
static bool (*awaited)(void);

static void look(void *arg)
{
    if (awaited())
        cm_loop_stop(arg);
}

__attribute__((unused)) static void until(bool (*condition)(void))
{
    struct cm_timer *timer = cm_timer_open(world.loop, look, world.loop, NULL);

    awaited = condition;
    cm_timer_start(timer, 0, 1);
    while (!condition() && !world.done)
        cm_loop_run(world.loop);
    cm_timer_close(timer);
    assert_true(condition());
}

__attribute__((unused)) static bool model_is_asked(void)
{
    return world.calls != NULL;
}

__attribute__((unused)) static void cancel(void)
{
    cm_rlm_cancel(world.run);
    assert_int_equal(world.done, 0);
    finish();
    assert_int_equal(world.result.err.code, CM_ERR_CANCELLED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_world, end_world)

#endif
