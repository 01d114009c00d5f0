/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP interface of the RLM service (docs/rlm-api.md): routes of tables/rlm_routes.def over the engine. */
#ifndef CM_INFER_H
#define CM_INFER_H

#include <stdbool.h>

#include "base/err.h"

struct cm_access;
struct cm_http;
struct cm_infer;
struct cm_loop;
struct cm_metrics;
struct cm_models_local;
struct cm_rlm;
struct cm_rlm_conf;

struct cm_infer_config {
    const struct cm_rlm_conf *conf; /* in force: a reload changes it in place */
    struct cm_rlm *engine;
    struct cm_metrics *metrics;
    struct cm_access *access; /* NULL: everybody may call */
    bool loopback; /* nobody from outside can connect */
    /* Whether runs can be served, and if not why. */
    bool (*ready)(void *arg, const char **ret_reason);
    void (*local_model)(void *arg, struct cm_models_local *ret); /* NULL: there is none */
    void (*left)(void *arg); /* a connection has ended */
    void *arg;
};

int cm_infer_open(struct cm_loop *loop, const struct cm_infer_config *config, struct cm_infer **ret,
                  struct cm_err *err);
struct cm_http *cm_infer_http(struct cm_infer *f);
/* After a change of the settings. */
void cm_infer_reload(struct cm_infer *f);
/* Runs that work. */
unsigned cm_infer_running(const struct cm_infer *f);
void cm_infer_cancel_all(struct cm_infer *f);
/* Abandons what waits and closes every connection. Before cm_rlm_free(): runs that work are forgotten, and the engine calls
 * nobody when it is freed. Accepts NULL. */
struct cm_infer *cm_infer_free(struct cm_infer *f);

#endif
