/* SPDX-License-Identifier: Apache-2.0 */
/* Takes everything away from a process that it does not need.
 *
 * A worker ends with one descriptor, the system calls of tables/syscalls.def, no privilege to gain and a life that
 * depends on its parent's. Every step must succeed: after the first one has been made, an error means that the
 * process has to end.
 */
#ifndef CM_JAIL_H
#define CM_JAIL_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define CM_JAIL_CHANNEL    0 /* the descriptors of a worker: frames to and from the gateway, */
#define CM_JAIL_CHECKPOINT 1 /* the file that its state is saved in, */
#define CM_JAIL_PAGEMAP    2 /* and what tells which of its pages have changed */
#define CM_JAIL_FDS_MAX    3

struct cm_jail_worker {
    pid_t parent; /* who it must not outlive */
    int fds[CM_JAIL_FDS_MAX]; /* become descriptors 0, 1, 2; -1 for none. Every other one is closed. */
    unsigned fd_count; /* 1 to CM_JAIL_FDS_MAX */
    uint64_t file_max; /* bytes up to which a file among them may be written by write(2) and its kin */
};

/* The zygote: it lives no longer than its parent and can gain no privilege. `parent` is who it was started by. */
int cm_jail_zygote(pid_t parent, struct cm_err *err);
/* The worker. Call it after everything is mapped and before the first byte from outside is read. */
int cm_jail_worker(const struct cm_jail_worker *w, struct cm_err *err);
/* Opens /proc/self/NAME for reading, for `fds`. The descriptor, or an error: some machines have no such file. */
int cm_jail_open_self(const char *name, struct cm_err *err);

#endif
