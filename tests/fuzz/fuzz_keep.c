/* SPDX-License-Identifier: Apache-2.0 */
/* The output keeper against one that remembers everything and cuts at the end.
 * Input: the maximum, then pieces of output, each a length and its bytes. */
#include "fuzz.h"

#include "base/utf8.h"
#include "session/keep.h"

struct text {
    char bytes[1 << 18];
    size_t len;
};

static struct text all, expected;

static void put(const void *bytes, size_t len)
{
    CHECK(len <= sizeof expected.bytes - expected.len);
    memcpy(expected.bytes + expected.len, bytes, len);
    expected.len += len;
}

/* Length of the character at p by trying all lengths, or 0. cm_utf8_valid() has a fuzzer of its own. */
static size_t whole_character(const char *p, size_t len)
{
    for (size_t n = 1; n <= 4 && n <= len; n++)
        if (cm_utf8_valid(p, n))
            return n;
    return 0;
}

static void put_as_utf8(const char *p, size_t len)
{
    while (len > 0) {
        size_t n = whole_character(p, len);
        put(n ? p : "\xef\xbf\xbd", n ? n : 3);
        n = n ? n : 1;
        p += n;
        len -= n;
    }
}

static void expect_cut(size_t max)
{
    size_t head = max / 2, tail = max - head;
    const char *from = all.bytes + all.len - tail;
    size_t cut = cm_utf8_cut_end(all.bytes, head), lead = cm_utf8_cut_start(from, tail);
    char line[80];

    CHECK(cut <= 3 && lead <= 3);
    put_as_utf8(all.bytes, head - cut);
    int n = snprintf(line, sizeof line, "\n... %zu bytes dropped ...\n", all.len - max + cut + lead);
    put(line, (size_t)n);
    put_as_utf8(from + lead, tail - lead);
}

static void compare(struct cm_keep *k, size_t max)
{
    struct cm_buf space = {0};
    bool truncated;
    size_t len;

    expected.len = 0;
    if (all.len > max)
        expect_cut(max);
    else
        put_as_utf8(all.bytes, all.len);
    const char *text = cm_keep_text(k, &space, &len, &truncated);
    CHECK(truncated == (all.len > max));
    CHECK(len == expected.len && memcmp(text, expected.bytes, len) == 0);
    CHECK(cm_utf8_valid(text, len));
    cm_buf_done(&space);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, data + size};
    size_t max = 2 + fuzz_byte(&in) % 64, len;
    struct cm_keep k;

    cm_keep_init(&k, max);
    all.len = 0;
    while (in.at < in.end && all.len < sizeof all.bytes / 8) {
        size_t want = fuzz_byte(&in) % 80;
        const uint8_t *piece = fuzz_bytes(&in, want, &len);
        char *copy = fuzz_copy(piece, len);
        cm_keep_add(&k, copy, len);
        memcpy(all.bytes + all.len, copy, len);
        all.len += len;
        free(copy);
        CHECK(k.buf.len <= max);
    }
    compare(&k, max);
    cm_keep_done(&k);
    return 0;
}
