/* SPDX-License-Identifier: Apache-2.0 */
/* What a process can still do in a worker's jail. Each question is asked by a child of its own. */
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "jail/filter.h"
#include "jail/jail.h"

enum { SURVIVED = 42, NOT_JAILED = 43, LAST_SYSCALL = 470 };

#define DATA_MAX (1ul << 30)

static int pair[2]; /* the second end is the channel in the jail */

static int set_up(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
}

static int tear_down(void **state)
{
    (void)state;
    close(pair[0]);
    close(pair[1]);
    return 0;
}

static struct cm_jail_plan plan;

/* Zygote and worker in one process. */
static int jail(const struct cm_jail_worker *w)
{
    struct cm_err err;
    int rc = cm_jail_zygote(&plan, w->parent, &err);
    if (!rc)
        rc = cm_jail_worker(&plan, w, &err);
    if (rc)
        fprintf(stderr, "# %s\n", err.text);
    return rc;
}

static pid_t fork_jailed(pid_t parent)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0 && jail(&(struct cm_jail_worker){parent, {pair[1]}, 1, 0, DATA_MAX}))
        _exit(NOT_JAILED);
    return child;
}

static int status_of(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

struct call {
    long number, args[6];
};

static void attempt(const struct call *c)
{
    const long *a = c->args;
    syscall(c->number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* Whether the call is survived; whether it succeeds does not matter here. */
static bool allowed(const struct call *c)
{
    pid_t child = fork_jailed(getpid());
    if (child == 0) {
        attempt(c);
        syscall(SYS_exit_group, SURVIVED);
    }
    int status = status_of(child);
    if (WIFEXITED(status)) {
        assert_int_equal(WEXITSTATUS(status), SURVIVED);
        return true;
    }
    assert_int_equal(WTERMSIG(status), SIGSYS);
    return false;
}

static void allows_what_a_worker_needs(void **state)
{
    char byte = 0;
    struct iovec iov = {&byte, 1};
    struct timespec t = {0};
    struct itimerval off = {0};
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const struct call calls[] = {
        {SYS_read, {0, (long)&byte, 0}},
        {SYS_write, {0, (long)&byte, 1}},
        {SYS_writev, {0, (long)&iov, 1}},
        {SYS_sendto, {0, (long)&byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL}},
        {SYS_ppoll, {0, 0, (long)&t, 0, 8}},
        {SYS_clock_gettime, {CLOCK_MONOTONIC, (long)&t}},
        {SYS_clock_gettime, {CLOCK_REALTIME, (long)&t}},
        {SYS_clock_gettime, {CLOCK_PROCESS_CPUTIME_ID, (long)&t}},
        {SYS_getrandom, {(long)&byte, 1, 0}},
        {SYS_setitimer, {ITIMER_REAL, (long)&off, 0}},
        {SYS_mprotect, {(long)page, 4096, PROT_NONE}},
    };
    (void)state;

    for (size_t i = 0; i < CM_COUNT_OF(calls); i++)
        if (!allowed(&calls[i]))
            fail_msg("system call %ld is killed", calls[i].number);
    munmap(page, 4096);
}

static void kills_every_other_call(void **state)
{
    (void)state;

    for (long number = 0; number <= LAST_SYSCALL; number++) {
        bool known = number == 335 || number == 336; /* uretprobe, uprobe: they pass every filter */
        for (unsigned i = 0; i < cm_jail_calls_count; i++)
            known = known || (cm_jail_calls[i].who == CM_JAIL_WORKER && cm_jail_calls[i].number == (unsigned)number);
        if (!known && allowed(&(struct call){.number = number}))
            fail_msg("system call %ld is allowed", number);
    }
}

static void pins_arguments(void **state)
{
    static char byte;
    const struct call calls[] = {
        {SYS_read, {1, (long)&byte, 1}},
        {SYS_read, {1l << 32, (long)&byte, 0}}, /* the kernel sees 0, a filter of 32 bits as well */
        {SYS_write, {2, (long)&byte, 1}},
        {SYS_writev, {1, 0, 0}},
        {SYS_sendto, {3, (long)&byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL}},
        {SYS_sendto, {0, (long)&byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL, (long)&byte, 1}}, /* an address */
        {SYS_sendto, {0, (long)&byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_OOB}},
        {SYS_clock_gettime, {~1l * 8 | 2, (long)&byte}}, /* the processor time of process 1 */
        {SYS_setitimer, {ITIMER_PROF}},
        {SYS_getrandom, {(long)&byte, 1, 2}},
        {SYS_mprotect, {0x10000, 4096, PROT_READ}},
        {SYS_mprotect, {0x10000, 4096, PROT_READ | PROT_EXEC}},
        {SYS_mprotect, {0x10000, 4096, PROT_READ | PROT_WRITE}},
        {0x40000000 | SYS_read, {0, (long)&byte, 0}}, /* the x32 table */
    };
    (void)state;

    for (size_t i = 0; i < CM_COUNT_OF(calls); i++)
        if (allowed(&calls[i]))
            fail_msg("case %zu is allowed", i);
}

/* A table of the test's own: what the compiler makes of pins and of several rows with one name. */
static const struct cm_jail_call own_rows[] = {
    {CM_JAIL_WORKER, SYS_exit_group, "exit_group", {{0}}, ""},
    {CM_JAIL_WORKER, SYS_madvise, "madvise", {{2, 4, "4"}}, ""},
    {CM_JAIL_WORKER, SYS_madvise, "madvise", {{0, 0, "0"}, {2, 21, "21"}}, ""},
    {CM_JAIL_WORKER, SYS_mmap, "mmap", {{0, 1ull << 32, "a"}, {2, 3, "b"}, {3, 0x12, "c"}, {4, 7, "d"}}, ""},
    {CM_JAIL_ZYGOTE, SYS_getppid, "getppid", {{0}}, ""},
    {CM_JAIL_WORKER, SYS_getpid, "getpid", {{0}}, ""},
};

static bool own_allows(const struct call *c)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (cm_jail_filter_load(own_rows, CM_COUNT_OF(own_rows), CM_JAIL_WORKER, NULL))
            _exit(NOT_JAILED);
        attempt(c);
        syscall(SYS_exit_group, SURVIVED);
    }
    int status = status_of(child);
    if (WIFEXITED(status)) {
        assert_int_equal(WEXITSTATUS(status), SURVIVED);
        return true;
    }
    assert_int_equal(WTERMSIG(status), SIGSYS);
    return false;
}

static void compares_every_pin_and_every_row(void **state)
{
    const struct {
        struct call call;
        bool allowed;
    } cases[] = {
        {{SYS_madvise, {8, 0, 4}}, true},
        {{SYS_madvise, {0, 0, 4}}, true},
        {{SYS_madvise, {0, 0, 21}}, true}, /* the second row */
        {{SYS_madvise, {8, 0, 21}}, false},
        {{SYS_madvise, {0, 0, 5}}, false},
        {{SYS_madvise, {1l << 32, 0, 21}}, false},
        {{SYS_mmap, {1l << 32, 0, 3, 0x12, 7}}, true},
        {{SYS_mmap, {1l << 33, 0, 3, 0x12, 7}}, false},
        {{SYS_mmap, {1l << 32 | 1, 0, 3, 0x12, 7}}, false},
        {{SYS_mmap, {1l << 32, 0, 7, 0x12, 7}}, false},
        {{SYS_mmap, {1l << 32, 0, 3, 0x32, 7}}, false},
        {{SYS_mmap, {1l << 32, 0, 3, 0x12, 8}}, false},
        {{SYS_mmap, {1l << 32, 0, 3, 0x12, 7 | 1l << 32}}, false},
        {{SYS_getpid, {1, 2, 3}}, true}, /* behind rows that did not match */
        {{SYS_getppid, {0}}, false}, /* somebody else's row */
    };
    (void)state;

    for (size_t i = 0; i < CM_COUNT_OF(cases); i++)
        if (own_allows(&cases[i].call) != cases[i].allowed)
            fail_msg("case %zu is %s", i, cases[i].allowed ? "killed" : "allowed");
    struct cm_err err;
    assert_int_not_equal(cm_jail_filter_load(own_rows, CM_JAIL_CALLS_MAX + 1, CM_JAIL_WORKER, &err), 0);
}

/* The 32-bit gate has other numbers: 3 is read there, close here. */
static void kills_calls_by_the_32_bit_gate(void **state)
{
    (void)state;
    pid_t child = fork_jailed(getpid());
    if (child == 0) {
        __asm__ volatile("int $0x80" ::"a"(3), "b"(0), "c"(0), "d"(0) : "memory");
        syscall(SYS_exit_group, SURVIVED);
    }
    int status = status_of(child);
    assert_true(WIFSIGNALED(status)); /* SIGSYS, or SIGSEGV from a kernel without that gate */
}

/* Reads a number of /proc/PID/status. */
static int status_number(pid_t pid, const char *key)
{
    char path[64], line[256];
    int value = -1;

    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)))
            value = atoi(line + strlen(key));
    fclose(f);
    return value;
}

