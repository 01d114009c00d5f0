/* SPDX-License-Identifier: Apache-2.0 */
/* How a worker of production begins: everything is mapped, then everything else is given up, then it serves. */
#include <unistd.h>

#include "guest/layout.h"
#include "jail/jail.h"
#include "roles/worker.h"
#include "roles/zygote.h"

#define SLACK (64ul << 20) /* the executable's own data, the guest's tables */

static struct cm_jail_plan plan; /* made by the zygote, inherited by its workers */

int cm_zygote_confine(const struct cm_sandbox_args *args, pid_t gateway, uint32_t *ret_layers, struct cm_err *err)
{
    int rc = cm_jail_plan(&args->layers, args->uid, &plan, err);
    if (!rc)
        rc = cm_jail_zygote(&plan, gateway, err);
    if (!rc)
        *ret_layers = plan.on;
    return rc;
}

_Noreturn void cm_worker_main(int channel, pid_t gateway, const struct cm_image *image, uint64_t memory_limit)
{
    struct cm_err err;
    const struct cm_jail_worker jail = {.parent = gateway,
                                        .fds = {channel},
                                        .fd_count = 1,
                                        .data_max =
                                            memory_limit + image->memory_size + CM_STACKS * CM_STACK_SIZE + SLACK};
    if (cm_worker_signals(&err) || cm_image_map(image, memory_limit, &err) || cm_jail_worker(&plan, &jail, &err))
        _exit(70);
    cm_worker_serve(&(struct cm_worker_life){.thawed = false});
}
