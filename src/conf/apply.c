/* SPDX-License-Identifier: Apache-2.0 */
/* What a good file means for the settings. */
#include <string.h>

#include "base/buf.h"
#include "base/words.h"
#include "conf/conf.h"
#include "conf/files.h"
#include "conf/tree.h"

#define PORT_OF_FILES "8001" /* of an executor with a file, whatever kind it is */

struct apply {
    const struct cm_conf_file *file;
    const struct cm_schema *schema;
    void *conf;
    struct cm_report *report;
};

static struct cm_conf_origin *origin(const struct apply *a, const struct cm_row *row)
{
    return &cm_schema_source(a->schema, a->conf)->origins[row - a->schema->rows];
}

/* `n` NULL: the default of the kind of file. `name` is static. */
static void set(const struct apply *a, const struct cm_row *row, const char *name, const struct cm_yaml *n,
                const char *text)
{
    struct cm_err err;

    if (cm_row_set(row, a->conf, name, text, &err) < 0) {
        cm_report_error(a->report, n ? n->line : 0, n ? n->col : 0, "%s", err.text);
        return;
    }
    *origin(a, row) =
        (struct cm_conf_origin){.from = n ? CM_CONF_FILE : CM_CONF_FILE_DEFAULT, .name = name, .line = n ? n->line : 0};
}

static void set_field(const struct apply *a, const char *field, const char *name, const struct cm_yaml *n,
                      const char *text)
{
    const struct cm_row *row = cm_row_by_field(a->schema, field, strlen(field));

    if (row)
        set(a, row, name, n, text);
}

/* A list as its setting has it: between commas. */
static const char *join(const struct apply *a, const struct cm_file_key *key, const struct cm_yaml *n,
                        struct cm_buf *space)
{
    int rc = cm_buf_puts(space, "");

    for (const struct cm_yaml *item = n ? n->first : NULL; item && rc == 0; item = item->next)
        rc = cm_buf_printf(space, "%s%s", item == n->first ? "" : ",", item->text);
    if (rc < 0 && n)
        cm_report_error(a->report, n->line, n->col, "%s: longer than %u bytes", key->path, CM_CONF_TEXT_MAX - 1);
    return rc < 0 ? "" : cm_buf_data(space);
}

static void set_key(const struct apply *a, const struct cm_file_key *key, const struct cm_yaml *n)
{
    struct cm_buf space;

    cm_buf_init(&space, CM_CONF_TEXT_MAX - 1);
    const char *text = key->type == CM_KEY_LIST ? join(a, key, n, &space) : n ? n->text : key->def;

    for (const char *at = key->fields; *at; at += strcspn(at, ","), at += *at == ',') {
        const struct cm_row *row = cm_row_by_field(a->schema, at, strcspn(at, ","));
        if (row && (n || *text)) /* an empty default changes nothing */
            set(a, row, key->path, n, text);
    }
    cm_buf_done(&space);
}

static bool is_set_by_key(const struct apply *a, const struct cm_row *row)
{
    return origin(a, row)->from == CM_CONF_FILE;
}

