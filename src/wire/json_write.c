/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/json.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"

/* 0: as it is; 'u': as a \u escape; else the letter behind the backslash. */
static char escape_of(unsigned char c)
{
    static const char control[] = "uuuuuuuubtnufruuuuuuuuuuuuuuuuuu"; /* 0x00 to 0x1f */

    if (c < 0x20)
        return control[c];
    return c == '"' || c == '\\' ? (char)c : 0;
}

/* Where the next byte that is escaped stands, or the end. Eight at a time: a text may have megabytes. */
static const char *find_escape(const char *at, const char *end)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t word;

    for (; end - at >= (ptrdiff_t)sizeof word; at += sizeof word) {
        memcpy(&word, at, sizeof word);
        uint64_t quote = word ^ (ones * '"'), backslash = word ^ (ones * '\\');
        uint64_t found = ((word - ones * 0x20) & ~word) | ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash);
        if (found & high)
            break;
    }
    while (at < end && !escape_of((unsigned char)*at))
        at++;
    return at;
}

static int put_escape(struct cm_buf *buf, unsigned char c, char kind)
{
    static const char hex[] = "0123456789abcdef";
    char text[6] = {'\\', kind, '0', '0', hex[c >> 4], hex[c & 15]};

    return cm_buf_append(buf, text, kind == 'u' ? 6 : 2);
}

int cm_json_put_string(struct cm_buf *buf, const char *text, size_t len)
{
    int rc;

    if (!text)
        return cm_buf_append(buf, "null", 4);
    const char *end = text + len, *plain = text, *at;
    if ((rc = cm_buf_append(buf, "\"", 1)) < 0)
        return rc;
    for (; (at = find_escape(plain, end)) < end; plain = at + 1)
        if ((rc = cm_buf_append(buf, plain, (size_t)(at - plain))) < 0 ||
            (rc = put_escape(buf, (unsigned char)*at, escape_of((unsigned char)*at))) < 0)
            return rc;
    if ((rc = cm_buf_append(buf, plain, (size_t)(end - plain))) < 0)
        return rc;
    return cm_buf_append(buf, "\"", 1);
}
