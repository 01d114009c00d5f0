/* SPDX-License-Identifier: Apache-2.0 */
/* What is made of what model services answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "llm/internal.h"

#define REPLY_MAX 4096

/* ---- answers */

#define HEAD                                                                                                           \
    "data: "                                                                                                           \
    "{\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-5-2025-08-07\",\"choices\":[{\"index\":0,"     \
    "\"delta\":"
#define SAY(t) HEAD "{\"content\":\"" t "\"},\"finish_reason\":null}]}\n\n"
#define STOP   HEAD "{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n"
#define USAGE                                                                                                          \
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3,\"prompt_tokens_details\":{"        \
    "\"cached_tokens\":8}}}\n\n"
#define DONE "data: [DONE]\n\n"

#define A_START                                                                                                        \
    "event: message_start\ndata: "                                                                                     \
    "{\"type\":\"message_start\",\"message\":{\"type\":\"message\",\"model\":\"claude-x\","                            \
    "\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":5,\"cache_creation_input_tokens\":2,"             \
    "\"cache_read_input_tokens\":30,\"output_tokens\":1}}}\n\n"                                                        \
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":"     \
    "\"text\",\"text\":\"\"}}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\n"
#define A_SAY(t)                                                                                                       \
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"             \
    "\"text_delta\",\"text\":\"" t "\"}}\n\n"
#define A_END(why)                                                                                                     \
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\n"         \
    "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"" why "\"},\"usage\":{\"output_tokens\":7}}\n\n"   \
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"

struct answer_case {
    const char *name, *bytes;
    enum cm_llm_failure failure;
    const char *text, *finish;
    long in, out, cached; /* in < 0: no usage */
    enum cm_llm_api api;
    bool again;
};

