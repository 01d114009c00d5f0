/* SPDX-License-Identifier: Apache-2.0 */
/* A file against the table: unknown keys, wrong values, rules between keys. Everything that is wrong is reported. */
#include "conf/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/words.h"
#include "conf/value.h"
#include "conf/tree.h"

#define PATH_LEN_MAX 512

/* which kind of file it is */

static bool is_root_key(enum cm_file_kind kind, const char *key)
{
    size_t len = strlen(key);

    for (size_t i = 0; i < CM_FILE_KEYS; i++) {
        const char *path = cm_file_keys[i].path;
        if (cm_file_keys[i].kind == kind && strncmp(path, key, len) == 0 && (!path[len] || path[len] == '.'))
            return true;
    }
    return false;
}

/* The one that knows most of its keys; where that does not decide, its name does. */
static enum cm_file_kind guess_kind(const struct cm_yaml *root, const char *name)
{
    enum cm_file_kind best = strstr(name, "sidecar")  ? CM_FILE_SIDECAR
                             : strstr(name, "client") ? CM_FILE_CLIENT
                                                      : CM_FILE_UNIFIED;
    unsigned most = 0;

    for (int kind = -1; kind < CM_FILE_RLM; kind++) { /* -1: the one of its name first, so that it wins a tie */
        enum cm_file_kind candidate = kind < 0 ? best : (enum cm_file_kind)kind;
        unsigned known = 0;
        for (const struct cm_yaml *n = root->first; n; n = n->next)
            known += is_root_key(candidate, n->key);
        if (known > most) {
            most = known;
            best = candidate;
        }
    }
    return best;
}

/* values */

static void wrong(struct cm_report *r, const struct cm_yaml *n, const char *path, const char *wants)
{
    static const char *const shapes[] = {"this text", "a list", "a mapping"};

    cm_report_error(r, n->line, n->col, "%s: wants %s, not %s", path, wants, shapes[n->kind]);
}

static bool good_port(const char *text)
{
    double port;

    return cm_conf_parse_uint(text, &port) && port >= 1 && port <= 65535;
}

bool cm_conf_file_is_target(const char *text)
{
    const char *colon = strrchr(text, ':');

    return colon && colon > text && good_port(colon + 1) && !strpbrk(text, "/ \t\n");
}

static bool good_url(const char *text)
{
    const char *host = strncmp(text, "http://", 7) == 0    ? text + 7
                       : strncmp(text, "https://", 8) == 0 ? text + 8
                                                           : text;
    size_t len = strcspn(host, "/");
    const char *colon = memchr(host, ':', len);

    return len > 0 && colon != host && !strpbrk(host, " \t\n@") && (host != text || cm_conf_file_is_target(text));
}

