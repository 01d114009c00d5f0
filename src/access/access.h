/* SPDX-License-Identifier: Apache-2.0 */
/* Who may call: keys, their names and their limits.
 *
 * Keys come from a setting, from a file with one key per line, and from a file with names:
 *
 *     # name   key                        limits
 *     alice    3f9c5a0d7e2b4c61           timeout=10s memory=256Mi max_sessions=5
 *     alice    b1d27a60c94e4f8d           # a second key of the same one, while the first is being replaced
 *     bob      sha256:5e884898da28047d... max_sessions=2
 *
 * A name is up to 63 letters, digits, dots, dashes and underscores; a key is 8 to 512 printable ASCII characters without
 * blanks, or the SHA-256 of one in hex. Limits are those of tables/limits.def that a request may name, and max_sessions; all
 * lines of a name share the limits, and one of them says them. Keys of the first two places have the name "default".
 *
 * What is kept of a key is its hash under a random key of this process. Nothing here ever logs one.
 */
#ifndef CM_ACCESS_H
#define CM_ACCESS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/limits.h"

#define CM_KEY_NAME_MAX 64 /* with the final NUL */

struct cm_access;
struct cm_buf;
struct cm_metrics;

/* One who has keys. It lives as long as the struct cm_access, also when a reload has taken its keys away or changed its
 * limits: then there is another one of the same name. */
struct cm_key {
    char name[CM_KEY_NAME_MAX];
    struct cm_limits_asked caps; /* the most that its requests get, where named */
    unsigned max_sessions; /* 0: as many as there may be */
};

/* "" or NULL for none. */
struct cm_access_config {
    const char *prefix; /* of the variables in messages; NULL: CODEMODE */
    const char *key, *key_file, *keys_file;
};

/* CM_ERR_CONFIG, with the setting or the file's line, for what cannot be used; never with a key in it. */
int cm_access_open(const struct cm_access_config *config, struct cm_metrics *metrics, struct cm_access **ret,
                   struct cm_err *err);
/* Accepts NULL, returns NULL. */
struct cm_access *cm_access_free(struct cm_access *a);
/* Whether a key is needed. NULL: no. */
bool cm_access_on(const struct cm_access *a);
/* Whether keys of more than one name hold, so that what there is has to be shared. NULL: no. */
bool cm_access_shared(const struct cm_access *a);
/* Checks what a request brings: its headers `authorization` ("Bearer KEY") and `x-api-key`, NULL where there is none; the
 * first one decides where both are sent. 0 with *ret, which is NULL where no key is needed; or CM_ERR_NO_KEY, with one and
 * the same text whatever is wrong. Takes the same time for every key of a length, known or not. */
int cm_access_check(struct cm_access *a, const char *authorization, const char *x_api_key, const struct cm_key **ret,
                    struct cm_err *err);
/* Reads everything again, from other places when `config` is not NULL. What does not load leaves everything as it is, and so
 * does what leaves no key where there were some: nobody wants to open a server by that. */
int cm_access_reload(struct cm_access *a, const struct cm_access_config *config, struct cm_err *err);
/* Whether a file is another one, or was written, since it was read; a reload that failed counts as read. */
bool cm_access_changed(const struct cm_access *a);
/* Requests by name of the key, as metrics. 0 or the buffer's error. */
int cm_access_render(const struct cm_access *a, struct cm_buf *to);

/* "" for NULL. */
const char *cm_key_name(const struct cm_key *key);
/* The server's caps, lowered to the key's; a NULL key lowers none. */
void cm_key_caps(const struct cm_key *key, const struct cm_limits *server, struct cm_limits *ret);

#endif
