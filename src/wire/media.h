/* SPDX-License-Identifier: Apache-2.0 */
/* Media types in headers: "text/plain; charset=utf-8" (RFC 9110, sections 5.6, 8.3.1 and 12.5.1). Read where they stand. */
#ifndef CM_WIRE_MEDIA_H
#define CM_WIRE_MEDIA_H

#include <stdbool.h>
#include <stddef.h>

struct cm_media {
    const char *name; /* "text/plain", as it was written */
    size_t len;
    const char *parameters, *end;
};

/* Bytes from the start that a token may have: names of headers, types, parameters. */
size_t cm_token_len(const char *text, size_t len);

/* Exactly one type, blanks around it allowed. False: it is none, or what follows it are no parameters. */
bool cm_media_read(const char *text, size_t len, struct cm_media *ret);
/* `name` is in small letters. */
bool cm_media_is(const struct cm_media *media, const char *name);
/* application/json, or one whose suffix says so: "application/problem+json". */
bool cm_media_is_json(const struct cm_media *media);
/* Whether text of this type is UTF-8: it says so, or that it is ASCII, or does not say. */
bool cm_media_is_utf8(const struct cm_media *media);

/* Whether a list of types (the header Accept) has this one by its name, with a weight above 0. Ranges do not
 * name it. What is malformed is passed over up to its comma. */
bool cm_media_list_names(const char *list, size_t len, const char *name);

#endif
