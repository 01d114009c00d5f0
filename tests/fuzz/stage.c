/* SPDX-License-Identifier: Apache-2.0 */
/* The functions named __wrap_* stand in for those of the system and of the loop's timers: the linker sees to it. */
#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "ipc/frame.h"
#include "turn.h"

#define PROCESSES_MAX 500
#define TIMERS_MAX    600
#define FIRST_PID     0x10000000 /* above any that the kernel gives */
#define ZYGOTE_FD     3

/* A process: the read end of a pipe is its pidfd. */
static struct process {
    int read_end, write_end;
    ino_t inode;
    bool dead, reaped;
    int code, status;
} processes[PROCESSES_MAX];
static int process_count;

static struct stage_worker workers[PROCESSES_MAX];
static int worker_count;

static struct {
    int fd, process;
    unsigned number; /* of those started so far */
    bool lied;       /* about whom it has born: then nobody else knows who is left over */
    int offered; /* our copy of the descriptor that the next posix_spawn() hands over */
} zygote;

/* time */

struct cm_timer {
    bool open, running;
    uint64_t due_ns, every_ns;
    void (*cb)(void *arg);
    void *arg;
};

static struct cm_timer timers[TIMERS_MAX];
static uint64_t now_ns;

uint64_t __wrap_cm_clock_ns(void);
uint64_t __wrap_cm_clock_ns(void)
{
    return now_ns;
}

struct cm_timer *__wrap_cm_timer_open(struct cm_loop *loop, void (*cb)(void *arg), void *arg, struct cm_err *err);
struct cm_timer *__wrap_cm_timer_open(struct cm_loop *loop, void (*cb)(void *arg), void *arg, struct cm_err *err)
{
    (void)loop;
    (void)err;
    for (struct cm_timer *t = timers; t < timers + TIMERS_MAX; t++)
        if (!t->open) {
            *t = (struct cm_timer){.open = true, .cb = cb, .arg = arg};
            return t;
        }
    abort();
}

void __wrap_cm_timer_start(struct cm_timer *t, uint64_t after_ms, uint64_t every_ms);
void __wrap_cm_timer_start(struct cm_timer *t, uint64_t after_ms, uint64_t every_ms)
{
    CHECK(t->open);
    t->running = true;
    t->due_ns = now_ns + after_ms * CM_NS_PER_MS;
    t->every_ns = every_ms * CM_NS_PER_MS;
}

void __wrap_cm_timer_stop(struct cm_timer *t);
void __wrap_cm_timer_stop(struct cm_timer *t)
{
    CHECK(t->open);
    t->running = false;
}

struct cm_timer *__wrap_cm_timer_close(struct cm_timer *t);
struct cm_timer *__wrap_cm_timer_close(struct cm_timer *t)
{
    if (t)
        *t = (struct cm_timer){0};
    return NULL;
}

static struct cm_timer *next_due(uint64_t until)
{
    struct cm_timer *first = NULL;

    for (struct cm_timer *t = timers; t < timers + TIMERS_MAX; t++)
        if (t->running && t->due_ns <= until && (!first || t->due_ns < first->due_ns))
            first = t;
    return first;
}

void stage_advance(struct cm_loop *loop, unsigned ms)
{
    uint64_t until = now_ns + ms * CM_NS_PER_MS;

    for (struct cm_timer *t = next_due(until); t; t = next_due(until)) {
        now_ns = t->due_ns > now_ns ? t->due_ns : now_ns;
        t->running = t->every_ns > 0;
        t->due_ns = now_ns + t->every_ns;
        t->cb(t->arg);
        fuzz_turns(loop, 1);
    }
    now_ns = until;
}

/* memory */

static unsigned allocations_left; /* until one fails; 0: none will */

static bool allocation_fails(void)
{
    return allocations_left > 0 && --allocations_left == 0;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
    return allocation_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return allocation_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return allocation_fails() ? NULL : __real_realloc(old, size);
}