static void leaves_one_descriptor_and_no_privilege(void **state)
{
    int other[2];
    char byte;
    (void)state;

    assert_int_equal(pipe(other), 0);
    pid_t child = fork_jailed(getpid());
    if (child == 0) {
        syscall(SYS_write, 0, "r", 1);
        syscall(SYS_read, 0, &byte, 1);
        syscall(SYS_exit_group, SURVIVED);
    }
    close(other[1]);
    assert_int_equal(read(pair[0], &byte, 1), 1); /* it is inside */
    assert_int_equal(read(other[0], &byte, 1), 0); /* ours was the last writing end */
    close(other[0]);
    assert_int_equal(status_number(child, "Seccomp:"), SECCOMP_MODE_FILTER);
    assert_int_equal(status_number(child, "NoNewPrivs:"), 1);
    assert_int_equal(write(pair[0], "x", 1), 1);
    assert_int_equal(WEXITSTATUS(status_of(child)), SURVIVED);
}

static bool same_file(pid_t pid, int fd, int ours)
{
    char path[64];
    struct stat a, b;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
    return !stat(path, &a) && !fstat(ours, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Kept descriptors arrive at their places, whatever stood there before, and no other one does. */
static void keeps_the_descriptors_that_are_named(void **state)
{
    int file[2];
    char byte;
    (void)state;

    assert_int_equal(pipe(file), 0);
    pid_t child = fork();
    if (child == 0) {
        int other = dup(file[0]);
        if (other < 0)
            _exit(NOT_JAILED);
        dup2(pair[1], 2), dup2(file[1], 0), dup2(other, 1);
        if (jail(&(struct cm_jail_worker){getppid(), {2, -1, 0}, 3, 0, DATA_MAX}))
            _exit(NOT_JAILED);
        syscall(SYS_write, 0, "c", 1);
        syscall(SYS_read, 0, &byte, 1);
        syscall(SYS_exit_group, SURVIVED);
    }
    assert_int_equal(read(pair[0], &byte, 1), 1);
    assert_true(same_file(child, 0, pair[1]));
    assert_true(same_file(child, 2, file[1]));
    for (int fd = 1; fd < 64; fd += fd == 1 ? 2 : 1)
        assert_false(same_file(child, fd, fd == 1 ? file[0] : pair[1]) || same_file(child, fd, pair[0]));
    assert_int_equal(write(pair[0], "x", 1), 1);
    assert_int_equal(WEXITSTATUS(status_of(child)), SURVIVED);
    close(file[0]);
    close(file[1]);
}

static void refuses_a_parent_that_has_gone(void **state)
{
    (void)state;
    int status = status_of(fork_jailed(getpid() + 1));
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), NOT_JAILED);
}

