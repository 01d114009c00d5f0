/* SPDX-License-Identifier: Apache-2.0 */
#include "rlm/usage.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/utf8.h"
#include "llm/llm.h"
#include "rlm/output.h"

static struct cm_usage_row *row_of(struct cm_usage *u, const char *model)
{
    char name[CM_USAGE_NAME_MAX];

    snprintf(name, sizeof name, "%s", model);
    name[strlen(name) - cm_utf8_cut_end(name, strlen(name))] = '\0';
    for (;;) {
        for (size_t i = 0; i < u->count; i++)
            if (strcmp(u->rows[i].name, name) == 0)
                return &u->rows[i];
        if (u->count < CM_USAGE_ROWS_MAX - 1 || (u->count < CM_USAGE_ROWS_MAX && strcmp(name, "other") == 0))
            break;
        snprintf(name, sizeof name, "other");
    }
    struct cm_usage_row *rows = realloc(u->rows, (u->count + 1) * sizeof *rows);
    if (!rows)
        return NULL;
    u->rows = rows;
    rows[u->count] = (struct cm_usage_row){0};
    memcpy(rows[u->count].name, name, sizeof name);
    return &rows[u->count++];
}

int cm_usage_add(struct cm_usage *u, const char *model, const struct cm_llm_usage *usage)
{
    struct cm_usage_row *row = row_of(u, model);

    if (!row)
        return CM_ERR_NO_MEMORY;
    row->calls++;
    row->input_tokens += usage->input_tokens;
    row->output_tokens += usage->output_tokens;
    row->priced |= usage->priced;
    row->cost += usage->cost;
    return 0;
}

static int put_row(const struct cm_usage_row *row, struct cm_buf *to)
{
    int rc;

    if ((rc = cm_output_json(to, row->name, strlen(row->name), SIZE_MAX)) < 0 ||
        (rc = cm_buf_printf(
             to, ":{\"total_calls\":%" PRIu64 ",\"total_input_tokens\":%" PRIu64 ",\"total_output_tokens\":%" PRIu64,
             row->calls, row->input_tokens, row->output_tokens)) < 0 ||
        (row->priced && (rc = cm_buf_printf(to, ",\"total_cost\":%.10g", row->cost)) < 0))
        return rc;
    return cm_buf_append(to, "}", 1);
}

int cm_usage_json(const struct cm_usage *u, struct cm_buf *to)
{
    bool priced = false;
    double cost = 0;
    int rc = cm_buf_puts(to, "{\"model_usage_summaries\":{");

    for (size_t i = 0; i < u->count && rc == 0; i++) {
        priced |= u->rows[i].priced;
        cost += u->rows[i].cost;
        if (i == 0 || (rc = cm_buf_append(to, ",", 1)) == 0)
            rc = put_row(&u->rows[i], to);
    }
    if (rc == 0)
        rc = cm_buf_append(to, "}", 1);
    if (rc == 0 && priced)
        rc = cm_buf_printf(to, ",\"total_cost\":%.10g", cost);
    return rc < 0 ? rc : cm_buf_append(to, "}", 1);
}

void cm_usage_done(struct cm_usage *u)
{
    free(u->rows);
    *u = (struct cm_usage){0};
}
