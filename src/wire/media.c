/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/media.h"

#include <string.h>
#include <strings.h>

struct text {
    const char *at, *end;
};

struct parameter {
    struct text name, value;
    bool quoted; /* the value may have escapes */
};

size_t cm_token_len(const char *text, size_t len)
{
    size_t n = 0;

    while (n < len && text[n] > ' ' && text[n] <= '~' && !strchr("\"(),/:;<=>?@[\\]{}", text[n]))
        n++;
    return n;
}

static bool is(struct text t, const char *wanted)
{
    size_t len = strlen(wanted);

    return (size_t)(t.end - t.at) == len && strncasecmp(t.at, wanted, len) == 0;
}

static void skip_blanks(struct text *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\t'))
        t->at++;
}

static bool take(struct text *t, char c)
{
    if (t->at == t->end || *t->at != c)
        return false;
    t->at++;
    return true;
}

static bool take_token(struct text *t, struct text *ret)
{
    size_t len = cm_token_len(t->at, (size_t)(t->end - t->at));

    *ret = (struct text){t->at, t->at + len};
    t->at += len;
    return len > 0;
}

static bool is_control(char c)
{
    return ((unsigned char)c < ' ' && c != '\t') || c == 0x7f;
}

/* The text between quotes, with its escapes. */
static bool take_quoted(struct text *t, struct text *ret)
{
    if (!take(t, '"'))
        return false;
    ret->at = t->at;
    for (; t->at < t->end && !is_control(*t->at); t->at++) {
        if (*t->at == '"') {
            ret->end = t->at++;
            return true;
        }
        if (*t->at != '\\')
            continue;
        t->at++;
        if (t->at == t->end || is_control(*t->at))
            return false;
    }
    return false;
}

/* A token; but people write addresses and types there without the quotes that they need. */
static bool take_bare(struct text *t, struct text *ret)
{
    ret->at = t->at;
    while (t->at < t->end && *t->at != ' ' && *t->at != '\t' && !is_control(*t->at) && !strchr(",;\"", *t->at))
        t->at++;
    ret->end = t->at;
    return ret->end > ret->at;
}

/* 1; 0 at the end of the type, where the text ends or a comma stands; -1 where no parameter is. */
static int next_parameter(struct text *t, struct parameter *ret)
{
    do {
        skip_blanks(t);
        if (t->at == t->end || *t->at == ',')
            return 0;
        if (!take(t, ';'))
            return -1;
        skip_blanks(t);
    } while (t->at == t->end || *t->at == ';' || *t->at == ','); /* an empty one */
    if (!take_token(t, &ret->name) || !take(t, '='))
        return -1;
    ret->quoted = t->at < t->end && *t->at == '"';
    return (ret->quoted ? take_quoted(t, &ret->value) : take_bare(t, &ret->value)) ? 1 : -1;
}

static bool value_is(const struct parameter *p, const char *wanted)
{
    const char *at = p->value.at;

    for (; at < p->value.end && *wanted; at++, wanted++) {
        if (p->quoted && *at == '\\')
            at++;
        if (strncasecmp(at, wanted, 1) != 0)
            return false;
    }
    return at == p->value.end && !*wanted;
}

static bool take_media(struct text *t, struct cm_media *ret)
{
    struct text part;
    struct parameter p;
    int rc;

    ret->name = t->at;
    if (!take_token(t, &part) || !take(t, '/') || !take_token(t, &part))
        return false;
    ret->len = (size_t)(t->at - ret->name);
    ret->parameters = t->at;
    while ((rc = next_parameter(t, &p)) > 0)
        ;
    ret->end = t->at;
    return rc == 0;
}

bool cm_media_read(const char *text, size_t len, struct cm_media *ret)
{
    struct text t = {text, text + len};

    skip_blanks(&t);
    return take_media(&t, ret) && t.at == t.end;
}

bool cm_media_is(const struct cm_media *media, const char *name)
{
    return is((struct text){media->name, media->name + media->len}, name);
}

bool cm_media_is_json(const struct cm_media *media)
{
    static const char suffix[] = "+json";
    size_t len = sizeof suffix - 1;

    return cm_media_is(media, "application/json") ||
           (media->len > len && strncasecmp(media->name + media->len - len, suffix, len) == 0);
}

bool cm_media_is_utf8(const struct cm_media *media)
{
    struct text t = {media->parameters, media->end};
    struct parameter p;

    while (next_parameter(&t, &p) > 0)
        if (is(p.name, "charset") && !value_is(&p, "utf-8") && !value_is(&p, "utf8") && !value_is(&p, "us-ascii"))
            return false;
    return true;
}

static bool is_zero(struct text weight)
{
    while (weight.at < weight.end && (*weight.at == '0' || *weight.at == '.'))
        weight.at++;
    return weight.at == weight.end;
}

static bool has_weight(const struct cm_media *media)
{
    struct text t = {media->parameters, media->end};
    struct parameter p;

    while (next_parameter(&t, &p) > 0)
        if (is(p.name, "q"))
            return !is_zero(p.value);
    return true;
}

bool cm_media_list_names(const char *list, size_t len, const char *name)
{
    struct text t = {list, list + len};
    struct cm_media media;

    for (; t.at < t.end; take(&t, ',')) {
        skip_blanks(&t);
        if (take_media(&t, &media) && cm_media_is(&media, name) && has_weight(&media))
            return true;
        while (t.at < t.end && *t.at != ',')
            t.at++;
    }
    return false;
}
