/* SPDX-License-Identifier: Apache-2.0 */
/* How near the running thread is to the end of its shadow stack: where C recursion has to stop, whatever it counts.
 *
 * CPython counts the calls that nest, but one of them may take 100 bytes of stack or 3,000, and green threads have
 * a smaller stack than the main thread. Beyond `cm_stack_low` (guest/src/sched.c) is what calls that do not nest need.
 */
#ifndef CM_STACK_H
#define CM_STACK_H

extern char *cm_stack_low;

static inline int cm_stack_short(void)
{
    return (char *)__builtin_frame_address(0) < cm_stack_low;
}

#endif
