/* SPDX-License-Identifier: Apache-2.0 */
/* Where everything of a session lies in its process.
 *
 * The addresses are the same in every process, so that machine code can name the linear memory by a constant and a
 * frozen session can go on in another process. Guest code, its constants and its state are linked there as sections
 * (guest.ld); the rest is mapped at start. The linear memory begins above the range in which the kernel may place
 * the heap of a program that is not position independent (1 GiB behind its last section), and below 2 GiB, so that
 * the base fits a signed 32-bit displacement.
 */
#ifndef CM_GUEST_LAYOUT_H
#define CM_GUEST_LAYOUT_H

#define CM_MEMORY_BASE 0x60000000ul
/* A 32-bit address plus a 32-bit offset plus the widest access, all inaccessible above the session's limit. */
#define CM_MEMORY_RESERVED ((8ul << 30) + (64ul << 10))
#define CM_MEMORY          ((unsigned char *)CM_MEMORY_BASE)
#define CM_MEMORY_MAX      (0xfffful << 16) /* one page below 4 GiB: sizes stay 32-bit numbers */

#define CM_STACK_BASE 0x300000000ul
#define CM_STACK_SIZE (8ul << 20) /* the lowest page of each is a guard */
#define CM_STACKS     256         /* one for each green thread: THREADS_MAX in guest/src/sched.c */

#endif
