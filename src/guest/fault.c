/* SPDX-License-Identifier: Apache-2.0 */
/* The report of a fault. Nothing here allocates, locks or formats with libc, and memory is read only where it is known
 * to be mapped: the process may be broken in any way. What is wrong all the same ends in a second fault, and that in
 * the end without a report.
 */
#include "guest/fault.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest/state.h"

#include "guest.h"

#define PAGE           4096u
#define SIGNAL_STACK   (64u << 10)
#define HOST_STACK_MAX (8ul << 20)
#define FRAMES_MAX     16
#define SCANNED_WORDS  256
#define FOUND_MAX      12

extern const char cm_guest_id[];
/* Of the linker. */
extern const char __executable_start[], etext[], cm_guest_text[], cm_guest_text_end[], __start_cm_imports[],
    __stop_cm_imports[];
extern void *__libc_stack_end; /* of libc: where the process's first stack begins */

static void (*write_report)(const char *text, size_t len);
static uintptr_t signal_stack; /* above its guard page */

/* ---- text */

static struct {
    size_t len;
    char at[CM_FAULT_REPORT_MAX];
} text;

static void put(const char *s)
{
    while (*s && text.len < sizeof text.at)
        text.at[text.len++] = *s++;
}

static void put_hex(uint64_t v)
{
    char digits[17] = {0};
    char *p = digits + 16;
    do
        *--p = "0123456789abcdef"[v & 15];
    while (v >>= 4);
    put("0x");
    put(p);
}

static void put_number(uint64_t v)
{
    char digits[21] = {0};
    char *p = digits + 20;
    do
        *--p = (char)('0' + v % 10);
    while (v /= 10);
    put(p);
}

/* ---- places */

static bool within(uintptr_t address, uintptr_t start, size_t len)
{
    return address - start < len;
}

static bool between(uintptr_t address, const char *start, const char *end)
{
    return within(address, (uintptr_t)start, (size_t)((uintptr_t)end - (uintptr_t)start));
}

enum cm_place cm_fault_place(uintptr_t a)
{
    if (a < 0x10000)
        return CM_PLACE_NULL;
    if (between(a, __start_cm_imports, __stop_cm_imports))
        return CM_PLACE_IMPORTS;
    if (between(a, __executable_start, etext))
        return CM_PLACE_HOST_CODE;
    if (between(a, cm_guest_text, cm_guest_text_end))
        return CM_PLACE_GUEST_CODE;
    if (within(a, (uintptr_t)&cm_state, sizeof cm_state) || within(a, (uintptr_t)&cm_guest, sizeof cm_guest))
        return CM_PLACE_STATE;
    if (within(a, CM_MEMORY_BASE, CM_MEMORY_RESERVED))
        return CM_PLACE_MEMORY;
    if (within(a, CM_STACK_BASE, CM_STACKS * CM_STACK_SIZE))
        return CM_PLACE_GUEST_STACK;
    if (within(a, signal_stack - PAGE, SIGNAL_STACK + PAGE))
        return CM_PLACE_SIGNAL_STACK;
    if (within(a, (uintptr_t)__libc_stack_end - HOST_STACK_MAX, HOST_STACK_MAX))
        return CM_PLACE_HOST_STACK;
    return CM_PLACE_UNKNOWN;
}

static void put_code(uintptr_t a)
{
    put(" executable+");
    put_hex(a - (uintptr_t)__executable_start);
}

