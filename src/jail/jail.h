/* SPDX-License-Identifier: Apache-2.0 */
/* Takes everything away from a process that it does not need.
 *
 * A worker ends with one descriptor, the system calls of tables/syscalls.def, no privilege to gain and a life that
 * depends on its parent's. Every step must succeed: after the first one has been made, an error means that the
 * process has to end.
 */
#ifndef CM_JAIL_H
#define CM_JAIL_H

#include <sys/types.h>

#include "base/err.h"

#define CM_JAIL_CHANNEL 0 /* the one descriptor of a worker */

/* The zygote: it lives no longer than its parent and can gain no privilege. `parent` is who it was started by. */
int cm_jail_zygote(pid_t parent, struct cm_err *err);
/* The worker. `channel` becomes descriptor CM_JAIL_CHANNEL, all others are closed. Call it after everything is
 * mapped and before the first byte from outside is read. */
int cm_jail_worker(int channel, pid_t parent, struct cm_err *err);

#endif
