/* SPDX-License-Identifier: Apache-2.0 */
/* Faults of the host's own code: each is reported, and ends the process. */
#include "guest_run.h"

static int reports[2]; /* a socket pair: to the parent, from the child that crashes */

static void fill_stack(volatile char *above, int levels)
{
    volatile char frame[1024];
    frame[0] = above[0];
    if (levels)
        fill_stack(frame, levels - 1);
    frame[1] = 1; /* no tail call */
}

/* ---- faults of the host are not the guest's: each is reported, and ends the process */

static volatile uintptr_t wild_address = 8;

static void touch_nothing(void)
{
    *(volatile char *)wild_address = 1;
}

static void fault_beside_the_guest(void)
{
    map(256 * MIB);
    *(volatile char *)(CM_MEMORY + (300 * MIB)) = 1;
}

static void in_an_import(void (*what)(void))
{
    uint32_t at;
    map(256 * MIB);
    in_emit = what;
    begin("print('x')");
    go_on(&at);
}

static void fault_in_import(void)
{
    in_an_import(touch_nothing);
}

static void wild_pointer_of_guest_now(void)
{
    *(volatile char *)(CM_MEMORY + (300 * MIB)) = 1;
}

static void wild_pointer_of_guest(void)
{
    in_an_import(wild_pointer_of_guest_now);
}

static void fill_from_import_now(void)
{
    memset(CM_MEMORY + (255 * MIB), 1, 2 * MIB);
    __asm__ volatile("" : : : "memory");
}

static void fill_from_import(void)
{
    in_an_import(fill_from_import_now);
}

static void import_too_deep_now(void)
{
    fill_stack((volatile char[1]){0}, 100000);
}

static void import_too_deep(void)
{
    in_an_import(import_too_deep_now);
}

static void jump_to_nowhere(void)
{
    map(256 * MIB);
    ((void (*)(void))wild_address)();
}

static void divide_by_zero(void)
{
    map(256 * MIB);
    __asm__ volatile("xorl %%ecx, %%ecx\n movl $7, %%eax\n cltd\n idivl %%ecx" : : : "eax", "ecx", "edx");
}

static void illegal_instruction(void)
{
    map(256 * MIB);
    __asm__ volatile("ud2");
}

static void page_without_file(void)
{
    int fd = memfd_create("empty", MFD_CLOEXEC);
    char *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    map(256 * MIB);
    CHECK(p != MAP_FAILED && *(volatile char *)p);
}

static void signal_from_outside(void)
{
    map(256 * MIB);
    kill(getpid(), SIGSEGV);
}

static void host_stack_too_deep(void)
{
    map(256 * MIB);
    fill_stack((volatile char[1]){0}, 100000);
}

static void fault_in_jail(void)
{
    static struct cm_jail_plan plan;
    map(256 * MIB);
    CHECK(!cm_jail_plan(&(struct cm_layers_wish){0}, 65534, &plan, NULL));
    CHECK(!cm_jail_zygote(&plan, getppid(), NULL));
    CHECK(!cm_jail_worker(&plan, &(struct cm_jail_worker){getppid(), {reports[1]}, 1, 0, 1ul << 40}, NULL));
    report_to = CM_JAIL_CHANNEL;
    touch_nothing();
}

static void fault_in_report(void)
{
    in_report = touch_nothing;
    touch_nothing();
}

static void illegal_in_report(void)
{
    in_report = illegal_instruction;
    touch_nothing();
}

static void endless_handler(int signal)
{
    (void)signal;
    fill_stack((volatile char[1]){0}, 100000);
}

static void signal_stack_too_deep(void)
{
    struct sigaction act = {.sa_handler = endless_handler, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &act, NULL);
    kill(getpid(), SIGUSR1);
}

/* ---- the tests */

/* The report of a child that must die, and nothing else; its processor time is limited. */
static void report_of(void (*body)(void), int signal, char *to, size_t size)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, reports), 0);
    report_to = reports[1];
    int status = in_child(body);
    close(reports[1]);
    ssize_t len = read(reports[0], to, size - 1);
    close(reports[0]);
    assert_true(len >= 0);
    to[len] = '\0';
    if (!WIFSIGNALED(status) || WTERMSIG(status) != signal)
        fail_msg("status %#x, report '%s'", (unsigned)status, to);
}

static void dies_of_its_own_faults(void **state)
{
    static const struct {
        void (*what)(void);
        const char *words[4];
    } all[] = {
        {fault_beside_the_guest, {"SIGSEGV", "write, address", "linear memory at 0x12c00000, above", "not running"}},
        {fault_in_import, {"SIGSEGV", "null pointer", "host code", "guest: running"}},
        {wild_pointer_of_guest, {"SIGSEGV", "linear memory", "a guest stack, number 0", "guest: running"}},
        {fill_from_import, {"SIGSEGV", "linear memory", "a guest stack, number 0", "guest: running"}},
        {import_too_deep, {"SIGSEGV", "number 0, its guard", "a guest stack", "guest: running"}},
        {jump_to_nowhere, {"SIGSEGV", "jump, address 0x8", "instruction 0x8, the null", "not running"}},
        {divide_by_zero, {"SIGFPE", "host code", "the host's stack", "not running"}},
        {illegal_instruction, {"SIGILL", "host code", "the host's stack", "not running"}},
        {page_without_file, {"SIGBUS", "an unknown place", "the host's stack", "not running"}},
        {signal_from_outside, {"SIGSEGV", "sent by process ", "the host's stack", "not running"}},
        {host_stack_too_deep, {"SIGSEGV", "the host's stack", "write", "not running"}},
        {fault_in_jail, {"SIGSEGV", "null pointer", "host code", "version " CM_VERSION}},
    };
    static const char *const always[] = {
        "\ninstruction 0x", "\nstack pointer 0x",           "\nregisters: rax=0x",
        " rip=0x",          "\ncallers by frame pointers:", "\ncode addresses on the stack:"};
    char report[4096];
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        report_of(all[i].what, SIGSEGV, report, sizeof report);
        for (size_t k = 0; k < 4; k++)
            if (!strstr(report, all[i].words[k]))
                fail_msg("case %zu: no '%s' in '%s'", i, all[i].words[k], report);
        for (size_t k = 0; k < sizeof always / sizeof *always; k++)
            assert_non_null(strstr(report, always[k]));
    }
}

static void names_the_callers(void **state)
{
    char report[4096], caller[40];
    extern const char __executable_start[];
    (void)state;
    report_of(fault_in_import, SIGSEGV, report, sizeof report);
    /* emit() called it, and its address is in the walk: somewhere in its first bytes */
    const char *walk = strstr(report, "callers by frame pointers:");
    assert_non_null(walk);
    size_t from = (size_t)((uintptr_t)emit - (uintptr_t)__executable_start);
    bool found = false;
    for (size_t i = 0; i < 96 && !found; i++) {
        snprintf(caller, sizeof caller, " executable+0x%zx", from + i);
        found = strstr(walk, caller);
    }
    assert_true(found);
}

static void dies_of_a_second_fault(void **state)
{
    static void (*const all[])(void) = {fault_in_report, illegal_in_report, signal_stack_too_deep};
    char report[4096];
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        report_of(all[i], all[i] == illegal_in_report ? SIGILL : SIGSEGV, report, sizeof report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dies_of_its_own_faults),
        cmocka_unit_test(names_the_callers),
        cmocka_unit_test(dies_of_a_second_fault),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
