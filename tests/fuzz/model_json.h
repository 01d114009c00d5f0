/* SPDX-License-Identifier: Apache-2.0 */
/* JSON by RFC 8259 as plainly as it can be said, for comparison: no speed, no slices, one byte at a time. */
#ifndef CM_TESTS_MODEL_JSON_H
#define CM_TESTS_MODEL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Its branches are no progress of a fuzzer's. */
#pragma clang attribute push(__attribute__((no_sanitize("coverage"))), apply_to = function)

struct model {
    bool valid;
    char kind;       /* first byte of the value */
    size_t children; /* elements or members of the outermost value */
};

struct model_text {
    const unsigned char *p, *end;
    unsigned depth, depth_max;
};

static inline int model_peek(struct model_text *t)
{
    return t->p < t->end ? *t->p : -1;
}

static inline bool model_next_is(struct model_text *t, const char *set)
{
    int c = model_peek(t);

    return c > 0 && strchr(set, c);
}

static inline void model_blank(struct model_text *t)
{
    while (model_next_is(t, " \t\r\n"))
        t->p++;
}

static inline bool model_digits(struct model_text *t)
{
    bool any = false;

    for (; model_next_is(t, "0123456789"); t->p++)
        any = true;
    return any;
}

static inline bool model_number(struct model_text *t)
{
    if (model_peek(t) == '-')
        t->p++;
    if (model_peek(t) == '0')
        t->p++;
    else if (!model_digits(t))
        return false;
    if (model_peek(t) == '.') {
        t->p++;
        if (!model_digits(t))
            return false;
    }
    if (!model_next_is(t, "eE"))
        return true;
    t->p++;
    if (model_next_is(t, "+-"))
        t->p++;
    return model_digits(t);
}

/* One character of UTF-8 as a number, without a look at tables: built up, then judged by its value. */
static inline bool model_character(struct model_text *t)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned first = *t->p++, n, value;

    if (first < 0x80)
        return true;
    n = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc0 || first > 0xf7)
        return false;
    value = first & (0x7fu >> n);
    for (unsigned i = 1; i < n; i++) {
        if (model_peek(t) < 0x80 || model_peek(t) > 0xbf)
            return false;
        value = value << 6 | (*t->p++ & 0x3f);
    }
    return value >= least[n] && value <= 0x10ffff && !(value >= 0xd800 && value <= 0xdfff);
}

static inline bool model_string(struct model_text *t)
{
    if (model_peek(t) != '"')
        return false;
    t->p++;
    for (;;) {
        int c = model_peek(t);
        if (c < 0x20)
            return false;
        if (!model_character(t))
            return false;
        if (c == '"')
            return true;
        if (c != '\\')
            continue;
        c = model_peek(t);
        if (!model_next_is(t, "\"\\/bfnrtu"))
            return false;
        t->p++;
        for (int i = 0; c == 'u' && i < 4; i++, t->p++)
            if (!model_next_is(t, "0123456789abcdefABCDEF"))
                return false;
    }
}

static inline bool model_word(struct model_text *t, const char *word)
{
    for (; *word; word++, t->p++)
        if (model_peek(t) != *word)
            return false;
    return true;
}

static inline bool model_value(struct model_text *t, size_t *ret_children);

static inline bool model_container(struct model_text *t, bool object, size_t *ret_children)
{
    size_t inner;
    int close = object ? '}' : ']';

    if (t->depth == t->depth_max)
        return false;
    t->depth++;
    t->p++;
    model_blank(t);
    if (model_peek(t) == close) {
        t->depth--;
        t->p++;
        return true;
    }
    for (;;) {
        model_blank(t);
        if (object) {
            if (!model_string(t))
                return false;
            model_blank(t);
            if (model_peek(t) != ':')
                return false;
            t->p++;
        }
        if (!model_value(t, &inner))
            return false;
        ++*ret_children;
        model_blank(t);
        int c = model_peek(t);
        if (c != close && c != ',')
            return false;
        t->p++;
        if (c == close)
            break;
    }
    t->depth--;
    return true;
}

static inline bool model_value(struct model_text *t, size_t *ret_children)
{
    *ret_children = 0;
    model_blank(t);
    switch (model_peek(t)) {
    case '{':
    case '[':
        return model_container(t, model_peek(t) == '{', ret_children);
    case '"':
        return model_string(t);
    case 't':
        return model_word(t, "true");
    case 'f':
        return model_word(t, "false");
    case 'n':
        return model_word(t, "null");
    default:
        return model_number(t);
    }
}

static inline struct model model_json(const char *text, size_t size, unsigned depth_max)
{
    struct model_text t = {(const unsigned char *)text, (const unsigned char *)text + size, 0, depth_max};
    struct model m = {0};

    model_blank(&t);
    m.kind = (char)(t.p < t.end ? *t.p : 0);
    m.valid = model_value(&t, &m.children);
    model_blank(&t);
    m.valid = m.valid && t.p == t.end;
    return m;
}

#pragma clang attribute pop

#endif
