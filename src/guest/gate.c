/* SPDX-License-Identifier: Apache-2.0 */
/* The gate between the guest's stacks and the host's.
 *
 * Linked into the guest's sections, because its frames lie on the guest's stacks: a frozen stack holds return
 * addresses into the guest's code and into this file, and nothing else of the process. So nothing here may call into
 * libc, keep a host pointer in a local variable across a switch, or be compiled with a stack protector.
 */
#include "guest/state.h"

#include "guest.h"

#define GUEST_DATA __attribute__((section(".guest_state"), aligned(4096)))

GUEST_DATA Z_guest_instance_t cm_guest = {0};
GUEST_DATA struct cm_guest_state cm_state = {0};
GUEST_DATA void *cm_host_stack = 0;

/* SysV AMD64: a call keeps rbx, rbp, r12-r15, the control bits of MXCSR and the x87 control word. */
__attribute__((naked, noinline)) void cm_gate_switch(void **save __attribute__((unused)),
                                                     void *to __attribute__((unused)))
{
    __asm__ volatile("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
                     "subq $8, %rsp\n stmxcsr (%rsp)\n fnstcw 4(%rsp)\n"
                     "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
                     "ldmxcsr (%rsp)\n fldcw 4(%rsp)\n addq $8, %rsp\n"
                     "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}

static void call(void)
{
    switch ((enum cm_entry)cm_state.entry) {
    case CM_ENTRY_INITIALIZE:
        w2c__initialize();
        break;
    case CM_ENTRY_INIT:
        cm_state.result = w2c_guest_init();
        break;
    case CM_ENTRY_MOUNT:
        cm_state.result = w2c_guest_mount(cm_state.arg[0], cm_state.arg[1]);
        break;
    case CM_ENTRY_SEAL:
        cm_state.result = w2c_guest_seal();
        break;
    case CM_ENTRY_START:
        cm_state.result = w2c_guest_start();
        break;
    case CM_ENTRY_ALLOC:
        cm_state.result = w2c_guest_alloc(cm_state.arg[0]);
        break;
    case CM_ENTRY_EXECUTE:
        cm_state.result = w2c_guest_execute(cm_state.arg[0], cm_state.arg[1]);
        break;
    case CM_ENTRY_POLL:
        cm_state.result = w2c_guest_poll();
        break;
    }
}

_Noreturn void cm_gate_main(void)
{
    for (;;) {
        call();
        cm_state.finished = true;
        cm_gate_switch(&cm_state.stack_pointer[cm_state.current], cm_host_stack);
    }
}

_Noreturn void cm_gate_thread(void)
{
    w2c_guest_thread(cm_state.current);
    __builtin_trap(); /* guest_thread never returns */
}

/* ---- the imports that leave a stack */

/* The numbers come from the guest's memory, which a broken guest may have written. A stack that was not left has no
 * valid stack pointer: to go on from an old one would run on whatever lies there now. */
void Z_hostZ_switch(u32 from, u32 to)
{
    if (from != cm_state.current || to == from || to >= CM_STACKS || !cm_state.used[to])
        wasm_rt_trap(WASM_RT_TRAP_UNREACHABLE);
    cm_state.shadow_pointer[from] = cm_guest.w2c___stack_pointer;
    cm_state.current = to;
    cm_guest.w2c___stack_pointer = cm_state.shadow_pointer[to];
    cm_gate_switch(&cm_state.stack_pointer[from], cm_state.stack_pointer[to]);
}

static void ask(enum cm_ask what, u32 at, u32 len)
{
    cm_state.ask = what;
    cm_state.ask_at = at;
    cm_state.ask_len = len;
    cm_gate_switch(&cm_state.stack_pointer[cm_state.current], cm_host_stack);
}

void cm_host_check(u32 at, u32 len);

void Z_hostZ_call(u32 what, u32 at, u32 len)
{
    cm_host_check(at, len);
    if (what > 1 && len > cm_state.content_left)
        wasm_rt_trap(WASM_RT_TRAP_UNREACHABLE);
    ask(what == 0 ? CM_ASK_CALL : what == 1 ? CM_ASK_CANCEL : CM_ASK_READ, at, len);
}

void Z_hostZ_take(u32 at)
{
    cm_host_check(at, at ? cm_state.answer_len : 0);
    if (!cm_state.answer_number)
        wasm_rt_trap(WASM_RT_TRAP_UNREACHABLE);
    ask(CM_ASK_TAKE, at, cm_state.answer_len);
}

bool cm_host_ready(int64_t deadline, uint32_t *ret);

u32 Z_hostZ_wait(u64 deadline)
{
    u32 ready;
    if (cm_host_ready((int64_t)deadline, &ready))
        return ready;
    cm_state.deadline = (int64_t)deadline;
    cm_gate_switch(&cm_state.stack_pointer[cm_state.current], cm_host_stack);
    return cm_state.wait_result;
}
