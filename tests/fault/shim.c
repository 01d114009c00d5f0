/* SPDX-License-Identifier: Apache-2.0 */
/* Makes calls of a running server fail, as a plan says that the test changes while the server runs.
 *
 * Loaded with LD_PRELOAD; the plan is the file CM_FAULT_FILE, mapped by both. A rule says which calls fail - from the
 * n-th on, so many of them - with which errno, and whose: of the program, of libmicrohttpd, of libuv, known by the
 * return address. It is for the gateway: the sandbox is static and gets no environment. */
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <dlfcn.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum call {
#define FAULT(name) CALL_##name,
#include "calls.def"
#undef FAULT
    CALLS
};

enum caller { PROGRAM = 1, HTTP_LIBRARY = 2, LOOP_LIBRARY = 4, OTHERS = 8 };

/* Six numbers of 32 bits, as plan.py packs them. */
struct rule {
    uint32_t from, count; /* fails calls number `from` to `from + count - 1`, counted from 1; count 0: none */
    int32_t error;
    uint32_t callers;              /* a set of enum caller */
    _Atomic uint32_t calls, failed; /* seen since the test has reset them */
};

static struct rule none[CALLS], *plan = none;

static struct {
    uintptr_t begin, end;
    enum caller caller;
} ranges[64];
static unsigned range_count;

/* Whose calls these are */

static enum caller caller_of_name(const char *name)
{
    return name[0] == '\0'              ? PROGRAM
           : strstr(name, "microhttpd") ? HTTP_LIBRARY
           : strstr(name, "/libuv.")    ? LOOP_LIBRARY
                                        : OTHERS;
}

static int note_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    for (int i = 0; i < info->dlpi_phnum && range_count < 64; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
            continue;
        ranges[range_count].begin = info->dlpi_addr + p->p_vaddr;
        ranges[range_count].end = info->dlpi_addr + p->p_vaddr + p->p_memsz;
        ranges[range_count++].caller = caller_of_name(info->dlpi_name);
    }
    return 0;
}

static enum caller caller_of(const void *address)
{
    for (unsigned i = 0; i < range_count; i++)
        if ((uintptr_t)address >= ranges[i].begin && (uintptr_t)address < ranges[i].end)
            return ranges[i].caller;
    return OTHERS;
}

__attribute__((constructor)) static void load_plan(void)
{
    const char *path = getenv("CM_FAULT_FILE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    struct stat st;

    dl_iterate_phdr(note_object, NULL);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size != (off_t)sizeof none)
        return;
    void *p = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED)
        plan = p;
}

/* True when this call has to fail; then errno is set. */
static bool fails(enum call call, const void *return_address)
{
    struct rule *r = &plan[call];

    if (r->callers == 0 || !(r->callers & caller_of(return_address)))
        return false;
    uint32_t n = atomic_fetch_add(&r->calls, 1) + 1;
    if (r->count == 0 || n < r->from || n - r->from >= r->count)
        return false;
    atomic_fetch_add(&r->failed, 1);
    errno = r->error;
    return true;
}

/* The calls */

#define REAL(name)                                                                                                     \
    static __typeof__(name) *real;                                                                                     \
    if (!real)                                                                                                         \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);

#define WRAP(type, name, parameters, arguments)                                                                        \
    type name parameters                                                                                               \
    {                                                                                                                  \
        REAL(name)                                                                                                     \
        return fails(CALL_##name, __builtin_return_address(0)) ? (type) - 1 : real arguments;                          \
    }

int pidfd_open(pid_t pid, unsigned flags);
int pidfd_send_signal(int fd, int signum, siginfo_t *info, unsigned flags);
ssize_t getrandom(void *to, size_t len, unsigned flags);

WRAP(int, socketpair, (int domain, int type, int protocol, int fds[2]), (domain, type, protocol, fds))
WRAP(int, pidfd_open, (pid_t pid, unsigned flags), (pid, flags))
WRAP(int, pidfd_send_signal, (int fd, int signum, siginfo_t *info, unsigned flags), (fd, signum, info, flags))
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags))
WRAP(ssize_t, send, (int fd, const void *data, size_t len, int flags), (fd, data, len, flags))
WRAP(ssize_t, recv, (int fd, void *to, size_t len, int flags), (fd, to, len, flags))
WRAP(ssize_t, read, (int fd, void *to, size_t len), (fd, to, len))
WRAP(ssize_t, write, (int fd, const void *data, size_t len), (fd, data, len))
WRAP(int, accept4, (int fd, struct sockaddr *address, socklen_t *len, int flags), (fd, address, len, flags))
WRAP(int, waitid, (idtype_t type, id_t id, siginfo_t *info, int options), (type, id, info, options))
WRAP(int, poll, (struct pollfd * list, nfds_t count, int ms), (list, count, ms))
WRAP(ssize_t, getrandom, (void *to, size_t len, unsigned flags), (to, len, flags))
WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP(int, ftruncate, (int fd, off_t size), (fd, size))
WRAP(ssize_t, pread64, (int fd, void *to, size_t len, off64_t at), (fd, to, len, at))

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *files, const posix_spawnattr_t *attr,
                char *const argv[], char *const environment[])
{
    REAL(posix_spawn)
    return fails(CALL_posix_spawn, __builtin_return_address(0)) ? errno
                                                                : real(pid, path, files, attr, argv, environment);
}

int fcntl(int fd, int command, ...)
{
    REAL(fcntl)
    va_list ap;

    va_start(ap, command);
    void *argument = va_arg(ap, void *);
    va_end(ap);
    return fails(CALL_fcntl, __builtin_return_address(0)) ? -1 : real(fd, command, argument);
}

/* Only what asks for something can be refused: the kernel forgets a descriptor without fail. */
int epoll_ctl(int set, int op, int fd, struct epoll_event *event)
{
    REAL(epoll_ctl)
    bool asks = op != EPOLL_CTL_DEL;

    return asks && fails(CALL_epoll_ctl, __builtin_return_address(0)) ? -1 : real(set, op, fd, event);
}

/* Memory: not through dlsym(), which allocates itself. */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size)
{
    return fails(CALL_malloc, __builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails(CALL_calloc, __builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return fails(CALL_realloc, __builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}
