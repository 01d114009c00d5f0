/* SPDX-License-Identifier: Apache-2.0 */
#include "llm/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define COUNT_MAX (1ull << 50)

struct search {
    const char *name;
    size_t len;
    struct cm_json_value found;
};

static bool compare(void *arg, const char *name, size_t len, const struct cm_json_value *value)
{
    struct search *s = arg;

    if (len != s->len || memcmp(name, s->name, len) != 0)
        return true;
    s->found = *value;
    return false;
}

static struct cm_json_value member(const struct cm_json_value *object, const char *name, size_t len)
{
    struct search s = {name, len, {CM_JSON_ABSENT, NULL, 0}};

    if (object->kind == CM_JSON_OBJECT)
        cm_json_members(object, compare, &s);
    return s.found;
}

struct cm_json_value cm_llm_field(const struct cm_json_value *object, const char *name)
{
    return member(object, name, strlen(name));
}

struct cm_json_value cm_llm_path(const struct cm_json_value *object, const char *path)
{
    struct cm_json_value at = *object;

    while (*path) {
        size_t len = strcspn(path, ".");
        at = member(&at, path, len);
        path += len + (path[len] == '.');
    }
    return at;
}

uint64_t cm_llm_count(const struct cm_json_value *number)
{
    double n = number->kind == CM_JSON_NUMBER ? cm_json_number(number) : 0;

    return n > 0 ? n < (double)COUNT_MAX ? (uint64_t)n : COUNT_MAX : 0;
}

static unsigned escape_at(const char *at, const char *end)
{
    char digits[5] = {0};

    if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
        return 0;
    memcpy(digits, at + 2, 4);
    return (unsigned)strtoul(digits, NULL, 16);
}

static bool is_low(unsigned c)
{
    return c >= 0xdc00 && c <= 0xdfff;
}

/* Writes \ufffd over each escape that is half a pair: some services cut their pieces between the halves. */
static void mend_halves(struct cm_json_value *string)
{
    char *at = string->raw + 1, *end = string->raw + string->len - 1;

    while (at < end && (at = memchr(at, '\\', (size_t)(end - at)))) {
        unsigned c = escape_at(at, end);
        bool high = c >= 0xd800 && c <= 0xdbff;
        if (high && is_low(escape_at(at + 6, end))) {
            at += 12;
            continue;
        }
        if (high || is_low(c))
            memcpy(at + 2, "fffd", 4);
        at += at[1] == 'u' ? 6 : 2;
    }
}

const char *cm_llm_text(struct cm_json_value *string, size_t *ret_len)
{
    if (string->kind != CM_JSON_STRING)
        return NULL;
    mend_halves(string);
    if (!cm_json_decode(string, ret_len))
        return NULL;
    return string->raw;
}

size_t cm_llm_whole(const char *text, size_t len, size_t max)
{
    size_t n = len < max ? len : max;

    return n < len ? n - cm_utf8_cut_end(text, n) : n;
}

void cm_llm_copy(struct cm_json_value *string, char *to, size_t size)
{
    size_t len;
    const char *text = cm_llm_text(string, &len);

    if (!text)
        return;
    len = cm_llm_whole(text, len, size - 1);
    memcpy(to, text, len);
    to[len] = '\0';
}
