/* SPDX-License-Identifier: Apache-2.0 */
#include "access/parse.h"

#include <ctype.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/words.h"
#include "conf/value.h"

#define BLANKS       " \t\r"
#define HASH_PREFIX  "sha256:"
#define MAX_SESSIONS "max_sessions"

void cm_secrets_done(struct secrets *s)
{
    if (s->list)
        explicit_bzero(s->list, s->count * sizeof(*s->list));
    free(s->list);
    *s = (struct secrets){0};
}

static struct secret *append(struct secrets *s, const char *where, struct cm_err *err)
{
    if (s->count == SECRETS_MAX) {
        cm_err_set(err, CM_ERR_CONFIG, "%s: there are more than %d keys", where, SECRETS_MAX);
        return NULL;
    }
    struct secret *grown = reallocarray(s->list, s->count + 1, sizeof(*grown));
    if (!grown) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "%s: no memory for keys", where);
        return NULL;
    }
    s->list = grown;
    grown[s->count] = (struct secret){0};
    return &grown[s->count++];
}

/* One key */

static bool from_hex(const char *text, uint8_t *to, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned byte;
        if (!isxdigit((unsigned char)text[2 * i]) || !isxdigit((unsigned char)text[2 * i + 1]))
            return false;
        sscanf(text + 2 * i, "%2x", &byte);
        to[i] = (uint8_t)byte;
    }
    return text[2 * len] == '\0';
}

static int take_key(struct secret *to, const char *where, const char *key, struct cm_err *err)
{
    size_t len = strlen(key);

    if (strncmp(key, HASH_PREFIX, sizeof(HASH_PREFIX) - 1) == 0) {
        if (from_hex(key + sizeof(HASH_PREFIX) - 1, to->digest, DIGEST))
            return 0;
        return cm_err_set(err, CM_ERR_CONFIG, "%s: sha256: must be followed by 64 hex digits", where);
    }
    if (len < KEY_MIN || len > KEY_MAX)
        return cm_err_set(err, CM_ERR_CONFIG, "%s: a key has %d to %d characters, not %zu", where, KEY_MIN, KEY_MAX,
                          len);
    for (const char *c = key; *c; c++)
        if (*c <= ' ' || *c > '~')
            return cm_err_set(err, CM_ERR_CONFIG, "%s: a key has printable ASCII characters only, and no blanks",
                              where);
    to->brief = len < KEY_LONG;
    return gnutls_hash_fast(GNUTLS_DIG_SHA256, key, len, to->digest) < 0
               ? cm_err_set(err, CM_ERR_SYSTEM, "%s: the key cannot be hashed", where)
               : 0;
}

