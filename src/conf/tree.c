/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "conf/report.h"
#include "conf/substitute.h"
#include "wire/json.h"

#define SCALAR_MAX (64u << 10) /* of one value with its variables */
#define TEXTS_MAX  (4u << 20)  /* of all values together */

struct reader {
    yaml_parser_t parser;
    struct cm_report *report;
    unsigned nodes;
    size_t texts; /* bytes */
};

static struct cm_yaml *read_value(struct reader *r, const yaml_event_t *event, unsigned depth);

/* what is refused */

static void *refuse(struct reader *r, const yaml_mark_t *at, const char *text)
{
    cm_report_error(r->report, (unsigned)at->line + 1, (unsigned)at->column + 1, "%s", text);
    return NULL;
}

static void *syntax_error(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    const char *problem = p->problem ? p->problem : "not YAML";

    if (p->error == YAML_READER_ERROR)
        cm_report_error(r->report, 0, 0, "byte %zu: %s", p->problem_offset, problem);
    else
        cm_report_error(r->report, (unsigned)p->problem_mark.line + 1, (unsigned)p->problem_mark.column + 1,
                        "not YAML: %s%s%s", problem, p->context ? ", " : "", p->context ? p->context : "");
    return NULL;
}

static bool next_event(struct reader *r, yaml_event_t *ret)
{
    if (yaml_parser_parse(&r->parser, ret))
        return true;
    syntax_error(r);
    return false;
}

/* Anchors, aliases, tags: the reason, or NULL. */
static const char *not_wanted(const yaml_event_t *e)
{
    static const char anchor[] = "anchors are not supported", tag[] = "tags are not supported";

    switch (e->type) {
    case YAML_ALIAS_EVENT:
        return "aliases are not supported; write a text that begins with * in quotes";
    case YAML_SCALAR_EVENT:
        return e->data.scalar.anchor ? anchor : e->data.scalar.tag ? tag : NULL;
    case YAML_SEQUENCE_START_EVENT:
        return e->data.sequence_start.anchor ? anchor : e->data.sequence_start.tag ? tag : NULL;
    case YAML_MAPPING_START_EVENT:
        return e->data.mapping_start.anchor ? anchor : e->data.mapping_start.tag ? tag : NULL;
    default:
        return NULL;
    }
}

/* values */

static struct cm_yaml *new_node(struct reader *r, enum cm_yaml_kind kind, const yaml_mark_t *at)
{
    struct cm_yaml *n;

    if (r->nodes++ >= CM_YAML_NODES_MAX)
        return refuse(r, at, "too many values for a settings file");
    n = calloc(1, sizeof *n);
    if (!n)
        return refuse(r, at, "no memory");
    n->kind = kind;
    n->line = (unsigned)at->line + 1;
    n->col = (unsigned)at->column + 1;
    return n;
}

static bool put_text(struct reader *r, struct cm_yaml *n, const char *text, size_t len)
{
    struct cm_buf b;
    struct cm_err err;

    cm_buf_init(&b, SCALAR_MAX);
    if (strlen(text) != len)
        cm_report_error(r->report, n->line, n->col, "a text must not hold the character NUL"), n->bad = true;
    else if (cm_substitute(text, &b, &err) < 0)
        cm_report_error(r->report, n->line, n->col, "%s", err.text), n->bad = true;
    else if (cm_utf8_valid(cm_buf_data(&b), b.len) == false)
        cm_report_error(r->report, n->line, n->col, "a variable's value is not UTF-8"), n->bad = true;
    if (n->bad)
        cm_buf_clear(&b);
    r->texts += b.len;
    n->text = cm_buf_steal(&b, NULL);
    return n->text && r->texts <= TEXTS_MAX;
}

static struct cm_yaml *read_scalar(struct reader *r, const yaml_event_t *e)
{
    struct cm_yaml *n = new_node(r, CM_YAML_SCALAR, &e->start_mark);

    if (!n)
        return NULL;
    n->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (put_text(r, n, (const char *)e->data.scalar.value, e->data.scalar.length))
        return n;
    cm_yaml_free(n);
    return refuse(r, &e->start_mark, "too much text for a settings file");
}

