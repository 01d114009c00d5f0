/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_ROLES_WORKER_H
#define CM_ROLES_WORKER_H

#include <stdint.h>
#include <sys/types.h>

#include "image/image.h"

/* What every worker's guest is given: output goes to the gateway, new threads start the timer. */
extern const struct cm_guest_ops cm_worker_ops;

/* The life of a worker, in the process that the zygote has just forked. Never returns. */
_Noreturn void cm_worker_main(int channel, pid_t gateway, const struct cm_image *image, uint64_t memory_limit);

#endif