static void put_place(uintptr_t a)
{
    static const char *const names[] = {
        [CM_PLACE_UNKNOWN] = "an unknown place",      [CM_PLACE_NULL] = "the null pointer's neighbourhood",
        [CM_PLACE_HOST_CODE] = "host code",           [CM_PLACE_IMPORTS] = "host code that the guest calls",
        [CM_PLACE_GUEST_CODE] = "guest code",         [CM_PLACE_STATE] = "the state of the session",
        [CM_PLACE_MEMORY] = "linear memory",          [CM_PLACE_GUEST_STACK] = "a guest stack",
        [CM_PLACE_SIGNAL_STACK] = "the signal stack", [CM_PLACE_HOST_STACK] = "the host's stack",
    };
    enum cm_place place = cm_fault_place(a);
    put_hex(a);
    put(", ");
    put(names[place]);
    if (place == CM_PLACE_MEMORY) {
        put(" at ");
        put_hex(a - CM_MEMORY_BASE);
        put(a - CM_MEMORY_BASE < cm_guest.w2c_memory.size ? ", in use" : ", above its size");
    } else if (place == CM_PLACE_GUEST_STACK) {
        put(", number ");
        put_number((a - CM_STACK_BASE) / CM_STACK_SIZE);
        put((a - CM_STACK_BASE) % CM_STACK_SIZE < PAGE ? ", its guard" : "");
    } else if (place == CM_PLACE_HOST_CODE || place == CM_PLACE_IMPORTS || place == CM_PLACE_GUEST_CODE) {
        put(",");
        put_code(a);
    }
}

static bool is_code(uintptr_t a)
{
    enum cm_place place = cm_fault_place(a);
    return place == CM_PLACE_HOST_CODE || place == CM_PLACE_IMPORTS || place == CM_PLACE_GUEST_CODE;
}

/* ---- the stack that was in use */

/* Words that can be read from `sp` on: none when it points to no stack of ours, or the stack itself is at fault. */
static const uintptr_t *stack_words(uintptr_t sp, uintptr_t fault, size_t *ret_count)
{
    uintptr_t end = 0;
    *ret_count = 0;
    switch (cm_fault_place(sp)) {
    case CM_PLACE_GUEST_STACK:
        if ((sp - CM_STACK_BASE) % CM_STACK_SIZE >= PAGE)
            end = CM_STACK_BASE + ((sp - CM_STACK_BASE) / CM_STACK_SIZE + 1) * CM_STACK_SIZE;
        break;
    case CM_PLACE_SIGNAL_STACK:
        end = sp >= signal_stack ? signal_stack + SIGNAL_STACK : 0;
        break;
    case CM_PLACE_HOST_STACK:
        end = within(fault, sp - 64 * PAGE, 65 * PAGE) ? 0 : (uintptr_t)__libc_stack_end;
        break;
    default:
        break;
    }
    if (!end || sp % sizeof(uintptr_t))
        return NULL;
    *ret_count = (end - sp) / sizeof(uintptr_t);
    return (const uintptr_t *)sp;
}

/* Our own functions keep frame pointers; libc's and the guest's do not, and most leave the register alone. */
static void put_frames(const uintptr_t *words, size_t count, uintptr_t frame)
{
    put("\ncallers by frame pointers:");
    for (int i = 0; i < FRAMES_MAX; i++) {
        size_t at = (frame - (uintptr_t)words) / sizeof *words;
        if (frame < (uintptr_t)words || frame % sizeof *words || at + 1 >= count || !is_code(words[at + 1]))
            break;
        put_code(words[at + 1]);
        if (words[at] <= frame)
            break;
        frame = words[at];
    }
}

static void put_found(const uintptr_t *words, size_t count)
{
    int found = 0;
    put("\ncode addresses on the stack:");
    for (size_t i = 0; i < count && i < SCANNED_WORDS && found < FOUND_MAX; i++)
        if (is_code(words[i])) {
            put_code(words[i]);
            found++;
        }
}

/* ---- the report */

static void put_signal(int signal, const siginfo_t *info, const greg_t *regs)
{
    const char *name = signal == SIGSEGV   ? " (SIGSEGV)"
                       : signal == SIGBUS  ? " (SIGBUS)"
                       : signal == SIGFPE  ? " (SIGFPE)"
                       : signal == SIGILL  ? " (SIGILL)"
                       : signal == SIGTRAP ? " (SIGTRAP)"
                                           : "";
    put("signal ");
    put_number((uint64_t)signal);
    put(name);
    if (info->si_code <= 0) {
        put(", sent by process ");
        put_number((uint64_t)info->si_pid);
        return;
    }
    put(", code ");
    put_number((uint64_t)info->si_code);
    if (regs[REG_TRAPNO] == 14) /* page fault: the error code tells what was tried */
        put(regs[REG_ERR] & 16 ? ", jump" : regs[REG_ERR] & 2 ? ", write" : ", read");
    put(", address ");
    put_place((uintptr_t)info->si_addr);
}

