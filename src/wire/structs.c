/* SPDX-License-Identifier: Apache-2.0 */
/* Both directions look at each byte a bounded number of times, whatever the nesting.
 *
 *   Struct    1: repeated Entry { 1: key, 2: Value }
 *   Value     1: null (varint)  2: double  3: string  4: bool (varint)  5: Struct  6: List
 *   List      1: repeated Value
 *
 * To JSON: recursion over the wire's bytes, which is cut off at CM_JSON_DEPTH_MAX. Whatever protobuf readers agree on is
 * taken: any order of fields, unknown ones, a Value without content (null), the last of several scalars. Two contents
 * in one Value are refused: no writer makes that, and readers that merge them see something else than those that do not.
 *
 * From JSON: each length stands in front of what it counts, so a first pass over the checked text notes the sizes of all
 * lists and Structs in the order of their beginnings, and a second one writes.
 */
#include "wire/structs.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "wire/json.h"

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
enum { VALUE_NULL = 1, VALUE_NUMBER, VALUE_STRING, VALUE_BOOL, VALUE_STRUCT, VALUE_LIST };

#define TAG(field, type) ((uint8_t)((field) << 3 | (type)))
#define EXACT            9007199254740992.0 /* 2^53: up to here a double counts by ones */

/* To JSON */

struct span {
    const uint8_t *at, *end;
};

struct field {
    uint32_t number;
    unsigned type;
    uint64_t value;    /* of a varint or a fixed width */
    struct span bytes; /* of a length-delimited one */
};

struct reader {
    struct cm_buf *json;
    unsigned depth;
    int rc; /* of the buffer; else the refusal is in `reason` */
    const char *reason;
};

static bool refuse(struct reader *r, const char *reason)
{
    if (!r->reason)
        r->reason = reason;
    return false;
}

static bool put(struct reader *r, int rc)
{
    if (rc < 0 && r->rc == 0)
        r->rc = rc;
    return rc >= 0;
}

static bool get_varint(struct span *s, uint64_t *ret)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64 && s->at < s->end; shift += 7) {
        uint8_t byte = *s->at++;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return true;
        }
    }
    return false;
}

static bool get_fixed(struct span *s, size_t size, uint64_t *ret)
{
    uint64_t value = 0;

    if ((size_t)(s->end - s->at) < size)
        return false;
    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)*s->at++ << 8 * i;
    *ret = value;
    return true;
}

static bool get_field(struct reader *r, struct span *s, struct field *ret)
{
    uint64_t tag = 0, len = 0;
    bool ok = get_varint(s, &tag) && tag >> 3 != 0 && tag >> 3 <= 0x1FFFFFFF;

    *ret = (struct field){.number = (uint32_t)(tag >> 3), .type = tag & 7};
    if (ok && ret->type == WIRE_VARINT) {
        ok = get_varint(s, &ret->value);
    } else if (ok && ret->type == WIRE_FIXED64) {
        ok = get_fixed(s, 8, &ret->value);
    } else if (ok && ret->type == WIRE_FIXED32) {
        ok = get_fixed(s, 4, &ret->value);
    } else if (ok && ret->type == WIRE_BYTES) {
        ok = get_varint(s, &len) && len <= (size_t)(s->end - s->at);
        ret->bytes = (struct span){s->at, s->at + (ok ? len : 0)};
        s->at = ret->bytes.end;
    } else {
        ok = false;
    }
    return ok || refuse(r, "malformed field");
}

static bool write_string(struct reader *r, struct span s)
{
    const char *text = s.at == s.end ? "" : (const char *)s.at;
    size_t len = (size_t)(s.end - s.at);

    if (!cm_utf8_valid(text, len))
        return refuse(r, "a string is not UTF-8");
    return put(r, cm_json_put_string(r->json, text, len));
}

/* The shortest text that means the same double. One that is no integer to the reader keeps a point or an exponent. */
static bool write_number(struct reader *r, uint64_t bits)
{
    char text[40];
    double d;

    memcpy(&d, &bits, sizeof d);
    if (!isfinite(d))
        return refuse(r, "a number is not finite");
    if (d == trunc(d) && fabs(d) <= EXACT && !(d == 0 && signbit(d)))
        return put(r, cm_buf_printf(r->json, "%lld", (long long)d));
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    if (!strpbrk(text, ".e"))
        strcat(text, ".0");
    return put(r, cm_buf_puts(r->json, text));
}

