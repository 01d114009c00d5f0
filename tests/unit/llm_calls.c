/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of models: attempts, waits, ends. This file stands in for the egress room: what a request comes to, a script says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "egress/egress.h"
#include "ev/loop.h"
#include "llm/llm.h"

/* ---- the stand-in */

struct step {
    enum cm_fetch_failure why;
    int status;
    const char *body;
    double retry_after_s; /* 0: none */
    bool stays; /* its end does not come by itself */
    int refuse; /* cm_fetch_start() fails with it */
};

struct cm_fetch {
    struct cm_task task;
    struct cm_fetch_ops ops;
    void *arg;
    const struct step *step;
};

static struct cm_loop *loop;
static bool cancelled; /* the fetch whose callback runs */
static const struct step *steps;
static unsigned steps_count, started, open_fetches;
static char last_url[300], last_body[3000], last_headers[1000];
static double last_timeout;

static void fetch_free(struct cm_fetch *f)
{
    cm_task_cancel(loop, &f->task);
    cancelled = true;
    open_fetches--;
    free(f);
}

static void run_step(void *arg)
{
    struct cm_fetch *f = arg;
    const struct step *s = f->step;
    size_t len = s->body ? strlen(s->body) : 0;

    cancelled = false;
    if (s->status)
        f->ops.head(f->arg, s->status);
    for (size_t at = 0; !cancelled && at < len; at += 40)
        f->ops.data(f->arg, s->body + at, len - at < 40 ? len - at : 40);
    if (cancelled)
        return;
    if (s->stays)
        return;
    struct cm_fetch_end end = {s->why, s->status, s->retry_after_s > 0 ? s->retry_after_s : -1, len, "the reason"};
    f->ops.done(f->arg, &end);
    fetch_free(f);
}

int cm_fetch_start(struct cm_egress *e, const struct cm_fetch_request *req, const struct cm_fetch_ops *ops, void *arg,
                   struct cm_fetch **ret, struct cm_err *err)
{
    (void)e;
    assert_true(started < steps_count);
    const struct step *s = &steps[started++];
    if (s->refuse)
        return cm_err_set(err, s->refuse, "refused");
    struct cm_fetch *f = calloc(1, sizeof *f);
    *f = (struct cm_fetch){.ops = *ops, .arg = arg, .step = s};
    snprintf(last_url, sizeof last_url, "%s", req->url);
    snprintf(last_body, sizeof last_body, "%.*s", (int)req->body_len, req->body);
    last_headers[0] = '\0';
    for (const char *const *h = req->headers; *h; h++)
        snprintf(last_headers + strlen(last_headers), sizeof last_headers - strlen(last_headers), "%s\n", *h);
    last_timeout = req->timeout_s;
    assert_int_equal(req->body_fd, -1);
    open_fetches++;
    cm_task_post(loop, &f->task, run_step, f);
    *ret = f;
    return 0;
}

void cm_fetch_cancel(struct cm_fetch *f)
{
    if (f)
        fetch_free(f);
}

/* ---- a call and what comes of it */

#define SAY(t)         "data: {\"model\":\"m-1\",\"choices\":[{\"delta\":{\"content\":\"" t "\"}}]}\n\n"
#define STOP           "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define USAGE(in, out) "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":" #in ",\"completion_tokens\":" #out "}}\n\n"
#define DONE           "data: [DONE]\n\n"
#define GOOD           SAY("Hel") SAY("lo") STOP USAGE(1000, 200) DONE
#define BUSY           "{\"error\":{\"message\":\"busy\"}}"

static struct {
    enum cm_llm_failure failure;
    char text[1000], reason[700], finish[30], model[50], deltas[1000];
    struct cm_llm_usage usage;
    unsigned attempts, dones;
    double seconds;
} got;
static struct cm_llm *llm;
static struct cm_llm_call *call;
static bool cancel_at_delta, free_at_delta, free_at_done;

static void on_delta(void *arg, const char *text, size_t len)
{
    (void)arg;
    snprintf(got.deltas + strlen(got.deltas), sizeof got.deltas - strlen(got.deltas), "%.*s", (int)len, text);
    if (cancel_at_delta)
        cm_llm_cancel(call);
    if (free_at_delta)
        llm = cm_llm_free(llm);
}

