/* SPDX-License-Identifier: Apache-2.0 */
/* The host's side of the guest: its memory, its traps and the imports that answer at once.
 *
 * Traps. Generated code calls wasm_rt_trap(), or faults on the guard pages of memory and stacks. Either way the
 * guest's stack is left for good through the gate, to cm_guest_run() on the host's stack. A fault counts as the
 * guest's only if all of this holds: it ran on one of its stacks; the instruction is guest code, or libc's memory
 * functions called straight from it (the return address on top of the stack says so: they push nothing), or, for a
 * stack that is full, an import's first instructions; the address lies in the memory's reservation or in a stack's
 * guard. Any other fault is our own bug: fault.c reports it and ends the process.
 *
 * So that a guest deep in its stack is not taken for such a bug, every import looks for room before it calls anything.
 */
#include "guest/engine.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "guest/fault.h"

#include "guest.h"

#define PAGE      4096
#define WASM_PAGE 65536
#define HEADROOM  (32u << 10) /* of stack, for what an import calls */

static const struct cm_guest_ops *ops;
static volatile sig_atomic_t in_guest, interrupted, stopping;
static wasm_rt_trap_t trap;
static uint32_t exit_code;

/* ---- traps */

static const char *const trap_text[] = {
    [WASM_RT_TRAP_OOB] = "access outside of the sandbox's memory",
    [WASM_RT_TRAP_INT_OVERFLOW] = "integer overflow in machine code",
    [WASM_RT_TRAP_DIV_BY_ZERO] = "division by zero in machine code",
    [WASM_RT_TRAP_INVALID_CONVERSION] = "invalid conversion to an integer",
    [WASM_RT_TRAP_UNREACHABLE] = "the interpreter aborted",
    [WASM_RT_TRAP_CALL_INDIRECT] = "call of a function of another type",
    [WASM_RT_TRAP_EXHAUSTION] = "stack exhausted",
};

const char *cm_guest_trap_text(void)
{
    static char text[64];
    if (trap == WASM_RT_TRAP_EXIT) {
        snprintf(text, sizeof text, "the code ended the interpreter with status %u", exit_code & 0xff);
        return text;
    }
    return trap_text[trap] ? trap_text[trap] : "no trap";
}

_Noreturn CM_IMPORT void wasm_rt_trap(wasm_rt_trap_t why)
{
    static void *left;
    if (!in_guest)
        __builtin_trap(); /* cm_host_stack is an old one */
    trap = why;
    cm_gate_switch(&left, cm_host_stack);
    __builtin_unreachable();
}

static bool within(uintptr_t address, uintptr_t start, size_t len)
{
    return address - start < len;
}

/* The page below a green thread's shadow stack. */
static bool is_guard(uintptr_t address)
{
    for (uint32_t i = 0; i < cm_state.guard_count; i++)
        if (within(address, CM_MEMORY_BASE + cm_state.guards[i], PAGE))
            return true;
    return false;
}

/* Guest code, or one of the few functions of libc that it calls. `sp` lies in the used part of a stack. */
static bool is_guest_code(uintptr_t ip, uintptr_t sp)
{
    enum cm_place place = cm_fault_place(ip);
    bool readable = sp % 8 == 0 && (sp - CM_STACK_BASE) % CM_STACK_SIZE >= PAGE;
    if (place == CM_PLACE_GUEST_CODE)
        return true;
    return place != CM_PLACE_IMPORTS && readable && cm_fault_place(*(uintptr_t *)sp) == CM_PLACE_GUEST_CODE;
}