static struct cm_yaml *read_list(struct reader *r, const yaml_event_t *start, unsigned depth)
{
    struct cm_yaml *n = new_node(r, CM_YAML_LIST, &start->start_mark), **end = n ? &n->first : NULL;
    yaml_event_t e;

    while (n) {
        if (!next_event(r, &e))
            break;
        bool last = e.type == YAML_SEQUENCE_END_EVENT;
        struct cm_yaml *item = last ? NULL : read_value(r, &e, depth);
        yaml_event_delete(&e);
        if (last)
            return n;
        if (!item)
            break;
        *end = item;
        end = &item->next;
    }
    return cm_yaml_free(n);
}

/* The reason why this cannot be a key of the mapping, or NULL. */
static const char *bad_key(const struct cm_yaml *map, const yaml_event_t *e, unsigned count)
{
    const char *reason = not_wanted(e);

    if (reason)
        return reason;
    if (e->type != YAML_SCALAR_EVENT)
        return "a key must be a text";
    const char *key = (const char *)e->data.scalar.value;
    if (strlen(key) != e->data.scalar.length)
        return "a key must not hold the character NUL";
    if (strcmp(key, "<<") == 0)
        return "merge keys are not supported";
    if (count >= CM_YAML_KEYS_MAX)
        return "too many keys in one mapping";
    for (const struct cm_yaml *n = map->first; n; n = n->next)
        if (strcmp(n->key, key) == 0)
            return "this key is there twice";
    return NULL;
}

/* One key and its value. NULL when it cannot go on. */
static struct cm_yaml *read_member(struct reader *r, struct cm_yaml *map, const yaml_event_t *key, unsigned count,
                                   unsigned depth)
{
    const char *reason = bad_key(map, key, count);
    yaml_event_t e;

    if (reason && key->type == YAML_SCALAR_EVENT)
        cm_report_error(r->report, (unsigned)key->start_mark.line + 1, (unsigned)key->start_mark.column + 1,
                        "%.100s: %s", key->data.scalar.value, reason);
    if (reason && key->type != YAML_SCALAR_EVENT)
        return refuse(r, &key->start_mark, reason);
    if (count >= CM_YAML_KEYS_MAX || !next_event(r, &e))
        return NULL;
    struct cm_yaml *n = read_value(r, &e, depth);
    yaml_event_delete(&e);
    if (!n)
        return NULL;
    n->key = strdup((const char *)key->data.scalar.value);
    n->key_line = (unsigned)key->start_mark.line + 1;
    n->key_col = (unsigned)key->start_mark.column + 1;
    n->bad |= reason != NULL;
    r->texts += key->data.scalar.length;
    return n->key && r->texts <= TEXTS_MAX ? n : cm_yaml_free(n);
}

static struct cm_yaml *read_map(struct reader *r, const yaml_event_t *start, unsigned depth)
{
    struct cm_yaml *n = new_node(r, CM_YAML_MAP, &start->start_mark), **end = n ? &n->first : NULL;
    yaml_event_t key;

    for (unsigned count = 0; n; count++) {
        if (!next_event(r, &key))
            break;
        bool last = key.type == YAML_MAPPING_END_EVENT;
        struct cm_yaml *member = last ? NULL : read_member(r, n, &key, count, depth);
        yaml_event_delete(&key);
        if (last)
            return n;
        if (!member)
            break;
        *end = member;
        end = &member->next;
    }
    return cm_yaml_free(n);
}

static struct cm_yaml *read_value(struct reader *r, const yaml_event_t *event, unsigned depth)
{
    const char *reason = not_wanted(event);

    if (reason)
        return refuse(r, &event->start_mark, reason);
    if (event->type == YAML_SCALAR_EVENT)
        return read_scalar(r, event);
    if (depth >= CM_YAML_DEPTH_MAX)
        return refuse(r, &event->start_mark, "more than 16 levels");
    return event->type == YAML_SEQUENCE_START_EVENT ? read_list(r, event, depth + 1) : read_map(r, event, depth + 1);
}

/* the document */

/* Stream start, document start, the value, document end, stream end. */
static struct cm_yaml *read_document(struct reader *r)
{
    struct cm_yaml *root = NULL;
    yaml_event_t e;
    bool ended = false;

