/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for codemode-sandbox: the same processes and frames, no guest. A worker does what the first word of its
 * "code" says, a zygote what the last part of its image's path says; both tables are below. Nothing is confined
 * here: it runs trusted test scripts only. */
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "ipc/sync.h"

#define CHANNEL_FD 3

/* worker */

struct call {
    int fd;
    uint64_t id;
    const char *arg; /* of the code, behind its first word */
    const char *context;
    size_t context_len;
    unsigned nth; /* execution of this session, from 1 */
    unsigned calls; /* of tools that it has made */
};

/* What a session "saves": how many executions it has answered, and after which. */
struct saved {
    uint64_t seq;
    unsigned count;
};
#define POISON UINT64_MAX
static int checkpoint = -1;

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signum)
{
    (void)signum;
    interrupted = 1;
}

static void output(struct call *c, int stream, const char *data, size_t len)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, CM_MSG_OUTPUT, c->id);
    cm_ipc_put_uint(&m, CM_FIELD_STREAM, (uint64_t)stream);
    cm_ipc_put_bytes(&m, CM_FIELD_DATA, data, len);
    if (cm_ipc_write(c->fd, &m, NULL) < 0)
        _exit(1);
}

static void answer(struct call *c, uint64_t id, const char *result, const char *locals, size_t locals_len)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, CM_MSG_RESULT, id);
    cm_ipc_put_uint(&m, CM_FIELD_SUCCESS, 1);
    if (result)
        cm_ipc_put_bytes(&m, CM_FIELD_RESULT, result, strlen(result));
    cm_ipc_put_bytes(&m, CM_FIELD_LOCALS, locals, locals_len);
    cm_ipc_put_uint(&m, CM_FIELD_PEAK_MEMORY, 1 << 20);
    if (cm_ipc_write(c->fd, &m, NULL) < 0)
        _exit(1);
}

static void succeed(struct call *c, const char *result)
{
    answer(c, c->id, result, "{}", 2);
}

static void fail(struct call *c, const char *type, const char *text)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, CM_MSG_RESULT, c->id);
    cm_ipc_put_uint(&m, CM_FIELD_SUCCESS, 0);
    cm_ipc_put_bytes(&m, CM_FIELD_ERROR_TYPE, type, strlen(type));
    cm_ipc_put_bytes(&m, CM_FIELD_ERROR, text, strlen(text));
    cm_ipc_put_bytes(&m, CM_FIELD_TRACEBACK, "Traceback: here", 15);
    cm_ipc_put_bytes(&m, CM_FIELD_LOCALS, "{}", 2);
    if (cm_ipc_write(c->fd, &m, NULL) < 0)
        _exit(1);
}

static void nap(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void do_echo(struct call *c)
{
    output(c, 1, c->arg, strlen(c->arg));
    succeed(c, c->arg);
}

static void do_stderr(struct call *c)
{
    output(c, 2, c->arg, strlen(c->arg));
    succeed(c, NULL);
}

static void do_count(struct call *c)
{
    char text[16];

    snprintf(text, sizeof text, "%u", c->nth);
    succeed(c, text);
}

static void do_context(struct call *c)
{
    answer(c, c->id, NULL, c->context ? c->context : "{}", c->context ? c->context_len : 2);
}

static void do_error(struct call *c)
{
    fail(c, "ValueError", "ValueError: asked for");
}

static void do_sleep(struct call *c)
{
    uint64_t until = cm_clock_ns() + (uint64_t)(atof(c->arg) * 1e9);

    while (!interrupted && cm_clock_ns() < until)
        nap(2);
    if (interrupted)
        fail(c, "KeyboardInterrupt", "KeyboardInterrupt");
    else
        succeed(c, "slept");
}

/* Computes for as much of its processor's time. */
static void do_burn(struct call *c)
{
    double seconds = atof(c->arg);
    clock_t from = clock();

    while (!interrupted && (double)(clock() - from) / CLOCKS_PER_SEC < seconds)
        ;
    if (interrupted)
        fail(c, "KeyboardInterrupt", "KeyboardInterrupt");
    else
        succeed(c, "burnt");
}

static void do_hang(struct call *c)
{
    (void)c;
    for (;;)
        nap(1000);
}

static void do_exit(struct call *c)
{
    _exit(atoi(c->arg));
}

static void do_signal(struct call *c)
{
    signal(atoi(c->arg), SIG_DFL);
    raise(atoi(c->arg));
}

static void do_trap(struct call *c)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, CM_MSG_TRAP, c->id);
    cm_ipc_put_bytes(&m, CM_FIELD_ERROR, c->arg, strlen(c->arg));
    cm_ipc_write(c->fd, &m, NULL);
    _exit(70);
}

