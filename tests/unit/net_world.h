/* SPDX-License-Identifier: Apache-2.0 */
/* Two streams of one loop that are connected over loopback, and waiting for what happens to them. */
#ifndef CM_TESTS_NET_WORLD_H
#define CM_TESTS_NET_WORLD_H

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "ev/loop.h"
#include "net/stream.h"

#define QUEUE_MAX 1048576
#define WAIT_MS   10000

struct end {
    struct cm_stream *s;
    struct world *w;
    bool ready, drained, closed, close_when_ready, close_with_data, pause_with_data;
    size_t bytes;
    char got[64]; /* the first ones */
    struct cm_err err;
};

struct world {
    struct cm_loop *loop;
    struct cm_timer *limit;
    struct cm_watch *watch;
    struct cm_tls *tls, *client_tls;
    unsigned handshake_ms; /* of the server's side; 0: as the client's */
    struct end client, server;
    const bool *awaited;
    const struct end *counted;
    size_t count;
    bool late;
    int listen_fd, spare[8];
};

static void look(struct world *w)
{
    if ((w->awaited && *w->awaited) || (w->counted && w->counted->bytes >= w->count))
        cm_loop_stop(w->loop);
}

static void on_ready(void *arg)
{
    struct end *e = arg;

    e->ready = true;
    if (e->close_when_ready)
        e->s = cm_stream_close(e->s, 0);
    look(e->w);
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
    struct end *e = arg;

    for (size_t i = 0; i < len && e->bytes + i < sizeof(e->got); i++)
        e->got[e->bytes + i] = (char)data[i];
    e->bytes += len;
    if (e->pause_with_data)
        cm_stream_pause(e->s, true);
    if (e->close_with_data)
        e->s = cm_stream_close(e->s, 0);
    look(e->w);
}

static void on_drained(void *arg)
{
    struct end *e = arg;

    e->drained = true;
    look(e->w);
}

static void on_closed(void *arg, const struct cm_err *err)
{
    struct end *e = arg;

    assert_false(e->closed);
    e->closed = true;
    e->err = err ? *err : (struct cm_err){0};
    look(e->w);
}

static const struct cm_stream_ops ops = {on_ready, on_data, on_drained, on_closed};
static const struct cm_stream_limits stream_limits = {.queue_max = QUEUE_MAX, .handshake_ms = 5000};

/* At all addresses of this machine: 127.0.0.2 is another name of the same server. */
static int bound_socket(int backlog)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        abort();
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    if (backlog >= 0)
        assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static unsigned port_of(int fd)
{
    struct sockaddr_in in = {0};
    socklen_t len = sizeof(in);

    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    return ntohs(in.sin_port);
}

static inline unsigned listening_port(struct world *w)
{
    return port_of(w->listen_fd);
}

static inline unsigned closed_port(void)
{
    int fd = bound_socket(-1);
    unsigned port = port_of(fd);

    close(fd);
    return port;
}

/* One whose queue of newcomers is full: further ones get no answer. */
static inline unsigned full_port(struct world *w)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    w->spare[0] = bound_socket(0);
    in.sin_port = htons((uint16_t)port_of(w->spare[0]));
    for (int i = 1; i < 8; i++) {
        w->spare[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (w->spare[i] >= 0)
            connect(w->spare[i], (struct sockaddr *)&in, sizeof(in));
    }
    return ntohs(in.sin_port);
}

static void on_limit(void *arg)
{
    struct world *w = arg;

    w->late = true;
    cm_loop_stop(w->loop);
}

static void on_listen(void *arg, int events)
{
    struct world *w = arg;
    int fd = accept4(w->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    if (fd < 0)
        return;
    if (w->server.s) { /* one is enough */
        close(fd);
        return;
    }
    struct cm_stream_limits limits = stream_limits;
    if (w->handshake_ms)
        limits.handshake_ms = w->handshake_ms;
    w->server.s = cm_stream_accept(w->loop, fd, w->tls, &limits, &ops, &w->server, NULL);
    assert_non_null(w->server.s);
}

static void dial(struct world *w)
{
    w->client.s = cm_stream_connect(w->loop, "127.0.0.1", port_of(w->listen_fd), w->client_tls, &stream_limits, &ops,
                                    &w->client, NULL);
    assert_non_null(w->client.s);
    assert_false(w->client.ready);
}

static inline void reconnect(struct world *w)
{
    cm_stream_close(w->client.s, 0);
    cm_stream_close(w->server.s, 0);
    w->client = w->server = (struct end){.w = w};
    dial(w);
}

static void world_open(struct world *w, struct cm_tls *server, struct cm_tls *client)
{
    *w = (struct world){.loop = cm_loop_new(NULL), .tls = server, .client_tls = client};
    memset(w->spare, -1, sizeof(w->spare));
    w->client.w = w->server.w = w;
    w->limit = cm_timer_open(w->loop, on_limit, w, NULL);
    w->listen_fd = bound_socket(16);
    w->watch = cm_watch_open(w->loop, w->listen_fd, CM_EV_READ, on_listen, w, NULL);
    w->client.s =
        cm_stream_connect(w->loop, "127.0.0.1", port_of(w->listen_fd), client, &stream_limits, &ops, &w->client, NULL);
    assert_non_null(w->client.s);
    assert_false(w->client.ready);
}

static void run(struct world *w)
{
    cm_timer_start(w->limit, WAIT_MS, 0);
    cm_loop_run(w->loop);
    cm_timer_stop(w->limit);
    w->awaited = NULL;
    w->counted = NULL;
    assert_false(w->late);
}

static void await(struct world *w, const bool *what)
{
    if (*what)
        return;
    w->awaited = what;
    run(w);
}

static void await_ready(struct world *w)
{
    await(w, &w->client.ready);
    await(w, &w->server.ready);
}

static void await_bytes(struct world *w, const struct end *e, size_t count)
{
    if (e->bytes < count) {
        w->counted = e;
        w->count = count;
        run(w);
    }
    assert_int_equal(e->bytes, count);
}

static inline void await_more(struct world *w, const struct end *e, size_t than)
{
    w->counted = e;
    w->count = than + 1;
    run(w);
}

static void turn_over(void *arg)
{
    cm_loop_stop(arg);
}

static inline void turn(struct cm_loop *loop)
{
    struct cm_task task = {0};

    cm_task_post(loop, &task, turn_over, loop);
    cm_loop_run(loop);
}

static inline void world_turn(struct world *w)
{
    turn(w->loop);
}

static void world_close(struct world *w)
{
    cm_stream_close(w->client.s, 0);
    cm_stream_close(w->server.s, 0);
    cm_stream_end_lingering(w->loop);
    cm_watch_close(w->watch);
    cm_timer_close(w->limit);
    cm_fd_close(w->listen_fd);
    for (int i = 0; i < 8; i++)
        cm_fd_close(w->spare[i]);
    cm_loop_free(w->loop);
}

#endif
