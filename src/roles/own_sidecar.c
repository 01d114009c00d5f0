/* SPDX-License-Identifier: Apache-2.0 */
/* Between fork() and execve() only calls that are safe in a signal handler: other threads may have held locks. So all that
 * the child needs is written before; its own id, which LISTEN_PID names, is put in digit by digit. */
#include "roles/own_sidecar.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/random.h"
#include "ev/loop.h"
#include "net/listen.h"
#include "obs/log.h"
#include "obs/metrics.h"

#define KEY_DIGITS       64
#define ENVIRONMENT_MAX  40
#define ENTRY_MAX        (PATH_MAX + 64)
#define LISTENER         3
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS   5000
#define LIVED_LONG_NS    (10 * CM_NS_PER_S) /* the pause starts small again after such a life */
#define END_MS           3000
#define PID_DIGITS       10

struct cm_own_sidecar {
    struct cm_loop *loop;
    struct cm_metrics *metrics;
    char path[PATH_MAX], url[64], key[KEY_DIGITS + 1], problem[200];
    int listener, log_fd;
    pid_t pid; /* 0: none */
    int pidfd;
    struct cm_watch *watch;
    struct cm_timer *again;
    uint64_t started_ns;
    unsigned pause_ms;
    char *environment[ENVIRONMENT_MAX + 1];
    unsigned variables;
    char *listen_pid; /* the digits in it */
};

/* The environment */

static int add_variable(struct cm_own_sidecar *o, const char *name, const char *value, struct cm_err *err)
{
    char entry[ENTRY_MAX];

    if (o->variables == ENVIRONMENT_MAX || snprintf(entry, sizeof entry, "%s=%s", name, value) >= ENTRY_MAX)
        return cm_err_set(err, CM_ERR_CONFIG, "%.60s: the value is too long for the private sidecar", name);
    char *copy = strdup(entry);
    if (!copy)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the private sidecar");
    o->environment[o->variables++] = copy;
    return 0;
}

static int add_number(struct cm_own_sidecar *o, const char *name, uint64_t value, struct cm_err *err)
{
    char text[24];

    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return add_variable(o, name, text, err);
}

/* What runs code gets none of our secrets: its environment is made, not inherited. */
static int pass_on(struct cm_own_sidecar *o, struct cm_err *err)
{
    static const char *const names[] = {"PATH",         "TZ",           "CODEMODE_SANDBOX", "CODEMODE_IMAGE",
                                        "WAIVE_LAYERS", "WORKER_UID",   "REQUIRE_LAYERS",   "CGROUP",
                                        "ASAN_OPTIONS", "UBSAN_OPTIONS"};
    int rc = 0;

    for (size_t i = 0; i < CM_COUNT_OF(names) && rc == 0; i++) {
        const char *value = getenv(names[i]);
        if (value && *value)
            rc = add_variable(o, names[i], value, err);
    }
    return rc;
}

/* Limits that fit a client which bounds each run itself: code waits for sub-queries as long as the run has time, and a
 * prompt may be as long as a call's arguments. */
