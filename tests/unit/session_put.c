/* SPDX-License-Identifier: Apache-2.0 */
/* Variables that come as files: with the stand-in sandbox, whose workers do what the variable's name says, and with the
 * real one. */
#include "session_world.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "ipc/frame.h"

/* What became of one. */
struct put {
    struct world *w;
    struct cm_exec *exec;
    bool done, has_length;
    char type[80];
    uint64_t length;
    int code;
    char err[CM_ERR_TEXT_MAX];
};

static void on_put(void *arg, const struct cm_put_result *res, const struct cm_err *err)
{
    struct put *p = arg;

    assert_false(p->done);
    p->done = true;
    if (res) {
        copy(p->type, sizeof p->type, res->type, strlen(res->type));
        p->length = res->length;
        p->has_length = res->has_length;
    } else {
        p->code = err->code;
        strcpy(p->err, err->text);
    }
    look(p->w);
}

static int file_of(const void *data, size_t len)
{
    int fd = memfd_create("value", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len); /* which leaves the offset at the end: it must not count */
    return fd;
}

static int begin_put(struct world *w, const char *name, enum cm_put_kind kind, const void *data, size_t len,
                     struct put *p)
{
    const struct cm_put_request r = {
        .name = name, .name_len = strlen(name), .kind = kind, .fd = file_of(data, len), .length = len};
    struct cm_err err = {0};

    *p = (struct put){.w = w};
    int rc = cm_sessions_put(w->m, w->id, &r, on_put, p, &p->exec, &err);
    assert_false(p->done); /* never from within the call */
    assert_int_equal(rc, err.code);
    p->code = rc;
    strcpy(p->err, rc ? err.text : "");
    return rc;
}

static struct put *put(struct world *w, const char *name, enum cm_put_kind kind, const void *data, size_t len)
{
    static struct put p;

    if (begin_put(w, name, kind, data, len, &p) == 0)
        await(w, &p.done);
    return &p;
}

static struct put *put_text(struct world *w, const char *name, const char *text)
{
    return put(w, name, CM_PUT_TEXT, text, strlen(text));
}

static bool is_made(const struct put *p, const char *type, uint64_t length)
{
    if (p->code == 0 && !strcmp(p->type, type) && p->has_length && p->length == length)
        return true;
    fprintf(stderr, "%d %s: %s %llu\n", p->code, p->err, p->type, (unsigned long long)p->length);
    return false;
}

static bool gives(struct world *w, const char *code, const char *result)
{
    struct answer *a = execute(w, w->id, code, 0);
    bool same = !a->code && !strcmp(a->result, result);

    if (!same)
        fprintf(stderr, "%s: %s %s %s\n", code, a->result, a->error, a->err);
    return same;
}

/* the stand-in */

static void large_content_arrives_whole(void **state)
{
    struct world *w = open_world(standard);
    enum { LEN = 9 << 20 };
    char *data = calloc(1, LEN);
    (void)state;

    create(w);
    assert_true(is_made(put(w, "x", CM_PUT_TEXT, data, LEN), "str", LEN));
    assert_true(is_made(put(w, "x", CM_PUT_TEXT, data, 0), "str", 0));
    assert_true(gives(w, "count", "3"));
    free(data);
    close_world(w);
}

static void waits_for_its_turn(void **state)
{
    struct world *w = open_world(standard);
    struct answer first = {0}, last = {0};
    struct put between;
    (void)state;

    create(w);
    assert_int_equal(begin(w, w->id, "sleep 0.1", 0, &first), 0);
    assert_int_equal(begin_put(w, "x", CM_PUT_TEXT, "abc", 3, &between), 0);
    assert_int_equal(begin(w, w->id, "count", 0, &last), 0);
    await(w, &between.done);
    assert_true(first.done && !last.done);
    await(w, &last.done);
    assert_string_equal(last.result, "3");
    close_world(w);
}

static const struct {
    const char *name;
    int code;
} failures[] = {
    {"memory", CM_ERR_NO_ROOM}, {"half", CM_ERR_REVERTED}, {"die", CM_ERR_REVERTED},   {"1st", CM_ERR_BAD_FIELD},
    {"a-b", CM_ERR_BAD_FIELD},  {"", CM_ERR_BAD_FIELD},    {"\xff", CM_ERR_BAD_FIELD},
};

