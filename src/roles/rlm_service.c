/* SPDX-License-Identifier: Apache-2.0 */
/* A straight script, as the gateway's: open each room on top of the one before, run, close in the opposite order. */
#include "roles/rlm_service.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "conf/rlm.h"
#include "ev/heap.h"
#include "ev/loop.h"
#include "front/rlm/infer.h"
#include "front/rlm/models.h"
#include "http/http.h"
#include "net/door.h"
#include "net/listen.h"
#include "net/stream.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "roles/rlm_core.h"
#include "roles/secrets.h"

/* After the last run: time for answers to leave, and for sessions to be deleted. */
#define LINGER_MS     200
#define DRAIN_LOOK_MS 20
/* After runs were cancelled: time for them to say so. */
#define CANCEL_NS (2 * CM_NS_PER_S)
/* Shells and supervisors signal a process and its group: what comes this close together is one wish. */
#define ONE_WISH_NS (500 * CM_NS_PER_MS)

struct service {
    struct cm_rlm_conf settings; /* in force; a reload changes it in place */
    const struct cm_rlm_conf *conf;
    struct cm_loop *loop;
    struct cm_heap *heap;
    struct cm_metrics *metrics;
    struct cm_rlm_core *core;
    struct cm_infer *infer;
    struct cm_door *door;
    struct cm_listen_inherited inherited;
    struct cm_address address;
    bool loopback, cancelled, lingers;
    struct cm_secrets secrets;
    struct cm_signal *term, *interrupt, *hangup;
    struct cm_timer *drain;
    uint64_t stopping_ns; /* since when; 0: not */
};

/* The end */

static void on_drain(void *arg)
{
    struct service *s = arg;
    uint64_t waited = cm_clock_ns() - s->stopping_ns, patience = (uint64_t)(s->conf->drain_timeout * 1e9);

    if (s->lingers) {
        cm_loop_stop(s->loop);
        return;
    }
    if (cm_infer_running(s->infer) == 0 || waited > patience + CANCEL_NS) {
        s->lingers = true;
        cm_timer_start(s->drain, LINGER_MS, 0);
    } else if (waited > patience && !s->cancelled) {
        s->cancelled = true;
        cm_infer_cancel_all(s->infer);
    }
}

static void on_signal(void *arg, int signum)
{
    struct service *s = arg;
    uint64_t now = cm_clock_ns();

    if (s->stopping_ns && now - s->stopping_ns < ONE_WISH_NS)
        return;
    cm_log(CM_LOG_INFO, s->stopping_ns ? "stopping_at_once" : "stopping", CM_LOG_STR("signal", sigabbrev_np(signum)));
    if (s->stopping_ns) {
        cm_loop_stop(s->loop);
        return;
    }
    s->stopping_ns = now;
    cm_door_shut(s->door);
    cm_http_drain(cm_infer_http(s->infer));
    cm_timer_start(s->drain, DRAIN_LOOK_MS, DRAIN_LOOK_MS);
}

/* Settings */

static void log_warnings(const struct cm_rlm_conf *conf)
{
    char text[CM_CONF_WARNINGS_MAX], *rest = text;

    snprintf(text, sizeof text, "%s", conf->source.warnings);
    for (char *line; (line = strsep(&rest, "\n"));)
        if (*line)
            cm_log(CM_LOG_WARNING, "setting", CM_LOG_STR("reason", line));
}

static void on_hangup(void *arg, int signum)
{
    struct service *s = arg;
    char changed[CM_CONF_NAMES_MAX], kept[CM_CONF_NAMES_MAX];
    struct cm_err err;

    (void)signum;
    if (cm_rlm_conf_reload(&s->settings, changed, kept, &err) < 0) {
        cm_log(CM_LOG_ERROR, "reload_failed", CM_LOG_STR("what", "settings"), CM_LOG_STR("why", err.text),
               CM_LOG_STR("then", "the old ones hold"));
        return;
    }
    cm_log_set_level((enum cm_log_level)s->conf->log_level);
    cm_infer_reload(s->infer);
    cm_secrets_reload(&s->secrets);
    log_warnings(s->conf);
    cm_log(CM_LOG_INFO, "settings_reloaded", CM_LOG_STR("file", *s->conf->source.file ? s->conf->source.file : NULL),
           CM_LOG_STR("changed", changed), CM_LOG_STR("needs_restart", kept));
}

/* Rooms */

static int open_secrets(struct service *s, struct cm_err *err)
{
    const struct cm_rlm_conf *c = s->conf;
    int rc = cm_listen_address(c->host, &s->address, err);

    s->loopback = s->inherited.count > 0 ? s->inherited.loopback : rc == 0 && cm_address_is_loopback(&s->address);
    const struct cm_secrets_config config = {
        .prefix = "RLM",
        .access = {.prefix = "RLM", .key = c->api_key, .key_file = c->api_key_file, .keys_file = c->keys_file},
        .host = c->host,
        .loopback = s->loopback,
        .allow_keyless = c->allow_keyless,
        .tls = c->tls,
        .tls_require_client_auth = c->tls_require_client_auth,
        .tls_mode = c->tls_mode,
        .tls_cert_file = c->tls_cert_file,
        .tls_key_file = c->tls_key_file,
        .tls_ca_file = c->tls_ca_file,
        .interval_s = c->secrets_interval,
    };
    return rc < 0 && s->inherited.count == 0 ? rc : cm_secrets_open(s->loop, &config, s->metrics, &s->secrets, err);
}

