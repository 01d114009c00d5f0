/* SPDX-License-Identifier: Apache-2.0 */
/* A search in words over names, descriptions and arguments of tools, for code that does not know what there is. */
#ifndef CM_TOOLS_SEARCH_H
#define CM_TOOLS_SEARCH_H

#include "tools/toolset.h"

#define CM_SEARCH_DEFAULT 10 /* rows */
#define CM_SEARCH_MAX     100

struct cm_found {
    uint32_t tool; /* place in set->tools */
    double score;
};

/* Appends the words of a text, folded, each with a blank before and behind it: " get weather ". Words end where letters
 * and digits do, and where "getWeather" goes on. */
int cm_search_fold(struct cm_buf *to, const char *text, size_t len);
/* The best first; of equal ones the earlier in the list. `allowed`, NULL for all, has a byte for each tool. A query
 * without words finds the first tools there are, with score 0. Returns the number of rows, at most `limit`; -1 when
 * there is no memory. */
long cm_search(const struct cm_toolset *set, const uint8_t *allowed, const char *query, size_t query_len,
               struct cm_found *ret, size_t limit);

#endif
