/* SPDX-License-Identifier: Apache-2.0 */
/* What is sent to model services, what it costs, and where a model's file is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "llm/internal.h"

/* ---- requests */

static const struct cm_llm_message talk[] = {
    {CM_LLM_SYSTEM, "Be \"kind\".", 10}, {CM_LLM_SYSTEM, "Be short.", 9}, {CM_LLM_USER, "Hi\xff", 3},
    {CM_LLM_ASSISTANT, "", 0},           {CM_LLM_ASSISTANT, "Yes?", 4},   {CM_LLM_USER, "Why\n", 4},
};

static void writes(const struct cm_llm_model *model, size_t first, size_t count, unsigned quirks, const char *want)
{
    cm_autobuf struct cm_buf body;
    struct cm_json_value value;
    struct cm_err err;

    cm_buf_init(&body, 1 << 20);
    assert_int_equal(cm_llm_request_check(model, &err), 0);
    assert_int_equal(cm_llm_request_begin(&body, model, talk + first, count, &err), 0);
    size_t begin = body.len;
    assert_int_equal(cm_llm_request_end(&body, model, quirks ^ 7), 0); /* an attempt before this one */
    body.len = begin;
    assert_int_equal(cm_llm_request_end(&body, model, quirks), 0);
    assert_string_equal(cm_buf_data(&body), want);
    assert_int_equal(cm_json_check(cm_buf_data(&body), body.len, &value, &err), 0);
}

static void requests_of_openai(void **state)
{
    struct cm_llm_model m = {.name = "gpt-5", .base_url = "http://h/v1"};

    (void)state;
    writes(&m, 0, 6, 0,
           "{\"model\":\"gpt-5\",\"messages\":[{\"role\":\"system\",\"content\":\"Be "
           "\\\"kind\\\".\"},{\"role\":\"system\",\"content\":\"Be short.\"},"
           "{\"role\":\"user\",\"content\":\"Hi\xef\xbf\xbd\"},{\"role\":\"assistant\",\"content\":\"\"},{\"role\":"
           "\"assistant\",\"content\":\"Yes?\"},"
           "{\"role\":\"user\",\"content\":\"Why\\n\"}],\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    writes(&m, 5, 1, CM_LLM_NO_STREAM_OPTIONS,
           "{\"model\":\"gpt-5\",\"messages\":[{\"role\":\"user\",\"content\":\"Why\\n\"}],\"stream\":true}");
    m.max_output_tokens = 99;
    m.sampling = " { \"temperature\" : 0.5, \"stop\": [\"x\"], \"model\": \"other\", \"stream\": false, "
                 "\"max_tokens\": 5, \"messages\": [] } ";
    writes(&m, 5, 1, CM_LLM_NO_STREAM,
           "{\"model\":\"gpt-5\",\"messages\":[{\"role\":\"user\",\"content\":\"Why\\n\"}],\"temperature\":0.5,"
           "\"stop\":[\"x\"],\"max_tokens\":99}");
    writes(&m, 5, 1, CM_LLM_NO_STREAM | CM_LLM_COMPLETION_TOKENS,
           "{\"model\":\"gpt-5\",\"messages\":[{\"role\":\"user\",\"content\":\"Why\\n\"}],\"temperature\":0.5,"
           "\"stop\":[\"x\"],\"max_completion_tokens\":99}");
    m.sampling = "{\"mod\\u0065l\":\"other\",\"top_k\":3,\"m\\u0065ssages\":[],\"\\u006e\":9,"
                 "\"max_tok\\u0065ns\":5}"; /* the same names, for whoever reads them */
    writes(&m, 5, 1, CM_LLM_NO_STREAM,
           "{\"model\":\"gpt-5\",\"messages\":[{\"role\":\"user\",\"content\":\"Why\\n\"}],\"top_k\":3,"
           "\"max_tokens\":99}");
    m.max_output_tokens = 0;
    m.sampling = "{\"max_tokens\":5}";
    writes(&m, 5, 1, CM_LLM_NO_STREAM,
           "{\"model\":\"gpt-5\",\"messages\":[{\"role\":\"user\",\"content\":\"Why\\n\"}],\"max_tokens\":5}");
}

