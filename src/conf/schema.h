/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of a program as a table, and what all programs do with theirs. Of this room; others use conf.h and rlm.h. */
#ifndef CM_CONF_SCHEMA_H
#define CM_CONF_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/err.h"
#include "conf/fields.h"
#include "conf/rows.h"

/* Another name of a setting's variable. */
struct cm_alias {
    const char *env;
    size_t row;
};

/* A variable that may have one value only. */
struct cm_refused {
    const char *env;
    enum cm_row_type type;
    const char *only, *reason;
};

struct cm_schema {
    const struct cm_row *rows;
    size_t count;
    size_t size, source; /* of the struct; where its struct cm_conf_source begins */
    const struct cm_alias *aliases;
    size_t aliases_count;
    const struct cm_refused *refused;
    size_t refused_count;
    const bool *reloads; /* by row: SIGHUP takes a changed value over */
    const char *file_variable; /* names the configuration file */
    const char *files[3]; /* of the working folder: the first one that is there; ends with NULL */
    int file_kind; /* of files that belong to another program: enum cm_file_kind, or -1 for the server's two */
    const char *of; /* "the executor": whose files those are */
    int (*check)(const void *conf, struct cm_err *err); /* settings that contradict each other */
    int (*finish)(void *conf, struct cm_err *err); /* what is read from other files; may be NULL */
    void (*look)(struct cm_conf_source *source); /* at the environment, for warnings; may be NULL */
};
extern const struct cm_schema cm_conf_schema, cm_rlm_schema;

struct cm_conf_source *cm_schema_source(const struct cm_schema *s, void *conf);
/* As in conf.h, for any table. */
int cm_schema_defaults(const struct cm_schema *s, void *ret, struct cm_err *err);
int cm_schema_environment(const struct cm_schema *s, void *ret, struct cm_err *err);
int cm_schema_load(const struct cm_schema *s, int argc, char *const *argv, void *ret, struct cm_err *err);
int cm_schema_reload(const struct cm_schema *s, void *conf, char *ret_changed, char *ret_kept, struct cm_err *err);
void cm_schema_show(const struct cm_schema *s, const void *conf, FILE *out);
void cm_schema_help(const struct cm_schema *s, FILE *out);
void cm_schema_warn(struct cm_conf_source *source, const char *text);
/* Appends to a list of names of CM_CONF_NAMES_MAX bytes. */
void cm_schema_add_name(char *list, const char *name);

#endif
