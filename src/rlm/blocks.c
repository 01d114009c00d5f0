/* SPDX-License-Identifier: Apache-2.0 */
#include "rlm/reply.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

#define NESTED_MAX   16 /* fences inside one another that are told apart */
#define CLOSE_INDENT 3 /* blanks that a closing fence may have more than the opening one */

struct line {
    const char *at;
    size_t len; /* without its end */
    size_t next; /* offset of the next one */
};

struct fence {
    char sign;
    size_t count, indent;
    bool has_word, is_repl;
};

struct scan {
    const char *text;
    size_t len;
    struct cm_reply *reply;
    struct fence open[NESTED_MAX];
    size_t depth;
    struct cm_buf code; /* of the outermost fence, when it is a block */
    struct cm_final_line finals[CM_REPLY_FINALS_MAX];
    size_t finals_count, finals_fenced; /* those whose next fence is known */
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct line line_at(const struct scan *s, size_t offset)
{
    const char *at = s->text + offset, *end = memchr(at, '\n', s->len - offset);
    size_t len = end ? (size_t)(end - at) : s->len - offset;
    size_t next = offset + len + (end != NULL);

    if (len > 0 && at[len - 1] == '\r')
        len--;
    return (struct line){at, len, next};
}

static size_t indent_of(const struct line *line)
{
    size_t n = 0;

    while (n < line->len && is_blank(line->at[n]))
        n++;
    return n;
}

static bool is_fence(const struct line *line, struct fence *ret)
{
    size_t indent = indent_of(line), at = indent, end = line->len;

    if (at == end || (line->at[at] != '`' && line->at[at] != '~'))
        return false;
    char sign = line->at[at];
    while (at < end && line->at[at] == sign)
        at++;
    size_t count = at - indent;
    if (count < 3)
        return false;
    while (at < end && is_blank(line->at[at]))
        at++;
    while (end > at && is_blank(line->at[end - 1]))
        end--;
    if (sign == '`' && memchr(line->at + at, '`', end - at))
        return false;
    *ret = (struct fence){sign, count, indent, end > at, end - at == 4 && memcmp(line->at + at, "repl", 4) == 0};
    return true;
}

static int open_fence(struct scan *s, const struct fence *fence)
{
    s->open[0] = *fence;
    s->depth = 1;
    cm_buf_clear(&s->code);
    return 0;
}

/* The code has a line break behind each line; the last one does not belong to it. */
static int close_block(struct scan *s)
{
    struct cm_reply *r = s->reply;

    if (!s->open[0].is_repl || r->count == CM_REPLY_BLOCKS_MAX)
        return 0;
    struct cm_reply_block *blocks = realloc(r->blocks, (r->count + 1) * sizeof *blocks);
    if (!blocks)
        return CM_ERR_NO_MEMORY;
    r->blocks = blocks;
    size_t len;
    char *code = cm_buf_steal(&s->code, &len);
    if (!code)
        return CM_ERR_NO_MEMORY;
    if (len > 0)
        code[--len] = '\0';
    r->blocks[r->count++] = (struct cm_reply_block){code, len};
    return 0;
}

static int add_code(struct scan *s, const struct line *line)
{
    size_t cut = indent_of(line);
    int rc;

    if (!s->open[0].is_repl)
        return 0;
    if (cut > s->open[0].indent)
        cut = s->open[0].indent;
    if ((rc = cm_buf_append(&s->code, line->at + cut, line->len - cut)) < 0)
        return rc;
    return cm_buf_append(&s->code, "\n", 1);
}

static int inside(struct scan *s, const struct line *line)
{
    const struct fence *top = &s->open[s->depth - 1];
    struct fence fence;

    if (!is_fence(line, &fence) || fence.sign != top->sign || fence.count < top->count)
        return add_code(s, line);
    if (fence.is_repl)
        return open_fence(s, &fence);
    if (!fence.has_word && fence.indent <= top->indent + CLOSE_INDENT && --s->depth == 0)
        return close_block(s);
    if (fence.has_word && s->depth < NESTED_MAX)
        s->open[s->depth++] = fence;
    return add_code(s, line);
}

static void note_final(struct scan *s, const struct line *line)
{
    static const char variable[] = "FINAL_VAR(", text[] = "FINAL(";
    size_t skip = indent_of(line), left = line->len - skip, name = 0;

    if (left >= sizeof text - 1 && memcmp(line->at + skip, text, sizeof text - 1) == 0)
        name = sizeof text - 1;
    else if (left >= sizeof variable - 1 && memcmp(line->at + skip, variable, sizeof variable - 1) == 0)
        name = sizeof variable - 1;
    if (name == 0 || s->finals_count == CM_REPLY_FINALS_MAX)
        return;
    size_t at = (size_t)(line->at - s->text) + skip + name;
    s->finals[s->finals_count++] = (struct cm_final_line){at, s->len, name == sizeof variable - 1};
}

static int outside(struct scan *s, const struct line *line)
{
    struct fence fence;

    if (!is_fence(line, &fence)) {
        note_final(s, line);
        return 0;
    }
    for (; s->finals_fenced < s->finals_count; s->finals_fenced++)
        s->finals[s->finals_fenced].fence = (size_t)(line->at - s->text);
    return open_fence(s, &fence);
}

static size_t skip_white(const char *text, size_t len)
{
    size_t n = 0;

    while (n < len && (is_blank(text[n]) || text[n] == '\n' || text[n] == '\r'))
        n++;
    return n;
}

static const char thoughts_begin[] = "<think>", thoughts_end[] = "</think>";

#define BEGIN_LEN (sizeof thoughts_begin - 1)
#define END_LEN   (sizeof thoughts_end - 1)

static bool is_own_line(const char *text, size_t len, size_t from, size_t to)
{
    while (from > 0 && is_blank(text[from - 1]))
        from--;
    while (to < len && is_blank(text[to]))
        to++;
    if (to < len && text[to] == '\r')
        to++;
    return (from == 0 || text[from - 1] == '\n') && (to == len || text[to] == '\n');
}

/* Services that write the opening tag into the prompt leave it out of the reply. */
static size_t unopened_thoughts(const char *text, size_t len)
{
    const char *end = text + len, *found = text;

    while ((found = memmem(found, (size_t)(end - found), thoughts_end, END_LEN))) {
        size_t at = (size_t)(found - text);
        found += END_LEN;
        if (is_own_line(text, len, at, at + END_LEN))
            return memmem(text, at, thoughts_begin, BEGIN_LEN) ? 0 : at + END_LEN;
    }
    return 0;
}

size_t cm_reply_thoughts(const char *text, size_t len)
{
    size_t at = skip_white(text, len);

    if (len - at < BEGIN_LEN || memcmp(text + at, thoughts_begin, BEGIN_LEN) != 0)
        return unopened_thoughts(text, len);
    const char *found = memmem(text + at, len - at, thoughts_end, END_LEN);
    return found ? (size_t)(found - text) + END_LEN : len;
}

int cm_reply_read(const char *text, size_t len, struct cm_reply *ret)
{
    size_t skip = cm_reply_thoughts(text, len);
    struct cm_reply reply = {0};
    struct scan s = {.text = text + skip, .len = len - skip, .reply = &reply};
    int rc = 0;

    cm_buf_init(&s.code, len + 1);
    for (size_t at = 0; at < s.len && rc == 0;) {
        struct line line = line_at(&s, at);
        rc = s.depth > 0 ? inside(&s, &line) : outside(&s, &line);
        at = line.next;
    }
    cm_buf_done(&s.code);
    if (rc == 0)
        rc = cm_final_read(s.text, s.len, s.finals, s.finals_count, &reply);
    if (rc < 0) {
        cm_reply_done(&reply);
        return CM_ERR_NO_MEMORY;
    }
    reply.unclosed = s.depth > 0 && s.open[0].is_repl;
    *ret = reply;
    return 0;
}

void cm_reply_done(struct cm_reply *reply)
{
    for (size_t i = 0; i < reply->count; i++)
        free(reply->blocks[i].code);
    free(reply->blocks);
    free(reply->value);
    *reply = (struct cm_reply){0};
}