static void on_done(void *arg, const struct cm_llm_reply *reply)
{
    (void)arg;
    got.failure = reply->failure;
    assert_int_equal(strlen(reply->text), reply->len);
    snprintf(got.text, sizeof got.text, "%s", reply->text);
    snprintf(got.reason, sizeof got.reason, "%s", reply->reason);
    snprintf(got.finish, sizeof got.finish, "%s", reply->finish);
    snprintf(got.model, sizeof got.model, "%s", reply->model);
    got.usage = reply->usage;
    got.attempts = reply->attempts;
    got.seconds = reply->seconds;
    got.dones++;
    cm_llm_cancel(call); /* as good as nothing by now */
    if (free_at_done)
        llm = cm_llm_free(llm);
}

static const struct cm_llm_ops with_words = {on_delta, on_done}, without_words = {NULL, on_done};
static const struct cm_llm_message hello = {CM_LLM_USER, "12345678", 8};
static const struct cm_llm_model gpt = {
    .name = "m", .base_url = "http://user:secret@host:1/v1?x", .api_key = "sk-123456"};

static int open_llm(void **state)
{
    const struct cm_llm_config config = {.timeout_s = 50,
                                         .attempts = 3,
                                         .backoff_s = 0.01,
                                         .backoff_max_s = 0.02,
                                         .reply_max = 900,
                                         .prices = "{\"m\": {\"window\": 77, \"input\": 1, \"output\": 10}}"};
    struct cm_err err;

    (void)state;
    memset(&got, 0, sizeof got);
    started = 0;
    cancel_at_delta = free_at_delta = free_at_done = false;
    loop = cm_loop_new(&err);
    assert_non_null(loop);
    assert_int_equal(cm_llm_open(loop, NULL, &config, &llm, &err), 0);
    return 0;
}

static int close_llm(void **state)
{
    (void)state;
    llm = cm_llm_free(llm);
    assert_int_equal(open_fetches, 0);
    cm_loop_run(loop);
    cm_loop_free(loop);
    return 0;
}

static int begin(const struct cm_llm_model *model, const struct step *script, unsigned count,
                 const struct cm_llm_ops *ops, double deadline_s)
{
    struct cm_err err = {0};

    steps = script;
    steps_count = count;
    started = 0;
    int rc = cm_llm_ask(llm, model, &hello, 1, deadline_s, ops, NULL, &call, &err);
    assert_int_equal(got.dones, 0); /* never from inside */
    return rc;
}

#define ASK(script, ops, deadline)                                                                                     \
    do {                                                                                                               \
        memset(&got, 0, sizeof got);                                                                                   \
        assert_int_equal(begin(&gpt, script, CM_COUNT_OF(script), ops, deadline), 0);                                  \
        cm_loop_run(loop);                                                                                             \
        assert_int_equal(got.dones, 1);                                                                                \
    } while (0)

static void a_good_answer(void **state)
{
    static const struct step script[] = {{.status = 200, .body = GOOD}};

    (void)state;
    ASK(script, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_OK);
    assert_string_equal(got.text, "Hello");
    assert_string_equal(got.deltas, "Hello");
    assert_string_equal(got.reason, "");
    assert_string_equal(got.finish, "stop");
    assert_string_equal(got.model, "m-1");
    assert_int_equal(got.attempts, 1);
    assert_int_equal(got.usage.input_tokens, 1000);
    assert_int_equal(got.usage.output_tokens, 200);
    assert_true(got.usage.priced && !got.usage.estimated);
    assert_float_equal(got.usage.cost, 0.003, 1e-9);
    assert_string_equal(last_url, "http://user:secret@host:1/v1/chat/completions?x");
    assert_non_null(strstr(last_headers, "Authorization: Bearer sk-123456\n"));
    assert_non_null(strstr(last_headers, "Content-Type: application/json\n"));
    assert_true(last_timeout == 50);
}

static void anthropic_has_headers_of_its_own(void **state)
{
    static const struct step script[] = {
        {.status = 200,
         .body =
             "{\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}],\"stop_reason\":\"end_turn\"}"}};
    const struct cm_llm_model m = {.name = "c", .api = CM_LLM_ANTHROPIC, .base_url = "https://a", .api_key = "k"};
    const struct cm_llm_model no_key = {.name = "c", .api = CM_LLM_ANTHROPIC, .base_url = "https://a"};

    (void)state;
    assert_int_equal(begin(&m, script, 1, &without_words, 0), 0);
    cm_loop_run(loop);
    assert_string_equal(got.text, "Hi");
    assert_non_null(strstr(last_headers, "x-api-key: k\n"));
    assert_non_null(strstr(last_headers, "anthropic-version: 2023-06-01\n"));
    assert_null(strstr(last_headers, "Authorization"));
    got.dones = 0;
    assert_int_equal(begin(&no_key, script, 1, &without_words, 0), 0);
    cm_loop_run(loop);
    assert_null(strstr(last_headers, "key"));
}

