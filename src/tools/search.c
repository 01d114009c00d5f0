/* SPDX-License-Identifier: Apache-2.0 */
/* The score is BM25 over three fields: the name weighs most, then the description, then the names of the arguments. A
 * word that begins with the asked one ("weath" and "weather"), or lacks only its ending ("forecast" and "forecasts"),
 * counts half. All words of a tool are folded once, when its list arrives; a search is then a walk over short texts.
 */
#include "tools/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define TERMS_MAX  12 /* words of a query that count */
#define TERM_MAX   40 /* bytes of each */
#define NAME_HIT   4.0
#define PART_HIT   0.5 /* of a whole word's weight */
#define SATURATION 1.5 /* how soon repetition stops to count */
#define LENGTH     0.4 /* how much a long text has to offer more */
#define ENDING_MAX 2 /* letters that a plural may add */

struct term {
    size_t len;
    unsigned tools; /* that have it */
    char text[TERM_MAX + 2]; /* with a blank before it */
};

/* Folding */

static bool is_upper(unsigned char c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || is_upper(c) || (c >= 'a' && c <= 'z') || c >= 0x80;
}

/* Lower case of the letters of two bytes that have their lower case 32 places, or one, further: Latin-1, Greek, Cyrillic. */
static void fold_pair(unsigned char *p)
{
    unsigned c = (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);

    if ((c >= 0xC0 && c <= 0xDE && c != 0xD7) || (c >= 0x391 && c <= 0x3A9) || (c >= 0x410 && c <= 0x42F))
        c += 32;
    else if (c >= 0x400 && c <= 0x40F)
        c += 80;
    p[0] = (unsigned char)(0xC0 | c >> 6);
    p[1] = (unsigned char)(0x80 | (c & 0x3F));
}

static int put_folded(struct cm_buf *to, const char *text, size_t len)
{
    char *at;
    int rc = cm_buf_reserve(to, len, &at);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < len; i++)
        at[i] = (char)(is_upper((unsigned char)text[i]) ? text[i] + 32 : text[i]);
    for (size_t i = 0; i + 1 < len; i++)
        if (((unsigned char)at[i] & 0xE0) == 0xC0)
            fold_pair((unsigned char *)at + i);
    cm_buf_commit(to, len);
    return 0;
}

/* "getWeather" goes on at the W, "HTTPServer" at the S. */
static bool goes_on(const char *first, const char *at, const char *end)
{
    if (at == first || !is_upper((unsigned char)*at))
        return false;
    return !is_upper((unsigned char)at[-1]) || (at + 1 < end && at[1] >= 'a' && at[1] <= 'z');
}

int cm_search_fold(struct cm_buf *to, const char *text, size_t len)
{
    const char *at = text, *end = len > 0 ? text + len : text;
    int rc = cm_buf_puts(to, " ");

    while (rc == 0 && at < end) {
        if (!is_word((unsigned char)*at)) {
            at++;
            continue;
        }
        const char *first = at;
        while (at < end && is_word((unsigned char)*at) && !goes_on(first, at, end))
            at++;
        rc = put_folded(to, first, (size_t)(at - first));
        rc = rc ? rc : cm_buf_puts(to, " ");
    }
    return rc;
}

/* Terms */

static unsigned read_terms(const char *query, size_t len, struct term *terms)
{
    cm_autobuf struct cm_buf folded;
    unsigned n = 0;

    cm_buf_init(&folded, TERMS_MAX * TERM_MAX * 4);
    cm_search_fold(&folded, query, len < TERMS_MAX * TERM_MAX ? len : TERMS_MAX * TERM_MAX);
    for (const char *at = cm_buf_data(&folded); n < TERMS_MAX && *at; at++) {
        size_t length = strcspn(at + 1, " ");
        if (*at != ' ' || length == 0)
            continue;
        struct term *t = &terms[n++];
        t->tools = 0;
        t->len = (length < TERM_MAX ? length : TERM_MAX) + 1;
        memcpy(t->text, at, t->len);
        t->text[t->len] = '\0';
        for (unsigned i = 0; i + 1 < n; i++)
            if (strcmp(terms[i].text, t->text) == 0) {
                n--; /* asked twice */
                break;
            }
    }
    return n;
}

