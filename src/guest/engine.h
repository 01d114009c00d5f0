/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one guest in this process. Knows no socket and no jail: the worker asks it to run, and gets the stack back
 * when a call has finished or the guest has to wait.
 *
 * There is one guest per process, so nothing here takes a handle. The guest's waits are given to the caller: it
 * answers them with cm_guest_resume().
 */
#ifndef CM_GUEST_ENGINE_H
#define CM_GUEST_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "guest/state.h"

/* What the guest asks of its host while it runs. None may block. */
struct cm_guest_ops {
    /* Takes all of `len` bytes of stream 1 or 2, or answers false: full. */
    bool (*emit)(int stream, const void *data, size_t len);
    /* A green thread was made; may be NULL. */
    void (*spawned)(void);
    /* Looks whether the header of an ANSWER can be read, without waiting for one, and puts it into cm_state; may be NULL:
     * there is never one. */
    bool (*answered)(void);
    /* The process is about to die of a fault of our own; takes the report. Async-signal-safe; NULL: stderr does. */
    void (*crashed)(const char *report, size_t len);
};

enum cm_guest_event {
    CM_GUEST_FINISHED, /* the call returned; its result is in *ret_result */
    CM_GUEST_WAITS, /* until cm_state.deadline, output room, an answer or an interrupt */
    CM_GUEST_ASKS, /* what cm_state.ask says; after it was done, cm_guest_resume(0) */
    CM_GUEST_TRAPPED, /* the guest broke a rule of the machine; it must not run again */
};

/* ANSWER: its header is in cm_state. */
enum { CM_WAIT_DEADLINE = 0, CM_WAIT_INTERRUPT = 1, CM_WAIT_OUTPUT = 2, CM_WAIT_ANSWER = 3 };

/* Reserves the linear memory and the stacks, before anything else may take their addresses, and installs the
 * signal handlers. Inherited by fork. */
int cm_guest_reserve(const struct cm_guest_ops *ops, struct cm_err *err);
/* Maps fresh zero memory and runs the module's start: only to build an image. `limit` in bytes. */
int cm_guest_create(uint64_t limit, struct cm_err *err);

/* The gate's frame of a guest between calls holds nothing: a session that starts from an image gets a new one. */
void cm_guest_set_limit(uint64_t limit);
/* For the calls from here on: no more than `limit` bytes, nor than cm_guest_set_limit() has said; 0 asks for nothing.
 * Memory that the guest has already stays. */
void cm_guest_lower_limit(uint64_t limit);
/* Takes the guard pages' access away, or gives it back to read them (their content is never used). */
int cm_guest_guard(bool on, struct cm_err *err);

/* Starts a call; then cm_guest_run() until it has finished. */
void cm_guest_call(enum cm_entry entry, uint32_t arg0, uint32_t arg1);
enum cm_guest_event cm_guest_run(uint32_t *ret_result);
/* Answers a wait: CM_WAIT_*. Then run again. */
void cm_guest_resume(uint32_t wait_result);

/* Linear memory from `at`, or NULL when `len` bytes do not fit in it, or a guard page lies among them. */
void *cm_guest_memory(uint32_t at, uint32_t len);
uint64_t cm_guest_size(void);

/* Async-signal-safe: makes the running code raise KeyboardInterrupt soon. May get lost against the guest's own
 * writes: repeat it. */
void cm_guest_interrupt(void);
/* Async-signal-safe: asks the interpreter to come to the scheduler at its next safe point. */
void cm_guest_nudge(void);
/* Async-signal-safe: the guest gives its stack up at the next gate even if it need not wait. */
void cm_guest_stop(void);
bool cm_guest_stopping(void);
/* Forgets an interrupt that came too late. */
void cm_guest_clear_interrupt(void);
bool cm_guest_interrupted(void);
/* More than one green thread lives: the fairness timer is needed. */
bool cm_guest_threaded(void);
/* It has sent calls that are not answered yet. */
bool cm_guest_calling(void);
/* Forgets an answer whose payload was not read, and what the guest asked: between executions there are none. */
void cm_guest_drop_answer(void);

/* One line on why the guest trapped. */
const char *cm_guest_trap_text(void);

#endif