static void failures_pass(void **state)
{
    static const struct step script[] = {
        {.why = CM_FETCH_CONNECT}, {.status = 503, .body = BUSY}, {.status = 200, .body = GOOD}};

    (void)state;
    ASK(script, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_OK);
    assert_string_equal(got.deltas, "Hello");
    assert_int_equal(got.attempts, 3);
    assert_int_equal(got.usage.input_tokens, 1000); /* failures have cost nothing */
    assert_true(got.seconds >= 0.01 * 0.8 + 0.02 * 0.8);
}

static void attempts_have_an_end(void **state)
{
    static const struct step script[] = {
        {.status = 500, .body = BUSY}, {.status = 500, .body = BUSY}, {.status = 502, .body = BUSY}};

    (void)state;
    ASK(script, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_UNREACHABLE);
    assert_string_equal(got.reason, "HTTP 502 from host:1: busy");
    assert_int_equal(got.attempts, 3);
    assert_string_equal(got.model, "m");
    assert_false(got.usage.priced);
}

static void some_failures_do_not_pass(void **state)
{
    static const struct step refused[] = {{.status = 401, .body = "{\"error\":\"no such key: sk-123456\"}"}};
    static const struct step bad[] = {{.status = 200, .body = "<html>"}};

    (void)state;
    ASK(refused, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_REFUSED);
    assert_string_equal(got.reason, "HTTP 401 from host:1: no such key: *********");
    assert_int_equal(got.attempts, 1);
    ASK(bad, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_BAD_ANSWER);
}

static void retry_after_is_honoured(void **state)
{
    static const struct step soon[] = {{.status = 429, .body = BUSY, .retry_after_s = 0.15},
                                       {.status = 200, .body = GOOD}};
    static const struct step late[] = {{.status = 429, .body = BUSY, .retry_after_s = 20}};
    static const struct step never[] = {{.status = 429, .body = BUSY, .retry_after_s = 1e9}};

    (void)state;
    ASK(soon, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_OK);
    assert_true(got.seconds >= 0.149);
    ASK(late, &with_words, 10); /* at once: waiting would be for nothing */
    assert_int_equal(got.failure, CM_LLM_RATE_LIMITED);
    assert_string_equal(got.reason,
                        "HTTP 429 from host:1: busy; it wants 20 s of patience, which is more than is left");
    assert_true(got.seconds < 5);
    assert_true(last_timeout <= 10);
    ASK(never, &with_words, 0); /* without a limit, the patience is that of an attempt */
    assert_int_equal(got.failure, CM_LLM_RATE_LIMITED);
    assert_non_null(strstr(got.reason, "of patience"));
}

/* It may take all the time that is left, also when one attempt has less. */
static void retry_after_may_be_longer_than_an_attempt(void **state)
{
    static const struct step step[] = {{.status = 429, .body = BUSY, .retry_after_s = 0.15},
                                       {.status = 200, .body = GOOD}};
    const struct cm_llm_config config = {
        .timeout_s = 0.1, .attempts = 3, .backoff_s = 0.01, .backoff_max_s = 0.02, .reply_max = 900};

    (void)state;
    llm = cm_llm_free(llm);
    assert_int_equal(cm_llm_open(loop, NULL, &config, &llm, NULL), 0);
    ASK(step, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_RATE_LIMITED);
    ASK(step, &with_words, 50);
    assert_int_equal(got.failure, CM_LLM_OK);
    assert_true(got.seconds >= 0.149);
}

static void the_deadline_is_of_all_attempts(void **state)
{
    static const struct step script[] = {{.why = CM_FETCH_TIMEOUT}};

    (void)state;
    ASK(script, &with_words, 0.5);
    assert_int_equal(got.failure, CM_LLM_TIMEOUT);
    assert_true(last_timeout <= 0.5);
    assert_int_equal(got.attempts, 1);
}

