/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/correlation.h"
#include "base/err.h"
#include "base/names.h"
#include "base/random.h"
#include "base/url.h"
#include "base/utf8.h"

static void err_table_and_words(void **state)
{
    struct cm_err err = {0};
    (void)state;

    assert_int_equal(cm_err_info(CM_ERR_NO_SESSION)->http, 404);
    assert_string_equal(cm_err_info(-5)->short_name, "system_error");
    static const int all[] = {
#define CM_ERROR(name, number, http, grpc, short_name, retry, remediation) number,
#include "errors.def"
#undef CM_ERROR
    };
    for (size_t i = 0; i < CM_COUNT_OF(all); i++) { /* whoever is sent away for now learns for how long */
        int http = cm_err_info(all[i])->http;
        assert_int_equal(cm_err_info(all[i])->retry > 0, http == 429 || http == 503);
    }
    assert_int_equal(cm_err_sys(&err, ENOENT, "open %s", "x"), CM_ERR_SYSTEM);
    assert_string_equal(err.text, "open x: No such file or directory");
    assert_int_equal(cm_err_wrap(&err, "worker %d", 7), CM_ERR_SYSTEM);
    assert_string_equal(err.text, "worker 7: open x: No such file or directory");
    assert_int_equal(cm_err_sys(&err, ENOMEM, "map"), CM_ERR_NO_MEMORY);
    assert_int_equal(cm_err_set(NULL, CM_ERR_CONFIG, "nobody listens"), CM_ERR_CONFIG);
}

static void err_wrap_cuts_what_does_not_fit(void **state)
{
    struct cm_err err = {0};
    char big[CM_ERR_TEXT_MAX * 2];
    (void)state;

    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    cm_err_set(&err, CM_ERR_SYSTEM, "%s", big);
    for (int i = 0; i < 5; i++)
        cm_err_wrap(&err, "%s", big);
    assert_int_equal(strlen(err.text), CM_ERR_TEXT_MAX - 1);
}

static void buf_keeps_its_maximum(void **state)
{
    struct cm_buf b;
    (void)state;

    cm_buf_init(&b, 1000);
    assert_string_equal(cm_buf_data(&b), "");
    for (int i = 0; i < 100; i++)
        assert_int_equal(cm_buf_append(&b, "0123456789", 10), 0);
    assert_int_equal(cm_buf_append(&b, "x", 1), CM_ERR_TOO_LARGE);
    assert_int_equal(cm_buf_printf(&b, "%d", 5), CM_ERR_TOO_LARGE);
    assert_int_equal(b.len, 1000);
    cm_buf_consume(&b, 995);
    assert_string_equal(cm_buf_data(&b), "56789");
    assert_int_equal(cm_buf_printf(&b, "-%s", "abc"), 0);
    assert_string_equal(cm_buf_data(&b), "56789-abc");
    size_t len;
    cm_autofree char *taken = cm_buf_steal(&b, &len);
    assert_string_equal(taken, "56789-abc");
    assert_int_equal(len, 9);
    assert_int_equal(b.len, 0);
    cm_buf_done(&b);
}

static void buf_reserve_and_commit(void **state)
{
    struct cm_buf b;
    char *room;
    (void)state;

    cm_buf_init(&b, 64);
    assert_int_equal(cm_buf_reserve(&b, 65, &room), CM_ERR_TOO_LARGE);
    assert_int_equal(cm_buf_reserve(&b, 64, &room), 0);
    memset(room, 'a', 64);
    cm_buf_commit(&b, 64);
    assert_int_equal(strlen(cm_buf_data(&b)), 64);
    cm_buf_clear(&b);
    assert_string_equal(cm_buf_data(&b), "");
    cm_buf_done(&b);
}

