/* SPDX-License-Identifier: Apache-2.0 */
/* The WASI calls of the C library, answered inside the guest.
 *
 * A function named __imported_wasi_snapshot_preview1_<call> takes the place of that import at link time; so
 * files, environment, clocks and descriptors need nothing of the host but time, random bytes and an outlet for
 * stdout and stderr. Arguments have the raw form of the ABI: pointers and sizes are 32-bit integers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

#include "fs.h"
#include "host.h"
#include "sched.h"

#define FDS_MAX 1024
#define ROOT_FD 3
#define WASI(name) __imported_wasi_snapshot_preview1_##name

#define RIGHTS_ALL ((__wasi_rights_t)0x1fffffff)
#define RIGHTS_READ (__WASI_RIGHTS_FD_READ)
#define RIGHTS_WRITE (__WASI_RIGHTS_FD_WRITE | __WASI_RIGHTS_FD_ALLOCATE | __WASI_RIGHTS_FD_FILESTAT_SET_SIZE)

enum kind { CLOSED, STDIN, STREAM, NODE };

struct fd {
    enum kind kind;
    int stream; /* 1 stdout, 2 stderr */
    struct cm_node *node;
    uint64_t offset;
    __wasi_fdflags_t flags;
    __wasi_rights_t rights;
};

static struct fd fds[FDS_MAX] = {
    [0] = {.kind = STDIN, .rights = RIGHTS_READ | __WASI_RIGHTS_POLL_FD_READWRITE},
    [1] = {.kind = STREAM, .stream = 1, .rights = RIGHTS_WRITE | __WASI_RIGHTS_POLL_FD_READWRITE},
    [2] = {.kind = STREAM, .stream = 2, .rights = RIGHTS_WRITE | __WASI_RIGHTS_POLL_FD_READWRITE},
    [ROOT_FD] = {.kind = NODE, .rights = RIGHTS_ALL},
};

static struct fd *get_fd(int32_t i)
{
    if (i < 0 || i >= FDS_MAX || fds[i].kind == CLOSED)
        return NULL;
    if (i == ROOT_FD && !fds[i].node)
        fds[i].node = cm_fs_root();
    return &fds[i];
}

static struct cm_node *get_node(int32_t i)
{
    struct fd *f = get_fd(i);
    return f ? f->node : NULL;
}

static int64_t clock_ns(int32_t id)
{
    return cm_host_clock(id == 0 ? 0 : id == 1 ? 1 : 2);
}

/* ---- environment, clocks, randomness */

static const char environment[] = "HOME=/home/user\0PWD=/home/user\0TMPDIR=/tmp\0LANG=C.UTF-8\0TZ=UTC\0";
#define ENVIRONMENT_COUNT 5

int32_t WASI(environ_sizes_get)(int32_t ret_count, int32_t ret_size)
{
    *(uint32_t *)ret_count = ENVIRONMENT_COUNT;
    *(uint32_t *)ret_size = sizeof environment - 1;
    return 0;
}

int32_t WASI(environ_get)(int32_t pointers, int32_t buffer)
{
    char *at = (char *)buffer;
    memcpy(at, environment, sizeof environment - 1);
    for (int i = 0; i < ENVIRONMENT_COUNT; i++) {
        ((uint32_t *)pointers)[i] = (uint32_t)at;
        at += strlen(at) + 1;
    }
    return 0;
}

int32_t WASI(clock_res_get)(int32_t id, int32_t ret)
{
    if (id < 0 || id > 3)
        return __WASI_ERRNO_INVAL;
    *(uint64_t *)ret = 1;
    return 0;
}

int32_t WASI(clock_time_get)(int32_t id, int64_t precision, int32_t ret)
{
    (void)precision;
    if (id < 0 || id > 3)
        return __WASI_ERRNO_INVAL;
    *(int64_t *)ret = clock_ns(id);
    return 0;
}

