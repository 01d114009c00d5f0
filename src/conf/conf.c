/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/conf.h"

#include <libgen.h>
#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/words.h"
#include "conf/files.h"
#include "conf/policy.h"
#include "conf/rows.h"
#include "conf/value.h"

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

/* Every name of a setting's variable, the main one first. */
struct variable {
    const char *env;
    const struct cm_row *row;
};

#define ALIASES_MAX 64

static size_t list_variables(struct variable ret[static CM_CONF_ROWS + ALIASES_MAX])
{
    static const struct {
        const char *env;
        size_t row;
    } aliases[] = {
#define CM_CONFIG_ALIAS(env, field) {env, CM_CONF_ROW_##field},
#define CM_CONFIG_REFUSED(env, type, only, reason)
#define CM_CONFIG_RELOAD(field)
#include "config_names.def"
#undef CM_CONFIG_ALIAS
#undef CM_CONFIG_REFUSED
#undef CM_CONFIG_RELOAD
    };
    size_t n = 0;

    static_assert(sizeof(aliases) / sizeof(aliases[0]) <= ALIASES_MAX, "room for all aliases");
    for (size_t i = 0; i < CM_CONF_ROWS; i++)
        ret[n++] = (struct variable){cm_rows[i].env, &cm_rows[i]};
    for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++)
        ret[n++] = (struct variable){aliases[i].env, &cm_rows[aliases[i].row]};
    return n;
}

static void warn(struct cm_conf *conf, const char *text)
{
    size_t len = strlen(conf->warnings);

    snprintf(conf->warnings + len, sizeof(conf->warnings) - len, "%s\n", text);
}

/* One variable; of two names of one setting the first one that is set wins. */
static int load_variable(const struct variable *v, struct cm_conf *conf, struct cm_err *err)
{
    struct cm_conf_origin *origin = &conf->origins[v->row - cm_rows];
    const char *text = getenv(v->env), *first = origin->from == CM_CONF_ENVIRONMENT ? getenv(origin->name) : NULL;
    char warning[200];

    if (!text || !*text)
        return 0;
    if (first) {
        snprintf(warning, sizeof(warning), "%s is another value than %s, which wins", v->env, origin->name);
        if (strcmp(first, text) != 0)
            warn(conf, warning);
        return 0;
    }
    int rc = cm_row_set(v->row, conf, v->env, text, err);
    if (rc == 0)
        *origin = (struct cm_conf_origin){.from = CM_CONF_ENVIRONMENT, .name = v->env};
    return rc;
}

/* Variables that would loosen what this server does not loosen. */
static int refuse_variables(struct cm_err *err)
{
    static const struct {
        const char *env;
        enum cm_row_type type;
        const char *only, *reason;
    } refused[] = {
#define CM_CONFIG_ALIAS(env, field)
#define CM_CONFIG_REFUSED(env, type, only, reason) {env, CM_ROW_##type, only, reason},
#define CM_CONFIG_RELOAD(field)
#include "config_names.def"
#undef CM_CONFIG_ALIAS
#undef CM_CONFIG_REFUSED
#undef CM_CONFIG_RELOAD
    };

    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        const char *text = getenv(refused[i].env);
        bool yes = true, same = !text || !*text || strcmp(text, refused[i].only) == 0;
        if (!same && refused[i].type == CM_ROW_BOOL)
            same = cm_conf_parse_bool(text, &yes) && !yes;
        if (!same)
            return cm_err_set(err, CM_ERR_CONFIG, "%s: \"%.80s\" is not supported: %s", refused[i].env, text,
                              refused[i].reason);
    }
    return 0;
}

static int load_environment(struct cm_conf *conf, struct cm_err *err)
{
    struct variable variables[CM_CONF_ROWS + ALIASES_MAX];
    size_t count = list_variables(variables);

    for (size_t i = 0; i < count; i++) {
        int rc = load_variable(&variables[i], conf, err);
        if (rc < 0)
            return rc;
    }
    const char *packages = getenv("CODEMODE_PACKAGES"); /* other executors install them */
    if (packages && *packages)
        warn(conf, "CODEMODE_PACKAGES: nothing is installed; sessions have the standard library only");
    return refuse_variables(err);
}