/* 1 for the word at `at`, a part for one that is near, or 0. `at` stands on the blank before it. */
static double word_hit(const char *at, const char *end, const struct term *t)
{
    size_t len = (size_t)((const char *)memchr(at + 1, ' ', (size_t)(end - at - 1)) - at), same = 0;

    while (same < len && same < t->len && at[same] == t->text[same])
        same++;
    if (same == t->len)
        return same == len ? 1 : t->len > 2 ? PART_HIT : 0;
    return same == len && len > 3 && t->len - len <= ENDING_MAX ? PART_HIT : 0;
}

static double term_hits(const struct cm_tool *tool, const struct term *t)
{
    const char *at = tool->words, *end = tool->words + tool->words_len, *name_end = tool->words + tool->name_words_len;
    double hits = 0;

    while (at + 1 < end) {
        if (at[1] != ' ' && at[1] == t->text[1])
            hits += word_hit(at, end, t) * (at < name_end ? NAME_HIT : 1);
        at = memchr(at + 1, ' ', (size_t)(end - at - 1));
        if (!at)
            break;
    }
    return hits;
}

/* Ranking */

static bool is_allowed(const uint8_t *allowed, size_t tool)
{
    return !allowed || allowed[tool];
}

static size_t mean_length(const struct cm_toolset *set)
{
    size_t sum = 0;

    for (size_t i = 0; i < set->count; i++)
        sum += set->tools[i]->words_len;
    return set->count ? sum / set->count + 1 : 1;
}

static double score_of(const struct cm_toolset *set, size_t tool, const float *hits, const struct term *terms,
                       unsigned n, size_t mean)
{
    double length = 1 - LENGTH + LENGTH * (double)set->tools[tool]->words_len / (double)mean, score = 0;

    for (unsigned t = 0; t < n; t++) {
        double rarity = log(1 + ((double)set->count - terms[t].tools + 0.5) / (terms[t].tools + 0.5));
        double h = (double)hits[tool * n + t];
        score += rarity * h * (SATURATION + 1) / (h + SATURATION * length);
    }
    return score;
}

/* The list stays sorted: rows are few. */
static size_t insert(struct cm_found *list, size_t count, size_t limit, struct cm_found row)
{
    size_t at = count;

    while (at > 0 && list[at - 1].score < row.score)
        at--;
    if (at >= limit)
        return count;
    size_t keep = count < limit ? count : limit - 1;
    memmove(&list[at + 1], &list[at], (keep - at) * sizeof *list);
    list[at] = row;
    return keep + 1;
}

static long first_ones(const struct cm_toolset *set, const uint8_t *allowed, struct cm_found *ret, size_t limit)
{
    size_t n = 0;

    for (size_t i = 0; i < set->count && n < limit; i++)
        if (is_allowed(allowed, i))
            ret[n++] = (struct cm_found){(uint32_t)i, 0};
    return (long)n;
}

long cm_search(const struct cm_toolset *set, const uint8_t *allowed, const char *query, size_t query_len,
               struct cm_found *ret, size_t limit)
{
    struct term terms[TERMS_MAX];
    unsigned n = read_terms(query, query_len, terms);
    size_t count = 0, mean = mean_length(set);

    if (n == 0 || set->count == 0)
        return first_ones(set, allowed, ret, limit);
    cm_autofree float *hits = calloc(set->count * n, sizeof *hits);
    if (!hits)
        return -1;
    for (size_t i = 0; i < set->count; i++)
        for (unsigned t = 0; is_allowed(allowed, i) && t < n; t++) {
            hits[i * n + t] = (float)term_hits(set->tools[i], &terms[t]);
            terms[t].tools += hits[i * n + t] > 0;
        }
    for (size_t i = 0; i < set->count; i++) {
        double score = score_of(set, i, hits, terms, n, mean);
        if (score > 0)
            count = insert(ret, count, limit, (struct cm_found){(uint32_t)i, score});
    }
    return (long)count;
}