/* `settings`: any row by its field. */
static void set_settings(const struct apply *a, const struct cm_yaml *map)
{
    for (const struct cm_yaml *n = map->first; n; n = n->next) {
        const struct cm_row *row = cm_row_by_field(a->schema, n->key, strlen(n->key));
        const char *known[CM_CONF_ROWS_MAX + 1] = {0};
        for (size_t i = 0; !row && i < a->schema->count; i++)
            known[i] = a->schema->rows[i].field;
        const char *near = row ? NULL : cm_word_nearest(n->key, known);
        if (!row)
            cm_report_error(a->report, n->key_line, n->key_col, "settings.%.100s: unknown setting%s%s%s", n->key,
                            near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
        else if (n->kind != CM_YAML_SCALAR)
            cm_report_error(a->report, n->line, n->col, "settings.%s: wants %s", row->field, cm_row_wants(row->type));
        else if (is_set_by_key(a, row))
            cm_report_error(a->report, n->key_line, n->key_col, "settings.%s: %s has set it in line %u", row->field,
                            origin(a, row)->name, origin(a, row)->line);
        else if (!n->bad)
            set(a, row, row->field, n, n->text);
    }
}

static const struct cm_yaml *member(const struct cm_yaml *map, const char *key)
{
    const struct cm_yaml *n = map->first;

    while (n && strcmp(n->key, key) != 0)
        n = n->next;
    return n;
}

/* `config`: for the code, and in it the address of the tools. */
static void set_config(const struct apply *a, const struct cm_yaml *map)
{
    const struct cm_yaml *target = member(map, "tool_service_grpc");
    const struct cm_row *row = cm_row_by_field(a->schema, "main_app_target", strlen("main_app_target"));
    struct cm_conf *conf = a->conf; /* the one kind of file that has this key is the server's */
    struct cm_buf json;

    cm_buf_init(&json, CM_CONF_JSON_MAX - 1);
    if (map->first && cm_yaml_json(map, &json) < 0)
        cm_report_error(a->report, map->line, map->col, "config: longer than %u bytes as JSON", CM_CONF_JSON_MAX - 1);
    else
        memcpy(conf->config_json, cm_buf_data(&json), json.len + 1);
    cm_buf_done(&json);
    if (!target || !row || cm_yaml_is_null(target))
        return;
    if (target->kind != CM_YAML_SCALAR || !cm_conf_file_is_target(target->text)) {
        cm_report_error(a->report, target->line, target->col, "config.tool_service_grpc: is not HOST:PORT");
        return;
    }
    if (is_set_by_key(a, row) && strcmp(cm_conf_file_text(a->file, "grpc.tool_service_url"), target->text) != 0)
        cm_report_warning(a->report, target->line, target->col,
                          "config.tool_service_grpc: wins over grpc.tool_service_url, which is another one");
    set(a, row, "config.tool_service_grpc", target, target->text);
}

/* The executor's address names a port of this machine: that is where to listen. */
static void set_port(const struct apply *a)
{
    static const char *const here[] = {"http://localhost:",  "http://127.0.0.1:", "http://[::1]:", "https://localhost:",
                                       "https://127.0.0.1:", "https://[::1]:",    "localhost:",    "127.0.0.1:"};
    const char *url = cm_conf_file_text(a->file, "executor.url");
    char port[8];

    set_field(a, "port", "executor.url", NULL, PORT_OF_FILES);
    for (size_t i = 0; i < sizeof here / sizeof here[0]; i++) {
        size_t len = strlen(here[i]), digits = strspn(url + len * (strncmp(url, here[i], len) == 0), "0123456789");
        if (strncmp(url, here[i], len) != 0 || digits == 0 || digits >= sizeof port)
            continue;
        snprintf(port, sizeof port, "%.*s", (int)digits, url + len);
        set_field(a, "port", "executor.url", cm_conf_file_given(a->file, "executor.url"), port);
        origin(a, &a->schema->rows[CM_CONF_ROW_port])->from = CM_CONF_FILE_DEFAULT; /* `settings` may say another one */
        return;
    }
}

static void set_whole_key(const struct apply *a, size_t i)
{
    const struct cm_file_key *key = &cm_file_keys[i];
    const struct cm_yaml *n = a->file->given[i];

    if (key->use == CM_USE_SERVER || key->use == CM_USE_NEEDED)
        set_key(a, key, n);
    else if (key->use == CM_USE_CONFIG && n)
        set_config(a, n);
    else if (key->use == CM_USE_SETTINGS && n)
        set_settings(a, n);
}

int cm_conf_file_apply(const struct cm_conf_file *file, void *conf, struct cm_report *report)
{
    const struct apply a = {file, cm_conf_file_schema(file->kind), conf, report};

    if (file->kind == CM_FILE_UNIFIED)
        set_port(&a);
    for (size_t i = 0; i < CM_FILE_KEYS; i++)
        if (cm_file_keys[i].kind == file->kind)
            set_whole_key(&a, i);
    return report->error_count ? CM_ERR_CONFIG : 0;
}