static int open_core(struct service *s, struct cm_err *err)
{
    const struct cm_rlm_core_config config = {.conf = s->conf, .metrics = s->metrics, .sidecar_log = STDOUT_FILENO};

    return cm_rlm_core_open(s->loop, &config, &s->core, err);
}

static bool is_ready(void *arg, const char **ret_reason)
{
    struct service *s = arg;

    return cm_rlm_core_ready(s->core, ret_reason);
}

static void local_model(void *arg, struct cm_models_local *ret)
{
    struct service *s = arg;

    cm_rlm_core_local_model(s->core, ret);
}

static void on_left(void *arg)
{
    struct service *s = arg;

    if (s->door)
        cm_door_more(s->door);
}

static int open_infer(struct service *s, struct cm_err *err)
{
    const struct cm_infer_config config = {
        .conf = s->conf,
        .engine = cm_rlm_core_engine(s->core),
        .metrics = s->metrics,
        .access = s->secrets.access,
        .loopback = s->loopback,
        .ready = is_ready,
        .local_model = local_model,
        .left = on_left,
        .arg = s,
    };

    return cm_infer_open(s->loop, &config, &s->infer, err);
}

static void on_http(void *arg, int fd, const struct sockaddr *peer, socklen_t len)
{
    struct service *s = arg;

    cm_http_adopt(cm_infer_http(s->infer), fd, peer, len);
}

static unsigned count_connections(void *arg)
{
    const struct service *s = arg;

    return cm_http_connections(cm_infer_http(s->infer));
}

static int open_door(struct service *s, struct cm_err *err)
{
    static const struct cm_door_ops ops = {.http = on_http, .connections = count_connections};
    const struct cm_rlm_conf *c = s->conf;
    const struct cm_door_config config = {
        .inherited = &s->inherited,
        .address = s->address,
        .ports = c->port.at,
        .ports_count = c->port.count,
        .connections_max = c->max_connections,
        .head_ms = (unsigned)(1e3 * (c->head_timeout < c->idle_timeout ? c->head_timeout : c->idle_timeout)),
        .tls = s->secrets.tls,
        .metrics = s->metrics,
    };

    return cm_door_open(s->loop, &config, &ops, s, &s->door, err);
}

static int open_signals(struct service *s, struct cm_err *err)
{
    s->drain = cm_timer_open(s->loop, on_drain, s, err);
    s->term = s->drain ? cm_signal_open(s->loop, SIGTERM, on_signal, s, err) : NULL;
    s->interrupt = s->term ? cm_signal_open(s->loop, SIGINT, on_signal, s, err) : NULL;
    s->hangup = s->interrupt ? cm_signal_open(s->loop, SIGHUP, on_hangup, s, err) : NULL;
    return s->hangup ? 0 : err->code;
}

static int open_rooms(struct service *s, struct cm_err *err)
{
    s->metrics = cm_metrics_new_rlm();
    if (!s->metrics)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for metrics");
    cm_metrics_info(s->metrics, "version", CM_VERSION);
    s->loop = cm_loop_new(err);
    s->heap = s->loop ? cm_heap_open(s->loop, err) : NULL;
    if (!s->heap || cm_listen_inherit(&s->inherited, err) < 0 || open_secrets(s, err) < 0 || open_core(s, err) < 0 ||
        open_infer(s, err) < 0 || open_door(s, err) < 0 || open_signals(s, err) < 0)
        return err->code;
    return 0;
}

static void close_rooms(struct service *s)
{
    s->hangup = cm_signal_close(s->hangup);
    s->interrupt = cm_signal_close(s->interrupt);
    s->term = cm_signal_close(s->term);
    s->drain = cm_timer_close(s->drain);
    s->door = cm_door_free(s->door);
    s->infer = cm_infer_free(s->infer);
    s->core = cm_rlm_core_free(s->core);
    cm_secrets_close(&s->secrets);
    if (s->loop)
        cm_stream_end_lingering(s->loop);
    s->heap = cm_heap_close(s->heap);
    s->loop = cm_loop_free(s->loop);
    s->metrics = cm_metrics_free(s->metrics);
}

static void log_serving(const struct service *s)
{
    char ports[40] = "";
    struct cm_models_local local;

    cm_rlm_core_local_model(s->core, &local);
    for (unsigned i = 0; i < cm_door_ports(s->door); i++)
        snprintf(ports + strlen(ports), sizeof ports - strlen(ports), "%s%u", i > 0 ? "," : "",
                 cm_door_port(s->door, i));
    cm_log(CM_LOG_INFO, "serving", CM_LOG_STR("version", CM_VERSION),
           CM_LOG_STR("host", s->inherited.count > 0 ? "inherited" : s->conf->host),
           CM_LOG_INT("port", cm_door_port(s->door, 0)), CM_LOG_STR("ports", ports),
           CM_LOG_STR("model", cm_models_name(s->conf, &local)));
}

static void prepare_process(void)
{
    struct rlimit limit;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is a disk that is full */
    signal(SIGHUP, SIG_IGN); /* until there is something to read again */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* keys of model services stand in our memory */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int cm_rlm_service_run(const struct cm_rlm_conf *conf, struct cm_err *err)
{
    struct service s = {.settings = *conf};
    struct cm_err own;

    err = err ? err : &own;
    s.conf = &s.settings;
    prepare_process();
    cm_log_open(STDOUT_FILENO, (enum cm_log_level)conf->log_level);
    log_warnings(conf);
    int r = open_rooms(&s, err);
    if (r == 0) {
        log_serving(&s);
        cm_loop_run(s.loop);
    }
    close_rooms(&s);
    if (r == 0)
        cm_log(CM_LOG_INFO, "stopped");
    return r;
}