static const struct answer_case answers[] = {
    {"stream", SAY("Hel") SAY("lo") STOP USAGE DONE, CM_LLM_OK, "Hello", "stop", 12, 3, 8, 0, 0},
    {"no usage", SAY("Hi") STOP DONE, CM_LLM_OK, "Hi", "stop", -1, 0, 0, 0, 0},
    {"no [DONE]", SAY("Hi") STOP, CM_LLM_OK, "Hi", "stop", -1, 0, 0, 0, 0},
    {"no finish reason", SAY("Hi") DONE, CM_LLM_OK, "Hi", "", -1, 0, 0, 0, 0},
    {"no empty line behind the last event", SAY("Hi") "data: [DONE]", CM_LLM_OK, "Hi", "", -1, 0, 0, 0, 0},
    {"comments, CRLF, a mark of byte order",
     "\xef\xbb\xbf: OPENROUTER PROCESSING\r\n\r\ndata:{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n"
     "id: 7\r\nevent: x\r\ndata:{\"choices\":[{\"delta\":{\"content\":\"b\"},\"finish_reason\":\"length\"}]}\r\n\r\n",
     CM_LLM_OK, "ab", "length", -1, 0, 0, 0, 0},
    {"usage with each piece",
     "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n"
     "data: "
     "{\"choices\":[{\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,"
     "\"completion_tokens\":2}}\n\n",
     CM_LLM_OK, "ab", "stop", 9, 2, 0, 0, 0},
    {"cached tokens as DeepSeek names them",
     SAY("a") STOP
     "data: "
     "{\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1,\"prompt_cache_hit_tokens\":4}}\n\n" DONE,
     CM_LLM_OK, "a", "stop", 9, 1, 4, 0, 0},
    {"reasoning is not the reply",
     HEAD "{\"reasoning_content\":\"hm\",\"reasoning\":\"hm\",\"content\":null}}]}\n\n" SAY("a") STOP DONE, CM_LLM_OK,
     "a", "stop", -1, 0, 0, 0, 0},
    {"parts",
     HEAD "{\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\",\"text\":\"hm\"}]},{\"type\":\"text\","
          "\"text\":\"a\"},"
          "{\"type\":\"text\",\"text\":\"b\"}]}}]}\n\n" STOP DONE,
     CM_LLM_OK, "ab", "stop", -1, 0, 0, 0, 0},
    {"another choice is not ours",
     "data: "
     "{\"choices\":[{\"index\":1,\"delta\":{\"content\":\"x\"}},{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n" STOP
         DONE,
     CM_LLM_OK, "a", "stop", -1, 0, 0, 0, 0},
    {"escapes", SAY("\\u00e9\\ud83d\\ude00\\n\\\"\\u0000.") STOP, CM_LLM_OK, "\xc3\xa9\xf0\x9f\x98\x80\n\"", "stop", -1,
     0, 0, 0, 0},
    {"half a pair of surrogates", SAY("a\\ud83d") SAY("\\ude00b\\\\ud83d") STOP, CM_LLM_OK,
     "a\xef\xbf\xbd\xef\xbf\xbd"
     "b\\ud83d",
     "stop", -1, 0, 0, 0, 0},
    {"bytes that are no UTF-8", SAY("a\xf0\x9f") SAY("\xffz") STOP, CM_LLM_OK, "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz",
     "stop", -1, 0, 0, 0, 0},
    {"whole",
     "{\"model\":\"llama\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"finish_"
     "reason\":\"stop\"}],"
     "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}",
     CM_LLM_OK, "Hi", "stop", 5, 1, 0, 0, 0},
    {"whole, with blanks", "\r\n {\n \"choices\" : [ { \"text\" : \"Hi\" , \"finish_reason\" : \"eos\" } ] }\n",
     CM_LLM_OK, "Hi", "stop", -1, 0, 0, 0, 0},
    {"whole, no finish reason", "{\"choices\":[{\"message\":{\"content\":\"Hi\"}}]}", CM_LLM_OK, "Hi", "", -1, 0, 0, 0,
     0},
    {"absurd counts",
     SAY("a") STOP "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":-5,\"completion_tokens\":1e300}}\n\n" DONE,
     CM_LLM_OK, "a", "stop", 0, 1l << 50, 0, 0, 0},
    {"odd types",
     "data: {\"choices\":[{\"delta\":{\"content\":7},\"finish_reason\":{}},3],\"usage\":[],\"model\":{}}\n\n" SAY("a")
         STOP DONE,
     CM_LLM_OK, "a", "stop", -1, 0, 0, 0, 0},

    {"nothing but its end", DONE, CM_LLM_EMPTY, "", "", -1, 0, 0, 0, true},
    {"no words", STOP USAGE DONE, CM_LLM_EMPTY, "", "stop", 12, 3, 8, 0, true},
    {"only reasoning", HEAD "{\"reasoning\":\"hm\"},\"finish_reason\":\"length\"}]}\n\n" DONE, CM_LLM_EMPTY, "",
     "length", -1, 0, 0, 0, true},
    {"content null", "{\"choices\":[{\"message\":{\"content\":null},\"finish_reason\":\"stop\"}]}", CM_LLM_EMPTY, "",
     "stop", -1, 0, 0, 0, true},
    {"refusal",
     HEAD "{\"refusal\":\"I will \"}}]}\n\n" HEAD "{\"refusal\":\"not.\"},\"finish_reason\":\"stop\"}]}\n\n" DONE,
     CM_LLM_REFUSAL, "I will not.", "stop", -1, 0, 0, 0, 0},
    {"filter", SAY("Well") HEAD "{},\"finish_reason\":\"content_filter\"}]}\n\n" DONE, CM_LLM_REFUSAL, "Well",
     "content_filter", -1, 0, 0, 0, 0},
    {"cut", SAY("Hel"), CM_LLM_CUT, "Hel", "", -1, 0, 0, 0, true},
    {"cut in an event", SAY("Hel") "data: {\"choices\":[{\"del", CM_LLM_CUT, "Hel", "", -1, 0, 0, 0, true},
    {"cut before the first word", HEAD "{\"role\":\"assistant\"}}]}\n\n", CM_LLM_CUT, "", "", -1, 0, 0, 0, true},
    {"nothing", "", CM_LLM_CUT, "", "", -1, 0, 0, 0, true},
    {"only comments", ": wait\n\n: wait\n\n", CM_LLM_BAD_ANSWER, "", "", -1, 0, 0, 0, 0},
    {"an error in the stream", "data: {\"error\":{\"message\":\"busy\",\"code\":502}}\n\n" DONE, CM_LLM_UNREACHABLE, "",
     "", -1, 0, 0, 0, true},
    {"an error by its name",
     "event: error\ndata: {\"error\":{\"message\":\"slow down\",\"type\":\"rate_limit_exceeded\"}}\n\n",
     CM_LLM_RATE_LIMITED, "", "", -1, 0, 0, 0, true},
    {"an error of the prompt",
     "data: {\"error\":{\"message\":\"the request exceeds the available context size\",\"code\":400}}\n\n",
     CM_LLM_TOO_LONG, "", "", -1, 0, 0, 0, 0},
    {"an error behind words", SAY("Hel") "data: {\"object\":\"error\",\"message\":\"gone\",\"code\":500}\n\n" DONE,
     CM_LLM_CUT, "Hel", "", -1, 0, 0, 0, true},
    {"an error as a reason", SAY("Hel") HEAD "{},\"finish_reason\":\"error\"}]}\n\n" DONE, CM_LLM_CUT, "Hel", "stop",
     -1, 0, 0, 0, true},
    {"an error behind the end", SAY("Hi") STOP "data: {\"error\":\"late\"}\n\n", CM_LLM_OK, "Hi", "stop", -1, 0, 0, 0,
     0},
    {"an error in place of an answer", "{\"error\":\"model not found\"}", CM_LLM_UNREACHABLE, "", "", -1, 0, 0, 0,
     true},
    {"an error that is null",
     "{\"error\":null,\"choices\":[{\"message\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}", CM_LLM_OK, "Hi",
     "stop", -1, 0, 0, 0, 0},

    {"a page", "<html><body>Please log in</body></html>", CM_LLM_BAD_ANSWER, "", "", -1, 0, 0, 0, 0},
    {"text", "Hello, I am a proxy\n\n", CM_LLM_BAD_ANSWER, "", "", -1, 0, 0, 0, 0},
    {"half an object", "{\"choices\":[{\"message\":{\"con", CM_LLM_BAD_ANSWER, "", "", -1, 0, 0, 0, 0},
    {"no choices", "{\"choices\":[]}", CM_LLM_BAD_ANSWER, "", "", -1, 0, 0, 0, 0},
    {"choices of another kind", "{\"choices\":{\"0\":1}}", CM_LLM_BAD_ANSWER, "", "", -1, 0, 0, 0, 0},
    {"an array", "[1,2]", CM_LLM_BAD_ANSWER, "", "", -1, 0, 0, 0, 0},
    {"another API", "{\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}]}", CM_LLM_BAD_ANSWER, "",
     "", -1, 0, 0, 0, 0},
    {"an event that is no JSON", "data: hello\n\n", CM_LLM_BAD_ANSWER, "", "", -1, 0, 0, 0, 0},
    {"an event that is no object", "data: [1]\n\n", CM_LLM_BAD_ANSWER, "", "", -1, 0, 0, 0, 0},
    {"no JSON behind words", SAY("Hel") "data: {oops}\n\n" SAY("lo"), CM_LLM_CUT, "Hel", "", -1, 0, 0, 0, true},

    {"claude", A_START A_SAY("Hel") A_SAY("lo") A_END("end_turn"), CM_LLM_OK, "Hello", "stop", 37, 7, 30,
     CM_LLM_ANTHROPIC, 0},
    {"claude, no room", A_START A_SAY("Hel") A_END("max_tokens"), CM_LLM_OK, "Hel", "length", 37, 7, 30,
     CM_LLM_ANTHROPIC, 0},
    {"claude declines", A_START A_SAY("I") A_END("refusal"), CM_LLM_REFUSAL, "I", "content_filter", 37, 7, 30,
     CM_LLM_ANTHROPIC, 0},
    {"claude says nothing", A_START A_END("end_turn"), CM_LLM_EMPTY, "", "stop", 37, 7, 30, CM_LLM_ANTHROPIC, true},
    {"claude thinks",
     A_START
     "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"hm\"}}\n\n" A_SAY(
         "a") A_END("end_turn"),
     CM_LLM_OK, "a", "stop", 37, 7, 30, CM_LLM_ANTHROPIC, 0},
    {"claude is cut", A_START A_SAY("Hel"), CM_LLM_CUT, "Hel", "", 37, 1, 30, CM_LLM_ANTHROPIC, true},
    {"claude is busy",
     "event: error\ndata: "
     "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n",
     CM_LLM_UNREACHABLE, "", "", -1, 0, 0, CM_LLM_ANTHROPIC, true},
    {"claude, whole",
     "{\"type\":\"message\",\"model\":\"claude-x\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\"},{\"type\":"
     "\"text\",\"text\":\"Hi\"}],"
     "\"stop_reason\":\"stop_sequence\",\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}",
     CM_LLM_OK, "Hi", "stop", 3, 2, 0, CM_LLM_ANTHROPIC, 0},
    {"claude, no message", "data: {\"type\":7}\n\ndata: {\"type\":\"\\u0041\"}\n\n", CM_LLM_BAD_ANSWER, "", "", -1, 0,
     0, CM_LLM_ANTHROPIC, 0},
};

