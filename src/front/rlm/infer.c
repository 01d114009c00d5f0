/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, the small routes, and the shape of errors. */
#include "front/rlm/infer.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "front/rlm/internal.h"
#include "wire/json.h"

#define TICK_MS     50 /* between looks at clients that lag behind */
#define SWEEP_MS    1000
#define ALIVE_NS    (15 * CM_NS_PER_S)
#define METRICS_MAX (1u << 20)
#define ANSWERS_MAX (256ull << 20)
#define WORDS_MAX   (3 * CM_ERR_TEXT_MAX)

static const struct cm_http_route routes[] = {
#define CM_ROUTE(method, path, handler, body, key) {method, path, cm_infer_##handler, CM_BODY_##body, CM_KEY_##key},
#include "rlm_routes.def"
#undef CM_ROUTE
    {.method = NULL},
};

/* Errors */

/* The text may quote what a client has sent. */
static int put_words(struct cm_buf *to, const char *text)
{
    cm_autobuf struct cm_buf words;

    cm_buf_init(&words, WORDS_MAX);
    int rc = cm_utf8_append(&words, text, strlen(text));
    return rc < 0 ? rc : cm_json_put_string(to, cm_buf_data(&words), words.len);
}

int infer_put_error(struct cm_buf *to, const struct cm_err *err)
{
    const struct cm_err_info *info = cm_err_info(err->code);
    const char *brief = err->code == CM_ERR_BAD_JSON    ? "Invalid JSON"
                        : err->code == CM_ERR_NOT_FOUND ? "Not found"
                                                        : err->text;
    int rc;

    if ((rc = cm_buf_puts(to, "\"error\":")) < 0 || (rc = put_words(to, brief)) < 0 ||
        (rc = cm_buf_puts(to, ",\"detail\":")) < 0 || (rc = put_words(to, err->text)) < 0)
        return rc;
    return cm_buf_printf(to, ",\"code\":\"%s\",\"remediation\":\"%s\"", info->short_name, info->remediation);
}

static int error_body(const struct cm_request *rq, const struct cm_err *err, struct cm_buf *to)
{
    int rc;

    if (strncmp(cm_request_path(rq), "/v1/", 4) == 0)
        return chat_error_body(err, (unsigned)cm_err_info(err->code)->http, to);
    if ((rc = cm_buf_puts(to, "{")) < 0 || (rc = infer_put_error(to, err)) < 0)
        return rc;
    return cm_buf_puts(to, "}");
}

void infer_fail(struct cm_request *rq, int code, const char *text)
{
    struct cm_err err;

    cm_err_set(&err, code, "%s", text);
    cm_request_fail(rq, &err);
}

const char *infer_owner(const struct cm_request *rq)
{
    return cm_key_name(cm_request_key(rq));
}

/* Timers: they run while there is something for them. */

static void on_tick(void *arg)
{
    struct cm_infer *f = arg;
    struct alive *a;
    uint64_t now = cm_clock_ns();

    runs_pump(f);
    if (now - f->alive_ns > ALIVE_NS) {
        f->alive_ns = now;
        runs_keep_alive(f);
        DL_FOREACH(f->streams, a)
        if (cm_request_backlog(a->rq) == 0)
            cm_request_write(a->rq, ":\n\n", 3);
    }
    infer_plan(f);
}

static void on_sweep(void *arg)
{
    struct cm_infer *f = arg;
    uint64_t now = cm_clock_ns();

    contexts_sweep(f, now);
    conversations_sweep(f, now);
    infer_plan(f);
}

static void plan(struct cm_timer *timer, bool *on, bool wanted, unsigned ms)
{
    if (wanted == *on)
        return;
    *on = wanted;
    if (wanted)
        cm_timer_start(timer, ms, ms);
    else
        cm_timer_stop(timer);
}

void infer_plan(struct cm_infer *f)
{
    plan(f->tick, &f->ticking, f->streams || runs_lag(f), TICK_MS);
    plan(f->sweep, &f->sweeping, f->contexts || f->conversations, SWEEP_MS);
}

void infer_local_model(const struct cm_infer *f, struct cm_models_local *ret)
{
    *ret = (struct cm_models_local){0};
    if (f->config.local_model)
        f->config.local_model(f->config.arg, ret);
}

