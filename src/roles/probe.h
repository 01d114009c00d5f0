/* SPDX-License-Identifier: Apache-2.0 */
/* What the sandbox says of this machine: `codemode-sandbox --check`, read. */
#ifndef CM_ROLES_PROBE_H
#define CM_ROLES_PROBE_H

#include <stdbool.h>

#include "base/err.h"
#include "conf/conf.h"
#include "jail/cgroup.h"
#include "jail/layers.h"

/* Arguments of the sandbox executable behind --image PATH; points into the settings. */
struct cm_sandbox_arguments {
    char uid[12];
    const char *list[8]; /* ends with NULL */
};

struct cm_probe {
    struct cm_layers_wish wish;
    uint32_t on; /* layers that are, or would be, put on */
    char why_off[CM_LAYER_COUNT][200]; /* for the others */
    char image[96]; /* id of the image; empty when there is none that fits */
    bool fit; /* the server can start */
    struct cm_err problem; /* when it cannot */
};

void cm_sandbox_arguments(const struct cm_conf *conf, struct cm_sandbox_arguments *ret);
/* Runs the sandbox once and waits for it, at most ten seconds. An error when the settings are wrong or the sandbox
 * cannot be asked; that the machine will not do is no error but `fit`. */
int cm_probe_sandbox(const struct cm_conf *conf, struct cm_probe *ret, struct cm_err *err);
/* Makes the control group, if the settings name a place, and adds to the probe what came of it. */
void cm_probe_cgroup(const struct cm_conf *conf, struct cm_cgroup *ret, struct cm_probe *p);

#endif
