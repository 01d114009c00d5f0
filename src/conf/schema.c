/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/schema.h"

#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/url.h"
#include "base/words.h"
#include "conf/files.h"
#include "conf/value.h"

#define EXE_PREFIX "{exe}"

struct cm_conf_source *cm_schema_source(const struct cm_schema *s, void *conf)
{
    return (struct cm_conf_source *)((char *)conf + s->source);
}

static struct cm_conf_origin *origin_of(const struct cm_schema *s, void *conf, const struct cm_row *row)
{
    return &cm_schema_source(s, conf)->origins[row - s->rows];
}

static int exe_folder(char ret[static PATH_MAX], struct cm_err *err)
{
    ssize_t n = readlink("/proc/self/exe", ret, PATH_MAX - 1);

    if (n < 0)
        return cm_err_set(err, CM_ERR_CONFIG, "cannot find the folder of the executable: /proc is not mounted");
    ret[n] = '\0';
    dirname(ret); /* glibc cuts the text in place */
    return 0;
}

static int set_default(const struct cm_row *row, void *conf, struct cm_err *err)
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

int cm_schema_defaults(const struct cm_schema *s, void *ret, struct cm_err *err)
{
    cm_autofree char *conf = calloc(1, s->size);

    if (!conf)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for settings");
    for (size_t i = 0; i < s->count; i++) {
        int rc = set_default(&s->rows[i], conf, err);
        if (rc < 0)
            return rc;
    }
    memcpy(ret, conf, s->size);
    return 0;
}

void cm_schema_warn(struct cm_conf_source *source, const char *text)
{
    size_t len = strlen(source->warnings);

    snprintf(source->warnings + len, sizeof(source->warnings) - len, "%s\n", text);
}

/* One variable; of two names of one setting the first one that is set wins. */
static int load_variable(const struct cm_schema *s, const char *env, const struct cm_row *row, void *conf,
                         struct cm_err *err)
{
    struct cm_conf_origin *origin = origin_of(s, conf, row);
    const char *text = getenv(env), *first = origin->from == CM_CONF_ENVIRONMENT ? getenv(origin->name) : NULL;
    char warning[200];

    if (!text || !*text)
        return 0;
    if (first) {
        snprintf(warning, sizeof(warning), "%s is another value than %s, which wins", env, origin->name);
        if (strcmp(first, text) != 0)
            cm_schema_warn(cm_schema_source(s, conf), warning);
        return 0;
    }
    int rc = cm_row_set(row, conf, env, text, err);
    if (rc == 0)
        *origin = (struct cm_conf_origin){.from = CM_CONF_ENVIRONMENT, .name = env};
    return rc;
}

/* Variables that would loosen what a program does not loosen. */
static int refuse_variables(const struct cm_schema *s, struct cm_err *err)
{
    for (size_t i = 0; i < s->refused_count; i++) {
        const struct cm_refused *r = &s->refused[i];
        const char *text = getenv(r->env);
        bool yes = true, same = !text || !*text || strcmp(text, r->only) == 0;
        if (!same && r->type == CM_ROW_BOOL)
            same = cm_conf_parse_bool(text, &yes) && !yes;
        if (!same)
            return cm_err_set(err, CM_ERR_CONFIG, "%s: \"%.80s\" is not supported: %s", r->env, text, r->reason);
    }
    return 0;
}

/* The main names first, so that they win. */
static int load_environment(const struct cm_schema *s, void *conf, struct cm_err *err)
{
    int rc = 0;

    for (size_t i = 0; i < s->count && rc == 0; i++)
        rc = load_variable(s, s->rows[i].env, &s->rows[i], conf, err);
    for (size_t i = 0; i < s->aliases_count && rc == 0; i++)
        rc = load_variable(s, s->aliases[i].env, &s->rows[s->aliases[i].row], conf, err);
    if (rc < 0)
        return rc;
    if (s->look)
        s->look(cm_schema_source(s, conf));
    return refuse_variables(s, err);
}

