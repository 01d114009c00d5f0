/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon on our loop.
 *
 * libmicrohttpd brings its own epoll set; the loop watches that set's descriptor and runs the daemon when it is
 * readable. While a request waits for its execution the daemon does not look at the connection, so nobody would
 * notice a client that leaves. Each client socket is therefore also in a second epoll set, from the connection's
 * start to its end, edge-triggered and for hang-ups only: it costs nothing per request.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "http/internal.h"
#include "obs/log.h"

#define HEADERS_MAX     32768 /* bytes of a connection's memory: request line, headers and a piece of body */
#define TICK_MS         1000
#define RUNS_AT_ONCE    8 /* then other rooms have their turn */
#define HANGUPS_AT_ONCE 64
#define FILE_PACE       262144.0 /* bytes per second */

static void on_log(void *arg, const char *format, va_list ap)
{
    char text[256];

    (void)arg;
    if (!cm_log_on(CM_LOG_DEBUG))
        return;
    vsnprintf(text, sizeof(text), format, ap);
    text[strcspn(text, "\n")] = '\0';
    cm_log_write(CM_LOG_DEBUG, "http_daemon", (const struct cm_log_field[]){CM_LOG_STR("text", text), {.key = NULL}});
}

/* No route holds an escaped character, and a decoded one could end a C string early. */
static size_t keep_escapes(void *arg, struct MHD_Connection *mhd, char *text)
{
    (void)arg;
    (void)mhd;
    return strlen(text);
}

/* Connections */

static void connection_begins(struct cm_http *h, struct MHD_Connection *mhd, void **context)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct conn *conn = info ? calloc(1, sizeof(*conn)) : NULL;

    h->connections++;
    *context = conn; /* a connection without one is closed at its first request */
    if (!conn)
        return;
    conn->magic = CONN_MAGIC;
    conn->fd = info->connect_fd;
    conn->head_until_ns = cm_clock_ns() + (uint64_t)(h->limits->head_timeout_s * 1e9);
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLET, .data.ptr = conn};
    if (epoll_ctl(h->hangup_fd, EPOLL_CTL_ADD, conn->fd, &ev) < 0) {
        free(conn);
        *context = NULL;
        return;
    }
    DL_APPEND(h->conns, conn);
}

static void connection_ends(struct cm_http *h, void **context)
{
    struct conn *conn = *context;

    h->connections--;
    if (h->config.left)
        h->config.left(h->config.left_arg);
    if (!conn)
        return;
    epoll_ctl(h->hangup_fd, EPOLL_CTL_DEL, conn->fd, NULL);
    DL_DELETE(h->conns, conn);
    conn->magic = 0;
    free(conn);
    *context = NULL;
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        connection_begins(cls, mhd, context);
    else
        connection_ends(cls, context);
}

/* Nothing here frees a connection - only the daemon's run does - so the events of one batch stay valid. */
static void on_hangups(void *arg, int events)
{
    struct cm_http *h = arg;
    struct epoll_event list[HANGUPS_AT_ONCE];
    int n = epoll_wait(h->hangup_fd, list, HANGUPS_AT_ONCE, 0);

    (void)events;
    for (int i = 0; i < n; i++) {
        struct conn *conn = list[i].data.ptr;
        conn->hung = true;
        if (conn->waiting)
            cm_http_gone(conn->waiting);
    }
}

/* The daemon */

static void run_again(void *arg)
{
    cm_http_run(arg);
}

void cm_http_run(struct cm_http *h)
{
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;

    for (int i = 0; i < RUNS_AT_ONCE; i++) {
        MHD_run(h->daemon);
        if (MHD_get_timeout(h->daemon, &wait_ms) != MHD_YES || wait_ms > 0)
            return;
    }
    cm_http_run_soon(h);
}

void cm_http_run_soon(struct cm_http *h)
{
    cm_task_post(h->loop, &h->run_task, run_again, h);
}

static void on_daemon(void *arg, int events)
{
    (void)events;
    cm_http_run(arg);
}

/* A file may take longer, as long as it comes at a pace that is worth waiting for. */
static uint64_t body_ns(const struct cm_request *rq)
{
    double s = rq->http->limits->body_timeout_s;

    return (uint64_t)(1e9 * (cm_http_takes_file(rq) ? s + (double)rq->received / FILE_PACE : s));
}

/* A client that has closed its side, and all of whose bytes were read: what began to come will not end. The daemon may
 * not know: of bytes and a close that come together it reads the bytes, and waits for the next edge. */
