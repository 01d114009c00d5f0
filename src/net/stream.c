/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a stream.
 *
 * Callbacks come from the watch, the timer and the task only. Around each stands `busy`, because the owner may close the
 * stream in it: then the memory stays until the last of them has returned, and nobody looks at anything but `gone`.
 *
 * Whoever closes a socket while bytes of the peer are unread makes the kernel reset the connection, and the peer may lose
 * the end of what was sent to it. A stream that lingers therefore shuts down its sending side, and drops what still
 * comes until the peer closes, too, or the time is over.
 */
#include "net/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/fd.h"
#include "net/internal.h"

#define READ_SIZE     65536
#define READS_AT_ONCE 4     /* then others have their turn */
#define KEEP_MEMORY   65536 /* a queue that was larger gives its memory back when it is empty */

static _Thread_local uint8_t scratch[READ_SIZE]; /* what a read brings lives until `data` returns */
static struct cm_stream *lingering;

/* Ends */

static void dispose(struct cm_stream *s)
{
    s->watch = cm_watch_close(s->watch);
    s->timer = cm_timer_close(s->timer);
    s->resolve = cm_resolve_cancel(s->resolve);
    cm_task_cancel(s->loop, &s->task);
    s->fd = cm_fd_close(s->fd);
    if (s->state == LINGERING)
        DL_DELETE(lingering, s);
    cm_buf_done(&s->queue);
    s->gone = true;
    if (s->busy == 0)
        free(s);
}

static void enter(struct cm_stream *s)
{
    s->busy++;
}

static void leave(struct cm_stream *s)
{
    if (--s->busy == 0 && s->gone)
        free(s);
}

static void say_end(void *arg)
{
    struct cm_stream *s = arg;

    s->state = ENDED;
    cm_stream_rewatch(s);
    enter(s);
    s->ops->closed(s->arg, s->why.code ? &s->why : NULL);
    leave(s);
}

void cm_stream_end(struct cm_stream *s, const struct cm_err *err)
{
    if (err)
        s->failed = true;
    if (s->state == LINGERING) {
        dispose(s);
        return;
    }
    if (s->ended) {
        cm_stream_rewatch(s);
        return;
    }
    s->ended = true;
    if (err)
        s->why = *err;
    if (s->timer)
        cm_timer_stop(s->timer);
    cm_task_cancel(s->loop, &s->task);
    cm_task_post(s->loop, &s->task, say_end, s);
    cm_stream_rewatch(s);
}

static void end_sys(struct cm_stream *s, int errnum, const char *what)
{
    struct cm_err err;

    cm_err_sys(&err, errnum, "%s: %s", s->peer, what);
    cm_stream_end(s, &err);
}

/* Writing */

static int wanted(const struct cm_stream *s)
{
    if (s->failed || s->fd < 0)
        return 0;
    if (s->state == CONNECTING)
        return CM_EV_WRITE;
    bool reads = s->state == LINGERING || (s->state == OPEN && !s->paused && !s->ended);
    return (reads ? CM_EV_READ : 0) | (s->queue.len > 0 ? CM_EV_WRITE : 0);
}

void cm_stream_rewatch(struct cm_stream *s)
{
    int events = wanted(s);

    if (s->watch && events != s->events)
        cm_watch_set(s->watch, s->events = events);
}

