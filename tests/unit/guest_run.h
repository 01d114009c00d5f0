/* SPDX-License-Identifier: Apache-2.0 */
/* The guest itself, for tests: the real machine code and the real image, without a gateway. There is one guest per
 * process, so every test runs in a child; what it finds is its exit status. Include it in one file of a program. */
#ifndef CM_TESTS_GUEST_RUN_H
#define CM_TESTS_GUEST_RUN_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "guest/engine.h"
#include "image/freeze.h"
#include "image/image.h"
#include "ipc/frame.h"
#include "jail/jail.h"

#include "guest.h"

#define MIB (1ull << 20)

static struct cm_image image;
static char printed[4096];
static size_t printed_len;
static void (*in_emit)(void); /* what a test wants to do on the guest's stack */
static void (*in_ask)(void);  /* does what cm_state.ask says; NULL: nothing is asked */
static bool (*in_wait)(void); /* puts an answer that has come into cm_state; NULL: none comes */

/* In a child: the assertions of the test program would return into the parent's tests. */
#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                                 \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

static inline bool emit(int stream, const void *data, size_t len)
{
    (void)stream;
    if (in_emit)
        in_emit();
    if (len > sizeof printed - printed_len)
        return true;
    memcpy(printed + printed_len, data, len);
    printed_len += len;
    return true;
}

static int report_to; /* where a crash is reported */
static void (*in_report)(void);

static inline void crashed(const char *report, size_t len)
{
    if (in_report)
        in_report();
    if (write(report_to, report, len) < 0)
        _exit(3);
}

static inline bool answered(void)
{
    return in_wait && in_wait();
}

static const struct cm_guest_ops ops = {.emit = emit, .answered = answered, .crashed = crashed};

/* guest_part.c: the same as of the guest's own code */
void part_touch(volatile char *at);
void part_fill_stack(volatile char *above, int levels);
char *part_memset(char *at, size_t len);

static inline int set_up(void **state)
{
    const char *path = getenv("CM_IMAGE");
    struct cm_err err;
    (void)state;

    if (path && !cm_image_load(path, &image, &err))
        return 0;
    fprintf(stderr, "%s\n", path ? err.text : "CM_IMAGE names no image");
    return -1;
}

static inline void map(uint64_t limit)
{
    struct cm_err err;
    uint32_t result = 1;
    if (cm_image_map(&image, limit, &err))
        fprintf(stderr, "%s\n", err.text), _exit(1);
    cm_guest_call(CM_ENTRY_START, 0, 0);
    CHECK(cm_guest_run(&result) == CM_GUEST_FINISHED && result == 0);
}

static const char *tool_list; /* of the executions that follow */

/* Puts the fields of an EXECUTE frame into the guest and makes the call, without running it. */
static inline void begin(const char *code)
{
    struct cm_ipc_msg m;
    uint32_t at;
    cm_ipc_msg_begin(&m, CM_MSG_EXECUTE, 1);
    cm_ipc_put_bytes(&m, CM_FIELD_CODE, code, strlen(code));
    cm_ipc_put_uint(&m, CM_FIELD_LOCALS_MAX, 65536);
    cm_ipc_put_uint(&m, CM_FIELD_RESULT_MAX, 65536);
    if (tool_list) {
        cm_ipc_put_bytes(&m, CM_FIELD_TOOLS, tool_list, strlen(tool_list));
        cm_ipc_put_uint(&m, CM_FIELD_TOOL_CALLS, 500);
        cm_ipc_put_uint(&m, CM_FIELD_TOOL_ARGUMENT, 4096);
    }
    CHECK(!cm_ipc_msg_finish(&m, NULL));
    uint32_t size = (uint32_t)cm_ipc_msg_size(&m) - CM_IPC_HEADER_SIZE;
    cm_guest_call(CM_ENTRY_ALLOC, size, 0);
    CHECK(cm_guest_run(&at) == CM_GUEST_FINISHED);
    char *to = cm_guest_memory(at, size);
    CHECK(to);
    for (int i = 1; i < m.iovcnt; i++) {
        memcpy(to, m.iov[i].iov_base, m.iov[i].iov_len);
        to += m.iov[i].iov_len;
    }
    printed_len = 0;
    cm_guest_call(CM_ENTRY_EXECUTE, at, size);
}

/* Runs to the end of the call, sleeping in the guest's place. */
static inline enum cm_guest_event go_on(uint32_t *ret)
{
    enum cm_guest_event event;
    while ((event = cm_guest_run(ret)) == CM_GUEST_WAITS || event == CM_GUEST_ASKS) {
        if (event == CM_GUEST_ASKS) {
            CHECK(in_ask);
            in_ask();
            cm_guest_resume(0);
            continue;
        }
        while (!cm_guest_interrupted() && (cm_state.deadline < 0 || (int64_t)cm_clock_ns() < cm_state.deadline) &&
               !answered())
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        cm_guest_resume(cm_guest_interrupted()   ? CM_WAIT_INTERRUPT
                        : cm_state.answer_number ? CM_WAIT_ANSWER
                                                 : CM_WAIT_DEADLINE);
    }
    return event;
}

static inline void answer(uint32_t at, struct cm_ipc_fields *ret)
{
    const uint32_t *where = cm_guest_memory(at, 8);
    CHECK(where && cm_guest_memory(where[0], where[1]));
    CHECK(!cm_ipc_fields_get(cm_guest_memory(where[0], where[1]), where[1], ret, NULL));
}

static inline bool field_is(const struct cm_ipc_fields *f, enum cm_ipc_field tag, const char *text)
{
    size_t len;
    const char *data = cm_ipc_get_bytes(f, tag, &len);
    bool same = data && len == strlen(text) && !memcmp(data, text, len);
    if (!same)
        fprintf(stderr, "field %d is '%.*s'\n", (int)tag, data ? (int)len : 0, data ? data : "");
    return same;
}

static inline void execute(const char *code, struct cm_ipc_fields *ret)
{
    uint32_t at;
    begin(code);
    CHECK(go_on(&at) == CM_GUEST_FINISHED);
    answer(at, ret);
}

static inline bool gives(const char *code, const char *result)
{
    struct cm_ipc_fields f;
    execute(code, &f);
    return field_is(&f, CM_FIELD_RESULT, result);
}

static inline bool raises(const char *code, const char *type)
{
    struct cm_ipc_fields f;
    execute(code, &f);
    return field_is(&f, CM_FIELD_ERROR_TYPE, type);
}

/* Runs the body in a child; its wait status. */
static inline int in_child(void (*body)(void))
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        /* A handler that goes round and round blocks every signal but the last of these. */
        setrlimit(RLIMIT_CPU, &(struct rlimit){20, 21});
        CHECK(!cm_guest_reserve(&ops, NULL)); /* here, for the test program has handlers of its own */
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

#endif
