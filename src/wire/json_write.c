/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/json.h"

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
    const char *end = text + len, *plain = text;
    if ((rc = cm_buf_append(buf, "\"", 1)) < 0)
        return rc;
    for (const char *at = text; at < end; at++) {
        char kind = escape_of((unsigned char)*at);
        if (!kind)
            continue;
        if ((rc = cm_buf_append(buf, plain, (size_t)(at - plain))) < 0 ||
            (rc = put_escape(buf, (unsigned char)*at, kind)) < 0)
            return rc;
        plain = at + 1;
    }
    if ((rc = cm_buf_append(buf, plain, (size_t)(end - plain))) < 0)
        return rc;
    return cm_buf_append(buf, "\"", 1);
}
