/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf.h"

#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/words.h"
#include "conf/rows.h"

#define EXE_PREFIX "{exe}"

static int exe_folder(char ret[static PATH_MAX], struct cm_err *err)
{
    ssize_t n = readlink("/proc/self/exe", ret, PATH_MAX - 1);

    if (n < 0)
        return cm_err_set(err, CM_ERR_CONFIG, "cannot find the folder of the executable: /proc is not mounted");
    ret[n] = '\0';
    dirname(ret); /* glibc cuts the text in place */
    return 0;
}

static int set_default(const struct cm_row *row, struct cm_conf *conf, struct cm_err *err)
{
    char folder[PATH_MAX], path[PATH_MAX + 64];
    size_t prefix = sizeof(EXE_PREFIX) - 1;

    if (strncmp(row->def, EXE_PREFIX, prefix) != 0)
        return cm_row_set(row, conf, row->flag, row->def, err);
    int rc = exe_folder(folder, err);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof(path), "%s%s", folder, row->def + prefix);
    return cm_row_set(row, conf, row->flag, path, err);
}

int cm_conf_defaults(struct cm_conf *ret, struct cm_err *err)
{
    struct cm_conf conf;

    memset(&conf, 0, sizeof(conf));
    for (size_t i = 0; i < CM_CONF_ROWS; i++) {
        int rc = set_default(&cm_rows[i], &conf, err);
        if (rc < 0)
            return rc;
    }
    *ret = conf;
    return 0;
}

static int load_environment(struct cm_conf *conf, struct cm_err *err)
{
    for (size_t i = 0; i < CM_CONF_ROWS; i++) {
        const char *text = getenv(cm_rows[i].env);
        if (!text || !*text)
            continue;
        int rc = cm_row_set(&cm_rows[i], conf, cm_rows[i].env, text, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int unknown_flag(const char *arg, size_t len, struct cm_err *err)
{
    const char *known[CM_CONF_ROWS + 1];
    char word[64];

    for (size_t i = 0; i < CM_CONF_ROWS; i++)
        known[i] = cm_rows[i].flag;
    known[CM_CONF_ROWS] = NULL;
    snprintf(word, sizeof(word), "%.*s", (int)(len < 63 ? len : 63), arg);
    const char *near = cm_word_nearest(word, known);
    if (near)
        return cm_err_set(err, CM_ERR_CONFIG, "unknown flag \"%s\"; did you mean %s?", word, near);
    return cm_err_set(err, CM_ERR_CONFIG, "unknown flag \"%s\"; --help lists all flags", word);
}

static int load_flags(int argc, char *const *argv, struct cm_conf *conf, struct cm_err *err)
{
    for (int i = 0; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        size_t len = equals ? (size_t)(equals - argv[i]) : strlen(argv[i]);
        const struct cm_row *row = cm_row_by_flag(argv[i], len);

        if (!row)
            return unknown_flag(argv[i], len, err);
        if (!equals && i + 1 >= argc)
            return cm_err_set(err, CM_ERR_CONFIG, "%s: needs a value", row->flag);
        int rc = cm_row_set(row, conf, row->flag, equals ? equals + 1 : argv[++i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

void cm_conf_limits(const struct cm_conf *conf, struct cm_limits *ret_defaults, struct cm_limits *ret_caps)
{
    const double defaults[] = {
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
        ret_caps->at[i] = cap;
        ret_defaults->at[i] = defaults[i] > 0 || cm_limit_info(i)->min == 0 ? defaults[i] : cap;
    }
}

static int check_limits(const struct cm_conf *conf, struct cm_err *err)
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
    return 0;
}

int cm_conf_load(int argc, char *const *argv, struct cm_conf *ret, struct cm_err *err)
{
    struct cm_conf conf;
    int rc = cm_conf_defaults(&conf, err);

    if (rc == 0)
        rc = load_environment(&conf, err);
    if (rc == 0)
        rc = load_flags(argc, argv, &conf, err);
    if (rc < 0)
        return rc;
    if ((rc = check_limits(&conf, err)) < 0)
        return rc;
    *ret = conf;
    return 0;
}

void cm_conf_help(FILE *out)
{
    for (size_t i = 0; i < CM_CONF_ROWS; i++) {
        const struct cm_row *row = &cm_rows[i];
        bool number = row->type == CM_ROW_UINT || row->type == CM_ROW_BYTES || row->type == CM_ROW_SECONDS ||
                      row->type == CM_ROW_PORTS;

        fprintf(out, "  %s VALUE  (%s)\n      %s\n", row->flag, row->env, row->help);
        fprintf(out, "      default: %s", *row->def ? row->def : "none");
        if (number)
            fprintf(out, ", from %.12g to %.12g %s", row->min, row->max, row->unit);
        fputc('\n', out);
    }
}
