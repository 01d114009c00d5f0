/* SPDX-License-Identifier: Apache-2.0 */
/* The thread is our own, not one of the loop's pool, so that one that hangs in the kernel can be left behind when the service
 * ends. What both sides touch stands behind the lock: the queue and the counters. Of a file the loop has `dead` and `begun`, the
 * thread all else. A piece belongs to the thread from when it is queued. */
#include "rlm/trajectory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/random.h"
#include "ev/loop.h"
#include "obs/log.h"
#include "obs/metrics.h"

#define QUIET_NS (60 * CM_NS_PER_S) /* trouble after so long without any is told anew */

struct piece {
    struct piece *next;
    struct cm_trajectory *of;
    char *text; /* a line; NULL: the file ends */
    size_t len;
};

struct cm_trajectory {
    struct cm_trajectories *all;
    bool begun, dead; /* nothing more is taken */
    int fd; /* -1: not open yet */
    bool failed; /* nothing more is written */
    uint64_t whole; /* bytes of whole lines */
    struct piece end;
    char path[];
};

/* What went wrong last. */
struct trouble {
    uint64_t lost; /* lines, ever */
    const char *step;
    int error; /* an errno */
};

struct cm_trajectories {
    char *dir;
    size_t waiting_max;
    struct cm_metrics *metrics;
    pthread_t thread;
    struct cm_watch *watch;
    int word; /* an eventfd: the thread has got on */
    uint64_t told, trouble_ns; /* lines lost that were counted; when the newest one was */

    pthread_mutex_t lock;
    pthread_cond_t more;
    struct piece *first, *last;
    size_t waiting; /* bytes, with those that are being written */
    bool ends;
    struct trouble trouble;
};

/* The thread */

/* Of a line that is lost because an earlier one was, the reason is that of the earlier one: NULL. */
static void lose(struct cm_trajectories *all, const char *step, int error)
{
    pthread_mutex_lock(&all->lock);
    all->trouble.lost++;
    if (step) {
        all->trouble.step = step;
        all->trouble.error = error;
    }
    pthread_mutex_unlock(&all->lock);
}

/* A line that has not come to its end is taken back. */
static int write_line(struct cm_trajectory *t, const struct piece *p)
{
    int rc = cm_fd_write_all(t->fd, p->text, p->len);

    if (rc == 0)
        t->whole += p->len;
    else if (t->whole == 0 || ftruncate(t->fd, (off_t)t->whole) < 0)
        t->failed = true;
    return rc;
}

static int open_file(struct cm_trajectory *t)
{
    if (t->fd >= 0)
        return 0;
    t->fd = open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    t->failed = t->fd < 0;
    return t->failed ? -errno : 0;
}

static void take_line(struct cm_trajectory *t, const struct piece *p)
{
    int rc;

    if (t->failed)
        lose(t->all, NULL, 0);
    else if ((rc = open_file(t)) < 0)
        lose(t->all, "open", -rc);
    else if ((rc = write_line(t, p)) < 0)
        lose(t->all, "write", -rc);
}

static void end_file(struct cm_trajectory *t)
{
    if (t->fd >= 0 && t->whole == 0)
        unlink(t->path);
    cm_fd_close(t->fd);
    free(t);
}

static struct piece *next_piece(struct cm_trajectories *all)
{
    pthread_mutex_lock(&all->lock);
    while (!all->first && !all->ends)
        pthread_cond_wait(&all->more, &all->lock);
    struct piece *p = all->first;
    if (p)
        all->first = p->next;
    pthread_mutex_unlock(&all->lock);
    return p;
}

static void tell(struct cm_trajectories *all, size_t written)
{
    const uint64_t one = 1;

    pthread_mutex_lock(&all->lock);
    all->waiting -= written;
    pthread_mutex_unlock(&all->lock);
    if (write(all->word, &one, sizeof one) < 0)
        return; /* it is full: the loop has not looked yet */
}

static void *work(void *arg)
{
    struct cm_trajectories *all = arg;

    for (struct piece *p; (p = next_piece(all));) {
        if (!p->text) {
            end_file(p->of);
            continue;
        }
        size_t len = p->len;
        take_line(p->of, p);
        free(p->text);
        free(p);
        tell(all, len);
    }
    return NULL;
}

static int start_thread(struct cm_trajectories *all)
{
    sigset_t every, before;

    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before); /* signals are the loop's */
    int rc = pthread_create(&all->thread, NULL, work, all);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* The loop */

/* What has happened since the last look. A disk that stays full is told of once. */
static void look(struct cm_trajectories *all)
{
    uint64_t now = cm_clock_ns();

    pthread_mutex_lock(&all->lock);
    const struct trouble t = all->trouble;
    size_t waiting = all->waiting;
    pthread_mutex_unlock(&all->lock);
    cm_metrics_set(all->metrics, CM_M_RLM_TRAJECTORY_WAITING, 0, (int64_t)waiting);
    if (t.lost == all->told)
        return;
    cm_metrics_add(all->metrics, CM_M_RLM_TRAJECTORY_LOST, 0, t.lost - all->told);
    if (all->told == 0 || now - all->trouble_ns > QUIET_NS)
        cm_log(CM_LOG_WARNING, "trajectory_not_written", CM_LOG_STR("folder", all->dir), CM_LOG_STR("step", t.step),
               CM_LOG_STR("reason", t.error ? strerror(t.error) : NULL), CM_LOG_INT("lines_lost", t.lost));
    all->told = t.lost;
    all->trouble_ns = now;
}