static void told_words_are_not_told_twice(void **state)
{
    static const struct step script[] = {{.status = 200, .why = CM_FETCH_CUT, .body = SAY("Hel")},
                                         {.status = 200, .body = GOOD}};

    (void)state;
    ASK(script, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_CUT);
    assert_string_equal(got.text, "Hel");
    assert_int_equal(got.attempts, 1);
    assert_true(got.usage.estimated);
    assert_int_equal(got.usage.input_tokens, 2);
    assert_int_equal(got.usage.output_tokens, 1);
    ASK(script, &without_words, 0);
    assert_int_equal(got.failure, CM_LLM_OK);
    assert_string_equal(got.text, "Hello");
    assert_int_equal(got.attempts, 2);
    assert_int_equal(got.usage.input_tokens, 1002); /* both */
    assert_true(got.usage.estimated);
}

static void an_empty_reply_is_tried_once_more(void **state)
{
    static const struct step then_good[] = {{.status = 200, .body = STOP USAGE(7, 0) DONE},
                                            {.status = 200, .body = GOOD}};
    static const struct step twice[] = {{.status = 200, .body = STOP DONE}, {.status = 200, .body = DONE}};

    (void)state;
    ASK(then_good, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_OK);
    assert_int_equal(got.attempts, 2);
    assert_int_equal(got.usage.input_tokens, 1007);
    ASK(twice, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_EMPTY);
    assert_int_equal(got.attempts, 2);
    assert_string_equal(got.reason, "host:1: an empty reply");
}

static void what_is_not_understood_is_left_out(void **state)
{
    static const struct step script[] = {
        {.status = 400, .body = "{\"error\":\"unknown field stream_options\"}"},
        {.status = 400, .body = "{\"error\":\"Your organization must be verified to stream this model\"}"},
        {.status = 200, .body = "{\"choices\":[{\"message\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}"}};
    static const struct step again[] = {
        {.status = 200, .body = "{\"choices\":[{\"message\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}"}};
    static const struct step stubborn[] = {{.status = 400, .body = "{\"error\":\"unknown field stream_options\"}"}};

    (void)state;
    ASK(script, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_OK);
    assert_string_equal(got.text, "Hi");
    assert_string_equal(got.deltas, "Hi");
    assert_string_equal(last_body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"12345678\"}]}");
    ASK(again, &with_words, 0); /* it is remembered */
    assert_int_equal(got.attempts, 1);
    assert_null(strstr(last_body, "stream"));
    ASK(stubborn, &with_words, 0); /* nothing is left to leave out */
    assert_int_equal(got.failure, CM_LLM_BAD_REQUEST);
}

static void too_much_is_not_read(void **state)
{
    static const struct step script[] = {
        {.status = 200,
         .stays = true,
         .body = SAY("0123456789012345678901234567890123456789012345678901234567890123456789")
             SAY("0123456789012345678901234567890123456789012345678901234567890123456789")}};
    struct cm_llm *small;
    const struct cm_llm_config config = {.reply_max = 100};

    (void)state;
    assert_int_equal(cm_llm_open(loop, NULL, &config, &small, NULL), 0);
    struct cm_llm *usual = llm;
    llm = small;
    ASK(script, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_TOO_LARGE);
    assert_int_equal(strlen(got.text), 100);
    assert_int_equal(open_fetches, 0);
    cm_llm_free(small);
    llm = usual;
}

static void a_reply_does_not_wait_for_the_connection(void **state)
{
    static const struct step script[] = {{.status = 200, .stays = true, .body = SAY("Hi") STOP}};

    (void)state;
    ASK(script, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_OK);
    assert_string_equal(got.text, "Hi");
    assert_true(got.seconds < 30);
}

static void cancelled_calls_say_nothing(void **state)
{
    static const struct step script[] = {{.status = 200, .body = GOOD}};

    (void)state;
    assert_int_equal(begin(&gpt, script, 1, &with_words, 0), 0);
    cm_llm_cancel(call); /* before its first byte */
    cm_loop_run(loop);
    cancel_at_delta = true;
    assert_int_equal(begin(&gpt, script, 1, &with_words, 0), 0);
    cm_loop_run(loop);
    assert_string_equal(got.deltas, "Hel");
    assert_int_equal(begin(&gpt, script, 1, &with_words, 0), 0);
    llm = cm_llm_free(llm);
    cm_loop_run(loop);
    assert_int_equal(got.dones, 0);
    cm_llm_cancel(NULL);
}

