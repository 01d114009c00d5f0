/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/steps.h"

#include <stddef.h>

const struct cm_jail_step cm_jail_steps[] = {
#define CM_JAIL_STEP(who, layer, function, name, privilege, reason)                                                    \
    {CM_JAIL_##who, CM_LAYER_##layer, name, privilege, reason},
#include "jail-steps.def"
#undef CM_JAIL_STEP
    {.name = NULL},
};

const struct cm_jail_limit cm_jail_limits[] = {
#define CM_RLIMIT(who, resource, value, text, reason) {CM_JAIL_##who, #resource, text, reason},
#include "rlimits.def"
#undef CM_RLIMIT
    {.resource = NULL},
};
