/* SPDX-License-Identifier: Apache-2.0 */
/* The RLM service: one loop that serves runs over HTTP. It links no room of sessions; code runs in a sidecar. */
#ifndef CM_ROLES_RLM_SERVICE_H
#define CM_ROLES_RLM_SERVICE_H

#include "base/err.h"

struct cm_rlm_conf;

/* Serves until SIGTERM or SIGINT; then runs get conf->drain_timeout, and a second signal, at least half a second later, ends
 * it at once. SIGHUP loads the settings again. Logs to stdout. 0, or a negative code with *err filled when it could not
 * start. */
int cm_rlm_service_run(const struct cm_rlm_conf *conf, struct cm_err *err);

#endif
