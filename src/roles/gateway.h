/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway: one loop that listens, owns the sessions, and runs no guest code. */
#ifndef CM_ROLES_GATEWAY_H
#define CM_ROLES_GATEWAY_H

#include "base/err.h"

struct cm_conf;

/* Serves until SIGTERM or SIGINT; then running executions get conf->drain_timeout, and a second signal, at least half
 * a second later, ends it at once. SIGHUP loads the settings again, from where they came. When it returns, no process of its own is left. Logs to stdout. 0, or a negative
 * code with *err filled when it could not start. */
int cm_gateway_run(const struct cm_conf *conf, struct cm_err *err);

#endif
