/* SPDX-License-Identifier: Apache-2.0 */
/* A run in this process: the service's engine without its HTTP. */
#include <stdlib.h>
#include <unistd.h>

#include "front/rlm/ask.h"
#include "front/rlm/models.h"
#include "rlm_cli/cli.h"
#include "rlm_cli/complete.h"
#include "roles/rlm_core.h"

#define READY_MS 60000 /* for the sidecar, and for a model of our own to be loaded */

struct here {
    struct cm_rlm_core *core;
    struct cm_rlm_run *run;
    struct cm_timer *patience;
    char id[CM_RLM_ID_MAX];
};

static void on_event(void *arg, const char *type, const char *json, size_t len)
{
    complete_event(arg, type, json, len);
}

static void on_done(void *arg, const struct cm_rlm_result *res)
{
    struct completion *c = arg;
    struct here *h = c->backend;

    h->run = NULL;
    complete_done(c, h->id, res);
}

static void cancel(struct completion *c)
{
    struct here *h = c->backend;

    if (h->run)
        cm_rlm_cancel(h->run);
    else
        complete_fail(c, CM_EXIT_INTERRUPTED, "interrupted");
}

static void start(struct completion *c)
{
    static const struct cm_rlm_ops ops = {on_event, on_done};
    const struct cm_rlm_conf *s = &c->conf;
    struct here *h = c->backend;
    char space[CM_MODELS_SPACE];
    struct cm_models_local local;
    struct cm_err err;
    struct cm_rlm_request req = {
        .query = c->query,
        .context = c->context,
    };

    cm_ask_limits(s, &req.limits);
    cm_rlm_core_local_model(h->core, &local);
    cm_models_fill(s, &local, NULL, NULL, 0, space, &req);
    c->context.fd = -1; /* the engine's */
    if (cm_rlm_start(cm_rlm_core_engine(h->core), &req, &ops, c, &h->run, &err) < 0) {
        h->run = NULL;
        complete_fail(c, CM_EXIT_FAILED, err.text);
        return;
    }
    snprintf(h->id, sizeof h->id, "%s", cm_rlm_run_id(h->run));
    cm_timer_stop(h->patience);
}

static void on_change(void *arg)
{
    struct completion *c = arg;
    struct here *h = c->backend;
    const char *reason = "";

    if (h->run || !c->cancel)
        return;
    if (cm_rlm_core_ready(h->core, &reason)) {
        start(c);
        return;
    }
    if (*cm_rlm_core_problem(h->core)) { /* waiting would not help */
        complete_fail(c, CM_EXIT_UNAVAILABLE, cm_rlm_core_problem(h->core));
        return;
    }
    snprintf(c->view.what, sizeof c->view.what, "%.150s", reason);
    cm_rlm_core_on_change(h->core, on_change, c);
}

static void on_impatience(void *arg)
{
    struct completion *c = arg;
    struct here *h = c->backend;
    const char *reason = "";

    cm_rlm_core_ready(h->core, &reason);
    complete_fail(c, CM_EXIT_UNAVAILABLE, reason);
}

int complete_here(struct completion *c, struct cm_err *err)
{
    const struct cm_rlm_core_config config = {.conf = &c->conf, .sidecar_log = -1};
    struct here *h = calloc(1, sizeof *h);

    if (!h)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory");
    int rc = cm_rlm_core_check_model(&c->conf, err);
    c->backend = h;
    if (rc == 0)
        rc = cm_rlm_core_open(c->loop, &config, &h->core, err);
    if (rc == 0 && *cm_rlm_core_problem(h->core))
        rc = cm_err_set(err, CM_ERR_CONFIG, "%s", cm_rlm_core_problem(h->core));
    if (rc == 0 && !(h->patience = cm_timer_open(c->loop, on_impatience, c, err)))
        rc = CM_ERR_NO_MEMORY;
    if (rc < 0)
        return rc;
    c->cancel = cancel;
    cm_timer_start(h->patience, READY_MS, 0);
    cm_rlm_core_on_change(h->core, on_change, c);
    return 0;
}

void complete_here_end(struct completion *c)
{
    struct here *h = c->backend;

    if (!h)
        return;
    cm_timer_close(h->patience);
    cm_rlm_core_free(h->core);
    free(h);
}