static char heard[REPLY_MAX + 1];
static size_t heard_len;

static void hear(void *arg, const char *text, size_t len)
{
    (void)arg;
    assert_true(heard_len + len <= REPLY_MAX);
    memcpy(heard + heard_len, text, len);
    heard_len += len;
}

/* A piece in memory of its own, so that a sanitizer sees a read behind it. */
static bool feed(struct cm_llm_reader *r, const char *data, size_t len)
{
    char *copy = malloc(len ? len : 1);

    memcpy(copy, data, len);
    bool more = cm_llm_reader_feed(r, true, copy, len);
    free(copy);
    return more;
}

/* The first `len` bytes, in pieces: up to `cut`, then of `step` bytes. */
static void read_answer(struct cm_llm_reader *r, const struct answer_case *a, size_t len, size_t cut, size_t step,
                        enum cm_fetch_failure why, struct cm_llm_verdict *v)
{
    struct cm_fetch_end end = {why, 200, -1, len, "cut"};
    bool more = true;

    cm_llm_reader_init(r, a->api, REPLY_MAX);
    r->words = hear;
    heard_len = 0;
    if (cut > 0)
        more = feed(r, a->bytes, cut);
    for (size_t at = cut; more && at < len; at += step)
        more = feed(r, a->bytes + at, step < len - at ? step : len - at);
    cm_llm_reader_end(r, true);
    cm_llm_judge(r, &end, "host", false, v);
}

