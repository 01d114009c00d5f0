/* SPDX-License-Identifier: Apache-2.0 */
/* The heap of the image, arranged so that a session touches few of its pages. */
#ifndef CM_GUEST_HEAP_H
#define CM_GUEST_HEAP_H

/* Fills every hole in the image's heap with memory that is never given back: what a session allocates then goes
 * to fresh, adjacent pages instead of making old ones private all over the heap. 0, or -1 with a Python error. */
int heap_seal(void);

/* Memory that is kept back while user code runs, and released so that a session at its limit can still answer. */
void heap_reserve_take(void);
void heap_reserve_release(void);

/* The innermost line of a cell that ran when an allocation failed last, since heap_reserve_take(). cell 0: there was none. */
struct heap_place {
    int cell, line;
};
struct heap_place heap_failed_at(void);

#endif
