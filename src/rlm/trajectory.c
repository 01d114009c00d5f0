/* SPDX-License-Identifier: Apache-2.0 */
/* The file of a run: one JSON object per line, each written as soon as it is known. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fd.h"
#include "base/random.h"
#include "obs/log.h"
#include "rlm/internal.h"

struct cm_trajectory {
    int fd; /* -1 after a failure */
};

static int open_file(const char *dir)
{
    char when[32], hex[9], path[PATH_MAX];
    time_t now = time(NULL);
    struct tm tm;

    if (cm_random_hex(hex, 8, NULL) < 0 || !gmtime_r(&now, &tm) ||
        strftime(when, sizeof when, "%Y-%m-%d_%H-%M-%S", &tm) == 0)
        return -EIO;
    if (snprintf(path, sizeof path, "%s/rlm_%s_%s.jsonl", dir, when, hex) >= (int)sizeof path)
        return -ENAMETOOLONG;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    return fd < 0 ? -errno : fd;
}

static void complain(const char *what, int rc)
{
    cm_log(CM_LOG_WARNING, "trajectory_not_written", CM_LOG_STR("step", what), CM_LOG_STR("reason", strerror(-rc)));
}

struct cm_trajectory *cm_trajectory_open(const char *dir)
{
    struct cm_trajectory *t = malloc(sizeof *t);

    if (!t)
        return NULL;
    t->fd = open_file(dir);
    if (t->fd < 0) {
        complain("open", t->fd);
        free(t);
        return NULL;
    }
    return t;
}

void cm_trajectory_line(struct cm_trajectory *t, const char *json, size_t len)
{
    if (t->fd < 0)
        return;
    int rc = cm_fd_write_all(t->fd, json, len);
    if (rc == 0)
        rc = cm_fd_write_all(t->fd, "\n", 1);
    if (rc == 0)
        return;
    complain("write", rc);
    t->fd = cm_fd_close(t->fd);
}

struct cm_trajectory *cm_trajectory_close(struct cm_trajectory *t)
{
    if (t)
        cm_fd_close(t->fd);
    free(t);
    return NULL;
}
