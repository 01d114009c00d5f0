/* SPDX-License-Identifier: Apache-2.0 */
/* The guest and its host: executions, interrupts, freezing, and guests that break rules. */
#include "guest_run.h"

/* ---- executions */

static void run_frames(void)
{
    struct cm_ipc_fields f;
    map(256 * MIB);
    execute("print('hello')\nx = 6\nx * 7", &f);
    CHECK(field_is(&f, CM_FIELD_RESULT, "42") && cm_ipc_get_uint(&f, CM_FIELD_SUCCESS, 9) == 1);
    CHECK(printed_len == 6 && !memcmp(printed, "hello\n", 6));
    CHECK(cm_ipc_get_uint(&f, CM_FIELD_PEAK_MEMORY, 0) == cm_guest_size());
    CHECK(gives("x + 1", "7"));
    CHECK(raises("1 / 0", "ZeroDivisionError"));
}

static void use_memory(void)
{
    map(image.memory_size + 32 * MIB);
    CHECK(raises("b = bytearray(1 << 28)", "MemoryError"));
    CHECK(cm_guest_size() <= image.memory_size + 32 * MIB);
    CHECK(gives("1 + 1", "2"));
}

static void use_the_least_memory(void)
{
    map(0);
    CHECK(raises("b = bytearray(1 << 25)", "MemoryError"));
    CHECK(raises("b = []\nwhile True: b.append([0] * 100)", "MemoryError"));
    CHECK(gives("del b\nimport threading\n"
                "t = threading.Thread(target=print, args=('a thread',)); t.start(); t.join(); 1 + 1",
                "2"));
}

static void on_alarm(int signal)
{
    (void)signal;
    cm_guest_interrupt();
}

static void tick(long us)
{
    const struct itimerval t = {{0, us}, {0, us}};
    struct sigaction act = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigaction(SIGALRM, &act, NULL);
    setitimer(ITIMER_REAL, &t, NULL);
}

static void interrupt(void)
{
    static const char *const codes[] = {"while True: pass", "import time; time.sleep(60)",
                                        "import threading; t = threading.Event()\n"
                                        "threading.Timer(60, t.set).start(); t.wait()"};
    map(256 * MIB);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        tick(5000);
        CHECK(raises(codes[i], "KeyboardInterrupt"));
        tick(0);
        cm_guest_clear_interrupt();
        CHECK(gives("1 + 1", "2"));
    }
}

/* Whatever the guest has written into the words that signal handlers use, they stay in its memory. */
static void interrupt_with_wild_words(void)
{
    enum { GUARD = 8192 };
    static const uint32_t wild[] = {0, 1, 3, GUARD, GUARD + 4092, 0x7fffffff, 0xfffffffc, 0xffffffff};
    map(256 * MIB);
    cm_state.guards[cm_state.guard_count++] = GUARD;
    CHECK(!cm_guest_guard(true, &(struct cm_err){0}));
    struct cm_guest_poll *p = cm_guest_memory(cm_state.poll, sizeof *p);
    CHECK(p);
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        *p = (struct cm_guest_poll){wild[i], wild[i], wild[i], wild[i], wild[i], wild[i], wild[i]};
        cm_guest_interrupt();
        cm_guest_nudge();
        cm_guest_clear_interrupt();
        cm_guest_threaded();
        cm_guest_calling();
        cm_state.poll = wild[i]; /* of the host's own, but it came from the guest once */
        cm_guest_interrupt();
        cm_guest_clear_interrupt();
        cm_state.poll = (uint32_t)((unsigned char *)p - CM_MEMORY);
    }
}

/* ---- freezing */

static int frozen_fd;

static void run_and_freeze(void)
{
    struct cm_err err;
    uint32_t at;
    map(256 * MIB);
    begin("import threading, time\n"
          "out = []\n"
          "def work(n):\n"
          "    time.sleep(0.05 + n / 100)\n"
          "    out.append(n)\n"
          "ts = [threading.Thread(target=work, args=(n,)) for n in range(5)]\n"
          "for t in ts: t.start()\n"
          "def f(x):\n"
          "    time.sleep(0.05)\n"
          "    return x\n"
          "r = sorted([3, 1, 2], key=f)\n"
          "for t in ts: t.join()\n"
          "r, sorted(out)");
    /* Threads that begin give their stacks up one by one; then all of them sleep. */
    CHECK(cm_guest_run(&at) == CM_GUEST_WAITS && cm_guest_threaded());
    if (cm_image_freeze(frozen_fd, &image, &err))
        fprintf(stderr, "%s\n", err.text), _exit(1);
}

