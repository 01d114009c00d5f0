/* SPDX-License-Identifier: Apache-2.0 */
/* Outgoing HTTP: requests with streamed bodies and answers, on our loop (libcurl's multi interface).
 *
 * Connections are kept and shared. Certificates are checked, redirects are not followed, proxies are those of the
 * environment (never for loopback). Headers may hold secrets: nothing here logs them, nor a body.
 */
#ifndef CM_EGRESS_H
#define CM_EGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct cm_egress;
struct cm_fetch; /* one request, owned by the room until `done` */
struct cm_loop;

struct cm_egress_config {
    unsigned connections_max; /* at once, to all hosts; further requests wait */
    unsigned idle_connections_max;
    const char *ca_file; /* authorities, PEM; NULL: those of the system */
};

int cm_egress_open(struct cm_loop *loop, const struct cm_egress_config *config, struct cm_egress **ret,
                   struct cm_err *err);
/* Cancels what is under way. Accepts NULL. */
struct cm_egress *cm_egress_free(struct cm_egress *e);

/* Strings are copied; body and file are the caller's and must stay until `done` or cm_fetch_cancel(). */
struct cm_fetch_request {
    const char *method, *url; /* http or https; CM_ERR_BAD_FIELD for anything else */
    const char *const *headers; /* "Name: value", up to a NULL; or NULL */
    const char *body; /* or NULL */
    size_t body_len;
    int body_fd; /* read with pread() from body_offset as it is sent; -1: there is none */
    uint64_t body_offset, body_fd_len;
    double connect_timeout_s; /* 0: 10 s */
    double idle_timeout_s; /* without a byte of the answer; 0: none */
    double timeout_s; /* of the whole; 0: none */
    uint64_t answer_max; /* bytes of the answer's body; more ends it as CM_FETCH_TOO_LARGE */
    bool beside; /* connections_max does not count it and it never waits for others: where those may wait for it */
};

enum cm_fetch_failure {
    CM_FETCH_OK, /* there is a whole answer, whatever its status */
    CM_FETCH_CONNECT, /* no connection: nothing was sent, trying again is safe */
    CM_FETCH_TLS,
    CM_FETCH_CUT, /* the connection ended in the middle, or what came was not HTTP */
    CM_FETCH_TIMEOUT,
    CM_FETCH_TOO_LARGE,
    CM_FETCH_MEMORY,
};

struct cm_fetch_end {
    enum cm_fetch_failure why;
    int status; /* of HTTP; 0: there was none */
    double retry_after_s; /* of Retry-After, seconds or a date; negative: there was none */
    uint64_t received; /* bytes of the answer's body */
    const char *text; /* for a person, names host and reason, no secret; "" when all went well */
};

struct cm_fetch_ops {
    void (*head)(void *arg, int status); /* may be NULL: the answer begins; cm_fetch_header() works from now on */
    void (*data)(void *arg, const char *data, size_t len); /* may be NULL; may cancel the fetch */
    void (*done)(void *arg, const struct cm_fetch_end *end); /* exactly once, from the loop; not after a cancel */
};

int cm_fetch_start(struct cm_egress *e, const struct cm_fetch_request *req, const struct cm_fetch_ops *ops, void *arg,
                   struct cm_fetch **ret, struct cm_err *err);
/* From anywhere, also its own callbacks. Accepts NULL. */
void cm_fetch_cancel(struct cm_fetch *f);
/* Of the answer; NULL where there is none. */
const char *cm_fetch_header(const struct cm_fetch *f, const char *name);

#endif
