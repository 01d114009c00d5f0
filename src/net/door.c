/* SPDX-License-Identifier: Apache-2.0 */
/* Nobody is told about a connection before it is known what it speaks. Until then it is a visitor: a socket that has not
 * said enough, or a stream in its handshake. All visitors have the same time, so their list is in the order of their
 * deadlines, and one timer serves all.
 *
 * A socket that has said the beginning of the HTTP/2 preface and no more stays readable without end. Its low-water mark
 * keeps it quiet until there is enough, or until the peer closes.
 */
#include "net/door.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/fd.h"
#include "ev/loop.h"
#include "net/door_internal.h"
#include "net/listen.h"
#include "net/pump.h"
#include "net/stream.h"
#include "net/tls.h"
#include "obs/log.h"
#include "obs/metrics.h"

#define ACCEPTS_AT_ONCE 64 /* then others have their turn */
#define PAUSE_MS        100
#define REFUSE_MS       1000
#define STREAM_QUEUE    65536

struct listener {
    struct cm_door *door;
    int fd;
    unsigned port;
    struct cm_watch *watch;
};

struct visitor {
    struct cm_door *door;
    int fd; /* -1: it is a stream */
    struct cm_watch *watch;
    struct cm_stream *s;
    bool low; /* its low-water mark is set */
    bool refused; /* it gets an answer in clear text, or an alert, and no more */
    uint64_t until_ns;
    struct cm_address peer;
    struct visitor *prev, *next;
};

struct link {
    struct cm_door *door;
    struct cm_pump *pump;
    struct link *prev, *next;
};

struct cm_door {
    struct cm_loop *loop;
    struct cm_door_config config;
    struct cm_door_ops ops;
    void *arg;
    struct listener listeners[CM_DOOR_PORTS_MAX];
    struct cm_timer *pause, *deadline;
    struct visitor *visitors;
    unsigned visitors_count;
    struct link *links;
    bool paused; /* nobody is let in for now */
    bool failing; /* because that does not work */
};

enum cm_door_speech cm_door_listen_to(const char *bytes, size_t len, bool tls)
{
    size_t compared = len < CM_DOOR_PREFACE_LEN ? len : CM_DOOR_PREFACE_LEN;

    if (len == 0)
        return CM_DOOR_MORE;
    if (tls)
        return bytes[0] == 0x16 ? CM_DOOR_TLS : CM_DOOR_WRONG;
    if (memcmp(bytes, CM_DOOR_PREFACE, compared) != 0)
        return CM_DOOR_HTTP1;
    return len < CM_DOOR_PREFACE_LEN ? CM_DOOR_MORE : CM_DOOR_HTTP2;
}

/* Visitors */

static void plan_deadline(struct cm_door *d)
{
    if (!d->visitors) {
        cm_timer_stop(d->deadline);
        return;
    }
    uint64_t now = cm_clock_ns(), until = d->visitors->until_ns;
    cm_timer_start(d->deadline, until > now ? (until - now) / CM_NS_PER_MS + 1 : 0, 0);
}

static struct visitor *add_visitor(struct cm_door *d, int fd, const struct cm_address *peer)
{
    struct visitor *v = calloc(1, sizeof(*v));

    if (!v)
        return NULL;
    *v = (struct visitor){.door = d, .fd = fd, .peer = *peer};
    v->until_ns = cm_clock_ns() + d->config.head_ms * CM_NS_PER_MS;
    DL_APPEND(d->visitors, v);
    d->visitors_count++;
    if (d->visitors == v)
        plan_deadline(d);
    return v;
}

/* What it still holds is closed. */
static void forget(struct visitor *v)
{
    struct cm_door *d = v->door;

    cm_watch_close(v->watch);
    cm_stream_close(v->s, v->refused ? REFUSE_MS : 0);
    cm_fd_close(v->fd);
    DL_DELETE(d->visitors, v);
    d->visitors_count--;
    free(v);
    cm_door_more(d);
}

static void on_deadline(void *arg)
{
    struct cm_door *d = arg;
    uint64_t now = cm_clock_ns();

    while (d->visitors && d->visitors->until_ns <= now) {
        if (d->visitors->s && !d->visitors->refused)
            cm_metrics_add(d->config.metrics, CM_M_TLS_HANDSHAKES, CM_L_HANDSHAKE_FAILED, 1);
        forget(d->visitors);
    }
    plan_deadline(d);
}

