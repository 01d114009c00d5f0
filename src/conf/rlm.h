/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of `rlm`: one checked struct, declared in tables/rlm_config.def. */
#ifndef CM_CONF_RLM_H
#define CM_CONF_RLM_H

#include <stdio.h>

#include "base/err.h"
#include "conf/fields.h"

struct cm_rlm_conf {
#define CM_CONFIG(field, type, env, flag, min, max, def, unit, help) CM_CONF_FIELD_##type(field);
#include "rlm_config.def"
#undef CM_CONFIG
    struct cm_conf_source source;
};

/* All as in conf.h. The file is the one of -c or --config, else of RLM_CONFIG, else ./rlm.yaml, else none. Keys that are in
 * files, LLM_API_KEY_FILE and CODEMODE_API_KEY_FILE, are read as well. */
int cm_rlm_conf_load(int argc, char *const *argv, struct cm_rlm_conf *ret, struct cm_err *err);
int cm_rlm_conf_reload(struct cm_rlm_conf *conf, char *ret_changed, char *ret_kept, struct cm_err *err);
void cm_rlm_conf_show(const struct cm_rlm_conf *conf, FILE *out);
void cm_rlm_conf_help(FILE *out);

#endif
