/* SPDX-License-Identifier: Apache-2.0 */
/* Replies of models: what is found is in the text, in order; the kind of line breaks and what stands before do not matter. */
#include "fuzz.h"

#include "rlm/reply.h"

/* The next line of `text` that ends with this one, but for blanks that were cut off its beginning. */
static const char *find_line(const char *text, const char *end, const char *line, size_t len)
{
    while (text < end) {
        const char *nl = memchr(text, '\n', (size_t)(end - text));
        size_t size = (size_t)((nl ? nl : end) - text), trimmed = size > 0 && text[size - 1] == '\r' ? size - 1 : size;
        bool same = trimmed >= len && memcmp(text + trimmed - len, line, len) == 0;
        for (size_t i = 0; same && i < trimmed - len; i++)
            same = text[i] == ' ' || text[i] == '\t';
        text = nl ? nl + 1 : end;
        if (same)
            return text;
    }
    return NULL;
}

/* The lines of all blocks stand in the reply one after the other. */
static void check_blocks(const struct cm_reply *r, const char *text, size_t size)
{
    const char *at = text, *end = text + size;

    CHECK(r->count <= CM_REPLY_BLOCKS_MAX);
    for (size_t i = 0; i < r->count; i++) {
        const struct cm_reply_block *b = &r->blocks[i];
        CHECK(b->code[b->len] == '\0');
        for (const char *line = b->code, *stop = b->code + b->len; line < stop;) {
            const char *nl = memchr(line, '\n', (size_t)(stop - line));
            size_t len = (size_t)((nl ? nl : stop) - line);
            at = find_line(at, end, line, len);
            CHECK(at);
            line = nl ? nl + 1 : stop;
        }
    }
}

static void check_final(const struct cm_reply *r, const char *text, size_t size)
{
    CHECK((r->final != CM_FINAL_NONE) == (r->value != NULL));
    if (!r->value)
        return;
    CHECK(r->value_len > 0 && r->value[r->value_len] == '\0');
    CHECK(memmem(text, size, r->value, r->value_len));
    CHECK(memmem(text, size, r->final == CM_FINAL_VARIABLE ? "FINAL_VAR(" : "FINAL(",
                 r->final == CM_FINAL_VARIABLE ? 10 : 6));
}

static void check_same(const struct cm_reply *a, const struct cm_reply *b)
{
    CHECK(a->count == b->count && a->final == b->final && a->unclosed == b->unclosed);
    for (size_t i = 0; i < a->count; i++)
        CHECK(a->blocks[i].len == b->blocks[i].len &&
              memcmp(a->blocks[i].code, b->blocks[i].code, a->blocks[i].len) == 0);
    if (a->final == CM_FINAL_VARIABLE)
        CHECK(strcmp(a->value, b->value) == 0);
}

static void with_crlf(const struct cm_reply *r, const char *text, size_t size)
{
    char *other = malloc(2 * size + 1);
    struct cm_reply again = {0};
    size_t len = 0;

    CHECK(other);
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\n')
            other[len++] = '\r';
        other[len++] = text[i];
    }
    CHECK(cm_reply_read(other, len, &again) == 0);
    check_same(r, &again);
    cm_reply_done(&again);
    free(other);
}

static void after_thoughts(const struct cm_reply *r, const char *text, size_t size)
{
    static const char thoughts[] = " <think>```repl\nFINAL(no)</think>";
    char *other = malloc(sizeof thoughts + size);
    struct cm_reply again = {0};

    CHECK(other);
    memcpy(other, thoughts, sizeof thoughts - 1);
    memcpy(other + sizeof thoughts - 1, text, size);
    CHECK(cm_reply_read(other, sizeof thoughts - 1 + size, &again) == 0);
    check_same(r, &again);
    cm_reply_done(&again);
    free(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_copy(data, size);
    struct cm_reply r = {0};

    CHECK(cm_reply_thoughts(text, size) <= size);
    CHECK(cm_reply_read(text, size, &r) == 0);
    check_blocks(&r, text, size);
    check_final(&r, text, size);
    if (!memchr(text, '\r', size))
        with_crlf(&r, text, size);
    if (cm_reply_thoughts(text, size) == 0)
        after_thoughts(&r, text, size);
    cm_reply_done(&r);
    free(text);
    return 0;
}