static void expect(const struct answer_case *a, const struct cm_llm_reader *r, const struct cm_llm_verdict *v)
{
    struct cm_llm_reader copy = *r;
    const char *text = cm_buf_data(&copy.text);

    if (v->failure != a->failure)
        fail_msg("%s: %s (%s)", a->name, cm_llm_failure_name(v->failure), v->reason);
    if (strcmp(text, a->text) != 0)
        fail_msg("%s: \"%s\"", a->name, text);
    if (strcmp(r->finish, a->finish) != 0 || r->has_usage != (a->in >= 0) || v->again != a->again)
        fail_msg("%s: finish \"%s\", usage %d, again %d", a->name, r->finish, r->has_usage, v->again);
    if (a->in >= 0 && (r->usage.input_tokens != (uint64_t)a->in || r->usage.output_tokens != (uint64_t)a->out ||
                       r->usage.cached_tokens != (uint64_t)a->cached))
        fail_msg("%s: %lu %lu %lu", a->name, r->usage.input_tokens, r->usage.output_tokens, r->usage.cached_tokens);
    assert_int_equal(heard_len, r->text.len);
    assert_memory_equal(heard, text, heard_len);
    assert_int_equal(v->failure == CM_LLM_OK, *v->reason == '\0');
}

static void answers_are_read_in_any_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < CM_COUNT_OF(answers); i++) {
        size_t len = strlen(answers[i].bytes);
        for (size_t cut = 0; cut <= len; cut++) {
            struct cm_llm_reader r;
            struct cm_llm_verdict v;
            read_answer(&r, &answers[i], len, cut, cut == 0 ? 1 : len, CM_FETCH_OK, &v);
            expect(&answers[i], &r, &v);
            cm_llm_reader_done(&r);
        }
    }
}

