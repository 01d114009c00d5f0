/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

struct scan {
    const char *begin, *at, *end;
    unsigned depth;
    const char *reason; /* set once, by the first refusal */
};

static bool refuse(struct scan *s, const char *reason)
{
    if (!s->reason)
        s->reason = reason;
    return false;
}

static void skip_blank(struct scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
        s->at++;
}

static bool take(struct scan *s, char c)
{
    if (s->at >= s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

/* True when none of the eight bytes is a quote, a backslash or a control; false may also mean "beyond ASCII". */
static bool eight_plain(const char *p)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t v, quote, back;

    memcpy(&v, p, sizeof(v));
    quote = v ^ (ones * '"');
    back = v ^ (ones * '\\');
    return (((v - ones * 0x20) | (quote - ones) | (back - ones) | v) & tops) == 0;
}

static bool scan_hex4(struct scan *s)
{
    if (s->end - s->at < 4)
        return refuse(s, "unfinished \\u escape");
    for (int i = 0; i < 4; i++, s->at++) {
        char c = *s->at;
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')))
            return refuse(s, "bad \\u escape");
    }
    return true;
}

static bool scan_escape(struct scan *s)
{
    if (s->at >= s->end)
        return refuse(s, "unfinished string");
    char c = *s->at++;
    if (c == 'u')
        return scan_hex4(s);
    if (c == '\0' || !strchr("\"\\/bfnrt", c))
        return refuse(s, "unknown escape");
    return true;
}

static bool scan_string(struct scan *s)
{
    s->at++; /* the opening quote */
    while (s->at < s->end) {
        if (s->end - s->at >= 8 && eight_plain(s->at)) {
            s->at += 8;
            continue;
        }
        unsigned char c = (unsigned char)*s->at;
        if (c < 0x20)
            return refuse(s, "control character in a string");
        s->at++;
        if (c == '"')
            return true;
        if (c == '\\' && !scan_escape(s))
            return false;
    }
    return refuse(s, "unfinished string");
}

static bool scan_digits(struct scan *s)
{
    const char *first = s->at;

    while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
        s->at++;
    return s->at > first;
}

static bool scan_number(struct scan *s)
{
    take(s, '-');
    if (!take(s, '0') && !scan_digits(s))
        return refuse(s, "unexpected character");
    if (take(s, '.') && !scan_digits(s))
        return refuse(s, "digits must follow the decimal point");
    if (take(s, 'e') || take(s, 'E')) {
        if (!take(s, '+'))
            take(s, '-');
        if (!scan_digits(s))
            return refuse(s, "digits must follow the exponent sign");
    }
    return true;
}

static bool scan_word(struct scan *s, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len) != 0)
        return refuse(s, "unexpected character");
    s->at += len;
    return true;
}

static bool scan_value(struct scan *s, struct cm_json_value *ret);
static bool collect(struct scan *s, struct cm_json_member *wanted, size_t count);

/* The next member's name and value; the caller stands at the name's quote. */
static bool scan_member(struct scan *s, struct cm_json_value *ret_name, struct cm_json_value *ret)
{
    skip_blank(s);
    if (s->at >= s->end || *s->at != '"')
        return refuse(s, "a member's name must follow");
    if (!scan_value(s, ret_name))
        return false;
    skip_blank(s);
    if (!take(s, ':'))
        return refuse(s, "':' must follow a member's name");
    return scan_value(s, ret);
}

static bool scan_array(struct scan *s)
{
    struct cm_json_value value;

    skip_blank(s);
    if (take(s, ']'))
        return true;
    do {
        if (!scan_value(s, &value))
            return false;
        skip_blank(s);
    } while (take(s, ','));
    return take(s, ']') || refuse(s, "',' or ']' must follow an element");
}

/* An object whose members nobody asked for. */
static bool scan_object(struct scan *s)
{
    return collect(s, NULL, 0);
}

static bool scan_nested(struct scan *s, enum cm_json_kind kind)
{
    if (++s->depth > CM_JSON_DEPTH_MAX)
        return refuse(s, "nested too deeply");
    s->at++;
    bool ok = kind == CM_JSON_ARRAY ? scan_array(s) : scan_object(s);
    s->depth--;
    return ok;
}

