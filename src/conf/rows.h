/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of a table of settings at run time. Of this room; others use conf.h and rlm.h. */
#ifndef CM_CONF_ROWS_H
#define CM_CONF_ROWS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct cm_buf;
struct cm_schema;

enum cm_row_type {
    CM_ROW_TEXT,
    CM_ROW_SECRET,
    CM_ROW_PATH,
    CM_ROW_UINT,
    CM_ROW_BYTES,
    CM_ROW_SECONDS,
    CM_ROW_NUMBER,
    CM_ROW_LEVEL,
    CM_ROW_BOOL,
    CM_ROW_PORTS
};

struct cm_row {
    const char *field, *env, *flag;
    enum cm_row_type type;
    size_t offset; /* in the struct of the settings */
    double min, max;
    const char *def, *unit, *help;
};

/* NULL when there is none. */
const struct cm_row *cm_row_by_field(const struct cm_schema *schema, const char *field, size_t len);
const struct cm_row *cm_row_by_flag(const struct cm_schema *schema, const char *flag, size_t len);
/* CM_ERR_CONFIG with `source` in front (a flag, a variable, ...), and the field as it was. */
int cm_row_set(const struct cm_row *row, void *conf, const char *source, const char *text, struct cm_err *err);
/* The same without a field: only the row's type, min and max count. */
int cm_row_check(const struct cm_row *row, const char *source, const char *text, struct cm_err *err);
/* Appends the value as one would write it; *** for a secret that is not empty. */
int cm_row_print(const struct cm_row *row, const void *conf, struct cm_buf *to);
bool cm_row_equal(const struct cm_row *row, const void *a, const void *b);
void cm_row_copy(const struct cm_row *row, void *to, const void *from);
/* "a whole number", ... */
const char *cm_row_wants(enum cm_row_type type);

#endif
