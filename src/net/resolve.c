/* SPDX-License-Identifier: Apache-2.0 */
/* getaddrinfo() may wait for half a minute and cannot be cancelled. Each look-up therefore has a thread of its own,
 * which nobody ever joins: it owns one end of a pipe and a job that it shares with the handle; whoever lets go of the job last
 * frees it. */
#include "net/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "ev/loop.h"

#define AT_ONCE    8
#define STACK_SIZE (512 * 1024)
#define HOST_MAX   256

struct job {
    atomic_int owners; /* the thread, the handle */
    int done_fd;       /* closed by the thread when the rest is written */
    int rc;            /* of getaddrinfo() */
    int errnum;
    struct cm_addresses list;
    char host[HOST_MAX], port[8];
};

struct cm_resolve {
    struct job *job;
    int fd;
    struct cm_watch *watch;
    void (*cb)(void *arg, const struct cm_addresses *list, const struct cm_err *err);
    void *arg;
};

static atomic_int under_way;

static void release(struct job *job)
{
    if (atomic_fetch_sub(&job->owners, 1) == 1)
        free(job);
}

static void take_list(const struct addrinfo *ai, struct cm_addresses *ret)
{
    for (ret->count = 0; ai && ret->count < CM_RESOLVE_MAX; ai = ai->ai_next) {
        struct cm_address *to = &ret->at[ret->count];
        if (ai->ai_addrlen > sizeof(to->sa))
            continue;
        memcpy(&to->sa, ai->ai_addr, ai->ai_addrlen);
        to->len = ai->ai_addrlen;
        ret->count++;
    }
}

static int look_up(const char *host, const char *port, int flags, struct cm_addresses *ret)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags}, *list = NULL;
    int rc = getaddrinfo(host, port, &hints, &list);

    if (rc != 0)
        return rc;
    take_list(list, ret);
    freeaddrinfo(list);
    return ret->count > 0 ? 0 : EAI_NONAME;
}

int cm_resolve_literal(const char *host, unsigned port, struct cm_addresses *ret, struct cm_err *err)
{
    char digits[8];

    snprintf(digits, sizeof(digits), "%u", port);
    if (look_up(host, digits, AI_NUMERICHOST, ret) != 0)
        return cm_err_set(err, CM_ERR_NOT_FOUND, "\"%.80s\" is not an address", host);
    return 0;
}

static void *resolve_thread(void *arg)
{
    struct job *job = arg;
    int fd = job->done_fd;

    job->rc = look_up(job->host, job->port, 0, &job->list);
    job->errnum = errno;
    atomic_fetch_sub(&under_way, 1);
    release(job);
    close(fd);
    return NULL;
}

static int start_thread(struct job *job)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals belong to the loop's thread */
    int rc = pthread_create(&thread, &attr, resolve_thread, job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return rc;
}

static void tell(struct cm_resolve *r)
{
    const struct job *job = r->job;
    struct cm_err err;

    if (job->rc == 0) {
        r->cb(r->arg, &job->list, NULL);
        return;
    }
    const char *why = job->rc == EAI_SYSTEM ? strerrordesc_np(job->errnum) : gai_strerror(job->rc);
    cm_err_set(&err, CM_ERR_SYSTEM, "look up \"%.80s\": %s", job->host, why);
    r->cb(r->arg, NULL, &err);
}

static void dispose(struct cm_resolve *r)
{
    r->watch = cm_watch_close(r->watch);
    r->fd = cm_fd_close(r->fd);
    if (r->job)
        release(r->job);
    free(r);
}

static void on_done(void *arg, int events)
{
    struct cm_resolve *r = arg;

    (void)events;
    r->watch = cm_watch_close(r->watch);
    struct cm_resolve copy = *r; /* the callback may ask for the next look-up, and must not find this one */
    free(r);
    tell(&copy);
    cm_fd_close(copy.fd);
    release(copy.job);
}

static int launch(struct cm_resolve *r, struct cm_loop *loop, struct cm_err *err)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return cm_err_sys(err, errno, "name look-up");
    r->fd = ends[0];
    r->job->done_fd = ends[1];
    r->watch = cm_watch_open(loop, r->fd, CM_EV_READ, on_done, r, err);
    int rc = r->watch ? start_thread(r->job) : ENOMEM;
    if (rc != 0) {
        close(ends[1]);
        return r->watch ? cm_err_sys(err, rc, "thread of a name look-up") : CM_ERR_NO_MEMORY;
    }
    return 0;
}

struct cm_resolve *cm_resolve_start(struct cm_loop *loop, const char *host, unsigned port,
                                    void (*cb)(void *arg, const struct cm_addresses *list, const struct cm_err *err),
                                    void *arg, struct cm_err *err)
{
    struct cm_resolve *r = calloc(1, sizeof(*r));
    struct job *job = calloc(1, sizeof(*job));

    if (!r || !job || strlen(host) >= HOST_MAX) {
        free(r);
        free(job);
        cm_err_set(err, CM_ERR_NO_MEMORY, "name look-up: no memory, or a name that is too long");
        return NULL;
    }
    *r = (struct cm_resolve){.job = job, .fd = -1, .cb = cb, .arg = arg};
    atomic_init(&job->owners, 2);
    snprintf(job->host, sizeof(job->host), "%s", host);
    snprintf(job->port, sizeof(job->port), "%u", port);
    if (atomic_fetch_add(&under_way, 1) >= AT_ONCE) {
        cm_err_set(err, CM_ERR_OVERLOADED, "more than %d name look-ups are under way", AT_ONCE);
    } else if (launch(r, loop, err) == 0) {
        return r;
    }
    atomic_fetch_sub(&under_way, 1);
    atomic_store(&job->owners, 1);
    dispose(r);
    return NULL;
}

struct cm_resolve *cm_resolve_cancel(struct cm_resolve *r)
{
    if (r)
        dispose(r);
    return NULL;
}
