/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_ROLES_ZYGOTE_H
#define CM_ROLES_ZYGOTE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "jail/jail.h"

#define CM_ZYGOTE_CHANNEL CM_JAIL_ZYGOTE_CHANNEL

/* The arguments of the sandbox executable: it has no environment and reads no file of settings. */
struct cm_sandbox_args {
    const char *image;
    struct cm_layers_wish layers;
    uid_t uid; /* whose it becomes when root starts it */
    bool check;
};

/* The life of the sandbox executable: loads the image and forks workers on request until its channel closes.
 * Returns the process's exit code. */
int cm_zygote_main(const struct cm_sandbox_args *args);
/* Instead of a life: tries everything that a zygote and a worker do before they serve, and says on the standard output
 * what came of it, one line each, words separated by tabs:
 *     layer NAME on | layer NAME off REASON      for each layer
 *     image ID                                   it is there and fits
 *     jail NANOSECONDS                           that the worker's jail took
 *     error TEXT                                 last line of a report of failure
 *     fit                                        last line of a report of success
 * Returns the process's exit code. */
int cm_sandbox_check(const struct cm_sandbox_args *args);
/* Gives up what a zygote does not need; *ret_layers are those that are on. confined.c, or torture.c in tests. */
int cm_zygote_confine(const struct cm_sandbox_args *args, pid_t gateway, uint32_t *ret_layers, struct cm_err *err);

#endif
