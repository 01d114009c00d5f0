/* SPDX-License-Identifier: Apache-2.0 */
/* The C library's heap, which keeps what is freed unless it is told to give it back. */
#ifndef CM_EV_HEAP_H
#define CM_EV_HEAP_H

#include "base/err.h"
#include "ev/loop.h"

struct cm_heap;

/* From here on the process gives back memory that it has freed: large buffers at once, and what lies between smaller things
 * that stay within a second or two. Before the process makes threads. NULL with *err filled. */
struct cm_heap *cm_heap_open(struct cm_loop *loop, struct cm_err *err);
/* NULL is allowed. Returns NULL. */
struct cm_heap *cm_heap_close(struct cm_heap *heap);

#endif
