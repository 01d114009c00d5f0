/* SPDX-License-Identifier: Apache-2.0 */
#include "roles/rlm_core.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/url.h"
#include "conf/rlm.h"
#include "egress/egress.h"
#include "ev/loop.h"
#include "front/rlm/models.h"
#include "llm/llm.h"
#include "net/files.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "rlm/rlm.h"
#include "roles/own_sidecar.h"
#include "sidecar/sidecar.h"

#define PRICES_MAX    (1u << 20)
#define CALLS_PER_RUN 8 /* connections beside those to models: executions, answers of calls */
#define LOOK_MS       2000 /* at a sidecar that is ready */
#define LOOK_SOON_MS  50 /* at one that is not; its ping waits for up to two seconds */
#define TTL_BEYOND_S  600

struct cm_rlm_core {
    struct cm_loop *loop;
    const struct cm_rlm_conf *conf;
    struct cm_metrics *metrics;
    struct cm_egress *egress;
    struct cm_own_sidecar *own;
    struct cm_sidecar *sidecar;
    struct cm_llm *llm;
    struct cm_llama *llama;
    struct cm_rlm *engine;
    struct cm_timer *look;
    struct cm_sidecar_op *ping;
    bool sidecar_ready;
    char local_model[128], llama_problem[300], reason[400];
    char *prices;
    void (*changed)(void *arg);
    void *changed_arg;
};

/* Readiness */

/* For those who read logs, and for whoever asks whether we are ready. */
static void show_sidecar(const struct cm_rlm_core *c, char ret[static CM_URL_SHOWN_MAX])
{
    cm_url_show(c->own ? cm_own_sidecar_url(c->own) : c->conf->wasm_manager_service_url, ret);
}

static void tell_change(struct cm_rlm_core *c)
{
    void (*changed)(void *arg) = c->changed;

    c->changed = NULL;
    if (changed)
        changed(c->changed_arg);
}

static void on_pong(void *arg, bool ready)
{
    struct cm_rlm_core *c = arg;
    bool before = c->sidecar_ready;
    char where[CM_URL_SHOWN_MAX];

    c->ping = NULL;
    c->sidecar_ready = ready;
    cm_metrics_set(c->metrics, CM_M_RLM_SIDECAR_UP, 0, ready);
    cm_timer_start(c->look, ready ? LOOK_MS : LOOK_SOON_MS, 0);
    if (before == ready)
        return;
    show_sidecar(c, where);
    cm_log(ready ? CM_LOG_INFO : CM_LOG_WARNING, ready ? "sidecar_ready" : "sidecar_not_ready",
           CM_LOG_STR("url", where));
    tell_change(c);
}

static void on_look(void *arg)
{
    struct cm_rlm_core *c = arg;
    struct cm_err err;

    if (cm_sidecar_ping(c->sidecar, on_pong, c, &c->ping, &err) < 0)
        on_pong(c, false);
}

static const char *why_no_sidecar(struct cm_rlm_core *c)
{
    const char *problem = c->own ? cm_own_sidecar_problem(c->own) : "";
    char where[CM_URL_SHOWN_MAX];

    show_sidecar(c, where);
    if (*problem)
        snprintf(c->reason, sizeof c->reason, "%s", problem);
    else
        snprintf(c->reason, sizeof c->reason, "the sidecar is not ready: %.200s", c->own ? "it is starting" : where);
    return c->reason;
}

static bool has_model(const struct cm_rlm_core *c)
{
    return cm_models_configured(c->conf) || *c->local_model;
}

bool cm_rlm_core_ready(const struct cm_rlm_core *c, const char **ret_reason)
{
    if (!c->sidecar_ready)
        *ret_reason = why_no_sidecar((struct cm_rlm_core *)c);
    else if (!has_model(c))
        *ret_reason = *c->llama_problem ? c->llama_problem : "llama-server is starting";
    else
        return true;
    return false;
}

void cm_rlm_core_on_change(struct cm_rlm_core *c, void (*changed)(void *arg), void *arg)
{
    c->changed = changed;
    c->changed_arg = arg;
}

/* A model of our own */

static void on_llama(void *arg, const char *base_url, const struct cm_err *err)
{
    struct cm_rlm_core *c = arg;

    snprintf(c->local_model, sizeof c->local_model, "%s", base_url && !err ? base_url : "");
    snprintf(c->llama_problem, sizeof c->llama_problem, "%.290s", err ? err->text : "");
    if (err)
        cm_log(CM_LOG_ERROR, "local_model_failed", CM_LOG_STR("why", err->text));
    else
        cm_log(CM_LOG_INFO, "local_model_ready", CM_LOG_STR("url", base_url));
    tell_change(c);
}

int cm_rlm_core_check_model(const struct cm_rlm_conf *conf, struct cm_err *err)
{
    static const char what[] = "no model: set LLM_API_KEY or LLM_BASE_URL, or MODEL_PATH";

    if (cm_models_configured(conf))
        return 0;
    if (!*conf->model_path)
        return cm_err_set(err, CM_ERR_CONFIG, "%s", what);
    if (access(conf->model_path, R_OK) < 0)
        return cm_err_set(err, CM_ERR_CONFIG, "%s (%.200s: %s)", what, conf->model_path, strerror(errno));
    return 0;
}

static void open_llama(struct cm_rlm_core *c)
{
    struct cm_err err;

    if (cm_models_configured(c->conf))
        return;
    if (cm_rlm_core_check_model(c->conf, &err) < 0 ||
        cm_llama_open(c->loop, c->egress, c->conf->model_path, on_llama, c, &c->llama, &err) < 0) {
        snprintf(c->llama_problem, sizeof c->llama_problem, "%.290s", err.text);
        cm_log(CM_LOG_WARNING, "no_local_model", CM_LOG_STR("path", c->conf->model_path), CM_LOG_STR("why", err.text));
    }
}