int32_t WASI(random_get)(int32_t buffer, int32_t len)
{
    cm_host_random((void *)buffer, (uint32_t)len);
    return 0;
}

int32_t WASI(sched_yield)(void)
{
    cm_sched_yield();
    return 0;
}

void WASI(proc_exit)(int32_t code)
{
    cm_host_exit(code);
}

/* ---- descriptors */

int32_t WASI(fd_prestat_get)(int32_t fd, int32_t ret)
{
    if (fd != ROOT_FD)
        return __WASI_ERRNO_BADF;
    *(__wasi_prestat_t *)ret = (__wasi_prestat_t){.tag = __WASI_PREOPENTYPE_DIR, .u.dir.pr_name_len = 1};
    return 0;
}

int32_t WASI(fd_prestat_dir_name)(int32_t fd, int32_t path, int32_t len)
{
    if (fd != ROOT_FD || len < 1)
        return __WASI_ERRNO_BADF;
    *(char *)path = '/';
    return 0;
}

int32_t WASI(fd_close)(int32_t fd)
{
    struct fd *f = get_fd(fd);
    if (!f || fd == ROOT_FD) /* nobody opened it, and without it there are no files: os.closerange() passes it by */
        return __WASI_ERRNO_BADF;
    if (f->node)
        cm_fs_unref(f->node);
    *f = (struct fd){.kind = CLOSED};
    return 0;
}

int32_t WASI(fd_renumber)(int32_t from, int32_t to)
{
    struct fd *f = get_fd(from);
    if (!f || to < 0 || to >= FDS_MAX || from == ROOT_FD || to == ROOT_FD)
        return __WASI_ERRNO_BADF;
    if (from == to)
        return 0;
    if (fds[to].kind != CLOSED)
        WASI(fd_close)(to);
    fds[to] = *f;
    *f = (struct fd){.kind = CLOSED};
    return 0;
}

static __wasi_filetype_t fd_type(const struct fd *f)
{
    /* Not a character device: programs would take the standard streams for a terminal, and colour their words. */
    return f->node ? cm_fs_type(f->node) : __WASI_FILETYPE_UNKNOWN;
}

int32_t WASI(fd_fdstat_get)(int32_t fd, int32_t ret)
{
    struct fd *f = get_fd(fd);
    if (!f)
        return __WASI_ERRNO_BADF;
    *(__wasi_fdstat_t *)ret = (__wasi_fdstat_t){.fs_filetype = fd_type(f),
                                                .fs_flags = f->flags,
                                                .fs_rights_base = f->rights,
                                                .fs_rights_inheriting = f->node ? RIGHTS_ALL : 0};
    return 0;
}

int32_t WASI(fd_fdstat_set_flags)(int32_t fd, int32_t flags)
{
    struct fd *f = get_fd(fd);
    if (!f)
        return __WASI_ERRNO_BADF;
    f->flags = (__wasi_fdflags_t)flags;
    return 0;
}

static void put_stat(const struct cm_node *n, int32_t ret)
{
    struct cm_stat st;
    cm_fs_stat(n, &st);
    *(__wasi_filestat_t *)ret = (__wasi_filestat_t){.dev = 1,
                                                    .ino = st.ino,
                                                    .filetype = st.type,
                                                    .nlink = st.links,
                                                    .size = st.size,
                                                    .atim = (uint64_t)st.atime,
                                                    .mtim = (uint64_t)st.mtime,
                                                    .ctim = (uint64_t)st.ctime};
}

int32_t WASI(fd_filestat_get)(int32_t fd, int32_t ret)
{
    struct fd *f = get_fd(fd);
    if (!f)
        return __WASI_ERRNO_BADF;
    if (f->node)
        put_stat(f->node, ret);
    else
        *(__wasi_filestat_t *)ret = (__wasi_filestat_t){.dev = 2, .ino = (uint64_t)fd, .filetype = fd_type(f), .nlink = 1};
    return 0;
}

