/* SPDX-License-Identifier: Apache-2.0 */
/* libuv closes handles in a later turn, so each of ours is a heap object that libuv's close callback frees. */
#include "ev/loop.h"

#include <assert.h>
#include <stdlib.h>
#include <uv.h>

struct cm_loop {
    uv_loop_t uv;
    uv_idle_t pending;    /* active while tasks wait: its presence keeps the loop from sleeping */
    struct cm_task tasks; /* head of a ring */
    unsigned works;       /* under way */
};

struct cm_watch {
    uv_poll_t uv; /* first, so that the handle is the object */
    int wanted;   /* events, as libuv names them */
    void (*cb)(void *arg, int events);
    void *arg;
};

struct cm_timer {
    uv_timer_t uv;
    void (*cb)(void *arg);
    void *arg;
};

struct cm_work {
    uv_work_t uv; /* first, so that the request is the object */
    struct cm_loop *loop;
    void (*run)(void *arg), (*done)(void *arg), (*drop)(void *arg);
    void *arg;
};

struct cm_signal {
    uv_signal_t uv;
    void (*cb)(void *arg, int signum);
    void *arg;
};

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static int uv_failed(struct cm_err *err, int r, const char *what)
{
    return cm_err_sys(err, -r, "%s", what);
}

/* Loop and tasks */

static void ring_init(struct cm_task *head)
{
    head->prev = head->next = head;
}

static void ring_remove(struct cm_task *task)
{
    assert(task->prev && task->next);
    task->prev->next = task->next;
    task->next->prev = task->prev;
    task->prev = task->next = NULL;
}

static void ring_append(struct cm_task *head, struct cm_task *task)
{
    task->prev = head->prev;
    task->next = head;
    head->prev->next = task;
    head->prev = task;
}

static void run_tasks(uv_idle_t *pending)
{
    struct cm_loop *loop = pending->data;
    struct cm_task last; /* what is posted from here on stands behind it and waits for the next turn */

    ring_append(&loop->tasks, &last);
    while (loop->tasks.next != &last) {
        struct cm_task *task = loop->tasks.next;
        ring_remove(task);
        task->cb(task->arg);
    }
    ring_remove(&last);
    if (loop->tasks.next == &loop->tasks)
        uv_idle_stop(pending);
}

struct cm_loop *cm_loop_new(struct cm_err *err)
{
    struct cm_loop *loop = calloc(1, sizeof *loop);

    if (!loop) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the event loop");
        return NULL;
    }
    int r = uv_loop_init(&loop->uv);
    if (r < 0) {
        uv_failed(err, r, "event loop");
        free(loop);
        return NULL;
    }
    ring_init(&loop->tasks);
    uv_idle_init(&loop->uv, &loop->pending);
    loop->pending.data = loop;
    return loop;
}

struct cm_loop *cm_loop_free(struct cm_loop *loop)
{
    if (!loop)
        return NULL;
    uv_close((uv_handle_t *)&loop->pending, NULL);
    while (loop->works > 0)
        uv_run(&loop->uv, UV_RUN_ONCE);
    uv_run(&loop->uv, UV_RUN_NOWAIT); /* lets closed handles finish */
    int r = uv_loop_close(&loop->uv);
    assert(r == 0 && "a handle is still open");
    (void)r;
    free(loop);
    return NULL;
}

void cm_loop_run(struct cm_loop *loop)
{
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void cm_loop_stop(struct cm_loop *loop)
{
    uv_stop(&loop->uv);
}

void cm_task_post(struct cm_loop *loop, struct cm_task *task, void (*cb)(void *arg), void *arg)
{
    if (task->next)
        return;
    task->cb = cb;
    task->arg = arg;
    ring_append(&loop->tasks, task);
    uv_idle_start(&loop->pending, run_tasks);
}

void cm_task_cancel(struct cm_loop *loop, struct cm_task *task)
{
    if (!task->next)
        return;
    ring_remove(task);
    if (loop->tasks.next == &loop->tasks)
        uv_idle_stop(&loop->pending);
}

/* Descriptors */

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct cm_watch *watch = (struct cm_watch *)handle;
    int ours = (events & UV_READABLE ? CM_EV_READ : 0) | (events & UV_WRITABLE ? CM_EV_WRITE : 0);

    if (status < 0) /* libuv has stopped looking; but what came before the failure may take several reads */
        uv_poll_start(handle, watch->wanted, on_poll);
    watch->cb(watch->arg, status < 0 ? CM_EV_READ : ours);
}

