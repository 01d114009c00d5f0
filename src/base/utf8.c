/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

static bool is_tail(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

/* What the first byte promises: 1 to 4, or 0 for a byte that starts nothing. */
static size_t promised(unsigned char c)
{
    return c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
}

/* Length of the whole character at p, or 0. */
static size_t char_len(const unsigned char *p, size_t len)
{
    size_t n = promised(p[0]);

    if (n == 0 || n > len)
        return 0;
    for (size_t i = 1; i < n; i++)
        if (!is_tail(p[i]))
            return 0;
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xed && p[1] > 0x9f;
    bool beyond = p[0] == 0xf4 && p[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : n;
}

/* Bytes from the start that are valid. */
static size_t valid_run(const unsigned char *p, size_t len)
{
    size_t i = 0;

    while (i < len) {
        uint64_t word;
        if (len - i >= sizeof word) {
            memcpy(&word, p + i, sizeof word);
            if (!(word & 0x8080808080808080u)) {
                i += sizeof word;
                continue;
            }
        }
        size_t n = char_len(p + i, len - i);
        if (n == 0)
            break;
        i += n;
    }
    return i;
}

bool cm_utf8_valid(const char *text, size_t len)
{
    return valid_run((const unsigned char *)text, len) == len;
}

int cm_utf8_append(struct cm_buf *to, const char *text, size_t len)
{
    while (len > 0) {
        size_t n = valid_run((const unsigned char *)text, len);
        int r = cm_buf_append(to, text, n);
        if (r == 0 && n < len) {
            r = cm_buf_append(to, "\xef\xbf\xbd", 3);
            n++;
        }
        if (r < 0)
            return r;
        text += n;
        len -= n;
    }
    return 0;
}

size_t cm_utf8_cut_end(const char *text, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = (unsigned char)text[len - back];
        if (!is_tail(c))
            return promised(c) > back ? back : 0;
    }
    return 0;
}

size_t cm_utf8_cut_start(const char *text, size_t len)
{
    size_t n = 0;

    while (n < 3 && n < len && is_tail((unsigned char)text[n]))
        n++;
    return n;
}

/* Characters that begin in eight bytes: a text may have megabytes. */
static unsigned starts_in(const char *at)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t word;

    memcpy(&word, at, sizeof word);
    return 8 - (unsigned)((((word >> 7) & (~word >> 6) & ones) * ones) >> 56);
}

uint64_t cm_utf8_count(const char *text, size_t len)
{
    uint64_t n = 0;
    size_t i = 0;

    for (; len - i >= 8; i += 8)
        n += starts_in(text + i);
    for (; i < len; i++)
        n += !is_tail((unsigned char)text[i]);
    return n;
}

size_t cm_utf8_offset(const char *text, size_t len, uint64_t skip)
{
    size_t i = 0;

    for (; len - i >= 8 && skip >= 8; i += 8)
        skip -= starts_in(text + i);
    for (; i < len; i++)
        if (!is_tail((unsigned char)text[i]) && skip-- == 0)
            return i;
    return len;
}
