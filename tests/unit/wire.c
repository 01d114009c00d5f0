/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "wire/execute.h"
#include "wire/json.h"
#include "wire/limits.h"

static int check(const char *text, size_t len)
{
    /* exactly as long as the text, so that a sanitizer sees a read behind it */
    char *copy = malloc(len ? len : 1);
    struct cm_json_value value;
    struct cm_err err;

    memcpy(copy, text, len);
    int rc = cm_json_check(copy, len, &value, &err);
    if (rc < 0)
        assert_int_equal(err.code, rc);
    free(copy);
    return rc;
}

static void accepts_json(void **state)
{
    static const char *const good[] = {
        "{}",
        "[]",
        " [ 1 , 2 ] ",
        "0",
        "-0.5e+10",
        "1E-2",
        "\"\"",
        "\"a\\u00e9\\n\\/\"",
        "true",
        "false",
        "null",
        "{\"a\":{\"b\":[{}]}}",
        "\"\xc3\xa9\xf0\x9f\x98\x80\"",
        "\"\\ud83d\\ude00\"",
        "\"exactly 8\"",
        "\"12345678\\\"\"",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_int_equal(check(good[i], strlen(good[i])), 0);
}

static void refuses_what_is_not_json(void **state)
{
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\"}",
        "{\"a\":}",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "NaN",
        "Infinity",
        "tru",
        "nulll",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"a\nb\"",
        "\"a\tb\"",
        "'a'",
        "[1 2]",
        "{} {}",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "\"\xed\xa0\x80\"",
        "\"\xf5\x80\x80\x80\"",
        "\"\xe2\x82",
        "[\"12345678",
        "[1,2",
        "{\"a\":1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(check(bad[i], strlen(bad[i])), CM_ERR_BAD_JSON);
    assert_int_equal(check("\"a\0b\"", 5), CM_ERR_BAD_JSON);
}

/* Every beginning of a good text is refused, and none is read beyond its end. */
static void refuses_every_cut(void **state)
{
    const char *text = "{\"a\": [1.5e3, \"\\u00e9xyz12345678\", true, null], \"b\": {\"c\": false}}";

    (void)state;
    for (size_t len = 0; len < strlen(text); len++)
        assert_int_equal(check(text, len), CM_ERR_BAD_JSON);
}

static void limits_depth(void **state)
{
    char text[2 * CM_JSON_DEPTH_MAX + 2];

    (void)state;
    memset(text, '[', CM_JSON_DEPTH_MAX);
    memset(text + CM_JSON_DEPTH_MAX, ']', CM_JSON_DEPTH_MAX);
    assert_int_equal(check(text, 2 * CM_JSON_DEPTH_MAX), 0);
    memset(text, '[', CM_JSON_DEPTH_MAX + 1);
    memset(text + CM_JSON_DEPTH_MAX + 1, ']', CM_JSON_DEPTH_MAX + 1);
    assert_int_equal(check(text, sizeof(text)), CM_ERR_BAD_JSON);
}

static int read_body(const char *text, struct cm_execute_body *ret, struct cm_err *err, char **ret_copy)
{
    static const struct cm_limits caps = {.at = {[CM_LIMIT_TIMEOUT] = 60,
                                                 [CM_LIMIT_CPU_TIME] = 30.5,
                                                 [CM_LIMIT_MEMORY] = 67108864,
                                                 [CM_LIMIT_OUTPUT] = 4096,
                                                 [CM_LIMIT_CODE_LENGTH] = 40,
                                                 [CM_LIMIT_TOOL_CALLS] = 5,
                                                 [CM_LIMIT_TOOL_TIMEOUT] = 60,
                                                 [CM_LIMIT_QUEUE] = 8}};
    *ret_copy = malloc(strlen(text) + 1);
    memcpy(*ret_copy, text, strlen(text));
    if (strstr(text, "\"code\"") || !strstr(text, "limits"))
        return cm_execute_read(*ret_copy, strlen(text), &caps, ret, err);
    return cm_create_read(*ret_copy, strlen(text), &caps, &ret->limits, err);
}

static void reads_an_execute_body(void **state)
{
    struct cm_execute_body b;
    struct cm_err err;
    char *copy;

    (void)state;
    assert_int_equal(
        read_body(" {\"context\": {\"n\": [5]}, \"other\": [], \"code\": \"a\\u00e9\\ud83d\\ude00\\n\\\"\\u0000\","
                  " \"timeout\": 2.5} ",
                  &b, &err, &copy),
        0);
    assert_int_equal(b.code_len, 10);
    assert_memory_equal(b.code, "a\xc3\xa9\xf0\x9f\x98\x80\n\"\0", 10);
    assert_int_equal(b.context_len, 10);
    assert_memory_equal(b.context, "{\"n\": [5]}", 10);
    assert_true(b.timeout_s == 2.5);
    free(copy);
    assert_int_equal(read_body("{\"code\":\"\",\"context\":null,\"timeout\":null}", &b, &err, &copy), 0);
    assert_null(b.context);
    assert_int_equal(b.code_len, 0);
    assert_true(b.timeout_s == 0 && !b.strict);
    free(copy);
    assert_int_equal(read_body("{\"policy\":\"strict\",\"code\":\"\"}", &b, &err, &copy), 0);
    assert_true(b.strict);
    free(copy);
    assert_int_equal(read_body("{\"policy\":\"isolate\",\"code\":\"\"}", &b, &err, &copy), 0);
    assert_true(!b.strict);
    free(copy);
}

static void names_the_bad_field(void **state)
{
    static const struct {
        const char *body;
        int code;
        const char *text;
    } cases[] = {
        {"{}", CM_ERR_BAD_FIELD, "code: field required"},
        {"[]", CM_ERR_BAD_FIELD, "body: must be a JSON object"},
        {"7", CM_ERR_BAD_FIELD, "body: must be a JSON object"},
        {"{\"code\":1}", CM_ERR_BAD_FIELD, "code: must be a string"},
        {"{\"code\":null}", CM_ERR_BAD_FIELD, "code: must be a string"},
        {"{\"code\":\"\\ud800\"}", CM_ERR_BAD_FIELD, "code: holds half of a surrogate pair"},
        {"{\"code\":\"\\ud800\\u0041\"}", CM_ERR_BAD_FIELD, "code: holds half of a surrogate pair"},
        {"{\"code\":\"x\",\"context\":[]}", CM_ERR_BAD_FIELD, "context: must be"},
        {"{\"code\":\"x\",\"timeout\":\"3\"}", CM_ERR_BAD_FIELD, "timeout: must be a number"},
        {"{\"code\":\"x\",\"timeout\":-1}", CM_ERR_BAD_FIELD, "timeout: must be a number"},
        {"{\"code\":\"x\",\"timeout\":1e999}", CM_ERR_BAD_FIELD, "timeout: must be a number"},
        {"{\"code\":\"x\",\"timeout\":true}", CM_ERR_BAD_FIELD, "timeout: must be a number"},
        {"{\"code\":\"x\",\"then\":\"y\"}", CM_ERR_BAD_FIELD, "then: must be an object"},
        {"{\"code\":\"x\",\"then\":{}}", CM_ERR_BAD_FIELD, "then.code: field required"},
        {"{\"code\":\"x\",\"then\":{\"code\":5}}", CM_ERR_BAD_FIELD, "then.code: must be a string"},
        {"{\"code\":\"x\",\"then\":{\"code\":\"y\",\"code\":\"z\"}}", CM_ERR_BAD_JSON, ""},
        {"{\"code\":\"x\",\"then\":{\"code\":\"y\",\"timeout\":-1}}", CM_ERR_BAD_FIELD,
         "then.timeout: must be a number"},
        {"{\"code\":\"x\",\"policy\":\"Strict\"}", CM_ERR_BAD_FIELD, "policy: must be"},
        {"{\"code\":\"x\",\"policy\":true}", CM_ERR_BAD_FIELD, "policy: must be"},
        {"{\"code\":\"x\",\"code\":\"y\"}", CM_ERR_BAD_JSON, "a member appears twice"},
        {"{\"code\":\"12345678901234567890123456789012345678901\"}", CM_ERR_TOO_LARGE, "MAX_CODE_LENGTH is 40"},
        {"{\"code\":\"x\"", CM_ERR_BAD_JSON, "byte 11"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cm_execute_body b;
        struct cm_err err = {0};
        char *copy;
        assert_int_equal(read_body(cases[i].body, &b, &err, &copy), cases[i].code);
        assert_non_null(strstr(err.text, cases[i].text));
        free(copy);
    }
}

static void reads_limits(void **state)
{
    struct cm_execute_body b;
    struct cm_err err;
    char *copy;

    (void)state;
    assert_int_equal(
        read_body("{\"limits\": {\"memory\": 67108864, \"cpu_time\":30.5,\"output\": null}, \"code\":\"\"}", &b, &err,
                  &copy),
        0); /* exactly the caps */
    assert_int_equal(b.limits.named, 1u << CM_LIMIT_MEMORY | 1u << CM_LIMIT_CPU_TIME);
    assert_true(b.limits.value.at[CM_LIMIT_MEMORY] == 67108864 && b.limits.value.at[CM_LIMIT_CPU_TIME] == 30.5);
    free(copy);
    assert_int_equal(read_body("{\"limits\":{\"timeout\":61,\"output\":1024}, \"code\":\"\"}", &b, &err, &copy), 0);
    assert_true(b.limits.value.at[CM_LIMIT_TIMEOUT] == 60); /* cut, as `timeout` is */
    free(copy);
    assert_int_equal(read_body("{\"limits\":{\"tool_timeout\":61,\"tool_calls\":0}, \"code\":\"\"}", &b, &err, &copy),
                     0);
    assert_true(b.limits.value.at[CM_LIMIT_TOOL_TIMEOUT] == 60 && b.limits.value.at[CM_LIMIT_TOOL_CALLS] == 0);
    free(copy);
    assert_int_equal(read_body("{\"limits\":{\"queue\":0,\"output\":4096}}", &b, &err, &copy), 0);
    assert_int_equal(b.limits.named, 1u << CM_LIMIT_QUEUE | 1u << CM_LIMIT_OUTPUT);
    free(copy);
    assert_int_equal(read_body("{\"limits\":null}", &b, &err, &copy), 0);
    assert_int_equal(b.limits.named, 0);
    free(copy);
    assert_int_equal(cm_create_read(NULL, 0, &(struct cm_limits){0}, &b.limits, &err), 0);
}

static void refuses_limits(void **state)
{
    static const struct {
        const char *body, *text;
    } cases[] = {
        {"{\"limits\":{\"memory\":67108865}}", "limits.memory: 67108865 is above the server's cap of 67108864 bytes; "
                                               "ask for less, or start the server with a "
                                               "higher MAX_MEMORY"},
        {"{\"limits\":{\"cpu_time\":30.6}}", "cap of 30.5 seconds"},
        {"{\"limits\":{\"tool_calls\":6}}", "limits.tool_calls: 6 is above the server's cap of 5; ask"},
        {"{\"limits\":{\"tool_argument\":1}}", "limits.tool_argument: 1 is less than the least that works, 2 bytes"},
        {"{\"limits\":{\"queue\":9}}", "limits.queue: 9 is above the server's cap of 8; ask"},
        {"{\"limits\":{\"output\":1023}}", "limits.output: 1023 is less than the least that works, 1024 bytes"},
        {"{\"limits\":{\"output\":-1}}", "limits.output: must be a whole number of bytes"},
        {"{\"limits\":{\"output\":2000.5}}", "limits.output: must be a whole number of bytes"},
        {"{\"limits\":{\"output\":\"2Ki\"}}", "limits.output: must be a whole number of bytes"},
        {"{\"limits\":{\"cpu_time\":1e999}}", "limits.cpu_time: must be a number of seconds"},
        {"{\"limits\":{\"timeout\":1e999}}", "limits.timeout: must be a number of seconds"},
        {"{\"limits\":{\"timeout\":0}}", "limits.timeout: 0 is less than"},
        {"{\"limits\":{\"memry\":1}}", "limits.memry: there is no such limit; did you mean \"memory\"?"},
        {"{\"limits\":{\"\":1}}", "limits.: there is no such limit; GET /session/{id}"},
        {"{\"limits\":{\"x\\\"y\\u0000\":1}}", "there is no such limit"},
        {"{\"limits\":{\"123456789012345678901234567890123456789\xc3\xa9x\":1}}", "6789: there is no such limit"},
        {"{\"limits\":{\"request_body\":2048}}", "limits.request_body: only the server's setting MAX_BODY sets it"},
        {"{\"limits\":{\"output\":1024,\"output\":1024}}", "limits.output: appears twice"},
        {"{\"limits\":[]}", "limits: must be an object or null"},
        {"{\"code\":\"\",\"limits\":7}", "limits: must be an object or null"},
        {"{\"code\":\"\",\"limits\":{\"queue\":1}}",
         "limits.queue: is a limit of the session; name it in POST /session"},
        {"{\"code\":\"\",\"timeout\":1,\"limits\":{\"timeout\":1}}", "limits.timeout: is the same as timeout"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cm_execute_body b = {.code_len = 77};
        struct cm_err err = {0};
        char *copy;
        assert_int_equal(read_body(cases[i].body, &b, &err, &copy), CM_ERR_BAD_FIELD);
        if (!strstr(err.text, cases[i].text))
            fail_msg("\"%s\" lacks \"%s\"", err.text, cases[i].text);
        assert_int_equal(b.code_len, 77);
        free(copy);
    }
}

static void writes_limits(void **state)
{
    struct cm_limits limits = {.at = {[CM_LIMIT_TIMEOUT] = 0.25, [CM_LIMIT_MEMORY] = 4294901760}};
    struct cm_buf buf;

    (void)state;
    cm_buf_init(&buf, 4096);
    assert_int_equal(cm_limits_write(&buf, &limits), 0);
    assert_string_equal(cm_buf_data(&buf),
                        "{\"timeout\":0.25,\"cpu_time\":0,\"memory\":4294901760,\"output\":0,\"result\":0,\"locals\":0,"
                        "\"recursion\":0,\"code_length\":0,\"files\":0,\"file_bytes\":0,\"tool_calls\":0,"
                        "\"tool_argument\":0,\"tool_result\":0,\"tool_timeout\":0,\"queue\":0}");
    cm_buf_done(&buf);
}

static void writes_what_it_reads(void **state)
{
    struct cm_json_value value;
    struct cm_buf buf;
    char text[256];
    size_t len;

    (void)state;
    for (int i = 0; i < 128; i++)
        text[i] = (char)i;
    memcpy(text + 128, "\xc3\xa9", 2);
    cm_buf_init(&buf, 4096);
    assert_int_equal(cm_json_put_string(&buf, text, 130), 0);
    assert_int_equal(cm_json_check(cm_buf_data(&buf), buf.len, &value, NULL), 0);
    assert_true(cm_json_decode(&value, &len));
    assert_int_equal(len, 130);
    assert_memory_equal(value.raw, text, 130);
    cm_buf_clear(&buf);
    assert_int_equal(cm_json_put_string(&buf, NULL, 0), 0);
    assert_string_equal(cm_buf_data(&buf), "null");
    cm_buf_done(&buf);
    cm_buf_init(&buf, 8);
    assert_int_equal(cm_json_put_string(&buf, "12345678", 8), CM_ERR_TOO_LARGE);
    cm_buf_done(&buf);
}

/* Each byte at each place beside others that look like it, byte by byte and eight at a time. */
static void writes_escapes_anywhere(void **state)
{
    char text[20], want[64], got[64];

    (void)state;
    for (int c = 0; c < 0x80; c++)
        for (size_t at = 0; at < sizeof text; at++) {
            struct cm_buf buf;
            memset(text, c % 2 ? 0x5d : 0x20, sizeof text);
            memcpy(text + (at + 2) % 18, "\xc2\xa2", 2); /* as a quote with another highest bit */
            text[at] = (char)c;
            int n = 0;
            for (size_t i = 0; i < sizeof text; i++)
                n += snprintf(want + n, sizeof want - (size_t)n,
                              text[i] == '"' || text[i] == '\\'          ? "\\%c"
                              : (unsigned char)text[i] >= 0x20           ? "%c"
                              : text[i] && strchr("\b\t\n\f\r", text[i]) ? "\\%c"
                                                                         : "\\u%04x",
                              text[i] && strchr("\b\t\n\f\r", text[i]) ? "btn?fr"[text[i] - 8] : text[i]);
            cm_buf_init(&buf, 256);
            assert_int_equal(cm_json_put_string(&buf, text, sizeof text), 0);
            snprintf(got, sizeof got, "%.*s", (int)buf.len - 2, cm_buf_data(&buf) + 1);
            assert_string_equal(got, want);
            cm_buf_done(&buf);
        }
}

static bool sum(void *arg, struct cm_json_value *value)
{
    *(double *)arg += cm_json_number(value);
    return cm_json_number(value) < 3;
}

static void walks_an_array(void **state)
{
    char text[] = " [1, 2 ,3,4]";
    struct cm_json_value value;
    double total = 0;

    (void)state;
    assert_int_equal(cm_json_check(text, strlen(text), &value, NULL), 0);
    cm_json_elements(&value, sum, &total);
    assert_true(total == 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_json),
        cmocka_unit_test(refuses_what_is_not_json),
        cmocka_unit_test(refuses_every_cut),
        cmocka_unit_test(limits_depth),
        cmocka_unit_test(reads_an_execute_body),
        cmocka_unit_test(names_the_bad_field),
        cmocka_unit_test(reads_limits),
        cmocka_unit_test(refuses_limits),
        cmocka_unit_test(writes_limits),
        cmocka_unit_test(writes_what_it_reads),
        cmocka_unit_test(writes_escapes_anywhere),
        cmocka_unit_test(walks_an_array),
    };

    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
