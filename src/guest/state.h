/* SPDX-License-Identifier: Apache-2.0 */
/* All that the host must remember of a session besides its linear memory: one struct at a fixed address, without
 * pointers to anything that differs between processes. With the memory, the instance and the used parts of the
 * stacks it is the whole session.
 */
#ifndef CM_GUEST_STATE_H
#define CM_GUEST_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/layout.h"

enum cm_entry {
    CM_ENTRY_INITIALIZE,
    CM_ENTRY_INIT,
    CM_ENTRY_MOUNT,
    CM_ENTRY_SEAL,
    CM_ENTRY_START,
    CM_ENTRY_ALLOC,
    CM_ENTRY_EXECUTE,
    CM_ENTRY_POLL
};

/* What the guest asks of the channel; it leaves its stack meanwhile, for the other end may let us wait. */
enum cm_ask {
    CM_ASK_NOTHING,
    CM_ASK_CALL,   /* send the fields at ask_at as a CALL frame */
    CM_ASK_CANCEL, /* or a CALL_CANCEL frame */
    CM_ASK_READ,   /* fill ask_len bytes at ask_at with the next of the content */
    CM_ASK_TAKE,   /* read the payload of the answer to ask_at, or skip it when that is 0 */
};

struct cm_guest_state {
    /* The call that runs on stack 0. */
    uint32_t entry, arg[2], result;
    bool finished;

    uint32_t current;                       /* the stack that runs, or waits for the host */
    void *stack_pointer[CM_STACKS];         /* of a stack that was left: addresses within the stacks themselves */
    uint32_t shadow_pointer[CM_STACKS];     /* its __stack_pointer */
    bool used[CM_STACKS];

    int64_t deadline; /* of the wait that gave the stack up: monotonic ns, < 0: none */
    uint32_t wait_result;

    enum cm_ask ask;
    uint32_t ask_at, ask_len;
    /* An ANSWER whose header was read, and its payload not yet: the call's number, 0 for none. */
    uint32_t answer_number, answer_len;
    uint32_t content_left; /* bytes of a CONTENT whose payload was not read yet */

    uint32_t max_pages; /* the session's memory limit in pages of 64 KiB */
    uint32_t guards[CM_STACKS], guard_count; /* pages of linear memory without access */

    /* Where the guest keeps what signal handlers write: addresses in linear memory (guest_poll in sched.c). */
    uint32_t poll;
};

extern struct cm_guest_state cm_state;

/* What the poll address holds. */
struct cm_guest_poll {
    uint32_t tstate, breaker_offset, live, main, tripped, sigint_tripped, calls;
};

/* Gate (gate.c). Saves the registers that a call keeps on the running stack, then runs the other one. */
void cm_gate_switch(void **save, void *to);
/* First frames of stack 0 and of the stacks of green threads. */
_Noreturn void cm_gate_main(void);
_Noreturn void cm_gate_thread(void);
extern void *cm_host_stack;

#endif