/* Small routes */

void cm_infer_health(struct cm_request *rq)
{
    cm_request_answer(rq, 200, "{\"status\":\"healthy\"}");
}

void cm_infer_ready(struct cm_request *rq)
{
    struct cm_infer *f = infer_of(rq);
    const char *reason = "shutting down";
    bool ready = !cm_http_draining(f->http) && f->config.ready(f->config.arg, &reason);
    struct cm_buf b;

    if (ready) {
        cm_request_answer(rq, 200, "{\"status\":\"ready\"}");
        return;
    }
    cm_buf_init(&b, 4096);
    int rc = cm_buf_puts(&b, "{\"status\":\"not_ready\",\"reason\":");
    if (rc == 0)
        rc = put_words(&b, reason);
    if (rc == 0)
        rc = cm_buf_puts(&b, "}");
    cm_request_set_header(rq, "Retry-After", "1");
    cm_request_answer_buf(rq, 503, NULL, &b, rc);
}

void cm_infer_version(struct cm_request *rq)
{
    cm_request_answer(rq, 200, "{\"version\":\"" CM_VERSION "\",\"prompts\":\"v1\"}");
}

void cm_infer_metrics(struct cm_request *rq)
{
    struct cm_infer *f = infer_of(rq);
    struct cm_buf b;

    cm_buf_init(&b, METRICS_MAX);
    int rc = cm_metrics_render(f->config.metrics, &b);
    if (rc == 0 && f->config.access)
        rc = cm_access_render(f->config.access, &b);
    cm_request_answer_buf(rq, 200, "text/plain; version=0.0.4; charset=utf-8", &b, rc);
}

/* The whole */

void cm_infer_reload(struct cm_infer *f)
{
    const struct cm_rlm_conf *c = f->config.conf;

    f->limits = (struct cm_http_limits){
        .body_max = c->max_body,
        .upload_max = c->max_context,
        .uploads_max = c->total_contexts,
        .upload_setting = "MAX_CONTEXT",
        .answers_max = ANSWERS_MAX,
        .connections_max = c->max_connections,
        .idle_timeout_s = c->idle_timeout,
        .head_timeout_s = c->head_timeout,
        .body_timeout_s = c->body_timeout,
        .allowed_origins = c->allowed_origins,
    };
}

int cm_infer_open(struct cm_loop *loop, const struct cm_infer_config *config, struct cm_infer **ret, struct cm_err *err)
{
    struct cm_infer *f = calloc(1, sizeof *f);

    if (!f)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the HTTP server");
    *f = (struct cm_infer){.loop = loop, .config = *config, .alive_ns = cm_clock_ns()};
    cm_infer_reload(f);
    const struct cm_http_config http = {
        .routes = routes,
        .limits = &f->limits,
        .metrics = config->metrics,
        .access = config->access,
        .error_body = error_body,
        .loopback = config->loopback,
        .app = f,
        .admit = contexts_admit,
        .grow = contexts_grow,
        .over = contexts_over,
        .left = config->left,
        .left_arg = config->arg,
    };
    int rc = cm_http_open(loop, &http, &f->http, err);
    if (rc == 0 &&
        (!(f->tick = cm_timer_open(loop, on_tick, f, err)) || !(f->sweep = cm_timer_open(loop, on_sweep, f, err))))
        rc = CM_ERR_NO_MEMORY;
    if (rc < 0) {
        cm_infer_free(f);
        return rc;
    }
    *ret = f;
    return 0;
}

struct cm_http *cm_infer_http(struct cm_infer *f)
{
    return f->http;
}

unsigned cm_infer_running(const struct cm_infer *f)
{
    return f->running;
}

void cm_infer_cancel_all(struct cm_infer *f)
{
    struct run *r;

    DL_FOREACH(f->runs, r)
    if (r->engine)
        cm_rlm_cancel(r->engine);
}

struct cm_infer *cm_infer_free(struct cm_infer *f)
{
    if (!f)
        return NULL;
    f->http = cm_http_free(f->http);
    f->tick = cm_timer_close(f->tick);
    f->sweep = cm_timer_close(f->sweep);
    runs_free(f);
    contexts_free(f);
    conversations_free(f);
    free(f);
    return NULL;
}
