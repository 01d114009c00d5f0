/* SPDX-License-Identifier: Apache-2.0 */
/* llama-server as a child of ours.
 *
 * It gets a port that we choose. Between our look at a port and its bind() somebody else may take it: the port is outside the range
 * from which the system hands out ports by itself, a server that could not bind is started again with another, and only an
 * answer while our child lives counts. Once it has answered, its port stays: callers hold the URL. */
#include "llm/llm.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/utf8.h"
#include "ev/loop.h"
#include "llm/internal.h"
#include "obs/log.h"

#define PATH_LEN_MAX  4096
#define PORT_FIRST    20000
#define PORTS         12000 /* up to 32000; Linux hands out ports from 32768 */
#define PORT_TRIES    50
#define STARTS_MAX    4 /* with another port each */
#define LOAD_MAX_NS   (600 * CM_NS_PER_S)
#define ASK_EVERY_MS  100
#define ASK_TIMEOUT_S 2
#define REST_FIRST_MS 500
#define REST_MAX_MS   30000
#define LIVED_LONG_NS (60 * CM_NS_PER_S)
#define TAIL_MAX      300 /* bytes of its last words */

struct cm_llama {
    struct cm_loop *loop;
    struct cm_egress *egress;
    struct cm_buf program, file, model;
    void (*ready)(void *arg, const char *base_url, const struct cm_err *err);
    void *arg;
    unsigned port, starts, rest_ms;
    bool up, told;
    uint64_t started_ns;
    pid_t pid;
    int pidfd, out_fd;
    struct cm_watch *exit_watch, *out_watch;
    struct cm_timer *timer; /* the next question, or the next start */
    struct cm_fetch *fetch;
    char tail[TAIL_MAX + 1]; /* its newest line */
    size_t tail_len;
    bool line_ended;
};

static void next_step(void *arg);

/* ---- the port */

static bool is_free(unsigned port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    cm_autofd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
}

static unsigned choose_port(void)
{
    for (int i = 0; i < PORT_TRIES; i++) {
        uint32_t n = 0;
        if (getrandom(&n, sizeof n, 0) == sizeof n && is_free(PORT_FIRST + n % PORTS))
            return PORT_FIRST + n % PORTS;
    }
    return 0;
}

/* ---- its process */

/* It needs none of our keys, and with one of its own (LLAMA_API_KEY) it would refuse us. Changes the child's copy. */
static void drop_keys(char **variables)
{
    char **to = variables;

    for (char **from = variables; *from; from++) {
        size_t name = strcspn(*from, "=");
        if (name < 4 || memcmp(*from + name - 4, "_KEY", 4) != 0)
            *to++ = *from;
    }
    *to = NULL;
}

/* In the child, between fork and exec. */
static _Noreturn void become(const char *program, char *const *argv, int out, pid_t parent)
{
    sigset_t none;
    int null = open("/dev/null", O_RDONLY);

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0); /* Ctrl-C is for us */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    drop_keys(environ);
    if (getppid() == parent && null >= 0 && dup2(null, 0) == 0 && dup2(out, 1) == 1 && dup2(out, 2) == 2)
        execve(program, argv, environ);
    _exit(127);
}

static void let_go(struct cm_llama *s)
{
    cm_fetch_cancel(cm_steal(s->fetch));
    s->exit_watch = cm_watch_close(s->exit_watch);
    s->out_watch = cm_watch_close(s->out_watch);
    s->pidfd = cm_fd_close(s->pidfd);
    s->out_fd = cm_fd_close(s->out_fd);
    s->pid = 0;
}

static void give_up(struct cm_llama *s, const struct cm_err *err)
{
    s->told = true;
    cm_timer_stop(s->timer);
    s->ready(s->arg, NULL, err);
}

/* What it says, one line of it. */
static void on_output(void *arg, int events)
{
    struct cm_llama *s = arg;
    char piece[4096];
    ssize_t n = read(s->out_fd, piece, sizeof piece);

    (void)events;
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0)
        s->out_watch = cm_watch_close(s->out_watch);
    for (ssize_t i = 0; i < n; i++) {
        if (piece[i] == '\n') {
            s->line_ended = true;
            continue;
        }
        if (s->line_ended && (unsigned char)piece[i] > ' ') {
            s->tail_len = 0;
            s->line_ended = false;
        }
        if (!s->line_ended && s->tail_len < TAIL_MAX)
            s->tail[s->tail_len++] = (unsigned char)piece[i] < ' ' || piece[i] == 0x7f ? ' ' : piece[i];
    }
    s->tail[s->tail_len] = '\0';
}

