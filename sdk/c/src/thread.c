/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "ev/loop.h"
#include "lib.h"
#include "net/stream.h"

static void on_wake(void *arg, int events)
{
    struct lib_thread *t = arg;
    uint64_t count;

    (void)events;
    if (read(t->wake_fd, &count, sizeof count) < 0)
        return;
    pthread_mutex_lock(&t->mutex);
    struct lib_job *job = t->first;
    t->first = NULL;
    t->last = &t->first;
    pthread_mutex_unlock(&t->mutex);
    while (job) {
        struct lib_job *next = job->next; /* the job may be gone when it has run */
        job->run(job->arg);
        job = next;
    }
}

static void *run(void *arg)
{
    struct lib_thread *t = arg;

    cm_loop_run(t->loop);
    return NULL;
}

/* Signals are the program's: none is delivered to a thread of ours. */
static int start_thread(struct lib_thread *t)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&t->thread, NULL, run, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int lib_thread_start(struct lib_thread *t, struct codemode_error *err)
{
    struct cm_err why = {.code = CM_ERR_SYSTEM, .text = "no thread could be started"};

    memset(t, 0, sizeof *t);
    t->last = &t->first;
    pthread_mutex_init(&t->mutex, NULL);
    t->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (t->wake_fd < 0)
        cm_err_sys(&why, errno, "event descriptor");
    t->loop = t->wake_fd >= 0 ? cm_loop_new(&why) : NULL;
    t->watch = t->loop ? cm_watch_open(t->loop, t->wake_fd, CM_EV_READ, on_wake, t, &why) : NULL;
    t->running = t->watch && start_thread(t) == 0;
    if (t->running)
        return 0;
    t->running = false;
    cm_watch_close(t->watch);
    if (t->loop)
        cm_loop_free(t->loop);
    cm_fd_close(t->wake_fd);
    pthread_mutex_destroy(&t->mutex);
    return lib_error_from(err, &why);
}

void lib_thread_post(struct lib_thread *t, struct lib_job *job, void (*call)(void *arg), void *arg)
{
    uint64_t one = 1;

    job->next = NULL;
    job->run = call;
    job->arg = arg;
    pthread_mutex_lock(&t->mutex);
    *t->last = job;
    t->last = &job->next;
    pthread_mutex_unlock(&t->mutex);
    while (write(t->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

struct rendezvous {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool done;
    void (*run)(void *arg);
    void *arg;
};

static void run_and_tell(void *arg)
{
    struct rendezvous *r = arg;

    r->run(r->arg);
    pthread_mutex_lock(&r->mutex);
    r->done = true;
    pthread_cond_signal(&r->cond);
    pthread_mutex_unlock(&r->mutex);
}

void lib_thread_call(struct lib_thread *t, void (*call)(void *arg), void *arg)
{
    struct rendezvous r = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, call, arg};
    struct lib_job job;

    lib_thread_post(t, &job, run_and_tell, &r);
    pthread_mutex_lock(&r.mutex);
    while (!r.done)
        pthread_cond_wait(&r.cond, &r.mutex);
    pthread_mutex_unlock(&r.mutex);
}

static void stop(void *arg)
{
    struct lib_thread *t = arg;

    cm_stream_end_lingering(t->loop);
    t->watch = cm_watch_close(t->watch);
    cm_loop_stop(t->loop);
}

void lib_thread_stop(struct lib_thread *t)
{
    struct lib_job job;

    if (!t->running)
        return;
    lib_thread_post(t, &job, stop, t);
    pthread_join(t->thread, NULL);
    t->running = false;
    cm_loop_free(t->loop);
    cm_fd_close(t->wake_fd);
    pthread_mutex_destroy(&t->mutex);
}
