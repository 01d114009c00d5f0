/* SPDX-License-Identifier: Apache-2.0 */
/* User and capabilities, by system calls alone: no library of the host may decide what is left. */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/parts.h"

#define HAS(set, cap) ((set) >> (cap) & 1)

typedef struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];

static int get(caps data)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    return (int)syscall(SYS_capget, &head, data);
}

uint64_t cm_caps_effective(void)
{
    caps c;
    return get(c) ? 0 : (uint64_t)c[1].effective << 32 | c[0].effective;
}

static int leave(const void *uid, struct cm_err *err)
{
    return cm_caps_leave_root(*(const uid_t *)uid, err);
}

/* SETPCAP is for the bounding set, which comes first. KILL is for the server, which has the capabilities of its
 * zygote: without it, it could not end a worker of another user. */
bool cm_caps_probe_user(uid_t uid, char *why)
{
    static const struct {
        int cap;
        const char *name;
    } needed[] = {{CAP_SETUID, "SETUID"}, {CAP_SETGID, "SETGID"}, {CAP_SETPCAP, "SETPCAP"}, {CAP_KILL, "KILL"}};
    uint64_t have = cm_caps_effective();
    if (geteuid() != 0 && getuid() != 0)
        return true;
    for (unsigned i = 0; i < CM_COUNT_OF(needed); i++)
        if (!HAS(have, needed[i].cap)) {
            snprintf(why, CM_WHY_MAX, "it is started by root without the capability %s", needed[i].name);
            return false;
        }
    return cm_jail_try(leave, &uid, why);
}

int cm_caps_bound(struct cm_err *err)
{
    const unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED |
                               SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                               SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) && errno != EINVAL)
        return cm_err_sys(err, errno, "clear ambient capabilities");
    if (!HAS(cm_caps_effective(), CAP_SETPCAP))
        return 0; /* nothing can be gained from the bounding set without a set-user-id program */
    for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
            return cm_err_sys(err, errno, "drop capability %lu from the bounding set", cap);
    return prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) ? cm_err_sys(err, errno, "lock the secure bits") : 0;
}

int cm_caps_drop(struct cm_err *err)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    caps none = {{0}};
    return syscall(SYS_capset, &head, none) ? cm_err_sys(err, errno, "drop capabilities") : 0;
}

int cm_caps_check(struct cm_err *err)
{
    caps c;
    if (get(c))
        return cm_err_sys(err, errno, "read capabilities");
    for (unsigned i = 0; i < CM_COUNT_OF(c); i++)
        if (c[i].effective | c[i].permitted | c[i].inheritable)
            return cm_err_set(err, CM_ERR_SANDBOX, "there are capabilities left");
    return 0;
}

int cm_caps_leave_root(uid_t uid, struct cm_err *err)
{
    if (geteuid() != 0 && getuid() != 0)
        return 0;
    if (setgroups(0, NULL) || setresgid(uid, uid, uid))
        return cm_err_sys(err, errno, "become group %u", (unsigned)uid);
    return setresuid(uid, uid, uid) ? cm_err_sys(err, errno, "become user %u", (unsigned)uid) : 0;
}