static void rest(struct cm_llama *s)
{
    bool lived_long = cm_clock_ns() - s->started_ns > LIVED_LONG_NS;

    s->rest_ms = s->rest_ms == 0 || lived_long  ? REST_FIRST_MS
                 : s->rest_ms * 2 < REST_MAX_MS ? s->rest_ms * 2
                                                : REST_MAX_MS;
    cm_timer_start(s->timer, s->rest_ms, 0);
}

static bool lost_its_port(const struct cm_llama *s)
{
    return !s->told && s->starts < STARTS_MAX && (!is_free(s->port) || strcasestr(s->tail, "bind"));
}

static void on_exit_event(void *arg, int events)
{
    struct cm_llama *s = arg;
    siginfo_t info = {0};
    struct cm_err err;

    (void)events;
    if (waitid(P_PIDFD, (id_t)s->pidfd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        return;
    if (s->out_watch)
        on_output(s, 0);
    let_go(s);
    if (!cm_utf8_valid(s->tail, s->tail_len))
        s->tail[0] = '\0';
    cm_err_set(&err, CM_ERR_CONFIG, "llama-server ended with %s %d%s%s",
               info.si_code == CLD_EXITED ? "status" : "signal", info.si_status, *s->tail ? ": " : "", s->tail);
    if (lost_its_port(s)) {
        cm_timer_start(s->timer, 0, 0);
    } else if (!s->told) {
        give_up(s, &err);
    } else {
        cm_log(CM_LOG_WARNING, "llama_server_ended", CM_LOG_STR("reason", err.text));
        s->up = false;
        rest(s);
    }
}

static int fork_it(struct cm_llama *s, int out, struct cm_err *err)
{
    char port[8];
    char *argv[] = {"llama-server", "--host", "127.0.0.1", "--port", port, "--model", cm_buf_data(&s->file), NULL};
    pid_t parent = getpid();

    snprintf(port, sizeof port, "%u", s->port);
    const char *program = cm_buf_data(&s->program);
    s->pid = fork();
    if (s->pid == 0)
        become(program, argv, out, parent);
    if (s->pid < 0) {
        s->pid = 0;
        return cm_err_sys(err, errno, "llama-server");
    }
    s->pidfd = pidfd_open(s->pid, 0);
    if (s->pidfd >= 0)
        return 0;
    int errnum = errno;
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
    return cm_err_sys(err, errnum, "llama-server");
}

static void end(struct cm_llama *s)
{
    siginfo_t info;

    if (s->pid > 0) {
        pidfd_send_signal(s->pidfd, SIGKILL, NULL, 0);
        /* Not by its descriptor, which the loop has made non-blocking. */
        while (waitid(P_PID, (id_t)s->pid, &info, WEXITED) < 0 && errno == EINTR)
            ;
    }
    let_go(s);
}

static int start(struct cm_llama *s, struct cm_err *err)
{
    int ends[2];

    if (!s->told)
        s->port = choose_port();
    if (!s->port)
        return cm_err_set(err, CM_ERR_SYSTEM, "no port is free for llama-server");
    s->tail_len = 0;
    s->tail[0] = '\0';
    s->line_ended = true;
    s->starts++;
    s->started_ns = cm_clock_ns();
    if (pipe2(ends, O_CLOEXEC) < 0)
        return cm_err_sys(err, errno, "llama-server");
    cm_autofd int out = ends[1];
    s->out_fd = ends[0];
    int rc = cm_fd_nonblock(s->out_fd) < 0 ? cm_err_set(err, CM_ERR_SYSTEM, "llama-server") : fork_it(s, out, err);
    if (rc == 0) {
        s->exit_watch = cm_watch_open(s->loop, s->pidfd, CM_EV_READ, on_exit_event, s, err);
        s->out_watch = s->exit_watch ? cm_watch_open(s->loop, s->out_fd, CM_EV_READ, on_output, s, err) : NULL;
        rc = s->out_watch ? 0 : CM_ERR_NO_MEMORY;
    }
    if (rc < 0)
        end(s);
    else
        cm_timer_start(s->timer, ASK_EVERY_MS, 0);
    return rc;
}

/* ---- whether it answers */

static void on_health(void *arg, const struct cm_fetch_end *res)
{
    struct cm_llama *s = arg;
    char url[64];

    s->fetch = NULL;
    if (res->why != CM_FETCH_OK || res->status != 200) {
        cm_timer_start(s->timer, ASK_EVERY_MS, 0);
        return;
    }
    s->up = true;
    cm_log(CM_LOG_INFO, "llama_server_ready", CM_LOG_INT("pid", s->pid), CM_LOG_INT("port", s->port),
           CM_LOG_REAL("seconds", (double)(cm_clock_ns() - s->started_ns) / CM_NS_PER_S));
    if (s->told)
        return;
    s->told = true;
    snprintf(url, sizeof url, "http://127.0.0.1:%u/v1", s->port);
    s->ready(s->arg, url, NULL);
}

static void ask(struct cm_llama *s)
{
    static const struct cm_fetch_ops ops = {NULL, NULL, on_health};
    char url[64];
    const struct cm_fetch_request request = {
        .method = "GET", .url = url, .body_fd = -1, .timeout_s = ASK_TIMEOUT_S, .answer_max = 65536};

    snprintf(url, sizeof url, "http://127.0.0.1:%u/health", s->port);
    if (cm_fetch_start(s->egress, &request, &ops, s, &s->fetch, NULL) < 0)
        cm_timer_start(s->timer, ASK_EVERY_MS, 0);
}

static void next_step(void *arg)
{
    struct cm_llama *s = arg;
    struct cm_err err = {0};

    if (s->pid > 0 && !s->told && cm_clock_ns() - s->started_ns > LOAD_MAX_NS) {
        end(s);
        cm_err_set(&err, CM_ERR_CONFIG, "llama-server has not loaded %s within %llu seconds", cm_buf_data(&s->file),
                   LOAD_MAX_NS / CM_NS_PER_S);
        give_up(s, &err);
    } else if (s->pid > 0) {
        ask(s);
    } else if (start(s, &err) < 0) {
        if (!s->told)
            give_up(s, &err);
        else
            rest(s);
    }
}

int cm_llama_open(struct cm_loop *loop, struct cm_egress *egress, const char *path,
                  void (*ready)(void *arg, const char *base_url, const struct cm_err *err), void *arg,
                  struct cm_llama **ret, struct cm_err *err)
{
    struct cm_llama *s = calloc(1, sizeof *s);

    if (!s)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for llama-server");
    *s = (struct cm_llama){.loop = loop, .egress = egress, .ready = ready, .arg = arg, .pidfd = -1, .out_fd = -1};
    cm_buf_init(&s->program, PATH_LEN_MAX);
    cm_buf_init(&s->file, PATH_LEN_MAX);
    cm_buf_init(&s->model, PATH_LEN_MAX);
    s->timer = cm_timer_open(loop, next_step, s, err);
    int rc = s->timer ? cm_llama_model_file(path, &s->file, err) : CM_ERR_NO_MEMORY;
    if (rc == 0 && cm_llama_model_name(cm_buf_data(&s->file), &s->model) < 0)
        rc = cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a model's name");
    if (rc == 0)
        rc = cm_llama_program(&s->program, err);
    if (rc == 0)
        rc = start(s, err);
    if (rc < 0)
        cm_llama_free(s);
    else
        *ret = s;
    return rc;
}

const char *cm_llama_model(struct cm_llama *s)
{
    return cm_buf_data(&s->model);
}

struct cm_llama *cm_llama_free(struct cm_llama *s)
{
    if (!s)
        return NULL;
    end(s);
    cm_timer_close(s->timer);
    cm_buf_done(&s->program);
    cm_buf_done(&s->file);
    cm_buf_done(&s->model);
    free(s);
    return NULL;
}