static void dies_with_its_parent(void **state)
{
    struct pollfd end = {.fd = pair[0], .events = POLLIN};
    char byte;
    (void)state;

    pid_t middle = fork();
    if (middle == 0) {
        pid_t child = fork_jailed(getpid());
        if (child == 0) {
            syscall(SYS_write, 0, "r", 1);
            syscall(SYS_ppoll, NULL, 0, NULL, NULL, 8);
        }
        pause();
    }
    assert_int_equal(read(pair[0], &byte, 1), 1);
    close(pair[1]);
    kill(middle, SIGKILL);
    status_of(middle);
    assert_int_equal(poll(&end, 1, 5000), 1);
    assert_int_equal(read(pair[0], &byte, 1), 0); /* the grandchild's end is closed: it is gone */
    pair[1] = dup(pair[0]);
}

int main(void)
{
    struct cm_err err;
    if (cm_jail_plan(&(struct cm_layers_wish){0}, 65534, &plan, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(allows_what_a_worker_needs),
        TEST(kills_every_other_call),
        TEST(pins_arguments),
        TEST(compares_every_pin_and_every_row),
        TEST(kills_calls_by_the_32_bit_gate),
        TEST(leaves_one_descriptor_and_no_privilege),
        TEST(keeps_the_descriptors_that_are_named),
        TEST(refuses_a_parent_that_has_gone),
        TEST(dies_with_its_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