const char *cm_rlm_core_problem(const struct cm_rlm_core *c)
{
    return has_model(c) ? "" : c->llama_problem;
}

void cm_rlm_core_local_model(const struct cm_rlm_core *c, struct cm_models_local *ret)
{
    *ret = (struct cm_models_local){.name = c->llama ? cm_llama_model(c->llama) : NULL,
                                    .url = *c->local_model ? c->local_model : NULL};
}

struct cm_rlm *cm_rlm_core_engine(struct cm_rlm_core *c)
{
    return c->engine;
}

/* The rooms */

static int open_egress(struct cm_rlm_core *c, struct cm_err *err)
{
    const struct cm_rlm_conf *s = c->conf;
    unsigned connections = s->max_model_calls + CALLS_PER_RUN * s->max_runs;
    const struct cm_egress_config config = {
        .connections_max = connections,
        .idle_connections_max = connections,
        .ca_file = *s->llm_ca_file ? s->llm_ca_file : NULL,
    };

    return cm_egress_open(c->loop, &config, &c->egress, err);
}

/* Sessions of conversations rest as long as those do. What it logs of each execution is for who looks closely. */
static int open_own(struct cm_rlm_core *c, int log_fd, struct cm_err *err)
{
    static const char *const levels[] = {"DEBUG", "WARNING", "WARNING", "ERROR"};
    const struct cm_rlm_conf *s = c->conf;
    const struct cm_own_sidecar_config config = {
        .path = s->codemode_path,
        .max_sessions = s->max_sessions,
        .session_ttl_s = s->conversation_ttl + TTL_BEYOND_S,
        .memory = s->session_memory,
        .upload_max = s->max_context,
        .log_level = levels[s->log_level & 3],
        .log_fd = log_fd,
        .metrics = c->metrics,
    };

    return *s->wasm_manager_service_url ? 0 : cm_own_sidecar_open(c->loop, &config, &c->own, err);
}

static int open_sidecar(struct cm_rlm_core *c, struct cm_err *err)
{
    const struct cm_sidecar_config config = {
        .url = c->own ? cm_own_sidecar_url(c->own) : c->conf->wasm_manager_service_url,
        .api_key = c->own ? cm_own_sidecar_key(c->own) : c->conf->sidecar_api_key,
    };
    int rc = cm_sidecar_open(c->loop, c->egress, &config, &c->sidecar, err);

    if (rc < 0)
        return rc;
    c->look = cm_timer_open(c->loop, on_look, c, err);
    if (!c->look)
        return CM_ERR_NO_MEMORY;
    cm_timer_start(c->look, 0, 0);
    return 0;
}

static int open_llm(struct cm_rlm_core *c, struct cm_err *err)
{
    const struct cm_rlm_conf *s = c->conf;
    struct cm_file_mark mark;
    size_t len = 0;
    int rc = *s->prices ? cm_file_read("RLM_PRICES", s->prices, PRICES_MAX, &c->prices, &len, &mark, err) : 0;
    const struct cm_llm_config config = {
        .timeout_s = s->llm_timeout,
        .idle_timeout_s = s->llm_idle_timeout,
        .attempts = s->llm_attempts,
        .backoff_s = 0.5,
        .backoff_max_s = 30,
        .reply_max = 8 << 20,
        .prices = c->prices,
    };

    return rc < 0 ? rc : cm_llm_open(c->loop, c->egress, &config, &c->llm, err);
}

static int open_engine(struct cm_rlm_core *c, struct cm_err *err)
{
    const struct cm_rlm_conf *s = c->conf;
    const struct cm_rlm_config config = {
        .llm = c->llm,
        .sidecar = c->sidecar,
        .metrics = c->metrics,
        .runs_max = s->max_runs,
        .model_calls_max = s->max_model_calls,
        .log_dir = *s->log_dir ? s->log_dir : NULL,
    };

    return cm_rlm_open(c->loop, &config, &c->engine, err);
}

int cm_rlm_core_open(struct cm_loop *loop, const struct cm_rlm_core_config *config, struct cm_rlm_core **ret,
                     struct cm_err *err)
{
    struct cm_rlm_core *c = calloc(1, sizeof *c);

    if (!c)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the engine");
    *c = (struct cm_rlm_core){.loop = loop, .conf = config->conf, .metrics = config->metrics};
    int rc = open_egress(c, err);
    if (rc == 0)
        rc = open_llm(c, err);
    if (rc == 0)
        rc = open_own(c, config->sidecar_log, err);
    if (rc == 0)
        rc = open_sidecar(c, err);
    if (rc == 0)
        rc = open_engine(c, err);
    if (rc < 0) {
        cm_rlm_core_free(c);
        return rc;
    }
    open_llama(c);
    *ret = c;
    return 0;
}

struct cm_rlm_core *cm_rlm_core_free(struct cm_rlm_core *c)
{
    if (!c)
        return NULL;
    c->look = cm_timer_close(c->look);
    c->engine = cm_rlm_free(c->engine);
    c->llama = cm_llama_free(c->llama);
    c->llm = cm_llm_free(c->llm);
    c->sidecar = cm_sidecar_free(c->sidecar);
    c->egress = cm_egress_free(c->egress);
    c->own = cm_own_sidecar_close(c->own);
    free(c->prices);
    free(c);
    return NULL;
}