static bool good_choice(const char *choices, const char *text)
{
    size_t len = strlen(text);

    for (const char *at = choices; at && len > 0; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
        if (strncmp(at, text, len) == 0 && (at[len] == '|' || !at[len]) && !memchr(text, '|', len))
            return true;
    return false;
}

static void check_text(struct cm_report *r, const struct cm_file_key *key, const struct cm_yaml *n)
{
    struct cm_err err;

    if (cm_row_check(&key->row, key->path, n->text, &err) < 0 && key->type != CM_KEY_CHOICE)
        cm_report_error(r, n->line, n->col, "%s", err.text);
    else if (key->type == CM_KEY_TARGET && !cm_conf_file_is_target(n->text))
        cm_report_error(r, n->line, n->col, "%s: \"%.80s\" is not HOST:PORT", key->path, n->text);
    else if (key->type == CM_KEY_URL && !good_url(n->text))
        cm_report_error(r, n->line, n->col, "%s: not a URL such as http://localhost:8001", key->path);
    else if (key->type == CM_KEY_CHOICE && !good_choice(key->choices, n->text))
        cm_report_error(r, n->line, n->col, "%s: \"%.80s\" is not one of %s", key->path, n->text, key->choices);
}

static void check_list(struct cm_report *r, const struct cm_file_key *key, const struct cm_yaml *n)
{
    for (const struct cm_yaml *item = n->first; item; item = item->next)
        if (item->kind != CM_YAML_SCALAR)
            wrong(r, item, key->path, "texts in its list");
}

/* Fields that this program does not have. */
static bool is_served(const struct cm_file_key *key)
{
    for (const char *at = key->fields; *at; at += strcspn(at, ","), at += *at == ',')
        if (!cm_row_by_field(cm_conf_file_schema(key->kind), at, strcspn(at, ",")))
            return false;
    return true;
}

static bool is_default(const struct cm_file_key *key, const struct cm_yaml *n)
{
    bool a, b;

    if (key->type == CM_KEY_LIST || key->type == CM_KEY_MAP)
        return !n->first;
    if (key->row.type == CM_ROW_BOOL)
        return cm_conf_parse_bool(n->text, &a) && cm_conf_parse_bool(key->def, &b) && a == b;
    return strcmp(n->text, key->def) == 0;
}

static void check_use(struct cm_report *r, const struct cm_file_key *key, const struct cm_yaml *n)
{
    bool served =
        key->use != CM_USE_ONLY && ((key->use != CM_USE_SERVER && key->use != CM_USE_NEEDED) || is_served(key));

    if (served || is_default(key, n))
        return;
    cm_report_error(r, n->line, n->col, "%s: not supported: only %s is%s%s", key->path,
                    *key->def ? key->def : "an empty value", *key->help ? "; " : "", key->help);
}

static void check_value(struct cm_report *r, const struct cm_file_key *key, const struct cm_yaml *n)
{
    static const char *const wants[] = {[CM_KEY_TARGET] = "a text HOST:PORT",
                                        [CM_KEY_URL] = "a URL",
                                        [CM_KEY_CHOICE] = "a text",
                                        [CM_KEY_LIST] = "a list",
                                        [CM_KEY_MAP] = "a mapping"};
    enum cm_yaml_kind kind = key->type == CM_KEY_LIST  ? CM_YAML_LIST
                             : key->type == CM_KEY_MAP ? CM_YAML_MAP
                                                       : CM_YAML_SCALAR;
    unsigned before = r->error_count;

    if (n->kind != kind) {
        wrong(r, n, key->path, key->type == CM_KEY_ROW ? cm_row_wants(key->row.type) : wants[key->type]);
        return;
    }
    if (kind == CM_YAML_SCALAR)
        check_text(r, key, n);
    else if (kind == CM_YAML_LIST)
        check_list(r, key, n);
    if (r->error_count == before)
        check_use(r, key, n);
}

/* keys */

struct walk {
    struct cm_conf_file *file;
    struct cm_report *report;
};

/* The table's key of exactly this path, or -1. *ret_inner: some key is below it. */
static int find_key(enum cm_file_kind kind, const char *path, bool *ret_inner)
{
    size_t len = strlen(path);
    int found = -1;

    *ret_inner = false;
    for (int i = 0; i < CM_FILE_KEYS; i++) {
        const struct cm_file_key *k = &cm_file_keys[i];
        if (k->kind != kind || strncmp(k->path, path, len) != 0)
            continue;
        *ret_inner |= k->path[len] == '.';
        found = k->path[len] ? found : i;
    }
    return found;
}

/* Names the nearest known key of the same place. */
static void unknown_key(const struct walk *w, const struct cm_yaml *n, const char *path)
{
    const char *last = strrchr(path, '.'), *known[CM_FILE_KEYS + 1];
    size_t len = last ? (size_t)(last + 1 - path) : 0, count = 0;
    char words[CM_FILE_KEYS][48];

    for (size_t i = 0; i < CM_FILE_KEYS; i++) {
        const struct cm_file_key *k = &cm_file_keys[i];
        if (k->kind != w->file->kind || strncmp(k->path, path, len) != 0)
            continue;
        snprintf(words[count], sizeof words[0], "%.*s", (int)strcspn(k->path + len, "."), k->path + len);
        known[count] = words[count];
        count++;
    }
    known[count] = NULL;
    const char *near = cm_word_nearest(n->key, known);
    cm_report_error(w->report, n->key_line, n->key_col, "%.200s: unknown key of %s%s%s%s", path,
                    cm_conf_file_kind_file(w->file->kind), near ? "; did you mean " : "", near ? near : "",
                    near ? "?" : "");
}

static void check_map(const struct walk *w, const struct cm_yaml *map, const char *prefix);

static void check_member(const struct walk *w, const struct cm_yaml *n, const char *prefix)
{
    char path[PATH_LEN_MAX];
    bool inner;

    snprintf(path, sizeof path, "%s%s%.200s", prefix, *prefix ? "." : "", n->key);
    int key = find_key(w->file->kind, path, &inner);
    if ((n->bad && n->kind != CM_YAML_SCALAR) || (key >= 0 && cm_yaml_is_null(n) && !n->bad))
        return; /* as if it was not there */
    if (strchr(n->key, '.') || (key < 0 && !inner)) {
        unknown_key(w, n, path);
    } else if (key >= 0) {
        w->file->given[key] = n;
        if (!n->bad)
            check_value(w->report, &cm_file_keys[key], n);
    } else if (n->kind == CM_YAML_MAP) {
        check_map(w, n, path);
    } else if (!n->bad && !cm_yaml_is_null(n)) {
        wrong(w->report, n, path, "a mapping");
    }
}

static void check_map(const struct walk *w, const struct cm_yaml *map, const char *prefix)
{
    for (const struct cm_yaml *n = map->first; n; n = n->next)
        check_member(w, n, prefix);
}

/* rules between keys */

const struct cm_yaml *cm_conf_file_given(const struct cm_conf_file *f, const char *path)
{
    bool inner;
    int key = find_key(f->kind, path, &inner);

    return key >= 0 ? f->given[key] : NULL;
}

const char *cm_conf_file_text(const struct cm_conf_file *file, const char *path)
{
    bool inner;
    int key = find_key(file->kind, path, &inner);

    if (key < 0)
        return "";
    const struct cm_yaml *n = file->given[key];
    return n && n->kind == CM_YAML_SCALAR ? n->text : cm_file_keys[key].def;
}

static bool says(const struct cm_conf_file *f, const char *path, const char *text)
{
    return strcmp(cm_conf_file_text(f, path), text) == 0;
}

static bool is_on(const struct cm_conf_file *f, const char *path)
{
    bool on;

    return cm_conf_file_given(f, path) && cm_conf_parse_bool(cm_conf_file_text(f, path), &on) && on;
}

/* `cause` is in the file and wants `path`. */
static void need(const struct cm_conf_file *f, struct cm_report *r, const char *cause, const char *path)
{
    const struct cm_yaml *n = cm_conf_file_given(f, cause);

    if (n && says(f, path, ""))
        cm_report_error(r, n->line, n->col, "%s: needs %s as well", cause, path);
}

static void need_both(const struct cm_conf_file *f, struct cm_report *r, const char *a, const char *b)
{
    if (!says(f, a, ""))
        need(f, r, a, b);
    if (!says(f, b, ""))
        need(f, r, b, a);
}

static void check_server_tls(const struct cm_conf_file *f, struct cm_report *r, const char *cert, const char *key)
{
    const char *mode = f->kind == CM_FILE_SIDECAR ? "tls.mode" : "grpc.tls.mode";

    need_both(f, r, cert, key);
    if (is_on(f, f->kind == CM_FILE_SIDECAR ? "tls.enabled" : "grpc.tls.enabled") && says(f, mode, "custom")) {
        need(f, r, mode, cert);
        need(f, r, mode, key);
    }
}

static void check_rules(const struct cm_conf_file *f, struct cm_report *r)
{
    double base, most;

    if (f->kind == CM_FILE_SIDECAR) {
        check_server_tls(f, r, "tls.cert_file", "tls.key_file");
        need_both(f, r, "callback_tls.client_cert", "callback_tls.client_key");
        if (is_on(f, "tls.require_client_auth"))
            need(f, r, "tls.require_client_auth", "tls.ca_file");
    } else if (f->kind == CM_FILE_UNIFIED) {
        check_server_tls(f, r, "grpc.tls.cert_file", "grpc.tls.key_file");
        need_both(f, r, "grpc.tls.client_cert_file", "grpc.tls.client_key_file");
    } else if (f->kind == CM_FILE_CLIENT) {
        need_both(f, r, "tls.client_cert_file", "tls.client_key_file");
        const struct cm_yaml *n = cm_conf_file_given(f, "retry.backoff_base_ms");
        if (n && cm_conf_parse_uint(n->text, &base) &&
            cm_conf_parse_uint(cm_conf_file_text(f, "retry.backoff_max_ms"), &most) && base > most)
            cm_report_error(r, n->line, n->col, "retry.backoff_base_ms: is above retry.backoff_max_ms (%.0f)", most);
    }
}

/* The deepest place of the file that has a part of the path: a missing key is told there. */
static const struct cm_yaml *place_of(const struct cm_yaml *root, const char *path)
{
    const struct cm_yaml *at = root;

    for (const char *word = path;; word += strcspn(word, ".") + 1) {
        size_t len = strcspn(word, ".");
        const struct cm_yaml *n = at->first;
        while (n && (strncmp(n->key, word, len) != 0 || n->key[len]))
            n = n->next;
        if (!n || n->kind != CM_YAML_MAP || !word[len])
            return at;
        at = n;
    }
}

static void check_required(const struct cm_conf_file *f, struct cm_report *r)
{
    for (size_t i = 0; i < CM_FILE_KEYS; i++) {
        const struct cm_file_key *k = &cm_file_keys[i];
        bool must = k->use == CM_USE_REQUIRED || k->use == CM_USE_NEEDED;
        if (k->kind != f->kind || !must || f->given[i])
            continue;
        const struct cm_yaml *at = place_of(f->root, k->path);
        cm_report_error(r, at->key ? at->key_line : at->line, at->key ? at->key_col : at->col,
                        "%s: is required, e.g. %s", k->path, k->def);
    }
}

/* the whole file */

int cm_conf_file_parse(const char *text, size_t len, const char *name, enum cm_file_kind kind, struct cm_conf_file *ret,
                       struct cm_report *report)
{
    const struct walk w = {ret, report};

    *ret = (struct cm_conf_file){.kind = kind == CM_FILE_ANY ? CM_FILE_UNIFIED : kind};
    ret->root = cm_yaml_read(text, len, report);
    if (ret->root && ret->root->kind != CM_YAML_MAP) {
        wrong(report, ret->root, "the file", "a mapping");
        ret->root = cm_yaml_free(ret->root);
    }
    if (!ret->root)
        return CM_ERR_CONFIG;
    if (kind == CM_FILE_ANY)
        ret->kind = guess_kind(ret->root, name);
    check_map(&w, ret->root, "");
    check_required(ret, report);
    check_rules(ret, report);
    if (ret->kind == CM_FILE_UNIFIED && report->error_count == 0)
        for (size_t i = 0; i < CM_FILE_KEYS; i++)
            if (ret->given[i] && strstr(cm_file_keys[i].path, "executor.filesystem.")) {
                cm_report_warning(report, ret->given[i]->line, ret->given[i]->col,
                                  "executor.filesystem: no folder of the machine is mounted; sessions have files of "
                                  "their own, in memory");
                break;
            }
    return report->error_count ? CM_ERR_CONFIG : 0;
}

/* Opening must not block: somebody may name a pipe. */
static int read_all(const char *path, char **ret, size_t *ret_len, struct cm_report *r)
{
    cm_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    struct cm_buf b;
    char *room;
    ssize_t n = 0;

    if (fd < 0 || fstat(fd, &st) < 0) {
        cm_report_error(r, 0, 0, "%s", strerror(errno));
        return CM_ERR_CONFIG;
    }
    if (!S_ISREG(st.st_mode)) {
        cm_report_error(r, 0, 0, "not a regular file");
        return CM_ERR_CONFIG;
    }
    cm_buf_init(&b, CM_YAML_SIZE_MAX + 1); /* one byte more than is read: cm_yaml_read() says what is wrong then */
    do {
        size_t want = CM_YAML_SIZE_MAX + 1 - b.len < 16384 ? CM_YAML_SIZE_MAX + 1 - b.len : 16384;
        n = want > 0 && cm_buf_reserve(&b, want, &room) == 0 ? read(fd, room, want) : 0;
        if (n > 0)
            cm_buf_commit(&b, (size_t)n);
    } while (n > 0);
    if (n < 0)
        cm_report_error(r, 0, 0, "%s", strerror(errno));
    *ret = cm_buf_steal(&b, ret_len);
    cm_buf_done(&b);
    return *ret && n == 0 ? 0 : CM_ERR_CONFIG;
}

int cm_conf_file_read(const char *path, enum cm_file_kind kind, struct cm_conf_file *ret, struct cm_report *report)
{
    char *text = NULL;
    size_t len = 0;
    const char *slash = strrchr(path, '/');

    *ret = (struct cm_conf_file){.kind = kind};
    int rc = read_all(path, &text, &len, report);
    if (rc == 0)
        rc = cm_conf_file_parse(text, len, slash ? slash + 1 : path, kind, ret, report);
    free(text);
    return rc;
}

void cm_conf_file_done(struct cm_conf_file *file)
{
    file->root = cm_yaml_free(file->root);
}
