/* SPDX-License-Identifier: Apache-2.0 */
/* Linked into the image builder only. */
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest/engine.h"
#include "image/format.h"

enum { PAGE = 4096 };

static uint64_t checksum(const unsigned char *p, uint64_t len)
{
    uint64_t h = 14695981039346656037ull, word;
    for (uint64_t at = 0; at < len; at += sizeof word) {
        memcpy(&word, p + at, sizeof word);
        h = (h ^ word) * 1099511628211ull;
    }
    return h;
}

static bool is_zero(const unsigned char *page)
{
    return !page[0] && !memcmp(page, page + 1, PAGE - 1);
}

static int write_at(int fd, const void *data, size_t len, off_t at, struct cm_err *err)
{
    for (const char *p = data; len;) {
        ssize_t n = pwrite(fd, p, len, at);
        if (n < 0)
            return cm_err_sys(err, errno, "write the image");
        p += n, at += n, len -= (size_t)n;
    }
    return 0;
}

int cm_image_write(const char *path, struct cm_err *err)
{
    char part[PATH_MAX];
    if (cm_guest_threaded())
        return cm_err_set(err, CM_ERR_SANDBOX, "a thread of the guest is alive: its stack would be lost");
    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part)
        return cm_err_set(err, CM_ERR_SANDBOX, "the path is too long: %s", path);
    cm_autofd int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return cm_err_sys(err, errno, "create %s", part);
    uint64_t size = cm_guest_size();
    int rc = cm_guest_guard(false, err);
    if (rc)
        return rc;
    struct cm_image_header h = {.format = CM_IMAGE_FORMAT,
                                .header_size = sizeof h,
                                .memory_size = size,
                                .checksum = checksum(CM_MEMORY, size),
                                .instance = cm_guest,
                                .state = cm_state};
    memcpy(h.magic, CM_IMAGE_MAGIC, sizeof h.magic);
    memcpy(h.guest_id, cm_guest_id, sizeof h.guest_id);
    rc = write_at(fd, &h, sizeof h, 0, err);
    for (uint64_t at = 0; !rc && at < size; at += PAGE)
        if (!is_zero(CM_MEMORY + at))
            rc = write_at(fd, CM_MEMORY + at, PAGE, (off_t)(CM_IMAGE_MEMORY_AT + at), err);
    if (!rc && ftruncate(fd, (off_t)(CM_IMAGE_MEMORY_AT + size)))
        rc = cm_err_sys(err, errno, "size the image");
    if (!rc && rename(part, path))
        rc = cm_err_sys(err, errno, "put %s into place", path);
    return rc;
}
