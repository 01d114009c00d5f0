/* SPDX-License-Identifier: Apache-2.0 */
/* `limits` of a request: {"memory": 67108864, ...}, names as in tables/limits.def. */
#ifndef CM_WIRE_LIMITS_H
#define CM_WIRE_LIMITS_H

#include "base/err.h"
#include "base/limits.h"

struct cm_buf;
struct cm_json_value;

/* Reads a checked value: an object, null, or absent. null as a limit's value asks for nothing. `scope` is what the
 * request is about; a limit of a wider scope is refused there. More than the cap is refused as CM_ERR_BAD_FIELD with
 * the limit, the cap and the setting that raises it, but the timeout is cut. *ret is untouched on failure. */
int cm_limits_read(const struct cm_json_value *value, enum cm_limit_scope scope, const struct cm_limits *caps,
                   struct cm_limits_asked *ret, struct cm_err *err);
/* The same for one limit whose name, UTF-8, and value came by another way: joins those of *to. */
int cm_limits_ask(const char *name, size_t len, double value, enum cm_limit_scope scope, const struct cm_limits *caps,
                  struct cm_limits_asked *to, struct cm_err *err);
/* The body of POST /session: empty, or an object with `limits` and members that are ignored. */
int cm_create_read(char *body, size_t len, const struct cm_limits *caps, struct cm_limits_asked *ret,
                   struct cm_err *err);
/* Writes one as an object: all but those that only the server has. 0 or the buffer's error. */
int cm_limits_write(struct cm_buf *buf, const struct cm_limits *limits);

#endif
