/* SPDX-License-Identifier: Apache-2.0 */
/* Server-sent events (WHATWG HTML, "Server-sent events"): reading and writing, without I/O. */
#ifndef CM_WIRE_SSE_H
#define CM_WIRE_SSE_H

#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

struct cm_sse {
    struct cm_buf line, data;
    char event[64]; /* name of the event that is being read; a longer one is cut */
    char id[64];
    int after_cr, started;
};

/* `max` bytes of one event's data. */
void cm_sse_init(struct cm_sse *s, size_t max);
void cm_sse_done(struct cm_sse *s);
/* Takes any run of bytes, cut anywhere. Calls `each` per event that has data; `event` is "message" where none is named. The
 * data may be changed in place. When `each` returns a negative code, that is returned at once. CM_ERR_TOO_LARGE. */
int cm_sse_feed(struct cm_sse *s, const char *bytes, size_t len,
                int (*each)(void *arg, const char *event, char *data, size_t len), void *arg);
/* Appends one event; `event` or `id` may be NULL. The data holds no line break (JSON does not). */
int cm_sse_put(struct cm_buf *to, const char *event, const char *id, const char *data, size_t len);

#endif
