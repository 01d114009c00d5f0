/* SPDX-License-Identifier: Apache-2.0 */
/* The sidecar's HTTP interface: routes of tables/routes.def over the executor and the session manager. */
#ifndef CM_API_H
#define CM_API_H

#include <stdbool.h>

#include "base/err.h"

struct cm_access;
struct cm_api;
struct cm_conf;
struct cm_executor;
struct cm_http;
struct cm_loop;
struct cm_metrics;
struct cm_sessions;

struct cm_api_config {
    const struct cm_conf *conf;
    struct cm_sessions *sessions;
    struct cm_executor *executor;
    struct cm_metrics *metrics;
    struct cm_access *access; /* NULL: everybody may call */
    bool loopback;           /* nobody from outside can connect: names of this machine are the only good ones */
    void (*left)(void *arg); /* a connection has ended; may be NULL */
    void *arg;
};

/* What it is given must outlive it. 0, or a negative code with *err filled. */
int cm_api_open(struct cm_loop *loop, const struct cm_api_config *config, struct cm_api **ret, struct cm_err *err);
/* The server under it: give it connections, and drain it. While it drains, /ready says 503. */
struct cm_http *cm_api_http(struct cm_api *a);
/* After a change of the settings that it was opened with. */
void cm_api_reload(struct cm_api *a);
/* Abandons what still waits and closes every connection. Call it before cm_executor_free(). Accepts NULL. */
struct cm_api *cm_api_free(struct cm_api *a);

#endif
