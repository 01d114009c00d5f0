/* SPDX-License-Identifier: Apache-2.0 */
/* A keyed hash of 128 bits (SipHash-2-4): who does not know the key cannot find two texts with the same one. */
#ifndef CM_BASE_HASH_H
#define CM_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct cm_hash_key {
    uint64_t a, b;
};

struct cm_hash {
    uint64_t at[2];
};

/* From the system's random source. */
int cm_hash_key_new(struct cm_hash_key *ret, struct cm_err *err);

/* Feeding in pieces: the length of each piece is part of what is hashed, so ("ab", "c") is not ("a", "bc"). */
struct cm_hasher {
    uint64_t v[4], len;
};

void cm_hash_begin(struct cm_hasher *h, const struct cm_hash_key *key);
void cm_hash_add(struct cm_hasher *h, const void *data, size_t len);
struct cm_hash cm_hash_end(struct cm_hasher *h);

#endif