/* What a fault means for the guest; WASM_RT_TRAP_NONE when it is not the guest's. */
static wasm_rt_trap_t judge(int signal, const siginfo_t *info, uintptr_t ip, uintptr_t sp)
{
    uintptr_t address = (uintptr_t)info->si_addr;
    bool fault = signal == SIGSEGV && (info->si_code == SEGV_MAPERR || info->si_code == SEGV_ACCERR);
    if (!fault || !in_guest || cm_fault_place(sp) != CM_PLACE_GUEST_STACK)
        return WASM_RT_TRAP_NONE;
    bool own_code = is_guest_code(ip, sp);
    if (own_code && within(address, CM_MEMORY_BASE, CM_MEMORY_RESERVED))
        return is_guard(address) ? WASM_RT_TRAP_EXHAUSTION : WASM_RT_TRAP_OOB;
    bool guard = cm_fault_place(address) == CM_PLACE_GUEST_STACK && (address - CM_STACK_BASE) % CM_STACK_SIZE < PAGE;
    if (guard && (own_code || cm_fault_place(ip) == CM_PLACE_IMPORTS))
        return WASM_RT_TRAP_EXHAUSTION;
    return WASM_RT_TRAP_NONE;
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    greg_t *regs = uc->uc_mcontext.gregs;
    wasm_rt_trap_t why = judge(signal, info, (uintptr_t)regs[REG_RIP], (uintptr_t)regs[REG_RSP]);
    if (why == WASM_RT_TRAP_NONE)
        cm_fault_die(signal, info, uc, in_guest);
    /* Goes on as if cm_guest_run() had called wasm_rt_trap(): the guest's own stack may be full. */
    regs[REG_RSP] = (greg_t)((((uintptr_t)cm_host_stack - 256) & ~15ul) - 8);
    regs[REG_RIP] = (greg_t)(uintptr_t)wasm_rt_trap;
    regs[REG_RDI] = why;
    regs[REG_EFL] &= ~0x400; /* the direction flag, clear at every call */
}

/* ---- memory */

static int map_at(uintptr_t at, size_t len, int prot, int how, struct cm_err *err)
{
    void *p = mmap((void *)at, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | how, -1, 0);
    if (p == MAP_FAILED)
        return cm_err_sys(err, errno, "map %zu bytes at %#zx", len, (size_t)at);
    return 0;
}

int cm_guest_reserve(const struct cm_guest_ops *o, struct cm_err *err)
{
    ops = o;
    int rc = map_at(CM_MEMORY_BASE, CM_MEMORY_RESERVED, PROT_NONE, MAP_FIXED_NOREPLACE, err);
    if (!rc)
        rc = map_at(CM_STACK_BASE, CM_STACKS * CM_STACK_SIZE, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE, err);
    if (!rc && mprotect((void *)CM_STACK_BASE, PAGE, PROT_NONE))
        rc = cm_err_sys(err, errno, "guard the first stack");
    return rc ? rc : cm_fault_install(on_fault, ops->crashed, err);
}

CM_IMPORT uint32_t wasm_rt_grow_memory(wasm_rt_memory_t *memory, uint32_t pages)
{
    uint32_t old = memory->pages;
    if (pages > cm_state.max_pages - old || old > cm_state.max_pages)
        return UINT32_MAX;
    memory->pages += pages;
    memory->size = memory->pages * WASM_PAGE;
    return old;
}

static bool is_memory(uint32_t at, uint32_t len)
{
    return (uint64_t)at + len <= cm_guest.w2c_memory.size;
}

/* A guest may point the host to one of its guards, where an access would look like a fault of the host's own. */
void *cm_guest_memory(uint32_t at, uint32_t len)
{
    for (uint32_t i = 0; i < cm_state.guard_count; i++)
        if (at < cm_state.guards[i] + (uint64_t)PAGE && (uint64_t)at + len > cm_state.guards[i])
            return NULL;
    return is_memory(at, len) ? CM_MEMORY + at : NULL;
}

uint64_t cm_guest_size(void)
{
    return cm_guest.w2c_memory.size;
}

/* The guest's own pointers: a wrong one is a broken guest. */
static CM_IMPORT void *checked(uint32_t at, uint32_t len)
{
    void *p = cm_guest_memory(at, len);
    if (!p)
        wasm_rt_trap(WASM_RT_TRAP_OOB);
    return p;
}

/* What cm_gate_switch() takes off a stack that is entered for the first time. */
struct first_frame {
    uint32_t mxcsr, x87;
    uint64_t callee_saved[6];
    void (*entry)(void);
    uint64_t end; /* of the chain of frames; leaves the alignment that a call would */
};

static void prepare_stack(uint32_t slot, void (*entry)(void))
{
    uintptr_t top = CM_STACK_BASE + (slot + 1) * CM_STACK_SIZE;
    struct first_frame *f = (struct first_frame *)(top - sizeof *f);
    *f = (struct first_frame){.mxcsr = 0x1f80, .x87 = 0x37f, .entry = entry};
    cm_state.stack_pointer[slot] = f;
    cm_state.used[slot] = true;
}

static uint32_t mapped_pages; /* the most that there is room for; not the session's, so not in cm_state */

void cm_guest_lower_limit(uint64_t limit)
{
    uint64_t pages = limit / WASM_PAGE;

    cm_state.max_pages = limit > 0 && pages < mapped_pages ? (uint32_t)pages : mapped_pages;
}