static int unknown_flag(const struct cm_schema *s, const char *arg, size_t len, struct cm_err *err)
{
    const char *known[CM_CONF_ROWS_MAX + 2];
    char word[64];

    for (size_t i = 0; i < s->count; i++)
        known[i] = s->rows[i].flag;
    known[s->count] = "--config";
    known[s->count + 1] = NULL;
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

/* A flag of type BOOL may stand alone. */
static bool is_bool(const char *text)
{
    bool any;

    return cm_conf_parse_bool(text, &any);
}

/* Twice over the flags: the file that they name comes first, and they win over it. With `conf` NULL only the file's name
 * is taken. */
static int load_flags(const struct cm_schema *s, int argc, char *const *argv, void *conf, const char **ret_file,
                      struct cm_err *err)
{
    for (int i = 0; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        size_t len = equals ? (size_t)(equals - argv[i]) : strlen(argv[i]);
        const struct cm_row *row = cm_row_by_flag(s, argv[i], len);

        if (!row && !is_config_flag(argv[i], len))
            return unknown_flag(s, argv[i], len, err);
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
        *origin_of(s, conf, row) = (struct cm_conf_origin){.from = CM_CONF_FLAG, .name = row->flag};
    }
    return 0;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static const char *choose_file(const struct cm_schema *s, const char *flag)
{
    const char *variable = getenv(s->file_variable);

    if (flag || (variable && *variable))
        return flag ? flag : variable;
    for (const char *const *name = s->files; *name; name++)
        if (exists(*name))
            return *name;
    return NULL;
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

static bool is_ours(const struct cm_schema *s, enum cm_file_kind kind)
{
    return s->file_kind < 0 ? kind == CM_FILE_SIDECAR || kind == CM_FILE_UNIFIED : (int)kind == s->file_kind;
}

static int load_file(const struct cm_schema *s, const char *path, void *conf, struct cm_err *err)
{
    struct cm_conf_source *source = cm_schema_source(s, conf);
    struct cm_report report;
    struct cm_conf_file file;
    int rc;

    if (strlen(path) >= sizeof(source->file))
        return cm_err_set(err, CM_ERR_CONFIG, "--config: the path is too long");
    cm_report_init(&report, path);
    rc = cm_conf_file_read(path, s->file_kind < 0 ? CM_FILE_ANY : (enum cm_file_kind)s->file_kind, &file, &report);
    if (rc == 0 && !is_ours(s, file.kind)) {
        cm_report_error(&report, 0, 0, "is a file for %s, not for %s", cm_conf_file_kind_owner(file.kind), s->of);
        rc = CM_ERR_CONFIG;
    }
    rc = rc ? rc : cm_conf_file_apply(&file, conf, &report);
    if (rc < 0)
        first_problem(&report, err);
    snprintf(source->file, sizeof(source->file), "%s", path);
    snprintf(source->warnings, sizeof(source->warnings), "%s", cm_buf_data(&report.warnings));
    cm_conf_file_done(&file);
    cm_report_done(&report);
    return rc;
}

int cm_schema_environment(const struct cm_schema *s, void *ret, struct cm_err *err)
{
    cm_autofree char *conf = malloc(s->size);

    if (!conf)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for settings");
    int rc = cm_schema_defaults(s, conf, err);
    if (rc < 0 || (rc = load_environment(s, conf, err)) < 0 || (rc = s->check(conf, err)) < 0)
        return rc;
    memcpy(ret, conf, s->size);
    return 0;
}

int cm_schema_load(const struct cm_schema *s, int argc, char *const *argv, void *ret, struct cm_err *err)
{
    const char *path = NULL;
    cm_autofree char *conf = malloc(s->size);

    if (!conf)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for settings");
    int rc = cm_schema_defaults(s, conf, err);
    rc = rc ? rc : load_flags(s, argc, argv, NULL, &path, err);
    path = choose_file(s, path);
    rc = rc || !path ? rc : load_file(s, path, conf, err);
    rc = rc ? rc : load_environment(s, conf, err);
    rc = rc ? rc : load_flags(s, argc, argv, conf, &path, err);
    rc = rc ? rc : s->check(conf, err);
    rc = rc || !s->finish ? rc : s->finish(conf, err);
    if (rc < 0)
        return rc;
    cm_schema_source(s, conf)->argc = argc;
    cm_schema_source(s, conf)->argv = argv;
    memcpy(ret, conf, s->size);
    return 0;
}

void cm_schema_add_name(char *list, const char *name)
{
    size_t len = strlen(list);

    snprintf(list + len, CM_CONF_NAMES_MAX - len, "%s%s", len ? "," : "", name);
}

int cm_schema_reload(const struct cm_schema *s, void *conf, char *ret_changed, char *ret_kept, struct cm_err *err)
{
    struct cm_conf_source *source = cm_schema_source(s, conf);
    cm_autofree char *fresh = malloc(s->size);

    if (!fresh)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for settings");
    int rc = cm_schema_load(s, source->argc, source->argv, fresh, err);
    if (rc < 0)
        return rc;
    *ret_changed = *ret_kept = '\0';
    for (size_t i = 0; i < s->count; i++) {
        const struct cm_row *row = &s->rows[i];
        if (cm_row_equal(row, conf, fresh))
            continue;
        cm_schema_add_name(s->reloads[i] ? ret_changed : ret_kept, row->field);
        if (!s->reloads[i])
            cm_row_copy(row, fresh, conf);
    }
    /* What stayed may not fit what has changed. */
    if ((rc = s->check(fresh, err)) < 0)
        return rc;
    memcpy(conf, fresh, s->size);
    return 0;
}

void cm_schema_help(const struct cm_schema *s, FILE *out)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct cm_row *row = &s->rows[i];
        bool number = row->type == CM_ROW_UINT || row->type == CM_ROW_BYTES || row->type == CM_ROW_SECONDS ||
                      row->type == CM_ROW_NUMBER || row->type == CM_ROW_PORTS;

        fprintf(out, "  %s VALUE  (%s)\n      %s\n", row->flag, row->env, row->help);
        fprintf(out, "      default: %s", *row->def ? row->def : "none");
        if (number)
            fprintf(out, ", from %.12g to %.12g %s", row->min, row->max, row->unit);
        fputc('\n', out);
    }
}

static void show_origin(const struct cm_conf_source *source, const struct cm_conf_origin *o, FILE *out)
{
    if (o->from == CM_CONF_FILE)
        fprintf(out, "%s:%u (%s)", source->file, o->line, o->name);
    else if (o->from == CM_CONF_FILE_DEFAULT)
        fprintf(out, "default of such a file (%s)", o->name);
    else if (o->from == CM_CONF_DEFAULT)
        fputs("default", out);
    else
        fprintf(out, "%s %s", o->from == CM_CONF_FLAG ? "flag" : "variable", o->name);
}

void cm_schema_show(const struct cm_schema *s, const void *conf, FILE *out)
{
    const struct cm_conf_source *source = (const struct cm_conf_source *)((const char *)conf + s->source);
    char shown[CM_URL_SHOWN_MAX];
    struct cm_buf value;

    fprintf(out, "# configuration file: %s\n", *source->file ? source->file : "none");
    cm_buf_init(&value, CM_CONF_TEXT_MAX);
    for (size_t i = 0; i < s->count; i++) {
        const struct cm_row *row = &s->rows[i];
        bool text = row->type == CM_ROW_TEXT || row->type == CM_ROW_PATH || row->type == CM_ROW_SECRET;
        cm_buf_clear(&value);
        cm_row_print(row, conf, &value);
        bool url = row->type == CM_ROW_TEXT && strstr(cm_buf_data(&value), "://"); /* which may hold a password */
        if (url)
            cm_url_show(cm_buf_data(&value), shown);
        fprintf(out, "%s: %s%s%s  # ", row->field, text ? "\"" : "", url ? shown : cm_buf_data(&value),
                text ? "\"" : "");
        show_origin(source, &source->origins[i], out);
        fputc('\n', out);
    }
    cm_buf_done(&value);
}