static int fill_environment(struct cm_own_sidecar *o, const struct cm_own_sidecar_config *c, struct cm_err *err)
{
    static const char *const fixed[][2] = {
        {"LISTEN_FDS", "1"},           {"CODEMODE_MAIN_APP_TARGET", "none"}, {"MAX_TIMEOUT", "86400"},
        {"TOOL_TIMEOUT", "86400"},     {"TOOL_CALLS_LIMIT", "100000"},       {"TOOL_ARGUMENT_LIMIT", "16Mi"},
        {"TOOL_RESULT_LIMIT", "16Mi"}, {"MAX_MEMORY", "4294901760"},         {"KEPT_ANSWERS", "0"},
        {"DRAIN_TIMEOUT", "0"},        {"MAX_CONNECTIONS", "4096"},          {"BODY_TIMEOUT", "600"},
    };
    int rc = pass_on(o, err);

    for (size_t i = 0; i < CM_COUNT_OF(fixed) && rc == 0; i++)
        rc = add_variable(o, fixed[i][0], fixed[i][1], err);
    if (rc == 0)
        rc = add_variable(o, "CODEMODE_API_KEY", o->key, err);
    if (rc == 0)
        rc = add_variable(o, "LOG_LEVEL", c->log_level, err);
    if (rc == 0)
        rc = add_number(o, "MAX_SESSIONS", c->max_sessions, err);
    if (rc == 0)
        rc = add_number(o, "SESSION_TTL", c->session_ttl_s, err);
    if (rc == 0)
        rc = add_number(o, "MAX_UPLOAD", c->upload_max, err);
    if (rc == 0 && c->memory > 0)
        rc = add_number(o, "MEMORY_LIMIT", c->memory, err);
    if (rc == 0)
        rc = add_variable(o, "LISTEN_PID", "0000000000", err);
    if (rc == 0)
        o->listen_pid = strchr(o->environment[o->variables - 1], '=') + 1;
    return rc;
}

/* The child */

static void put_pid(char *to, pid_t pid)
{
    for (int i = PID_DIGITS - 1; i >= 0; i--, pid /= 10)
        to[i] = (char)('0' + pid % 10);
}