static void on_word(void *arg, int events)
{
    struct cm_trajectories *all = arg;
    uint64_t count;

    (void)events;
    if (read(all->word, &count, sizeof count) == sizeof count)
        look(all);
}

static void queue(struct cm_trajectories *all, struct piece *p)
{
    p->next = NULL;
    pthread_mutex_lock(&all->lock);
    if (all->first)
        all->last->next = p;
    else
        all->first = p;
    all->last = p;
    all->waiting += p->len;
    pthread_cond_signal(&all->more);
    pthread_mutex_unlock(&all->lock);
}

static bool has_room(struct cm_trajectories *all, size_t len)
{
    pthread_mutex_lock(&all->lock);
    bool room = len <= all->waiting_max - all->waiting;
    pthread_mutex_unlock(&all->lock);
    return room;
}

/* One trajectory */

struct cm_trajectory *cm_trajectory_open(struct cm_trajectories *all)
{
    char when[32], hex[9], path[PATH_MAX];
    time_t now = time(NULL);
    struct tm tm;
    struct cm_trajectory *t = NULL;

    if (cm_random_hex(hex, 8, NULL) == 0 && gmtime_r(&now, &tm) &&
        strftime(when, sizeof when, "%Y-%m-%d_%H-%M-%S", &tm) > 0 &&
        snprintf(path, sizeof path, "%s/rlm_%s_%s.jsonl", all->dir, when, hex) < (int)sizeof path)
        t = malloc(sizeof *t + strlen(path) + 1);
    if (!t) {
        lose(all, "name", 0);
        look(all);
        return NULL;
    }
    *t = (struct cm_trajectory){.all = all, .fd = -1, .end.of = t};
    strcpy(t->path, path);
    return t;
}

void cm_trajectory_line(struct cm_trajectory *t, struct cm_buf *json)
{
    struct cm_trajectories *all = t->all;
    bool room = !t->dead && has_room(all, json->len + 1) && cm_buf_append(json, "\n", 1) == 0;
    struct piece *p = room ? malloc(sizeof *p) : NULL;

    if (p) {
        *p = (struct piece){.of = t};
        p->text = cm_buf_steal(json, &p->len);
        t->begun = true;
        queue(all, p);
    } else {
        lose(all, t->dead ? NULL : "wait", ENOBUFS);
        t->dead = !t->begun;
    }
    look(all);
}

struct cm_trajectory *cm_trajectory_close(struct cm_trajectory *t)
{
    if (t)
        queue(t->all, &t->end);
    return NULL;
}

/* All of them */

static void free_all(struct cm_trajectories *all)
{
    cm_watch_close(all->watch);
    cm_fd_close(all->word);
    pthread_cond_destroy(&all->more);
    pthread_mutex_destroy(&all->lock);
    free(all->dir);
    free(all);
}

int cm_trajectories_open(struct cm_loop *loop, const struct cm_trajectories_config *config,
                         struct cm_trajectories **ret, struct cm_err *err)
{
    struct cm_trajectories *all = calloc(1, sizeof *all);
    char *dir = strdup(config->dir);

    if (!all || !dir) {
        free(all);
        free(dir);
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for trajectories");
    }
    *all = (struct cm_trajectories){.dir = dir, .waiting_max = config->waiting_max, .metrics = config->metrics};
    pthread_mutex_init(&all->lock, NULL);
    pthread_cond_init(&all->more, NULL);
    all->word = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = all->word < 0 ? cm_err_sys(err, errno, "trajectories") : 0;
    if (rc == 0 && !(all->watch = cm_watch_open(loop, all->word, CM_EV_READ, on_word, all, err)))
        rc = CM_ERR_NO_MEMORY;
    if (rc == 0 && (rc = start_thread(all)) != 0)
        rc = cm_err_sys(err, rc, "trajectories: thread");
    if (rc < 0) {
        free_all(all);
        return rc;
    }
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        cm_log(CM_LOG_WARNING, "trajectory_not_written", CM_LOG_STR("folder", dir),
               CM_LOG_STR("step", "make the folder"), CM_LOG_STR("reason", strerror(errno)));
    *ret = all;
    return 0;
}

/* A thread that hangs keeps what it has. */
struct cm_trajectories *cm_trajectories_close(struct cm_trajectories *all, double patience_s)
{
    struct timespec until;

    if (!all)
        return NULL;
    pthread_mutex_lock(&all->lock);
    all->ends = true;
    pthread_cond_signal(&all->more);
    pthread_mutex_unlock(&all->lock);
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + (uint64_t)(patience_s * 1e9);
    until.tv_sec += (time_t)(ns / CM_NS_PER_S);
    until.tv_nsec = (long)(ns % CM_NS_PER_S);
    if (pthread_clockjoin_np(all->thread, NULL, CLOCK_MONOTONIC, &until) == 0) {
        look(all);
        free_all(all);
        return NULL;
    }
    pthread_detach(all->thread);
    all->watch = cm_watch_close(all->watch);
    pthread_mutex_lock(&all->lock);
    size_t waiting = all->waiting;
    pthread_mutex_unlock(&all->lock);
    cm_log(CM_LOG_WARNING, "trajectories_left_behind", CM_LOG_STR("folder", all->dir), CM_LOG_INT("bytes", waiting));
    return NULL;
}