/* 0, or a positive errno. What the socket does not take stays in the queue. */
static int flush(struct cm_stream *s)
{
    while (s->queue.len > 0) {
        ssize_t n = send(s->fd, cm_buf_data(&s->queue), s->queue.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : errno;
        cm_buf_consume(&s->queue, (size_t)n);
    }
    if (s->queue.cap > KEEP_MEMORY)
        cm_buf_done(&s->queue);
    return 0;
}

static void say_drained(struct cm_stream *s)
{
    if (s->queue.len > 0 || !s->kept || s->gone || s->state == LINGERING)
        return;
    s->kept = false;
    if (s->ops->drained)
        s->ops->drained(s->arg);
}

/* The queue of one that lingers is empty: nothing more will come from here. */
static void shut_sending(struct cm_stream *s)
{
    if (s->shut || s->queue.len > 0)
        return;
    s->shut = true;
    shutdown(s->fd, SHUT_WR);
}

static void on_writable(struct cm_stream *s)
{
    int rc = flush(s);

    if (rc != 0) {
        cm_buf_done(&s->queue);
        end_sys(s, rc, "write");
    } else if (s->state == LINGERING) {
        shut_sending(s);
    }
    if (!s->gone)
        say_drained(s);
}

int cm_stream_write(struct cm_stream *s, const void *data, size_t len, struct cm_err *err)
{
    if (s->failed || s->state < OPEN)
        return cm_err_set(err, CM_ERR_NOT_READY, "%s: the connection is not open", s->peer);
    bool waiting = s->queue.len > 0;
    int rc = cm_buf_append(&s->queue, data, len);
    if (rc < 0)
        return cm_err_set(err, rc, "%s: more than %zu bytes wait to be sent", s->peer, s->limits.queue_max);
    if (!waiting && (rc = flush(s)) != 0) {
        cm_buf_done(&s->queue);
        end_sys(s, rc, "write");
        return 0; /* `closed` will tell */
    }
    s->kept = s->queue.len > 0;
    cm_stream_rewatch(s);
    return 0;
}

size_t cm_stream_queued(const struct cm_stream *s)
{
    return s->queue.len;
}

/* Reading */

static ssize_t receive(struct cm_stream *s)
{
    ssize_t n;

    do
        n = recv(s->fd, scratch, sizeof(scratch), 0);
    while (n < 0 && errno == EINTR);
    return n;
}

static void on_readable(struct cm_stream *s)
{
    for (int i = 0; i < READS_AT_ONCE && !s->gone && s->state == OPEN && !s->paused && !s->ended; i++) {
        ssize_t n = receive(s);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            end_sys(s, errno, "read");
        else if (n == 0)
            cm_stream_end(s, NULL);
        else
            s->ops->data(s->arg, scratch, (size_t)n);
        if (n < READ_SIZE)
            return;
    }
}

/* One that lingers drops what it reads, but not without end. */
static void drop(struct cm_stream *s)
{
    for (int i = 0; i < READS_AT_ONCE; i++) {
        ssize_t n = receive(s);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            dispose(s);
            return;
        }
    }
}

static void on_event(void *arg, int events)
{
    struct cm_stream *s = arg;

    enter(s);
    if (s->state == CONNECTING) {
        cm_stream_dialled(s);
    } else {
        if (events & CM_EV_WRITE)
            on_writable(s);
        if (!s->gone && (events & CM_EV_READ) && s->state == OPEN)
            on_readable(s);
        else if (!s->gone && (events & CM_EV_READ) && s->state == LINGERING)
            drop(s);
    }
    if (!s->gone)
        cm_stream_rewatch(s);
    leave(s);
}

void cm_stream_pause(struct cm_stream *s, bool pause)
{
    s->paused = pause;
    cm_stream_rewatch(s);
}

/* Beginnings */

static void say_ready(void *arg)
{
    struct cm_stream *s = arg;

    s->state = OPEN;
    cm_timer_stop(s->timer);
    enter(s);
    s->ops->ready(s->arg);
    if (!s->gone)
        cm_stream_rewatch(s);
    leave(s);
}

void cm_stream_begin(struct cm_stream *s)
{
    int on = 1;

    s->state = OPENING;
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* harmless where it is no TCP socket */
    cm_task_post(s->loop, &s->task, say_ready, s);
    cm_stream_rewatch(s);
}

int cm_stream_take_fd(struct cm_stream *s, int fd, struct cm_err *err)
{
    s->fd = fd;
    s->events = wanted(s);
    s->watch = cm_watch_open(s->loop, fd, s->events, on_event, s, err);
    return s->watch ? 0 : CM_ERR_SYSTEM;
}

static void on_timer(void *arg)
{
    struct cm_stream *s = arg;
    struct cm_err err;

    enter(s);
    if (s->state == LINGERING) {
        dispose(s);
    } else if (s->state < OPENING) {
        cm_stream_dial_timeout(s);
    } else if (s->state == OPENING) {
        cm_err_set(&err, CM_ERR_TOO_SLOW, "%s: no handshake within %u ms", s->peer, s->limits.handshake_ms);
        cm_stream_end(s, &err);
    }
    leave(s);
}

