/* SPDX-License-Identifier: Apache-2.0 */
/* Aumasson and Bernstein, "SipHash: a fast short-input PRF", with the reference's way to 128 bits. Pieces are padded to
 * whole words, their length going first: what is hashed is the sequence of pieces, and not their concatenation. */
#include "base/hash.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

int cm_hash_key_new(struct cm_hash_key *ret, struct cm_err *err)
{
    struct cm_hash_key key;

    if (getrandom(&key, sizeof key, 0) != (ssize_t)sizeof key)
        return cm_err_sys(err, errno, "random key");
    *ret = key;
    return 0;
}

static uint64_t turn(uint64_t x, unsigned by)
{
    return x << by | x >> (64 - by);
}

static void rounds(uint64_t v[4], unsigned n)
{
    while (n-- > 0) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = turn(v[1], 13) ^ v[0];
        v[3] = turn(v[3], 16) ^ v[2];
        v[0] = turn(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = turn(v[1], 17) ^ v[2];
        v[3] = turn(v[3], 21) ^ v[0];
        v[2] = turn(v[2], 32);
    }
}

static void add_word(struct cm_hasher *h, uint64_t word)
{
    h->v[3] ^= word;
    rounds(h->v, 2);
    h->v[0] ^= word;
    h->len += 8;
}

void cm_hash_begin(struct cm_hasher *h, const struct cm_hash_key *key)
{
    h->v[0] = key->a ^ 0x736f6d6570736575u;
    h->v[1] = key->b ^ 0x646f72616e646f6du ^ 0xee;
    h->v[2] = key->a ^ 0x6c7967656e657261u;
    h->v[3] = key->b ^ 0x7465646279746573u;
    h->len = 0;
}

void cm_hash_add(struct cm_hasher *h, const void *data, size_t len)
{
    const char *at = data;
    uint64_t word;

    add_word(h, len);
    for (; len >= 8; at += 8, len -= 8) {
        memcpy(&word, at, 8);
        add_word(h, word);
    }
    if (len > 0) {
        word = 0;
        memcpy(&word, at, len);
        add_word(h, word);
    }
}

struct cm_hash cm_hash_end(struct cm_hasher *h)
{
    struct cm_hash hash;

    add_word(h, h->len << 56); /* always whole words: nothing is left over */
    h->v[2] ^= 0xee;
    rounds(h->v, 4);
    hash.at[0] = h->v[0] ^ h->v[1] ^ h->v[2] ^ h->v[3];
    h->v[1] ^= 0xdd;
    rounds(h->v, 4);
    hash.at[1] = h->v[0] ^ h->v[1] ^ h->v[2] ^ h->v[3];
    return hash;
}