int32_t WASI(fd_filestat_set_size)(int32_t fd, int64_t size)
{
    struct fd *f = get_fd(fd);
    if (!f || !f->node)
        return f ? __WASI_ERRNO_INVAL : __WASI_ERRNO_BADF;
    if (!(f->rights & __WASI_RIGHTS_FD_WRITE) || cm_fs_type(f->node) != __WASI_FILETYPE_REGULAR_FILE || size < 0)
        return __WASI_ERRNO_INVAL;
    return cm_fs_resize(f->node, (uint64_t)size);
}

static int touch(struct cm_node *n, int64_t atim, int64_t mtim, int32_t flags)
{
    if (cm_fs_readonly(n))
        return __WASI_ERRNO_ROFS;
    int64_t now = clock_ns(0);
    cm_fs_touch(n, flags & (__WASI_FSTFLAGS_ATIM | __WASI_FSTFLAGS_ATIM_NOW),
                flags & __WASI_FSTFLAGS_ATIM_NOW ? now : atim, flags & (__WASI_FSTFLAGS_MTIM | __WASI_FSTFLAGS_MTIM_NOW),
                flags & __WASI_FSTFLAGS_MTIM_NOW ? now : mtim);
    return 0;
}

int32_t WASI(fd_filestat_set_times)(int32_t fd, int64_t atim, int64_t mtim, int32_t flags)
{
    struct cm_node *n = get_node(fd);
    return n ? touch(n, atim, mtim, flags) : __WASI_ERRNO_BADF;
}

int32_t WASI(fd_advise)(int32_t fd, int64_t offset, int64_t len, int32_t advice)
{
    (void)offset, (void)len, (void)advice;
    return get_fd(fd) ? 0 : __WASI_ERRNO_BADF;
}

int32_t WASI(fd_allocate)(int32_t fd, int64_t offset, int64_t len)
{
    struct fd *f = get_fd(fd);
    if (!f || !f->node || !(f->rights & __WASI_RIGHTS_FD_WRITE))
        return __WASI_ERRNO_BADF;
    struct cm_stat st;
    cm_fs_stat(f->node, &st);
    int64_t end;
    if (offset < 0 || len <= 0 || __builtin_add_overflow(offset, len, &end))
        return __WASI_ERRNO_INVAL;
    return (uint64_t)end > st.size ? cm_fs_resize(f->node, (uint64_t)end) : 0;
}

int32_t WASI(fd_sync)(int32_t fd)
{
    return get_fd(fd) ? 0 : __WASI_ERRNO_BADF;
}

int32_t WASI(fd_datasync)(int32_t fd)
{
    return WASI(fd_sync)(fd);
}

int32_t WASI(fd_seek)(int32_t fd, int64_t delta, int32_t whence, int32_t ret)
{
    struct fd *f = get_fd(fd);
    if (!f)
        return __WASI_ERRNO_BADF;
    if (!f->node || cm_fs_type(f->node) == __WASI_FILETYPE_DIRECTORY)
        return __WASI_ERRNO_SPIPE;
    struct cm_stat st;
    cm_fs_stat(f->node, &st);
    int64_t base = whence == __WASI_WHENCE_SET ? 0 : whence == __WASI_WHENCE_CUR ? (int64_t)f->offset : (int64_t)st.size;
    int64_t at;
    if (whence < 0 || whence > __WASI_WHENCE_END || __builtin_add_overflow(base, delta, &at) || at < 0)
        return __WASI_ERRNO_INVAL;
    f->offset = (uint64_t)at;
    *(int64_t *)ret = at;
    return 0;
}

int32_t WASI(fd_tell)(int32_t fd, int32_t ret)
{
    return WASI(fd_seek)(fd, 0, __WASI_WHENCE_CUR, ret);
}

/* ---- reading and writing */