static bool write_struct(struct reader *r, struct span s);
static bool write_list(struct reader *r, struct span s);

static bool is_content(const struct field *f)
{
    static const unsigned types[] = {
        [VALUE_NULL] = WIRE_VARINT, [VALUE_NUMBER] = WIRE_FIXED64, [VALUE_STRING] = WIRE_BYTES,
        [VALUE_BOOL] = WIRE_VARINT, [VALUE_STRUCT] = WIRE_BYTES,   [VALUE_LIST] = WIRE_BYTES};

    return f->number >= VALUE_NULL && f->number <= VALUE_LIST && f->type == types[f->number];
}

static bool write_value(struct reader *r, struct span s)
{
    struct field f, content = {.number = VALUE_NULL};
    bool seen = false;

    while (s.at < s.end) {
        if (!get_field(r, &s, &f))
            return false;
        if (!is_content(&f))
            continue;
        if (seen)
            return refuse(r, "a value has two contents");
        content = f;
        seen = true;
    }
    switch (content.number) {
    case VALUE_NUMBER:
        return write_number(r, content.value);
    case VALUE_STRING:
        return write_string(r, content.bytes);
    case VALUE_BOOL:
        return put(r, cm_buf_puts(r->json, content.value ? "true" : "false"));
    case VALUE_STRUCT:
        return write_struct(r, content.bytes);
    case VALUE_LIST:
        return write_list(r, content.bytes);
    default:
        return put(r, cm_buf_puts(r->json, "null"));
    }
}

static bool write_entry(struct reader *r, struct span s)
{
    struct span key = {s.at, s.at}, value = {s.at, s.at};
    struct field f;
    bool seen = false;

    while (s.at < s.end) {
        if (!get_field(r, &s, &f))
            return false;
        if (f.type != WIRE_BYTES || f.number > 2)
            continue;
        if (f.number == 2 && seen)
            return refuse(r, "an entry has two values");
        *(f.number == 1 ? &key : &value) = f.bytes;
        seen = seen || f.number == 2;
    }
    return write_string(r, key) && put(r, cm_buf_append(r->json, ":", 1)) && write_value(r, value);
}

/* What a Struct and a list have in common: field 1, again and again. */
static bool write_all(struct reader *r, struct span s, const char *brackets,
                      bool (*each)(struct reader *r, struct span s))
{
    bool first = true;
    struct field f;

    if (++r->depth > CM_JSON_DEPTH_MAX)
        return refuse(r, "nested too deeply");
    if (!put(r, cm_buf_append(r->json, &brackets[0], 1)))
        return false;
    while (s.at < s.end) {
        if (!get_field(r, &s, &f))
            return false;
        if (f.number != 1 || f.type != WIRE_BYTES)
            continue;
        if ((!first && !put(r, cm_buf_append(r->json, ",", 1))) || !each(r, f.bytes))
            return false;
        first = false;
    }
    r->depth--;
    return put(r, cm_buf_append(r->json, &brackets[1], 1));
}

static bool write_struct(struct reader *r, struct span s)
{
    return write_all(r, s, "{}", write_entry);
}

static bool write_list(struct reader *r, struct span s)
{
    return write_all(r, s, "[]", write_value);
}

int cm_struct_to_json(const uint8_t *bytes, size_t len, struct cm_buf *json, struct cm_err *err)
{
    struct reader r = {.json = json};
    size_t before = json->len;

    if (len == 0) /* then there may be no bytes to point at */
        bytes = (const uint8_t *)"";
    if (write_struct(&r, (struct span){bytes, bytes + len}))
        return 0;
    if (json->len > before) { /* what was written is taken back */
        json->len = before;
        cm_buf_data(json)[before] = '\0';
    }
    if (r.rc < 0)
        return cm_err_set(err, r.rc, "Struct: its JSON has more than %zu bytes", json->max - before);
    return cm_err_set(err, CM_ERR_BAD_FIELD, "Struct: %s", r.reason);
}

/* From JSON. The text has been checked, so scanning cannot fail; and its value is an object, so something stands behind
 * every number. */

struct writer {
    const char *at;
    struct cm_buf *out;
    struct cm_buf sizes; /* uint32_t of each list and Struct, in the order of their beginnings */
    size_t next; /* in `sizes` */
    const char *reason;
    int rc;
};

static void skip_blank(struct writer *w)
{
    while (*w->at == ' ' || *w->at == '\n' || *w->at == '\t' || *w->at == '\r')
        w->at++;
}

