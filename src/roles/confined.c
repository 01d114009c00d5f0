/* SPDX-License-Identifier: Apache-2.0 */
/* How a worker of production begins: everything is mapped, then everything else is given up, then what was saved is
 * read, and then it serves. */
#include <errno.h>
#include <unistd.h>

#include "guest/layout.h"
#include "image/checkpoint.h"
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

/* From here on descriptor CM_ZYGOTE_CHANNEL is the worker's own channel: the filter knows no other to read from. */
static int take_orders(int channel, struct cm_worker_orders *ret, struct cm_err *err)
{
    if (dup2(channel, CM_ZYGOTE_CHANNEL) < 0)
        return cm_err_sys(err, errno, "move the channel");
    return cm_worker_begin(CM_ZYGOTE_CHANNEL, ret, err);
}

static int confine(pid_t gateway, const struct cm_image *image, const struct cm_worker_orders *orders,
                   struct cm_err *err)
{
    int rc = cm_worker_signals(err);
    if (!rc)
        rc = cm_image_map(image, orders->memory_limit, err);
    if (!rc)
        rc = cm_checkpoint_map(orders->checkpoint, image, err);
    if (rc)
        return rc;
    int pagemap = cm_jail_open_self("pagemap", err);
    if (pagemap < 0)
        return pagemap;
    const struct cm_jail_worker jail = {.parent = gateway,
                                        .fds = {CM_ZYGOTE_CHANNEL, orders->checkpoint, pagemap},
                                        .fd_count = 3,
                                        .data_max = orders->memory_limit + image->memory_size +
                                                    CM_STACKS * CM_STACK_SIZE + SLACK};
    return cm_jail_worker(&plan, &jail, err);
}

_Noreturn void cm_worker_main(int channel, pid_t gateway, const struct cm_image *image)
{
    struct cm_err err;
    struct cm_worker_orders orders = {0};
    uint64_t seq;
    if (take_orders(channel, &orders, &err))
        _exit(70);
    if (confine(gateway, image, &orders, &err))
        cm_worker_fail(CM_ZYGOTE_CHANNEL, &err);
    if (cm_checkpoint_restore(orders.undo, &seq, &err))
        cm_worker_fail(CM_JAIL_CHANNEL, &err);
    cm_worker_serve(&(struct cm_worker_life){.seq = seq, .save = cm_checkpoint_save});
}