static int32_t read_at(struct fd *f, const __wasi_iovec_t *iov, int32_t count, uint64_t offset, uint32_t *ret)
{
    uint32_t total = 0;
    for (int32_t i = 0; i < count; i++) {
        size_t n = cm_fs_read(f->node, offset + total, iov[i].buf, iov[i].buf_len);
        total += (uint32_t)n;
        if (n < iov[i].buf_len)
            break;
    }
    *ret = total;
    return 0;
}

static int readable(const struct fd *f)
{
    if (!f || !(f->rights & __WASI_RIGHTS_FD_READ))
        return __WASI_ERRNO_BADF;
    return f->node && cm_fs_type(f->node) == __WASI_FILETYPE_DIRECTORY ? __WASI_ERRNO_ISDIR : 0;
}

int32_t WASI(fd_pread)(int32_t fd, int32_t iov, int32_t count, int64_t offset, int32_t ret)
{
    struct fd *f = get_fd(fd);
    int rc = readable(f);
    if (rc || !f->node || offset < 0)
        return rc ? rc : !f->node ? __WASI_ERRNO_SPIPE : __WASI_ERRNO_INVAL;
    return read_at(f, (const __wasi_iovec_t *)iov, count, (uint64_t)offset, (uint32_t *)ret);
}

int32_t WASI(fd_read)(int32_t fd, int32_t iov, int32_t count, int32_t ret)
{
    struct fd *f = get_fd(fd);
    int rc = readable(f);
    if (rc)
        return rc;
    *(uint32_t *)ret = 0; /* stdin is always at its end */
    if (f->node) {
        read_at(f, (const __wasi_iovec_t *)iov, count, f->offset, (uint32_t *)ret);
        f->offset += *(uint32_t *)ret;
    }
    return 0;
}

static void write_stream(int stream, const char *data, size_t len)
{
    enum { CHUNK = 32 << 10 }; /* within what the host buffers at once */
    while (len) {
        size_t n = len < CHUNK ? len : CHUNK;
        while (!cm_host_emit(stream, data, n))
            cm_sched_wait_output();
        data += n;
        len -= n;
    }
}

static int32_t write_at(struct fd *f, const __wasi_ciovec_t *iov, int32_t count, uint64_t offset, uint32_t *ret)
{
    uint32_t total = 0;
    int rc = 0;
    for (int32_t i = 0; i < count && !rc; i++) {
        rc = cm_fs_write(f->node, offset + total, iov[i].buf, iov[i].buf_len);
        total += rc ? 0 : iov[i].buf_len;
    }
    *ret = total;
    return total ? 0 : rc;
}

static bool writable(const struct fd *f)
{
    return f && (f->rights & __WASI_RIGHTS_FD_WRITE);
}

int32_t WASI(fd_pwrite)(int32_t fd, int32_t iov, int32_t count, int64_t offset, int32_t ret)
{
    struct fd *f = get_fd(fd);
    if (!writable(f))
        return __WASI_ERRNO_BADF;
    if (!f->node || offset < 0)
        return f->node ? __WASI_ERRNO_INVAL : __WASI_ERRNO_SPIPE;
    return write_at(f, (const __wasi_ciovec_t *)iov, count, (uint64_t)offset, (uint32_t *)ret);
}

int32_t WASI(fd_write)(int32_t fd, int32_t iov, int32_t count, int32_t ret)
{
    struct fd *f = get_fd(fd);
    if (!writable(f))
        return __WASI_ERRNO_BADF;
    const __wasi_ciovec_t *v = (const __wasi_ciovec_t *)iov;
    uint32_t *total = (uint32_t *)ret;
    *total = 0;
    if (f->kind == STREAM) {
        for (int32_t i = 0; i < count; i++) {
            write_stream(f->stream, (const char *)v[i].buf, v[i].buf_len);
            *total += v[i].buf_len;
        }
        return 0;
    }
    if (f->flags & __WASI_FDFLAGS_APPEND) {
        struct cm_stat st;
        cm_fs_stat(f->node, &st);
        f->offset = st.size;
    }
    int32_t rc = write_at(f, v, count, f->offset, total);
    f->offset += *total;
    return rc;
}