/* HTTP/1.1 inside TLS */

static void on_link_ended(void *arg, struct cm_pump *pump)
{
    struct link *l = arg;

    (void)pump;
    DL_DELETE(l->door->links, l);
    free(l);
}

static void link_up(struct visitor *v)
{
    struct cm_door *d = v->door;
    struct link *l = calloc(1, sizeof(*l));
    int ends[2];

    if (!l || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) {
        free(l);
        return;
    }
    l->door = d;
    l->pump = cm_pump_new(d->loop, v->s, ends[0], on_link_ended, l, NULL);
    v->s = NULL;
    if (!l->pump) {
        cm_fd_close(ends[1]);
        free(l);
        return;
    }
    DL_APPEND(d->links, l);
    d->ops.http(d->arg, ends[1], (const struct sockaddr *)&v->peer.sa, v->peer.len);
}

/* TLS */

static void on_ready(void *arg)
{
    struct visitor *v = arg;
    struct cm_door *d = v->door;

    cm_metrics_add(d->config.metrics, CM_M_TLS_HANDSHAKES, CM_L_HANDSHAKE_OK, 1);
    if (strcmp(cm_stream_alpn(v->s), "h2") != 0) {
        link_up(v);
    } else if (d->ops.h2_stream) {
        d->ops.h2_stream(d->arg, v->s);
        v->s = NULL;
    }
    forget(v);
}

static void on_failed(void *arg, const struct cm_err *err)
{
    struct visitor *v = arg;

    cm_metrics_add(v->door->config.metrics, CM_M_TLS_HANDSHAKES, CM_L_HANDSHAKE_FAILED, 1);
    cm_log(CM_LOG_DEBUG, "tls_refused", CM_LOG_STR("why", err ? err->text : "closed during the handshake"));
    v->refused = true; /* what was sent says why: the peer should be able to read it */
    forget(v);
}

static void ignore_data(void *arg, const uint8_t *data, size_t len)
{
    (void)arg;
    (void)data;
    (void)len;
}

static void begin_tls(struct visitor *v)
{
    static const struct cm_stream_ops ops = {.ready = on_ready, .data = ignore_data, .closed = on_failed};
    struct cm_door *d = v->door;
    struct cm_stream_limits limits = {.queue_max = STREAM_QUEUE, .handshake_ms = d->config.head_ms};

    v->watch = cm_watch_close(v->watch);
    v->s = cm_stream_accept(d->loop, v->fd, d->config.tls, &limits, &ops, v, NULL);
    v->fd = -1;
    if (!v->s)
        forget(v);
}

/* Somebody who speaks in the clear to a port that does not */

static void on_refusal_ready(void *arg)
{
    static const char text[] = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                               "Content-Length: 22\r\n\r\nThis port speaks TLS.\n";
    struct visitor *v = arg;

    cm_stream_write(v->s, text, sizeof(text) - 1, NULL);
    forget(v);
}

static void on_refusal_closed(void *arg, const struct cm_err *err)
{
    (void)err;
    forget(arg);
}

static void refuse(struct visitor *v, char first)
{
    static const struct cm_stream_ops ops = {
        .ready = on_refusal_ready, .data = ignore_data, .closed = on_refusal_closed};
    struct cm_stream_limits limits = {.queue_max = STREAM_QUEUE, .handshake_ms = REFUSE_MS};

    cm_metrics_add(v->door->config.metrics, CM_M_TLS_HANDSHAKES, CM_L_HANDSHAKE_FAILED, 1);
    v->watch = cm_watch_close(v->watch);
    if (first < 'A' || first > 'Z') {
        forget(v);
        return;
    }
    v->refused = true;
    v->s = cm_stream_accept(v->door->loop, v->fd, NULL, &limits, &ops, v, NULL);
    v->fd = -1;
    if (!v->s)
        forget(v);
}

/* The first bytes */