static void failures_leave_the_session(void **state)
{
    (void)state;
    for (size_t i = 0; i < CM_COUNT_OF(failures); i++) {
        struct world *w = open_world(standard);
        enum { LEN = 1 << 20 };
        char *data = calloc(1, LEN);
        create(w);
        assert_true(gives(w, "count", "1"));
        assert_int_equal(put(w, failures[i].name, CM_PUT_TEXT, data, LEN)->code, failures[i].code);
        execute(w, w->id, "count", 0);
        assert_true(is_made(put_text(w, "x", "abc"), "str", 3));
        free(data);
        close_world(w);
    }
}

static void lies_of_a_worker(void **state)
{
    struct world *w = open_world(standard);
    struct put *p;
    (void)state;

    create(w);
    p = put_text(w, "nothing", "abc");
    assert_true(p->code == 0 && !*p->type && !p->has_length);
    p = put_text(w, "noise", "abc");
    assert_int_equal(p->code, 0);
    p = put_text(w, "endless", "abc");
    assert_true(p->code == 0 && strlen(p->type) < 64);
    assert_true(is_made(put_text(w, "early", "abcdef"), "str", 3));
    assert_true(gives(w, "count", "5"));
    close_world(w);
}

static void time_is_over(void **state)
{
    struct cm_sessions_config c = standard;
    struct put *p;
    (void)state;

    c.limits.at[CM_LIMIT_TIMEOUT] = 0.05;
    struct world *w = open_world(c);
    create(w);
    assert_true(is_made(put_text(w, "x", "abc"), "str", 3));
    assert_int_equal(put_text(w, "interrupted", "abc")->code, CM_ERR_TIMED_OUT);
    p = put_text(w, "hang", "abc");
    assert_int_equal(p->code, CM_ERR_TIMED_OUT);
    assert_non_null(strstr(p->err, "back in the state before"));
    assert_true(gives(w, "count", "3")); /* the one that hung has not been */
    close_world(w);
}

static void interrupted(void **state)
{
    struct world *w = open_world(standard);
    struct put p;
    bool stopped = false;
    (void)state;

    create(w);
    assert_int_equal(begin_put(w, "interrupted", CM_PUT_TEXT, "abc", 3, &p), 0);
    assert_int_equal(cm_sessions_interrupt(w->m, w->id, NULL, &stopped, NULL), 0);
    assert_true(stopped);
    await(w, &p.done);
    assert_int_equal(p.code, CM_ERR_CANCELLED);
    close_world(w);
}

static void abandoned(void **state)
{
    struct world *w = open_world(standard);
    struct put running, queued;
    (void)state;

    create(w);
    assert_int_equal(begin_put(w, "interrupted", CM_PUT_TEXT, "abc", 3, &running), 0);
    assert_int_equal(begin_put(w, "x", CM_PUT_TEXT, "abc", 3, &queued), 0);
    cm_exec_abandon(queued.exec);
    cm_exec_abandon(running.exec);
    assert_true(gives(w, "count", "2"));
    assert_false(running.done || queued.done);
    close_world(w);
}

static void deleted_in_the_middle(void **state)
{
    struct world *w = open_world(standard);
    enum { LEN = 8 << 20 };
    char *data = calloc(1, LEN);
    struct put running, queued;
    (void)state;

    create(w);
    assert_int_equal(begin_put(w, "hang", CM_PUT_TEXT, data, LEN, &running), 0);
    assert_int_equal(begin_put(w, "x", CM_PUT_TEXT, data, LEN, &queued), 0);
    run_for(w, 20);
    assert_true(cm_sessions_delete(w->m, w->id));
    await(w, &queued.done);
    assert_true(running.done && running.code == CM_ERR_NO_SESSION && queued.code == CM_ERR_NO_SESSION);
    free(data);
    close_world(w);
}

