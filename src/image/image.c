/* SPDX-License-Identifier: Apache-2.0 */
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest/engine.h"
#include "image/format.h"

static int read_header(int fd, struct cm_image_header *h, const char *name, struct cm_err *err)
{
    ssize_t n = pread(fd, h, sizeof *h, 0);
    if (n < 0)
        return cm_err_sys(err, errno, "read %s", name);
    if ((size_t)n < sizeof *h || memcmp(h->magic, CM_IMAGE_MAGIC, sizeof h->magic))
        return cm_err_set(err, CM_ERR_SANDBOX, "%s is not a memory image", name);
    if (h->format != CM_IMAGE_FORMAT || h->header_size != sizeof *h ||
        memcmp(h->guest_id, cm_guest_id, sizeof h->guest_id))
        return cm_err_set(err, CM_ERR_SANDBOX, "%s was made by another build of the guest: build it again", name);
    if (h->memory_size > CM_MEMORY_MAX || h->memory_size % 65536 || h->memory_size != h->instance.w2c_memory.size)
        return cm_err_set(err, CM_ERR_SANDBOX, "%s has a header that does not add up", name);
    return 0;
}

int cm_image_load(const char *path, struct cm_image *ret, struct cm_err *err)
{
    cm_autofd int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return cm_err_sys(err, errno, "open %s", path);
    struct cm_image_header h;
    int rc = read_header(file, &h, path, err);
    if (rc)
        return rc;
    struct stat st;
    if (fstat(file, &st) || st.st_size != (off_t)(CM_IMAGE_MEMORY_AT + h.memory_size))
        return cm_err_set(err, CM_ERR_SANDBOX, "%s is cut short", path);
    ret->memory_size = h.memory_size;
    snprintf(ret->id, sizeof ret->id, "%.16s-%016llx", h.guest_id, (unsigned long long)h.checksum);
    ret->fd = cm_steal_fd(&file);
    return 0;
}

int cm_image_map(const struct cm_image *image, uint64_t limit, struct cm_err *err)
{
    if (limit < image->memory_size + CM_IMAGE_ROOM)
        limit = image->memory_size + CM_IMAGE_ROOM;
    if (limit > CM_MEMORY_MAX)
        limit = CM_MEMORY_MAX;
    struct cm_image_header h;
    int rc = read_header(image->fd, &h, "the image", err);
    if (rc)
        return rc;
    void *p = mmap((void *)CM_MEMORY_BASE, image->memory_size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, image->fd, CM_IMAGE_MEMORY_AT);
    if (p == MAP_FAILED)
        return cm_err_sys(err, errno, "map the image");
    uint64_t more = (limit & ~0xffffull) - image->memory_size;
    if (more && mmap((void *)(CM_MEMORY_BASE + image->memory_size), more, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
        return cm_err_sys(err, errno, "map memory above the image");
    cm_guest = h.instance;
    cm_state = h.state;
    cm_guest_set_limit(limit);
    return cm_guest_guard(true, err);
}
