/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "conf/policy.h"
#include "conf/schema.h"

static_assert((int)CM_CONF_ROWS <= CM_CONF_ROWS_MAX, "room for the origins of all settings");

static const struct cm_row rows[CM_CONF_ROWS] = {
#define CM_CONFIG(field, type, env, flag, min, max, def, unit, help)                                                   \
    {#field, env, flag, CM_ROW_##type, offsetof(struct cm_conf, field), min, max, def, unit, help},
#include "config.def"
#undef CM_CONFIG
};

/* config_names.def, three times. */
#define CM_CONFIG_REFUSED(env, type, only, reason)
#define CM_CONFIG_RELOAD(field)
#define CM_CONFIG_ALIAS(env, field) {env, CM_CONF_ROW_##field},
static const struct cm_alias aliases[] = {
#include "config_names.def"
};
#undef CM_CONFIG_ALIAS
#undef CM_CONFIG_REFUSED
#define CM_CONFIG_ALIAS(env, field)
#define CM_CONFIG_REFUSED(env, type, only, reason) {env, CM_ROW_##type, only, reason},
static const struct cm_refused refused[] = {
#include "config_names.def"
};
#undef CM_CONFIG_REFUSED
#undef CM_CONFIG_RELOAD
#define CM_CONFIG_REFUSED(env, type, only, reason)
#define CM_CONFIG_RELOAD(field) [CM_CONF_ROW_##field] = true,
static const bool reloads[CM_CONF_ROWS] = {
#include "config_names.def"
};
#undef CM_CONFIG_ALIAS
#undef CM_CONFIG_REFUSED
#undef CM_CONFIG_RELOAD

void cm_conf_limits(const struct cm_conf *conf, struct cm_limits *ret_defaults, struct cm_limits *ret_caps)
{
    double defaults[] = {
#define CM_LIMIT(id, name, unit, scope, def, def_key, cap, cap_key, min, help) (double)conf->def,
#include "limits.def"
#undef CM_LIMIT
    };
    const double caps[] = {
#define CM_LIMIT(id, name, unit, scope, def, def_key, cap, cap_key, min, help) (double)conf->cap,
#include "limits.def"
#undef CM_LIMIT
    };

    for (int i = 0; i < CM_LIMITS; i++) {
        bool none = cm_limit_info(i)->min > 0 && defaults[i] == 0 && caps[i] == 0;
        double cap = none ? conf->max_timeout : caps[i] > 0 ? caps[i] : defaults[i];
        if (i == CM_LIMIT_TOOL_TIMEOUT && defaults[i] > cap) /* no call outlives its execution */
            defaults[i] = cap;
        ret_caps->at[i] = cap;
        ret_defaults->at[i] = defaults[i] > 0 || cm_limit_info(i)->min == 0 ? defaults[i] : cap;
    }
}

int cm_conf_check(const struct cm_conf *conf, struct cm_err *err)
{
    struct cm_limits defaults, caps;

    cm_conf_limits(conf, &defaults, &caps);
    for (int i = 0; i < CM_LIMITS; i++) {
        const struct cm_limit_info *info = cm_limit_info(i);
        if (defaults.at[i] > caps.at[i])
            return cm_err_set(err, CM_ERR_CONFIG, "%s (%.15g) is above %s (%.15g)", info->def_key, defaults.at[i],
                              info->cap_key, caps.at[i]);
        if (defaults.at[i] < info->min)
            return cm_err_set(err, CM_ERR_CONFIG, "%s (%.15g) is less than the least that works, %.15g%s",
                              info->def_key, defaults.at[i], info->min, cm_limit_unit_text(i));
    }
    return cm_conf_policy(conf, NULL, NULL, err);
}

static int check(const void *conf, struct cm_err *err)
{
    return cm_conf_check(conf, err);
}

static void look(struct cm_conf_source *source)
{
    const char *packages = getenv("CODEMODE_PACKAGES"); /* other executors install them */

    if (packages && *packages)
        cm_schema_warn(source, "CODEMODE_PACKAGES: nothing is installed; sessions have the standard library only");
}

const struct cm_schema cm_conf_schema = {
    .rows = rows,
    .count = CM_CONF_ROWS,
    .size = sizeof(struct cm_conf),
    .source = offsetof(struct cm_conf, source),
    .aliases = aliases,
    .aliases_count = CM_COUNT_OF(aliases),
    .refused = refused,
    .refused_count = CM_COUNT_OF(refused),
    .reloads = reloads,
    .file_variable = "CODEMODE_SIDECAR_CONFIG",
    .files = {"codemode-sidecar.yaml", "codemode.yaml", NULL},
    .file_kind = -1,
    .of = "the executor",
    .check = check,
    .look = look,
};

int cm_conf_defaults(struct cm_conf *ret, struct cm_err *err)
{
    return cm_schema_defaults(&cm_conf_schema, ret, err);
}

int cm_conf_environment(struct cm_conf *ret, struct cm_err *err)
{
    return cm_schema_environment(&cm_conf_schema, ret, err);
}

int cm_conf_load(int argc, char *const *argv, struct cm_conf *ret, struct cm_err *err)
{
    return cm_schema_load(&cm_conf_schema, argc, argv, ret, err);
}

int cm_conf_reload(struct cm_conf *conf, char *ret_changed, char *ret_kept, struct cm_err *err)
{
    cm_autofree char *before = strdup(conf->config_json);
    int rc = before ? cm_schema_reload(&cm_conf_schema, conf, ret_changed, ret_kept, err)
                    : cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for settings");

    if (rc == 0 && before && strcmp(before, conf->config_json) != 0)
        cm_schema_add_name(ret_changed, "config");
    return rc;
}

void cm_conf_help(FILE *out)
{
    cm_schema_help(&cm_conf_schema, out);
}

void cm_conf_show(const struct cm_conf *conf, FILE *out)
{
    cm_schema_show(&cm_conf_schema, conf, out);
    if (*conf->config_json)
        fprintf(out, "config: %s  # %s\n", conf->config_json, conf->source.file);
    if (*conf->source.warnings)
        fprintf(out, "# warnings\n# %.*s\n", (int)strlen(conf->source.warnings) - 1, conf->source.warnings);
}