static void refused_at_once(void **state)
{
    struct world *w = open_world(standard);
    struct cm_put_request r = {.name = "x", .name_len = 1, .fd = file_of("abc", 3), .length = 4};
    struct cm_err err;
    struct put p = {.w = w};
    (void)state;

    create(w);
    assert_int_equal(cm_sessions_put(w->m, w->id, &r, on_put, &p, NULL, &err), CM_ERR_SYSTEM); /* a short file */
    assert_int_equal(fcntl(r.fd, F_GETFD), -1); /* taken, like all of them */
    r.fd = file_of("abc", 3);
    r.length = (uint64_t)CM_PUT_MAX + 1;
    assert_int_equal(cm_sessions_put(w->m, w->id, &r, on_put, &p, NULL, &err), CM_ERR_TOO_LARGE);
    assert_int_equal(fcntl(r.fd, F_GETFD), -1);
    r.fd = file_of("abc", 3);
    assert_int_equal(cm_sessions_put(w->m, "session-no", &r, on_put, &p, NULL, &err), CM_ERR_NO_SESSION);
    assert_int_equal(fcntl(r.fd, F_GETFD), -1);
    close_world(w);
}

/* the real thing */

static struct world *real_world(uint64_t memory)
{
    struct cm_sessions_config c = standard;

    c.sandbox_path = getenv("CM_SANDBOX");
    c.image_path = getenv("CM_IMAGE");
    assert_true(c.sandbox_path && c.image_path);
    c.limits.at[CM_LIMIT_MEMORY] = c.caps.at[CM_LIMIT_MEMORY] = (double)memory;
    c.limits.at[CM_LIMIT_LOCALS] = c.caps.at[CM_LIMIT_LOCALS] = 10000;
    c.limits.at[CM_LIMIT_FILE_BYTES] = c.caps.at[CM_LIMIT_FILE_BYTES] = 64 << 20;
    struct world *w = open_world(c);
    create(w);
    return w;
}

static const struct {
    enum cm_put_kind kind;
    const char *value, *type;
    long length; /* -1: none */
    const char *is;
} values[] = {
    {CM_PUT_TEXT, "", "str", 0, "''"},
    {CM_PUT_TEXT, "abc", "str", 3, "'abc'"},
    {CM_PUT_TEXT, "\xc3\xa4", "str", 1, "'\xc3\xa4'"},
    {CM_PUT_TEXT, "a\xe2\x82\xac", "str", 2, "'a\xe2\x82\xac'"},
    {CM_PUT_TEXT, "\xf0\x9f\x98\x80z", "str", 2, "'\xf0\x9f\x98\x80z'"},
    {CM_PUT_TEXT, "\xef\xbb\xbfx", "str", 2, "'\\ufeffx'"},
    {CM_PUT_BYTES, "", "bytes", 0, "b''"},
    {CM_PUT_BYTES, "a\xff", "bytes", 2, "b'a\\xff'"},
    {CM_PUT_JSON, "{\"a\": [1, 2.5, null, \"\xc3\xa4\"]}", "dict", 1, "{'a': [1, 2.5, None, '\xc3\xa4']}"},
    {CM_PUT_JSON, "[1, 2]", "list", 2, "[1, 2]"},
    {CM_PUT_JSON, "\"abc\"", "str", 3, "'abc'"},
    {CM_PUT_JSON, " 17 ", "int", -1, "17"},
    {CM_PUT_JSON, "true", "bool", -1, "True"},
};

static void values_of_all_kinds(void **state)
{
    struct world *w = real_world(256 << 20);
    (void)state;

    for (size_t i = 0; i < CM_COUNT_OF(values); i++) {
        struct put *p = put(w, "context_0", values[i].kind, values[i].value, strlen(values[i].value));
        assert_string_equal(p->err, "");
        assert_string_equal(p->type, values[i].type);
        assert_int_equal(p->has_length ? (long)p->length : -1, values[i].length);
        assert_true(gives(w, "context_0", values[i].is));
    }
    assert_true(is_made(put(w, "b", CM_PUT_BYTES, "a\0b", 3), "bytes", 3));
    assert_true(gives(w, "b", "b'a\\x00b'"));
    assert_true(is_made(put_text(w,
                                 "gr\xc3\xb6\xc3\x9f"
                                 "e",
                                 "abc"),
                        "str", 3));
    assert_true(gives(w,
                      "gr\xc3\xb6\xc3\x9f"
                      "e",
                      "'abc'"));
    close_world(w);
}