    for (;;) {
        if (!next_event(r, &e))
            return cm_yaml_free(root);
        bool is_value = e.type == YAML_ALIAS_EVENT || e.type == YAML_SCALAR_EVENT ||
                        e.type == YAML_SEQUENCE_START_EVENT || e.type == YAML_MAPPING_START_EVENT;
        bool second = e.type == YAML_DOCUMENT_START_EVENT && ended, over = e.type == YAML_STREAM_END_EVENT;
        ended |= e.type == YAML_DOCUMENT_END_EVENT;
        if (second)
            root = (refuse(r, &e.start_mark, "more than one document"), cm_yaml_free(root));
        else if (is_value)
            root = read_value(r, &e, 0);
        else if (over && !root)
            root = new_node(r, CM_YAML_MAP, &e.start_mark);
        yaml_event_delete(&e);
        if (second || over || (is_value && !root))
            return root;
    }
}

struct cm_yaml *cm_yaml_read(const char *text, size_t len, struct cm_report *report)
{
    struct reader r = {.report = report};

    if (len > CM_YAML_SIZE_MAX) {
        cm_report_error(report, 0, 0, "longer than 1 MiB");
        return NULL;
    }
    if (!yaml_parser_initialize(&r.parser)) {
        cm_report_error(report, 0, 0, "no memory");
        return NULL;
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
    struct cm_yaml *root = read_document(&r);
    yaml_parser_delete(&r.parser);
    if (root && root->kind == CM_YAML_SCALAR && cm_yaml_is_null(root))
        root->kind = CM_YAML_MAP;
    return root;
}

struct cm_yaml *cm_yaml_free(struct cm_yaml *node)
{
    struct cm_yaml *next;

    for (struct cm_yaml *n = node ? node->first : NULL; n; n = next) {
        next = n->next;
        cm_yaml_free(n);
    }
    if (node) {
        free(node->text);
        free(node->key);
        free(node);
    }
    return NULL;
}

bool cm_yaml_is_null(const struct cm_yaml *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};

    for (size_t i = 0; node->kind == CM_YAML_SCALAR && node->plain && i < sizeof words / sizeof words[0]; i++)
        if (strcmp(node->text, words[i]) == 0)
            return true;
    return false;
}

/* as JSON */

/* -?digits[.digits][e[+-]digits] without leading zeros: what JSON and YAML agree upon. */
static bool is_number(const char *text)
{
    struct cm_json_value v;
    char first = text[0] == '-' ? text[1] : text[0];

    return first >= '0' && first <= '9' && cm_json_check(text, strlen(text), &v, NULL) == 0 &&
           v.kind == CM_JSON_NUMBER && v.len == strlen(text);
}

static int scalar_json(const struct cm_yaml *n, struct cm_buf *to)
{
    static const char *const yes[] = {"true", "True", "TRUE", "false", "False", "FALSE"};

    if (cm_yaml_is_null(n))
        return cm_buf_puts(to, "null");
    for (size_t i = 0; n->plain && i < 6; i++)
        if (strcmp(n->text, yes[i]) == 0)
            return cm_buf_puts(to, yes[i < 3 ? 0 : 3]);
    if (n->plain && is_number(n->text))
        return cm_buf_puts(to, n->text);
    return cm_json_put_string(to, n->text, strlen(n->text));
}

int cm_yaml_json(const struct cm_yaml *node, struct cm_buf *to)
{
    bool map = node->kind == CM_YAML_MAP;

    if (node->kind == CM_YAML_SCALAR)
        return scalar_json(node, to);
    int rc = cm_buf_puts(to, map ? "{" : "[");
    for (const struct cm_yaml *n = node->first; n && rc == 0; n = n->next) {
        if (n != node->first)
            rc = cm_buf_puts(to, ",");
        if (map && rc == 0)
            rc = cm_json_put_string(to, n->key, strlen(n->key));
        if (map && rc == 0)
            rc = cm_buf_puts(to, ":");
        if (rc == 0)
            rc = cm_yaml_json(n, to);
    }
    return rc == 0 ? cm_buf_puts(to, map ? "}" : "]") : rc;
}
