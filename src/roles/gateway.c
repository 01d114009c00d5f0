/* SPDX-License-Identifier: Apache-2.0 */
/* A straight script: raise limits, open each room on top of the one before, run, close in the opposite order. The
 * zygote starts before anything listens. */
#include "roles/gateway.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "conf/conf.h"
#include "conf/policy.h"
#include "ev/heap.h"
#include "ev/loop.h"
#include "front/grpc/rpc.h"
#include "executor/executor.h"
#include "front/http/api.h"
#include "grpc/server.h"
#include "http/http.h"
#include "net/door.h"
#include "net/listen.h"
#include "net/stream.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "roles/probe.h"
#include "roles/secrets.h"
#include "session/session.h"

/* Executions that compute at once: some more than processors, so that a short one does not wait for a long one, and
 * few enough that each has a quarter of a processor at the least, and with the default timeout 7 s of its time. */
#define RUNNING_PER_PROCESSOR 4
/* After the last execution has been answered: time for the answers to leave. */
#define LINGER_MS 100
/* Shells and supervisors signal a process and its group: what comes this close together is one wish. */
#define ONE_WISH_NS (500 * CM_NS_PER_MS)

struct gateway {
    struct cm_conf settings; /* in force; a reload changes it in place, and the rooms read it through `conf` */
    const struct cm_conf *conf;
    struct cm_loop *loop;
    struct cm_heap *heap;
    struct cm_metrics *metrics;
    struct cm_sessions *sessions;
    struct cm_executor *executor;
    struct cm_api *api;
    struct cm_rpc *rpc;
    struct cm_door *door;
    struct cm_listen_inherited inherited; /* in place of the address, where there are some */
    struct cm_address address;
    bool loopback;
    struct cm_secrets secrets;
    struct cm_signal *term, *interrupt, *hangup;
    struct cm_timer *linger;
    uint64_t stopping_ns; /* since when; 0 = not */
    struct cm_sandbox_arguments arguments;
    struct cm_cgroup cgroup;
};

static void on_linger(void *arg)
{
    struct gateway *g = arg;

    cm_loop_stop(g->loop);
}

static void on_drained(void *arg)
{
    struct gateway *g = arg;

    cm_timer_start(g->linger, LINGER_MS, 0);
}

static void on_signal(void *arg, int signum)
{
    struct gateway *g = arg;
    uint64_t now = cm_clock_ns();

    if (g->stopping_ns && now - g->stopping_ns < ONE_WISH_NS)
        return;
    cm_log(CM_LOG_INFO, g->stopping_ns ? "stopping_at_once" : "stopping", CM_LOG_STR("signal", sigabbrev_np(signum)));
    if (g->stopping_ns) {
        cm_loop_stop(g->loop);
        return;
    }
    g->stopping_ns = now;
    cm_door_shut(g->door);
    cm_http_drain(cm_api_http(g->api));
    cm_rpc_drain(g->rpc);
    cm_sessions_drain(g->sessions, g->conf->drain_timeout, on_drained, g);
}

