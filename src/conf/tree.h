/* SPDX-License-Identifier: Apache-2.0 */
/* A YAML document as a tree, with ${VAR} and ${VAR:-default} replaced in its values.
 *
 * One document of at most 1 MiB, 16 levels, 20,000 values. Anchors, aliases, tags and merge keys are refused: a settings
 * file has no use for them, and they make small files large. Variables are put in after parsing, so what is in one cannot
 * add keys. `$$` is a dollar sign.
 */
#ifndef CM_CONF_TREE_H
#define CM_CONF_TREE_H

#include <stdbool.h>
#include <stddef.h>

struct cm_buf;
struct cm_report;

#define CM_YAML_SIZE_MAX  (1u << 20)
#define CM_YAML_DEPTH_MAX 16
#define CM_YAML_NODES_MAX 20000
#define CM_YAML_KEYS_MAX  1000 /* of one mapping */

enum cm_yaml_kind { CM_YAML_SCALAR, CM_YAML_LIST, CM_YAML_MAP };

struct cm_yaml {
    enum cm_yaml_kind kind;
    unsigned line, col; /* from 1 */
    char *text; /* of a scalar; no NUL within */
    bool plain; /* written without quotes */
    bool bad;   /* a problem of it has been reported; its value means nothing */
    char *key;  /* in a mapping */
    unsigned key_line, key_col;
    struct cm_yaml *first, *next; /* first child, next one of the same parent */
};

/* The tree, for cm_yaml_free(), or NULL when it is not one document. Look at the report: problems of single values, such
 * as a variable that is not set, leave a tree. An empty document is an empty mapping. */
struct cm_yaml *cm_yaml_read(const char *text, size_t len, struct cm_report *report);
struct cm_yaml *cm_yaml_free(struct cm_yaml *node);
/* A plain `null`, `~` or nothing. */
bool cm_yaml_is_null(const struct cm_yaml *node);
/* Appends the value as JSON; plain scalars are null, true, false and numbers where they look so. 0 or the buffer's
 * error. */
int cm_yaml_json(const struct cm_yaml *node, struct cm_buf *to);

#endif