/* True when `c` is next, and passes it. */
static bool next_is(struct writer *w, char c)
{
    skip_blank(w);
    if (*w->at != c)
        return false;
    w->at++;
    return true;
}

static size_t varint_size(uint64_t value)
{
    size_t n = 1;

    for (; value > 0x7F; value >>= 7)
        n++;
    return n;
}

/* Of a length-delimited field with a number below 16. */
static size_t framed(size_t len)
{
    return 1 + varint_size(len) + len;
}

/* The buffer has room: it was made for the whole. */
static void put_bytes(struct writer *w, const void *bytes, size_t len)
{
    cm_buf_append(w->out, bytes, len);
}

static void put_varint(struct writer *w, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;

    for (; value > 0x7F; value >>= 7)
        bytes[n++] = (uint8_t)(value | 0x80);
    bytes[n++] = (uint8_t)value;
    put_bytes(w, bytes, n);
}

static void put_head(struct writer *w, unsigned field, size_t len)
{
    put_bytes(w, &(uint8_t){TAG(field, WIRE_BYTES)}, 1);
    put_varint(w, len);
}

static unsigned hex4(const char *at)
{
    unsigned value = 0;

    for (int i = 0; i < 4; i++)
        value = value << 4 | (unsigned)((at[i] & 15) + (at[i] >= 'A' ? 9 : 0));
    return value;
}

/* The code point of the \u escape whose digits begin at *at, and of its other half. Half a pair is refused. */
static uint32_t escaped(struct writer *w)
{
    uint32_t code = hex4(w->at);

    w->at += 4;
    if (code < 0xD800 || code > 0xDFFF)
        return code;
    if (code < 0xDC00 && w->at[0] == '\\' && w->at[1] == 'u') {
        uint32_t low = hex4(w->at + 2);
        if (low >= 0xDC00 && low <= 0xDFFF) {
            w->at += 6;
            return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
    }
    w->reason = "an escape names half a character";
    return 0xFFFD;
}

static size_t encode(uint32_t code, char to[static 4])
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; code >>= 6)
        to[i] = (char)(0x80 | (code & 0x3F));
    to[0] = (char)((0xF00 >> n & 0xFF) | code);
    return n;
}

static char plain_escape(char c)
{
    static const char names[] = "bfnrt", meanings[] = "\b\f\n\r\t";
    const char *found = strchr(names, c);

    return found ? meanings[found - names] : c;
}

/* Passes the string at w->at, quotes and all; its decoded bytes are written where `out` is true. Returns their count. */
static size_t pass_string(struct writer *w, bool out)
{
    size_t len = 0;

    for (w->at++; *w->at != '"';) {
        char text[4];
        size_t n = strcspn(w->at, "\"\\");
        const char *from = w->at;
        if (n > 0) {
            w->at += n;
        } else {
            w->at += 2;
            n = 1;
            text[0] = plain_escape(w->at[-1]);
            if (w->at[-1] == 'u')
                n = encode(escaped(w), text);
            from = text;
        }
        if (out)
            put_bytes(w, from, n);
        len += n;
    }
    w->at++;
    return len;
}

static double pass_number(struct writer *w)
{
    char *end;
    double d = strtod(w->at, &end);

    if (!isfinite(d))
        w->reason = "a number is beyond the range of a double";
    w->at = end;
    return d;
}

static void pass_word(struct writer *w)
{
    w->at += *w->at == 'f' ? 5 : 4;
}

/* First pass: sizes */

static size_t measure_value(struct writer *w);

/* Of the contents of the object or array at w->at. */
static size_t measure_all(struct writer *w, bool object)
{
    size_t slot = w->sizes.len, total = 0;
    char close = object ? '}' : ']';

    int rc = cm_buf_append(&w->sizes, &(uint32_t){0}, sizeof(uint32_t));
    if (rc < 0) {
        w->rc = rc;
        return 0;
    }
    w->at++;
    while (w->rc == 0 && !next_is(w, close)) {
        size_t key = 0;
        next_is(w, ',');
        skip_blank(w);
        if (object) {
            key = framed(pass_string(w, false));
            next_is(w, ':');
            skip_blank(w);
        }
        size_t value = framed(measure_value(w));
        total += object ? framed(key + value) : value;
    }
    if (w->rc == 0)
        memcpy(cm_buf_data(&w->sizes) + slot, &(uint32_t){(uint32_t)total}, sizeof(uint32_t));
    return total;
}

