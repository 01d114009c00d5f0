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
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "jail/jail.h"

enum { SURVIVED = 42, NOT_JAILED = 43, LAST_SYSCALL = 470 };

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

static pid_t fork_jailed(pid_t parent)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0 && cm_jail_worker(pair[1], parent, NULL))
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

static const unsigned in_table[] = {
#define CM_SYSCALL(name, argument, value, reason) SYS_##name,
#include "syscalls.def"
#undef CM_SYSCALL
};

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
        for (size_t i = 0; i < CM_COUNT_OF(in_table); i++)
            known = known || in_table[i] == (unsigned)number;
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
        {SYS_sendto, {3, (long)&byte, 1}},
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
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(allows_what_a_worker_needs),
        TEST(kills_every_other_call),
        TEST(pins_arguments),
        TEST(kills_calls_by_the_32_bit_gate),
        TEST(leaves_one_descriptor_and_no_privilege),
        TEST(refuses_a_parent_that_has_gone),
        TEST(dies_with_its_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