int32_t WASI(fd_readdir)(int32_t fd, int32_t buffer, int32_t size, int64_t cookie, int32_t ret)
{
    struct cm_node *dir = get_node(fd);
    if (!dir)
        return __WASI_ERRNO_BADF;
    if (cm_fs_type(dir) != __WASI_FILETYPE_DIRECTORY)
        return __WASI_ERRNO_NOTDIR;
    char *out = (char *)buffer;
    uint32_t left = (uint32_t)size;
    struct cm_entry e;
    for (uint64_t i = (uint64_t)cookie; left && cm_fs_entry(dir, i, &e); i++) {
        if (!e.name)
            continue;
        struct cm_stat st;
        cm_fs_stat(e.node, &st);
        uint32_t name_len = (uint32_t)strlen(e.name);
        __wasi_dirent_t d = {.d_next = i + 1, .d_ino = st.ino, .d_namlen = name_len, .d_type = st.type};
        uint32_t n = left < sizeof d ? left : sizeof d;
        memcpy(out, &d, n);
        out += n, left -= n;
        n = left < name_len ? left : name_len;
        memcpy(out, e.name, n);
        out += n, left -= n;
    }
    *(uint32_t *)ret = (uint32_t)size - left;
    return 0;
}

/* ---- paths */

#define PATH(ptr, len) (const char *)(ptr), (size_t)(uint32_t)(len)
#define BASE(fd)                         \
    struct cm_node *base = get_node(fd); \
    if (!base)                           \
    return __WASI_ERRNO_BADF

static int32_t free_fd(void)
{
    for (int32_t i = 0; i < FDS_MAX; i++)
        if (fds[i].kind == CLOSED)
            return i;
    return -1;
}

/* What of the wanted rights this node cannot give, as an error. */
static int check_open(const struct cm_node *n, int32_t oflags, __wasi_rights_t rights)
{
    bool dir = cm_fs_type(n) == __WASI_FILETYPE_DIRECTORY;
    bool write = (rights & __WASI_RIGHTS_FD_WRITE) || (oflags & __WASI_OFLAGS_TRUNC);
    if (cm_fs_type(n) == __WASI_FILETYPE_SYMBOLIC_LINK)
        return __WASI_ERRNO_LOOP;
    if ((oflags & __WASI_OFLAGS_DIRECTORY) && !dir)
        return __WASI_ERRNO_NOTDIR;
    if (dir && write)
        return __WASI_ERRNO_ISDIR;
    return write && cm_fs_readonly(n) ? __WASI_ERRNO_ROFS : 0;
}

int32_t WASI(path_open)(int32_t fd, int32_t lookup, int32_t path, int32_t len, int32_t oflags, int64_t rights,
                        int64_t inheriting, int32_t flags, int32_t ret)
{
    (void)inheriting;
    BASE(fd);
    bool follow = lookup & __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW;
    int32_t free = free_fd();
    if (free < 0)
        return __WASI_ERRNO_MFILE;
    struct cm_node *n;
    int rc = oflags & __WASI_OFLAGS_CREAT
                 ? cm_fs_create(base, PATH(path, len), follow, oflags & __WASI_OFLAGS_EXCL, &n)
                 : cm_fs_find(base, PATH(path, len), follow, &n);
    if (!rc)
        rc = check_open(n, oflags, (__wasi_rights_t)rights);
    if (!rc && (oflags & __WASI_OFLAGS_TRUNC))
        rc = cm_fs_resize(n, 0);
    if (rc)
        return rc;
    cm_fs_ref(n);
    fds[free] = (struct fd){
        .kind = NODE, .node = n, .flags = (__wasi_fdflags_t)flags, .rights = (__wasi_rights_t)rights};
    *(int32_t *)ret = free;
    return 0;
}

