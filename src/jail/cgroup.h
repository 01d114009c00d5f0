/* SPDX-License-Identifier: Apache-2.0 */
/* One control group for all processes of the sandbox, made by the server below folders that it was given.
 *
 * The zygote is put there before it forks, so every worker begins there. It is one group and not one per worker:
 * moving a process makes the kernel wait for all its processors, and a worker's own memory is bounded already. For
 * the same reason memory.oom.group stays off: it would end all sessions for the sake of one.
 */
#ifndef CM_JAIL_CGROUP_H
#define CM_JAIL_CGROUP_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define CM_CGROUP_FOLDERS_MAX 4

struct cm_cgroup_limits {
    uint64_t memory; /* bytes of all workers together; 0: no limit */
    unsigned processes; /* 0: no limit */
    unsigned cpus; /* processors' worth of time; 0: no limit */
};

struct cm_cgroup {
    unsigned count;
    char path[CM_CGROUP_FOLDERS_MAX][512];
};

/* `folders`: absolute, separated by commas - one of cgroup v2, or one for each controller of v1. On failure, whatever
 * was made is removed and *ret is empty. */
int cm_cgroup_make(const char *folders, const struct cm_cgroup_limits *limits, struct cm_cgroup *ret,
                   struct cm_err *err);
int cm_cgroup_add(const struct cm_cgroup *g, pid_t pid, struct cm_err *err);
/* Removes the group; only an empty one goes. */
void cm_cgroup_remove(struct cm_cgroup *g);

#endif
