/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces, entered once by the zygote: making a network namespace takes longer than starting a worker. There is
 * none for process ids. Workers are the server's own children, so each would have to be process 1 of a namespace of
 * its own, made at its fork by a zygote that still has CAP_SYS_ADMIN; to have dropped that is worth more, for a
 * worker has no call that takes a process id. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/parts.h"

#define ALL   (CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)
#define PLACE "/proc" /* a folder that is there; the new root is mounted on it, in our namespace only */

static int write_proc(const char *path, const char *text, struct cm_err *err)
{
    cm_autofd int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return cm_err_sys(err, errno, "write %s", path);
    return 0;
}

/* The same numbers inside: an unprivileged process may map itself and nobody else. */
static int map_self(uid_t uid, gid_t gid, struct cm_err *err)
{
    char line[64];
    snprintf(line, sizeof line, "%u %u 1", (unsigned)uid, (unsigned)uid);
    int rc = write_proc("/proc/self/uid_map", line, err);
    if (!rc)
        rc = write_proc("/proc/self/setgroups", "deny", err);
    snprintf(line, sizeof line, "%u %u 1", (unsigned)gid, (unsigned)gid);
    return rc ? rc : write_proc("/proc/self/gid_map", line, err);
}

/* An empty folder that cannot be written becomes the root, and the old one is let go. */
static int empty_root(struct cm_err *err)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return cm_err_sys(err, errno, "make mounts private");
    if (mount("none", PLACE, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,nr_inodes=2,mode=555"))
        return cm_err_sys(err, errno, "mount an empty folder");
    if (chdir(PLACE) || syscall(SYS_pivot_root, ".", "."))
        return cm_err_sys(err, errno, "make it the root");
    if (umount2(".", MNT_DETACH) || chdir("/"))
        return cm_err_sys(err, errno, "let go of the old root");
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
        return cm_err_sys(err, errno, "make the root read-only");
    return 0;
}

int cm_namespaces_enter(bool with_user, struct cm_err *err)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (unshare(ALL | (with_user ? CLONE_NEWUSER : 0)))
        return cm_err_sys(err, errno, with_user ? "enter a user namespace" : "enter namespaces");
    int rc = with_user ? map_self(uid, gid, err) : 0;
    return rc ? rc : empty_root(err);
}

static int enter(const void *arg, struct cm_err *err)
{
    return cm_namespaces_enter(*(const bool *)arg, err);
}

bool cm_namespaces_probe(bool *ret_user, char *why)
{
    *ret_user = !(cm_caps_effective() >> CAP_SYS_ADMIN & 1);
    if (!*ret_user || geteuid() != 0)
        return cm_jail_try(enter, ret_user, why);
    snprintf(why, CM_WHY_MAX, "it is started by root without CAP_SYS_ADMIN");
    return false;
}