struct cm_watch *cm_watch_open(struct cm_loop *loop, int fd, int events, void (*cb)(void *arg, int events), void *arg,
                               struct cm_err *err)
{
    struct cm_watch *watch = calloc(1, sizeof *watch);

    if (!watch) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a watched descriptor");
        return NULL;
    }
    int r = uv_poll_init(&loop->uv, &watch->uv, fd);
    if (r < 0) {
        uv_failed(err, r, "watch descriptor");
        free(watch);
        return NULL;
    }
    watch->cb = cb;
    watch->arg = arg;
    cm_watch_set(watch, events);
    return watch;
}

void cm_watch_set(struct cm_watch *watch, int events)
{
    int theirs = (events & CM_EV_READ ? UV_READABLE : 0) | (events & CM_EV_WRITE ? UV_WRITABLE : 0);

    watch->wanted = theirs;
    if (theirs)
        uv_poll_start(&watch->uv, theirs, on_poll);
    else
        uv_poll_stop(&watch->uv);
}

struct cm_watch *cm_watch_close(struct cm_watch *watch)
{
    if (watch)
        uv_close((uv_handle_t *)&watch->uv, free_handle);
    return NULL;
}

/* Timers */

static void on_timer(uv_timer_t *handle)
{
    struct cm_timer *timer = (struct cm_timer *)handle;

    timer->cb(timer->arg);
}

struct cm_timer *cm_timer_open(struct cm_loop *loop, void (*cb)(void *arg), void *arg, struct cm_err *err)
{
    struct cm_timer *timer = calloc(1, sizeof *timer);

    if (!timer) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a timer");
        return NULL;
    }
    uv_timer_init(&loop->uv, &timer->uv);
    timer->cb = cb;
    timer->arg = arg;
    return timer;
}

void cm_timer_start(struct cm_timer *timer, uint64_t after_ms, uint64_t every_ms)
{
    /* libuv counts from the start of the turn; a turn that has worked for a while would fire early. */
    uv_update_time(timer->uv.loop);
    uv_timer_start(&timer->uv, on_timer, after_ms, every_ms);
}

void cm_timer_stop(struct cm_timer *timer)
{
    uv_timer_stop(&timer->uv);
}

struct cm_timer *cm_timer_close(struct cm_timer *timer)
{
    if (timer)
        uv_close((uv_handle_t *)&timer->uv, free_handle);
    return NULL;
}

/* Signals */

static void on_signal(uv_signal_t *handle, int signum)
{
    struct cm_signal *signal = (struct cm_signal *)handle;

    signal->cb(signal->arg, signum);
}

struct cm_signal *cm_signal_open(struct cm_loop *loop, int signum, void (*cb)(void *arg, int signum), void *arg,
                                 struct cm_err *err)
{
    struct cm_signal *signal = calloc(1, sizeof *signal);

    if (!signal) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a signal");
        return NULL;
    }
    signal->cb = cb;
    signal->arg = arg;
    uv_signal_init(&loop->uv, &signal->uv);
    int r = uv_signal_start(&signal->uv, on_signal, signum);
    if (r < 0) {
        uv_failed(err, r, "watch signal");
        return cm_signal_close(signal);
    }
    return signal;
}

struct cm_signal *cm_signal_close(struct cm_signal *signal)
{
    if (signal)
        uv_close((uv_handle_t *)&signal->uv, free_handle);
    return NULL;
}

/* Work in other threads */

static void on_run(uv_work_t *request)
{
    struct cm_work *work = (struct cm_work *)request;

    work->run(work->arg);
}

static void on_done(uv_work_t *request, int status)
{
    struct cm_work *work = (struct cm_work *)request;

    (void)status; /* nothing of ours is cancelled */
    work->loop->works--;
    if (work->done)
        work->done(work->arg);
    work->drop(work->arg);
    free(work);
}

struct cm_work *cm_work_start(struct cm_loop *loop, void (*run)(void *arg), void (*done)(void *arg),
                              void (*drop)(void *arg), void *arg, struct cm_err *err)
{
    struct cm_work *work = calloc(1, sizeof *work);

    if (!work) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for work in a thread");
        return NULL;
    }
    *work = (struct cm_work){.loop = loop, .run = run, .done = done, .drop = drop, .arg = arg};
    int r = uv_queue_work(&loop->uv, &work->uv, on_run, on_done);
    if (r < 0) {
        uv_failed(err, r, "work in a thread");
        free(work);
        return NULL;
    }
    loop->works++;
    return work;
}

struct cm_work *cm_work_abandon(struct cm_work *work)
{
    if (work)
        work->done = NULL;
    return NULL;
}