static int unknown_flag(const char *arg, size_t len, struct cm_err *err)
{
    const char *known[CM_CONF_ROWS + 2];
    char word[64];

    for (size_t i = 0; i < CM_CONF_ROWS; i++)
        known[i] = cm_rows[i].flag;
    known[CM_CONF_ROWS] = "--config";
    known[CM_CONF_ROWS + 1] = NULL;
    snprintf(word, sizeof(word), "%.*s", (int)(len < 63 ? len : 63), arg);
    const char *near = cm_word_nearest(word, known);
    if (near)
        return cm_err_set(err, CM_ERR_CONFIG, "unknown flag \"%s\"; did you mean %s?", word, near);
    return cm_err_set(err, CM_ERR_CONFIG, "unknown flag \"%s\"; --help lists all flags", word);
}

static bool is_config_flag(const char *arg, size_t len)
{
    return (len == 2 && memcmp(arg, "-c", 2) == 0) || (len == 8 && memcmp(arg, "--config", 8) == 0);
}

/* Twice over the flags: the file that they name comes first, and they win over it. With `conf` NULL only the file's name
 * is taken. */
/* A flag of type BOOL may stand alone. */
static bool is_bool(const char *text)
{
    bool any;

    return cm_conf_parse_bool(text, &any);
}

static int load_flags(int argc, char *const *argv, struct cm_conf *conf, const char **ret_file, struct cm_err *err)
{
    for (int i = 0; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        size_t len = equals ? (size_t)(equals - argv[i]) : strlen(argv[i]);
        const struct cm_row *row = cm_row_by_flag(argv[i], len);

        if (!row && !is_config_flag(argv[i], len))
            return unknown_flag(argv[i], len, err);
        bool bare = !equals && row && row->type == CM_ROW_BOOL && !is_bool(i + 1 < argc ? argv[i + 1] : "");
        if (!equals && !bare && i + 1 >= argc)
            return cm_err_set(err, CM_ERR_CONFIG, "%s: needs a value", argv[i]);
        const char *value = bare ? "true" : equals ? equals + 1 : argv[++i];
        if (!row)
            *ret_file = value;
        if (!row || !conf)
            continue;
        int rc = cm_row_set(row, conf, row->flag, value, err);
        if (rc < 0)
            return rc;
        conf->origins[row - cm_rows] = (struct cm_conf_origin){.from = CM_CONF_FLAG, .name = row->flag};
    }
    return 0;
}

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

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static const char *choose_file(const char *flag)
{
    const char *variable = getenv("CODEMODE_SIDECAR_CONFIG");

    return flag                                              ? flag
           : variable && *variable                           ? variable
           : exists(cm_conf_file_kind_file(CM_FILE_SIDECAR)) ? cm_conf_file_kind_file(CM_FILE_SIDECAR)
           : exists(cm_conf_file_kind_file(CM_FILE_UNIFIED)) ? cm_conf_file_kind_file(CM_FILE_UNIFIED)
                                                             : NULL;
}

/* The first problem, and how many more there are. */
static int first_problem(struct cm_report *r, struct cm_err *err)
{
    char *text = cm_buf_data(&r->errors);
    int len = (int)strcspn(text, "\n");

    if (r->error_count > 1)
        return cm_err_set(err, CM_ERR_CONFIG, "%.*s (and %u more: codemode validate -c %.60s)", len > 380 ? 380 : len,
                          text, r->error_count - 1, r->file);
    return cm_err_set(err, CM_ERR_CONFIG, "%.*s", len, text);
}

static int load_file(const char *path, struct cm_conf *conf, struct cm_err *err)
{
    struct cm_report report;
    struct cm_conf_file file;
    int rc;

    if (strlen(path) >= sizeof(conf->file))
        return cm_err_set(err, CM_ERR_CONFIG, "--config: the path is too long");
    cm_report_init(&report, path);
    rc = cm_conf_file_read(path, CM_FILE_ANY, &file, &report);
    if (rc == 0 && file.kind == CM_FILE_CLIENT) {
        cm_report_error(&report, 0, 0, "is a file for clients of the executor, not for the executor");
        rc = CM_ERR_CONFIG;
    }
    rc = rc ? rc : cm_conf_file_apply(&file, conf, &report);
    if (rc < 0)
        first_problem(&report, err);
    snprintf(conf->file, sizeof(conf->file), "%s", path);
    snprintf(conf->warnings, sizeof(conf->warnings), "%s", cm_buf_data(&report.warnings));
    cm_conf_file_done(&file);
    cm_report_done(&report);
    return rc;
}

