/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "wire/sse.h"

/* What was seen, as "name=data;" per event. */
struct seen {
    struct cm_buf text;
    int answer;
    unsigned events;
};

static int see(void *arg, const char *event, char *data, size_t len)
{
    struct seen *seen = arg;

    assert_int_equal(data[len], '\0');
    assert_int_equal(cm_buf_printf(&seen->text, "%s=%.*s;", event, (int)len, data), 0);
    memset(data, 'x', len); /* allowed */
    seen->events++;
    return seen->answer;
}

/* Feeds the text in pieces of `piece` bytes, each in memory of its own size. */
static int feed(struct cm_sse *s, const char *text, size_t len, size_t piece, struct seen *seen)
{
    for (size_t at = 0; at < len; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        char *copy = malloc(n);
        memcpy(copy, text + at, n);
        int rc = cm_sse_feed(s, copy, n, see, seen);
        free(copy);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void expect_len(const char *text, size_t len, const char *expected)
{
    for (size_t piece = 1; piece <= len; piece++) {
        struct cm_sse s;
        struct seen seen = {0};
        cm_buf_init(&seen.text, 4096);
        cm_sse_init(&s, 100);
        assert_int_equal(feed(&s, text, len, piece, &seen), 0);
        assert_string_equal(cm_buf_data(&seen.text), expected);
        cm_sse_done(&s);
        cm_buf_done(&seen.text);
    }
}

static void expect(const char *text, const char *expected)
{
    expect_len(text, strlen(text), expected);
}

static void reads_events(void **state)
{
    (void)state;
    expect("data: one\n\n", "message=one;");
    expect("event: start\ndata: {}\n\nevent: end\ndata: 2\n\n", "start={};end=2;");
    expect("data: 1\n\nevent: x\n\ndata: 2\n\n", "message=1;message=2;"); /* a name without data is forgotten */
    expect("data:1\ndata:  2\ndata\n\n", "message=1\n 2\n;");
    expect("data\n\n", "message=;");
    expect("data:\n\n", "message=;");
    expect(": ping\n\n:\ndata: a: b\nretry: 5\nother: 1\nDATA: 2\ndatax: 3\n\n", "message=a: b;");
    expect("event: a\nevent: b\ndata: 1\n\n", "b=1;");
}

static void reads_every_kind_of_line_break(void **state)
{
    (void)state;
    expect("data: 1\r\n\r\ndata: 2\r\rdata: 3\n\ndata: 4\r\n\ndata: 5\n\r\n",
           "message=1;message=2;message=3;message=4;message=5;");
    expect("data: 1\rdata: 2\r\ndata: 3\n\n", "message=1\n2\n3;");
    expect("\n\r\n\r\rdata: 1\n\n", "message=1;");
}

static void reads_a_mark_of_byte_order_once(void **state)
{
    (void)state;
    expect("\xef\xbb\xbf"
           "data: 1\n\n\xef\xbb\xbf"
           "data: 2\n\n",
           "message=1;");
    expect("\xef\xbb\xbf\n\ndata: 1\n\n", "message=1;");
    expect("\xef\xbb"
           "data: 1\n\n",
           "");
}

static void keeps_what_is_not_ended(void **state)
{
    (void)state;
    expect("data: 1", "");
    expect("data: 1\n", "");
    expect("data: 1\n\ndata: 2\n", "message=1;");
}

static void keeps_ids(void **state)
{
    struct cm_sse s;
    struct seen seen = {0};
    static const char text[] = "id: 7\ndata: 1\n\nid: 8\0009\ndata: 2\n\n";

    (void)state;
    cm_buf_init(&seen.text, 4096);
    cm_sse_init(&s, 100);
    assert_int_equal(feed(&s, text, sizeof text - 1, 5, &seen), 0);
    assert_int_equal(seen.events, 2);
    assert_string_equal(s.id, "7"); /* one with a NUL is none */
    assert_int_equal(feed(&s, "id\n", 3, 5, &seen), 0);
    assert_string_equal(s.id, "");
    cm_sse_done(&s);
    cm_buf_done(&seen.text);
}

static void cuts_long_names(void **state)
{
    char text[256], expected[128];

    (void)state;
    snprintf(text, sizeof text, "event: %0100d\ndata: 1\n\n", 0);
    snprintf(expected, sizeof expected, "%063d=1;", 0);
    expect(text, expected);
}

static int feed_data(size_t max, size_t line, unsigned lines, size_t piece)
{
    struct cm_sse s;
    struct seen seen = {0};
    struct cm_buf text;

    cm_buf_init(&seen.text, 4096);
    cm_buf_init(&text, 4096);
    cm_sse_init(&s, max);
    for (unsigned i = 0; i < lines; i++)
        assert_int_equal(cm_buf_printf(&text, "data: %0*d\n", (int)line, 0), 0);
    assert_int_equal(cm_buf_puts(&text, "\n"), 0);
    int rc = feed(&s, cm_buf_data(&text), text.len, piece, &seen);
    assert_int_equal(seen.events, rc == 0);
    cm_sse_done(&s);
    cm_buf_done(&text);
    cm_buf_done(&seen.text);
    return rc;
}

static void bounds_data(void **state)
{
    (void)state;
    for (size_t piece = 1; piece < 30; piece++) {
        assert_int_equal(feed_data(50, 50, 1, piece), 0);
        assert_int_equal(feed_data(50, 51, 1, piece), CM_ERR_TOO_LARGE);
        assert_int_equal(feed_data(50, 16, 3, piece), 0); /* 16 + 1 + 16 + 1 + 16 */
        assert_int_equal(feed_data(49, 16, 3, piece), CM_ERR_TOO_LARGE);
    }
    assert_int_equal(feed_data(50, 1000, 1, 100), CM_ERR_TOO_LARGE); /* before the line has ended */
}

static void bounds_lines_of_no_use(void **state)
{
    struct cm_sse s;
    struct seen seen = {0};
    int rc = 0;

    (void)state;
    cm_sse_init(&s, 50);
    for (unsigned i = 0; i < 1000 && rc == 0; i++)
        rc = feed(&s, ":x", 2, 1, &seen);
    assert_int_equal(rc, CM_ERR_TOO_LARGE);
    cm_sse_done(&s);

    char whole[1001];
    memset(whole, ':', 1000);
    whole[1000] = '\n';
    cm_sse_init(&s, 50);
    assert_int_equal(feed(&s, whole, sizeof whole, sizeof whole, &seen), CM_ERR_TOO_LARGE);
    cm_sse_done(&s);
}

static void stops_when_it_is_told(void **state)
{
    struct cm_sse s;
    struct seen seen = {.answer = CM_ERR_CANCELLED};

    (void)state;
    cm_buf_init(&seen.text, 4096);
    cm_sse_init(&s, 50);
    assert_int_equal(feed(&s, "data: 1\n\ndata: 2\n\n", 18, 18, &seen), CM_ERR_CANCELLED);
    assert_string_equal(cm_buf_data(&seen.text), "message=1;");
    cm_sse_done(&s);
    cm_buf_done(&seen.text);
}

static void writes_what_it_reads(void **state)
{
    struct cm_buf text;

    (void)state;
    cm_buf_init(&text, 200);
    assert_int_equal(cm_sse_put(&text, "start", "1", "{\"a\": 1}", 8), 0);
    assert_string_equal(cm_buf_data(&text), "event: start\nid: 1\ndata: {\"a\": 1}\n\n");
    assert_int_equal(cm_sse_put(&text, NULL, NULL, "", 0), 0);
    assert_int_equal(cm_sse_put(&text, "end", NULL, "2", 1), 0);
    expect_len(cm_buf_data(&text), text.len, "start={\"a\": 1};message=;end=2;");
    cm_buf_done(&text);
}

static void writes_all_or_nothing(void **state)
{
    static const char whole[] = "event: e\nid: i\ndata: d\n\n";

    (void)state;
    for (size_t max = 0; max <= sizeof whole; max++) {
        struct cm_buf text;
        cm_buf_init(&text, max);
        int rc = cm_sse_put(&text, "e", "i", "d", 1);
        assert_int_equal(rc, max < sizeof whole - 1 ? CM_ERR_TOO_LARGE : 0);
        assert_string_equal(cm_buf_data(&text), rc < 0 ? "" : whole);
        cm_buf_done(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_events),
        cmocka_unit_test(reads_every_kind_of_line_break),
        cmocka_unit_test(reads_a_mark_of_byte_order_once),
        cmocka_unit_test(keeps_what_is_not_ended),
        cmocka_unit_test(keeps_ids),
        cmocka_unit_test(cuts_long_names),
        cmocka_unit_test(bounds_data),
        cmocka_unit_test(bounds_lines_of_no_use),
        cmocka_unit_test(stops_when_it_is_told),
        cmocka_unit_test(writes_what_it_reads),
        cmocka_unit_test(writes_all_or_nothing),
    };

    return cmocka_run_group_tests_name("sse", tests, NULL, NULL);
}
