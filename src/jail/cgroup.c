/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define PERIOD_US 100000u

static bool exists(const char *folder, const char *file)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return access(path, F_OK) == 0;
}

static int put(const char *folder, const char *file, const char *text, struct cm_err *err)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    cm_autofd int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return cm_err_sys(err, errno, "write \"%s\" to %s", text, path);
    return 0;
}

/* Writes the limit where the folder has a file for it; *ret_done says that it had. */
static int limit(const char *folder, const char *file, const char *text, bool *ret_done, struct cm_err *err)
{
    if (!exists(folder, file))
        return 0;
    *ret_done = true;
    return put(folder, file, text, err);
}

struct done {
    bool memory, processes, cpus;
};

static int limit_memory(const char *at, uint64_t bytes, struct done *done, struct cm_err *err)
{
    bool swap;
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, bytes);
    int rc = bytes ? limit(at, "memory.max", text, &done->memory, err) : 0;
    if (!rc && bytes)
        rc = limit(at, "memory.limit_in_bytes", text, &done->memory, err);
    if (!rc && bytes) /* of v1: memory and swap together */
        rc = limit(at, "memory.memsw.limit_in_bytes", text, &swap, err);
    return rc ? rc : limit(at, "memory.swap.max", "0", &swap, err);
}

static int limit_rest(const char *at, const struct cm_cgroup_limits *l, struct done *done, struct cm_err *err)
{
    char text[64];
    int rc = 0;
    snprintf(text, sizeof text, "%u", l->processes);
    if (l->processes)
        rc = limit(at, "pids.max", text, &done->processes, err);
    snprintf(text, sizeof text, "%" PRIu64 " %u", (uint64_t)l->cpus * PERIOD_US, PERIOD_US);
    if (!rc && l->cpus)
        rc = limit(at, "cpu.max", text, &done->cpus, err);
    *strchr(text, ' ') = '\0'; /* of v1: the first of them, the second is the default */
    return rc || !l->cpus ? rc : limit(at, "cpu.cfs_quota_us", text, &done->cpus, err);
}

/* Of v2: a controller has to be handed down. One that is not there shows as a limit that could not be set. */
static void hand_down(const char *folder)
{
    static const char *const controllers[] = {"+memory", "+pids", "+cpu"};
    for (unsigned i = 0; i < CM_COUNT_OF(controllers); i++)
        put(folder, "cgroup.subtree_control", controllers[i], NULL);
}

static int make_one(const char *folder, size_t len, const struct cm_cgroup_limits *l, struct cm_cgroup *g,
                    struct done *done, struct cm_err *err)
{
    char parent[512], *path;
    if (g->count == CM_CGROUP_FOLDERS_MAX || folder[0] != '/' || len > sizeof parent - 32)
        return cm_err_set(err, CM_ERR_CONFIG, "CGROUP: at most %d folders, each absolute and shorter than %zu bytes",
                          CM_CGROUP_FOLDERS_MAX, sizeof parent - 32);
    path = g->path[g->count];
    snprintf(parent, sizeof parent, "%.*s", (int)len, folder);
    snprintf(path, sizeof g->path[0], "%.480s/codemode-%d", parent, (int)getpid());
    if (!exists(parent, "cgroup.procs"))
        return cm_err_set(err, CM_ERR_SANDBOX, "CGROUP: %s is no control group", parent);
    hand_down(parent);
    if (mkdir(path, 0755) && errno != EEXIST)
        return cm_err_sys(err, errno, "CGROUP: make %s", path);
    g->count++;
    int rc = limit_memory(path, l->memory, done, err);
    return rc ? rc : limit_rest(path, l, done, err);
}

static int check(const struct cm_cgroup_limits *l, const struct done *done, struct cm_err *err)
{
    const char *missing = l->memory && !done->memory         ? "memory"
                          : l->processes && !done->processes ? "pids"
                          : l->cpus && !done->cpus           ? "cpu"
                                                             : NULL;
    if (!missing)
        return 0;
    return cm_err_set(err, CM_ERR_SANDBOX,
                      "CGROUP: no folder has the controller %s; cgroup.subtree_control hands it "
                      "down, in a group without processes of its own",
                      missing);
}

int cm_cgroup_make(const char *folders, const struct cm_cgroup_limits *limits, struct cm_cgroup *ret,
                   struct cm_err *err)
{
    struct cm_cgroup g = {0};
    struct done done = {false, false, false};
    int rc = 0;
    *ret = g;
    for (const char *p = folders; *p && !rc;) {
        size_t len = strcspn(p, ",");
        if (len)
            rc = make_one(p, len, limits, &g, &done, err);
        p += len + (p[len] == ',');
    }
    if (!rc)
        rc = check(limits, &done, err);
    if (rc)
        cm_cgroup_remove(&g);
    else
        *ret = g;
    return rc;
}

int cm_cgroup_add(const struct cm_cgroup *g, pid_t pid, struct cm_err *err)
{
    char text[16];
    int rc = 0;
    snprintf(text, sizeof text, "%d", (int)pid);
    for (unsigned i = 0; i < g->count && !rc; i++)
        rc = put(g->path[i], "cgroup.procs", text, err);
    return rc;
}

void cm_cgroup_remove(struct cm_cgroup *g)
{
    for (unsigned i = 0; i < g->count; i++)
        rmdir(g->path[i]);
    g->count = 0;
}
