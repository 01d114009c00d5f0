/* SPDX-License-Identifier: Apache-2.0 */
/* Worker processes and the pool of spare ones.
 *
 * A worker is born twice: the zygote names its pid and pidfd (SPAWNED), and it speaks itself (READY), in either
 * order. It is freed in one place only, on_exit(), after its pidfd has become readable and it was reaped; so a
 * worker that is being ended is merely DYING, and no pointer to it dangles. Its channel's end alone proves nothing:
 * it is killed then, which changes nothing for a process that is exiting already, and its exit tells the cause. */
#include "session/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "obs/log.h"

/* A frame of EXECUTE's maximum and a few small ones. */
#define OUT_MAX         (CM_IPC_EXECUTE_MAX + 65536u)
#define SPAWN_PAUSE_NS  (500 * CM_NS_PER_MS)
#define END_DEADLINE_MS 2000

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u /* younger than the C library of Debian 12 */
#endif

void cm_printable(char *to, size_t size, const char *text, size_t len)
{
    size_t n = text && len < size - 1 ? len : text ? size - 1 : 0;

    for (size_t i = 0; i < n; i++)
        to[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    to[n] = '\0';
}

static void printable_lines(char *to, size_t size, const char *text, size_t len)
{
    cm_printable(to, size, text, len);
    for (size_t i = 0; to[i]; i++)
        if (text[i] == '\n')
            to[i] = '\n';
}

/* states */

static void set_state(struct cm_worker *w, enum cm_worker_state state)
{
    struct cm_sessions *m = w->m;

    m->spawning -= w->state == CM_WORKER_SPAWNING;
    m->spares -= w->state == CM_WORKER_SPARE;
    w->state = state;
    m->spawning += w->state == CM_WORKER_SPAWNING;
    m->spares += w->state == CM_WORKER_SPARE;
    cm_metrics_set(m->metrics, CM_M_SPARE_WORKERS, 0, m->spares);
}

static void send_signal(struct cm_worker *w, int signum)
{
    if (w->pidfd >= 0)
        pidfd_send_signal(w->pidfd, signum, NULL, 0);
}

void cm_worker_interrupt(struct cm_worker *w)
{
    send_signal(w, SIGUSR1);
}

static struct cm_worker *free_worker(struct cm_worker *w)
{
    set_state(w, CM_WORKER_DYING);
    w->exit_watch = cm_watch_close(w->exit_watch);
    w->channel = cm_channel_close(w->channel);
    w->pidfd = cm_fd_close(w->pidfd);
    w->checkpoint = cm_fd_close(w->checkpoint);
    DL_DELETE(w->m->workers, w);
    free(w);
    return NULL;
}

void cm_worker_discard(struct cm_worker *w)
{
    if (w->orphan) {
        free_worker(w);
        return;
    }
    w->session = NULL;
    w->channel = cm_channel_close(w->channel);
    set_state(w, CM_WORKER_DYING);
    send_signal(w, SIGKILL);
}

void cm_worker_kill(struct cm_worker *w, enum cm_label_death cause, const char *why)
{
    w->killed_for = why;
    w->killed_cause = cause;
    send_signal(w, SIGKILL);
}

static void own(struct cm_worker *w, struct cm_session *s)
{
    DL_DELETE(w->m->workers, w);
    DL_PREPEND(w->m->workers, w);
    set_state(w, CM_WORKER_OWNED);
    w->session = s;
}

/* For walking from the youngest to the last that never had a session: few, however many sessions there are. */
static struct cm_worker *youngest(const struct cm_sessions *m)
{
    return m->workers ? m->workers->prev : NULL;
}

static struct cm_worker *next_older(const struct cm_worker *w)
{
    return w == w->m->workers || w->prev->state == CM_WORKER_OWNED ? NULL : w->prev;
}

/* Its process, if there is one, is out of our sight. Where it was to restore a session it may still be at it, so the next
 * one has to wait for the end of its channel, which comes when its memory is gone. */
static void lose_sight(struct cm_worker *w)
{
    struct cm_session *s = w->session;

    cm_strays_expect(w->m);
    if (s && !w->hung_up) {
        set_state(w, CM_WORKER_DYING);
        w->exit_watch = cm_watch_close(w->exit_watch);
        w->pidfd = cm_fd_close(w->pidfd);
        w->orphan = true;
        cm_channel_finish(w->channel);
        return;
    }
    if (s)
        cm_session_wait_again(s, &w->checkpoint);
    free_worker(w);
}

/* A worker was promised and did not come: whoever has waited longest learns it, unless it was for a session that is to
 * be restored, which gets another one. The pool takes a breath. */
static void spawn_went_wrong(struct cm_sessions *m, bool for_session, const char *why)
{
    struct cm_err err;

    cm_metrics_add(m->metrics, CM_M_SPAWN_FAILURES, 0, 1);
    cm_log(CM_LOG_ERROR, "spawn_failed", CM_LOG_STR("why", why));
    m->spawn_pause_ns = cm_clock_ns() + SPAWN_PAUSE_NS;
    cm_err_set(&err, CM_ERR_SANDBOX, "a sandbox process could not start: %s", why);
    if (!for_session && m->waiting)
        cm_session_event(m->waiting, CM_SE_FAILED, &(struct cm_session_input){.err = &err});
    cm_workers_want(m);
}

/* death */

static bool reap(int pidfd, siginfo_t *ret)
{
    *ret = (siginfo_t){0};
    if (waitid(P_PIDFD, (id_t)pidfd, ret, WEXITED | WNOHANG) < 0)
        return errno != EINTR; /* not our child: it is gone all the same */
    return ret->si_pid != 0;
}

static enum cm_label_death describe(const struct cm_worker *w, const siginfo_t *si, struct cm_err *err)
{
    if (w->crashed) {
        cm_err_set(err, CM_ERR_SESSION_LOST, "the session's process crashed by a fault of our own: %s", w->trap);
        return CM_L_DEATH_CRASH;
    }
    if (w->killed_for) {
        cm_err_set(err, CM_ERR_SESSION_LOST, "%s", w->killed_for);
        return w->killed_cause;
    }
    if (w->trap[0]) {
        cm_err_set(err, CM_ERR_SESSION_LOST, "the session's process trapped: %s", w->trap);
        return CM_L_DEATH_TRAP;
    }
    if (w->hung_up && si->si_code == CLD_KILLED && si->si_status == SIGKILL) {
        /* By us, as on_closed() does; or by someone else a moment before, which ends its channel as well. */
        cm_err_set(err, CM_ERR_SESSION_LOST, "the session's process was killed by SIGKILL, or hung up");
        return CM_L_DEATH_SIGNAL;
    }
    if (si->si_code == CLD_KILLED || si->si_code == CLD_DUMPED) {
        const char *name = sigabbrev_np(si->si_status);
        cm_err_set(err, CM_ERR_SESSION_LOST, "the session's process was killed by SIG%s", name ? name : "?");
        return CM_L_DEATH_SIGNAL;
    }
    cm_err_set(err, CM_ERR_SESSION_LOST, "the session's process ended with exit status %d", si->si_status);
    return CM_L_DEATH_EXIT;
}

static void on_exit_event(void *arg, int events)
{
    struct cm_worker *w = arg;
    struct cm_sessions *m = w->m;
    struct cm_err err = {0};
    siginfo_t si;

    (void)events;
    cm_channel_drain(w->channel); /* may change the worker's state, never its life */
    if (!reap(w->pidfd, &si))
        return;
    struct cm_session *s = w->session;
    bool spawning = w->state == CM_WORKER_SPAWNING;
    if (w->state != CM_WORKER_DYING) {
        enum cm_label_death cause = describe(w, &si, &err);
        cm_metrics_add(m->metrics, CM_M_WORKER_DEATHS, cause, 1);
        cm_log(CM_LOG_WARNING, "worker_died", CM_LOG_INT("pid", w->pid), CM_LOG_STR("session", s ? s->id : NULL),
               CM_LOG_STR("why", err.text));
    }
    bool says_why = w->trap[0] != '\0';
    cm_autofd int checkpoint = cm_steal_fd(&w->checkpoint);
    free_worker(w);
    if (!spawning && s) {
        cm_session_event(s, CM_SE_DEATH, &(struct cm_session_input){.err = &err, .checkpoint = &checkpoint});
    } else if (s && says_why) { /* what is saved cannot be used: the next one would say the same */
        s->worker = NULL;
        cm_session_event(s, CM_SE_FAILED, &(struct cm_session_input){.err = &err});
    } else if (spawning) {
        if (s)
            cm_session_wait_again(s, &checkpoint);
        spawn_went_wrong(m, s != NULL, err.text);
    }
    cm_workers_want(m);
}

/* A worker that breaks the protocol is a guest that has got out of hand. It is ended, and its end reported, like any
 * other's: until it is gone it may still write to what it has saved. */
static void violation(struct cm_worker *w, const struct cm_err *why)
{
    if (w->killed_for)
        return;
    cm_log(CM_LOG_ERROR, "protocol_violation", CM_LOG_INT("pid", w->pid),
           CM_LOG_STR("session", w->session ? w->session->id : NULL), CM_LOG_STR("why", why->text));
    cm_printable(w->trap, sizeof w->trap, why->text, strlen(why->text));
    cm_worker_kill(w, CM_L_DEATH_PROTOCOL, "the session's process broke the protocol and was ended");
}

/* frames */

static void become_available(struct cm_worker *w)
{
    struct cm_sessions *m = w->m;

    if (!w->ready || w->pidfd < 0)
        return;
    cm_metrics_observe_ns(m->metrics, CM_M_SPAWN_DURATION, cm_clock_ns() - w->asked_ns);
    struct cm_session *s = w->session ? w->session : m->waiting;
    if (s) {
        own(w, s);
        cm_session_event(s, CM_SE_WORKER, &(struct cm_session_input){.worker = w});
    } else {
        set_state(w, CM_WORKER_SPARE);
    }
    cm_workers_want(m);
}

/* A bug of the sandbox: the log keeps all of the report. */
static void note_crash(struct cm_worker *w, const struct cm_ipc_fields *f)
{
    char report[3200];
    size_t len;
    const char *text = cm_ipc_get_bytes(f, CM_FIELD_ERROR, &len);

    if (w->crashed) /* one report: whoever has taken a worker over must not fill the log */
        return;
    text = text ? text : "no reason given";
    len = len ? len : strlen(text);
    printable_lines(report, sizeof report, text, len);
    cm_printable(w->trap, sizeof w->trap, report, strcspn(report, "\n"));
    w->crashed = true;
    cm_log(CM_LOG_ERROR, "worker_crashed", CM_LOG_INT("pid", w->pid),
           CM_LOG_STR("session", w->session ? w->session->id : NULL), CM_LOG_STR("report", report));
    send_signal(w, SIGKILL); /* as after a trap */
}

static void on_frame(void *arg, const struct cm_ipc_header *head, const struct cm_ipc_fields *f, int *fd)
{
    struct cm_worker *w = arg;
    struct cm_err err = {0};
    size_t len;

    (void)fd;
    if (w->killed_for || w->orphan)
        return; /* it is as good as dead */
    if (head->type == CM_MSG_TRAP) {
        const char *text = cm_ipc_get_bytes(f, CM_FIELD_ERROR, &len);
        cm_printable(w->trap, sizeof w->trap, text ? text : "no reason given", text ? len : 15);
        send_signal(w, SIGKILL); /* it ends after this frame, whether it wants to or not */
    } else if (head->type == CM_MSG_CRASH) {
        note_crash(w, f);
    } else if (head->type == CM_MSG_READY && w->state == CM_WORKER_SPAWNING && !w->ready) {
        w->ready = true;
        w->seq = cm_ipc_get_uint(f, CM_FIELD_SEQ, 0);
        become_available(w);
    } else if (head->type == CM_MSG_READY || w->state != CM_WORKER_OWNED) {
        cm_err_set(&err, CM_ERR_PROTOCOL, "%s frame out of place", cm_ipc_message(head->type)->name);
        violation(w, &err);
    } else if (cm_session_frame(w->session, head, f, &err) < 0) {
        violation(w, &err);
    }
}

static void on_closed(void *arg, const struct cm_err *err)
{
    struct cm_worker *w = arg;

    /* The channel object stays until the worker is reaped: whoever sends meanwhile need not know. */
    w->hung_up = true;
    if (w->orphan)
        lose_sight(w);
    else if (err)
        violation(w, err);
    else
        send_signal(w, SIGKILL);
}

static const struct cm_channel_ops channel_ops = {on_frame, on_closed};

/* birth */

/* Sealing is for the worker, who knows its size; a kernel that is told to refuse executable ones wants to hear it. */
static int new_checkpoint(struct cm_err *err)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd = memfd_create("checkpoint", flags | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
        fd = memfd_create("checkpoint", flags);
    return fd >= 0 ? fd : cm_err_sys(err, errno, "make a checkpoint");
}

static int send_begin(const struct cm_worker *w, struct cm_err *err)
{
    struct cm_ipc_msg msg;
    int fd = fcntl(w->checkpoint, F_DUPFD_CLOEXEC, 0);

    if (fd < 0)
        return cm_err_sys(err, errno, "pass the checkpoint on");
    cm_ipc_msg_begin(&msg, CM_MSG_BEGIN, 0);
    cm_ipc_put_uint(&msg, CM_FIELD_MEMORY_LIMIT, (uint64_t)w->m->config.caps.at[CM_LIMIT_MEMORY]);
    cm_ipc_put_uint(&msg, CM_FIELD_SEQ, w->session ? w->session->undo_seq : 0);
    return cm_channel_send(w->channel, &msg, fd, err);
}

static int open_worker(struct cm_worker *w, struct cm_err *err)
{
    int pair[2];

    if (w->checkpoint < 0 && (w->checkpoint = new_checkpoint(err)) < 0)
        return err->code;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return cm_err_sys(err, errno, "socketpair");
    cm_autofd int theirs = pair[1];
    w->channel = cm_channel_open(w->m->loop, pair[0], CM_IPC_GATEWAY, CM_IPC_WORKER, OUT_MAX, &channel_ops, w, err);
    if (!w->channel || send_begin(w, err) < 0)
        return err->code;
    return cm_zygote_spawn(w->m, w->spawn_id, cm_steal_fd(&theirs), err);
}

/* For a session that is to be restored; or, without one, for whoever comes. */
static int spawn(struct cm_sessions *m, struct cm_session *s, struct cm_err *err)
{
    struct cm_worker *w = calloc(1, sizeof *w);

    if (!w)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a worker");
    *w = (struct cm_worker){
        .m = m, .state = CM_WORKER_DYING, .pidfd = -1, .spawn_id = ++m->next_spawn, .session = s, .checkpoint = -1};
    if (s)
        w->checkpoint = cm_steal_fd(&s->checkpoint);
    DL_APPEND(m->workers, w);
    w->asked_ns = cm_clock_ns();
    if (open_worker(w, err) < 0) {
        if (s)
            s->checkpoint = cm_steal_fd(&w->checkpoint);
        free_worker(w);
        return err->code;
    }
    set_state(w, CM_WORKER_SPAWNING);
    if (s)
        s->worker = w;
    return 0;
}

/* SPAWNING as a rule; DYING when its first words were wrong. */
static struct cm_worker *find_unnamed(struct cm_sessions *m, uint64_t spawn_id)
{
    struct cm_worker *w = youngest(m);

    while (w && !(w->spawn_id == spawn_id && w->pidfd < 0 && !w->orphan))
        w = next_older(w);
    return w;
}

void cm_worker_spawned(struct cm_sessions *m, uint64_t spawn_id, int pid, int pidfd)
{
    struct cm_worker *w = find_unnamed(m, spawn_id);
    struct cm_err err = {0};
    siginfo_t si;

    /* WNOWAIT asks without reaping: only a child of ours can be watched over. */
    if (!w || pid <= 0 || waitid(P_PIDFD, (id_t)pidfd, &si, WEXITED | WNOHANG | WNOWAIT) < 0) {
        close(pidfd);
        cm_zygote_kill(m, "it named a process that is no child of this one");
        return;
    }
    w->pid = pid;
    w->pidfd = pidfd;
    w->exit_watch = cm_watch_open(m->loop, pidfd, CM_EV_READ, on_exit_event, w, &err);
    if (!w->exit_watch) { /* nobody would notice its end */
        bool for_session = w->session != NULL;
        send_signal(w, SIGKILL);
        lose_sight(w);
        spawn_went_wrong(m, for_session, err.text);
    } else if (w->state == CM_WORKER_DYING || w->killed_for) {
        send_signal(w, SIGKILL);
    } else {
        become_available(w);
    }
}

void cm_worker_spawn_failed(struct cm_sessions *m, uint64_t spawn_id, const char *why)
{
    struct cm_worker *w = find_unnamed(m, spawn_id);

    if (!w)
        return;
    bool counted = w->state == CM_WORKER_DYING, for_session = w->session != NULL;
    lose_sight(w);
    if (!counted)
        spawn_went_wrong(m, for_session, why);
}

void cm_workers_lost_with_zygote(struct cm_sessions *m)
{
    struct cm_worker *w, *next;

    DL_FOREACH_SAFE(m->workers, w, next)
    {
        if (w->pidfd < 0 && !w->orphan)
            lose_sight(w); /* if it was born, the end of its channel ends it, and it is reaped without a name */
    }
    cm_workers_want(m);
}

struct cm_worker *cm_worker_take_spare(struct cm_sessions *m, struct cm_session *s)
{
    struct cm_worker *w = m->spares > 0 ? youngest(m) : NULL;

    while (w && w->state != CM_WORKER_SPARE)
        w = next_older(w);
    if (w)
        own(w, s);
    return w;
}

/* Sessions that have lost their worker come first: somebody works with them. */
static bool spawn_next(struct cm_sessions *m)
{
    struct cm_session *s = m->restoring;
    struct cm_err err = {0};

    if (s)
        cm_session_stop_waiting(s);
    if (spawn(m, s, &err) == 0)
        return true;
    if (s)
        cm_session_wait_again(s, &s->checkpoint);
    spawn_went_wrong(m, s != NULL, err.text);
    return false;
}

static bool is_wanted(const struct cm_sessions *m)
{
    bool paused = cm_clock_ns() < m->spawn_pause_ns;

    return (m->restoring && !paused) || m->spares + m->spawning < m->waiters + (paused ? 0 : m->config.spare_workers);
}

static void refill(void *arg)
{
    struct cm_sessions *m = arg;

    while (m->zygote.state == CM_ZYGOTE_UP && m->spawning < CM_SPAWNS_AT_ONCE && !m->ending && is_wanted(m) &&
           spawn_next(m))
        ;
}

void cm_workers_want(struct cm_sessions *m)
{
    if (!m->ending)
        cm_task_post(m->loop, &m->refill, refill, m);
}

void cm_workers_check(struct cm_sessions *m)
{
    uint64_t now = cm_clock_ns();

    for (struct cm_worker *w = youngest(m); w; w = next_older(w)) {
        if (w->state != CM_WORKER_SPAWNING || now - w->asked_ns < CM_SPAWN_DEADLINE_MS * CM_NS_PER_MS)
            continue;
        if (w->pidfd >= 0) {
            send_signal(w, SIGKILL); /* on_exit_event does the rest */
        } else {
            cm_zygote_kill(m, "it does not answer");
            return;
        }
    }
    cm_workers_want(m);
}

void cm_workers_end(struct cm_sessions *m)
{
    uint64_t until = cm_clock_ns() + END_DEADLINE_MS * CM_NS_PER_MS;
    struct cm_worker *w, *next;
    siginfo_t si;

    DL_FOREACH_SAFE(m->workers, w, next)
    {
        if (w->pidfd < 0)
            cm_strays_expect(m);
        cm_worker_discard(w);
    }
    DL_FOREACH_SAFE(m->workers, w, next)
    {
        uint64_t now = cm_clock_ns();
        struct pollfd p = {.fd = w->pidfd, .events = POLLIN};
        if (w->pidfd >= 0 && poll(&p, 1, now < until ? (int)((until - now) / CM_NS_PER_MS) : 0) == 1)
            reap(w->pidfd, &si);
        free_worker(w);
    }
}
