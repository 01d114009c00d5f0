/* SPDX-License-Identifier: Apache-2.0 */
#include "net/pump.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/fd.h"
#include "ev/loop.h"
#include "net/stream.h"

#define INSIDE_MAX  131072 /* bytes of the peer that the socket has not taken: two reads of the stream */
#define OUTSIDE_MAX 262144 /* bytes of the socket that the peer has not taken */
#define PIECE       32768
#define LINGER_MS   5000

struct cm_pump {
    struct cm_loop *loop;
    struct cm_stream *s;
    int fd;
    int events;
    struct cm_watch *watch;
    struct cm_task task; /* to say that it has ended */
    struct cm_buf inside;
    bool peer_ended; /* the peer sends no more */
    bool told;       /* and the socket was told */
    bool deaf;       /* the socket takes no more; what it has said before still goes out */
    bool over;
    void (*ended)(void *arg, struct cm_pump *p);
    void *arg;
};

static void dispose(struct cm_pump *p, unsigned linger_ms)
{
    p->watch = cm_watch_close(p->watch);
    p->s = cm_stream_close(p->s, linger_ms);
    p->fd = cm_fd_close(p->fd);
    cm_task_cancel(p->loop, &p->task);
    cm_buf_done(&p->inside);
    free(p);
}

static void say_ended(void *arg)
{
    struct cm_pump *p = arg;

    p->ended(p->arg, p);
    dispose(p, LINGER_MS);
}

static void end(struct cm_pump *p)
{
    if (p->over)
        return;
    p->over = true;
    cm_watch_set(p->watch, 0);
    cm_stream_pause(p->s, true);
    cm_task_post(p->loop, &p->task, say_ended, p);
}

static void rewatch(struct cm_pump *p)
{
    int events = (p->inside.len > 0 ? CM_EV_WRITE : 0) | (cm_stream_queued(p->s) < OUTSIDE_MAX / 2 ? CM_EV_READ : 0);

    if (p->over)
        return;
    if (events != p->events)
        cm_watch_set(p->watch, p->events = events);
    if (!p->peer_ended)
        cm_stream_pause(p->s, p->inside.len > 0);
}

/* To the socket */

static void push_inside(struct cm_pump *p)
{
    while (p->inside.len > 0) {
        ssize_t n = send(p->fd, cm_buf_data(&p->inside), p->inside.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            p->deaf = true;
            cm_buf_done(&p->inside);
            break;
        }
        cm_buf_consume(&p->inside, (size_t)n);
    }
    if (p->inside.len == 0 && p->peer_ended && !p->told) {
        p->told = true;
        shutdown(p->fd, SHUT_WR);
    }
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
    struct cm_pump *p = arg;

    if (p->over || p->deaf)
        return;
    if (cm_buf_append(&p->inside, data, len) < 0) {
        end(p);
        return;
    }
    push_inside(p);
    rewatch(p);
}

static void on_closed(void *arg, const struct cm_err *err)
{
    struct cm_pump *p = arg;

    p->peer_ended = true;
    if (err) {
        end(p);
        return;
    }
    push_inside(p);
    rewatch(p);
}

/* From the socket */

static void pull_outside(struct cm_pump *p)
{
    char piece[PIECE];

    while (!p->over && cm_stream_queued(p->s) < OUTSIDE_MAX / 2) {
        ssize_t n = recv(p->fd, piece, sizeof(piece), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0 || cm_stream_write(p->s, piece, (size_t)n, NULL) < 0)
            end(p);
        else if (n < PIECE)
            return;
    }
}

static void on_drained(void *arg)
{
    struct cm_pump *p = arg;

    if (p->over)
        return;
    pull_outside(p);
    rewatch(p);
}

static void on_event(void *arg, int events)
{
    struct cm_pump *p = arg;

    if (p->over)
        return;
    if (events & CM_EV_WRITE || events & ~p->events) /* what nobody asked for says that the socket has failed */
        push_inside(p);
    if (events & CM_EV_READ)
        pull_outside(p);
    rewatch(p);
}

struct cm_pump *cm_pump_new(struct cm_loop *loop, struct cm_stream *s, int fd,
                            void (*ended)(void *arg, struct cm_pump *p), void *arg, struct cm_err *err)
{
    static const struct cm_stream_ops ops = {.data = on_data, .drained = on_drained, .closed = on_closed};
    struct cm_pump *p = calloc(1, sizeof(*p));
    struct cm_watch *watch = p ? cm_watch_open(loop, fd, CM_EV_READ, on_event, p, err) : NULL;

    if (!watch) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a connection");
        free(p);
        cm_stream_close(s, 0);
        cm_fd_close(fd);
        return NULL;
    }
    *p = (struct cm_pump){
        .loop = loop, .s = s, .fd = fd, .events = CM_EV_READ, .watch = watch, .ended = ended, .arg = arg};
    cm_buf_init(&p->inside, INSIDE_MAX);
    cm_stream_hand_over(s, OUTSIDE_MAX, &ops, p);
    return p;
}

struct cm_pump *cm_pump_free(struct cm_pump *p)
{
    if (p)
        dispose(p, 0);
    return NULL;
}
