/* SPDX-License-Identifier: Apache-2.0 */
/* From a host's name to a connected socket: one address after the other, each with its share of the time that is left,
 * so that one that swallows packets leaves some for the next. */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "net/internal.h"

#define SHARE_MIN_MS 250

static void try_next(struct cm_stream *s);

static uint64_t left_ms(const struct cm_stream *s)
{
    uint64_t now = cm_clock_ns();

    return now < s->until_ns ? (s->until_ns - now + CM_NS_PER_MS - 1) / CM_NS_PER_MS : 0;
}

static void start_share(struct cm_stream *s)
{
    uint64_t left = left_ms(s), share = left / (s->addresses.count - s->address);

    if (share < SHARE_MIN_MS)
        share = left < SHARE_MIN_MS ? left : SHARE_MIN_MS;
    cm_timer_start(s->timer, share, 0);
}

static void let_go(struct cm_stream *s)
{
    s->watch = cm_watch_close(s->watch);
    s->fd = cm_fd_close(s->fd);
}

/* This address will not do. The last one's reason is the one that the owner sees. */
static void try_other(struct cm_stream *s, int errnum)
{
    cm_err_sys(&s->why, errnum, "connect to %s", s->peer);
    let_go(s);
    s->address++;
    try_next(s);
}

static void connected(struct cm_stream *s)
{
    s->why.code = 0;
    cm_timer_start(s->timer, left_ms(s), 0);
    cm_stream_begin(s);
}

static void try_next(struct cm_stream *s)
{
    struct cm_err err = s->why;

    if (s->address >= s->addresses.count || left_ms(s) == 0) {
        cm_stream_end(s, &err);
        return;
    }
    const struct cm_address *a = &s->addresses.at[s->address];
    int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        try_other(s, errno);
        return;
    }
    s->state = CONNECTING;
    int rc = connect(fd, (const struct sockaddr *)&a->sa, a->len) < 0 ? errno : 0;
    if (cm_stream_take_fd(s, fd, &err) < 0) {
        cm_stream_end(s, &err);
        return;
    }
    if (rc != 0 && rc != EINPROGRESS) {
        try_other(s, rc);
        return;
    }
    start_share(s); /* connected or not: the watch tells */
}

void cm_stream_dialled(struct cm_stream *s)
{
    int errnum = 0;
    socklen_t len = sizeof(errnum);

    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &errnum, &len) < 0)
        errnum = errno;
    if (errnum == 0)
        connected(s);
    else
        try_other(s, errnum);
}

void cm_stream_dial_timeout(struct cm_stream *s)
{
    if (s->state == RESOLVING) {
        struct cm_err err;
        s->resolve = cm_resolve_cancel(s->resolve);
        cm_err_set(&err, CM_ERR_TOO_SLOW, "%s: no address within %u ms", s->peer, s->limits.handshake_ms);
        cm_stream_end(s, &err);
        return;
    }
    try_other(s, ETIMEDOUT);
}

static void on_resolved(void *arg, const struct cm_addresses *list, const struct cm_err *err)
{
    struct cm_stream *s = arg;

    s->resolve = NULL;
    if (!list) {
        cm_stream_end(s, err);
        return;
    }
    s->addresses = *list;
    try_next(s);
}

int cm_stream_dial(struct cm_stream *s, struct cm_err *err)
{
    s->state = RESOLVING;
    if (cm_resolve_literal(s->host, s->port, &s->addresses, NULL) == 0) {
        try_next(s);
        return 0;
    }
    s->resolve = cm_resolve_start(s->loop, s->host, s->port, on_resolved, s, err);
    return s->resolve ? 0 : CM_ERR_SYSTEM;
}