void cm_guest_set_limit(uint64_t limit)
{
    cm_state.max_pages = mapped_pages = (uint32_t)(limit / WASM_PAGE);
    prepare_stack(0, cm_gate_main);
}

static int protect(uintptr_t page, bool on, struct cm_err *err)
{
    if (mprotect((void *)page, PAGE, on ? PROT_NONE : PROT_READ | PROT_WRITE))
        return cm_err_sys(err, errno, "protect the page at %#zx", (size_t)page);
    return 0;
}

int cm_guest_guard(bool on, struct cm_err *err)
{
    int rc = 0;
    for (uint32_t i = 0; !rc && i < cm_state.guard_count; i++)
        rc = protect(CM_MEMORY_BASE + cm_state.guards[i], on, err);
    for (uint32_t i = 0; !rc && i < CM_STACKS; i++)
        if (cm_state.used[i])
            rc = protect(CM_STACK_BASE + i * CM_STACK_SIZE, on, err);
    return rc;
}

/* ---- running */

void cm_guest_call(enum cm_entry entry, uint32_t arg0, uint32_t arg1)
{
    cm_state.entry = entry;
    cm_state.arg[0] = arg0;
    cm_state.arg[1] = arg1;
    cm_state.finished = false;
}

enum cm_guest_event cm_guest_run(uint32_t *ret_result)
{
    trap = WASM_RT_TRAP_NONE;
    in_guest = 1;
    cm_gate_switch(&cm_host_stack, cm_state.stack_pointer[cm_state.current]);
    in_guest = 0;
    if (trap != WASM_RT_TRAP_NONE)
        return CM_GUEST_TRAPPED;
    if (!cm_state.finished)
        return cm_state.ask == CM_ASK_NOTHING ? CM_GUEST_WAITS : CM_GUEST_ASKS;
    *ret_result = cm_state.result;
    return CM_GUEST_FINISHED;
}

void cm_guest_resume(uint32_t wait_result)
{
    if (cm_state.ask != CM_ASK_NOTHING) { /* it has not waited: what came meanwhile is still to be told */
        cm_state.ask = CM_ASK_NOTHING;
        return;
    }
    cm_state.wait_result = wait_result;
    stopping = 0;
    if (wait_result == CM_WAIT_INTERRUPT)
        interrupted = 0;
}

/* ---- interrupts: written into linear memory from signal handlers, so every address is checked */

static uint32_t *word(uint32_t at)
{
    return at % 4 ? NULL : cm_guest_memory(at, 4);
}

static const struct cm_guest_poll *poll_words(void)
{
    return cm_state.poll ? cm_guest_memory(cm_state.poll, sizeof(struct cm_guest_poll)) : NULL;
}

static void set_breaker(uint32_t tstate, uint32_t offset, uint32_t bits)
{
    uint32_t *breaker = tstate ? word(tstate + offset) : NULL;
    if (breaker)
        *breaker |= bits;
}

enum { GIL_DROP_REQUEST = 1 << 0, SIGNALS_PENDING = 1 << 1 }; /* bits of eval_breaker in CPython 3.13 */

void cm_guest_nudge(void)
{
    const struct cm_guest_poll *p = poll_words();
    uint32_t *tstate = p ? word(p->tstate) : NULL;
    if (tstate)
        set_breaker(*tstate, p->breaker_offset, GIL_DROP_REQUEST);
}

void cm_guest_interrupt(void)
{
    interrupted = 1;
    const struct cm_guest_poll *p = poll_words();
    if (!p)
        return;
    uint32_t *tripped = word(p->tripped), *sigint = word(p->sigint_tripped);
    if (tripped && sigint)
        *sigint = *tripped = 1;
    set_breaker(p->main, p->breaker_offset, SIGNALS_PENDING);
    cm_guest_nudge();
}

void cm_guest_stop(void)
{
    stopping = 1;
    cm_guest_nudge();
}

bool cm_guest_stopping(void)
{
    return stopping;
}

void cm_guest_clear_interrupt(void)
{
    interrupted = 0;
    const struct cm_guest_poll *p = poll_words();
    uint32_t *tripped = p ? word(p->tripped) : NULL, *sigint = p ? word(p->sigint_tripped) : NULL;
    if (tripped && sigint)
        *sigint = *tripped = 0;
}

bool cm_guest_interrupted(void)
{
    return interrupted;
}

bool cm_guest_threaded(void)
{
    const struct cm_guest_poll *p = poll_words();
    uint32_t *live = p ? word(p->live) : NULL;
    return live && *live > 1;
}