static enum cm_json_kind kind_of(char first)
{
    switch (first) {
    case '{':
        return CM_JSON_OBJECT;
    case '[':
        return CM_JSON_ARRAY;
    case '"':
        return CM_JSON_STRING;
    case 't':
    case 'f':
        return CM_JSON_BOOL;
    case 'n':
        return CM_JSON_NULL;
    default:
        return CM_JSON_NUMBER;
    }
}

static bool scan_kind(struct scan *s, enum cm_json_kind kind)
{
    switch (kind) {
    case CM_JSON_OBJECT:
    case CM_JSON_ARRAY:
        return scan_nested(s, kind);
    case CM_JSON_STRING:
        return scan_string(s);
    case CM_JSON_BOOL:
        return scan_word(s, *s->at == 't' ? "true" : "false");
    case CM_JSON_NULL:
        return scan_word(s, "null");
    default:
        return scan_number(s);
    }
}

static bool scan_value(struct scan *s, struct cm_json_value *ret)
{
    skip_blank(s);
    if (s->at >= s->end)
        return refuse(s, "the text ends where a value must stand");
    const char *first = s->at;
    enum cm_json_kind kind = kind_of(*first);
    if (!scan_kind(s, kind))
        return false;
    *ret = (struct cm_json_value){kind, (char *)first, (size_t)(s->at - first)};
    return true;
}

static bool is_utf8(struct scan *s)
{
    return cm_utf8_valid(s->begin, (size_t)(s->end - s->begin)) || refuse(s, "text is not UTF-8");
}

static int bad_json(const struct scan *s, struct cm_err *err)
{
    return cm_err_set(err, CM_ERR_BAD_JSON, "invalid JSON at byte %zu: %s", (size_t)(s->at - s->begin), s->reason);
}

int cm_json_check(const char *text, size_t len, struct cm_json_value *ret, struct cm_err *err)
{
    struct scan s = {text, text, text + len, 0, NULL};
    struct cm_json_value value;
    bool ok = is_utf8(&s) && scan_value(&s, &value);

    if (ok) {
        skip_blank(&s);
        ok = s.at == s.end || refuse(&s, "more text behind the value");
    }
    if (!ok)
        return bad_json(&s, err);
    *ret = value;
    return 0;
}

/* The character of "\uXXXX" at `at`, or a plain byte; no wanted name holds a character that other escapes make. */
static unsigned name_char(const char *at, size_t left, size_t *ret_len)
{
    char digits[5] = {0};

    *ret_len = left >= 6 && at[0] == '\\' && at[1] == 'u' ? 6 : 1;
    if (*ret_len == 1)
        return (unsigned char)*at;
    memcpy(digits, at + 2, 4);
    return (unsigned)strtoul(digits, NULL, 16);
}

/* Whoever looks at a body before us reads a name's escapes: two spellings are one name, and may not both be there. */
static bool is_name(const struct cm_json_value *value, const char *name)
{
    const char *at = value->raw + 1, *end = value->raw + value->len - 1;
    size_t len;

    for (; at < end && *name; at += len, name++)
        if (name_char(at, (size_t)(end - at), &len) != (unsigned char)*name)
            return false;
    return at == end && !*name;
}

static struct cm_json_member *find(struct cm_json_member *wanted, size_t count, const struct cm_json_value *name)
{
    for (size_t i = 0; i < count; i++)
        if (is_name(name, wanted[i].name))
            return &wanted[i];
    return NULL;
}

static bool collect(struct scan *s, struct cm_json_member *wanted, size_t count)
{
    struct cm_json_value name, value;

    skip_blank(s);
    if (take(s, '}'))
        return true;
    do {
        if (!scan_member(s, &name, &value))
            return false;
        struct cm_json_member *m = find(wanted, count, &name);
        if (m && m->value.kind != CM_JSON_ABSENT)
            return refuse(s, "a member appears twice");
        if (m)
            m->value = value;
        skip_blank(s);
    } while (take(s, ','));
    return take(s, '}') || refuse(s, "',' or '}' must follow a member");
}