/* Whatever is missing: what was there is taken, and nothing that was cut counts as whole. */
static void answers_may_end_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < CM_COUNT_OF(answers); i++) {
        const struct answer_case *a = &answers[i];
        for (size_t len = 0; len < strlen(a->bytes); len++) {
            struct cm_llm_reader r;
            struct cm_llm_verdict v;
            read_answer(&r, a, len, 0, 7, CM_FETCH_CUT, &v);
            if (a->failure == CM_LLM_OK && !strncmp(a->text, heard, heard_len) && v.failure != CM_LLM_OK)
                assert_true(v.failure == CM_LLM_CUT || v.failure == CM_LLM_BAD_ANSWER || v.failure == CM_LLM_EMPTY);
            if (v.failure == CM_LLM_OK)
                assert_true(r.finished && r.text.len > 0);
            if (v.failure == CM_LLM_CUT)
                assert_true(v.again);
            cm_llm_reader_done(&r);
        }
    }
}

static void the_model_says_its_name(void **state)
{
    struct cm_llm_reader r;
    struct cm_llm_verdict v;

    (void)state;
    read_answer(&r, &answers[0], strlen(answers[0].bytes), 0, 1, CM_FETCH_OK, &v);
    assert_string_equal(r.model, "gpt-5-2025-08-07");
    cm_llm_reader_done(&r);
}

static void a_service_says_what_it_costs(void **state)
{
    static const struct answer_case a = {
        "cost",
        SAY("a") STOP
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"cost\":0.00125}}\n\n" DONE,
        0,
        "",
        "",
        0,
        0,
        0,
        0,
        0};
    struct cm_llm_reader r;
    struct cm_llm_verdict v;

    (void)state;
    read_answer(&r, &a, strlen(a.bytes), 0, 50, CM_FETCH_OK, &v);
    assert_true(r.has_cost);
    assert_true(r.usage.cost == 0.00125);
    cm_llm_reader_done(&r);
}

/* Feeds `piece` until it is not wanted any more, at most `times`. */
static unsigned feed_often(struct cm_llm_reader *r, const char *piece, unsigned times)
{
    unsigned n = 0;

    while (n < times && feed(r, piece, strlen(piece)))
        n++;
    return n;
}

static void a_reply_has_a_maximum(void **state)
{
    struct cm_fetch_end end = {CM_FETCH_OK, 200, -1, 1, ""};
    struct cm_llm_verdict v;
    struct cm_llm_reader r;

    (void)state;
    cm_llm_reader_init(&r, CM_LLM_OPENAI, REPLY_MAX);
    r.words = hear;
    heard_len = 0;
    assert_int_equal(feed_often(&r, SAY("\xe2\x82\xac"), 5000), REPLY_MAX / 3);
    cm_llm_reader_end(&r, true);
    cm_llm_judge(&r, &end, "host", false, &v);
    assert_int_equal(v.failure, CM_LLM_TOO_LARGE);
    assert_int_equal(r.text.len, REPLY_MAX / 3 * 3); /* no half character */
    assert_int_equal(heard_len, r.text.len);
    cm_llm_reader_done(&r);

    const char *endless[] = {"data: {\"choices\":[{\"delta\":{\"content\":\"",
                             "{\"choices\":[{\"message\":{\"content\":\""};
    for (int i = 0; i < 2; i++) { /* a line, an object without an end */
        cm_llm_reader_init(&r, CM_LLM_OPENAI, REPLY_MAX);
        assert_true(feed(&r, endless[i], strlen(endless[i])));
        assert_in_range(feed_often(&r, "0123456789012345678901234567890123456789", 100000), 1, 5000);
        cm_llm_reader_end(&r, true);
        cm_llm_judge(&r, &end, "host", false, &v);
        assert_int_equal(v.failure, CM_LLM_TOO_LARGE);
        cm_llm_reader_done(&r);
    }
}