void stage_fail_allocation(unsigned nth)
{
    allocations_left = nth;
}

/* processes */

static int birth(void)
{
    struct process *p = &processes[process_count];
    struct stat st;
    int ends[2];

    CHECK(process_count < PROCESSES_MAX && pipe2(ends, O_CLOEXEC) == 0 && fstat(ends[0], &st) == 0);
    *p = (struct process){.read_end = ends[0], .write_end = ends[1], .inode = st.st_ino};
    return process_count++;
}

static void die(int index, int code, int status)
{
    struct process *p = &processes[index];

    if (p->dead)
        return;
    p->dead = true;
    p->code = code;
    p->status = status;
    CHECK(write(p->write_end, "", 1) == 1);
    if (index == zygote.process) {
        for (int i = 0; i < worker_count; i++) /* one that has hung up, and that it may not have named yet */
            zygote.lied |= workers[i].process >= 0 && workers[i].fd < 0;
        zygote.fd = zygote.fd >= 0 ? close(zygote.fd) - 1 : -1;
        return;
    }
    for (int i = 0; i < worker_count; i++)
        if (workers[i].process == index && workers[i].fd >= 0)
            workers[i].fd = close(workers[i].fd) - 1;
}

static int process_of_fd(int fd)
{
    struct stat st;

    for (int i = 0; fstat(fd, &st) == 0 && i < process_count; i++)
        if (processes[i].inode == st.st_ino && processes[i].read_end >= 0)
            return i;
    return -1;
}

/* Nobody here has used a processor: a real process of that number must not have a say. */
int __wrap_clock_getcpuclockid(pid_t pid, clockid_t *ret);
int __wrap_clock_getcpuclockid(pid_t pid, clockid_t *ret)
{
    (void)pid;
    (void)ret;
    return ESRCH;
}

int __wrap_pidfd_open(pid_t pid, unsigned flags);
int __wrap_pidfd_open(pid_t pid, unsigned flags)
{
    (void)flags;
    CHECK(pid >= FIRST_PID && pid < FIRST_PID + process_count);
    return fcntl(processes[pid - FIRST_PID].read_end, F_DUPFD_CLOEXEC, 0);
}

int __wrap_pidfd_send_signal(int fd, int signum, siginfo_t *info, unsigned flags);
int __wrap_pidfd_send_signal(int fd, int signum, siginfo_t *info, unsigned flags)
{
    int i = process_of_fd(fd);

    (void)info;
    (void)flags;
    if (i < 0 || processes[i].reaped)
        return -1;
    if (signum == SIGKILL)
        die(i, CLD_KILLED, SIGKILL);
    return 0;
}

int __wrap_kill(pid_t pid, int signum);
int __wrap_kill(pid_t pid, int signum)
{
    CHECK(pid >= FIRST_PID && pid < FIRST_PID + process_count && signum == SIGKILL);
    die(pid - FIRST_PID, CLD_KILLED, SIGKILL);
    return 0;
}

pid_t __wrap_waitpid(pid_t pid, int *ret_status, int options);
pid_t __wrap_waitpid(pid_t pid, int *ret_status, int options)
{
    CHECK(pid >= FIRST_PID && pid < FIRST_PID + process_count && !ret_status && options == 0);
    CHECK(processes[pid - FIRST_PID].dead); /* else it would wait for good */
    processes[pid - FIRST_PID].reaped = true;
    return pid;
}