/* Each session takes two descriptors and each connection one. The hard limit is the administrator's word. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Those that this process may use. */
static unsigned processors(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

static struct cm_sessions_config sessions_config(const struct gateway *g)
{
    const struct cm_conf *c = g->conf;
    struct cm_sessions_config config = {
        .sandbox_path = c->sandbox_path,
        .image_path = c->image_path,
        .sandbox_args = g->arguments.list,
        .cgroup = g->cgroup.count ? &g->cgroup : NULL,
        .max_sessions = c->max_sessions,
        .session_ttl_s = c->session_ttl,
        .spare_workers = c->spare_workers,
        .grace_s = c->grace,
        .max_running = c->max_running > 0 ? c->max_running : RUNNING_PER_PROCESSOR * processors(),
        .queue_total = c->queue_total,
        .min_free_memory = c->min_free_memory,
        .stored_output = c->stored_output,
        .total_stored_output = c->total_stored_output,
    };

    cm_conf_limits(c, &config.limits, &config.caps);
    cm_conf_policy(c, &config.strict, config.strict_rules, NULL); /* checked when it was loaded */
    return config;
}

/* Lines of text, one log line each. */
static void log_warnings(const struct cm_conf *conf)
{
    char text[sizeof conf->source.warnings], *rest = text;

    snprintf(text, sizeof text, "%s", conf->source.warnings);
    for (char *line; (line = strsep(&rest, "\n"));)
        if (*line)
            cm_log(CM_LOG_WARNING, "setting", CM_LOG_STR("reason", line));
}

/* SIGHUP: what can change while sessions live. Settings that are wrong change nothing. */
static void on_hangup(void *arg, int signum)
{
    struct gateway *g = arg;
    char changed[CM_CONF_NAMES_MAX], kept[CM_CONF_NAMES_MAX];
    struct cm_err err;

    (void)signum;
    if (cm_conf_reload(&g->settings, changed, kept, &err) < 0) {
        cm_log(CM_LOG_ERROR, "reload_failed", CM_LOG_STR("what", "settings"), CM_LOG_STR("why", err.text),
               CM_LOG_STR("then", "the old ones hold"));
        return;
    }
    struct cm_sessions_config config = sessions_config(g);
    cm_log_set_level((enum cm_log_level)g->conf->log_level);
    cm_api_reload(g->api);
    cm_rpc_reload(g->rpc);
    if (cm_sessions_reload(g->sessions, &config, &err) < 0)
        cm_log(CM_LOG_ERROR, "reload_failed", CM_LOG_STR("what", "limits of sessions"), CM_LOG_STR("why", err.text));
    cm_secrets_reload(&g->secrets);
    cm_executor_reload(g->executor, g->conf, g->secrets.callback_tls);
    log_warnings(g->conf);
    cm_log(CM_LOG_INFO, "settings_reloaded", CM_LOG_STR("file", *g->conf->source.file ? g->conf->source.file : NULL),
           CM_LOG_STR("changed", changed), CM_LOG_STR("needs_restart", kept));
}

/* Who reads a log should not have to ask. */
static void log_layers(const struct cm_probe *p)
{
    char on[400] = "", off[400] = "", waived[400] = "";

    for (int i = 0; i < CM_LAYER_COUNT; i++) {
        bool is_on = p->on >> i & 1;
        char *list = is_on ? on : p->wish.waived >> i & 1 ? waived : off;
        snprintf(list + strlen(list), sizeof on - strlen(list), "%s%s", *list ? "," : "",
                 cm_layer_info((enum cm_layer)i)->name);
    }
    cm_log(CM_LOG_INFO, "layers", CM_LOG_STR("on", on), CM_LOG_STR("off", off));
    if (*waived)
        cm_log(CM_LOG_WARNING, "layers_waived", CM_LOG_STR("missing", waived));
}

/* Before anything listens: a machine without a layer that has to be there gets no server. */
static int look_at_machine(struct gateway *g, struct cm_err *err)
{
    struct cm_probe p;
    int rc = cm_probe_sandbox(g->conf, &p, err);

    if (rc < 0)
        return rc;
    cm_probe_cgroup(g->conf, &g->cgroup, &p);
    cm_sandbox_arguments(g->conf, &g->arguments);
    if (p.fit) {
        log_layers(&p);
        return 0;
    }
    *err = p.problem;
    return err->code;
}

static struct cm_secrets_config secrets_config(const struct gateway *g)
{
    const struct cm_conf *c = g->conf;

    return (struct cm_secrets_config){
        .prefix = "CODEMODE",
        .access = {.key = c->api_key, .key_file = c->api_key_file, .keys_file = c->keys_file},
        .host = c->host,
        .loopback = g->loopback,
        .allow_keyless = c->allow_keyless,
        .tls = c->tls,
        .tls_require_client_auth = c->tls_require_client_auth,
        .tls_mode = c->tls_mode,
        .tls_cert_file = c->tls_cert_file,
        .tls_key_file = c->tls_key_file,
        .tls_ca_file = c->tls_ca_file,
        .callback_tls = c->callback_tls,
        .callback_ca_file = c->callback_tls_ca_file,
        .callback_cert_file = c->callback_tls_client_cert,
        .callback_key_file = c->callback_tls_client_key,
        .callback_target = c->main_app_target,
        .interval_s = c->secrets_interval,
    };
}

static int find_place(struct gateway *g, struct cm_err *err)
{
    int rc = cm_listen_address(g->conf->host, &g->address, err);

    g->loopback = g->inherited.count > 0 ? g->inherited.loopback : rc == 0 && cm_address_is_loopback(&g->address);
    return g->inherited.count > 0 ? 0 : rc;
}

static int open_secrets(struct gateway *g, struct cm_err *err)
{
    int rc = find_place(g, err);
    struct cm_secrets_config config = secrets_config(g);

    return rc < 0 ? rc : cm_secrets_open(g->loop, &config, g->metrics, &g->secrets, err);
}

/* The tool service gets to know our key and certificate by the next connection. */
static void on_secrets(void *arg)
{
    struct gateway *g = arg;

    cm_executor_reload(g->executor, g->conf, g->secrets.callback_tls);
}

static void on_first_list(void *arg, enum cm_tool_service state)
{
    (void)arg;
    (void)state;
}

/* Asks for the list of tools at once: code that calls one by its bare name shows no sign of it, and would not wait. */
static int open_executor(struct gateway *g, struct cm_err *err)
{
    g->secrets.changed = on_secrets;
    g->secrets.arg = g;
    int rc = cm_executor_open(g->loop, g->conf, g->sessions, g->metrics, g->secrets.callback_tls, &g->executor, err);
    if (rc == 0)
        cm_executor_ping(g->executor, on_first_list, NULL);
    return rc;
}

static int open_rpc(struct gateway *g, struct cm_err *err)
{
    const struct cm_rpc_parts parts = {
        .loop = g->loop,
        .conf = g->conf,
        .sessions = g->sessions,
        .executor = g->executor,
        .metrics = g->metrics,
        .access = g->secrets.access,
    };

    return cm_rpc_open(&parts, &g->rpc, err);
}

/* Connections */

static void on_http(void *arg, int fd, const struct sockaddr *peer, socklen_t len)
{
    struct gateway *g = arg;

    cm_http_adopt(cm_api_http(g->api), fd, peer, len);
}

static void on_h2_fd(void *arg, int fd)
{
    struct gateway *g = arg;

    cm_grpc_server_adopt_fd(cm_rpc_server(g->rpc), fd, NULL);
}

static void on_h2_stream(void *arg, struct cm_stream *s)
{
    struct gateway *g = arg;

    cm_grpc_server_adopt(cm_rpc_server(g->rpc), s, NULL, 0, NULL);
}

static unsigned count_connections(void *arg)
{
    const struct gateway *g = arg;

    return cm_http_connections(cm_api_http(g->api)) + cm_grpc_server_connections(cm_rpc_server(g->rpc));
}

static void on_left(void *arg)
{
    struct gateway *g = arg;

    if (g->door)
        cm_door_more(g->door);
}

/* A connection that has said nothing is idle as well. */
static unsigned head_ms(const struct cm_conf *c)
{
    return (unsigned)(1e3 * (c->head_timeout < c->idle_timeout ? c->head_timeout : c->idle_timeout));
}

static int open_door(struct gateway *g, struct cm_err *err)
{
    static const struct cm_door_ops ops = {
        .http = on_http, .h2_fd = on_h2_fd, .h2_stream = on_h2_stream, .connections = count_connections};
    const struct cm_conf *c = g->conf;
    struct cm_door_config door = {
        .inherited = &g->inherited,
        .ports = c->port.at,
        .ports_count = c->port.count,
        .connections_max = c->max_connections,
        .address = g->address,
        .head_ms = head_ms(c),
        .tls = g->secrets.tls,
        .metrics = g->metrics,
    };
    struct cm_api_config api = {
        .conf = c,
        .sessions = g->sessions,
        .executor = g->executor,
        .metrics = g->metrics,
        .access = g->secrets.access,
        .loopback = g->loopback,
        .left = on_left,
        .arg = g,
    };
    int rc = cm_api_open(g->loop, &api, &g->api, err);

    return rc < 0 ? rc : cm_door_open(g->loop, &door, &ops, g, &g->door, err);
}

static void log_serving(const struct gateway *g)
{
    char ports[40] = "";

    for (unsigned i = 0; i < cm_door_ports(g->door); i++)
        snprintf(ports + strlen(ports), sizeof ports - strlen(ports), "%s%u", i > 0 ? "," : "",
                 cm_door_port(g->door, i));
    cm_log(CM_LOG_INFO, "serving", CM_LOG_STR("version", CM_VERSION),
           CM_LOG_STR("host", g->inherited.count > 0 ? "inherited" : g->conf->host),
           CM_LOG_INT("port", cm_door_port(g->door, 0)), CM_LOG_STR("ports", ports),
           CM_LOG_INT("max_sessions", g->conf->max_sessions));
}

static int open_rooms(struct gateway *g, struct cm_err *err)
{
    struct cm_sessions_config config = sessions_config(g);

    g->metrics = cm_metrics_new();
    if (!g->metrics)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for metrics");
    cm_metrics_info(g->metrics, "version", CM_VERSION);
    g->loop = cm_loop_new(err);
    g->heap = g->loop ? cm_heap_open(g->loop, err) : NULL;
    if (!g->heap || cm_sessions_open(g->loop, &config, g->metrics, &g->sessions, err) < 0 || open_secrets(g, err) < 0 ||
        open_executor(g, err) < 0 || open_rpc(g, err) < 0 || open_door(g, err) < 0)
        return err->code;
    g->linger = cm_timer_open(g->loop, on_linger, g, err);
    g->term = g->linger ? cm_signal_open(g->loop, SIGTERM, on_signal, g, err) : NULL;
    g->interrupt = g->term ? cm_signal_open(g->loop, SIGINT, on_signal, g, err) : NULL;
    g->hangup = g->interrupt ? cm_signal_open(g->loop, SIGHUP, on_hangup, g, err) : NULL;
    return g->hangup ? 0 : err->code;
}

static void close_rooms(struct gateway *g)
{
    g->hangup = cm_signal_close(g->hangup);
    g->interrupt = cm_signal_close(g->interrupt);
    g->term = cm_signal_close(g->term);
    g->linger = cm_timer_close(g->linger);
    g->door = cm_door_free(g->door);
    g->api = cm_api_free(g->api);
    g->rpc = cm_rpc_free(g->rpc);
    g->executor = cm_executor_free(g->executor);
    g->sessions = cm_sessions_free(g->sessions);
    cm_secrets_close(&g->secrets);
    if (g->loop)
        cm_stream_end_lingering(g->loop);
    g->heap = cm_heap_close(g->heap);
    g->loop = cm_loop_free(g->loop);
    g->metrics = cm_metrics_free(g->metrics);
    cm_cgroup_remove(&g->cgroup);
}

int cm_gateway_run(const struct cm_conf *conf, struct cm_err *err)
{
    struct gateway g = {.settings = *conf};
    struct cm_err own;

    err = err ? err : &own;
    g.conf = &g.settings;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* until there is something to read again; a terminal that closes ends no session */
    raise_descriptor_limit();
    cm_log_open(STDOUT_FILENO, (enum cm_log_level)conf->log_level);
    log_warnings(conf);
    int r = cm_listen_inherit(&g.inherited, err);
    r = r ? r : look_at_machine(&g, err);
    r = r ? r : open_rooms(&g, err);
    if (r == 0) {
        log_serving(&g);
        cm_loop_run(g.loop);
    }
    close_rooms(&g);
    if (r == 0)
        cm_log(CM_LOG_INFO, "stopped");
    return r;
}
