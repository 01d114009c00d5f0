/* SPDX-License-Identifier: Apache-2.0 */
/* Which model stands where, and with which key: what the settings and a request's names come to. */
#ifndef CM_INFER_MODELS_H
#define CM_INFER_MODELS_H

#include <stdbool.h>

#include "llm/llm.h"
#include "rlm/rlm.h"

struct cm_rlm_conf;

/* A model that we run ourselves. */
struct cm_models_local {
    const char *name; /* NULL: there is none */
    const char *url; /* where it is served; NULL: it does not answer yet, or never will */
};

/* Whether the settings name a place that models are served at; if not, MODEL_PATH is all there is. */
bool cm_models_configured(const struct cm_rlm_conf *conf);

/* Of a run that names none: LLM_MODEL, but where nobody has set it, a model of ours has its own name. Else it would have the
 * window and the prices of another. */
const char *cm_models_name(const struct cm_rlm_conf *conf, const struct cm_models_local *local);
/* Fills models and models_count of the request. `names` are those of depth 1, 2, ..., `count` of them, none: the settings';
 * `model` NULL: the settings'. The strings are those of the settings, of `local`, of `names`, or static; `space`, of
 * CM_MODELS_SPACE bytes, holds the rest. */
#define CM_MODELS_SPACE 1024
void cm_models_fill(const struct cm_rlm_conf *conf, const struct cm_models_local *local, const char *model,
                    const char *const *names, unsigned count, char space[static CM_MODELS_SPACE],
                    struct cm_rlm_request *to);

#endif
