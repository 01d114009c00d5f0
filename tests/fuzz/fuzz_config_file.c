/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files: a byte for the kind, then the file. What is accepted lies in the tables' ranges and is accepted
 * again; what is refused has a problem that names the file, and at most as many lines as promised; `config` is JSON. */
#include "fuzz.h"

#include "base/utf8.h"
#include "conf/conf.h"
#include "conf/conf.h"
#include "conf/files.h"
#include "conf/rlm.h"
#include "conf/tree.h"
#include "wire/json.h"

static void check_lines(struct cm_buf *b, unsigned count)
{
    const char *text = cm_buf_data(b);
    unsigned lines = 0;

    for (; *text; text = strchr(text, '\n') + 1) {
        CHECK(strncmp(text, "f:", 2) == 0 && strchr(text, '\n'));
        lines++;
    }
    CHECK(lines <= CM_REPORT_PROBLEMS_MAX && (lines > 0) == (count > 0));
}

static void check_tree(const struct cm_yaml *n, unsigned depth)
{
    CHECK(n->line >= 1 && n->col >= 1 && depth <= CM_YAML_DEPTH_MAX + 1);
    if (n->kind == CM_YAML_SCALAR)
        CHECK(n->text && !n->first && cm_utf8_valid(n->text, strlen(n->text)));
    for (const struct cm_yaml *c = n->first; c; c = c->next) {
        CHECK((c->key != NULL) == (n->kind == CM_YAML_MAP));
        check_tree(c, depth + 1);
    }
}

static void check_json(const struct cm_yaml *root)
{
    struct cm_json_value v;
    struct cm_buf b;

    cm_buf_init(&b, 1u << 20);
    if (cm_yaml_json(root, &b) == 0)
        CHECK(cm_json_check(cm_buf_data(&b), b.len, &v, NULL) == 0 && v.kind == CM_JSON_OBJECT);
    cm_buf_done(&b);
}

static void check_good(const struct cm_conf_file *f, struct cm_report *r)
{
    static union {
        struct cm_conf codemode;
        struct cm_rlm_conf rlm;
    } conf;
    const struct cm_schema *s = cm_conf_file_schema(f->kind);
    struct cm_json_value v;

    CHECK(cm_schema_defaults(s, &conf, NULL) == 0);
    int rc = cm_conf_file_apply(f, &conf, r);
    CHECK((rc == 0) == (r->error_count == 0));
    for (size_t i = 0; i < CM_FILE_KEYS; i++)
        CHECK(!f->given[i] || cm_file_keys[i].kind == f->kind);
    if (rc == 0 && s == &cm_conf_schema && *conf.codemode.config_json)
        CHECK(cm_json_check(conf.codemode.config_json, strlen(conf.codemode.config_json), &v, NULL) == 0);
    for (size_t i = 0; rc == 0 && i < s->count; i++) { /* what a row prints, it takes */
        struct cm_buf b;
        struct cm_err err;
        if (s->rows[i].type == CM_ROW_SECRET || s->rows[i].type == CM_ROW_SECONDS)
            continue;
        cm_buf_init(&b, CM_CONF_TEXT_MAX);
        CHECK(cm_row_print(&s->rows[i], &conf, &b) == 0);
        CHECK(cm_row_check(&s->rows[i], "f", cm_buf_data(&b), &err) == 0);
        cm_buf_done(&b);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    setenv("A", "1", 1);
    setenv("B", "x: {y: z}", 1);
    setenv("CODEMODE_API_KEY", "12345678", 1);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, data + size};
    enum cm_file_kind kind = (enum cm_file_kind)(fuzz_byte(&in) % (CM_FILE_ANY + 1));
    struct cm_report r;
    struct cm_conf_file f;
    char *text = fuzz_copy(in.at, (size_t)(in.end - in.at));

    cm_report_init(&r, "f");
    int rc = cm_conf_file_parse(text, (size_t)(in.end - in.at), "f.yaml", kind, &f, &r);
    CHECK((rc == 0) == (r.error_count == 0));
    CHECK(f.kind == kind || kind == CM_FILE_ANY);
    if (f.root) {
        check_tree(f.root, 1);
        check_json(f.root);
    }
    if (rc == 0)
        check_good(&f, &r);
    check_lines(&r.errors, r.error_count);
    check_lines(&r.warnings, r.warning_count);
    cm_conf_file_done(&f);
    cm_report_done(&r);
    free(text);
    return 0;
}