/* ---- errors */

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): in the order in which it reads well */
struct error_case {
    int status;
    const char *body;
    enum cm_llm_failure failure;
    bool again;
    unsigned quirk;
    const char *reason;
};

static const struct error_case errors[] = {
    {401,
     "{\"error\":{\"message\":\"Incorrect API key\",\"type\":\"invalid_request_error\",\"code\":\"invalid_api_key\"}}",
     CM_LLM_REFUSED, 0, 0, "HTTP 401 from host: Incorrect API key"},
    {403, "", CM_LLM_REFUSED, 0, 0, "HTTP 403 from host"},
    {402, "{\"error\":{\"message\":\"Insufficient credits\",\"code\":402}}", CM_LLM_REFUSED, 0, 0,
     "HTTP 402 from host: Insufficient credits"},
    {404, "{\"error\":{\"message\":\"The model `x` does not exist\",\"code\":\"model_not_found\"}}", CM_LLM_BAD_REQUEST,
     0, 0, "HTTP 404 from host: The model `x` does not exist"},
    {404, "{\"error\":\"model 'x' not found\"}", CM_LLM_BAD_REQUEST, 0, 0, "HTTP 404 from host: model 'x' not found"},
    {404, "404 page not found", CM_LLM_BAD_REQUEST, 0, 0,
     "HTTP 404 from host (is the base URL what stands before /chat/completions?): 404 page not found"},
    {400, "{\"object\":\"error\",\"message\":\"bad\\ntemperature\",\"code\":400}", CM_LLM_BAD_REQUEST, 0, 0,
     "HTTP 400 from host: bad temperature"},
    {400, "[{\"error\":{\"code\":400,\"message\":\"API key not valid\",\"status\":\"INVALID_ARGUMENT\"}}]",
     CM_LLM_BAD_REQUEST, 0, 0, "HTTP 400 from host: API key not valid"},
    {422, "{\"detail\":\"field required\"}", CM_LLM_BAD_REQUEST, 0, 0, "HTTP 422 from host: field required"},
    {422, "{\"detail\":[{\"loc\":[\"body\",\"stream_options\"],\"msg\":\"Extra inputs are not permitted\"}]}",
     CM_LLM_BAD_REQUEST, 0, CM_LLM_NO_STREAM_OPTIONS, "HTTP 422 from host"},
    {400, "{\"error\":{\"message\":\"Unrecognized request argument supplied: stream_options\"}}", CM_LLM_BAD_REQUEST, 0,
     CM_LLM_NO_STREAM_OPTIONS, "HTTP 400 from host: Unrecognized request argument supplied: stream_options"},
    {400,
     "{\"error\":{\"message\":\"Unsupported parameter: 'max_tokens' is not supported with this model. Use "
     "'max_completion_tokens' instead.\"}}",
     CM_LLM_BAD_REQUEST, 0, CM_LLM_COMPLETION_TOKENS,
     "HTTP 400 from host: Unsupported parameter: 'max_tokens' is not supported with this model. Use "
     "'max_completion_tokens' instead."},
    {400,
     "{\"error\":{\"message\":\"Your organization must be verified to stream this "
     "model.\",\"param\":\"stream\",\"code\":\"unsupported_value\"}}",
     CM_LLM_BAD_REQUEST, 0, CM_LLM_NO_STREAM,
     "HTTP 400 from host: Your organization must be verified to stream this model."},
    {400,
     "{\"error\":{\"message\":\"This model's maximum context length is 8192 "
     "tokens.\",\"code\":\"context_length_exceeded\"}}",
     CM_LLM_TOO_LONG, 0, 0, "HTTP 400 from host: This model's maximum context length is 8192 tokens."},
    {400,
     "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"prompt is too long: 210000 "
     "tokens > 200000 maximum\"}}",
     CM_LLM_TOO_LONG, 0, 0, "HTTP 400 from host: prompt is too long: 210000 tokens > 200000 maximum"},
    {400,
     "{\"error\":{\"code\":400,\"message\":\"request (9000 tokens) exceeds the available context "
     "size\",\"type\":\"exceed_context_size_error\"}}",
     CM_LLM_TOO_LONG, 0, 0, "HTTP 400 from host: request (9000 tokens) exceeds the available context size"},
    {500, "{\"error\":\"the input is too long for the context window\"}", CM_LLM_TOO_LONG, 0, 0,
     "HTTP 500 from host: the input is too long for the context window"},
    {413, "<html>Payload Too Large</html>", CM_LLM_TOO_LONG, 0, 0, "HTTP 413 from host: a page of HTML"},
    {400, "{\"error\":{\"message\":\"filtered\",\"code\":\"content_filter\"}}", CM_LLM_REFUSAL, 0, 0,
     "HTTP 400 from host: filtered"},
    {429, "{\"error\":{\"message\":\"Rate limit reached\",\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}",
     CM_LLM_RATE_LIMITED, true, 0, "HTTP 429 from host: Rate limit reached"},
    {429, "{\"error\":{\"message\":\"You exceeded your quota\",\"code\":\"insufficient_quota\"}}", CM_LLM_RATE_LIMITED,
     0, 0, "HTTP 429 from host: You exceeded your quota"},
    {500, "", CM_LLM_UNREACHABLE, true, 0, "HTTP 500 from host"},
    {502, "<html><h1>502 Bad Gateway</h1></html>", CM_LLM_UNREACHABLE, true, 0, "HTTP 502 from host: a page of HTML"},
    {503, "{\"error\":{\"message\":\"Loading model\",\"type\":\"unavailable_error\",\"code\":503}}", CM_LLM_UNREACHABLE,
     true, 0, "HTTP 503 from host: Loading model"},
    {504, "upstream timed out", CM_LLM_TIMEOUT, true, 0, "HTTP 504 from host: upstream timed out"},
    {529, "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}",
     CM_LLM_UNREACHABLE, true, 0, "HTTP 529 from host: Overloaded"},
    {408, "", CM_LLM_TIMEOUT, true, 0, "HTTP 408 from host"},
    {301, "", CM_LLM_BAD_ANSWER, 0, 0, "HTTP 301 from host"},
    {400, "{\"error\":", CM_LLM_BAD_REQUEST, 0, 0, "HTTP 400 from host: {\"error\":"},
    {400, "\xff\xfe\x01", CM_LLM_BAD_REQUEST, 0, 0, "HTTP 400 from host"},
    {400, "7", CM_LLM_BAD_REQUEST, 0, 0, "HTTP 400 from host"},
    {400, "[]", CM_LLM_BAD_REQUEST, 0, 0, "HTTP 400 from host"},
};