static struct cm_stream *new_stream(struct cm_loop *loop, const struct cm_stream_limits *limits,
                                    const struct cm_stream_ops *ops, void *arg, struct cm_err *err)
{
    struct cm_stream *s = calloc(1, sizeof(*s));

    if (!s) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a connection");
        return NULL;
    }
    *s = (struct cm_stream){.loop = loop, .ops = ops, .arg = arg, .limits = *limits, .fd = -1};
    cm_buf_init(&s->queue, limits->queue_max);
    s->timer = cm_timer_open(loop, on_timer, s, err);
    if (!s->timer) {
        free(s);
        return NULL;
    }
    s->until_ns = cm_clock_ns() + limits->handshake_ms * CM_NS_PER_MS;
    cm_timer_start(s->timer, limits->handshake_ms, 0);
    return s;
}

static struct cm_stream *discard(struct cm_stream *s)
{
    dispose(s);
    return NULL;
}

static void name_peer(struct cm_stream *s)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof(ss);
    char text[INET6_ADDRSTRLEN] = "";

    if (getpeername(s->fd, (struct sockaddr *)&ss, &len) == 0 && ss.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&ss;
        inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
        snprintf(s->peer, sizeof(s->peer), "%s:%u", text, ntohs(in->sin_port));
    } else if (ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&ss;
        inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
        snprintf(s->peer, sizeof(s->peer), "[%s]:%u", text, ntohs(in6->sin6_port));
    } else {
        snprintf(s->peer, sizeof(s->peer), "local");
    }
}

struct cm_stream *cm_stream_accept(struct cm_loop *loop, int fd, struct cm_tls *tls,
                                   const struct cm_stream_limits *limits, const struct cm_stream_ops *ops, void *arg,
                                   struct cm_err *err)
{
    struct cm_stream *s = new_stream(loop, limits, ops, arg, err);

    if (!s || tls) {
        cm_fd_close(fd);
        if (s)
            cm_err_set(err, CM_ERR_CONFIG, "this build has no TLS");
        return s ? discard(s) : NULL;
    }
    s->state = OPENING;
    if (cm_stream_take_fd(s, fd, err) < 0)
        return discard(s);
    name_peer(s);
    cm_stream_begin(s);
    return s;
}

struct cm_stream *cm_stream_connect(struct cm_loop *loop, const char *host, unsigned port, struct cm_tls *tls,
                                    const struct cm_stream_limits *limits, const struct cm_stream_ops *ops, void *arg,
                                    struct cm_err *err)
{
    struct cm_stream *s = new_stream(loop, limits, ops, arg, err);

    if (!s)
        return NULL;
    if (tls || strlen(host) >= sizeof(s->host)) {
        cm_err_set(err, CM_ERR_CONFIG, "\"%.80s\": %s", host, tls ? "this build has no TLS" : "the name is too long");
        return discard(s);
    }
    snprintf(s->host, sizeof(s->host), "%s", host);
    snprintf(s->peer, sizeof(s->peer), "%.50s:%u", host, port);
    s->port = port;
    return cm_stream_dial(s, err) < 0 ? discard(s) : s;
}

/* The rest */

const char *cm_stream_alpn(const struct cm_stream *s)
{
    return s->alpn;
}

const char *cm_stream_peer(const struct cm_stream *s)
{
    return s->peer;
}

static void linger(struct cm_stream *s, unsigned linger_ms)
{
    s->state = LINGERING;
    DL_APPEND(lingering, s);
    cm_task_cancel(s->loop, &s->task);
    cm_timer_start(s->timer, linger_ms, 0);
    shut_sending(s);
    cm_stream_rewatch(s);
}

struct cm_stream *cm_stream_close(struct cm_stream *s, unsigned linger_ms)
{
    if (!s)
        return NULL;
    if (linger_ms > 0 && !s->failed && s->state >= OPEN && !(s->ended && s->queue.len == 0))
        linger(s, linger_ms);
    else
        dispose(s);
    return NULL;
}

void cm_stream_end_lingering(struct cm_loop *loop)
{
    struct cm_stream *s, *next;

    DL_FOREACH_SAFE(lingering, s, next)
    if (s->loop == loop)
        dispose(s);
}
