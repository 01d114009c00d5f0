/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_TESTS_HEX_H
#define CM_TESTS_HEX_H

#include <ctype.h>
#include <stddef.h>

static inline int hex_value(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10 : -1;
}

/* Decodes in place, up to the first character that is no digit; returns the count of bytes. */
static inline size_t unhex(char *text)
{
    size_t n = 0;

    for (; hex_value(text[2 * n]) >= 0 && hex_value(text[2 * n + 1]) >= 0; n++)
        text[n] = (char)(hex_value(text[2 * n]) << 4 | hex_value(text[2 * n + 1]));
    return n;
}

#endif
