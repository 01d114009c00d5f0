/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_ROLES_WORKER_H
#define CM_ROLES_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "image/image.h"

/* What every worker's guest is given: output goes to the gateway, new threads start the timer. */
extern const struct cm_guest_ops cm_worker_ops;

/* What a worker is told before it starts. */
struct cm_worker_orders {
    uint64_t memory_limit; /* bytes of linear memory */
    uint64_t undo; /* execution whose state is not wanted, if it was saved; 0: none */
    int checkpoint; /* the file of its checkpoints */
};
/* Reads the gateway's first frame. */
int cm_worker_begin(int channel, struct cm_worker_orders *ret, struct cm_err *err);
/* Tells the gateway why this worker cannot start, and ends it. */
_Noreturn void cm_worker_fail(int channel, const struct cm_err *why);

/* How a worker begins. Production workers begin with nothing, or what was saved; a test puts one into the middle of
 * an execution. */
struct cm_worker_life {
    uint64_t seq;                 /* of the state that it has already; 0: it is new */
    void (*save)(uint64_t seq);   /* called after an execution was answered; may be NULL */
    bool thawed;                  /* the guest runs already */
    uint64_t id;                  /* of the execution that it is in, 0: none */
    void (*on_wait)(uint64_t id); /* called before each wait of the guest; may be NULL */
    unsigned stop_every_us;       /* cm_guest_stop() that often; 0: never */
};
/* Handlers for the gateway's interrupt and the timer. */
int cm_worker_signals(struct cm_err *err);
/* Answers frames on descriptor CM_JAIL_CHANNEL until it closes. */
_Noreturn void cm_worker_serve(const struct cm_worker_life *life);

/* The life of a worker, in the process that the zygote has just forked: confined.c, or torture.c in tests. */
_Noreturn void cm_worker_main(int channel, pid_t gateway, const struct cm_image *image);

#endif
