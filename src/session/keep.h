/* SPDX-License-Identifier: Apache-2.0 */
/* Output of an execution with a maximum: the first half and the last half are kept, the middle goes. */
#ifndef CM_SESSION_KEEP_H
#define CM_SESSION_KEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct cm_keep {
    struct cm_buf buf;  /* the first half of `max` stays; what follows is a ring once it is full */
    size_t ring;        /* next place in the second half, counted from its start */
    uint64_t dropped;   /* bytes overwritten */
};

/* max: bytes kept, at least 2. */
void cm_keep_init(struct cm_keep *k, size_t max);
void cm_keep_done(struct cm_keep *k);
/* Without memory for it the text counts as dropped. */
void cm_keep_add(struct cm_keep *k, const char *text, size_t len);
/* Bytes that were added. */
uint64_t cm_keep_total(const struct cm_keep *k);
/* The kept text as valid UTF-8, with a line in the middle that says how much is missing. `space` is the caller's
 * and is used when the kept bytes cannot serve as they are; the pointer lives as long as both. */
const char *cm_keep_text(struct cm_keep *k, struct cm_buf *space, size_t *ret_len, bool *ret_truncated);

#endif