static bool has_broken_off(const struct conn *conn)
{
    int unread = 0;

    return conn->hung && (conn->receiving || conn->head_until_ns) && ioctl(conn->fd, FIONREAD, &unread) == 0 &&
           unread == 0;
}

/* The daemon's own idle time begins anew with each byte: what comes byte by byte would never end. A body that has
 * stopped would end at the idle time, without an answer. */
static void cut_slow(const struct cm_http *h)
{
    uint64_t now = cm_clock_ns();

    for (struct conn *conn = h->conns; conn; conn = conn->next) {
        bool late = conn->receiving && now - conn->receiving->started_ns > body_ns(conn->receiving);
        bool broken_off = has_broken_off(conn);
        if (late && !broken_off)
            cm_http_too_slow(conn->receiving);
        if (late || broken_off || (conn->head_until_ns && now > conn->head_until_ns))
            shutdown(conn->fd, SHUT_RDWR);
    }
}

static void on_tick(void *arg)
{
    cut_slow(arg);
    cm_http_run(arg);
}

static int start_daemon(struct cm_http *h, struct cm_err *err)
{
    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL,
        cm_http_on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_CONNECTION_LIMIT,
        h->limits->connections_max, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)h->limits->idle_timeout_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADERS_MAX, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
        MHD_OPTION_NOTIFY_COMPLETED, cm_http_on_completed, h, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    if (!h->daemon)
        return cm_err_set(err, CM_ERR_SYSTEM, "the HTTP server could not start");
    return 0;
}

static int join_loop(struct cm_http *h, struct cm_err *err)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);

    if (!info)
        return cm_err_set(err, CM_ERR_SYSTEM, "the HTTP server has no epoll descriptor");
    h->daemon_watch = cm_watch_open(h->loop, info->epoll_fd, CM_EV_READ, on_daemon, h, err);
    h->hangup_watch = h->daemon_watch ? cm_watch_open(h->loop, h->hangup_fd, CM_EV_READ, on_hangups, h, err) : NULL;
    h->tick = h->hangup_watch ? cm_timer_open(h->loop, on_tick, h, err) : NULL;
    if (!h->tick)
        return err ? err->code : CM_ERR_SYSTEM;
    cm_timer_start(h->tick, TICK_MS, TICK_MS);
    return 0;
}

static int build(struct cm_http *h, struct cm_err *err)
{
    int rc = cm_correlations_init(&h->correlations, err);

    if (rc < 0)
        return rc;
    h->hangup_fd = epoll_create1(EPOLL_CLOEXEC);
    if (h->hangup_fd < 0)
        return cm_err_sys(err, errno, "epoll set of the clients");
    rc = start_daemon(h, err);
    return rc < 0 ? rc : join_loop(h, err);
}

int cm_http_open(struct cm_loop *loop, const struct cm_http_config *config, struct cm_http **ret, struct cm_err *err)
{
    struct cm_http *h = calloc(1, sizeof(*h));

    if (!h)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the HTTP server");
    h->loop = loop;
    h->config = *config;
    h->limits = config->limits;
    h->hangup_fd = -1;
    int rc = build(h, err);
    if (rc < 0) {
        cm_http_free(h);
        return rc;
    }
    *ret = h;
    return 0;
}

void cm_http_adopt(struct cm_http *h, int fd, const struct sockaddr *peer, socklen_t len)
{
    MHD_add_connection(h->daemon, fd, peer, len); /* closes it when there is no memory */
    cm_http_run(h);
}

unsigned cm_http_connections(const struct cm_http *h)
{
    return h->connections;
}

void cm_http_drain(struct cm_http *h)
{
    h->draining = true;
}

bool cm_http_draining(const struct cm_http *h)
{
    return h->draining;
}

static void stop_daemon(struct cm_http *h)
{
    while (h->waiting)
        cm_http_gone(h->waiting);
    /* The daemon must not be stopped while a connection is suspended; a run lets the resumed ones go on. */
    MHD_run(h->daemon);
    MHD_stop_daemon(h->daemon);
}

struct cm_http *cm_http_free(struct cm_http *h)
{
    if (!h)
        return NULL;
    h->tick = cm_timer_close(h->tick);
    h->hangup_watch = cm_watch_close(h->hangup_watch);
    h->daemon_watch = cm_watch_close(h->daemon_watch);
    if (h->daemon)
        stop_daemon(h);
    cm_task_cancel(h->loop, &h->run_task);
    cm_fd_close(h->hangup_fd);
    free(h);
    return NULL;
}
