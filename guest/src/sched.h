/* SPDX-License-Identifier: Apache-2.0 */
/* Green threads: the one place where the guest waits. */
#ifndef CM_GUEST_SCHED_H
#define CM_GUEST_SCHED_H

#include <stdbool.h>
#include <stdint.h>

/* Blocks the running thread until `deadline` (monotonic ns, < 0: none). 0, or EINTR when an interrupt came. */
int cm_sched_sleep(int64_t deadline);
/* Blocks until the host takes output again. */
void cm_sched_wait_output(void);
/* Blocks until cm_sched_wake() of the same address, the deadline, or an interrupt. 0, ETIMEDOUT or EINTR. */
int cm_sched_block(const void *on, int64_t deadline);
/* Those who block on it come next. */
void cm_sched_wake(const void *on);
/* Looks what has happened outside, without waiting. */
void cm_sched_look(void);
/* Lets other threads run; called by the interpreter when it was asked to drop the GIL. */
void cm_sched_yield(void);
int64_t cm_sched_now(void);
/* True once after a deadlock was found: no thread could ever run again, so the main thread was woken to say so. */
bool cm_sched_take_deadlock(void);
int cm_sched_threads(void);

#endif
