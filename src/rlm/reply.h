/* SPDX-License-Identifier: Apache-2.0 */
/* What a model's reply holds: blocks of code and a final answer. The rules, with cases, are in rlm/cases. */
#ifndef CM_RLM_REPLY_H
#define CM_RLM_REPLY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define CM_REPLY_BLOCKS_MAX 100 /* further ones do not run */
#define CM_REPLY_FINALS_MAX 16 /* lines that could be a final answer and are looked at */

struct cm_reply_block {
    char *code; /* with a NUL behind it */
    size_t len;
};

struct cm_reply {
    struct cm_reply_block *blocks;
    size_t count;
    bool unclosed; /* the last block has no end, and is not among them */
    enum { CM_FINAL_NONE, CM_FINAL_TEXT, CM_FINAL_VARIABLE } final;
    char *value; /* of the final answer: its text, or the name of the variable */
    size_t value_len;
};

/* Bytes at the beginning that are the model's thoughts. */
size_t cm_reply_thoughts(const char *text, size_t len);
/* Fails for want of memory only. */
int cm_reply_read(const char *text, size_t len, struct cm_reply *ret);
/* Accepts a zeroed one, and leaves one. */
void cm_reply_done(struct cm_reply *reply);

/* A line that begins like a final answer, outside of fences; for final.c. */
struct cm_final_line {
    size_t at; /* behind the opening parenthesis */
    size_t fence; /* where the next fence begins, or the end of the text */
    bool variable;
};
int cm_final_read(const char *text, size_t len, const struct cm_final_line *lines, size_t count, struct cm_reply *ret);

#endif
