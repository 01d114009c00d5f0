/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP/1.1 face: routes of tables/routes.def over the session manager, on the gateway's loop. */
#ifndef CM_HTTP_H
#define CM_HTTP_H

#include "base/err.h"

struct cm_conf;
struct cm_http;
struct cm_loop;
struct cm_metrics;
struct cm_sessions;

/* Listens on conf->host and conf->port. What it is given must outlive it. 0, or a negative code with *err filled. */
int cm_http_open(struct cm_loop *loop, const struct cm_conf *conf, struct cm_sessions *sessions,
                 struct cm_metrics *metrics, struct cm_http **ret, struct cm_err *err);
/* The port that it listens on, for conf->port 0. */
unsigned cm_http_port(const struct cm_http *h);
/* Accepts no further connection, says /ready 503, and closes each connection with its next answer. */
void cm_http_drain(struct cm_http *h);
/* Abandons what still waits and closes every connection. Call it before cm_sessions_free(). Accepts NULL. */
struct cm_http *cm_http_free(struct cm_http *h);

#endif
