/* SPDX-License-Identifier: Apache-2.0 */
/* What runs need, with HTTP in front or without: a sidecar, ways to models, and the engine. */
#ifndef CM_ROLES_RLM_CORE_H
#define CM_ROLES_RLM_CORE_H

#include <stdbool.h>

#include "base/err.h"

struct cm_loop;
struct cm_metrics;
struct cm_rlm;
struct cm_models_local;
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
/* Whether the settings name a model; CM_ERR_CONFIG with what to set. */
int cm_rlm_core_check_model(const struct cm_rlm_conf *conf, struct cm_err *err);
/* Why there will be no model; "" where there is one, or may be soon. */
const char *cm_rlm_core_problem(const struct cm_rlm_core *c);
/* The model that is run here. */
void cm_rlm_core_local_model(const struct cm_rlm_core *c, struct cm_models_local *ret);
/* Once, when readiness changes next. */
void cm_rlm_core_on_change(struct cm_rlm_core *c, void (*changed)(void *arg), void *arg);
/* Cancels runs without a word. Accepts NULL. */
struct cm_rlm_core *cm_rlm_core_free(struct cm_rlm_core *c);

#endif