/* As a worker does whose channel has ended. */
static void sweep(void)
{
    char byte;

    for (int i = 0; i < worker_count; i++)
        if (workers[i].process >= 0 && workers[i].fd >= 0 &&
            recv(workers[i].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
            die(workers[i].process, CLD_EXITED, 0);
}

static int any_dead(void)
{
    int alive = -1;

    sweep();
    for (int i = 0; i < process_count; i++) {
        if (processes[i].dead && !processes[i].reaped)
            return i;
        if (!processes[i].dead)
            alive = i;
    }
    return alive;
}

int __wrap_waitid(idtype_t type, id_t id, siginfo_t *si, int options);
int __wrap_waitid(idtype_t type, id_t id, siginfo_t *si, int options)
{
    int i = type == P_PIDFD ? process_of_fd((int)id) : type == P_PID ? (int)id - FIRST_PID : any_dead();

    if (i < 0 || i >= process_count || processes[i].reaped) {
        errno = ECHILD;
        return -1;
    }
    *si = (siginfo_t){0};
    if (!processes[i].dead)
        return 0;
    si->si_pid = FIRST_PID + i;
    si->si_code = processes[i].code;
    si->si_status = processes[i].status;
    processes[i].reaped = !(options & WNOWAIT);
    return 0;
}

int __wrap_posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *files, int fd, int new_fd);
int __wrap_posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *files, int fd, int new_fd)
{
    (void)files;
    if (new_fd == ZYGOTE_FD) {
        CHECK(zygote.offered < 0);
        zygote.offered = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    }
    return 0;
}

int __wrap_posix_spawn(pid_t *ret_pid, const char *path, const posix_spawn_file_actions_t *files,
                       const posix_spawnattr_t *attr, char *const *argv, char *const *environment);
int __wrap_posix_spawn(pid_t *ret_pid, const char *path, const posix_spawn_file_actions_t *files,
                       const posix_spawnattr_t *attr, char *const *argv, char *const *environment)
{
    (void)path, (void)files, (void)attr, (void)argv;
    CHECK(!environment[0] && zygote.offered >= 0);
    if (zygote.fd >= 0)
        close(zygote.fd);
    zygote.fd = zygote.offered;
    zygote.offered = -1;
    zygote.process = birth();
    zygote.number++;
    *ret_pid = FIRST_PID + zygote.process;
    return 0;
}

/* frames */

