/* SPDX-License-Identifier: Apache-2.0 */
#include "llm/internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ROWS_MAX     4000
#define ROW_NAME_MAX 128
#define PRICE_MAX    1e6
#define WINDOW_MAX   1e9

struct reading {
    struct cm_llm_table *table;
    struct cm_llm_row *row;
    struct cm_err *err;
    int rc;
};

static struct cm_llm_row *row_named(struct cm_llm_table *t, const char *name, size_t len)
{
    for (size_t i = 0; i < t->count; i++)
        if (strlen(t->rows[i].name) == len && strncasecmp(t->rows[i].name, name, len) == 0)
            return &t->rows[i];
    return NULL;
}

static struct cm_llm_row *row_new(struct cm_llm_table *t, const char *name, size_t len)
{
    struct cm_llm_row *rows = realloc(t->rows, (t->count + 1) * sizeof *rows);
    char *copy = strndup(name, len);

    if (rows)
        t->rows = rows;
    if (!rows || !copy) {
        free(copy);
        return NULL;
    }
    rows[t->count] = (struct cm_llm_row){copy, 0, -1, -1, -1};
    return &rows[t->count++];
}

static bool is(const char *name, size_t len, const char *wanted)
{
    return strlen(wanted) == len && memcmp(name, wanted, len) == 0;
}

static bool read_price(void *arg, const char *name, size_t len, const struct cm_json_value *value)
{
    struct reading *r = arg;
    struct cm_llm_row *row = r->row;
    double n = value->kind == CM_JSON_NUMBER ? cm_json_number(value) : -1;
    bool window = is(name, len, "window");
    double ignored = 0, *to = is(name, len, "input")          ? &row->input
                              : is(name, len, "cached_input") ? &row->cached
                              : is(name, len, "output")       ? &row->output
                                                              : &ignored;

    if (window && n >= 1 && n <= WINDOW_MAX)
        row->window = (unsigned)n;
    else if (window)
        r->rc = cm_err_set(r->err, CM_ERR_BAD_FIELD, "models: %s: window must be a number of tokens", row->name);
    else if (to == &ignored)
        r->rc =
            cm_err_set(r->err, CM_ERR_BAD_FIELD, "models: %s: %.*s must be one of window, input, cached_input, output",
                       row->name, (int)(len < 40 ? len : 40), name);
    else if (!(n >= 0 && n <= PRICE_MAX))
        r->rc = cm_err_set(r->err, CM_ERR_BAD_FIELD, "models: %s: %.*s must be a price in USD per million tokens",
                           row->name, (int)len, name);
    else
        *to = n;
    return r->rc == 0;
}

static bool read_row(void *arg, const char *name, size_t len, const struct cm_json_value *value)
{
    struct reading *r = arg;

    if (len == 0 || len > ROW_NAME_MAX || value->kind != CM_JSON_OBJECT || r->table->count >= ROWS_MAX) {
        r->rc = cm_err_set(
            r->err, CM_ERR_BAD_FIELD,
            "models: \"%.*s\" must be an object of window and prices, under a name of 1 to %d bytes; %d models at most",
            (int)(len < 40 ? len : 40), name, ROW_NAME_MAX, ROWS_MAX);
        return false;
    }
    r->row = row_named(r->table, name, len);
    if (!r->row)
        r->row = row_new(r->table, name, len);
    if (!r->row) {
        r->rc = cm_err_set(r->err, CM_ERR_NO_MEMORY, "models: no memory");
        return false;
    }
    cm_json_members(value, read_price, r);
    return r->rc == 0;
}

int cm_llm_table_add(struct cm_llm_table *t, const char *json, size_t len, struct cm_err *err)
{
    struct reading r = {t, NULL, err, 0};
    struct cm_json_value whole;
    int rc = cm_json_check(json, len, &whole, err);

    if (rc < 0) {
        cm_err_wrap(err, "models");
        return rc;
    }
    struct cm_json_value models = cm_llm_field(&whole, "models");
    if (models.kind == CM_JSON_OBJECT)
        whole = models;
    if (whole.kind != CM_JSON_OBJECT)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "models: must be a JSON object of models");
    cm_json_members(&whole, read_row, &r);
    return r.rc;
}

void cm_llm_table_done(struct cm_llm_table *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->rows[i].name);
    free(t->rows);
    *t = (struct cm_llm_table){NULL, 0};
}

static const struct cm_llm_row *longest(const struct cm_llm_table *t, const char *model)
{
    const struct cm_llm_row *best = NULL;
    size_t best_len = 0;

    for (size_t i = 0; i < t->count; i++) {
        size_t len = strlen(t->rows[i].name);
        if (len > best_len && strncasecmp(model, t->rows[i].name, len) == 0) {
            best = &t->rows[i];
            best_len = len;
        }
    }
    return best;
}

/* "openai/gpt-5" has its maker in front, where many models are to be had at one place. */
const struct cm_llm_row *cm_llm_table_find(const struct cm_llm_table *t, const char *model)
{
    const struct cm_llm_row *row = longest(t, model);
    const char *slash = strrchr(model, '/');

    return row || !slash ? row : longest(t, slash + 1);
}

void cm_llm_table_price(const struct cm_llm_table *t, const char *model, struct cm_llm_usage *usage)
{
    const struct cm_llm_row *row = cm_llm_table_find(t, model);

    usage->priced = row && row->input >= 0 && row->output >= 0;
    if (!usage->priced)
        return;
    double cached = (double)(usage->cached_tokens < usage->input_tokens ? usage->cached_tokens : usage->input_tokens);
    usage->cost =
        (((double)usage->input_tokens - cached) * row->input + cached * (row->cached >= 0 ? row->cached : row->input) +
         (double)usage->output_tokens * row->output) /
        1e6;
}