int32_t WASI(path_filestat_get)(int32_t fd, int32_t lookup, int32_t path, int32_t len, int32_t ret)
{
    BASE(fd);
    struct cm_node *n;
    int rc = cm_fs_find(base, PATH(path, len), lookup & __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, &n);
    if (!rc)
        put_stat(n, ret);
    return rc;
}

int32_t WASI(path_filestat_set_times)(int32_t fd, int32_t lookup, int32_t path, int32_t len, int64_t atim, int64_t mtim,
                                      int32_t flags)
{
    BASE(fd);
    struct cm_node *n;
    int rc = cm_fs_find(base, PATH(path, len), lookup & __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, &n);
    return rc ? rc : touch(n, atim, mtim, flags);
}

int32_t WASI(path_create_directory)(int32_t fd, int32_t path, int32_t len)
{
    BASE(fd);
    return cm_fs_mkdir(base, PATH(path, len));
}

int32_t WASI(path_remove_directory)(int32_t fd, int32_t path, int32_t len)
{
    BASE(fd);
    return cm_fs_remove(base, PATH(path, len), true);
}

int32_t WASI(path_unlink_file)(int32_t fd, int32_t path, int32_t len)
{
    BASE(fd);
    return cm_fs_remove(base, PATH(path, len), false);
}

int32_t WASI(path_rename)(int32_t fd, int32_t path, int32_t len, int32_t to_fd, int32_t to, int32_t to_len)
{
    BASE(fd);
    struct cm_node *to_base = get_node(to_fd);
    return to_base ? cm_fs_rename(base, PATH(path, len), to_base, PATH(to, to_len)) : __WASI_ERRNO_BADF;
}

int32_t WASI(path_symlink)(int32_t target, int32_t target_len, int32_t fd, int32_t path, int32_t len)
{
    BASE(fd);
    return cm_fs_symlink(base, PATH(path, len), PATH(target, target_len));
}

int32_t WASI(path_link)(int32_t old_fd, int32_t lookup, int32_t old, int32_t old_len, int32_t fd, int32_t path,
                        int32_t len)
{
    BASE(fd);
    struct cm_node *old_base = get_node(old_fd), *n;
    if (!old_base)
        return __WASI_ERRNO_BADF;
    int rc = cm_fs_find(old_base, PATH(old, old_len), lookup & __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, &n);
    return rc ? rc : cm_fs_link(n, base, PATH(path, len));
}

int32_t WASI(path_readlink)(int32_t fd, int32_t path, int32_t len, int32_t buffer, int32_t size, int32_t ret)
{
    BASE(fd);
    struct cm_node *n;
    const char *text;
    size_t text_len;
    int rc = cm_fs_find(base, PATH(path, len), false, &n);
    if (!rc)
        rc = cm_fs_readlink(n, &text, &text_len);
    if (rc)
        return rc;
    if (text_len > (uint32_t)size)
        text_len = (uint32_t)size;
    memcpy((char *)buffer, text, text_len);
    *(uint32_t *)ret = (uint32_t)text_len;
    return 0;
}

/* ---- fcntl: as the C library's, and with locks that are always granted. All who could hold one are in this process,
 * and SQLite, who alone asks for them, keeps its own books on that. */

enum { GET_LOCK = 12, SET_LOCK = 13, SET_LOCK_WAIT = 14, UNLOCKED = 2 }; /* SQLite's own numbers where libc has none */

static int get_flags(const struct fd *f)
{
    bool read = f->rights & RIGHTS_READ, write = f->rights & __WASI_RIGHTS_FD_WRITE;
    return f->flags | (read && write ? O_RDWR : write ? O_WRONLY : read ? O_RDONLY : O_SEARCH);
}

