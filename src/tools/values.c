/* SPDX-License-Identifier: Apache-2.0 */
/* The text was checked before, so reading it needs no care about its form: a value ends where its brackets close, and a
 * string at the first quote that no backslash stands before. */
#include "tools/values.h"

#include <string.h>

#include "base/buf.h"

/* Strings */

struct cm_chars cm_chars_of(const struct cm_json_value *string)
{
    return (struct cm_chars){string->raw + 1, string->raw + string->len - 1};
}

static unsigned hex4(const char *p)
{
    unsigned v = 0;

    for (int i = 0; i < 4; i++) {
        unsigned c = (unsigned char)p[i];
        v = v << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return v;
}

static int32_t next_escape(struct cm_chars *s)
{
    static const char letters[] = "bfnrt", meanings[] = "\b\f\n\r\t";
    char c = *s->at++;
    const char *known = c ? strchr(letters, c) : NULL;

    if (c != 'u')
        return known ? meanings[known - letters] : c;
    unsigned v = hex4(s->at);
    s->at += 4;
    if (v < 0xD800 || v > 0xDBFF || s->end - s->at < 6 || s->at[0] != '\\' || s->at[1] != 'u')
        return (int32_t)v;
    unsigned low = hex4(s->at + 2);
    if (low < 0xDC00 || low > 0xDFFF)
        return (int32_t)v;
    s->at += 6;
    return (int32_t)(0x10000 + ((v - 0xD800) << 10) + (low - 0xDC00));
}

int32_t cm_chars_next(struct cm_chars *s)
{
    if (s->at >= s->end)
        return -1;
    unsigned char c = (unsigned char)*s->at++;
    if (c == '\\')
        return next_escape(s);
    if (c < 0x80)
        return c;
    unsigned more = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
    int32_t v = c & (0x3F >> more);
    while (more-- > 0)
        v = v << 6 | (*s->at++ & 0x3F);
    return v;
}

bool cm_chars_equal(struct cm_chars a, struct cm_chars b)
{
    int32_t c;

    if (a.end - a.at == b.end - b.at && memcmp(a.at, b.at, (size_t)(a.end - a.at)) == 0)
        return true;
    while ((c = cm_chars_next(&a)) == cm_chars_next(&b))
        if (c < 0)
            return true;
    return false;
}

bool cm_chars_are(struct cm_chars a, const char *text)
{
    return cm_chars_equal(a, (struct cm_chars){text, text + strlen(text)});
}

size_t cm_chars_count(struct cm_chars s)
{
    size_t n = 0;

    while (cm_chars_next(&s) >= 0)
        n++;
    return n;
}

static int put_char(struct cm_buf *to, int32_t c)
{
    static const unsigned char first[] = {0, 0, 0xC0, 0xE0, 0xF0};
    char out[4];

    if (c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0xD800 && c < 0xE000))
        c = '?';
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(first[n] | c);
    return cm_buf_append(to, out, n);
}

int cm_chars_put(struct cm_buf *to, struct cm_chars s, size_t most)
{
    int32_t c;
    int rc = 0;

    while (rc == 0 && (c = cm_chars_next(&s)) >= 0) {
        if (most-- == 0)
            return cm_buf_puts(to, "...");
        rc = put_char(to, c);
    }
    return rc;
}

/* Containers */

static const char *skip_blank(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r'))
        at++;
    return at;
}

/* `at` stands on the opening quote. */
static const char *skip_string(const char *at, const char *end)
{
    for (at++; at < end; at++) {
        if (*at == '\\')
            at++;
        else if (*at == '"')
            return at + 1;
    }
    return end;
}

static const char *skip_nested(const char *at, const char *end)
{
    unsigned depth = 0;

    while (at < end) {
        if (*at == '"') {
            at = skip_string(at, end);
            continue;
        }
        if (*at == '{' || *at == '[')
            depth++;
        else if ((*at == '}' || *at == ']') && --depth == 0)
            return at + 1;
        at++;
    }
    return end;
}

static const char *skip_word(const char *at, const char *end)
{
    while (at < end && !memchr(",]} \n\t\r", *at, 7))
        at++;
    return at;
}

/* The value at `at`; moves it behind. */
static struct cm_json_value take_value(const char **at, const char *end)
{
    const char *first = skip_blank(*at, end);
    enum cm_json_kind kind = CM_JSON_NUMBER;

