/* SPDX-License-Identifier: Apache-2.0 */
/* Layout: struct frozen; then `runs` runs of memory pages, each a struct run and its bytes; then, for each used
 * stack, the bytes between its stack pointer and its top.
 */
#include "image/freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "guest/engine.h"
#include "image/format.h"

enum { PAGE = 4096, AT_ONCE = 512 };

struct frozen {
    char guest_id[65];
    uint64_t memory_size;
    uint32_t runs;
    Z_guest_instance_t instance;
    struct cm_guest_state state;
};

struct run {
    uint64_t first, count; /* pages */
};

#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_FILE    (1ull << 61) /* still the image's own page, or another shared one */

static int write_all(int fd, const void *data, size_t len, struct cm_err *err)
{
    int rc = cm_fd_write_all(fd, data, len);
    return rc ? cm_err_sys(err, -rc, "write the frozen session") : 0;
}

static int read_all(int fd, void *to, size_t len, struct cm_err *err)
{
    for (char *p = to; len;) {
        ssize_t n = read(fd, p, len);
        if (n <= 0)
            return cm_err_sys(err, n ? errno : EIO, "read the frozen session");
        p += n, len -= (size_t)n;
    }
    return 0;
}

/* Which of `count` pages from `first` on are this process's own. */
static int private_pages(int pagemap, uint64_t first, unsigned count, bool *ret, struct cm_err *err)
{
    uint64_t entries[AT_ONCE];
    ssize_t want = (ssize_t)(count * sizeof *entries);
    if (pread(pagemap, entries, (size_t)want, (off_t)((CM_MEMORY_BASE / PAGE + first) * sizeof *entries)) != want)
        return cm_err_sys(err, errno, "read the page map");
    for (unsigned i = 0; i < count; i++)
        ret[i] = (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) && !(entries[i] & PAGEMAP_FILE);
    return 0;
}

static int write_run(int fd, struct run run, struct cm_err *err)
{
    int rc = write_all(fd, &run, sizeof run, err);
    return rc ? rc : write_all(fd, CM_MEMORY + run.first * PAGE, run.count * PAGE, err);
}

static int write_memory(int fd, uint32_t *ret_runs, struct cm_err *err)
{
    cm_autofd int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return cm_err_sys(err, errno, "open the page map");
    uint64_t pages = cm_guest_size() / PAGE;
    struct run run = {0, 0};
    bool own[AT_ONCE] = {false};
    int rc = 0;
    *ret_runs = 0;
    for (uint64_t first = 0; !rc && first < pages; first += AT_ONCE) {
        unsigned count = pages - first < AT_ONCE ? (unsigned)(pages - first) : AT_ONCE;
        rc = private_pages(pagemap, first, count, own, err);
        for (unsigned i = 0; !rc && i < count; i++) {
            if (own[i] && run.count && run.first + run.count == first + i) {
                run.count++;
                continue;
            }
            if (!own[i])
                continue;
            if (run.count && (++*ret_runs, rc = write_run(fd, run, err)))
                break;
            run = (struct run){first + i, 1};
        }
    }
    if (!rc && run.count) {
        ++*ret_runs;
        rc = write_run(fd, run, err);
    }
    return rc;
}

/* Calls `each` with the used part of every stack. */
static int each_stack(int fd, int (*each)(int fd, char *sp, size_t len, struct cm_err *err), struct cm_err *err)
{
    int rc = 0;
    for (unsigned i = 0; !rc && i < CM_STACKS; i++) {
        char *sp = cm_state.stack_pointer[i], *top = (char *)(CM_STACK_BASE + (i + 1) * CM_STACK_SIZE);
        if (cm_state.used[i])
            rc = each(fd, sp, (size_t)(top - sp), err);
    }
    return rc;
}

static int write_stack(int fd, char *sp, size_t len, struct cm_err *err)
{
    return write_all(fd, sp, len, err);
}

static int read_stack(int fd, char *sp, size_t len, struct cm_err *err)
{
    return read_all(fd, sp, len, err);
}

int cm_image_freeze(int fd, const struct cm_image *image, struct cm_err *err)
{
    struct frozen f = {.memory_size = image->memory_size};
    int rc = cm_guest_guard(false, err);
    if (rc)
        return rc;
    if (ftruncate(fd, 0) || lseek(fd, sizeof f, SEEK_SET) < 0)
        return cm_err_sys(err, errno, "begin the frozen session");
    rc = write_memory(fd, &f.runs, err);
    if (!rc)
        rc = each_stack(fd, write_stack, err);
    if (rc)
        return rc;
    memcpy(f.guest_id, cm_guest_id, sizeof f.guest_id);
    f.instance = cm_guest;
    f.state = cm_state;
    if (pwrite(fd, &f, sizeof f, 0) != sizeof f)
        return cm_err_sys(err, errno, "finish the frozen session");
    return 0;
}

static int read_memory(int fd, uint32_t runs, struct cm_err *err)
{
    int rc = 0;
    for (uint32_t i = 0; !rc && i < runs; i++) {
        struct run run;
        rc = read_all(fd, &run, sizeof run, err);
        if (!rc && (run.count > CM_MEMORY_MAX / PAGE || run.first > CM_MEMORY_MAX / PAGE - run.count))
            rc = cm_err_set(err, CM_ERR_SANDBOX, "a frozen run lies outside of memory");
        if (!rc)
            rc = read_all(fd, CM_MEMORY + run.first * PAGE, run.count * PAGE, err);
    }
    return rc;
}

int cm_image_thaw(int fd, struct cm_err *err)
{
    struct frozen f;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return cm_err_sys(err, errno, "begin to thaw");
    int rc = cm_guest_guard(false, err);
    if (!rc)
        rc = read_all(fd, &f, sizeof f, err);
    if (rc)
        return rc;
    if (memcmp(f.guest_id, cm_guest_id, sizeof f.guest_id))
        return cm_err_set(err, CM_ERR_SANDBOX, "frozen by another build of the guest");
    cm_guest = f.instance;
    cm_state = f.state;
    rc = read_memory(fd, f.runs, err);
    if (!rc)
        rc = each_stack(fd, read_stack, err);
    return rc ? rc : cm_guest_guard(true, err);
}