int cm_json_object(char *text, size_t len, struct cm_json_member *wanted, size_t count, struct cm_err *err)
{
    struct scan s = {text, text, text + len, 1, NULL};
    struct cm_json_value whole;

    for (size_t i = 0; i < count; i++)
        wanted[i].value.kind = CM_JSON_ABSENT;
    if (!is_utf8(&s))
        return bad_json(&s, err);
    skip_blank(&s);
    if (!take(&s, '{')) {
        int rc = cm_json_check(text, len, &whole, err);
        return rc < 0 ? rc : cm_err_set(err, CM_ERR_BAD_FIELD, "body: must be a JSON object");
    }
    if (!collect(&s, wanted, count))
        return bad_json(&s, err);
    skip_blank(&s);
    if (s.at != s.end) {
        refuse(&s, "more text behind the object");
        return bad_json(&s, err);
    }
    return 0;
}

void cm_json_elements(const struct cm_json_value *array, bool (*each)(void *arg, struct cm_json_value *value),
                      void *arg)
{
    struct scan s = {array->raw, array->raw + 1, array->raw + array->len, 1, NULL};
    struct cm_json_value value;

    skip_blank(&s);
    if (take(&s, ']'))
        return;
    do {
        if (!scan_value(&s, &value) || !each(arg, &value))
            return;
        skip_blank(&s);
    } while (take(&s, ','));
}

void cm_json_members(const struct cm_json_value *object,
                     bool (*each)(void *arg, const char *name, size_t len, const struct cm_json_value *value),
                     void *arg)
{
    struct scan s = {object->raw, object->raw + 1, object->raw + object->len, 1, NULL};
    struct cm_json_value name, value;

    skip_blank(&s);
    if (take(&s, '}'))
        return;
    do {
        if (!scan_member(&s, &name, &value) || !each(arg, name.raw + 1, name.len - 2, &value))
            return;
        skip_blank(&s);
    } while (take(&s, ','));
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

/* `at` stands behind "\u"; moves it behind the escape. 0 or more, or -1 for half a pair. */
static int32_t unicode_escape(const char **at, const char *end)
{
    unsigned v = hex4(*at);

    *at += 4;
    if (v < 0xD800 || v > 0xDFFF)
        return (int32_t)v;
    if (v > 0xDBFF || end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u')
        return -1;
    unsigned low = hex4(*at + 2);
    if (low < 0xDC00 || low > 0xDFFF)
        return -1;
    *at += 6;
    return (int32_t)(0x10000 + ((v - 0xD800) << 10) + (low - 0xDC00));
}

static char simple_escape(char c)
{
    switch (c) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return c;
    }
}

static size_t put_utf8(char *out, uint32_t code)
{
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char first[] = {0, 0, 0xC0, 0xE0, 0xF0};

    for (size_t i = n; i-- > 1; code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)(first[n] | code);
    return n;
}

/* The decoded form is never longer than the escaped one, so writing never overtakes reading. */
bool cm_json_decode(struct cm_json_value *string, size_t *ret_len)
{
    const char *at = string->raw + 1, *end = string->raw + string->len - 1;
    char *out = string->raw;

    while (at < end) {
        const char *back = memchr(at, '\\', (size_t)(end - at));
        size_t plain = (size_t)((back ? back : end) - at);
        memmove(out, at, plain);
        out += plain;
        at += plain;
        if (!back)
            break;
        at++;
        char c = *at++;
        if (c != 'u') {
            *out++ = simple_escape(c);
            continue;
        }
        int32_t code = unicode_escape(&at, end);
        if (code < 0)
            return false;
        out += put_utf8(out, (uint32_t)code);
    }
    *ret_len = (size_t)(out - string->raw);
    return true;
}

double cm_json_number(const struct cm_json_value *number)
{
    char text[64];

    if (number->len >= sizeof(text)) /* a caller asks for times and counts; nobody needs this many digits */
        return HUGE_VAL;
    memcpy(text, number->raw, number->len);
    text[number->len] = '\0';
    return strtod(text, NULL);
}