/* Of the Value message at w->at. */
static size_t measure_value(struct writer *w)
{
    switch (*w->at) {
    case '{':
        return framed(measure_all(w, true));
    case '[':
        return framed(measure_all(w, false));
    case '"':
        return framed(pass_string(w, false));
    case 't':
    case 'f':
    case 'n':
        pass_word(w);
        return 2;
    default:
        (void)pass_number(w);
        return 9;
    }
}

/* Second pass: bytes. The size of a value that is about to be written is found without writing it: a list's and a
 * Struct's is in `sizes`, a string's takes a look ahead. */

static size_t peek_size(struct writer *w)
{
    const char *at = w->at;
    uint32_t inner;
    size_t size;

    if (*at == '{' || *at == '[') {
        memcpy(&inner, cm_buf_data(&w->sizes) + w->next, sizeof inner);
        return framed(inner);
    }
    size = measure_value(w);
    w->at = at;
    return size;
}

static void emit_value(struct writer *w);

static void emit_all(struct writer *w, bool object)
{
    char close = object ? '}' : ']';

    w->next += sizeof(uint32_t);
    w->at++;
    while (!next_is(w, close)) {
        next_is(w, ',');
        skip_blank(w);
        if (object) {
            const char *name = w->at;
            size_t key = pass_string(w, false);
            next_is(w, ':');
            skip_blank(w);
            const char *value = w->at;
            put_head(w, 1, framed(key) + framed(peek_size(w)));
            put_head(w, 1, key);
            w->at = name;
            pass_string(w, true);
            w->at = value;
        }
        put_head(w, object ? 2 : 1, peek_size(w));
        emit_value(w);
    }
}

static void emit_nested(struct writer *w, unsigned field, bool object)
{
    uint32_t inner;

    memcpy(&inner, cm_buf_data(&w->sizes) + w->next, sizeof inner);
    put_head(w, field, inner);
    emit_all(w, object);
}

static void emit_number(struct writer *w)
{
    double d = pass_number(w);
    uint64_t bits;
    uint8_t bytes[9] = {TAG(VALUE_NUMBER, WIRE_FIXED64)};

    memcpy(&bits, &d, sizeof bits);
    for (int i = 0; i < 8; i++)
        bytes[1 + i] = (uint8_t)(bits >> 8 * i);
    put_bytes(w, bytes, sizeof bytes);
}

static void emit_value(struct writer *w)
{
    const char *first = w->at;

    switch (*first) {
    case '{':
        emit_nested(w, VALUE_STRUCT, true);
        break;
    case '[':
        emit_nested(w, VALUE_LIST, false);
        break;
    case '"':
        put_head(w, VALUE_STRING, pass_string(w, false));
        w->at = first;
        pass_string(w, true);
        break;
    case 't':
    case 'f':
    case 'n':
        put_bytes(w, (uint8_t[]){TAG(*first == 'n' ? VALUE_NULL : VALUE_BOOL, WIRE_VARINT), *first == 't'}, 2);
        pass_word(w);
        break;
    default:
        emit_number(w);
    }
}

int cm_struct_from_json(const char *json, size_t len, struct cm_buf *bytes, struct cm_err *err)
{
    struct cm_json_value value;
    struct writer w = {.out = bytes};
    size_t total;

    int rc = cm_json_check(json, len, &value, err);
    if (rc < 0)
        return rc;
    if (value.kind != CM_JSON_OBJECT)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "a Struct is a JSON object");
    if (len > UINT32_MAX / 16)
        return cm_err_set(err, CM_ERR_TOO_LARGE, "%zu bytes of JSON are too many for a Struct", len);
    cm_buf_init(&w.sizes, (len / 2 + 1) * sizeof(uint32_t)); /* each takes two brackets */
    w.at = value.raw;
    total = measure_all(&w, true);
    rc = w.rc;
    if (rc == 0 && w.reason)
        rc = cm_err_set(err, CM_ERR_BAD_FIELD, "%s", w.reason);
    else if (rc < 0 || (rc = cm_buf_reserve(bytes, total, NULL)) < 0)
        cm_err_set(err, rc, "a Struct of %zu bytes: no room", total);
    if (rc == 0) {
        w.at = value.raw;
        emit_all(&w, true);
    }
    cm_buf_done(&w.sizes);
    return rc;
}