bool cm_guest_calling(void)
{
    const struct cm_guest_poll *p = poll_words();
    uint32_t *calls = p ? word(p->calls) : NULL;
    return calls && *calls > 0;
}

void cm_guest_drop_answer(void)
{
    cm_state.answer_number = cm_state.answer_len = cm_state.content_left = 0;
    cm_state.ask = CM_ASK_NOTHING;
}

/* ---- the imports that answer at once */

static inline __attribute__((always_inline)) void need_stack(void)
{
    uintptr_t sp = (uintptr_t)__builtin_frame_address(0);
    if ((sp - CM_STACK_BASE) % CM_STACK_SIZE < PAGE + HEADROOM)
        wasm_rt_trap(WASM_RT_TRAP_EXHAUSTION);
}

CM_IMPORT bool cm_host_ready(int64_t deadline, uint32_t *ret)
{
    if (interrupted) {
        interrupted = 0;
        *ret = CM_WAIT_INTERRUPT;
        return true;
    }
    *ret = CM_WAIT_ANSWER;
    if (cm_state.answer_number)
        return true;
    if (deadline == 0 && !stopping && ops->answered && cm_guest_calling()) {
        need_stack();
        if (ops->answered())
            return true;
    }
    *ret = CM_WAIT_DEADLINE;
    return deadline == 0 && !stopping;
}

/* For the imports of gate.c, which leave the stack. */
CM_IMPORT void cm_host_check(uint32_t at, uint32_t len)
{
    need_stack();
    checked(at, len);
    __asm__ volatile(""); /* as in emit */
}

CM_IMPORT u64 Z_hostZ_answer(void)
{
    need_stack();
    return (u64)cm_state.answer_number << 32 | cm_state.answer_len;
}

CM_IMPORT u64 Z_hostZ_clock(u32 id)
{
    need_stack();
    static const clockid_t ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID};
    struct timespec t;
    clock_gettime(ids[id < 3 ? id : 2], &t);
    return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

CM_IMPORT void Z_hostZ_random(u32 at, u32 len)
{
    need_stack();
    unsigned char *p = checked(at, len);
    while (len) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0 && errno != EINTR)
            wasm_rt_trap(WASM_RT_TRAP_UNREACHABLE);
        if (n > 0)
            p += n, len -= (u32)n;
    }
}

CM_IMPORT u32 Z_hostZ_emit(u32 stream, u32 at, u32 len)
{
    need_stack();
    const void *p = checked(at, len);
    if (stream != 1 && stream != 2)
        wasm_rt_trap(WASM_RT_TRAP_UNREACHABLE);
    u32 taken = ops->emit((int)stream, p, len);
    /* No jump instead of a call: on top of the stack a fault in there would find the guest's return address. */
    __asm__ volatile("" : "+r"(taken));
    return taken;
}

/* A stack without its guard could grow into its neighbour. */
static void guard_or_trap(void *page)
{
    if (mprotect(page, PAGE, PROT_NONE))
        wasm_rt_trap(WASM_RT_TRAP_UNREACHABLE);
}

CM_IMPORT void Z_hostZ_spawn(u32 slot, u32 shadow_top)
{
    need_stack();
    if (slot == 0 || slot >= CM_STACKS || slot == cm_state.current)
        wasm_rt_trap(WASM_RT_TRAP_UNREACHABLE);
    /* cppcheck-suppress arrayIndexOutOfBoundsCond ; it does not know that wasm_rt_trap() never returns */
    if (!cm_state.used[slot])
        guard_or_trap((void *)(CM_STACK_BASE + slot * CM_STACK_SIZE));
    prepare_stack(slot, cm_gate_thread);
    cm_state.shadow_pointer[slot] = shadow_top;
    if (ops->spawned)
        ops->spawned();
    __asm__ volatile(""); /* as in emit */
}

CM_IMPORT void Z_hostZ_guard(u32 at)
{
    need_stack();
    if (!is_memory(at, PAGE))
        wasm_rt_trap(WASM_RT_TRAP_OOB);
    if (at % PAGE || cm_state.guard_count == CM_STACKS)
        wasm_rt_trap(WASM_RT_TRAP_UNREACHABLE);
    cm_state.guards[cm_state.guard_count++] = at;
    guard_or_trap(CM_MEMORY + at);
}

CM_IMPORT void Z_hostZ_exit(u32 code)
{
    need_stack();
    exit_code = code;
    wasm_rt_trap(WASM_RT_TRAP_EXIT);
}