/* Texts of more than one piece, whose characters do not end where pieces do; code makes the same and compares. */
static const struct {
    const char *head, *unit;
    unsigned times;
} texts[] = {
    {"", "0123456789", 100000},
    {"x", "\xc3\xa9", 500000},
    {"x", "\xe2\x82\xac", 300000},
    {"xy", "\xe2\x82\xac", 300000},
    {"x", "\xf0\x9f\x98\x80", 200000},
    {"\xf0\x9f\x98\x80", "0123456789", 100000},
    {"\xc3\xa9", "0123456789", 100000},
    {"", "0123456789abcdef", 16384}, /* one piece exactly */
    {"", "0123456789abcde\xc3\xa9", 16384},
};

static char *make_text(size_t i, size_t *ret_len)
{
    size_t head = strlen(texts[i].head), unit = strlen(texts[i].unit);
    char *text = malloc(head + unit * texts[i].times + 1), *to = text;

    to = mempcpy(to, texts[i].head, head);
    for (unsigned n = 0; n < texts[i].times; n++)
        to = mempcpy(to, texts[i].unit, unit);
    *ret_len = (size_t)(to - text);
    return text;
}

static void texts_of_many_pieces(void **state)
{
    struct world *w = real_world(256 << 20);
    char code[200];
    size_t len;
    (void)state;

    for (size_t i = 0; i < CM_COUNT_OF(texts); i++) {
        char *text = make_text(i, &len);
        struct put *p = put(w, "t", CM_PUT_TEXT, text, len);
        assert_string_equal(p->err, "");
        snprintf(code, sizeof code,
                 "import sys\ns = '%s' + '%s' * %u\nt == s, len(t) - %llu, sys.getsizeof(t) - sys.getsizeof(s)",
                 texts[i].head, texts[i].unit, texts[i].times, (unsigned long long)p->length);
        assert_true(gives(w, code, "(True, 0, 0)"));
        free(text);
    }
    close_world(w);
}

/* A text of several pieces with one byte of its own at a place. */
static void offset_of_what_is_no_text(void **state)
{
    static const size_t places[] = {0, 5, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 599999};
    struct world *w = real_world(256 << 20);
    enum { LEN = 600000 };
    char *text = malloc(LEN), offset[60];
    (void)state;

    assert_true(is_made(put_text(w, "t", "before"), "str", 6));
    for (size_t i = 0; i < CM_COUNT_OF(places); i++)
        for (int odd = 0; odd < 2; odd++) {
            memset(text, 'x', LEN);
            text[places[i]] = odd ? '\xff' : '\xc3'; /* no such byte; a character that does not go on */
            struct put *p = put(w, "t", CM_PUT_TEXT, text, LEN);
            assert_int_equal(p->code, CM_ERR_BAD_FIELD);
            snprintf(offset, sizeof offset, "byte 0x%s at offset %zu", odd ? "ff" : "c3", places[i]);
            assert_non_null(strstr(p->err, offset));
        }
    assert_true(gives(w, "t", "'before'"));
    free(text);
    close_world(w);
}

static const struct {
    const char *name;
    enum cm_put_kind kind;
    const char *value, *says;
} refused[] = {
    {"t", CM_PUT_JSON, "{\"a\": }", "not JSON"},
    {"t", CM_PUT_JSON, "", "not JSON"},
    {"t", CM_PUT_JSON, "[1] 2", "not JSON"},
    {"t", CM_PUT_JSON, "\"\xff\"", "offset 1"},
    {"a\xe2\x82\xac", CM_PUT_TEXT, "abc", "no name of a variable"},
};

static void refused_by_the_interpreter(void **state)
{
    struct world *w = real_world(256 << 20);
    (void)state;

    assert_true(is_made(put_text(w, "t", "before"), "str", 6));
    for (size_t i = 0; i < CM_COUNT_OF(refused); i++) {
        struct put *p = put(w, refused[i].name, refused[i].kind, refused[i].value, strlen(refused[i].value));
        assert_int_equal(p->code, CM_ERR_BAD_FIELD);
        assert_non_null(strstr(p->err, refused[i].says));
        assert_true(gives(w, "t", "'before'"));
    }
    enum { DEEP = 200000 };
    char *deep = malloc(DEEP);
    memset(deep, '[', DEEP);
    assert_int_equal(put(w, "t", CM_PUT_JSON, deep, DEEP)->code, CM_ERR_BAD_FIELD);
    assert_true(gives(w, "t", "'before'"));
    free(deep);
    close_world(w);
}