static void do_crash(struct call *c)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, CM_MSG_CRASH, 0);
    cm_ipc_put_bytes(&m, CM_FIELD_ERROR, c->arg, strlen(c->arg));
    cm_ipc_write(c->fd, &m, NULL);
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

static void do_garbage(struct call *c)
{
    static const char noise[] = "this is no frame, and it is longer than a header";

    if (write(c->fd, noise, sizeof noise) < 0)
        _exit(1);
    do_hang(c);
}

static void do_flood(struct call *c)
{
    static char block[65536];
    size_t left = strtoul(c->arg, NULL, 10);

    memset(block, 'x', sizeof block);
    while (left > 0) {
        size_t n = left < sizeof block ? left : sizeof block;
        output(c, 1, block, n);
        left -= n;
    }
    succeed(c, NULL);
}

static void do_badutf(struct call *c)
{
    output(c, 1,
           "a\xff\xfe"
           "b",
           4);
    succeed(c, "\xc3");
}

static void do_badlocals(struct call *c)
{
    answer(c, c->id, NULL, "{\"a\":[1}", 8);
}

static void do_wrongid(struct call *c)
{
    answer(c, c->id + 1, NULL, "{}", 2);
}

static void do_twice(struct call *c)
{
    succeed(c, "1");
    succeed(c, "2");
}

static void do_forge(struct call *c)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, CM_MSG_HELLO, c->id);
    cm_ipc_write(c->fd, &m, NULL);
    do_hang(c);
}

static void do_hangup(struct call *c)
{
    close(c->fd);
    do_hang(c);
}

/* Says its last words and is gone before anyone reads them. */
static void do_lastwords(struct call *c)
{
    succeed(c, "last");
    _exit(0);
}

/* The newest one, and the one before it. */
static void save(struct saved now)
{
    struct saved both[2] = {now, {0, 0}};

    if (pread(checkpoint, &both[1], sizeof both[1], 0) < 0 || pwrite(checkpoint, both, sizeof both, 0) < 0)
        _exit(1);
}

/* What is saved from here on, nobody can restore. */
static void do_poison(struct call *c)
{
    (void)c;
    save((struct saved){.seq = POISON});
    _exit(1);
}

/* calls of tools */

static void send_call(struct call *c, unsigned number, const char *name, const char *arguments, size_t len)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, CM_MSG_CALL, c->id);
    cm_ipc_put_uint(&m, CM_FIELD_CALL, number);
    if (name)
        cm_ipc_put_bytes(&m, CM_FIELD_NAME, name, strlen(name));
    if (arguments)
        cm_ipc_put_bytes(&m, CM_FIELD_ARGUMENTS, arguments, len);
    if (cm_ipc_write(c->fd, &m, NULL) < 0)
        _exit(1);
}

static void call(struct call *c, const char *name)
{
    send_call(c, ++c->calls, name, "{\"a\":1}", 7);
}

/* The next answer, as "NUMBER: DATA" or "NUMBER: failure WHY: TEXT". */
static void await_answer(struct call *c, char *to, size_t size)
{
    struct cm_ipc_header head;
    struct cm_ipc_fields f;
    size_t len;

    if (cm_ipc_read_header(c->fd, CM_IPC_GATEWAY, CM_IPC_WORKER, &head, NULL) != 1 || head.type != CM_MSG_ANSWER)
        _exit(1);
    cm_autofree uint8_t *payload = malloc(head.len + 1);
    if (!payload || cm_ipc_read_payload(c->fd, payload, head.len, NULL) < 0 ||
        cm_ipc_fields_get(payload, head.len, &f, NULL) < 0)
        _exit(1);
    if (cm_ipc_get_uint(&f, CM_FIELD_SUCCESS, 0)) {
        const char *data = cm_ipc_get_bytes(&f, CM_FIELD_DATA, &len);
        snprintf(to, size, "%u: %.*s", (unsigned)head.id, (int)len, data);
    } else {
        const char *text = cm_ipc_get_bytes(&f, CM_FIELD_ERROR, &len);
        snprintf(to, size, "%u: failure %u: %.*s", (unsigned)head.id,
                 (unsigned)cm_ipc_get_uint(&f, CM_FIELD_FAILURE, 99), (int)len, text);
    }
}