static void hand_out(struct cm_door *d, int fd, const struct cm_address *peer, enum cm_door_speech speech)
{
    if (speech == CM_DOOR_HTTP1)
        d->ops.http(d->arg, fd, (const struct sockaddr *)&peer->sa, peer->len);
    else if (d->ops.h2_fd)
        d->ops.h2_fd(d->arg, fd);
    else
        cm_fd_close(fd);
}

static void set_low_water(struct visitor *v, int bytes)
{
    v->low = setsockopt(v->fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof(bytes)) == 0;
}

/* What there is to be read, without reading it. -1: the peer is gone. */
static ssize_t look(int fd, char *to, size_t size)
{
    ssize_t n;

    do
        n = recv(fd, to, size, MSG_PEEK | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    return n > 0 ? n : -1;
}

/* False: what it speaks is not known yet. */
static bool decide(struct visitor *v, const char *bytes, size_t len)
{
    struct cm_door *d = v->door;
    enum cm_door_speech speech = cm_door_listen_to(bytes, len, d->config.tls != NULL);

    if (speech == CM_DOOR_MORE && v->low)
        speech = CM_DOOR_HTTP1; /* woken below the mark: no more will come */
    if (speech == CM_DOOR_TLS) {
        begin_tls(v);
    } else if (speech == CM_DOOR_WRONG) {
        refuse(v, bytes[0]);
    } else if (speech == CM_DOOR_MORE) {
        if (len > 0)
            set_low_water(v, CM_DOOR_PREFACE_LEN);
        return false;
    } else {
        int fd = v->fd;
        struct cm_address peer = v->peer;
        set_low_water(v, 1);
        v->fd = -1;
        v->watch = cm_watch_close(v->watch);
        forget(v);
        hand_out(d, fd, &peer, speech);
    }
    return true;
}

static void on_first_bytes(void *arg, int events)
{
    struct visitor *v = arg;
    char bytes[CM_DOOR_PREFACE_LEN];
    ssize_t n = look(v->fd, bytes, sizeof(bytes));

    (void)events;
    if (n < 0)
        forget(v);
    else
        decide(v, bytes, (size_t)n);
}

/* Most clients of HTTP/1.1 have sent their request by now. */
static void meet(struct cm_door *d, int fd, const struct cm_address *peer)
{
    char bytes[CM_DOOR_PREFACE_LEN];
    ssize_t n = look(fd, bytes, sizeof(bytes));

    if (n > 0 && !d->config.tls) {
        enum cm_door_speech speech = cm_door_listen_to(bytes, (size_t)n, false);
        if (speech != CM_DOOR_MORE) {
            hand_out(d, fd, peer, speech);
            return;
        }
    }
    struct visitor *v = n < 0 ? NULL : add_visitor(d, fd, peer);
    if (!v) {
        cm_fd_close(fd);
        return;
    }
    if (decide(v, bytes, (size_t)n))
        return;
    v->watch = cm_watch_open(d->loop, fd, CM_EV_READ, on_first_bytes, v, NULL);
    if (!v->watch)
        forget(v);
}

/* Listening */

static bool is_full(const struct cm_door *d)
{
    return d->visitors_count + d->ops.connections(d->arg) >= d->config.connections_max;
}

static void watch_all(struct cm_door *d, int events)
{
    for (unsigned i = 0; i < d->config.ports_count; i++)
        if (d->listeners[i].watch)
            cm_watch_set(d->listeners[i].watch, events);
}

/* The one who gives a connection back need not say so; we look again after a moment. */
static void pause(struct cm_door *d)
{
    watch_all(d, 0);
    d->paused = true;
    cm_timer_start(d->pause, PAUSE_MS, 0);
}

void cm_door_more(struct cm_door *d)
{
    if (!d->paused || d->failing || is_full(d))
        return;
    d->paused = false;
    cm_timer_stop(d->pause);
    watch_all(d, CM_EV_READ);
}

static void on_pause_over(void *arg)
{
    struct cm_door *d = arg;

    d->failing = false;
    cm_door_more(d);
    if (d->paused)
        cm_timer_start(d->pause, PAUSE_MS, 0);
}

/* Without descriptors or memory a newcomer stays in the queue, and the socket readable: a loop that tried again at once
 * would do nothing else. */
static void fail(struct cm_door *d, int errnum)
{
    cm_log(CM_LOG_WARNING, "accept_failed", CM_LOG_STR("why", strerrordesc_np(errnum)));
    d->failing = true;
    pause(d);
}

/* True when there may be another one. */
static bool accept_one(struct listener *l)
{
    struct cm_address peer = {.len = sizeof(peer.sa)};
    int fd = accept4(l->fd, (struct sockaddr *)&peer.sa, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        meet(l->door, fd, &peer);
        return true;
    }
    if (errno == EINTR || errno == ECONNABORTED)
        return true;
    if (errno != EAGAIN)
        fail(l->door, errno);
    return false;
}

static void on_listen(void *arg, int events)
{
    struct listener *l = arg;
    bool more = true;

    (void)events;
    for (int i = 0; i < ACCEPTS_AT_ONCE && more && l->watch && !l->door->paused; i++) {
        if (is_full(l->door))
            pause(l->door);
        else
            more = accept_one(l);
    }
}

static void stop_listening(struct listener *l)
{
    l->watch = cm_watch_close(l->watch);
    l->fd = cm_fd_close(l->fd);
}

void cm_door_shut(struct cm_door *d)
{
    for (unsigned i = 0; i < d->config.ports_count; i++) {
        struct listener *l = &d->listeners[i];
        for (int k = 0; k < SOMAXCONN && l->watch && !is_full(d) && accept_one(l); k++)
            ;
        stop_listening(l);
    }
    cm_timer_stop(d->pause);
}

unsigned cm_door_ports(const struct cm_door *d)
{
    return d->config.ports_count;
}

unsigned cm_door_port(const struct cm_door *d, unsigned which)
{
    return d->listeners[which].port;
}

/* The whole */

static int open_listeners(struct cm_door *d, struct cm_err *err)
{
    const struct cm_listen_inherited *inherited = d->config.inherited;

    if (inherited && inherited->count > 0)
        d->config.ports_count = inherited->count;
    for (unsigned i = 0; i < d->config.ports_count; i++) {
        struct listener *l = &d->listeners[i];
        l->door = d;
        if (inherited && inherited->count > 0) {
            l->fd = inherited->fds[i];
            l->port = inherited->ports[i];
        } else {
            l->fd = cm_listen(&d->config.address, d->config.ports[i], &l->port, err);
        }
        if (l->fd < 0)
            return l->fd;
    }
    for (unsigned i = 0; i < d->config.ports_count; i++) {
        struct listener *l = &d->listeners[i];
        l->watch = cm_watch_open(d->loop, l->fd, CM_EV_READ, on_listen, l, err);
        if (!l->watch)
            return CM_ERR_SYSTEM;
    }
    return 0;
}

int cm_door_open(struct cm_loop *loop, const struct cm_door_config *config, const struct cm_door_ops *ops, void *arg,
                 struct cm_door **ret, struct cm_err *err)
{
    struct cm_door *d = calloc(1, sizeof(*d));

    if (!d)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the listening sockets");
    *d = (struct cm_door){.loop = loop, .config = *config, .ops = *ops, .arg = arg};
    d->config.tls = config->tls ? cm_tls_ref(config->tls) : NULL;
    for (int i = 0; i < CM_DOOR_PORTS_MAX; i++)
        d->listeners[i].fd = -1;
    d->pause = cm_timer_open(loop, on_pause_over, d, err);
    d->deadline = d->pause ? cm_timer_open(loop, on_deadline, d, err) : NULL;
    int rc = d->deadline ? open_listeners(d, err) : CM_ERR_NO_MEMORY;
    if (rc < 0) {
        cm_door_free(d);
        return rc;
    }
    *ret = d;
    return 0;
}

struct cm_door *cm_door_free(struct cm_door *d)
{
    if (!d)
        return NULL;
    for (int i = 0; i < CM_DOOR_PORTS_MAX; i++)
        stop_listening(&d->listeners[i]);
    while (d->visitors)
        forget(d->visitors);
    while (d->links) {
        struct link *l = d->links;
        DL_DELETE(d->links, l);
        cm_pump_free(l->pump);
        free(l);
    }
    cm_timer_close(d->pause);
    cm_timer_close(d->deadline);
    cm_tls_unref(d->config.tls);
    free(d);
    return NULL;
}
