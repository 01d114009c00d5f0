/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the session room that need no process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "session/keep.h"
#include "session/locals.h"
#include "session/outputs.h"
#include "session/pressure.h"

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
        bool between = s == S_STARTING || s == S_RESTORING, working = runs || s == S_KILLING;
        assert_int_equal(rows[s][E_DEATH], lives && !between);
        assert_int_equal(rows[s][E_WORKER], between);
        assert_int_equal(rows[s][E_FAILED], between);
        assert_int_equal(rows[s][E_OUTPUT], working);
        assert_int_equal(rows[s][E_RESULT], working);
        assert_int_equal(rows[s][E_ABANDON], working || s == S_RESTORING); /* there may be an execution */
        assert_int_equal(rows[s][E_STOP], working || s == S_RESTORING);
        assert_int_equal(rows[s][E_UNDO], s == S_IDLE);
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

/* What a stream's stored bytes are, each one the letter of its place. */
static void check_stored(const struct cm_stored *s, int stream, uint64_t offset, uint64_t length, size_t expected)
{
    struct cm_buf buf;

    cm_buf_init(&buf, 1 << 20);
    assert_int_equal(cm_stored_read(s, stream, offset, length, &buf), 0);
    assert_int_equal(buf.len, expected);
    for (size_t i = 0; i < buf.len; i++)
        assert_int_equal(cm_buf_data(&buf)[i], (char)('a' + (offset + i) % 26));
    cm_buf_done(&buf);
}

static void print_stored(struct cm_stored *s, int stream, size_t len, size_t piece)
{
    char *text = malloc(len + 1);

    for (size_t i = 0; i < len; i++)
        text[i] = (char)('a' + i % 26);
    for (size_t at = 0; at < len; at += piece)
        cm_stored_add(s, stream, text + at, piece < len - at ? piece : len - at);
    free(text);
}

static void outputs_are_stored(void **state)
{
    struct cm_outputs o;
    struct cm_shelf shelf;
    struct cm_stored *s = NULL;
    (void)state;

    cm_outputs_init(&o, 200000, 1000000);
    cm_shelf_init(&shelf, &o);
    assert_null(cm_shelf_find(&shelf, "exec-1"));
    assert_non_null(cm_stored_new(&shelf, "exec-1", &s));
    print_stored(s, 1, 50000, 777);
    print_stored(s, 2, 10, 3);
    check_stored(s, 1, 0, UINT64_MAX, 50000);
    check_stored(s, 1, 16351, 3, 3); /* over the seam of two chunks */
    check_stored(s, 1, 49999, 5, 1);
    check_stored(s, 1, 50000, 5, 0);
    check_stored(s, 1, UINT64_MAX, UINT64_MAX, 0);
    check_stored(s, 2, 4, 100, 6);
    assert_ptr_equal(cm_shelf_find(&shelf, "exec-1"), s);
    cm_shelf_done(&shelf);
    assert_null(s); /* its owner knows */
    assert_int_equal(o.total, 0);
    assert_null(o.shelves);
}

static void a_shelf_drops_its_oldest(void **state)
{
    struct cm_outputs o;
    struct cm_shelf shelf;
    struct cm_stored *a = NULL, *b = NULL, *c = NULL;
    (void)state;

    cm_outputs_init(&o, 100000, 1000000);
    cm_shelf_init(&shelf, &o);
    print_stored(cm_stored_new(&shelf, "a", &a), 1, 40000, 9999);
    cm_stored_finish(a);
    assert_null(a);
    print_stored(cm_stored_new(&shelf, "b", &b), 1, 40000, 9999);
    cm_stored_finish(b);
    print_stored(cm_stored_new(&shelf, "c", &c), 1, 30000, 9999);
    assert_null(cm_shelf_find(&shelf, "a"));
    assert_non_null(cm_shelf_find(&shelf, "b"));
    print_stored(c, 2, 200000, 9999); /* more than fits: all others go, the start of it stays, the rest is counted */
    assert_null(cm_shelf_find(&shelf, "b"));
    assert_int_equal(c->stream[1].printed, 200000);
    assert_in_range(c->stream[1].stored, 40000, 70000);
    assert_in_range(shelf.bytes, 80000, 100000);
    check_stored(c, 1, 0, UINT64_MAX, 30000);
    check_stored(c, 2, 0, UINT64_MAX, c->stream[1].stored);
    cm_shelf_done(&shelf);
}

static void the_fullest_shelf_loses(void **state)
{
    struct cm_outputs o;
    struct cm_shelf hog, neighbour, third;
    struct cm_stored *a = NULL, *b = NULL, *c = NULL;
    (void)state;

    cm_outputs_init(&o, 100000, 120000);
    cm_shelf_init(&hog, &o);
    cm_shelf_init(&neighbour, &o);
    cm_shelf_init(&third, &o);
    print_stored(cm_stored_new(&neighbour, "n", &a), 1, 10000, 10000);
    cm_stored_finish(a);
    print_stored(cm_stored_new(&hog, "h", &b), 1, 60000, 10000);
    cm_stored_finish(b);
    print_stored(cm_stored_new(&third, "t", &c), 1, 40000, 10000);
    assert_non_null(cm_shelf_find(&neighbour, "n"));
    assert_null(cm_shelf_find(&hog, "h"));
    check_stored(c, 1, 0, UINT64_MAX, 40000);
    cm_shelf_done(&third);
    cm_shelf_done(&neighbour);
    cm_shelf_done(&hog);
    assert_int_equal(o.total, 0);
}

static void put_file(const char *root, const char *path, const char *text)
{
    char full[512];

    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(full, 0700);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    if (file) { /* the analyzer does not know that the line above ends the test */
        fputs(text, file);
        fclose(file);
    }
}

static uint64_t left_in(const char *root)
{
    uint64_t left = 7;

    return cm_pressure_read(root, &left) ? left : 0;
}

static void the_tightest_limit_counts(void **state)
{
    char root[] = "/tmp/cm-pressure-XXXXXX", command[64];
    (void)state;

    assert_non_null(mkdtemp(root));
    assert_int_equal(left_in(root), 0); /* nothing to read */
    put_file(root, "proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:    5000 kB\n");
    assert_int_equal(left_in(root), 5000 * 1024);
    put_file(root, "proc/self/cgroup", "1:name=systemd:/x\n4:cpu,memory:/old/one\n0::/pod/box\n");
    put_file(root, "sys/fs/cgroup/pod/box/memory.max", "max\n");
    put_file(root, "sys/fs/cgroup/pod/memory.max", "1000000\n");
    put_file(root, "sys/fs/cgroup/pod/memory.current", "900000\n");
    assert_int_equal(left_in(root), 100000);
    put_file(root, "sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 50000\nx 2\n");
    assert_int_equal(left_in(root), 150000);
    put_file(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n"); /* a container's view of version 1 */
    put_file(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", "1999000\n");
    assert_int_equal(left_in(root), 1000);
    put_file(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", "2999000\n");
    assert_int_equal(cm_pressure_read(root, &(uint64_t){0}), true);
    assert_int_equal(left_in(root), 0);
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_table_is_whole),     cmocka_unit_test(keep_head_and_tail),
        cmocka_unit_test(outputs_are_stored),       cmocka_unit_test(a_shelf_drops_its_oldest),
        cmocka_unit_test(the_fullest_shelf_loses),  cmocka_unit_test(the_tightest_limit_counts),

        cmocka_unit_test(keep_splits_no_character), cmocka_unit_test(locals_are_one_json_object),
        cmocka_unit_test(locals_depth_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