/* In a group of its own, so that Ctrl-C on a terminal is our business. */
static void prepare_child(const struct cm_own_sidecar *o, pid_t parent)
{
    static const int signals[] = {SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGCHLD};
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    setpgid(0, 0);
    for (size_t i = 0; i < CM_COUNT_OF(signals); i++)
        signal(signals[i], SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDWR), out = o->log_fd >= 0 ? o->log_fd : null;
    dup2(null, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    if (o->listener == LISTENER)
        fcntl(LISTENER, F_SETFD, 0);
    else
        dup2(o->listener, LISTENER);
    closefrom(LISTENER + 1);
    if (chdir("/") < 0) /* no configuration file of the working folder is meant for it */
        _exit(1);
}

static void on_exit_event(void *arg, int events);

static int start(struct cm_own_sidecar *o, struct cm_err *err)
{
    char *argv[] = {o->path, "serve", NULL};
    pid_t parent = getpid(), pid = fork();

    if (pid < 0)
        return cm_err_sys(err, errno, "start the private sidecar");
    if (pid == 0) {
        prepare_child(o, parent);
        put_pid(o->listen_pid, getpid());
        execve(o->path, argv, o->environment);
        _exit(127);
    }
    o->pid = pid;
    o->started_ns = cm_clock_ns();
    o->pidfd = pidfd_open(pid, 0);
    o->watch = o->pidfd >= 0 ? cm_watch_open(o->loop, o->pidfd, CM_EV_READ, on_exit_event, o, err) : NULL;
    if (!o->watch) { /* one that cannot be watched is of no use */
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        o->pid = 0;
        o->pidfd = cm_fd_close(o->pidfd);
        return cm_err_set(err, CM_ERR_SYSTEM, "watch the private sidecar");
    }
    o->problem[0] = '\0';
    cm_log(CM_LOG_INFO, "sidecar_started", CM_LOG_INT("pid", pid), CM_LOG_STR("url", o->url));
    return 0;
}

static void start_later(struct cm_own_sidecar *o)
{
    bool long_lived = o->pid == 0 && cm_clock_ns() - o->started_ns > LIVED_LONG_NS;

    o->pause_ms = long_lived || o->pause_ms == 0     ? BACKOFF_FIRST_MS
                  : o->pause_ms * 2 < BACKOFF_MAX_MS ? o->pause_ms * 2
                                                     : BACKOFF_MAX_MS;
    cm_timer_start(o->again, o->pause_ms, 0);
}

static void on_again(void *arg)
{
    struct cm_own_sidecar *o = arg;
    struct cm_err err;

    cm_metrics_add(o->metrics, CM_M_RLM_SIDECAR_RESTARTS, 0, 1);
    if (start(o, &err) == 0)
        return;
    snprintf(o->problem, sizeof o->problem, "%.180s", err.text);
    cm_log(CM_LOG_ERROR, "sidecar_not_started", CM_LOG_STR("why", err.text));
    start_later(o);
}

static void forget_process(struct cm_own_sidecar *o)
{
    o->watch = cm_watch_close(o->watch);
    o->pidfd = cm_fd_close(o->pidfd);
    o->pid = 0;
}

static void on_exit_event(void *arg, int events)
{
    struct cm_own_sidecar *o = arg;
    int status = 0;

    (void)events;
    if (waitpid(o->pid, &status, WNOHANG) == 0)
        return;
    bool killed = WIFSIGNALED(status);
    snprintf(o->problem, sizeof o->problem, "the private sidecar has ended: %s %d", killed ? "signal" : "exit status",
             killed ? WTERMSIG(status) : WEXITSTATUS(status));
    cm_log(CM_LOG_WARNING, "sidecar_ended", CM_LOG_INT("pid", o->pid), CM_LOG_STR("why", o->problem));
    forget_process(o);
    start_later(o);
}

/* The whole */

static int listen_here(struct cm_own_sidecar *o, struct cm_err *err)
{
    struct cm_address here;
    unsigned port = 0;
    int rc = cm_listen_address("127.0.0.1", &here, err);

    o->listener = rc < 0 ? -1 : cm_listen(&here, 0, &port, err);
    if (o->listener < 0)
        return CM_ERR_SYSTEM;
    snprintf(o->url, sizeof o->url, "http://127.0.0.1:%u", port);
    return cm_random_hex(o->key, KEY_DIGITS, err);
}

int cm_own_sidecar_open(struct cm_loop *loop, const struct cm_own_sidecar_config *config, struct cm_own_sidecar **ret,
                        struct cm_err *err)
{
    struct cm_own_sidecar *o = calloc(1, sizeof *o);

    if (!o)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the private sidecar");
    *o = (struct cm_own_sidecar){
        .loop = loop, .metrics = config->metrics, .listener = -1, .pidfd = -1, .log_fd = config->log_fd};
    int rc = 0;
    if (!realpath(config->path, o->path) || access(o->path, X_OK) < 0)
        rc = cm_err_set(err, CM_ERR_CONFIG, "CODEMODE_PATH: %.200s: %s", config->path, strerror(errno));
    if (rc == 0)
        rc = listen_here(o, err);
    if (rc == 0)
        rc = fill_environment(o, config, err);
    if (rc == 0 && !(o->again = cm_timer_open(loop, on_again, o, err)))
        rc = CM_ERR_NO_MEMORY;
    if (rc == 0)
        rc = start(o, err);
    if (rc < 0) {
        cm_own_sidecar_close(o);
        return rc;
    }
    *ret = o;
    return 0;
}

const char *cm_own_sidecar_url(const struct cm_own_sidecar *o)
{
    return o->url;
}

const char *cm_own_sidecar_key(const struct cm_own_sidecar *o)
{
    return o->key;
}

const char *cm_own_sidecar_problem(const struct cm_own_sidecar *o)
{
    return o->problem;
}

static void end_process(struct cm_own_sidecar *o)
{
    struct pollfd p = {.fd = o->pidfd, .events = POLLIN};

    kill(o->pid, SIGTERM);
    if (poll(&p, 1, END_MS) != 1)
        kill(o->pid, SIGKILL);
    waitpid(o->pid, NULL, 0);
    forget_process(o);
}

struct cm_own_sidecar *cm_own_sidecar_close(struct cm_own_sidecar *o)
{
    if (!o)
        return NULL;
    if (o->pid > 0)
        end_process(o);
    cm_timer_close(o->again);
    cm_fd_close(o->listener);
    for (unsigned i = 0; i < o->variables; i++)
        free(o->environment[i]);
    explicit_bzero(o->key, sizeof o->key);
    free(o);
    return NULL;
}
