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
#include "net/tls_internal.h"

#define READ_SIZE     65536
#define READS_AT_ONCE 4      /* then others have their turn */
#define HANDSHAKE_MAX 131072 /* what TLS may have to say for itself, beside the owner's bytes */
#define DROP_MAX      1048576 /* bytes that one that lingers reads for nothing */
#define LINGERING_MAX 256     /* streams: one more, and the oldest goes at once */
#define KEEP_MEMORY   65536 /* a queue that was larger gives its memory back when it is empty */

static _Thread_local uint8_t scratch[READ_SIZE]; /* what a read brings lives until `data` returns */
static struct cm_stream *lingering;
static unsigned lingering_count; /* nobody else counts them, and each holds a descriptor */

/* Ends */

static void dispose(struct cm_stream *s)
{
    s->watch = cm_watch_close(s->watch);
    s->timer = cm_timer_close(s->timer);
    s->resolve = cm_resolve_cancel(s->resolve);
    cm_task_cancel(s->loop, &s->task);
    cm_task_cancel(s->loop, &s->read_task);
    cm_stream_handshake_stop(s);
    cm_tls_session_close(s);
    s->rules = cm_tls_unref(s->rules);
    s->fd = cm_fd_close(s->fd);
    if (s->state == LINGERING) {
        DL_DELETE(lingering, s);
        lingering_count--;
    }
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
    if (s->state == LINGERING) {
        dispose(s);
        return;
    }
    cm_stream_handshake_stop(s);
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
    cm_task_cancel(s->loop, &s->read_task);
    cm_task_post(s->loop, &s->task, say_end, s);
    cm_stream_rewatch(s);
}

static void end_sys(struct cm_stream *s, int errnum, const char *what)
{
    struct cm_err err;

    s->failed = true;
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
    bool reads = s->state == LINGERING || (s->state == OPEN && !s->paused && !s->ended) ||
                 (s->state == OPENING && s->tls && !s->turn && !s->ended);
    return (reads ? CM_EV_READ : 0) | (s->queue.len > 0 ? CM_EV_WRITE : 0);
}

void cm_stream_rewatch(struct cm_stream *s)
{
    int events = wanted(s);

    if (s->watch && events != s->events)
        cm_watch_set(s->watch, s->events = events);
}

int cm_stream_flush(struct cm_stream *s)
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
    int rc = cm_stream_flush(s);

    if (rc != 0) {
        cm_buf_done(&s->queue);
        end_sys(s, rc, "write");
    } else if (s->state == LINGERING) {
        shut_sending(s);
    }
    if (!s->gone)
        say_drained(s);
}

static int put(struct cm_stream *s, const void *data, size_t len, struct cm_err *err)
{
    struct cm_err why;

    if (s->queue.len + len > s->limits.queue_max)
        return cm_err_set(err, CM_ERR_TOO_LARGE, "%s: more than %zu bytes wait to be sent", s->peer,
                          s->limits.queue_max);
    int rc = s->tls ? cm_tls_session_write(s, data, len, &why) : cm_buf_append(&s->queue, data, len);
    if (rc < 0 && !s->tls)
        return cm_err_set(err, rc, "%s: no memory for what waits to be sent", s->peer);
    if (rc < 0) { /* a part may have been taken */
        s->failed = true;
        cm_stream_end(s, &why);
    }
    return 0;
}