/* Sends a finished message, or as much of it as the socket takes. `fd` goes along, -1 for none. */
static void send_message(int to, struct cm_ipc_msg *m, int fd)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct msghdr msg = {.msg_iov = m->iov};

    if (to < 0 || cm_ipc_msg_finish(m, NULL) < 0)
        return;
    msg.msg_iovlen = (size_t)m->iovcnt;
    if (fd >= 0) {
        control.head = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
        msg.msg_control = &control;
        msg.msg_controllen = sizeof control;
    }
    (void)sendmsg(to, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void send_raw(int to, uint8_t detail, struct fuzz_in *in)
{
    size_t len;
    const uint8_t *bytes = fuzz_bytes(in, detail, &len);

    if (to >= 0)
        (void)send(to, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* The file of a CONTENT follows its head in a later turn. */
static bool is_whole(int from, enum cm_ipc_role self)
{
    static uint8_t all[8192];
    struct cm_ipc_header h = {0};
    ssize_t n = recv(from, all, sizeof all, MSG_PEEK | MSG_DONTWAIT);

    CHECK(n < CM_IPC_HEADER_SIZE || cm_ipc_header_get(all, CM_IPC_GATEWAY, self, &h, NULL) == 0);
    return n >= (ssize_t)(CM_IPC_HEADER_SIZE + h.len);
}

/* Reads one frame. The first descriptor is handed out, further ones are closed. False when there is none. */
static bool receive_frame(int from, struct cm_ipc_header *ret, enum cm_ipc_role self, uint8_t *payload, size_t size,
                          int *ret_fd)
{
    uint8_t head[CM_IPC_HEADER_SIZE];
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct iovec iov = {head, sizeof head};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};

    *ret_fd = -1;
    if (from < 0 || !is_whole(from, self) ||
        recvmsg(from, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != (ssize_t)sizeof head)
        return false;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (i == 0)
                *ret_fd = fd;
            else
                close(fd);
        }
    CHECK(cm_ipc_header_get(head, CM_IPC_GATEWAY, self, ret, NULL) == 0 && ret->len <= size);
    CHECK(ret->len == 0 || recv(from, payload, ret->len, MSG_DONTWAIT) == (ssize_t)ret->len);
    return true;
}

/* workers */

const struct stage_worker *stage_worker(int index)
{
    CHECK(index >= 0 && index < worker_count);
    return &workers[index];
}

static void read_answer(int index, const struct cm_ipc_header *h, const struct cm_ipc_fields *f)
{
    bool success = cm_ipc_get_uint(f, CM_FIELD_SUCCESS, 0) == 1;
    size_t len;
    const char *text = cm_ipc_get_bytes(f, success ? CM_FIELD_DATA : CM_FIELD_ERROR, &len);

    stage_answer_was_read(index, h->id, success ? -1 : (int)cm_ipc_get_uint(f, CM_FIELD_FAILURE, 99), text, len);
}

static void read_worker(int index)
{
    struct stage_worker *w = &workers[index];
    struct cm_ipc_header h;
    struct cm_ipc_fields f;
    uint8_t payload[4096];
    size_t len;
    int fd;

    while (receive_frame(w->fd, &h, CM_IPC_WORKER, payload, sizeof payload, &fd)) {
        if (fd >= 0)
            close(fd);
        if (cm_ipc_fields_get(payload, h.len, &f, NULL) < 0)
            continue;
        if (h.type == CM_MSG_ANSWER)
            read_answer(index, &h, &f);
        if (h.type != CM_MSG_EXECUTE && h.type != CM_MSG_LOAD)
            continue;
        w->seq = h.id;
        w->calls = 0;
        const char *code = cm_ipc_get_bytes(&f, h.type == CM_MSG_LOAD ? CM_FIELD_NAME : CM_FIELD_CODE, &len);
        stage_code_was_read(index, code, len);
    }
}

void stage_read_all(void)
{
    for (int i = 0; i < worker_count; i++)
        read_worker(i);
}

static void say_ready(int index)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, CM_MSG_READY, 0);
    send_message(workers[index].fd, &m, -1);
}

/* The text begins with the worker's name; the rest is the input's. */
static void say(int index, enum cm_ipc_type type, uint64_t seq, uint8_t detail, struct fuzz_in *in)
{
    static const char *const locals[] = {"{}", "{\"x\":1}", "{\"a\":[1}", "[]"};
    char text[200];
    struct cm_ipc_msg m;
    size_t more;

    int n = snprintf(text, sizeof text, "w%d;", index);
    const uint8_t *rest = fuzz_bytes(in, detail & 127, &more);
    memcpy(text + n, rest, more);
    more += (size_t)n;
    cm_ipc_msg_begin(&m, type, seq);
    if (type == CM_MSG_OUTPUT) {
        cm_ipc_put_uint(&m, CM_FIELD_STREAM, 1 + (detail >> 7));
        cm_ipc_put_bytes(&m, CM_FIELD_DATA, text, more);
    } else if (type == CM_MSG_TRAP) {
        cm_ipc_put_bytes(&m, CM_FIELD_ERROR, text, more);
    } else {
        cm_ipc_put_uint(&m, CM_FIELD_SUCCESS, detail >> 7);
        cm_ipc_put_bytes(&m, detail & 1 ? CM_FIELD_RESULT : CM_FIELD_ERROR, text, more);
        if (detail & 2)
            cm_ipc_put_bytes(&m, CM_FIELD_TRACEBACK, text, more);
        const char *l = locals[(detail >> 5 & 3) % (detail & 16 ? 4 : 2)];
        cm_ipc_put_bytes(&m, CM_FIELD_LOCALS, l, strlen(l));
    }
    send_message(workers[index].fd, &m, -1);
}