static void thaw_and_go_on(void)
{
    struct cm_ipc_fields f;
    struct cm_err err;
    uint32_t at;
    if (cm_image_map(&image, 256 * MIB, &err) || cm_image_thaw(frozen_fd, &err))
        fprintf(stderr, "%s\n", err.text), _exit(1);
    CHECK(cm_guest_threaded());
    cm_guest_resume(CM_WAIT_DEADLINE);
    CHECK(go_on(&at) == CM_GUEST_FINISHED);
    answer(at, &f);
    CHECK(field_is(&f, CM_FIELD_RESULT, "([1, 2, 3], [0, 1, 2, 3, 4])"));
    CHECK(gives("len(out)", "5"));
}

/* ---- a guest that breaks rules: done by the host on the guest's stack, in the middle of an import */

static void expect_trap(void (*what)(void), const char *text)
{
    uint32_t at;
    map(256 * MIB);
    in_emit = what;
    begin("print('x')");
    CHECK(go_on(&at) == CM_GUEST_TRAPPED);
    if (strcmp(cm_guest_trap_text(), text))
        fprintf(stderr, "trap: %s\n", cm_guest_trap_text()), _exit(1);
}

#define BREAKS(name, statement, text)                                                                                  \
    static void name##_now(void)                                                                                       \
    {                                                                                                                  \
        statement;                                                                                                     \
    }                                                                                                                  \
    static void name(void)                                                                                             \
    {                                                                                                                  \
        expect_trap(name##_now, text);                                                                                 \
    }

#define ABORTED "the interpreter aborted"
#define OUTSIDE "access outside of the sandbox's memory"

static uint32_t size32(void)
{
    return (uint32_t)cm_guest_size();
}

BREAKS(switch_to_itself, Z_hostZ_switch(0, 0), ABORTED)
BREAKS(switch_from_another, (cm_state.used[1] = true, Z_hostZ_switch(1, 0)), ABORTED)
BREAKS(switch_to_none, Z_hostZ_switch(0, 5), ABORTED)
BREAKS(switch_too_far, Z_hostZ_switch(0, CM_STACKS), ABORTED)
BREAKS(spawn_on_main, Z_hostZ_spawn(0, 0), ABORTED)
BREAKS(spawn_too_far, Z_hostZ_spawn(CM_STACKS, 0), ABORTED)
BREAKS(spawn_on_itself, (cm_state.current = 3, Z_hostZ_spawn(3, 0)), ABORTED)
BREAKS(guard_between_pages, Z_hostZ_guard(100), ABORTED)
BREAKS(guard_outside, Z_hostZ_guard(size32()), OUTSIDE)
BREAKS(guard_too_often, for (;;) Z_hostZ_guard(4096 * 100), ABORTED)
BREAKS(random_outside, Z_hostZ_random(size32() - 1, 2), OUTSIDE)
BREAKS(random_wraps, Z_hostZ_random(UINT32_MAX, UINT32_MAX), OUTSIDE)
BREAKS(emit_outside, Z_hostZ_emit(1, size32(), 1), OUTSIDE)
BREAKS(emit_to_nowhere, Z_hostZ_emit(3, 0, 1), ABORTED)
BREAKS(touch_above, part_touch((char *)CM_MEMORY + (300 * MIB)), OUTSIDE)
BREAKS(touch_the_end, part_touch((char *)CM_MEMORY + CM_MEMORY_RESERVED - 1), OUTSIDE)
BREAKS(emit_a_guard, (Z_hostZ_guard(8192), Z_hostZ_emit(1, 8000, 400)), OUTSIDE)
BREAKS(random_into_a_guard, (Z_hostZ_guard(8192), Z_hostZ_random(12287, 1)), OUTSIDE)
BREAKS(touch_a_guard, (Z_hostZ_guard(8192), part_touch((char *)CM_MEMORY + 8200)), "stack exhausted")
BREAKS(fill_above, part_memset((char *)CM_MEMORY + (255 * MIB), 2 * MIB), OUTSIDE)
BREAKS(fill_a_guard, (Z_hostZ_guard(8192), part_memset((char *)CM_MEMORY + 4096, 8192)), "stack exhausted")
BREAKS(stack_too_deep, part_fill_stack((volatile char[1]){0}, 100000), "stack exhausted")

/* Imports by a guest that has used up its stack, down to the last bytes: the guest's fault in every case. */
static volatile size_t left_over;

static void import_without_stack_now(void)
{
    volatile char *guard = (volatile char *)CM_STACK_BASE + 4096;
    char *here = __builtin_frame_address(0);
    volatile char *filler = __builtin_alloca((size_t)(here - (char *)guard) - left_over);
    filler[0] = 1;
    Z_hostZ_clock(1);
}

static void import_without_stack(void)
{
    left_over = 16 << 10;
    expect_trap(import_without_stack_now, "stack exhausted");
}

static void import_with_stack(void)
{
    struct cm_ipc_fields f;
    map(256 * MIB);
    left_over = 64 << 10;
    in_emit = import_without_stack_now;
    execute("print('x')", &f);
    CHECK(cm_ipc_get_uint(&f, CM_FIELD_SUCCESS, 9) == 1);
}

static void exit_by_itself(void)
{
    uint32_t at;
    map(256 * MIB);
    begin("import os; os._exit(3)");
    CHECK(go_on(&at) == CM_GUEST_TRAPPED);
    CHECK(!strcmp(cm_guest_trap_text(), "the code ended the interpreter with status 3"));
}

/* ---- the tests */

static void succeeds(void (*body)(void))
{
    assert_int_equal(in_child(body), 0);
}

static void runs_executions(void **state)
{
    (void)state;
    succeeds(run_frames);
    succeeds(use_memory);
    succeeds(use_the_least_memory);
}

static void interrupts(void **state)
{
    (void)state;
    succeeds(interrupt);
    succeeds(interrupt_with_wild_words);
}

static void freezes_and_thaws(void **state)
{
    (void)state;
    frozen_fd = memfd_create("frozen", MFD_CLOEXEC);
    succeeds(run_and_freeze);
    succeeds(thaw_and_go_on);
    succeeds(thaw_and_go_on); /* one frozen session, as many continuations as wanted */
    close(frozen_fd);
}

static void traps_what_breaks_the_rules(void **state)
{
    static void (*const all[])(void) = {
        switch_to_itself, switch_from_another, switch_to_none, switch_too_far,  spawn_on_main, spawn_too_far,
        spawn_on_itself,  guard_between_pages, guard_outside,  guard_too_often, emit_a_guard,  random_into_a_guard,
        random_outside,   random_wraps,        emit_outside,   emit_to_nowhere, touch_above,   touch_the_end,
        touch_a_guard,    stack_too_deep,      exit_by_itself, fill_above,      fill_a_guard,  import_without_stack,
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        succeeds(all[i]);
    succeeds(import_with_stack);
}

static void pointers_are(void)
{
    map(256 * MIB);
    uint32_t size = size32();
    CHECK(cm_guest_memory(0, 4096) == CM_MEMORY && cm_guest_memory(size, 0) == CM_MEMORY + size);
    CHECK(cm_state.guard_count > 0);
    uint32_t guard = cm_state.guards[0];
    CHECK(!cm_guest_memory(guard, 1) && !cm_guest_memory(guard + 4095, 1) && !cm_guest_memory(guard - 4, 5));
    CHECK(cm_guest_memory(guard - 4, 4) && cm_guest_memory(guard + 4096, 1) && !cm_guest_memory(0, size));
    CHECK(cm_guest_memory(size - 4, 4) == CM_MEMORY + size - 4);
    CHECK(!cm_guest_memory(size - 4, 5) && !cm_guest_memory(size, 1));
    CHECK(!cm_guest_memory(UINT32_MAX, UINT32_MAX) && !cm_guest_memory(4, UINT32_MAX) &&
          !cm_guest_memory(UINT32_MAX, 1));
}

static void checks_pointers(void **state)
{
    (void)state;
    succeeds(pointers_are);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_executions),
        cmocka_unit_test(interrupts),
        cmocka_unit_test(freezes_and_thaws),
        cmocka_unit_test(checks_pointers),
        cmocka_unit_test(traps_what_breaks_the_rules),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
