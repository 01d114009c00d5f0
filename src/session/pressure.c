/* SPDX-License-Identifier: Apache-2.0 */
#include "session/pressure.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define PATH_SIZE 1024
#define FILE_SIZE 8192 /* memory.stat and meminfo have half of that */

struct hierarchy { /* where a version of control groups keeps its figures */
    const char *folder, *limit, *used, *droppable;
};

static const struct hierarchy version_2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "};
static const struct hierarchy version_1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                           "total_inactive_file "};

static bool read_text(const char *root, const char *folder, const char *path, const char *name,
                      char ret[static FILE_SIZE])
{
    char full[2 * PATH_SIZE];
    int n = snprintf(full, sizeof full, "%s%s%s/%s", root, folder, path, name);
    cm_autofd int fd = n < (int)sizeof full ? open(full, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t got = fd >= 0 ? read(fd, ret, FILE_SIZE - 1) : -1;

    if (got < 0)
        return false;
    ret[got] = '\0';
    return true;
}

/* The number behind `key`, which begins a line. */
static bool number_after(const char *text, const char *key, uint64_t *ret)
{
    for (size_t len = strlen(key); text; text = strchr(text, '\n'), text = text ? text + 1 : NULL) {
        if (strncmp(text, key, len) != 0)
            continue;
        *ret = strtoull(text + len, NULL, 10);
        return true;
    }
    return false;
}

static bool machine_left(const char *root, uint64_t *ret)
{
    char text[FILE_SIZE];

    if (!read_text(root, "/proc", "", "meminfo", text) || !number_after(text, "MemAvailable:", ret))
        return false;
    *ret *= 1024;
    return true;
}

/* False where the group has no limit. */
static bool group_left(const char *root, const struct hierarchy *h, const char *path, uint64_t *ret)
{
    char text[FILE_SIZE];
    uint64_t droppable = 0;

    if (!read_text(root, h->folder, path, h->limit, text) || text[0] < '0' || text[0] > '9')
        return false;
    uint64_t limit = strtoull(text, NULL, 10);
    if (!read_text(root, h->folder, path, h->used, text))
        return false;
    uint64_t used = strtoull(text, NULL, 10);
    if (read_text(root, h->folder, path, "memory.stat", text))
        number_after(text, h->droppable, &droppable);
    used -= droppable < used ? droppable : used;
    *ret = used < limit ? limit - used : 0;
    return true;
}

/* The group and all above it. A container may see its own group at the top, whatever the path says. */
static bool groups_left(const char *root, const struct hierarchy *h, const char *group, uint64_t *ret)
{
    char path[PATH_SIZE];
    uint64_t left;
    bool any = false;

    snprintf(path, sizeof path, "%s", group);
    for (;;) {
        size_t len = strlen(path);
        if (len > 0 && path[len - 1] == '/')
            path[len - 1] = '\0';
        if (group_left(root, h, path, &left) && (!any || left < *ret)) {
            *ret = left;
            any = true;
        }
        char *slash = strrchr(path, '/');
        if (!slash)
            return any;
        *slash = '\0';
    }
}

/* A line is "number:controllers:path"; version 2 has the number 0 and no controllers. */
static const struct hierarchy *hierarchy_of(char *line, char **ret_path)
{
    char *controllers = strchr(line, ':');
    char *path = controllers ? strchr(controllers + 1, ':') : NULL;

    if (!path)
        return NULL;
    *controllers++ = *path++ = '\0';
    *ret_path = path;
    if (*controllers == '\0')
        return &version_2;
    for (char *rest = NULL, *name = strtok_r(controllers, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
        if (strcmp(name, "memory") == 0)
            return &version_1;
    return NULL;
}

bool cm_pressure_read(const char *root, uint64_t *ret)
{
    char text[FILE_SIZE], *rest = NULL, *path;
    uint64_t left, least = UINT64_MAX;

    if (machine_left(root, &left))
        least = left;
    if (read_text(root, "/proc", "/self", "cgroup", text)) {
        for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
            const struct hierarchy *h = hierarchy_of(line, &path);
            if (h && groups_left(root, h, path, &left) && left < least)
                least = left;
        }
    }
    *ret = least;
    return least != UINT64_MAX;
}

uint64_t cm_pressure_left(struct cm_pressure *p)
{
    uint64_t now = cm_clock_ns();

    if (p->read_ns && now - p->read_ns < CM_PRESSURE_EVERY_NS)
        return p->left;
    p->read_ns = now;
    if (!cm_pressure_read("", &p->left))
        p->left = UINT64_MAX;
    return p->left;
}