    if (first == end)
        return (struct cm_json_value){CM_JSON_ABSENT, NULL, 0};
    if (*first == '"') {
        kind = CM_JSON_STRING;
        *at = skip_string(first, end);
    } else if (*first == '{' || *first == '[') {
        kind = *first == '{' ? CM_JSON_OBJECT : CM_JSON_ARRAY;
        *at = skip_nested(first, end);
    } else {
        kind = *first == 'n' ? CM_JSON_NULL : *first == 't' || *first == 'f' ? CM_JSON_BOOL : CM_JSON_NUMBER;
        *at = skip_word(first, end);
    }
    return (struct cm_json_value){kind, (char *)first, (size_t)(*at - first)};
}

/* Behind the bracket, or behind the comma after the value before; false at the closing bracket. */
static bool next_place(struct cm_members *m)
{
    m->at = skip_blank(m->at, m->end);
    if (m->at < m->end && *m->at == ',')
        m->at++;
    m->at = skip_blank(m->at, m->end);
    return m->at < m->end;
}

struct cm_members cm_members_of(const struct cm_json_value *object)
{
    return (struct cm_members){object->raw + 1, object->raw + object->len - 1};
}

bool cm_members_next(struct cm_members *m, struct cm_chars *ret_name, struct cm_json_value *ret)
{
    if (!next_place(m))
        return false;
    struct cm_json_value name = take_value(&m->at, m->end);
    m->at = skip_blank(m->at, m->end) + 1; /* the colon */
    *ret_name = cm_chars_of(&name);
    *ret = take_value(&m->at, m->end);
    return true;
}

struct cm_members cm_elements_of(const struct cm_json_value *array)
{
    return cm_members_of(array);
}

bool cm_elements_next(struct cm_members *m, struct cm_json_value *ret)
{
    if (!next_place(m))
        return false;
    *ret = take_value(&m->at, m->end);
    return true;
}

struct cm_json_value cm_member(const struct cm_json_value *object, const char *name)
{
    struct cm_json_value value, found = {CM_JSON_ABSENT, NULL, 0};
    struct cm_chars at;

    if (object->kind != CM_JSON_OBJECT)
        return found;
    for (struct cm_members m = cm_members_of(object); cm_members_next(&m, &at, &value);)
        if (cm_chars_are(at, name))
            found = value;
    return found;
}

/* Equality */

static bool spend(uint64_t *work, uint64_t n)
{
    *work = *work > n ? *work - n : 0;
    return *work > 0;
}

static bool arrays_equal(const struct cm_json_value *a, const struct cm_json_value *b, uint64_t *work)
{
    struct cm_members ma = cm_elements_of(a), mb = cm_elements_of(b);
    struct cm_json_value va, vb;

    for (;;) {
        bool more = cm_elements_next(&ma, &va);
        if (cm_elements_next(&mb, &vb) != more)
            return false;
        if (!more)
            return true;
        if (!cm_values_equal(&va, &vb, work))
            return false;
    }
}

static bool has_equal(const struct cm_json_value *object, struct cm_chars name, const struct cm_json_value *value,
                      uint64_t *work)
{
    struct cm_members m = cm_members_of(object);
    struct cm_json_value v;
    struct cm_chars n;

    if (!spend(work, object->len))
        return false;
    while (cm_members_next(&m, &n, &v))
        if (cm_chars_equal(n, name))
            return cm_values_equal(&v, value, work);
    return false;
}

static bool objects_equal(const struct cm_json_value *a, const struct cm_json_value *b, uint64_t *work)
{
    struct cm_members m = cm_members_of(a);
    struct cm_json_value value;
    struct cm_chars name;
    size_t count = 0;

    for (; cm_members_next(&m, &name, &value); count++)
        if (!has_equal(b, name, &value, work))
            return false;
    for (m = cm_members_of(b); cm_members_next(&m, &name, &value);)
        count--;
    return count == 0;
}

bool cm_values_equal(const struct cm_json_value *a, const struct cm_json_value *b, uint64_t *work)
{
    if (!spend(work, a->len + b->len) || a->kind != b->kind)
        return false;
    if (a->len == b->len && memcmp(a->raw, b->raw, a->len) == 0)
        return true;
    switch (a->kind) {
    case CM_JSON_NUMBER:
        return cm_json_number(a) == cm_json_number(b);
    case CM_JSON_STRING:
        return cm_chars_equal(cm_chars_of(a), cm_chars_of(b));
    case CM_JSON_ARRAY:
        return arrays_equal(a, b, work);
    case CM_JSON_OBJECT:
        return objects_equal(a, b, work);
    default:
        return false;
    }
}