static void requests_of_anthropic(void **state)
{
    struct cm_llm_model m = {.name = "claude-x", .base_url = "http://h", .api = CM_LLM_ANTHROPIC};

    (void)state;
    writes(&m, 0, 6, 0,
           "{\"model\":\"claude-x\",\"system\":\"Be \\\"kind\\\".\\n\\nBe short.\","
           "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\xef\xbf\xbd\"},{\"role\":\"assistant\",\"content\":\"Yes?"
           "\"},{\"role\":\"user\",\"content\":\"Why\\n\"}],"
           "\"max_tokens\":32768,\"stream\":true}");
    writes(&m, 1, 1, 0,
           "{\"model\":\"claude-x\",\"messages\":[{\"role\":\"user\",\"content\":\"Be "
           "short.\"}],\"max_tokens\":32768,\"stream\":true}");
    m.sampling = "{\"max_tokens\":7,\"thinking\":{\"type\":\"disabled\"}}";
    writes(&m, 5, 1, 0,
           "{\"model\":\"claude-x\",\"messages\":[{\"role\":\"user\",\"content\":\"Why\\n\"}],\"max_tokens\":7,"
           "\"thinking\":{\"type\":\"disabled\"},\"stream\":true}");
    m.max_output_tokens = 9;
    writes(&m, 5, 1, CM_LLM_NO_STREAM,
           "{\"model\":\"claude-x\",\"messages\":[{\"role\":\"user\",\"content\":\"Why\\n\"}],\"thinking\":{\"type\":"
           "\"disabled\"},\"max_tokens\":9}");
}

static void requests_go_to_their_place(void **state)
{
    static const struct {
        enum cm_llm_api api;
        const char *base, *url;
    } places[] = {
        {CM_LLM_OPENAI, "https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"},
        {CM_LLM_OPENAI, "http://localhost:11434/v1//", "http://localhost:11434/v1/chat/completions"},
        {CM_LLM_OPENAI, "https://a/openai/deployments/b?api-version=1",
         "https://a/openai/deployments/b/chat/completions?api-version=1"},
        {CM_LLM_ANTHROPIC, "https://api.anthropic.com", "https://api.anthropic.com/v1/messages"},
        {CM_LLM_ANTHROPIC, "https://api.anthropic.com/v1/", "https://api.anthropic.com/v1/messages"},
    };

    (void)state;
    for (size_t i = 0; i < CM_COUNT_OF(places); i++) {
        cm_autobuf struct cm_buf url;
        cm_buf_init(&url, 4096);
        assert_int_equal(
            cm_llm_request_url(&url, &(struct cm_llm_model){.api = places[i].api, .base_url = places[i].base}), 0);
        assert_string_equal(cm_buf_data(&url), places[i].url);
    }
}

static void models_that_cannot_be_asked(void **state)
{
    static const struct cm_llm_model bad[] = {
        {.base_url = "http://h"},
        {.name = "", .base_url = "http://h"},
        {.name = "a\xff", .base_url = "http://h"},
        {.name = "m"},
        {.name = "m", .base_url = "ftp://h"},
        {.name = "m", .base_url = "http://h\r\nX: y"},
        {.name = "m", .base_url = "http://h", .api_key = "k\r\nX: y"},
        {.name = "m", .base_url = "http://h", .sampling = "[1]"},
        {.name = "m", .base_url = "http://h", .sampling = "{"},
    };

    (void)state;
    for (size_t i = 0; i < CM_COUNT_OF(bad); i++) {
        struct cm_err err = {0};
        assert_int_equal(cm_llm_request_check(&bad[i], &err), CM_ERR_BAD_FIELD);
        assert_int_equal(err.code, CM_ERR_BAD_FIELD);
        assert_null(strstr(err.text, "X: y"));
    }
}

