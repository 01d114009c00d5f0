/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP/1.1 face: routes of tables/routes.def over the executor and the session manager, on the gateway's loop. */
#ifndef CM_HTTP_H
#define CM_HTTP_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/err.h"

struct cm_access;
struct cm_conf;
struct cm_executor;
struct cm_http;
struct cm_loop;
struct cm_metrics;
struct cm_sessions;

struct cm_http_config {
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
int cm_http_open(struct cm_loop *loop, const struct cm_http_config *config, struct cm_http **ret, struct cm_err *err);
/* After a change of the settings that it was opened with. */
void cm_http_reload(struct cm_http *h);
/* Serves a connection: takes the non-blocking socket in any case. */
void cm_http_adopt(struct cm_http *h, int fd, const struct sockaddr *peer, socklen_t len);
unsigned cm_http_connections(const struct cm_http *h);
/* Says /ready 503, and closes each connection with its next answer. */
void cm_http_drain(struct cm_http *h);
/* Abandons what still waits and closes every connection. Call it before cm_executor_free(). Accepts NULL. */
struct cm_http *cm_http_free(struct cm_http *h);

#endif