void stage_call_step(uint8_t what, uint8_t detail, struct fuzz_in *in)
{
    static const char *const texts[] = {
        "{}", "{\"a\":[1,null]}", "{\"b\":\"0123456789012345678901234567890123456789\"}", "{\"a\":[1}", "[]", ""};
    struct stage_worker *w = worker_count > 0 ? &workers[worker_count - 1 - what % 4 % worker_count] : NULL;
    struct cm_ipc_msg m;
    size_t len;

    if (!w)
        return;
    read_worker((int)(w - workers));
    bool cancels = what & 4, lies = (detail & 0xc0) == 0xc0;
    const uint8_t *name = fuzz_bytes(in, cancels ? 0 : detail & 7, &len);
    const char *text = texts[lies ? detail % 6 : detail >> 5 & 1];
    cm_ipc_msg_begin(&m, cancels ? CM_MSG_CALL_CANCEL : CM_MSG_CALL, w->seq);
    cm_ipc_put_uint(&m, CM_FIELD_CALL, cancels ? detail % 8 : (w->calls += !lies || !(detail & 8)));
    if (!cancels) {
        cm_ipc_put_bytes(&m, CM_FIELD_NAME, lies ? (const char *)name : "tool", lies ? len : 4);
        cm_ipc_put_bytes(&m, CM_FIELD_ARGUMENTS, text, strlen(text));
        if (detail & 16)
            cm_ipc_put_bytes(&m, CM_FIELD_CONTEXT, text, strlen(text));
        if (detail & 8)
            cm_ipc_put_uint(&m, CM_FIELD_CALL_TIMEOUT, detail);
    }
    send_message(w->fd, &m, -1);
}

void stage_worker_step(uint8_t what, uint8_t detail, struct fuzz_in *in)
{
    if (worker_count == 0)
        return;
    int index = (worker_count - 1 - what % 4 % worker_count);
    struct stage_worker *w = &workers[index];
    uint8_t act = what >> 2;

    if (act == 0) {
        say_ready(index);
    } else if (act == 1) {
        w->raw = true;
        send_raw(w->fd, detail, in);
    } else if (act == 2) {
        if (w->process >= 0)
            die(w->process, detail & 1 ? CLD_EXITED : CLD_KILLED, detail & 1 ? detail >> 1 : SIGSEGV);
    } else if (act == 3) {
        if (w->fd >= 0)
            w->fd = close(w->fd) - 1;
    } else {
        read_worker(index);
        say(index,
            act == 4   ? CM_MSG_OUTPUT
            : act == 5 ? CM_MSG_TRAP
                       : CM_MSG_RESULT,
            act == 7 ? detail : w->seq, detail, in);
    }
}

/* zygote */

static void read_zygote(void)
{
    struct cm_ipc_header h;
    uint8_t payload[256];
    int fd;

    while (receive_frame(zygote.fd, &h, CM_IPC_ZYGOTE, payload, sizeof payload, &fd)) {
        CHECK(h.type == CM_MSG_SPAWN && fd >= 0 && worker_count < PROCESSES_MAX);
        workers[worker_count++] =
            (struct stage_worker){.fd = fd, .process = -1, .zygote = zygote.number, .spawn_id = h.id};
    }
}

static void say_hello(uint8_t detail, struct fuzz_in *in)
{
    struct cm_ipc_msg m;
    size_t len;
    const uint8_t *name = fuzz_bytes(in, detail, &len);

    cm_ipc_msg_begin(&m, CM_MSG_HELLO, 0);
    cm_ipc_put_bytes(&m, CM_FIELD_IMAGE_HASH, name, len);
    send_message(zygote.fd, &m, -1);
}

/* The announcement of worker `index`, true or not. */
static void announce(int index, uint64_t spawn_id, int pid, int pidfd)
{
    struct cm_ipc_msg m;

    (void)index;
    cm_ipc_msg_begin(&m, CM_MSG_SPAWNED, spawn_id);
    cm_ipc_put_uint(&m, CM_FIELD_PID, (uint32_t)pid);
    send_message(zygote.fd, &m, pidfd);
}