static void put_registers(const greg_t *regs)
{
    static const struct {
        const char *name;
        int number;
    } all[] = {{"rax", REG_RAX}, {"rbx", REG_RBX}, {"rcx", REG_RCX},  {"rdx", REG_RDX}, {"rsi", REG_RSI},
               {"rdi", REG_RDI}, {"rbp", REG_RBP}, {"rsp", REG_RSP},  {"r8", REG_R8},   {"r9", REG_R9},
               {"r10", REG_R10}, {"r11", REG_R11}, {"r12", REG_R12},  {"r13", REG_R13}, {"r14", REG_R14},
               {"r15", REG_R15}, {"rip", REG_RIP}, {"flags", REG_EFL}};
    put("\nregisters:");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        put(" ");
        put(all[i].name);
        put("=");
        put_hex((uint64_t)regs[all[i].number]);
    }
}

static void put_guest(bool in_guest)
{
    put("\nguest: ");
    put(in_guest ? "running" : "not running");
    put(", stack ");
    put_number(cm_state.current);
    put(", entry ");
    put_number(cm_state.entry);
    put(", memory ");
    put_number(cm_guest.w2c_memory.size);
    put(" bytes\nversion " CM_VERSION ", guest ");
    put(cm_guest_id);
}

/* Privileged, so it faults in any process; and a fault while all signals are blocked ends it. */
static _Noreturn void die(void)
{
    for (;;)
        __asm__ volatile("hlt");
}

_Noreturn void cm_fault_die(int signal, const siginfo_t *info, const ucontext_t *uc, bool in_guest)
{
    const greg_t *regs = uc->uc_mcontext.gregs;
    uintptr_t sp = (uintptr_t)regs[REG_RSP];
    size_t count;
    text.len = 0;
    put_signal(signal, info, regs);
    put("\ninstruction ");
    put_place((uintptr_t)regs[REG_RIP]);
    put("\nstack pointer ");
    put_place(sp);
    put_guest(in_guest);
    put_registers(regs);
    const uintptr_t *words = stack_words(sp, (uintptr_t)info->si_addr, &count);
    put_frames(words, count, (uintptr_t)regs[REG_RBP]);
    put_found(words, count);
    put("\n");
    write_report(text.at, text.len);
    die();
}

/* ---- installation */

static void write_to_stderr(const char *report, size_t len)
{
    static const char head[] = "codemode-sandbox crashed: ";
    if (write(STDERR_FILENO, head, sizeof head - 1) < 0 || write(STDERR_FILENO, report, len) < 0)
        return; /* nobody is there to be told */
}

static int make_signal_stack(struct cm_err *err)
{
    char *p = mmap(NULL, PAGE + SIGNAL_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p, PAGE, PROT_NONE))
        return cm_err_sys(err, errno, "map the signal stack");
    signal_stack = (uintptr_t)p + PAGE;
    const stack_t alt = {.ss_sp = p + PAGE, .ss_size = SIGNAL_STACK};
    return sigaltstack(&alt, NULL) ? cm_err_sys(err, errno, "use the signal stack") : 0;
}

int cm_fault_install(void (*handler)(int, siginfo_t *, void *), void (*write)(const char *text, size_t len),
                     struct cm_err *err)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    write_report = write ? write : write_to_stderr;
    sigfillset(&act.sa_mask);
    int rc = make_signal_stack(err);
    for (size_t i = 0; !rc && i < sizeof signals / sizeof *signals; i++)
        if (sigaction(signals[i], &act, NULL))
            rc = cm_err_sys(err, errno, "install signal handlers");
    return rc;
}
