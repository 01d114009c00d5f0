/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fd.h"

/* Where a stream of the child goes: a pipe's ends, or -1 where it is inherited. */
struct stream {
    struct cm_buf *to;
    int from, child;
};

static bool open_stream(struct stream *s, struct cm_buf *to)
{
    int ends[2] = {-1, -1};

    *s = (struct stream){to, -1, -1};
    if (to && pipe2(ends, O_CLOEXEC) < 0)
        return false;
    s->from = ends[0];
    s->child = ends[1];
    return true;
}

static int spawn(char *const *argv, const struct stream *out, const struct stream *err, pid_t *ret)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t defaults;

    /* We ignore SIGPIPE; the child should not have to. */
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (out->child >= 0)
        posix_spawn_file_actions_adddup2(&files, out->child, STDOUT_FILENO);
    if (err->child >= 0)
        posix_spawn_file_actions_adddup2(&files, err->child, STDERR_FILENO);
    int rc = posix_spawnp(ret, argv[0], &files, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return rc;
}

/* One read; false at the end. */
static bool drain(struct stream *s)
{
    char piece[4096];
    ssize_t n = read(s->from, piece, sizeof piece);

    if (n < 0)
        return errno == EINTR;
    if (n > 0) {
        size_t room = s->to->max - s->to->len;
        cm_buf_append(s->to, piece, (size_t)n < room ? (size_t)n : room);
    }
    return n > 0;
}

/* Until the child has ended and closed its streams, or the deadline. False: the deadline. */
static bool watch(int pidfd, struct stream *out, struct stream *err, uint64_t deadline_ns)
{
    bool ended = false;

    while (!ended || out->from >= 0 || err->from >= 0) {
        uint64_t now = cm_clock_ns();
        struct pollfd fds[] = {{ended ? -1 : pidfd, POLLIN, 0}, {out->from, POLLIN, 0}, {err->from, POLLIN, 0}};
        if (now >= deadline_ns)
            return ended;
        int n = poll(fds, 3, (int)((deadline_ns - now) / CM_NS_PER_MS) + 1);
        if (n < 0 && errno != EINTR)
            return false;
        if (n <= 0)
            continue;
        ended |= fds[0].revents != 0;
        if (fds[1].revents && !drain(out))
            out->from = cm_fd_close(out->from);
        if (fds[2].revents && !drain(err))
            err->from = cm_fd_close(err->from);
    }
    return true;
}

static int wait_for(pid_t pid, struct stream *out, struct stream *err, unsigned timeout_s)
{
    int status = 0, pidfd = pidfd_open(pid, 0);
    bool in_time = pidfd >= 0 && watch(pidfd, out, err, cm_clock_ns() + timeout_s * CM_NS_PER_S);

    if (!in_time)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    cm_fd_close(pidfd);
    if (!in_time)
        return CM_CHILD_TIMEOUT;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int cm_child_run(char *const *argv, unsigned timeout_s, struct cm_buf *out, struct cm_buf *err)
{
    struct stream o, e;
    pid_t pid;
    int rc = CM_CHILD_FAILED;

    if (open_stream(&o, out) && open_stream(&e, err)) {
        rc = spawn(argv, &o, &e, &pid);
        o.child = cm_fd_close(o.child);
        e.child = cm_fd_close(e.child);
        rc = rc == 0 ? wait_for(pid, &o, &e, timeout_s) : rc == ENOENT ? CM_CHILD_NOT_FOUND : CM_CHILD_FAILED;
        cm_fd_close(e.from);
    }
    cm_fd_close(o.from);
    cm_fd_close(o.child);
    return rc;
}
