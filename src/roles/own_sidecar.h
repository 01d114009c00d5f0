/* SPDX-License-Identifier: Apache-2.0 */
/* A private sidecar: `codemode serve` on a loopback socket that is ours, with a key that nobody else knows.
 *
 * It is started again when it dies, with pauses that grow while it keeps dying; its socket stays open meanwhile, so clients
 * wait in the queue. It ends with us, however we end.
 */
#ifndef CM_ROLES_OWN_SIDECAR_H
#define CM_ROLES_OWN_SIDECAR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct cm_loop;
struct cm_metrics;
struct cm_own_sidecar;

struct cm_own_sidecar_config {
    const char *path; /* of codemode */
    unsigned max_sessions, session_ttl_s;
    uint64_t memory; /* of a session; 0: its default */
    uint64_t upload_max; /* bytes of one variable */
    const char *log_level;
    int log_fd; /* its standard output; -1: nowhere */
    struct cm_metrics *metrics; /* rlm_sidecar_restarts_total counts here; or NULL */
};

/* The strings are copied. */
int cm_own_sidecar_open(struct cm_loop *loop, const struct cm_own_sidecar_config *config, struct cm_own_sidecar **ret,
                        struct cm_err *err);
const char *cm_own_sidecar_url(const struct cm_own_sidecar *o);
const char *cm_own_sidecar_key(const struct cm_own_sidecar *o);
/* Why it does not run at the moment; "" when it runs. */
const char *cm_own_sidecar_problem(const struct cm_own_sidecar *o);
/* Waits for its end, three seconds at the most. Accepts NULL, returns NULL. */
struct cm_own_sidecar *cm_own_sidecar_close(struct cm_own_sidecar *o);

#endif