static void bear(int index)
{
    struct stage_worker *w = &workers[index];

    if (w->process >= 0 || zygote.fd < 0 || w->fd < 0)
        return;
    zygote.lied |= w->zygote != zygote.number;
    w->process = birth();
    announce(index, w->spawn_id, FIRST_PID + w->process, processes[w->process].read_end);
}

static void refuse(int index, uint8_t detail, struct fuzz_in *in)
{
    struct stage_worker *w = &workers[index];
    struct cm_ipc_msg m;
    size_t len;
    const uint8_t *why = fuzz_bytes(in, detail, &len);

    if (w->process >= 0)
        return;
    cm_ipc_msg_begin(&m, CM_MSG_SPAWN_FAILED, w->spawn_id);
    cm_ipc_put_bytes(&m, CM_FIELD_ERROR, why, len);
    send_message(zygote.fd, &m, -1);
    if (w->fd >= 0)
        w->fd = close(w->fd) - 1;
}

static void lie(uint8_t detail)
{
    int which = process_count > 0 ? detail % process_count : -1;
    int pidfd = detail & 1 || which < 0 || processes[which].read_end < 0 ? 0 : processes[which].read_end;

    announce(0, worker_count > 0 ? workers[detail % worker_count].spawn_id : detail, detail & 2 ? 0 : FIRST_PID + which,
             pidfd);
}

void stage_zygote_step(uint8_t what, uint8_t detail, struct fuzz_in *in)
{
    read_zygote();
    int index = worker_count > 0 ? worker_count - 1 - detail % worker_count : -1;

    switch (what % 8) {
    case 0:
        say_hello(detail, in);
        break;
    case 1:
        if (index >= 0)
            bear(index);
        break;
    case 2:
        if (index >= 0)
            refuse(index, detail >> 3, in);
        break;
    case 3:
        zygote.lied = true;
        lie(detail);
        break;
    case 4:
        zygote.lied = true;
        send_raw(zygote.fd, detail, in);
        break;
    case 5:
        if (detail < 64 && zygote.fd >= 0)
            zygote.fd = close(zygote.fd) - 1;
        break;
    case 6:
        if (detail < 64 && zygote.process >= 0)
            die(zygote.process, CLD_EXITED, detail);
        break;
    default:
        break;
    }
}

void stage_behave(uint8_t detail)
{
    static const uint8_t none[1];
    struct fuzz_in nothing = {none, none};

    if (detail & 1)
        say_hello(0, &nothing);
    read_zygote();
    for (int i = 0; i < worker_count && detail & 2; i++) {
        if (workers[i].process >= 0 || workers[i].zygote != zygote.number)
            continue;
        bear(i);
        if (detail & 4)
            say_ready(i);
    }
    for (int i = 0; i < worker_count && detail & 8; i++) {
        workers[i].seq = 0;
        read_worker(i);
        if (workers[i].seq)
            say(i, CM_MSG_RESULT, workers[i].seq, 0x81, &nothing);
    }
    sweep();
}

/* the whole */

void stage_open(void)
{
    now_ns = 1000 * CM_NS_PER_S;
    allocations_left = 0;
    process_count = worker_count = 0;
    zygote.fd = zygote.process = zygote.offered = -1;
    zygote.lied = false;
    zygote.number = 0;
}

void stage_close(void)
{
    sweep();
    for (int i = 0; i < TIMERS_MAX; i++)
        CHECK(!timers[i].open);
    for (int i = 0; i < process_count; i++) {
        CHECK(zygote.lied || (processes[i].dead && processes[i].reaped));
        close(processes[i].read_end);
        close(processes[i].write_end);
    }
    for (int i = 0; i < worker_count; i++)
        if (workers[i].fd >= 0)
            close(workers[i].fd);
    if (zygote.fd >= 0)
        close(zygote.fd);
    CHECK(zygote.offered < 0);
}
