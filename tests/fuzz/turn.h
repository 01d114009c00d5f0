/* SPDX-License-Identifier: Apache-2.0 */
/* Running the event loop for as long as there is something to do at once, and no longer. */
#ifndef CM_TESTS_TURN_H
#define CM_TESTS_TURN_H

#include <unistd.h>

#include "ev/loop.h"
#include "fuzz.h"

static void turn_is_over(void *arg)
{
    cm_loop_stop(arg);
}

/* One turn: the posted task keeps the loop from sleeping, and descriptors are looked at behind it. */
static inline void fuzz_turns(struct cm_loop *loop, unsigned count)
{
    struct cm_task task = {0};

    for (; count > 0; count--) {
        cm_task_post(loop, &task, turn_is_over, loop);
        cm_loop_run(loop);
    }
}

/* The lowest free descriptor: it rises when one of those below is not given back. */
static inline int fuzz_lowest_fd(void)
{
    int fd = dup(0);

    CHECK(fd >= 0);
    close(fd);
    return fd;
}

#endif