int cm_conf_environment(struct cm_conf *ret, struct cm_err *err)
{
    struct cm_conf conf;
    int rc = cm_conf_defaults(&conf, err);

    if (rc < 0 || (rc = load_environment(&conf, err)) < 0 || (rc = cm_conf_check(&conf, err)) < 0)
        return rc;
    *ret = conf;
    return 0;
}

int cm_conf_load(int argc, char *const *argv, struct cm_conf *ret, struct cm_err *err)
{
    const char *path = NULL;
    struct cm_conf conf;
    int rc = cm_conf_defaults(&conf, err);

    rc = rc ? rc : load_flags(argc, argv, NULL, &path, err);
    path = choose_file(path);
    rc = rc || !path ? rc : load_file(path, &conf, err);
    rc = rc ? rc : load_environment(&conf, err);
    rc = rc ? rc : load_flags(argc, argv, &conf, &path, err);
    rc = rc ? rc : cm_conf_check(&conf, err);
    if (rc < 0)
        return rc;
    conf.argc = argc;
    conf.argv = argv;
    *ret = conf;
    return 0;
}

static void add_name(char *list, const char *name)
{
    size_t len = strlen(list);

    snprintf(list + len, CM_CONF_NAMES_MAX - len, "%s%s", len ? "," : "", name);
}

int cm_conf_reload(struct cm_conf *conf, char *ret_changed, char *ret_kept, struct cm_err *err)
{
    struct cm_conf fresh;
    int rc = cm_conf_load(conf->argc, conf->argv, &fresh, err);

    if (rc < 0)
        return rc;
    *ret_changed = *ret_kept = '\0';
    for (size_t i = 0; i < CM_CONF_ROWS; i++) {
        if (cm_row_equal(&cm_rows[i], conf, &fresh))
            continue;
        add_name(cm_row_reloads(&cm_rows[i]) ? ret_changed : ret_kept, cm_rows[i].field);
        if (!cm_row_reloads(&cm_rows[i]))
            cm_row_copy(&cm_rows[i], &fresh, conf);
    }
    if (strcmp(conf->config_json, fresh.config_json) != 0)
        add_name(ret_changed, "config");
    /* What stayed may not fit what has changed. */
    if ((rc = cm_conf_check(&fresh, err)) < 0)
        return rc;
    *conf = fresh;
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

static void show_origin(const struct cm_conf *conf, const struct cm_conf_origin *o, FILE *out)
{
    if (o->from == CM_CONF_FILE)
        fprintf(out, "%s:%u (%s)", conf->file, o->line, o->name);
    else if (o->from == CM_CONF_FILE_DEFAULT)
        fprintf(out, "default of such a file (%s)", o->name);
    else if (o->from == CM_CONF_DEFAULT)
        fputs("default", out);
    else
        fprintf(out, "%s %s", o->from == CM_CONF_FLAG ? "flag" : "variable", o->name);
}

void cm_conf_show(const struct cm_conf *conf, FILE *out)
{
    struct cm_buf value;

    fprintf(out, "# configuration file: %s\n", *conf->file ? conf->file : "none");
    cm_buf_init(&value, CM_CONF_TEXT_MAX);
    for (size_t i = 0; i < CM_CONF_ROWS; i++) {
        bool text =
            cm_rows[i].type == CM_ROW_TEXT || cm_rows[i].type == CM_ROW_PATH || cm_rows[i].type == CM_ROW_SECRET;
        cm_buf_clear(&value);
        cm_row_print(&cm_rows[i], conf, &value);
        fprintf(out, "%s: %s%s%s  # ", cm_rows[i].field, text ? "\"" : "", cm_buf_data(&value), text ? "\"" : "");
        show_origin(conf, &conf->origins[i], out);
        fputc('\n', out);
    }
    cm_buf_done(&value);
    if (*conf->config_json)
        fprintf(out, "config: %s  # %s\n", conf->config_json, conf->file);
    if (*conf->warnings)
        fprintf(out, "# warnings\n# %.*s\n", (int)strlen(conf->warnings) - 1, conf->warnings);
}
