/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of the server: one checked struct, declared in tables/config.def. */
#ifndef CM_CONF_H
#define CM_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/limits.h"
#include "conf/fields.h"

enum {
#define CM_CONFIG(field, type, env, flag, min, max, def, unit, help) CM_CONF_ROW_##field,
#include "config.def"
#undef CM_CONFIG
    CM_CONF_ROWS /* how many settings there are */
};

#define CM_CONF_JSON_MAX (64u << 10)

struct cm_conf {
#define CM_CONFIG(field, type, env, flag, min, max, def, unit, help) CM_CONF_FIELD_##type(field);
#include "config.def"
#undef CM_CONFIG
    char config_json
        [CM_CONF_JSON_MAX]; /* `config` of executions that bring none: a JSON object; "" when there is none */
    struct cm_conf_source source;
};

/* Defaults only. Fails when a default cannot be resolved, e.g. a path too long. */
int cm_conf_defaults(struct cm_conf *ret, struct cm_err *err);
/* Defaults, then the environment. */
int cm_conf_environment(struct cm_conf *ret, struct cm_err *err);
/* Defaults, then a configuration file, then the environment, then the flags: argv[0] to argv[argc - 1], each `--flag
 * value` or `--flag=value`. The file is the one of -c or --config, else of CODEMODE_SIDECAR_CONFIG, else
 * ./codemode-sidecar.yaml, else ./codemode.yaml, else none. CM_ERR_CONFIG with the setting named, of a file with the first
 * problem; *ret is untouched then. */
int cm_conf_load(int argc, char *const *argv, struct cm_conf *ret, struct cm_err *err);
/* Settings that contradict each other: CM_ERR_CONFIG. The functions here ask it themselves. */
int cm_conf_check(const struct cm_conf *conf, struct cm_err *err);
/* Loads again from where `conf` came from. Settings that SIGHUP can change are taken over where they differ; *ret_changed
 * and *ret_kept (of CM_CONF_NAMES_MAX bytes each) name, separated by commas, what was changed and what would need a
 * restart. On failure nothing is changed. */
int cm_conf_reload(struct cm_conf *conf, char *ret_changed, char *ret_kept, struct cm_err *err);
/* Every setting with its value and where it comes from; secrets as ***. */
void cm_conf_show(const struct cm_conf *conf, FILE *out);
/* One paragraph per setting: flag, variable, default, range, meaning. */
void cm_conf_help(FILE *out);
/* What holds where nobody asks for a limit, and the most that one may ask for. */
void cm_conf_limits(const struct cm_conf *conf, struct cm_limits *ret_defaults, struct cm_limits *ret_caps);

#endif
