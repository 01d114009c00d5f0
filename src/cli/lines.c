/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/lines.h"

#include <string.h>

struct scan {
    const char *at, *end;
    unsigned depth;     /* open brackets */
    bool open_string;   /* the text ends inside a triple-quoted string */
    bool continued;     /* the text ends behind a backslash */
    bool block;         /* a line ended with a colon */
    char last;          /* the line's last character that counts */
};

static void skip_comment(struct scan *s)
{
    const char *end = memchr(s->at, '\n', (size_t)(s->end - s->at));

    s->at = end ? end : s->end;
}

static bool triple_at(const struct scan *s, char quote)
{
    return s->end - s->at >= 3 && s->at[0] == quote && s->at[1] == quote && s->at[2] == quote;
}

/* Stands at a quote. A plain string ends at the line's end at the latest: Python will say what is wrong with it. */
static void skip_string(struct scan *s)
{
    char quote = *s->at;
    bool triple = triple_at(s, quote);

    s->at += triple ? 3 : 1;
    while (s->at < s->end) {
        if (*s->at == '\\' && s->at + 1 < s->end) {
            s->at += 2;
        } else if (triple ? triple_at(s, quote) : *s->at == quote) {
            s->at += triple ? 3 : 1;
            return;
        } else if (!triple && *s->at == '\n') {
            return;
        } else {
            s->at++;
        }
    }
    s->open_string = triple;
}

static void end_line(struct scan *s)
{
    if (s->depth == 0) {
        s->block |= s->last == ':';
        s->last = '\0';
    }
    s->at++;
}

static void step(struct scan *s)
{
    char c = *s->at;

    s->continued = false;
    if (c == '#') {
        skip_comment(s);
    } else if (c == '\'' || c == '"') {
        s->last = c;
        skip_string(s);
    } else if (c == '\n') {
        end_line(s);
    } else if (c == '\\' && s->at + 1 < s->end && s->at[1] == '\n') {
        s->continued = true;
        s->at += 2;
    } else {
        if (strchr("([{", c))
            s->depth++;
        else if (strchr(")]}", c) && s->depth > 0)
            s->depth--;
        if (c != ' ' && c != '\t' && c != '\r')
            s->last = c;
        s->at++;
    }
}

static bool begins_block(const char *text, size_t len)
{
    static const char *const words[] = {"if", "for", "while", "with", "def", "class", "try", "async", NULL};

    if (len > 0 && *text == '@')
        return true;
    for (size_t i = 0; words[i]; i++) {
        size_t n = strlen(words[i]);
        if (len > n && memcmp(text, words[i], n) == 0 && strchr(" \t:(\n", text[n]))
            return true;
    }
    return false;
}

static bool ends_with_empty_line(const char *text, size_t len)
{
    if (len == 0 || text[len - 1] != '\n')
        return false;
    for (len--; len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t'); len--)
        ;
    return len > 0 && text[len - 1] == '\n';
}

bool cm_cli_needs_more(const char *text, size_t len)
{
    struct scan s = {.at = text, .end = text + len};

    while (s.at < s.end && *s.at)
        step(&s);
    if (s.depth > 0 || s.open_string || s.continued)
        return true;
    return (s.block || begins_block(text, len)) && !ends_with_empty_line(text, len);
}
