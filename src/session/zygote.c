/* SPDX-License-Identifier: Apache-2.0 */
/* The zygote's client. It is started with an empty environment and four descriptors: nothing, nothing, our stderr for
 * a crash report, and its channel. When it dies it is started again, after a pause that doubles while it keeps dying;
 * workers are our own children and do not notice. */
#include "session/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "jail/cgroup.h"
#include "jail/layers.h"
#include "obs/log.h"

#define HELLO_DEADLINE_MS 10000
#define BACKOFF_FIRST_MS  50
#define BACKOFF_MAX_MS    2000
#define LIVED_LONG_NS     (10 * CM_NS_PER_S) /* the pause starts small again after such a life */
#define END_DEADLINE_MS   1000
#define ZYGOTE_FD         3
#define OUT_MAX           65536
#define ARGS_MAX          16

static void on_exit_event(void *arg, int events);

/* frames */

#define CM_LAYER(id, name, class, purpose, remedy)                                                                     \
    _Static_assert((int)CM_L_LAYER_##id == (int)CM_LAYER_##id, "metrics.def lists the layers in their order");
#include "layers.def"
#undef CM_LAYER

static void show_layers(struct cm_sessions *m, uint32_t on)
{
    if (m->config.cgroup)
        on |= 1u << CM_LAYER_CGROUP;
    for (unsigned i = 0; i < CM_LAYER_COUNT; i++)
        cm_metrics_set(m->metrics, CM_M_LAYER_ACTIVE, i, on >> i & 1);
}

static void on_hello(struct cm_sessions *m, const struct cm_ipc_fields *f)
{
    struct cm_zygote *z = &m->zygote;
    size_t len = 0;
    const char *image = cm_ipc_get_bytes(f, CM_FIELD_IMAGE_HASH, &len);
    uint32_t layers = (uint32_t)cm_ipc_get_uint(f, CM_FIELD_LAYERS, 0);

    /* It tries out what the machine allows, and a machine that is short of something may refuse for a moment. */
    if (z->layers & ~layers) {
        cm_zygote_kill(m, "it has put on fewer layers than the one before it");
        return;
    }
    z->layers = layers;
    cm_printable(z->image, sizeof z->image, image, len);
    cm_metrics_info(m->metrics, "image", z->image);
    show_layers(m, layers);
    z->state = CM_ZYGOTE_UP;
    cm_timer_stop(z->timer);
    cm_log(CM_LOG_INFO, "zygote_ready", CM_LOG_INT("pid", z->pid), CM_LOG_STR("image", z->image),
           CM_LOG_REAL("seconds", (double)(cm_clock_ns() - z->started_ns) / 1e9));
    cm_workers_want(m);
}

static void on_frame(void *arg, const struct cm_ipc_header *head, const struct cm_ipc_fields *f, int *fd)
{
    struct cm_sessions *m = arg;
    char why[300];
    size_t len;

    switch (head->type) {
    case CM_MSG_HELLO:
        if (m->zygote.state == CM_ZYGOTE_STARTING)
            on_hello(m, f);
        else
            cm_zygote_kill(m, "it said hello twice");
        break;
    case CM_MSG_SPAWNED:
        cm_worker_spawned(m, head->id, (int)cm_ipc_get_uint(f, CM_FIELD_PID, 0), cm_steal_fd(fd));
        break;
    case CM_MSG_SPAWN_FAILED: {
        const char *text = cm_ipc_get_bytes(f, CM_FIELD_ERROR, &len);
        cm_printable(why, sizeof why, text, len);
        cm_worker_spawn_failed(m, head->id, why);
        break;
    }
    default: /* the channel lets no other type of a zygote's through */
        break;
    }
}

static void on_closed(void *arg, const struct cm_err *err)
{
    struct cm_sessions *m = arg;

    if (err)
        cm_zygote_kill(m, err->text);
    else /* it is ending already, or has to */
        pidfd_send_signal(m->zygote.pidfd, SIGKILL, NULL, 0);
}

static const struct cm_channel_ops channel_ops = {on_frame, on_closed};

/* start */

static int start_process(const struct cm_sessions *m, int channel_fd, pid_t *ret_pid, struct cm_err *err)
{
    char *argv[ARGS_MAX] = {m->sandbox_path, "--image", m->image_path};
    char *empty_environment[] = {NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t all, none;

    for (int i = 0; i < ARGS_MAX - 4 && m->config.sandbox_args && m->config.sandbox_args[i]; i++)
        argv[3 + i] = (char *)m->config.sandbox_args[i];
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    int r = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    r = r ? r : posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    r = r ? r : posix_spawn_file_actions_adddup2(&files, channel_fd, ZYGOTE_FD);
    r = r ? r : posix_spawn_file_actions_addclosefrom_np(&files, ZYGOTE_FD + 1);
    r = r ? r : posix_spawnattr_setsigdefault(&attr, &all);
    r = r ? r : posix_spawnattr_setsigmask(&attr, &none);
    /* A session of its own: Ctrl-C at a terminal is for us, not for the zygote and its workers. */
    r = r ? r : posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
    r = r ? r : posix_spawn(ret_pid, m->sandbox_path, &files, &attr, argv, empty_environment);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    if (r != 0) {
        cm_err_sys(err, r, "start %s", m->sandbox_path);
        return err->code = CM_ERR_SANDBOX;
    }
    return 0;
}

static int open_zygote(struct cm_sessions *m, struct cm_err *err)
{
    struct cm_zygote *z = &m->zygote;
    int pair[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return cm_err_sys(err, errno, "socketpair");
    cm_autofd int theirs = pair[1];
    z->channel = cm_channel_open(m->loop, pair[0], CM_IPC_GATEWAY, CM_IPC_ZYGOTE, OUT_MAX, &channel_ops, m, err);
    if (!z->channel || start_process(m, theirs, &pid, err) < 0)
        return err->code;
    z->pid = pid;
    z->pidfd = pidfd_open(pid, 0); /* our child and not reaped: the pid is still its own */
    if (z->pidfd >= 0)
        z->exit_watch = cm_watch_open(m->loop, z->pidfd, CM_EV_READ, on_exit_event, m, err);
    else
        cm_err_sys(err, errno, "pidfd_open");
    if (z->exit_watch && (!m->config.cgroup || cm_cgroup_add(m->config.cgroup, pid, err) == 0))
        return 0;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return err->code;
}

static void forget(struct cm_zygote *z)
{
    z->exit_watch = cm_watch_close(z->exit_watch);
    z->channel = cm_channel_close(z->channel);
    z->pidfd = cm_fd_close(z->pidfd);
    z->pid = 0;
    z->state = CM_ZYGOTE_DOWN;
}

static void start_later(struct cm_sessions *m)
{
    struct cm_zygote *z = &m->zygote;

    if (cm_clock_ns() - z->started_ns > LIVED_LONG_NS || z->backoff_ms == 0)
        z->backoff_ms = BACKOFF_FIRST_MS;
    cm_timer_start(z->timer, z->backoff_ms, 0);
    z->backoff_ms = z->backoff_ms * 2 < BACKOFF_MAX_MS ? z->backoff_ms * 2 : BACKOFF_MAX_MS;
}

static void on_timer(void *arg)
{
    struct cm_sessions *m = arg;
    struct cm_err err = {0};

    if (m->zygote.state == CM_ZYGOTE_STARTING) {
        cm_zygote_kill(m, "it did not say hello in time");
        return;
    }
    cm_metrics_add(m->metrics, CM_M_ZYGOTE_RESTARTS, 0, 1);
    if (cm_zygote_start(m, &err) < 0) {
        cm_log(CM_LOG_ERROR, "zygote_not_started", CM_LOG_STR("why", err.text));
        start_later(m);
    }
}

int cm_zygote_start(struct cm_sessions *m, struct cm_err *err)
{
    struct cm_zygote *z = &m->zygote;

    if (!z->timer) {
        z->pidfd = -1;
        z->timer = cm_timer_open(m->loop, on_timer, m, err);
        if (!z->timer)
            return err->code;
    }
    z->started_ns = cm_clock_ns();
    if (open_zygote(m, err) < 0) {
        forget(z);
        return err->code;
    }
    z->state = CM_ZYGOTE_STARTING;
    cm_timer_start(z->timer, HELLO_DEADLINE_MS, 0);
    cm_log(CM_LOG_DEBUG, "zygote_started", CM_LOG_INT("pid", z->pid));
    return 0;
}

/* work and end */

int cm_zygote_spawn(struct cm_sessions *m, uint64_t spawn_id, int fd, struct cm_err *err)
{
    struct cm_ipc_msg msg;

    cm_ipc_msg_begin(&msg, CM_MSG_SPAWN, spawn_id);
    return cm_channel_send(m->zygote.channel, &msg, fd, err);
}

void cm_zygote_kill(struct cm_sessions *m, const char *why)
{
    if (m->zygote.pidfd < 0)
        return;
    cm_log(CM_LOG_ERROR, "zygote_killed", CM_LOG_INT("pid", m->zygote.pid), CM_LOG_STR("why", why));
    pidfd_send_signal(m->zygote.pidfd, SIGKILL, NULL, 0);
}

static void on_exit_event(void *arg, int events)
{
    struct cm_sessions *m = arg;
    struct cm_zygote *z = &m->zygote;
    siginfo_t si = {0};

    (void)events;
    cm_channel_drain(z->channel); /* a worker that was named in its last words is not lost */
    if (waitid(P_PIDFD, (id_t)z->pidfd, &si, WEXITED | WNOHANG) == 0 && si.si_pid == 0)
        return;
    const char *sig = si.si_code == CLD_EXITED ? NULL : sigabbrev_np(si.si_status);
    cm_log(CM_LOG_ERROR, "zygote_died", CM_LOG_INT("pid", z->pid), CM_LOG_STR("signal", sig),
           CM_LOG_INT("status", si.si_status));
    forget(z);
    cm_strays_expect(m); /* it may have had children that it did not name, or not truly */
    cm_workers_lost_with_zygote(m);
    start_later(m);
}

void cm_zygote_end(struct cm_sessions *m)
{
    struct cm_zygote *z = &m->zygote;
    struct pollfd p = {.fd = z->pidfd, .events = POLLIN};
    siginfo_t si;

    if (!z->timer)
        return; /* never started */
    if (z->pidfd >= 0) {
        pidfd_send_signal(z->pidfd, SIGKILL, NULL, 0);
        if (poll(&p, 1, END_DEADLINE_MS) == 1)
            waitid(P_PIDFD, (id_t)z->pidfd, &si, WEXITED);
        cm_channel_drain(z->channel); /* workers that it has named meanwhile */
    }
    forget(z);
    z->timer = cm_timer_close(z->timer);
}
