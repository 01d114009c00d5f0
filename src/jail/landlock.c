/* SPDX-License-Identifier: Apache-2.0 */
/* Landlock by its three system calls. Numbers, structs and bits stand here because the headers of the oldest Debian
 * that we build on know a part of them only; what the running kernel knows is asked. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/parts.h"

enum { CREATE_RULESET = 444, ADD_RULE = 445, RESTRICT_SELF = 446 }; /* the same on every architecture */

#define ASK_VERSION       1u
#define RULE_PATH_BENEATH 1
#define FS_READ_FILE      (1ull << 2)

struct ruleset {
    uint64_t fs, net, scoped;
};

struct path_beneath {
    uint64_t allowed;
    int32_t folder;
} __attribute__((packed));

/* What each version of the interface added. */
static const struct {
    int abi;
    struct ruleset adds;
    size_t size; /* of the struct from here on */
} versions[] = {
    {1, {.fs = 0x1fff}, 8},       /* execute, read, write, list, make, remove */
    {2, {.fs = 1 << 13}, 8},      /* link or rename between folders */
    {3, {.fs = 1 << 14}, 8},      /* truncate */
    {4, {.net = 3}, 16},          /* bind, connect TCP */
    {5, {.fs = 1 << 15}, 16},     /* ioctl on devices */
    {6, {.scoped = 3}, 24},       /* abstract UNIX sockets, signals */
};

int cm_landlock_abi(char *why)
{
    long abi = syscall(CREATE_RULESET, NULL, 0, ASK_VERSION);
    if (abi >= 1)
        return (int)abi;
    snprintf(why, CM_WHY_MAX, "%s",
             errno == ENOSYS       ? "the kernel, or a filter around us, knows no landlock"
             : errno == EOPNOTSUPP ? "the kernel has landlock, but it is switched off"
                                   : strerror(errno));
    return 0;
}

int cm_landlock_restrict(int abi, int readable, struct cm_err *err)
{
    struct ruleset all = {0};
    struct path_beneath rule = {.allowed = FS_READ_FILE, .folder = readable};
    size_t size = 0;
    for (unsigned i = 0; i < CM_COUNT_OF(versions) && versions[i].abi <= abi; i++) {
        all.fs |= versions[i].adds.fs;
        all.net |= versions[i].adds.net;
        all.scoped |= versions[i].adds.scoped;
        size = versions[i].size;
    }
    cm_autofd int fd = (int)syscall(CREATE_RULESET, &all, size, 0);
    if (fd < 0)
        return cm_err_sys(err, errno, "make a landlock ruleset");
    if (readable >= 0 && syscall(ADD_RULE, fd, RULE_PATH_BENEATH, &rule, 0))
        return cm_err_sys(err, errno, "add a landlock rule");
    return syscall(RESTRICT_SELF, fd, 0) ? cm_err_sys(err, errno, "put on landlock") : 0;
}
