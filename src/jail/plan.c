/* SPDX-License-Identifier: Apache-2.0 */
/* Which layers this machine has, and which of them are therefore on. */
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/jail.h"
#include "jail/parts.h"

#define GET_MDWE 66

static int status_of(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return status;
}

static _Noreturn void try_and_tell(int to, int (*step)(const void *, struct cm_err *), const void *arg)
{
    struct cm_err err;
    if (!step(arg, &err))
        _exit(0);
    _exit(write(to, err.text, strlen(err.text)) < 0 ? 2 : 1);
}

bool cm_jail_try(int (*step)(const void *arg, struct cm_err *err), const void *arg, char *why)
{
    int words[2];
    if (pipe2(words, O_CLOEXEC)) {
        snprintf(why, CM_WHY_MAX, "pipe: %s", strerror(errno));
        return false;
    }
    pid_t child = fork();
    if (child == 0)
        try_and_tell(words[1], step, arg);
    close(words[1]);
    ssize_t n = child > 0 ? read(words[0], why, CM_WHY_MAX - 1) : -1;
    close(words[0]);
    why[n > 0 ? n : 0] = '\0';
    if (child > 0 && status_of(child) == 0)
        return true;
    if (n <= 0)
        snprintf(why, CM_WHY_MAX, child < 0 ? "no process to try it in" : "the kernel ended the process that tried it");
    return false;
}

static bool has_seccomp(char *why)
{
    unsigned action = SECCOMP_RET_KILL_PROCESS;
    if (!syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action))
        return true;
    snprintf(why, CM_WHY_MAX, "the kernel has no filter that ends a process: %s", strerror(errno));
    return false;
}

static bool has_oom_score(char *why)
{
    cm_autofd int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        snprintf(why, CM_WHY_MAX, "open /proc/self/oom_score_adj: %s", strerror(errno));
    return fd >= 0;
}

static bool has_mdwe(char *why)
{
    if (prctl(GET_MDWE, 0, 0, 0, 0) >= 0)
        return true;
    snprintf(why, CM_WHY_MAX, "the kernel knows no PR_SET_MDWE");
    return false;
}

static bool has_speculation_control(char *why)
{
    int state = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
    if (state >= 0 && (state == PR_SPEC_NOT_AFFECTED || state & PR_SPEC_PRCTL))
        return true;
    snprintf(why, CM_WHY_MAX, "processor and kernel do not let a process restrict store bypass");
    return false;
}

static bool has(enum cm_layer layer, struct cm_jail_plan *plan, char *why)
{
    switch (layer) {
    case CM_LAYER_USER:
        return cm_caps_probe_user(plan->uid, why);
    case CM_LAYER_LANDLOCK:
        return (plan->landlock_abi = cm_landlock_abi(why)) > 0;
    case CM_LAYER_SECCOMP:
        return has_seccomp(why);
    case CM_LAYER_OOM:
        return has_oom_score(why);
    case CM_LAYER_MDWE:
        return has_mdwe(why);
    case CM_LAYER_NAMESPACES:
        return cm_namespaces_probe(&plan->user_namespace, why);
    case CM_LAYER_SPECULATION:
        return has_speculation_control(why);
    case CM_LAYER_CGROUP:
        snprintf(why, CM_WHY_MAX, "the server puts its processes there, if CGROUP says where");
        return false;
    default:
        return true;
    }
}

int cm_jail_plan(const struct cm_layers_wish *wish, uid_t uid, struct cm_jail_plan *ret, struct cm_err *err)
{
    int rc = 0;
    *ret = (struct cm_jail_plan){.wish = *wish, .uid = uid};
    for (int i = 0; i < CM_LAYER_COUNT; i++) {
        if (!cm_layer_wanted((enum cm_layer)i, wish))
            snprintf(ret->why_off[i], CM_WHY_MAX, "it is off unless REQUIRE_LAYERS names it");
        else if (has((enum cm_layer)i, ret, ret->why_off[i]))
            ret->on |= 1u << i;
        /* The group is the server's own business, and it has looked already. */
        else if (!rc && i != CM_LAYER_CGROUP && !cm_layer_may_miss((enum cm_layer)i, wish))
            rc = cm_layer_missing((enum cm_layer)i, wish, ret->why_off[i], err);
    }
    return rc;
}