static void no_room(void **state)
{
    struct world *w = real_world(128 << 20);
    enum { LEN = 100 << 20 };
    char *text = malloc(LEN);
    (void)state;

    memset(text, 'x', LEN);
    assert_true(is_made(put_text(w, "t", "before"), "str", 6));
    for (enum cm_put_kind kind = CM_PUT_TEXT; kind <= CM_PUT_BYTES; kind++) {
        struct put *p = put(w, "t", kind, text, LEN);
        assert_int_equal(p->code, CM_ERR_NO_ROOM);
        assert_true(gives(w, "t", "'before'"));
    }
    memcpy(text, "\xf0\x9f\x98\x80", 4); /* the UTF-8 has room, the str has not */
    assert_int_equal(put(w, "t", CM_PUT_TEXT, text, 20 << 20)->code, CM_ERR_NO_ROOM);
    assert_true(gives(w, "t", "'before'"));
    assert_true(is_made(put(w, "t", CM_PUT_BYTES, text, 20 << 20), "bytes", 20 << 20));
    free(text);
    close_world(w);
}

static void is_saved_and_rolled_back(void **state)
{
    struct world *w = real_world(256 << 20);
    enum { LEN = 20 << 20 };
    char *text = malloc(LEN);
    struct cm_session_info info;
    struct answer a = {0};
    (void)state;

    memset(text, 'x', LEN);
    assert_true(is_made(put_text(w, "t", "before"), "str", 6));
    assert_true(is_made(put(w, "t", CM_PUT_TEXT, text, LEN), "str", LEN));
    assert_true(gives(w, "len(t), t.count('x')", "(20971520, 20971520)"));
    assert_int_equal(cm_sessions_info(w->m, w->id, &info, NULL), 0);
    kill(info.pid, SIGKILL);
    while (info.restores == 0) {
        run_for(w, 5);
        assert_int_equal(cm_sessions_info(w->m, w->id, &info, NULL), 0);
    }
    int rc = begin(w, w->id, "1", 0, &a); /* the look at it above may not have been saved: said once */
    assert_true(rc == 0 || rc == CM_ERR_REVERTED);
    assert_true(gives(w, "len(t), t.count('x')", "(20971520, 20971520)"));
    assert_true(is_made(put_text(w, "t", "after"), "str", 5));
    w->created = false;
    assert_int_equal(cm_sessions_roll_back(w->m, w->id, on_created, w, NULL), 0);
    await(w, &w->created);
    assert_true(gives(w, "len(t)", "20971520"));
    free(text);
    close_world(w);
}

/* what it costs */

/* Bytes of a process that are its own; what it reads of files in memory is not. */
static uint64_t private_of(int pid)
{
    char path[40], line[200];
    uint64_t sum = 0;
    unsigned long kib;

    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Anonymous: %lu", &kib) == 1)
            sum = kib << 10;
    if (f)
        fclose(f);
    return sum;
}

/* Bytes of all files in memory that this process holds: checkpoints, and values that were not sent yet. */
static uint64_t files_in_memory(void)
{
    uint64_t sum = 0;
    struct stat st;
    char path[40], name[40];

    for (int fd = 3; fd < 200; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, name, sizeof name - 1);
        if (n > 7 && !memcmp(name, "/memfd:", 7) && fstat(fd, &st) == 0)
            sum += (uint64_t)st.st_blocks * 512;
    }
    return sum;
}

static uint64_t all_of(int pid)
{
    return private_of(pid) + files_in_memory();
}

static const struct {
    const char *what, *unit;
    enum cm_put_kind kind;
    uint64_t peak_max, kept_max; /* in tenths of the size */
} costs[] = {
    {"ASCII", "0123456789abcdef", CM_PUT_TEXT, 30, 15},
    {"bytes", "0123456789abcde\xff", CM_PUT_BYTES, 30, 15},
    {"latin", "0123456789abcd\xc3\xa9", CM_PUT_TEXT, 45, 25},
};

