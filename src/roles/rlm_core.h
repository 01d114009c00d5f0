/* SPDX-License-Identifier: Apache-2.0 */
/* What runs need, with HTTP in front or without: a sidecar, ways to models, and the engine. */
#ifndef CM_ROLES_RLM_CORE_H
#define CM_ROLES_RLM_CORE_H

#include <stdbool.h>

#include "base/err.h"

struct cm_loop;
struct cm_metrics;
struct cm_rlm;
struct cm_rlm_conf;
struct cm_rlm_core;

struct cm_rlm_core_config {
    const struct cm_rlm_conf *conf; /* a reload changes it in place */
    struct cm_metrics *metrics; /* or NULL */
    int sidecar_log; /* where a private sidecar logs to; -1: nowhere */
};

int cm_rlm_core_open(struct cm_loop *loop, const struct cm_rlm_core_config *config, struct cm_rlm_core **ret,
                     struct cm_err *err);
struct cm_rlm *cm_rlm_core_engine(struct cm_rlm_core *c);
/* Whether the sidecar has answered last that it is ready, and a model is named; if not, why. */
bool cm_rlm_core_ready(const struct cm_rlm_core *c, const char **ret_reason);
/* Of a model that is run here; NULL: none. */
const char *cm_rlm_core_local_model(const struct cm_rlm_core *c);
/* Once, when readiness changes next. */
void cm_rlm_core_on_change(struct cm_rlm_core *c, void (*changed)(void *arg), void *arg);
/* Cancels runs without a word. Accepts NULL. */
struct cm_rlm_core *cm_rlm_core_free(struct cm_rlm_core *c);

#endif
