/* SPDX-License-Identifier: Apache-2.0 */
/* What models have been asked for, by their names. */
#ifndef CM_RLM_USAGE_H
#define CM_RLM_USAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm_buf;
struct cm_llm_usage;

#define CM_USAGE_ROWS_MAX 64 /* models; code may name any number of them, further ones count as "other" */
#define CM_USAGE_NAME_MAX 128

struct cm_usage_row {
    char name[CM_USAGE_NAME_MAX];
    uint64_t calls, input_tokens, output_tokens;
    bool priced;
    double cost;
};

struct cm_usage {
    struct cm_usage_row *rows;
    size_t count;
};

/* 0 or CM_ERR_NO_MEMORY, which loses the figures and nothing else. */
int cm_usage_add(struct cm_usage *u, const char *model, const struct cm_llm_usage *usage);
int cm_usage_json(const struct cm_usage *u, struct cm_buf *to);
void cm_usage_done(struct cm_usage *u);

#endif