static int take_name(struct secret *to, const char *where, const char *name, struct cm_err *err)
{
    size_t len = strlen(name);

    if (len == 0 || len >= CM_KEY_NAME_MAX)
        return cm_err_set(err, CM_ERR_CONFIG, "%s: a name has 1 to %d characters", where, CM_KEY_NAME_MAX - 1);
    for (const char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
            return cm_err_set(err, CM_ERR_CONFIG, "%s: a name has letters, digits, dots, dashes and underscores only",
                              where);
    memcpy(to->name, name, len + 1);
    return 0;
}

int cm_secrets_add(struct secrets *s, const char *where, const char *key, struct cm_err *err)
{
    struct secret *to = append(s, where, err);

    if (!to)
        return err ? err->code : CM_ERR_CONFIG;
    strcpy(to->name, DEFAULT_NAME);
    return take_key(to, where, key, err);
}

/* Limits */

static bool parse_value(enum cm_limit_unit unit, const char *text, double *ret)
{
    return unit == CM_LIMIT_SECONDS ? cm_conf_parse_seconds(text, ret)
           : unit == CM_LIMIT_BYTES ? cm_conf_parse_bytes(text, ret)
                                    : cm_conf_parse_uint(text, ret);
}

static int unknown_limit(const char *where, const char *name, struct cm_err *err)
{
    const char *known[CM_LIMITS + 2];

    for (int i = 0; i < CM_LIMITS; i++)
        known[i] = cm_limit_info((enum cm_limit)i)->name;
    known[CM_LIMITS] = MAX_SESSIONS;
    known[CM_LIMITS + 1] = NULL;
    const char *near = cm_word_nearest(name, known);
    return cm_err_set(err, CM_ERR_CONFIG, "%s: there is no limit of that name%s%s%s", where,
                      near ? "; is it to be \"" : "", near ? near : "", near ? "\"?" : "");
}

static int take_max_sessions(struct secret *to, const char *where, const char *text, struct cm_err *err)
{
    double v;

    if (!cm_conf_parse_uint(text, &v) || v < 1 || v > 100000)
        return cm_err_set(err, CM_ERR_CONFIG, "%s: " MAX_SESSIONS " is a whole number from 1 to 100000", where);
    to->max_sessions = (unsigned)v;
    return 0;
}

/* `word` is limit=value; it may as well be anything else, such as a second key. */
static int take_limit(struct secret *to, const char *where, char *word, struct cm_err *err)
{
    char *value = strchr(word, '=');
    double v;

    if (!value)
        return cm_err_set(err, CM_ERR_CONFIG, "%s: behind the key stand limits, as limit=value", where);
    *value++ = '\0';
    to->with_limits = true;
    if (strcmp(word, MAX_SESSIONS) == 0)
        return take_max_sessions(to, where, value, err);
    int limit = cm_limit_find(word, strlen(word));
    if (limit < 0)
        return unknown_limit(where, word, err);
    const struct cm_limit_info *info = cm_limit_info((enum cm_limit)limit);
    if (info->scope == CM_LIMIT_OF_SERVER)
        return cm_err_set(err, CM_ERR_CONFIG, "%s: %s is a limit of the whole server", where, info->name);
    if (!parse_value(info->unit, value, &v) || v < info->min)
        return cm_err_set(err, CM_ERR_CONFIG, "%s: %s must be at least %.15g%s", where, info->name, info->min,
                          cm_limit_unit_text((enum cm_limit)limit));
    to->caps.named |= 1u << limit;
    to->caps.value.at[limit] = v;
    return 0;
}

/* Lines */

static char *next_line(char **rest)
{
    char *line = strsep(rest, "\n");

    if (line) {
        line += strspn(line, BLANKS);
        size_t len = strlen(line);
        while (len > 0 && strchr(BLANKS, line[len - 1]))
            line[--len] = '\0';
    }
    return line;
}

static char *next_word(char **rest)
{
    char *word;

    do
        word = strsep(rest, BLANKS);
    while (word && *word == '\0');
    return word && *word != '#' ? word : NULL;
}

static int read_named_line(struct secrets *s, const char *where, char *line, struct cm_err *err)
{
    struct secret *to = append(s, where, err);
    const char *name = next_word(&line), *key = next_word(&line);
    char *word;

    if (!to)
        return CM_ERR_CONFIG;
    if (!key)
        return cm_err_set(err, CM_ERR_CONFIG, "%s: a line is: name key [limit=value ...]", where);
    int rc = take_name(to, where, name, err);
    rc = rc ? rc : take_key(to, where, key, err);
    while (rc == 0 && (word = next_word(&line)))
        rc = take_limit(to, where, word, err);
    return rc;
}

static int read_lines(struct secrets *s, const char *where, char *text,
                      int (*read_line)(struct secrets *s, const char *where, char *line, struct cm_err *err),
                      struct cm_err *err)
{
    char *line, here[320];
    int rc = 0;

    for (unsigned n = 1; rc == 0 && (line = next_line(&text)); n++) {
        snprintf(here, sizeof(here), "%.280s, line %u", where, n);
        if (*line && *line != '#')
            rc = read_line(s, here, line, err);
    }
    return rc;
}

static int read_plain_line(struct secrets *s, const char *where, char *line, struct cm_err *err)
{
    return cm_secrets_add(s, where, line, err);
}

int cm_secrets_read_plain(struct secrets *s, const char *where, char *text, struct cm_err *err)
{
    return read_lines(s, where, text, read_plain_line, err);
}

int cm_secrets_read_named(struct secrets *s, const char *where, char *text, struct cm_err *err)
{
    return read_lines(s, where, text, read_named_line, err);
}