static void do_call(struct call *c)
{
    char text[400];

    call(c, c->arg);
    await_answer(c, text, sizeof text);
    succeed(c, text);
}

/* "calls N NAME": all at once; the answers in the order in which they come. */
static void do_calls(struct call *c)
{
    char *name, text[400] = "", one[100];
    unsigned n = (unsigned)strtoul(c->arg, &name, 10);

    for (unsigned i = 0; i < n; i++)
        call(c, name + 1);
    for (unsigned i = 0; i < n; i++) {
        await_answer(c, one, sizeof one);
        if (strlen(text) + strlen(one) + 2 < sizeof text)
            strcat(strcat(text, one), "\n");
    }
    succeed(c, text);
}

static void cancel_call(struct call *c, unsigned number)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, CM_MSG_CALL_CANCEL, c->id);
    cm_ipc_put_uint(&m, CM_FIELD_CALL, number);
    if (cm_ipc_write(c->fd, &m, NULL) < 0)
        _exit(1);
}

/* Cancels its first call, and then makes another one. */
static void do_cancelcall(struct call *c)
{
    call(c, c->arg);
    cancel_call(c, 1);
    cancel_call(c, 1);
    c->arg = "echo";
    do_call(c);
}

static void do_leavecall(struct call *c)
{
    call(c, c->arg);
    succeed(c, "left");
}

static void do_hangcall(struct call *c)
{
    call(c, c->arg);
    do_hang(c);
}

static void do_diecall(struct call *c)
{
    call(c, c->arg);
    nap(50);
    _exit(1);
}

/* What no guest would send. */
static void do_badcall(struct call *c)
{
    static char large[1100] = "{\"a\":\"";
    const char *how = c->arg;

    memset(large + 6, 'x', 1000);
    strcpy(large + 1006, "\"}");
    if (!strcmp(how, "number"))
        send_call(c, 2, "echo", "{}", 2);
    else if (!strcmp(how, "zero"))
        send_call(c, 0, "echo", "{}", 2);
    else if (!strcmp(how, "again"))
        call(c, "never"), send_call(c, 1, "echo", "{}", 2);
    else if (!strcmp(how, "name"))
        send_call(c, 1, NULL, "{}", 2);
    else if (!strcmp(how, "empty"))
        send_call(c, 1, "", "{}", 2);
    else if (!strcmp(how, "utf8"))
        send_call(c, 1, "\xff", "{}", 2);
    else if (!strcmp(how, "arguments"))
        send_call(c, 1, "echo", NULL, 0);
    else if (!strcmp(how, "array"))
        send_call(c, 1, "echo", "[1]", 3);
    else if (!strcmp(how, "json"))
        send_call(c, 1, "echo", "{\"a\":}", 6);
    else if (!strcmp(how, "large"))
        send_call(c, 1, "echo", large, strlen(large));
    else if (!strcmp(how, "cancel"))
        cancel_call(c, 1);
    else if (!strcmp(how, "late"))
        succeed(c, NULL), call(c, "echo");
    else if (!strcmp(how, "many"))
        for (unsigned i = 0; i <= CM_CALLS_AT_ONCE; i++)
            call(c, "never");
    else if (!strcmp(how, "limit"))
        for (unsigned i = 0; i < 601; i++) {
            char text[100];
            call(c, "echo");
            await_answer(c, text, sizeof text);
        }
    do_hang(c);
}

static const struct {
    const char *word;
    void (*act)(struct call *c);
} acts[] = {
    {"echo", do_echo},
    {"stderr", do_stderr},
    {"count", do_count},
    {"context", do_context},
    {"error", do_error},
    {"sleep", do_sleep},
    {"burn", do_burn},
    {"hang", do_hang},
    {"exit", do_exit},
    {"signal", do_signal},
    {"trap", do_trap},
    {"crash", do_crash},
    {"garbage", do_garbage},
    {"flood", do_flood},
    {"badutf", do_badutf},
    {"badlocals", do_badlocals},
    {"wrongid", do_wrongid},
    {"twice", do_twice},
    {"forge", do_forge},
    {"hangup", do_hangup},
    {"lastwords", do_lastwords},
    {"poison", do_poison},
    {"call", do_call},
    {"calls", do_calls},
    {"cancelcall", do_cancelcall},
    {"leavecall", do_leavecall},
    {"hangcall", do_hangcall},
    {"diecall", do_diecall},
    {"badcall", do_badcall},
};

