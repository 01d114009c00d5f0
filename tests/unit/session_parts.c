/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the session room that need no process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "session/keep.h"
#include "session/locals.h"

enum state {
#define CM_SESSION_STATE(name, text) S_##name,
#include "session-states.def"
#undef CM_SESSION_STATE
    S_COUNT
};

enum event {
#define CM_SESSION_EVENT(name) E_##name,
#include "session-states.def"
#undef CM_SESSION_EVENT
    E_COUNT
};

/* What the manager relies on: it may end and queue whenever a session lives, a worker may die whenever there is one,
 * and each pair has one meaning. */
static void state_table_is_whole(void **state)
{
    unsigned rows[S_COUNT][E_COUNT] = {0};
    (void)state;

#define CM_TRANSITION(state, event, action, next)                                                                      \
    rows[S_##state][E_##event]++;                                                                                      \
    assert_true(E_##event != E_END || S_##next == S_ENDED);
#include "session-states.def"
#undef CM_TRANSITION
    for (int s = 0; s < S_COUNT; s++) {
        bool lives = s != S_ENDED, runs = s == S_RUNNING || s == S_INTERRUPTING;
        for (int e = 0; e < E_COUNT; e++)
            assert_in_range(rows[s][e], 0, lives);
        assert_int_equal(rows[s][E_END], lives);
        assert_int_equal(rows[s][E_QUEUED], lives);
        assert_int_equal(rows[s][E_TIMER], lives);
        assert_int_equal(rows[s][E_DEATH], lives && s != S_STARTING);
        assert_int_equal(rows[s][E_OUTPUT], runs);
        assert_int_equal(rows[s][E_RESULT], runs);
        assert_int_equal(rows[s][E_ABANDON], runs);
    }
}

static void keep_head_and_tail(void **state)
{
    (void)state;
    for (size_t piece = 1; piece < 40; piece++) {
        struct cm_keep k;
        struct cm_buf space = {0};
        bool truncated;
        size_t len;

        cm_keep_init(&k, 20);
        char text[101];
        for (int i = 0; i < 100; i++)
            text[i] = (char)('a' + i % 26);
        for (size_t at = 0; at < 100; at += piece)
            cm_keep_add(&k, text + at, piece < 100 - at ? piece : 100 - at);
        const char *kept = cm_keep_text(&k, &space, &len, &truncated);
        assert_true(truncated);
        assert_string_equal(kept, "abcdefghij\n... 80 bytes dropped ...\nmnopqrstuv");
        cm_keep_done(&k);
        cm_buf_done(&space);
    }
}

static void keep_splits_no_character(void **state)
{
    struct cm_keep k;
    struct cm_buf space = {0};
    bool truncated;
    size_t len;
    (void)state;

    cm_keep_init(&k, 8); /* four bytes on each side, three to a character */
    for (int i = 0; i < 10; i++)
        cm_keep_add(&k, "\xe2\x82\xac", 3);
    const char *kept = cm_keep_text(&k, &space, &len, &truncated);
    assert_string_equal(kept, "\xe2\x82\xac\n... 24 bytes dropped ...\n\xe2\x82\xac");
    cm_keep_done(&k);
    cm_buf_done(&space);
}

static void locals_are_one_json_object(void **state)
{
    static const char *const good[] = {
        "{}",
        " { } ",
        "{\"a\":1}",
        "{\"a\":[],\"b\":{},\"c\":[{\"d\":null}]}",
        "{\"n\":-0.5e+10,\"t\":true,\"f\":false}",
        "{\"big\":123456789012345678901234567890123456789012345678901234567890}",
        "{\"s\":\"\\u0000\\ud800\\\"\\n\"}",
        "{\"a\":1,\"a\":2}",
        "{\"\xc3\xa4\":\"\xf0\x9f\x90\x8d\"}",
    };
    static const char *const bad[] = {
        "",
        "[]",
        "1",
        "{",
        "}",
        "{}{}",
        "{} x",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":-}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":[1}",
        "{\"a\":{]}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12\"}",
        "{\"a\":\"",
        "{\"a\":tru}",
        "{\"\xff\":1}",
        "{\"a\":[1,]}",
    };
    (void)state;

    for (size_t i = 0; i < CM_COUNT_OF(good); i++)
        if (!cm_locals_valid(good[i], strlen(good[i])))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < CM_COUNT_OF(bad); i++)
        if (cm_locals_valid(bad[i], strlen(bad[i])))
            fail_msg("accepted: %s", bad[i]);
    assert_false(cm_locals_valid("{\"a\":\0}", 8));
    assert_false(cm_locals_valid(NULL, 0));
}

static void locals_depth_is_bounded(void **state)
{
    char text[3 * CM_LOCALS_DEPTH_MAX];
    (void)state;

    for (int depth = CM_LOCALS_DEPTH_MAX - 2; depth <= CM_LOCALS_DEPTH_MAX + 2; depth++) {
        int n = sprintf(text, "{\"a\":");
        memset(text + n, '[', (size_t)depth - 1);
        memset(text + n + depth - 1, ']', (size_t)depth - 1);
        n += 2 * (depth - 1);
        text[n++] = '}';
        assert_int_equal(cm_locals_valid(text, (size_t)n), depth <= CM_LOCALS_DEPTH_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_table_is_whole),     cmocka_unit_test(keep_head_and_tail),
        cmocka_unit_test(keep_splits_no_character), cmocka_unit_test(locals_are_one_json_object),
        cmocka_unit_test(locals_depth_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
