/* SPDX-License-Identifier: Apache-2.0 */
/* Taking connections, by ourselves and not by the daemon: when a descriptor is wanting, it stops listening until one
 * of its connections ends, and a single idle client that stays keeps everybody else out. Here it is tried again after
 * a moment. While there are as many connections as may be, newcomers wait in the socket's queue. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "front/http/internal.h"
#include "obs/log.h"

#define ACCEPTS_AT_ONCE 64 /* then other rooms have their turn */
#define PAUSE_MS        100

static bool is_full(const struct cm_http *h)
{
    return h->connections >= h->conf->max_connections;
}

static void listen_again(void *arg)
{
    struct cm_http *h = arg;

    if (h->accept_watch && !is_full(h))
        cm_watch_set(h->accept_watch, CM_EV_READ);
}

static void pause_listening(struct cm_http *h, int errnum)
{
    cm_log(CM_LOG_WARNING, "accept_failed", CM_LOG_STR("why", strerrordesc_np(errnum)));
    cm_watch_set(h->accept_watch, 0);
    cm_timer_start(h->accept_pause, PAUSE_MS, 0);
}

/* True when there may be another one. */
static bool accept_one(struct cm_http *h)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    int fd = accept4(h->listen_fd, (struct sockaddr *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        MHD_add_connection(h->daemon, fd, (struct sockaddr *)&address, len); /* closes it when there is no memory */
        return true;
    }
    if (errno == EINTR || errno == ECONNABORTED)
        return true;
    if (errno != EAGAIN)
        pause_listening(h, errno);
    return false;
}

static void on_listen(void *arg, int events)
{
    struct cm_http *h = arg;
    bool more = true;

    (void)events;
    for (int i = 0; i < ACCEPTS_AT_ONCE && more && h->accept_watch; i++) {
        if (is_full(h)) {
            cm_watch_set(h->accept_watch, 0);
            return;
        }
        more = accept_one(h);
        cm_http_run(h);
    }
}

void cm_http_accept_last(struct cm_http *h)
{
    for (int i = 0; i < SOMAXCONN && h->accept_watch && !is_full(h) && accept_one(h); i++)
        cm_http_run(h);
    cm_http_accept_close(h);
}

int cm_http_accept_open(struct cm_http *h, struct cm_err *err)
{
    h->accept_pause = cm_timer_open(h->loop, listen_again, h, err);
    h->accept_watch = h->accept_pause ? cm_watch_open(h->loop, h->listen_fd, CM_EV_READ, on_listen, h, err) : NULL;
    return h->accept_watch ? 0 : err ? err->code : CM_ERR_SYSTEM;
}

void cm_http_accept_more(struct cm_http *h)
{
    listen_again(h);
}

void cm_http_accept_close(struct cm_http *h)
{
    h->accept_watch = cm_watch_close(h->accept_watch);
    h->accept_pause = cm_timer_close(h->accept_pause);
    h->listen_fd = cm_fd_close(h->listen_fd);
}
