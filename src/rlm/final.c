/* SPDX-License-Identifier: Apache-2.0 */
/* Final answers in the text of a reply: FINAL(text) and FINAL_VAR(name). */
#include "rlm/reply.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/names.h"

#define TEXT_MAX (1u << 20) /* bytes of a final answer in text: what a reply may make us look through, sixteen times */

struct slice {
    const char *at;
    size_t len;
};

static bool is_white(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static struct slice trim(struct slice s)
{
    while (s.len > 0 && is_white(s.at[0]))
        s.at++, s.len--;
    while (s.len > 0 && is_white(s.at[s.len - 1]))
        s.len--;
    return s;
}

/* Takes every character of `set` off both ends. */
static struct slice strip(struct slice s, const char *set)
{
    while (s.len > 0 && s.at[0] && strchr(set, s.at[0]))
        s.at++, s.len--;
    while (s.len > 0 && s.at[s.len - 1] && strchr(set, s.at[s.len - 1]))
        s.len--;
    return s;
}

static bool ends_line(const char *text, size_t len, size_t at)
{
    while (at < len && (text[at] == ' ' || text[at] == '\t' || text[at] == '\r'))
        at++;
    return at == len || text[at] == '\n';
}

/* Where the text of FINAL( ends, or SIZE_MAX. */
static size_t text_end(const char *text, size_t len, const struct cm_final_line *line)
{
    long open = 1, least = 1;
    size_t last = SIZE_MAX; /* the last one that ends a line before the next fence */
    size_t stop = len - line->at > TEXT_MAX ? line->at + TEXT_MAX : len;

    for (size_t i = line->at; i < stop; i++) {
        if (text[i] == '(') {
            open++;
        } else if (text[i] == ')') {
            bool ends = ends_line(text, len, i + 1);
            open--;
            if (open < least && open <= 0 && ends)
                return i;
            if (open < least)
                least = open;
            if (ends && i < line->fence)
                last = i;
        }
    }
    return least > 0 ? last : SIZE_MAX;
}

static bool wrapped(struct slice s, const char *quote, size_t n)
{
    return s.len >= 2 * n && memcmp(s.at, quote, n) == 0 && memcmp(s.at + s.len - n, quote, n) == 0 &&
           !memmem(s.at + n, s.len - 2 * n, quote, n);
}

static struct slice unquote(struct slice s)
{
    static const char *const quotes[] = {"\"\"\"", "'''", "\"", "'"};

    for (size_t i = 0; i < sizeof quotes / sizeof quotes[0]; i++) {
        size_t n = strlen(quotes[i]);
        if (wrapped(s, quotes[i], n))
            return (struct slice){s.at + n, s.len - 2 * n};
    }
    return s;
}

static struct slice variable_of(const char *text, size_t len, const struct cm_final_line *line)
{
    const char *at = text + line->at, *end = memchr(at, ')', len - line->at);
    struct slice none = {NULL, 0};

    if (!end || memchr(at, '\n', (size_t)(end - at)))
        return none;
    struct slice name = strip((struct slice){at, (size_t)(end - at)}, "\"'` \t");
    return cm_name_is_variable(name.at, name.len) ? name : none;
}

static struct slice text_of(const char *text, size_t len, const struct cm_final_line *line)
{
    size_t end = text_end(text, len, line);

    if (end == SIZE_MAX)
        return (struct slice){NULL, 0};
    return unquote(trim((struct slice){text + line->at, end - line->at}));
}

static int keep(struct cm_reply *reply, int kind, struct slice s)
{
    char *value = malloc(s.len + 1);

    if (!value)
        return CM_ERR_NO_MEMORY;
    memcpy(value, s.at, s.len);
    value[s.len] = '\0';
    reply->value = value;
    reply->value_len = s.len;
    reply->final = kind;
    return 0;
}

int cm_final_read(const char *text, size_t len, const struct cm_final_line *lines, size_t count, struct cm_reply *ret)
{
    for (int kind = CM_FINAL_VARIABLE; kind > CM_FINAL_NONE; kind--)
        for (size_t i = 0; i < count; i++) {
            if (lines[i].variable != (kind == CM_FINAL_VARIABLE))
                continue;
            struct slice s = lines[i].variable ? variable_of(text, len, &lines[i]) : text_of(text, len, &lines[i]);
            if (s.len > 0)
                return keep(ret, kind, s);
        }
    return 0;
}