static void utf8_replaces_bad_bytes(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
        {"\xf0\x9f\x90\x8d", "\xf0\x9f\x90\x8d"},
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"cut \xe2\x82", "cut \xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    (void)state;

    for (size_t i = 0; i < CM_COUNT_OF(cases); i++) {
        struct cm_buf b;
        cm_buf_init(&b, 100);
        assert_int_equal(cm_utf8_append(&b, cases[i].in, strlen(cases[i].in)), 0);
        assert_string_equal(cm_buf_data(&b), cases[i].out);
        assert_int_equal(cm_utf8_valid(cases[i].in, strlen(cases[i].in)), strcmp(cases[i].in, cases[i].out) == 0);
        cm_buf_done(&b);
    }
}

static void names_of_variables(void **state)
{
    static const char *const good[] = {"_",        "a",     "Z9_",  "na\xc3\xafve", "\xe6\x95\xb0",
                                       "__init__", "match", "none", "iff",          "i"};
    static const char *const bad[] = {"",  "1", "9a", "a b",  "a-b",   "a.b",          "a\n", " a",   "a\x7f", "@",
                                      "[", "`", "{",  "\xc3", "a\xff", "\xed\xa0\x80", "if",  "None", "yield"};
    (void)state;

    for (size_t i = 0; i < CM_COUNT_OF(good); i++)
        if (!cm_name_is_variable(good[i], strlen(good[i])))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < CM_COUNT_OF(bad); i++)
        if (cm_name_is_variable(bad[i], strlen(bad[i])))
            fail_msg("taken: %s", bad[i]);
    assert_false(cm_name_is_variable("a\0b", 3));
    assert_true(cm_name_is_variable("if", 1));
    for (int c = 0; c < 128; c++)
        assert_int_equal(cm_name_has((char)c),
                         strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz0123456789", c) && c);
}

static void utf8_counts_characters(void **state)
{
    static const char *const characters[] = {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\x7f"};
    char text[200];
    size_t starts[60], len = 0;

    (void)state;
    for (size_t i = 0; i < 60; i++) {
        starts[i] = len;
        len += (size_t)sprintf(text + len, "%s", characters[(i * i + i / 7) % 5]);
    }
    for (size_t from = 0; from < 12; from++) {
        size_t begin = starts[from];
        for (size_t n = from; n < 60; n++) {
            assert_int_equal(cm_utf8_count(text + begin, starts[n] - begin), n - from);
            assert_int_equal(cm_utf8_offset(text + begin, len - begin, n - from), starts[n] - begin);
        }
        assert_int_equal(cm_utf8_offset(text + begin, len - begin, 60 - from), len - begin);
        assert_int_equal(cm_utf8_offset(text + begin, len - begin, UINT64_MAX), len - begin);
    }
}

static void utf8_finds_cut_characters(void **state)
{
    (void)state;
    assert_int_equal(cm_utf8_cut_end("ab\xe2\x82", 4), 2);
    assert_int_equal(cm_utf8_cut_end("ab\xe2\x82\xac", 5), 0);
    assert_int_equal(cm_utf8_cut_end("\xf0", 1), 1);
    assert_int_equal(cm_utf8_cut_end("", 0), 0);
    assert_int_equal(cm_utf8_cut_start("\x82\xac"
                                       "x",
                                       3),
                     2);
    assert_int_equal(cm_utf8_cut_start("x", 1), 0);
}

static void urls_are_shown_without_secrets(void **state)
{
    static const char *const rows[][2] = {
        {"http://localhost:11434/v1", "http://localhost:11434/v1"},
        {"https://me:SECRET@gateway.example:8443/v1/", "https://gateway.example:8443/v1/"},
        {"https://me:SE@CRET@[::1]:8443/a@b", "https://[::1]:8443/a@b"},
        {"https://x.example/openai?api-version=1&key=SECRET", "https://x.example/openai"},
        {"https://x.example?key=me@SECRET", "https://x.example"},
        {"https://x.example/#SECRET", "https://x.example/"},
        {"SECRET@host/path", "host/path"},
        {"", ""},
    };
    char shown[CM_URL_SHOWN_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cm_url_show(rows[i][0], shown);
        assert_string_equal(shown, rows[i][1]);
    }
}

static void parts_of_paths_are_decoded(void **state)
{
    static const struct {
        const char *text, *wants;
        size_t len;
    } rows[] = {
        {"", "", 0},
        {"abc", "abc", 3},
        {"rlm%2Fa%2fb", "rlm/a/b", 7},
        {"%c3%A9", "\xc3\xa9", 2},
        {"a%00b", "a\0b", 3},
        {"%", "%", 1},
        {"%4", "%4", 2},
        {"%4g%g4", "%4g%g4", 6},
        {"%%41", "%A", 2},
        {"12345678", "12345678", 8},
        {"%31%32345678", "12345678", 8},
    };
    char found[8];
    size_t len;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_true(cm_url_decode(rows[i].text, strlen(rows[i].text), found, sizeof found, &len));
        assert_int_equal(len, rows[i].len);
        assert_memory_equal(found, rows[i].wants, len);
    }
    assert_false(cm_url_decode("123456789", 9, found, sizeof found, &len));
    assert_false(cm_url_decode("12345678%39", 11, found, sizeof found, &len));
}