/* From the moment at which the file is handed over, and when it was saved and is only kept. */
static void costs_little(void **state)
{
    enum { LEN = 40 << 20 };
    char *text = malloc(LEN);
    (void)state;

    for (size_t i = 0; i < CM_COUNT_OF(costs); i++) {
        struct world *w = real_world(512 << 20);
        struct cm_session_info info;
        uint64_t peak = 0, kept, before;
        struct put p;
        for (size_t at = 0; at < LEN; at += 16)
            memcpy(text + at, costs[i].unit, 16);
        assert_true(gives(w, "1", "1"));
        assert_int_equal(cm_sessions_info(w->m, w->id, &info, NULL), 0);
        before = all_of(info.pid);
        assert_int_equal(begin_put(w, "t", costs[i].kind, text, LEN, &p), 0);
        while (!p.done) {
            uint64_t now = all_of(info.pid);
            peak = now > peak ? now : peak;
            run_for(w, 1);
        }
        assert_int_equal(p.code, 0);
        for (int n = 0; n < 100; n++) {
            uint64_t now = all_of(info.pid);
            peak = now > peak ? now : peak;
            run_for(w, 1);
        }
        assert_true(gives(w, "1", "1")); /* so it was saved */
        kept = all_of(info.pid) - before;
        peak -= before;
        printf("%s of 40 MiB: at most %.1f MiB, kept %.1f MiB\n", costs[i].what, (double)peak / (1 << 20),
               (double)kept / (1 << 20));
        assert_true(peak <= (uint64_t)LEN / 10 * costs[i].peak_max);
        assert_true(kept <= (uint64_t)LEN / 10 * costs[i].kept_max);
        close_world(w);
    }
    free(text);
}

/* What is interrupted in the middle has not been, whether the interpreter stopped or had to be ended. */
static void interrupted_for_real(void **state)
{
    struct world *w = real_world(512 << 20);
    enum { LEN = 24 << 20 };
    char *text = malloc(LEN);
    struct put p;
    bool stopped = false;
    (void)state;

    for (size_t i = 0; i < LEN; i += 2)
        memcpy(text + i, i ? ",1" : "[1", 2);
    text[LEN - 1] = ']';
    text[LEN - 2] = ' ';
    assert_true(is_made(put_text(w, "t", "before"), "str", 6));
    assert_int_equal(begin_put(w, "t", CM_PUT_JSON, text, LEN, &p), 0);
    assert_int_equal(cm_sessions_interrupt(w->m, w->id, NULL, &stopped, NULL), 0);
    assert_true(stopped);
    await(w, &p.done);
    assert_int_equal(p.code, CM_ERR_CANCELLED);
    assert_true(gives(w, "t", "'before'"));
    free(text);
    close_world(w);
}

/* Code that has a thread left over, which runs whenever it can. */
static void beside_a_thread(void **state)
{
    struct world *w = real_world(256 << 20);
    enum { LEN = 8 << 20 };
    char *text = malloc(LEN);
    (void)state;

    memset(text, 'x', LEN);
    assert_true(gives(w,
                      "import threading, time\nn = 0\ndef spin():\n    global n\n    while True:\n        n += 1\n"
                      "        if n % 100 == 0: time.sleep(0)\n"
                      "threading.Thread(target=spin, daemon=True).start()\n1",
                      "1"));
    for (int i = 0; i < 5; i++)
        assert_true(is_made(put(w, "t", CM_PUT_TEXT, text, LEN), "str", LEN));
    assert_true(gives(w, "len(t), n > 0", "(8388608, True)"));
    free(text);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_content_arrives_whole),
        cmocka_unit_test(waits_for_its_turn),
        cmocka_unit_test(failures_leave_the_session),
        cmocka_unit_test(lies_of_a_worker),
        cmocka_unit_test(time_is_over),
        cmocka_unit_test(interrupted),
        cmocka_unit_test(abandoned),
        cmocka_unit_test(deleted_in_the_middle),
        cmocka_unit_test(refused_at_once),
        cmocka_unit_test(values_of_all_kinds),
        cmocka_unit_test(texts_of_many_pieces),
        cmocka_unit_test(offset_of_what_is_no_text),
        cmocka_unit_test(refused_by_the_interpreter),
        cmocka_unit_test(no_room),
        cmocka_unit_test(is_saved_and_rolled_back),
        cmocka_unit_test(costs_little),
        cmocka_unit_test(interrupted_for_real),
        cmocka_unit_test(beside_a_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