static void act(struct call *c, const char *code)
{
    size_t word = strcspn(code, " ");

    c->arg = code[word] ? code + word + 1 : "";
    for (size_t i = 0; i < CM_COUNT_OF(acts); i++)
        if (strlen(acts[i].word) == word && memcmp(acts[i].word, code, word) == 0) {
            acts[i].act(c);
            return;
        }
    fail(c, "SyntaxError", "SyntaxError: the stand-in knows no such word");
}

/* variables that come as files: the name says what to do */

static size_t content_head(struct call *c)
{
    struct cm_ipc_header head;
    uint8_t field[CM_IPC_FIELD_SIZE];

    if (cm_ipc_read_header(c->fd, CM_IPC_GATEWAY, CM_IPC_WORKER, &head, NULL) != 1 || head.type != CM_MSG_CONTENT ||
        head.id != c->id || head.len < sizeof field || cm_ipc_read_payload(c->fd, field, sizeof field, NULL) < 0 ||
        !cm_ipc_is_rest(field, CM_FIELD_DATA, head.len - (uint32_t)sizeof field))
        _exit(1);
    return head.len - sizeof field;
}

static void load(struct call *c, const char *name)
{
    char text[60];

    if (!strcmp(name, "hang"))
        do_hang(c);
    if (!strcmp(name, "early")) {
        succeed(c, "str 3");
        cm_ipc_skip_payload(c->fd, content_head(c), NULL);
        return;
    }
    size_t len = content_head(c);
    bool half = !strcmp(name, "half");
    if (cm_ipc_skip_payload(c->fd, half ? len / 2 : len, NULL) < 0 || half || !strcmp(name, "die"))
        _exit(1);
    snprintf(text, sizeof text, "str %zu", len);
    if (!strcmp(name, "memory"))
        fail(c, "MemoryError", "MemoryError: full");
    else if (!strcmp(name, "interrupted"))
        c->arg = "30", do_sleep(c);
    else if (!strcmp(name, "nothing"))
        succeed(c, NULL);
    else if (!strcmp(name, "noise"))
        succeed(c, "\xff\xc3 -1x");
    else if (!strcmp(name, "endless"))
        succeed(c, "one_two_three_four_five_six_seven_eight_nine_ten_eleven_twelve_thirteen 99999999999999999999");
    else
        succeed(c, text);
}

static struct saved restore(uint64_t undo)
{
    struct saved both[2] = {{0, 0}, {0, 0}};

    if (pread(checkpoint, both, sizeof both, 0) < 0)
        _exit(1);
    both[0] = both[undo && both[0].seq == undo];
    both[1] = (struct saved){0, 0};
    if (pwrite(checkpoint, both, sizeof both, 0) < 0)
        _exit(1);
    return both[0];
}

/* How many executions the session has had. */
static unsigned begin(int fd)
{
    struct cm_ipc_header head;
    struct cm_ipc_fields f;
    struct cm_ipc_msg m;
    uint8_t payload[256];

    if (cm_ipc_recv_header_fd(fd, CM_IPC_GATEWAY, CM_IPC_WORKER, &head, &checkpoint, NULL) != 1 ||
        head.type != CM_MSG_BEGIN || cm_ipc_read_payload(fd, payload, head.len, NULL) < 0 ||
        cm_ipc_fields_get(payload, head.len, &f, NULL) < 0)
        _exit(1);
    struct saved s = restore(cm_ipc_get_uint(&f, CM_FIELD_SEQ, 0));
    if (s.seq == POISON)
        do_trap(&(struct call){.fd = fd, .arg = "the saved state is broken"});
    cm_ipc_msg_begin(&m, CM_MSG_READY, 0);
    cm_ipc_put_uint(&m, CM_FIELD_SEQ, s.seq);
    if (cm_ipc_write(fd, &m, NULL) < 0)
        _exit(1);
    return s.count;
}