/* ---- prices */

static int add(struct cm_llm_table *t, const char *json, struct cm_err *err)
{
    return cm_llm_table_add(t, json, strlen(json), err);
}

static void the_longest_name_counts(void **state)
{
    struct cm_llm_table t = {NULL, 0};

    (void)state;
    assert_int_equal(
        add(&t, "{\"models\":{\"gpt\":{\"window\":1},\"gpt-5-mini\":{\"window\":3},\"gpt-5\":{\"window\":2}}}", NULL),
        0);
    assert_int_equal(cm_llm_table_find(&t, "gpt-5-2025-08-07")->window, 2);
    assert_int_equal(cm_llm_table_find(&t, "GPT-5-Mini-2025")->window, 3);
    assert_int_equal(cm_llm_table_find(&t, "gpt-4")->window, 1);
    assert_int_equal(cm_llm_table_find(&t, "openai/gpt-5")->window, 2);
    assert_int_equal(cm_llm_table_find(&t, "gpt-4/gpt-5")->window, 1);
    assert_null(cm_llm_table_find(&t, "other"));
    assert_null(cm_llm_table_find(&t, "gp"));
    cm_llm_table_done(&t);
}

static void prices_add_up(void **state)
{
    struct cm_llm_table t = {NULL, 0};
    struct cm_llm_usage u = {.input_tokens = 1000000, .output_tokens = 500000, .cached_tokens = 400000};

    (void)state;
    assert_int_equal(add(&t,
                         "{\"a\":{\"input\":2,\"cached_input\":0.5,\"output\":8},\"b\":{\"input\":2,\"output\":8},"
                         "\"c\":{\"window\":5}}",
                         NULL),
                     0);
    cm_llm_table_price(&t, "a-1", &u);
    assert_true(u.priced);
    assert_float_equal(u.cost, 0.6 * 2 + 0.4 * 0.5 + 4, 1e-9);
    cm_llm_table_price(&t, "b", &u);
    assert_float_equal(u.cost, 6, 1e-9);
    u = (struct cm_llm_usage){.input_tokens = 10, .cached_tokens = 1000000};
    cm_llm_table_price(&t, "a", &u);
    assert_float_equal(u.cost, 10 * 0.5 / 1e6, 1e-12);
    u = (struct cm_llm_usage){.input_tokens = 10};
    cm_llm_table_price(&t, "c", &u);
    assert_false(u.priced);
    assert_true(u.cost == 0);
    cm_llm_table_price(&t, "d", &u);
    assert_false(u.priced);
    cm_llm_table_done(&t);
}

static void rows_are_changed_by_later_ones(void **state)
{
    struct cm_llm_table t = {NULL, 0};

    (void)state;
    assert_int_equal(add(&t, "{\"models\":{\"m\":{\"window\":1,\"input\":2,\"output\":3}}}", NULL), 0);
    assert_int_equal(add(&t, "{\"M\":{\"window\":7},\"n\":{\"output\":0}}", NULL), 0);
    assert_int_equal(t.count, 2);
    assert_int_equal(cm_llm_table_find(&t, "m")->window, 7);
    assert_true(cm_llm_table_find(&t, "m")->input == 2);
    assert_true(cm_llm_table_find(&t, "n")->output == 0);
    cm_llm_table_done(&t);
}

