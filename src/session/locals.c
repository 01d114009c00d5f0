/* SPDX-License-Identifier: Apache-2.0 */
/* A checker, not a parser. A parser that builds values would refuse what Python rightly sends - an integer of a
 * thousand digits, a string with a NUL - and would cost the loop an allocation per value. Nesting is one bit per
 * level, so a deep text cannot exhaust a stack. */
#include "session/locals.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#include "base/utf8.h"

struct scan {
    const char *p, *end;
    unsigned depth;
    uint8_t objects[CM_LOCALS_DEPTH_MAX / 8]; /* bit set: this level is an object */
};

static void skip_space(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
        s->p++;
}

static bool accept(struct scan *s, char c)
{
    if (s->p == s->end || *s->p != c)
        return false;
    s->p++;
    return true;
}

static bool escape(struct scan *s)
{
    if (s->p == s->end)
        return false;
    char c = *s->p++;
    if (c != 'u')
        return c && strchr("\"\\/bfnrt", c);
    for (int i = 0; i < 4; i++, s->p++)
        if (s->p == s->end || !isxdigit((unsigned char)*s->p))
            return false;
    return true;
}

static bool string(struct scan *s)
{
    if (!accept(s, '"'))
        return false;
    while (s->p < s->end) {
        unsigned char c = (unsigned char)*s->p++;
        if (c == '"')
            return true;
        if (c < 0x20 || (c == '\\' && !escape(s)))
            return false;
    }
    return false;
}

static bool digits(struct scan *s)
{
    const char *start = s->p;

    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        s->p++;
    return s->p > start;
}

static bool number(struct scan *s)
{
    accept(s, '-');
    if (!accept(s, '0') && !digits(s))
        return false;
    if (accept(s, '.') && !digits(s))
        return false;
    if (accept(s, 'e') || accept(s, 'E')) {
        if (!accept(s, '+'))
            accept(s, '-');
        return digits(s);
    }
    return true;
}

static bool word(struct scan *s, const char *text)
{
    size_t n = strlen(text);

    if ((size_t)(s->end - s->p) < n || memcmp(s->p, text, n) != 0)
        return false;
    s->p += n;
    return true;
}

static bool scalar(struct scan *s)
{
    switch (s->p < s->end ? *s->p : '\0') {
    case '"':
        return string(s);
    case 't':
        return word(s, "true");
    case 'f':
        return word(s, "false");
    case 'n':
        return word(s, "null");
    default:
        return number(s);
    }
}

static bool in_object(const struct scan *s)
{
    return s->objects[(s->depth - 1) / 8] >> ((s->depth - 1) % 8) & 1;
}

static bool push(struct scan *s, bool object)
{
    if (s->depth == CM_LOCALS_DEPTH_MAX)
        return false;
    uint8_t bit = (uint8_t)(1u << (s->depth % 8)), *byte = &s->objects[s->depth / 8];
    *byte = (uint8_t)(object ? *byte | bit : *byte & ~bit);
    s->depth++;
    return true;
}

static bool key(struct scan *s)
{
    skip_space(s);
    if (!string(s))
        return false;
    skip_space(s);
    return accept(s, ':');
}

/* A value up to where something may close behind it: opens containers until one is empty or a scalar is read. */
static bool value(struct scan *s)
{
    for (;;) {
        skip_space(s);
        bool object = s->p < s->end && *s->p == '{';
        if (!object && !(s->p < s->end && *s->p == '['))
            return scalar(s);
        s->p++;
        if (!push(s, object))
            return false;
        skip_space(s);
        if (accept(s, object ? '}' : ']')) {
            s->depth--;
            return true;
        }
        if (object && !key(s))
            return false;
    }
}

bool cm_locals_valid(const char *text, size_t len)
{
    struct scan s = {0};

    if (!text || !cm_utf8_valid(text, len))
        return false;
    s.p = text;
    s.end = text + len;
    skip_space(&s);
    if (s.p == s.end || *s.p != '{' || !value(&s))
        return false;
    for (;;) {
        skip_space(&s);
        if (s.depth == 0)
            return s.p == s.end;
        if (accept(&s, in_object(&s) ? '}' : ']'))
            s.depth--;
        else if (!accept(&s, ',') || (in_object(&s) && !key(&s)) || !value(&s))
            return false;
    }
}