static void errors_are_understood(void **state)
{
    (void)state;
    for (size_t i = 0; i < CM_COUNT_OF(errors); i++) {
        struct cm_fetch_end end = {CM_FETCH_OK, errors[i].status, -1, 1, ""};
        struct cm_llm_verdict v;
        struct cm_llm_reader r;
        size_t half = strlen(errors[i].body) / 2;
        cm_llm_reader_init(&r, CM_LLM_OPENAI, REPLY_MAX);
        cm_llm_reader_feed(&r, false, errors[i].body, half);
        cm_llm_reader_feed(&r, false, errors[i].body + half, strlen(errors[i].body) - half);
        cm_llm_reader_end(&r, false);
        cm_llm_judge(&r, &end, "host", false, &v);
        if (v.failure != errors[i].failure || v.again != errors[i].again || v.quirk != errors[i].quirk)
            fail_msg("%d %s: %s, again %d, quirk %u", errors[i].status, errors[i].body, cm_llm_failure_name(v.failure),
                     v.again, v.quirk);
        assert_string_equal(v.reason, errors[i].reason);
        assert_int_equal(r.text.len, 0);
        cm_llm_reader_done(&r);
    }
}

static void a_giant_error_is_cut(void **state)
{
    struct cm_fetch_end end = {CM_FETCH_OK, 500, -1, 1, ""};
    struct cm_llm_verdict v;
    struct cm_llm_reader r;
    char piece[1000];

    (void)state;
    memset(piece, 'e', sizeof piece);
    cm_llm_reader_init(&r, CM_LLM_OPENAI, 1 << 20);
    for (int i = 0; i < 1000; i++)
        assert_true(cm_llm_reader_feed(&r, false, piece, sizeof piece));
    assert_int_equal(r.whole.len, 65536);
    cm_llm_reader_end(&r, false);
    cm_llm_judge(&r, &end, "host", false, &v);
    assert_int_equal(v.failure, CM_LLM_UNREACHABLE);
    assert_in_range(strlen(v.reason), 300, 500);
    cm_llm_reader_done(&r);
}