static void bad_tables_are_refused(void **state)
{
    static const struct {
        const char *json, *says;
        int code;
    } bad[] = {
        {"", "models: invalid JSON", CM_ERR_BAD_JSON},
        {"[]", "must be a JSON object", CM_ERR_BAD_FIELD},
        {"{\"m\":3}", "\"m\" must be an object", CM_ERR_BAD_FIELD},
        {"{\"\":{}}", "must be an object", CM_ERR_BAD_FIELD},
        {"{\"m\":{\"window\":0}}", "m: window", CM_ERR_BAD_FIELD},
        {"{\"m\":{\"window\":\"1\"}}", "m: window", CM_ERR_BAD_FIELD},
        {"{\"m\":{\"window\":1e12}}", "m: window", CM_ERR_BAD_FIELD},
        {"{\"m\":{\"input\":-1}}", "m: input must be a price", CM_ERR_BAD_FIELD},
        {"{\"m\":{\"output\":null}}", "m: output must be a price", CM_ERR_BAD_FIELD},
        {"{\"m\":{\"in\":1}}", "m: in must be one of window", CM_ERR_BAD_FIELD},
    };

    (void)state;
    for (size_t i = 0; i < CM_COUNT_OF(bad); i++) {
        struct cm_llm_table t = {NULL, 0};
        struct cm_err err = {0};
        assert_int_equal(add(&t, bad[i].json, &err), bad[i].code);
        if (!strstr(err.text, bad[i].says))
            fail_msg("%s: %s", bad[i].json, err.text);
        cm_llm_table_done(&t);
    }
}

/* ---- the file of a model */

static void put_file(const char *folder, const char *name, const char *content)
{
    char path[300];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    if (!f)
        abort();
    fputs(content, f);
    fclose(f);
}

static int look(const char *folder, const char *name, struct cm_buf *found, struct cm_err *err)
{
    char path[300];

    snprintf(path, sizeof path, "%s%s%s", folder, *name ? "/" : "", name);
    cm_buf_clear(found);
    return cm_llama_model_file(path, found, err);
}

static void a_model_is_a_file_or_in_a_folder(void **state)
{
    char folder[] = "/tmp/llm_files_XXXXXX", command[100];
    cm_autobuf struct cm_buf found;
    struct cm_err err;

    (void)state;
    cm_buf_init(&found, 4096);
    assert_non_null(mkdtemp(folder));
    assert_true(look(folder, "", &found, &err) < 0);
    assert_non_null(strstr(err.text, "holds no GGUF file"));
    assert_true(look(folder, "none.gguf", &found, &err) < 0);
    put_file(folder, "b.gguf", "GGUF....");
    put_file(folder, "a.txt", "no");
    put_file(folder, "mmproj-a.gguf", "GGUF....");
    assert_int_equal(look(folder, "", &found, &err), 0);
    assert_non_null(strstr(cm_buf_data(&found), "/b.gguf"));
    put_file(folder, "a.GGUF", "GGUF....");
    assert_int_equal(look(folder, "", &found, &err), 0);
    assert_non_null(strstr(cm_buf_data(&found), "/a.GGUF"));
    assert_int_equal(look(folder, "b.gguf", &found, &err), 0);
    assert_true(look(folder, "a.txt", &found, &err) < 0);
    assert_non_null(strstr(err.text, "no GGUF file"));
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

static void estimates_count_characters(void **state)
{
    (void)state;
    assert_int_equal(cm_llm_estimate("", 0), 0);
    assert_int_equal(cm_llm_estimate("a", 1), 1);
    assert_int_equal(cm_llm_estimate("abcde", 5), 2);
    assert_int_equal(cm_llm_estimate("\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac", 12), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_of_openai),
        cmocka_unit_test(requests_of_anthropic),
        cmocka_unit_test(requests_go_to_their_place),
        cmocka_unit_test(models_that_cannot_be_asked),
        cmocka_unit_test(the_longest_name_counts),
        cmocka_unit_test(prices_add_up),
        cmocka_unit_test(rows_are_changed_by_later_ones),
        cmocka_unit_test(bad_tables_are_refused),
        cmocka_unit_test(a_model_is_a_file_or_in_a_folder),
        cmocka_unit_test(estimates_count_characters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