static bool serve_one(int fd, unsigned nth)
{
    struct cm_ipc_header head;
    struct cm_ipc_fields f;
    size_t len;

    do {
        if (cm_ipc_read_header(fd, CM_IPC_GATEWAY, CM_IPC_WORKER, &head, NULL) != 1 ||
            (head.type == CM_MSG_ANSWER && cm_ipc_skip_payload(fd, head.len, NULL) < 0))
            return false;
    } while (head.type == CM_MSG_ANSWER);
    cm_autofree uint8_t *payload = malloc(head.len + 1);
    if (!payload || cm_ipc_read_payload(fd, payload, head.len, NULL) < 0 ||
        cm_ipc_fields_get(payload, head.len, &f, NULL) < 0)
        return false;
    interrupted = 0;
    struct call c = {.fd = fd, .id = head.id, .nth = nth};
    c.context = cm_ipc_get_bytes(&f, CM_FIELD_CONTEXT, &c.context_len);
    bool loads = head.type == CM_MSG_LOAD;
    const char *bytes = cm_ipc_get_bytes(&f, loads ? CM_FIELD_NAME : CM_FIELD_CODE, &len);
    cm_autofree char *code = strndup(bytes ? bytes : "", len);
    if (loads)
        load(&c, code ? code : "");
    else
        act(&c, code ? code : "");
    save((struct saved){head.id, nth});
    return true;
}

static void worker(int fd)
{
    struct sigaction sa = {.sa_handler = on_interrupt};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigaction(SIGUSR1, &sa, NULL);
    for (unsigned nth = begin(fd) + 1; serve_one(fd, nth); nth++)
        ;
    _exit(0);
}

/* zygote */

static bool image_is(const char *image, const char *name)
{
    const char *last = strrchr(image, '/');

    return strcmp(last ? last + 1 : image, name) == 0;
}

/* The child belongs to the gateway, as CLONE_PARENT says. */
static int clone_worker(int *ret_pidfd)
{
    struct clone_args args = {.flags = CLONE_PARENT | CLONE_PIDFD, .pidfd = (uintptr_t)ret_pidfd};

    return (int)syscall(SYS_clone3, &args, sizeof args);
}

static void refuse(uint64_t id)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, CM_MSG_SPAWN_FAILED, id);
    cm_ipc_put_bytes(&m, CM_FIELD_ERROR, "step 1: refused", 15);
    if (cm_ipc_write(CHANNEL_FD, &m, NULL) < 0)
        _exit(1);
}

static void spawn(uint64_t id, int fd, const char *image)
{
    struct cm_ipc_msg m;
    int pidfd = -1;

    int pid = clone_worker(&pidfd);
    if (pid == 0) {
        close(CHANNEL_FD);
        if (image_is(image, "stillborn"))
            _exit(9);
        worker(fd);
    }
    static unsigned births;
    births++; /* dead after a birth and before its announcement: after the first one, or the third */
    if (image_is(image, "dies-silent") || (image_is(image, "dies-third") && births == 3))
        _exit(1);
    cm_ipc_msg_begin(&m, CM_MSG_SPAWNED, id);
    cm_ipc_put_uint(&m, CM_FIELD_PID, (uint64_t)pid);
    if (pid < 0 || cm_ipc_write_fd(CHANNEL_FD, &m, pidfd, NULL) < 0)
        _exit(1);
    close(pidfd);
}

/* The first zygote of a "weakens" has two layers, those after it have one. It leaves a file where its image would be. */
static uint64_t layers(const char *image)
{
    int fd = image_is(image, "weakens") ? open(image, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600) : -1;

    if (fd < 0)
        return 1;
    close(fd);
    return 3;
}

static int zygote(const char *image)
{
    struct cm_ipc_header head;
    struct cm_ipc_msg m;
    char payload[256];
    int fd = -1;

    fcntl(CHANNEL_FD, F_SETFD, FD_CLOEXEC);
    if (image_is(image, "no-hello"))
        pause();
    cm_ipc_msg_begin(&m, CM_MSG_HELLO, 0);
    cm_ipc_put_bytes(&m, CM_FIELD_IMAGE_HASH, "fake-\x1b\xcd", 7);
    cm_ipc_put_uint(&m, CM_FIELD_LAYERS, layers(image));
    if (cm_ipc_write(CHANNEL_FD, &m, NULL) < 0)
        return 1;
    while (cm_ipc_recv_header_fd(CHANNEL_FD, CM_IPC_GATEWAY, CM_IPC_ZYGOTE, &head, &fd, NULL) == 1 &&
           cm_ipc_read_payload(CHANNEL_FD, payload, head.len, NULL) == 0) {
        if (image_is(image, "refuses"))
            refuse(head.id);
        else if (!image_is(image, "mute"))
            spawn(head.id, fd, image);
        close(fd);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3 || strcmp(argv[1], "--image") != 0) {
        fputs("usage: fake_sandbox --image PATH, with a channel on descriptor 3\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return zygote(argv[2]);
}
