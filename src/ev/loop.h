/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: descriptors, timers, signals and work for the next turn.
 *
 * One thread, one loop. Every handle is opaque, owned by whoever opened it, and closed with its *_close(),
 * which accepts NULL, returns NULL, may be called from any callback (its own too) and is final: no callback
 * of the handle comes afterwards. A child process is watched through its pidfd, which becomes readable when
 * the child ends. Functions that open return NULL and fill *err on failure.
 */
#ifndef CM_EV_LOOP_H
#define CM_EV_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct cm_loop;
struct cm_watch;
struct cm_timer;
struct cm_signal;
struct cm_work;

enum { CM_EV_READ = 1, CM_EV_WRITE = 2 };

struct cm_loop *cm_loop_new(struct cm_err *err);
/* Every handle must have been closed. */
struct cm_loop *cm_loop_free(struct cm_loop *loop);
/* Runs until cm_loop_stop(), or until nothing is left that could happen. */
void cm_loop_run(struct cm_loop *loop);
/* Makes cm_loop_run() return at the end of this turn. */
void cm_loop_stop(struct cm_loop *loop);

/* Level-triggered. `events` as passed to the callback also says READ when the peer hung up or the descriptor
 * failed, so that the next read tells. The descriptor stays the caller's and may be closed after the watch. */
struct cm_watch *cm_watch_open(struct cm_loop *loop, int fd, int events, void (*cb)(void *arg, int events), void *arg,
                               struct cm_err *err);
/* Changes what is waited for; 0 waits for nothing. */
void cm_watch_set(struct cm_watch *watch, int events);
struct cm_watch *cm_watch_close(struct cm_watch *watch);

/* Opens stopped. */
struct cm_timer *cm_timer_open(struct cm_loop *loop, void (*cb)(void *arg), void *arg, struct cm_err *err);
/* First call after `after_ms` from now, then every `every_ms`; 0 = once. Restarts a running timer. */
void cm_timer_start(struct cm_timer *timer, uint64_t after_ms, uint64_t every_ms);
void cm_timer_stop(struct cm_timer *timer);
struct cm_timer *cm_timer_close(struct cm_timer *timer);

struct cm_signal *cm_signal_open(struct cm_loop *loop, int signum, void (*cb)(void *arg, int signum), void *arg,
                                 struct cm_err *err);
struct cm_signal *cm_signal_close(struct cm_signal *signal);

/* Work for the next turn. A part of the caller's object, zeroed before first use, so that posting cannot fail. */
struct cm_task {
    struct cm_task *prev, *next; /* of the loop's queue; NULL while not posted */
    void (*cb)(void *arg);
    void *arg;
};

/* Posting a task that is already posted changes nothing. A task posted from a task runs one turn later. */
void cm_task_post(struct cm_loop *loop, struct cm_task *task, void (*cb)(void *arg), void *arg);
/* Accepts a task that is not posted. */
void cm_task_cancel(struct cm_loop *loop, struct cm_task *task);

/* Work that would hold the loop too long. `run` is called in another thread, then, on the loop, `done` and `drop`, which frees
 * what the work has. NULL with *err when it could not be started: nothing is called then. */
struct cm_work *cm_work_start(struct cm_loop *loop, void (*run)(void *arg), void (*done)(void *arg),
                              void (*drop)(void *arg), void *arg, struct cm_err *err);
/* `done` is not called any more; `drop` is, when the thread has ended: cm_loop_free() waits for that. Accepts NULL, returns
 * NULL. */
struct cm_work *cm_work_abandon(struct cm_work *work);

#endif