int cm_stream_write(struct cm_stream *s, const void *data, size_t len, struct cm_err *err)
{
    if (s->failed || s->why.code || s->state < OPEN)
        return cm_err_set(err, CM_ERR_NOT_READY, "%s: the connection is not open", s->peer);
    bool waiting = s->queue.len > 0;
    int rc = put(s, data, len, err);
    if (rc < 0)
        return rc;
    if (!waiting && (rc = cm_stream_flush(s)) != 0) {
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

static bool reads(const struct cm_stream *s)
{
    return !s->gone && s->state == OPEN && !s->paused && !s->ended;
}

static void read_plain(struct cm_stream *s)
{
    for (int i = 0; i < READS_AT_ONCE && reads(s); i++) {
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

static void on_rest(void *arg);

/* GnuTLS reads one record at a time. One that a small pause has left with it would not wake us. */
static void read_tls(struct cm_stream *s)
{
    struct cm_err err;

    for (int i = 0; i < READS_AT_ONCE * (READ_SIZE / 16384) && reads(s); i++) {
        ssize_t n = cm_tls_session_read(s, scratch, sizeof(scratch), &err);
        if (n == -1)
            break;
        if (n < 0)
            cm_stream_end(s, &err);
        else if (n == 0)
            cm_stream_end(s, NULL);
        else
            s->ops->data(s->arg, scratch, (size_t)n);
    }
    if (reads(s) && cm_tls_session_pending(s) > 0)
        cm_task_post(s->loop, &s->read_task, on_rest, s);
    int rc = s->gone || s->failed ? 0 : cm_stream_flush(s); /* TLS may have had to answer for itself */
    if (rc != 0)
        end_sys(s, rc, "write");
}

static void on_rest(void *arg)
{
    struct cm_stream *s = arg;

    enter(s);
    read_tls(s);
    if (!s->gone)
        cm_stream_rewatch(s);
    leave(s);
}

static void on_readable(struct cm_stream *s)
{
    if (s->tls)
        read_tls(s);
    else
        read_plain(s);
}

/* One that lingers drops what it reads, but not without end. */
static void drop(struct cm_stream *s)
{
    for (int i = 0; i < READS_AT_ONCE; i++) {
        ssize_t n = receive(s);
        if (n < 0 && errno == EAGAIN)
            return;
        s->dropped += n > 0 ? (size_t)n : 0;
        if (n <= 0 || s->dropped > DROP_MAX) {
            dispose(s);
            return;
        }
    }
}

static void on_event(void *arg, int events)
{
    struct cm_stream *s = arg;

    enter(s);
    if (events & ~s->events) /* nobody asked: the socket has failed, and a write tells how */
        events |= CM_EV_WRITE;
    if (s->state == CONNECTING) {
        cm_stream_dialled(s);
    } else {
        if (events & CM_EV_WRITE)
            on_writable(s);
        if (!s->gone && (events & CM_EV_READ) && s->state == OPENING && s->tls)
            cm_stream_handshake(s);
        else if (!s->gone && (events & CM_EV_READ) && s->state == OPEN)
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
    if (!pause && s->state == OPEN && cm_tls_session_pending(s) > 0)
        cm_task_post(s->loop, &s->read_task, on_rest, s);
    cm_stream_rewatch(s);
}

/* Beginnings */

void cm_stream_ready(struct cm_stream *s)
{
    s->state = OPEN;
    cm_timer_stop(s->timer);
    enter(s);
    s->ops->ready(s->arg);
    if (reads(s) && cm_tls_session_pending(s) > 0)
        cm_task_post(s->loop, &s->read_task, on_rest, s);
    if (!s->gone)
        cm_stream_rewatch(s);
    leave(s);
}

static void say_ready(void *arg)
{
    cm_stream_ready(arg);
}

void cm_stream_begin(struct cm_stream *s)
{
    struct cm_err err;
    int on = 1;

    s->state = OPENING;
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* harmless where it is no TCP socket */
    if (s->rules && cm_tls_session_open(s, s->rules, *s->host ? s->host : NULL, &err) < 0)
        cm_stream_end(s, &err);
    else if (s->rules)
        cm_stream_handshake(s);
    else
        cm_task_post(s->loop, &s->task, say_ready, s);
    s->rules = cm_tls_unref(s->rules);
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

static size_t queue_room(size_t queue_max, bool tls)
{
    return queue_max + (tls ? cm_tls_overhead(queue_max) + HANDSHAKE_MAX : 0);
}

static struct cm_stream *new_stream(struct cm_loop *loop, struct cm_tls *tls, const struct cm_stream_limits *limits,
                                    const struct cm_stream_ops *ops, void *arg, struct cm_err *err)
{
    struct cm_stream *s = calloc(1, sizeof(*s));

    if (!s) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a connection");
        return NULL;
    }
    *s = (struct cm_stream){.loop = loop, .ops = ops, .arg = arg, .limits = *limits, .fd = -1};
    s->rules = tls ? cm_tls_ref(tls) : NULL;
    cm_buf_init(&s->queue, queue_room(limits->queue_max, tls != NULL));
    s->timer = cm_timer_open(loop, on_timer, s, err);
    if (!s->timer) {
        cm_tls_unref(tls);
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
    struct cm_stream *s = new_stream(loop, tls, limits, ops, arg, err);

    if (!s) {
        cm_fd_close(fd);
        return NULL;
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
    struct cm_stream *s = new_stream(loop, tls, limits, ops, arg, err);

    if (!s)
        return NULL;
    if (!*host || strlen(host) >= sizeof(s->host)) {
        cm_err_set(err, CM_ERR_CONFIG, "\"%.80s\" is no name of a host", host);
        return discard(s);
    }
    snprintf(s->host, sizeof(s->host), "%s", host);
    snprintf(s->peer, sizeof(s->peer), "%.50s:%u", host, port);
    s->port = port;
    return cm_stream_dial(s, err) < 0 ? discard(s) : s;
}

/* The rest */

void cm_stream_hand_over(struct cm_stream *s, size_t queue_max, const struct cm_stream_ops *ops, void *arg)
{
    s->ops = ops;
    s->arg = arg;
    if (queue_max < s->queue.len)
        queue_max = s->queue.len;
    s->limits.queue_max = queue_max;
    s->queue.max = queue_room(queue_max, s->tls != NULL);
    cm_stream_pause(s, false);
}

const char *cm_stream_alpn(const struct cm_stream *s)
{
    return s->alpn;
}

const char *cm_stream_peer(const struct cm_stream *s)
{
    return s->peer;
}

/* What can be said without waiting. */
static void say_bye(struct cm_stream *s)
{
    if (!s->tls || s->state < OPEN || s->failed || s->why.code)
        return;
    cm_tls_session_bye(s);
    cm_stream_flush(s);
}

static void linger(struct cm_stream *s, unsigned linger_ms)
{
    if (lingering_count >= LINGERING_MAX)
        dispose(lingering);
    s->state = LINGERING;
    DL_APPEND(lingering, s);
    lingering_count++;
    cm_task_cancel(s->loop, &s->task);
    cm_task_cancel(s->loop, &s->read_task);
    cm_timer_start(s->timer, linger_ms, 0);
    shut_sending(s);
    cm_stream_rewatch(s);
}

struct cm_stream *cm_stream_close(struct cm_stream *s, unsigned linger_ms)
{
    if (!s)
        return NULL;
    say_bye(s);
    if (linger_ms > 0 && !s->failed && s->state >= OPEN && !(s->ended && !s->why.code && s->queue.len == 0))
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
