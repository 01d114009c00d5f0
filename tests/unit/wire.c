/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "wire/execute.h"
#include "wire/json.h"

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
    *ret_copy = malloc(strlen(text) + 1);
    memcpy(*ret_copy, text, strlen(text));
    return cm_execute_read(*ret_copy, strlen(text), 40, ret, err);
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
    assert_true(b.timeout_s == 0);
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
        cmocka_unit_test(accepts_json),          cmocka_unit_test(refuses_what_is_not_json),
        cmocka_unit_test(refuses_every_cut),     cmocka_unit_test(limits_depth),
        cmocka_unit_test(reads_an_execute_body), cmocka_unit_test(names_the_bad_field),
        cmocka_unit_test(writes_what_it_reads),  cmocka_unit_test(walks_an_array),
    };

    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
