/* SPDX-License-Identifier: Apache-2.0 */
#include "base/words.h"

#include <stddef.h>
#include <string.h>

#define WORD_MAX 64

/* Edit distance of two words of at most WORD_MAX bytes, one row at a time. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[WORD_MAX + 1];
    size_t alen = strlen(a), blen = strlen(b);

    if (alen > WORD_MAX || blen > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= blen; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= alen; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= blen; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[blen];
}

const char *cm_word_nearest(const char *word, const char *const *known)
{
    unsigned best = (unsigned)strlen(word) / 3 + 1; /* farther than this is another word, not a slip */
    const char *near = NULL;

    for (; *known; known++) {
        size_t a = strlen(word), b = strlen(*known);
        if ((a > b ? a - b : b - a) >= best) /* so many letters more or less are as many changes */
            continue;
        unsigned d = distance(word, *known);
        if (d < best) {
            best = d;
            near = *known;
        }
    }
    return near;
}