int fcntl(int fd, int command, ...)
{
    struct fd *f = get_fd(fd);
    va_list args;
    va_start(args, command);
    int rc = 0;
    if (!f) {
        errno = EBADF;
        rc = -1;
    } else if (command == F_GETFD) {
        rc = FD_CLOEXEC;
    } else if (command == F_GETFL) {
        rc = get_flags(f);
    } else if (command == F_SETFL) {
        f->flags = (__wasi_fdflags_t)(va_arg(args, int) & 0xfff); /* the part that is WASI's */
    } else if (command == GET_LOCK) {
        *va_arg(args, short *) = UNLOCKED;
    } else if (command != F_SETFD && command != SET_LOCK && command != SET_LOCK_WAIT) {
        errno = EINVAL;
        rc = -1;
    }
    va_end(args);
    return rc;
}

/* ---- waiting */

static void put_event(__wasi_event_t *out, const __wasi_subscription_t *in, __wasi_errno_t error)
{
    *out = (__wasi_event_t){.userdata = in->userdata, .error = error, .type = in->u.tag};
}

static int64_t clock_deadline(const __wasi_subscription_clock_t *c)
{
    int64_t now = cm_sched_now(), deadline, timeout = c->timeout > INT64_MAX ? INT64_MAX : (int64_t)c->timeout;
    if (c->flags & __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME)
        timeout -= clock_ns((int32_t)c->id);
    return timeout < 0 ? now : __builtin_add_overflow(now, timeout, &deadline) ? INT64_MAX : deadline;
}

/* Files are always ready; otherwise the earliest clock is waited for. */
int32_t WASI(poll_oneoff)(int32_t in_ptr, int32_t out_ptr, int32_t count, int32_t ret)
{
    const __wasi_subscription_t *in = (const __wasi_subscription_t *)in_ptr, *first = NULL;
    __wasi_event_t *out = (__wasi_event_t *)out_ptr;
    int64_t best = INT64_MAX;
    uint32_t events = 0;
    for (int32_t i = 0; i < count; i++) {
        if (in[i].u.tag != __WASI_EVENTTYPE_CLOCK) {
            put_event(&out[events++], &in[i], get_fd((int32_t)in[i].u.u.fd_read.file_descriptor) ? 0 : __WASI_ERRNO_BADF);
            continue;
        }
        int64_t deadline = clock_deadline(&in[i].u.u.clock);
        if (!first || deadline < best) {
            best = deadline;
            first = &in[i];
        }
    }
    if (!count)
        return __WASI_ERRNO_INVAL;
    if (!events) {
        if (cm_sched_sleep(best))
            return __WASI_ERRNO_INTR;
        put_event(&out[events++], first, 0);
    }
    *(uint32_t *)ret = events;
    return 0;
}

/* ---- sockets: there are none */

int32_t WASI(sock_accept)(int32_t fd, int32_t flags, int32_t ret)
{
    (void)flags, (void)ret;
    return get_fd(fd) ? __WASI_ERRNO_NOTSOCK : __WASI_ERRNO_BADF;
}

int32_t WASI(sock_recv)(int32_t fd, int32_t iov, int32_t count, int32_t flags, int32_t ret, int32_t ret_flags)
{
    (void)iov, (void)count, (void)flags, (void)ret, (void)ret_flags;
    return get_fd(fd) ? __WASI_ERRNO_NOTSOCK : __WASI_ERRNO_BADF;
}

int32_t WASI(sock_send)(int32_t fd, int32_t iov, int32_t count, int32_t flags, int32_t ret)
{
    (void)iov, (void)count, (void)flags, (void)ret;
    return get_fd(fd) ? __WASI_ERRNO_NOTSOCK : __WASI_ERRNO_BADF;
}

int32_t WASI(sock_shutdown)(int32_t fd, int32_t how)
{
    (void)how;
    return get_fd(fd) ? __WASI_ERRNO_NOTSOCK : __WASI_ERRNO_BADF;
}
