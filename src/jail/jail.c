/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/filter.h"

/* ---- the steps */

static int die_with(pid_t parent, struct cm_err *err)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        return cm_err_sys(err, errno, "die with the parent");
    if (getppid() != parent) /* it went before we asked */
        return cm_err_set(err, CM_ERR_SANDBOX, "the parent is gone");
    return 0;
}

static int no_new_privileges(struct cm_err *err)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return cm_err_sys(err, errno, "set no_new_privs");
    return 0;
}

/* A descriptor may stand where another one has to go, so all of them are moved out of the way first. */
static int only_these(const struct cm_jail_worker *w, struct cm_err *err)
{
    int high[CM_JAIL_FDS_MAX];
    if (w->fd_count < 1 || w->fd_count > CM_JAIL_FDS_MAX)
        return cm_err_set(err, CM_ERR_SANDBOX, "%u descriptors for a worker", w->fd_count);
    for (unsigned i = 0; i < w->fd_count; i++) {
        high[i] = w->fds[i] < 0 ? -1 : fcntl(w->fds[i], F_DUPFD, CM_JAIL_FDS_MAX);
        if (w->fds[i] >= 0 && high[i] < 0)
            return cm_err_sys(err, errno, "move descriptor %d", w->fds[i]);
    }
    for (unsigned i = 0; i < w->fd_count; i++)
        if (high[i] < 0)
            close((int)i);
        else if (dup2(high[i], (int)i) < 0)
            return cm_err_sys(err, errno, "make descriptor %u", i);
    if (syscall(SYS_close_range, w->fd_count, ~0u, 0))
        return cm_err_sys(err, errno, "close descriptors");
    return 0;
}

static int no_files_no_core(uint64_t file_max, struct cm_err *err)
{
    static const int none[] = {RLIMIT_CORE, RLIMIT_MEMLOCK, RLIMIT_NPROC};
    const struct rlimit zero = {0, 0}, one = {1, 1}, file = {file_max, file_max};
    for (unsigned i = 0; i < CM_COUNT_OF(none); i++)
        if (setrlimit((__rlimit_resource_t)none[i], &zero))
            return cm_err_sys(err, errno, "set resource limit %d", none[i]);
    if (setrlimit(RLIMIT_FSIZE, &file))
        return cm_err_sys(err, errno, "limit the size of files");
    if (setrlimit(RLIMIT_NOFILE, &one)) /* the kept ones stay open, and no other fits */
        return cm_err_sys(err, errno, "limit descriptors");
    return 0;
}

int cm_jail_zygote(pid_t parent, struct cm_err *err)
{
    if (die_with(parent, err))
        return cm_err_wrap(err, "jail step 1 of 2");
    return no_new_privileges(err) ? cm_err_wrap(err, "jail step 2 of 2") : 0;
}

int cm_jail_worker(const struct cm_jail_worker *w, struct cm_err *err)
{
    int step = 1, rc;
    /* 1: first, so that nothing of what follows can outlive the gateway */
    rc = die_with(w->parent, err);
    /* 2: the image, the zygote's channel and standard streams are not for guests */
    if (!rc && step++)
        rc = only_these(w, err);
    /* 3: what a system call that we allow could still do to the machine */
    if (!rc && step++)
        rc = no_files_no_core(w->file_max, err);
    /* 4: no other process of the user may look into this one, and its /proc entries are root's */
    if (!rc && step++ && prctl(PR_SET_DUMPABLE, 0))
        rc = cm_err_sys(err, errno, "clear dumpable");
    /* 5: wanted by the filter of an unprivileged process; also ends set-user-id for good */
    if (!rc && step++)
        rc = no_new_privileges(err);
    /* 6: last, for it forbids all of the above */
    if (!rc && step++)
        rc = cm_jail_filter_load(cm_jail_calls, cm_jail_calls_count, CM_JAIL_WORKER, err);
    return rc ? cm_err_wrap(err, "jail step %d of 6", step) : 0;
}

int cm_jail_open_self(const char *name, struct cm_err *err)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 ? fd : cm_err_sys(err, errno, "open %s", path);
}
