/* SPDX-License-Identifier: Apache-2.0 */
/* Takes everything away from a process that it does not need.
 *
 * First a plan: cm_jail_plan() asks the machine which layers (tables/layers.def) it allows and decides which are on.
 * Then cm_jail_apply() makes the steps of the plan (tables/jail-steps.def), first in the zygote, then in each worker.
 * Every step must succeed: after the first one has been made, an error means that the process has to end.
 */
#ifndef CM_JAIL_H
#define CM_JAIL_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "jail/filter.h"
#include "jail/layers.h"

#define CM_JAIL_CHANNEL        0 /* the descriptors of a worker: frames to and from the gateway, */
#define CM_JAIL_CHECKPOINT     1 /* the file that its state is saved in, */
#define CM_JAIL_PAGEMAP        2 /* and what tells which of its pages have changed */
#define CM_JAIL_FDS_MAX        3
#define CM_JAIL_ZYGOTE_CHANNEL 3 /* of the zygote */

struct cm_jail_plan {
    struct cm_layers_wish wish;
    uid_t uid; /* who the sandbox becomes when it is started by root; also the group */
    uint32_t on; /* layers that are applied, 1 << enum cm_layer */
    char why_off[CM_LAYER_COUNT][96]; /* for the others */
    int landlock_abi;
    bool user_namespace; /* the others need one */
};

struct cm_jail_worker {
    pid_t parent; /* who it must not outlive */
    int fds[CM_JAIL_FDS_MAX]; /* become descriptors 0, 1, 2; -1 for none. Every other one is closed. */
    unsigned fd_count; /* 1 to CM_JAIL_FDS_MAX */
    uint64_t file_max; /* bytes up to which a file among them may be written by write(2) and its kin */
    uint64_t data_max; /* bytes of private writable memory at the most */
};

/* What this machine allows; changes nothing in this process. `uid` is not 0. An error names the first layer that is
 * missing and has to be there; *ret is filled even then. Takes a descriptor of /proc for the process's whole life. */
int cm_jail_plan(const struct cm_layers_wish *wish, uid_t uid, struct cm_jail_plan *ret, struct cm_err *err);
/* The zygote: when its image is open, before it serves. `parent` is who it was started by. */
int cm_jail_zygote(const struct cm_jail_plan *plan, pid_t parent, struct cm_err *err);
/* The worker, forked from a zygote in the jail of the same plan. Call it after everything is mapped and before the
 * first byte from outside is read. */
int cm_jail_worker(const struct cm_jail_plan *plan, const struct cm_jail_worker *w, struct cm_err *err);
/* Opens /proc/self/NAME for reading, for `fds`. The descriptor, or an error: some machines have no such file. */
int cm_jail_open_self(const char *name, struct cm_err *err);

#endif