static void correlation_ids(void **state)
{
    static const char *const good[] = {"a", "!#$%&()*+,-./:;<=>?@[]^_`{|}~"};
    static const char *const bad[] = {"", "a b", "a\tb", "a\"", "it's", "\xc3\xa9", "a\x7f"};
    struct cm_correlations ids;
    char id[CM_CORRELATION_MAX + 1], first[sizeof id], longest[CM_CORRELATION_MAX + 2];
    (void)state;

    assert_int_equal(cm_correlations_init(&ids, NULL), 0);
    assert_false(cm_correlation_take(&ids, NULL, 0, first));
    for (size_t i = 0; i < CM_COUNT_OF(good); i++) {
        assert_true(cm_correlation_take(&ids, good[i], strlen(good[i]), id));
        assert_string_equal(id, good[i]);
    }
    for (size_t i = 0; i < CM_COUNT_OF(bad); i++) {
        assert_false(cm_correlation_take(&ids, bad[i], strlen(bad[i]), id));
        assert_string_not_equal(id, first);
        assert_memory_equal(id, first, 17); /* the seed and "-" */
    }
    memset(longest, 'x', sizeof longest);
    assert_true(cm_correlation_take(&ids, longest, CM_CORRELATION_MAX, id));
    assert_int_equal(strlen(id), CM_CORRELATION_MAX);
    assert_false(cm_correlation_take(&ids, longest, CM_CORRELATION_MAX + 1, id));
    assert_false(cm_correlation_take(&ids, "a\0b", 3, id));
}

static void clock_and_random(void **state)
{
    char ts[CM_CLOCK_ISO8601_MAX], a[33], b[33];
    (void)state;

    uint64_t first = cm_clock_ns();
    assert_true(cm_clock_ns() >= first);
    cm_clock_iso8601(ts);
    assert_int_equal(strlen(ts), 27);
    assert_int_equal(ts[26], 'Z');
    assert_int_equal(cm_random_hex(a, 32, NULL), 0);
    assert_int_equal(cm_random_hex(b, 32, NULL), 0);
    assert_int_equal(strspn(a, "0123456789abcdef"), 32);
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_table_and_words),        cmocka_unit_test(err_wrap_cuts_what_does_not_fit),
        cmocka_unit_test(buf_keeps_its_maximum),      cmocka_unit_test(buf_reserve_and_commit),
        cmocka_unit_test(utf8_replaces_bad_bytes),    cmocka_unit_test(utf8_finds_cut_characters),
        cmocka_unit_test(names_of_variables),         cmocka_unit_test(utf8_counts_characters),
        cmocka_unit_test(parts_of_paths_are_decoded), cmocka_unit_test(correlation_ids),
        cmocka_unit_test(clock_and_random),           cmocka_unit_test(urls_are_shown_without_secrets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
