/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of tables/jail-steps.def, one function each. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/jail.h"
#include "jail/parts.h"

#define SET_MDWE             65
#define MDWE_REFUSE_GAIN     1ul
#define OOM_SCORE_OF_WORKERS "1000"

struct subject {
    enum cm_jail_who who;
    const struct cm_jail_plan *plan;
    pid_t parent;
    const struct cm_jail_worker *worker; /* NULL for the zygote */
};

/* O_PATH of /proc, held by the zygote from before its root becomes empty; -1 when there is none. */
static int proc = -1;

/* ---- the zygote's own */

static int raise_oom_score(const struct subject *s, struct cm_err *err)
{
    (void)s;
    cm_autofd int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, OOM_SCORE_OF_WORKERS, strlen(OOM_SCORE_OF_WORKERS)) < 0)
        return cm_err_sys(err, errno, "write /proc/self/oom_score_adj");
    return 0;
}

static int enter_namespaces(const struct subject *s, struct cm_err *err)
{
    return cm_namespaces_enter(s->plan->user_namespace, err);
}

static int bound_capabilities(const struct subject *s, struct cm_err *err)
{
    (void)s;
    return cm_caps_bound(err);
}

static int leave_root(const struct subject *s, struct cm_err *err)
{
    return cm_caps_leave_root(s->plan->uid, err);
}

static int drop_capabilities(const struct subject *s, struct cm_err *err)
{
    (void)s;
    return cm_caps_drop(err);
}

static int refuse_exec_gain(const struct subject *s, struct cm_err *err)
{
    (void)s;
    return prctl(SET_MDWE, MDWE_REFUSE_GAIN, 0, 0, 0) ? cm_err_sys(err, errno, "set PR_SET_MDWE") : 0;
}

/* A processor that does not speculate so needs no order to stop it, and refuses one. */
static int restrict_speculation(const struct subject *s, struct cm_err *err)
{
    static const unsigned long kinds[] = {PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH};
    (void)s;
    for (unsigned i = 0; i < CM_COUNT_OF(kinds); i++) {
        int state = prctl(PR_GET_SPECULATION_CTRL, kinds[i], 0, 0, 0);
        if (state >= 0 && state & PR_SPEC_PRCTL &&
            prctl(PR_SET_SPECULATION_CTRL, kinds[i], PR_SPEC_FORCE_DISABLE, 0, 0))
            return cm_err_sys(err, errno, "restrict speculation of kind %lu", kinds[i]);
    }
    return 0;
}

static int restrict_files(const struct subject *s, struct cm_err *err)
{
    return cm_landlock_restrict(s->plan->landlock_abi, proc, err);
}

/* ---- for both */

static int die_with_parent(const struct subject *s, struct cm_err *err)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        return cm_err_sys(err, errno, "ask for the signal");
    if (getppid() != s->parent) /* it went before we asked */
        return cm_err_set(err, CM_ERR_SANDBOX, "the parent is gone");
    return 0;
}

static int clear_dumpable(const struct subject *s, struct cm_err *err)
{
    (void)s;
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ? cm_err_sys(err, errno, "clear dumpable") : 0;
}

static int set_no_new_privs(const struct subject *s, struct cm_err *err)
{
    (void)s;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? cm_err_sys(err, errno, "set no_new_privs") : 0;
}

static int limit_resources(const struct subject *s, struct cm_err *err)
{
    const uint64_t FILE_MAX = s->worker ? s->worker->file_max : 0, DATA_MAX = s->worker ? s->worker->data_max : 0;
    const struct {
        enum cm_jail_who who;
        int resource;
        uint64_t value;
    } limits[] = {
#define CM_RLIMIT(who, resource, value, text, reason) {CM_JAIL_##who, RLIMIT_##resource, value},
#include "rlimits.def"
#undef CM_RLIMIT
    };
    for (unsigned i = 0; i < CM_COUNT_OF(limits); i++) {
        const struct rlimit l = {limits[i].value, limits[i].value};
        if (limits[i].who == s->who && setrlimit((__rlimit_resource_t)limits[i].resource, &l))
            return cm_err_sys(err, errno, "set limit %d to %llu", limits[i].resource,
                              (unsigned long long)limits[i].value);
    }
    return 0;
}

static int filter_calls(const struct subject *s, struct cm_err *err)
{
    return cm_jail_filter_load(cm_jail_calls, cm_jail_calls_count, s->who, err);
}

/* ---- the worker's own */

static int check_capabilities(const struct subject *s, struct cm_err *err)
{
    (void)s;
    return cm_caps_check(err);
}

static int check_user(const struct subject *s, struct cm_err *err)
{
    (void)s;
    return getuid() && geteuid() ? 0 : cm_err_set(err, CM_ERR_SANDBOX, "it is still root");
}

/* A descriptor may stand where another one has to go, so all of them are moved out of the way first. */
static int keep_descriptors(const struct subject *s, struct cm_err *err)
{
    const struct cm_jail_worker *w = s->worker;
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

static int restrict_everything(const struct subject *s, struct cm_err *err)
{
    return cm_landlock_restrict(s->plan->landlock_abi, -1, err);
}

/* ---- all of them */

static const struct step {
    enum cm_jail_who who;
    enum cm_layer layer;
    int (*make)(const struct subject *s, struct cm_err *err);
    const char *name;
} steps[] = {
#define CM_JAIL_STEP(who, layer, function, name, privilege, reason) {CM_JAIL_##who, CM_LAYER_##layer, function, name},
#include "jail-steps.def"
#undef CM_JAIL_STEP
};

static int apply(const struct subject *s, struct cm_err *err)
{
    int number = 0, total = 0;
    for (unsigned i = 0; i < CM_COUNT_OF(steps); i++)
        total += steps[i].who == s->who;
    for (unsigned i = 0; i < CM_COUNT_OF(steps); i++) {
        if (steps[i].who != s->who)
            continue;
        number++;
        if (s->plan->on >> steps[i].layer & 1 && steps[i].make(s, err))
            return cm_err_wrap(err, "jail step %d of %d: %s", number, total, steps[i].name);
    }
    return 0;
}

int cm_jail_zygote(const struct cm_jail_plan *plan, pid_t parent, struct cm_err *err)
{
    proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC); /* where there is none, nothing will be opened */
    return apply(&(struct subject){CM_JAIL_ZYGOTE, plan, parent, NULL}, err);
}

int cm_jail_worker(const struct cm_jail_plan *plan, const struct cm_jail_worker *w, struct cm_err *err)
{
    return apply(&(struct subject){CM_JAIL_WORKER, plan, w->parent, w}, err);
}

/* The files of a process that is not dumpable belong to root. */
int cm_jail_open_self(const char *name, struct cm_err *err)
{
    char path[64];
    snprintf(path, sizeof path, proc < 0 ? "/proc/self/%s" : "self/%s", name);
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC), reason = errno;
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return fd >= 0 ? fd : cm_err_sys(err, reason, "open %s", path);
}