static void stop_loop(void *arg)
{
    (void)arg;
    cm_loop_stop(loop);
}

static void a_wait_is_cancelled(void **state)
{
    static const struct step script[] = {{.status = 429, .body = BUSY, .retry_after_s = 40}};
    struct cm_timer *t = cm_timer_open(loop, stop_loop, NULL, NULL);

    (void)state;
    assert_int_equal(begin(&gpt, script, 1, &with_words, 0), 0);
    cm_timer_start(t, 50, 0);
    cm_loop_run(loop);
    cm_timer_close(t);
    assert_int_equal(open_fetches, 0);
    cm_llm_cancel(call);
    cm_loop_run(loop); /* returns: nothing is left */
    assert_int_equal(got.dones, 0);
}

static void all_ends_from_inside(void **state)
{
    static const struct step script[] = {{.status = 200, .body = GOOD}};

    (void)state;
    free_at_delta = true;
    assert_int_equal(begin(&gpt, script, 1, &with_words, 0), 0);
    cm_loop_run(loop);
    assert_int_equal(got.dones, 0);
    assert_null(llm);
    close_llm(NULL);
    open_llm(NULL);
    free_at_done = true;
    ASK(script, &with_words, 0);
    assert_null(llm);
}

static void requests_that_cannot_begin(void **state)
{
    static const struct step refused[] = {{.refuse = CM_ERR_BAD_FIELD}};
    static const struct step later[] = {{.status = 500, .body = BUSY}, {.refuse = CM_ERR_NO_MEMORY}};
    const struct cm_llm_model bad = {.name = "m", .base_url = "gopher://h"};
    char *key = malloc(5001);
    const struct cm_llm_model long_key = {.name = "m", .base_url = "http://h", .api_key = key};

    (void)state;
    memset(key, 'k', 5000);
    key[5000] = '\0';
    assert_int_equal(begin(&gpt, refused, 1, &with_words, 0), CM_ERR_BAD_FIELD);
    assert_int_equal(begin(&bad, refused, 0, &with_words, 0), CM_ERR_BAD_FIELD);
    assert_int_equal(begin(&long_key, refused, 0, &with_words, 0), CM_ERR_BAD_FIELD);
    free(key);
    ASK(later, &with_words, 0);
    assert_int_equal(got.failure, CM_LLM_NO_MEMORY);
    assert_string_equal(got.reason, "refused");
}

static void windows_and_prices(void **state)
{
    const struct cm_llm_config bad = {.prices = "{\"m\":3}"};
    struct cm_err err = {0};
    struct cm_llm *none = NULL;

    (void)state;
    assert_int_equal(cm_llm_window(llm, "m"), 77);
    assert_int_equal(cm_llm_window(llm, "gpt-5-2025-08-07"), 400000);
    assert_int_equal(cm_llm_window(llm, "openai/gpt-4.1-mini"), 1047576);
    assert_int_equal(cm_llm_window(llm, "gpt-4"), 8192);
    assert_int_equal(cm_llm_window(llm, "gpt-4o"), 128000);
    assert_int_equal(cm_llm_window(llm, "claude-next"), 200000);
    assert_int_equal(cm_llm_window(llm, "nobody-knows"), 128000);
    assert_int_equal(cm_llm_open(loop, NULL, &bad, &none, &err), CM_ERR_BAD_FIELD);
    assert_null(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_llm, close_llm)
        TEST(a_good_answer),
        TEST(anthropic_has_headers_of_its_own),
        TEST(failures_pass),
        TEST(attempts_have_an_end),
        TEST(some_failures_do_not_pass),
        TEST(retry_after_is_honoured),
        TEST(retry_after_may_be_longer_than_an_attempt),
        TEST(the_deadline_is_of_all_attempts),
        TEST(told_words_are_not_told_twice),
        TEST(an_empty_reply_is_tried_once_more),
        TEST(what_is_not_understood_is_left_out),
        TEST(too_much_is_not_read),
        TEST(a_reply_does_not_wait_for_the_connection),
        TEST(cancelled_calls_say_nothing),
        TEST(a_wait_is_cancelled),
        TEST(all_ends_from_inside),
        TEST(requests_that_cannot_begin),
        TEST(windows_and_prices),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