static void without_an_answer(void **state)
{
    static const struct {
        enum cm_fetch_failure why;
        enum cm_llm_failure failure;
        bool again;
    } ends[] = {
        {CM_FETCH_CONNECT, CM_LLM_UNREACHABLE, true},  {CM_FETCH_TLS, CM_LLM_UNREACHABLE, false},
        {CM_FETCH_CUT, CM_LLM_UNREACHABLE, true},      {CM_FETCH_TIMEOUT, CM_LLM_TIMEOUT, false},
        {CM_FETCH_TOO_LARGE, CM_LLM_TOO_LARGE, false}, {CM_FETCH_MEMORY, CM_LLM_NO_MEMORY, false},
    };

    (void)state;
    for (size_t i = 0; i < CM_COUNT_OF(ends); i++) {
        struct cm_fetch_end end = {ends[i].why, 0, -1, 0, "host: why"};
        struct cm_llm_verdict v;
        struct cm_llm_reader r;
        cm_llm_reader_init(&r, CM_LLM_OPENAI, REPLY_MAX);
        cm_llm_reader_end(&r, false);
        cm_llm_judge(&r, &end, "host", false, &v);
        assert_int_equal(v.failure, ends[i].failure);
        assert_int_equal(v.again, ends[i].again);
        assert_true(*v.reason);
        cm_llm_reader_done(&r);
    }
}

static void words_that_were_told_are_not_told_twice(void **state)
{
    struct cm_fetch_end end = {CM_FETCH_CUT, 200, -1, 10, "cut"};
    struct cm_llm_verdict v;
    struct cm_llm_reader r;

    (void)state;
    read_answer(&r, &(struct answer_case){.bytes = SAY("Hel")}, strlen(SAY("Hel")), 0, 50, CM_FETCH_CUT, &v);
    assert_true(v.again);
    cm_llm_judge(&r, &end, "host", true, &v);
    assert_false(v.again);
    assert_int_equal(v.failure, CM_LLM_CUT);
    cm_llm_reader_done(&r);
}

static void waits_grow_to_their_maximum(void **state)
{
    const struct cm_llm_config c = {.backoff_s = 0.5, .backoff_max_s = 3};
    static const double middle[] = {0, 0.5, 1, 2, 3, 3, 3};

    (void)state;
    for (unsigned made = 1; made < CM_COUNT_OF(middle); made++) {
        assert_float_equal(cm_llm_wait(&c, made, -1, 0), middle[made] * 0.8, 1e-9);
        assert_float_equal(cm_llm_wait(&c, made, -1, 0.5), middle[made], 1e-9);
        assert_float_equal(cm_llm_wait(&c, made, -1, 1), middle[made] * 1.2, 1e-9);
    }
    assert_float_equal(cm_llm_wait(&c, 1, 20, 1), 20, 1e-9);
    assert_float_equal(cm_llm_wait(&c, 1, 0, 1), 0, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_read_in_any_pieces),
        cmocka_unit_test(answers_may_end_anywhere),
        cmocka_unit_test(the_model_says_its_name),
        cmocka_unit_test(a_service_says_what_it_costs),
        cmocka_unit_test(a_reply_has_a_maximum),
        cmocka_unit_test(errors_are_understood),
        cmocka_unit_test(a_giant_error_is_cut),
        cmocka_unit_test(without_an_answer),
        cmocka_unit_test(words_that_were_told_are_not_told_twice),
        cmocka_unit_test(waits_grow_to_their_maximum),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
