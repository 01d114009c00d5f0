/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/jail.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

#if !defined(__x86_64__)
#error "the system call filter knows x86-64 only"
#endif

#define X32_BIT 0x40000000u

/* ---- the filter: one table, one comparison each, the rest kills */

enum { ANY = -1 };

static const struct rule {
    unsigned number;
    int argument;
    unsigned value;
} rules[] = {
#define CM_SYSCALL(name, argument, value, reason) {SYS_##name, argument, value},
#include "syscalls.def"
#undef CM_SYSCALL
};

#define LOAD(field)       BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(action)    BPF_STMT(BPF_RET | BPF_K, action)
#define SKIP_UNLESS(v, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, v, 0, n)
#define PER_RULE          8

static unsigned compile_rule(const struct rule *r, struct sock_filter *out)
{
    unsigned n = 0;
    if (r->argument == ANY) {
        out[n++] = (struct sock_filter)SKIP_UNLESS(r->number, 1);
        out[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
        return n;
    }
    /* Both halves of the argument: the kernel passes 64 bits. */
    unsigned low = (unsigned)offsetof(struct seccomp_data, args) + 8u * (unsigned)r->argument;
    out[n++] = (struct sock_filter)SKIP_UNLESS(r->number, 6);
    out[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low);
    out[n++] = (struct sock_filter)SKIP_UNLESS(r->value, 3);
    out[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low + 4);
    out[n++] = (struct sock_filter)SKIP_UNLESS(0, 1);
    out[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
    out[n++] = (struct sock_filter)RETURN(SECCOMP_RET_KILL_PROCESS);
    return n;
}

static int load_filter(struct cm_err *err)
{
    struct sock_filter code[8 + PER_RULE * CM_COUNT_OF(rules)] = {
        LOAD(arch), SKIP_UNLESS(AUDIT_ARCH_X86_64, 2), LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1),
        RETURN(SECCOMP_RET_KILL_PROCESS)};
    unsigned n = 5;
    for (unsigned i = 0; i < CM_COUNT_OF(rules); i++)
        n += compile_rule(&rules[i], code + n);
    code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_KILL_PROCESS);
    struct sock_fprog program = {.len = (unsigned short)n, .filter = code};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        return cm_err_sys(err, errno, "load the system call filter");
    return 0;
}

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

static int only_channel(int channel, struct cm_err *err)
{
    if (channel != CM_JAIL_CHANNEL && dup2(channel, CM_JAIL_CHANNEL) < 0)
        return cm_err_sys(err, errno, "move the channel");
    if (syscall(SYS_close_range, CM_JAIL_CHANNEL + 1, ~0u, 0))
        return cm_err_sys(err, errno, "close descriptors");
    return 0;
}

static int no_files_no_core(struct cm_err *err)
{
    static const int none[] = {RLIMIT_CORE, RLIMIT_FSIZE, RLIMIT_MEMLOCK, RLIMIT_NPROC};
    const struct rlimit zero = {0, 0}, one = {1, 1};
    for (unsigned i = 0; i < CM_COUNT_OF(none); i++)
        if (setrlimit((__rlimit_resource_t)none[i], &zero))
            return cm_err_sys(err, errno, "set resource limit %d", none[i]);
    if (setrlimit(RLIMIT_NOFILE, &one))
        return cm_err_sys(err, errno, "limit descriptors");
    return 0;
}

int cm_jail_zygote(pid_t parent, struct cm_err *err)
{
    if (die_with(parent, err))
        return cm_err_wrap(err, "jail step 1 of 2");
    return no_new_privileges(err) ? cm_err_wrap(err, "jail step 2 of 2") : 0;
}

int cm_jail_worker(int channel, pid_t parent, struct cm_err *err)
{
    int step = 1, rc;
    /* 1: first, so that nothing of what follows can outlive the gateway */
    rc = die_with(parent, err);
    /* 2: the image, the zygote's channel and standard streams are not for guests */
    if (!rc && step++)
        rc = only_channel(channel, err);
    /* 3: what a system call that we allow could still do to the machine */
    if (!rc && step++)
        rc = no_files_no_core(err);
    /* 4: no other process of the user may look into this one, and its /proc entries are root's */
    if (!rc && step++ && prctl(PR_SET_DUMPABLE, 0))
        rc = cm_err_sys(err, errno, "clear dumpable");
    /* 5: wanted by the filter of an unprivileged process; also ends set-user-id for good */
    if (!rc && step++)
        rc = no_new_privileges(err);
    /* 6: last, for it forbids all of the above */
    if (!rc && step++)
        rc = load_filter(err);
    return rc ? cm_err_wrap(err, "jail step %d of 6", step) : 0;
}
