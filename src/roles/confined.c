/* SPDX-License-Identifier: Apache-2.0 */
/* How a worker of production begins: everything is mapped, then everything else is given up, then it serves. */
#include <unistd.h>

#include "jail/jail.h"
#include "roles/worker.h"

_Noreturn void cm_worker_main(int channel, pid_t gateway, const struct cm_image *image, uint64_t memory_limit)
{
    struct cm_err err;
    const struct cm_jail_worker jail = {.parent = gateway, .fds = {channel}, .fd_count = 1};
    if (cm_worker_signals(&err) || cm_image_map(image, memory_limit, &err) || cm_jail_worker(&jail, &err))
        _exit(70);
    cm_worker_serve(&(struct cm_worker_life){.thawed = false});
}
