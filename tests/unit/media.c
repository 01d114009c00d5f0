/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire/media.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static char *text; /* in memory of its own length, so that a step beyond is seen */
static size_t text_len;

static void put(const char *from)
{
    free(text);
    text_len = strlen(from);
    text = malloc(text_len + 1);
    memmove(text + 1, from, text_len);
}

static int drop(void **state)
{
    (void)state;
    free(text);
    text = NULL;
    return 0;
}

static bool read_one(const char *from, struct cm_media *ret)
{
    put(from);
    return cm_media_read(text + 1, text_len, ret);
}

static void reads_types(void **state)
{
    static const struct {
        const char *text, *name;
        bool json, utf8;
    } good[] = {
        {"text/plain", "text/plain", false, true},
        {" \tTEXT/Plain\t ", "text/plain", false, true},
        {"text/plain;charset=UTF-8", "text/plain", false, true},
        {"text/plain \t; \tcharset=utf8 \t", "text/plain", false, true},
        {"text/plain; Charset=\"utf-8\"", "text/plain", false, true},
        {"text/plain; charset=\"u\\tf-\\8\"", "text/plain", false, true},
        {"text/plain; charset=US-ASCII", "text/plain", false, true},
        {"text/plain; charset=latin-1", "text/plain", false, false},
        {"text/plain; charset=\"\"", "text/plain", false, false},
        {"text/plain; charset=utf-8x", "text/plain", false, false},
        {"text/plain; charset=utf-", "text/plain", false, false},
        {"text/plain; charset=\"utf-8\\\"\"", "text/plain", false, false},
        {"text/plain; charset=utf\\-8", "text/plain", false, false},
        {"application/json; profile=https://a.example/b?c=d", "application/json", true, true},
        {"text/plain; charset=utf-8; charset=latin-1", "text/plain", false, false},
        {"text/plain; x-charset=latin-1; note=\"; charset=latin-1\"", "text/plain", false, true},
        {"text/plain;;; ;charset=latin-1;", "text/plain", false, false},
        {"text/plain;", "text/plain", false, true},
        {"application/json", "application/json", true, true},
        {"Application/Problem+JSON; x=\"\\\"\"", "application/problem+json", true, true},
        {"application/jsonp", "application/jsonp", false, true},
        {"application/json+x", "application/json+x", false, true},
        {"text/json", "text/json", false, true},
        {"*/*", "*/*", false, true},
        {"text/plain; a=\"\xc3\xa9\t\"", "text/plain", false, true},
    };
    static const char *const bad[] = {
        "",
        " ",
        "text",
        "text/",
        "/plain",
        "text/plain,",
        "text/plain, text/html",
        "text/plain text",
        "text /plain",
        "text/ plain",
        "text/plain; charset",
        "text/plain; charset=",
        "text/plain; charset =utf-8",
        "text/plain; charset= utf-8",
        "text/plain; =utf-8",
        "text/plain; a=\"",
        "text/plain; a=\"\\",
        "text/plain; a=\"b\\\"",
        "text/plain; a=\"b\"c",
        "text/plain; a=\"\x01\"",
        "text/plain; a=\"\\\x7f\"",
        "text/pl\xc3\xa9in",
        "text/plain\r\n",
        "text/(plain)",
        "text/plain; a=b\"c\"",
        "text/plain; a=b c",
        "text//plain",
    };
    struct cm_media media;

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        if (!read_one(good[i].text, &media))
            fail_msg("refused: %s", good[i].text);
        assert_int_equal(media.len, strlen(good[i].name));
        assert_true(cm_media_is(&media, good[i].name));
        assert_false(cm_media_is(&media, "text/plai"));
        if (cm_media_is_json(&media) != good[i].json || cm_media_is_utf8(&media) != good[i].utf8)
            fail_msg("%s", good[i].text);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        if (read_one(bad[i], &media))
            fail_msg("accepted: %s", bad[i]);
}

static void finds_a_type_in_a_list(void **state)
{
    static const struct {
        const char *list;
        bool named;
    } list[] = {
        {"text/event-stream", true},
        {"application/json;q=0.5, Text/Event-Stream", true},
        {"application/json,text/event-stream ;Q=0.001", true},
        {", ,\ttext/event-stream,", true},
        {"text/event-stream;charset=utf-8;q=1.000", true},
        {"text/event-stream;q=\"0.1\"", true},
        {"a/b;c=\",\", text/event-stream", true},
        {"(broken), text/event-stream", true},
        {"text/event-stream;q=0, text/event-stream", true},
        {"", false},
        {",", false},
        {"*/*", false},
        {"text/*", false},
        {"text/event-stream;q=0", false},
        {"text/event-stream; q=0.000", false},
        {"text/event-stream;charset=utf-8;q=0.", false},
        {"text/event-stream;q=", false},
        {"text/event-stream-x", false},
        {"application/json;a=\", text/event-stream, \"", false},
        {"application/json text/event-stream", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(list); i++) {
        put(list[i].list);
        if (cm_media_list_names(text + 1, text_len, "text/event-stream") != list[i].named)
            fail_msg("%s", list[i].list);
    }
}

static void measures_tokens(void **state)
{
    (void)state;
    assert_int_equal(cm_token_len("", 0), 0);
    assert_int_equal(cm_token_len("X-Any!#$%&'*+-.^_`|~9 x", 23), 21);
    for (const char *c = "\"(),/:;<=>?@[\\]{} \t\x7f\xc3"; *c; c++)
        assert_int_equal(cm_token_len(c, 1), 0);
    assert_int_equal(cm_token_len("a\0b", 3), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(reads_types, drop),
        cmocka_unit_test_teardown(finds_a_type_in_a_list, drop),
        cmocka_unit_test(measures_tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
