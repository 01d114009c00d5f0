/* SPDX-License-Identifier: Apache-2.0 */
/* The jail as data, for whoever prints it: the steps, and the resource limits. The calls are in filter.h. */
#ifndef CM_JAIL_STEPS_H
#define CM_JAIL_STEPS_H

#include "jail/filter.h"
#include "jail/layers.h"

struct cm_jail_step {
    enum cm_jail_who who;
    enum cm_layer layer;
    const char *name, *privilege, *reason; /* privilege: what it needs, "" for nothing */
};

struct cm_jail_limit {
    enum cm_jail_who who;
    const char *resource, *value, *reason;
};

/* In order; each ends with an element without name or resource. */
extern const struct cm_jail_step cm_jail_steps[];
extern const struct cm_jail_limit cm_jail_limits[];

#endif
