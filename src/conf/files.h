/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files: the keys of tables/config_files.def, the check of a file against them, and what it sets. */
#ifndef CM_CONF_FILES_H
#define CM_CONF_FILES_H

#include <stdio.h>

#include "conf/report.h"
#include "conf/rows.h"
#include "conf/schema.h"

struct cm_yaml;

/* The first ones are codemode's; the program rlm asks for its own one. */
enum cm_file_kind { CM_FILE_SIDECAR, CM_FILE_CLIENT, CM_FILE_UNIFIED, CM_FILE_RLM, CM_FILE_ANY };

enum cm_key_type {
    CM_KEY_ROW, /* the type of its row */
    CM_KEY_TARGET,
    CM_KEY_URL,
    CM_KEY_CHOICE,
    CM_KEY_LIST,
    CM_KEY_MAP
};

enum cm_key_use {
    CM_USE_SERVER,
    CM_USE_CLIENT,
    CM_USE_NOTE,
    CM_USE_ONLY,
    CM_USE_REQUIRED,
    CM_USE_NEEDED,
    CM_USE_CONFIG,
    CM_USE_SETTINGS
};

struct cm_file_key {
    const char *path, *choices, *def, *fields, *env, *help;
    struct cm_row row; /* type, min and max of the value; TEXT where `type` says more */
    enum cm_file_kind kind;
    enum cm_key_type type;
    enum cm_key_use use;
};

enum {
    CM_FILE_KEYS = 0
#define CM_FILE_KEY(kind, path, type, min, max, choices, def, use, fields, env, help) +1
#include "config_files.def"
#undef CM_FILE_KEY
};
extern const struct cm_file_key cm_file_keys[CM_FILE_KEYS];

struct cm_conf_file {
    enum cm_file_kind kind;
    struct cm_yaml *root;
    const struct cm_yaml *given[CM_FILE_KEYS]; /* NULL where the file does not say */
};

/* Reads and checks. CM_FILE_ANY: its keys tell which one of codemode's it is. 0, or CM_ERR_CONFIG with the problems in the report; in either
 * case for cm_conf_file_done(). The name for the report's lines is the report's. */
int cm_conf_file_read(const char *path, enum cm_file_kind kind, struct cm_conf_file *ret, struct cm_report *report);
/* The same for a text in memory. */
int cm_conf_file_parse(const char *text, size_t len, const char *name, enum cm_file_kind kind, struct cm_conf_file *ret,
                       struct cm_report *report);
void cm_conf_file_done(struct cm_conf_file *file);
/* Of a text: what the file says, or the default. Valid while the file is. */
const char *cm_conf_file_text(const struct cm_conf_file *file, const char *path);
/* NULL where the file does not say. */
const struct cm_yaml *cm_conf_file_given(const struct cm_conf_file *file, const char *path);
/* HOST:PORT. */
bool cm_conf_file_is_target(const char *text);
/* Sets what a good file sets, with the defaults of its kind, in a struct of cm_conf_file_schema(). CM_ERR_CONFIG when the
 * report has got problems. */
int cm_conf_file_apply(const struct cm_conf_file *file, void *conf, struct cm_report *report);
/* Whose settings such a file sets. */
const struct cm_schema *cm_conf_file_schema(enum cm_file_kind kind);
/* "clients of the executor", ... */
const char *cm_conf_file_kind_owner(enum cm_file_kind kind);

/* "sidecar", ... */
const char *cm_conf_file_kind_name(enum cm_file_kind kind);
/* One of codemode's; CM_FILE_ANY for a word that is none. */
enum cm_file_kind cm_conf_file_kind_of(const char *word);
/* "codemode-sidecar.yaml", ... */
const char *cm_conf_file_kind_file(enum cm_file_kind kind);
/* A whole file with every key, its default and its meaning. */
void cm_conf_file_print_defaults(enum cm_file_kind kind, FILE *out);

#endif
