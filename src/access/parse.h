/* SPDX-License-Identifier: Apache-2.0 */
/* The texts that keys come from. */
#ifndef CM_ACCESS_PARSE_H
#define CM_ACCESS_PARSE_H

#include <stdint.h>

#include "access/access.h"

#define KEY_MIN      8
#define KEY_LONG     16 /* shorter ones are warned about */
#define KEY_MAX      512
#define SECRETS_MAX  1024
#define DIGEST       32
#define DEFAULT_NAME "default"

/* One key as it was read. */
struct secret {
    char name[CM_KEY_NAME_MAX];
    uint8_t digest[DIGEST]; /* SHA-256 of the key */
    struct cm_limits_asked caps;
    unsigned max_sessions;
    bool with_limits; /* its line says some */
    bool brief;       /* shorter than KEY_LONG */
};

struct secrets {
    struct secret *list;
    size_t count;
};

void cm_secrets_done(struct secrets *s);
/* `where` stands in front of reasons, which never hold the key. */
int cm_secrets_add(struct secrets *s, const char *where, const char *key, struct cm_err *err);
/* A key per line; the text is changed. Empty lines and those that begin with # are left out. */
int cm_secrets_read_plain(struct secrets *s, const char *where, char *text, struct cm_err *err);
/* name key [limit=value ...] per line. */
int cm_secrets_read_named(struct secrets *s, const char *where, char *text, struct cm_err *err);

#endif
