/* SPDX-License-Identifier: Apache-2.0 */
/* A worker for tests: one that has been taken over.
 *
 * It begins as a worker of production does, by the same code and with the same jail. Then, instead of running a guest,
 * it does what the code of an execution says: system calls with any arguments, frames with any bytes, accesses to any
 * address. So the tests learn what native code in a worker could do to the machine and to the gateway. Linked into
 * codemode-prober only. Started under the name codemode-prober-loose it leaves the jail away, to send what the jail
 * would not let out.
 *
 * The value of a variable is such a script as well, but of one that is called `early`, which is answered before it is read,
 * or `stuck`, which never is.
 *
 * One command per line. A number may be written as @N, the address N bytes into the scratch memory, or `id`, the
 * running execution's.
 *
 *   call NR A...            system call; its value is a word of the result
 *   int80 NR                the same through the 32-bit entry
 *   put OFFSET HEX          bytes into the scratch memory
 *   word OFFSET VALUE       eight bytes into the scratch memory
 *   store ADDRESS VALUE     eight bytes anywhere
 *   load ADDRESS            eight bytes from anywhere; their value is a word of the result
 *   jump ADDRESS            runs what is there
 *   deepen                  recursion until the stack is used up
 *   spin                    never comes back
 *   silence                 reads the channel to its end and says nothing
 *   raw HEX [COUNT]         bytes to the gateway
 *   frame TYPE ID HEX [COUNT]    a frame with this payload
 *   flood TYPE ID SIZE COUNT     OUTPUT-like frames: field 10 is 1, field 11 has SIZE bytes
 *   header LENGTH TYPE VERSION ID   a header and nothing behind it
 *   pass FD TYPE            a header of an empty frame with a descriptor beside it; only without the jail
 *   end                     no RESULT of its own
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "ipc/sync.h"
#include "jail/jail.h"
#include "roles/crash.h"
#include "roles/worker.h"

enum { FD = CM_JAIL_CHANNEL, SCRIPT_MAX = 1 << 20, SCRATCH = 1 << 20, WORDS = 8, RESULT_MAX = 4096 };

static uint8_t payload[SCRIPT_MAX], scratch[SCRATCH], data[SCRATCH];
static char result[RESULT_MAX];
static size_t result_len;
static uint64_t id;
static bool silent;

static _Noreturn void leave(int code)
{
    _exit(code);
}

/* ---- words */

static uint64_t number(const char *word)
{
    if (!word)
        return 0;
    if (*word == '@')
        return (uint64_t)(uintptr_t)(scratch + strtoull(word + 1, NULL, 0) % SCRATCH);
    if (!strcmp(word, "id"))
        return id;
    return *word == '-' ? (uint64_t)strtoll(word, NULL, 0) : strtoull(word, NULL, 0);
}

static unsigned digit(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a') + 10;
}

/* Bytes written, at the most `max`. */
static size_t unhex(const char *word, uint8_t *to, size_t max)
{
    size_t n = 0;
    for (; word && word[0] && word[1] && n < max; word += 2)
        to[n++] = (uint8_t)(digit(word[0]) << 4 | digit(word[1]));
    return n;
}

/* A word of the answer. By hand: printf() may allocate, and the jail knows no brk(). */
static void tell(uint64_t value)
{
    char digits[24];
    bool minus = (int64_t)value < 0;
    unsigned n = 0;
    for (value = minus ? -value : value; n == 0 || value; value /= 10)
        digits[n++] = (char)('0' + value % 10);
    if (result_len + n + 2 > sizeof result)
        return;
    if (result_len)
        result[result_len++] = ' ';
    if (minus)
        result[result_len++] = '-';
    while (n)
        result[result_len++] = digits[--n];
}

/* ---- commands */

static long raw_call(uint64_t nr, char *const w[])
{
    uint64_t a[6];
    for (unsigned i = 0; i < CM_COUNT_OF(a); i++)
        a[i] = number(w[i]);
    register uint64_t r10 __asm__("r10");
    register uint64_t r8 __asm__("r8");
    register uint64_t r9 __asm__("r9");
    long ret;
    r10 = a[3];
    r8 = a[4];
    r9 = a[5];
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

static long raw_int80(uint64_t nr)
{
    long ret;
    __asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(0), "c"(0), "d"(0) : "memory");
    return ret;
}

static void send_bytes(const uint8_t *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(FD, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            leave(3);
        bytes += n;
        len -= (size_t)n;
    }
}

static void put_header(uint8_t *to, uint64_t len, uint64_t type, uint64_t version, uint64_t frame_id)
{
    const uint32_t len32 = (uint32_t)len;
    const uint16_t type16 = (uint16_t)type, version16 = (uint16_t)version;
    memcpy(to, &len32, 4);
    memcpy(to + 4, &type16, 2);
    memcpy(to + 6, &version16, 2);
    memcpy(to + 8, &frame_id, 8);
}

static void send_frame(char *const w[])
{
    size_t len = unhex(w[2], data + CM_IPC_HEADER_SIZE, sizeof data - CM_IPC_HEADER_SIZE);
    put_header(data, len, number(w[0]), CM_IPC_VERSION, number(w[1]));
    for (uint64_t n = w[3] ? number(w[3]) : 1; n; n--)
        send_bytes(data, CM_IPC_HEADER_SIZE + len);
}

static void flood(char *const w[])
{
    static const uint8_t stream[] = {CM_FIELD_STREAM, 1, 0, 0, 0, 1, CM_FIELD_DATA};
    uint32_t size = (uint32_t)(number(w[2]) % (SCRATCH / 2));
    uint8_t *at = data + CM_IPC_HEADER_SIZE;
    memcpy(at, stream, sizeof stream);
    memcpy(at + sizeof stream, &size, 4);
    memset(at + sizeof stream + 4, 'x', size);
    put_header(data, sizeof stream + 4 + size, number(w[0]), CM_IPC_VERSION, number(w[1]));
    for (uint64_t n = number(w[3]); n; n--)
        send_bytes(data, CM_IPC_HEADER_SIZE + sizeof stream + 4 + size);
}

static void pass(int passed, uint64_t type)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct iovec part = {.iov_base = data, .iov_len = CM_IPC_HEADER_SIZE};
    struct msghdr msg = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(c), &passed, sizeof passed);
    put_header(data, 0, type, CM_IPC_VERSION, id);
    tell(sendmsg(CM_JAIL_ZYGOTE_CHANNEL, &msg, 0) < 0 ? (uint64_t)-errno : 0);
}

static __attribute__((noinline)) unsigned deepen(unsigned n)
{
    volatile char frame[4096];
    frame[n % sizeof frame] = (char)n;
    return n == ~0u ? 0 : deepen(n + 1) + (unsigned char)frame[n % sizeof frame]; /* NOLINT: the point of it */
}

static void access_memory(const char *command, char *const w[])
{
    volatile uint64_t *at = (volatile uint64_t *)(uintptr_t)number(w[0]);
    /* NOLINTBEGIN(clang-analyzer-core.*): the accesses are meant to be wrong */
    if (!strcmp(command, "store"))
        *at = number(w[1]);
    else if (!strcmp(command, "load"))
        tell(*at);
    else
        ((void (*)(void))(uintptr_t)at)();
    /* NOLINTEND(clang-analyzer-core.*) */
}

static void send_raw(char *const w[])
{
    size_t len = unhex(w[0], data, sizeof data);
    for (uint64_t n = w[1] ? number(w[1]) : 1; n; n--)
        send_bytes(data, len);
}

static void send_header(char *const w[])
{
    put_header(data, number(w[0]), number(w[1]), number(w[2]), number(w[3]));
    send_bytes(data, CM_IPC_HEADER_SIZE);
}

static void put(char *const w[])
{
    size_t at = number(w[0]) % SCRATCH;
    unhex(w[1], scratch + at, SCRATCH - at);
}

static void put_word(char *const w[])
{
    uint64_t value = number(w[1]);
    memcpy(scratch + number(w[0]) % (SCRATCH - 8), &value, 8);
}

static _Noreturn void go_silent(void)
{
    while (read(FD, data, sizeof data) > 0)
        ;
    leave(0);
}

static void obey(const char *command, char *const w[])
{
    if (!strcmp(command, "call"))
        tell((uint64_t)raw_call(number(w[0]), w + 1));
    else if (!strcmp(command, "int80"))
        tell((uint64_t)raw_int80(number(w[0])));
    else if (!strcmp(command, "put"))
        put(w);
    else if (!strcmp(command, "word"))
        put_word(w);
    else if (!strcmp(command, "store") || !strcmp(command, "load") || !strcmp(command, "jump"))
        access_memory(command, w);
    else if (!strcmp(command, "deepen"))
        tell(deepen(1));
    else if (!strcmp(command, "raw"))
        send_raw(w);
    else if (!strcmp(command, "frame"))
        send_frame(w);
    else if (!strcmp(command, "flood"))
        flood(w);
    else if (!strcmp(command, "header"))
        send_header(w);
    else if (!strcmp(command, "pass"))
        pass((int)number(w[0]), number(w[1]));
    else if (!strcmp(command, "silence"))
        go_silent();
    else if (!strcmp(command, "end"))
        silent = true;
    else if (!strcmp(command, "spin"))
        for (volatile unsigned n = 0;; n++)
            ;
    else
        leave(4); /* a mistake in a test must not look like a refusal */
}

/* ---- scripts */

static void run_line(char *line)
{
    char *word[WORDS + 1] = {NULL}, *rest = NULL;
    unsigned n = 0;
    for (char *w = strtok_r(line, " ", &rest); w && n < WORDS; w = strtok_r(NULL, " ", &rest))
        word[n++] = w;
    if (n)
        obey(word[0], word + 1);
}

static void run_script(char *script)
{
    char *rest = NULL;
    for (char *line = strtok_r(script, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        run_line(line);
}

static int answer(struct cm_err *err)
{
    struct cm_ipc_msg m;
    cm_ipc_msg_begin(&m, CM_MSG_RESULT, id);
    cm_ipc_put_uint(&m, CM_FIELD_SUCCESS, 1);
    cm_ipc_put_bytes(&m, CM_FIELD_RESULT, result, result_len);
    cm_ipc_put_bytes(&m, CM_FIELD_LOCALS, "{}", 2);
    cm_ipc_put_uint(&m, CM_FIELD_PEAK_MEMORY, 1);
    return cm_ipc_write(FD, &m, err);
}

static int read_fields(const struct cm_ipc_header *h, struct cm_ipc_fields *ret, struct cm_err *err)
{
    if (h->len > sizeof payload)
        return cm_err_set(err, CM_ERR_TOO_LARGE, "a script of %u bytes", h->len);
    int rc = cm_ipc_read_payload(FD, payload, h->len, err);
    return rc ? rc : cm_ipc_fields_get(payload, h->len, ret, err);
}

/* The value of a variable is a script, too, but for some names. */
static int read_value(struct cm_ipc_fields *f, struct cm_err *err)
{
    struct cm_ipc_header content;
    size_t len;
    const char *name = cm_ipc_get_bytes(f, CM_FIELD_NAME, &len);
    bool early = len == 5 && !memcmp(name, "early", 5);
    if (len == 5 && !memcmp(name, "stuck", 5))
        obey("spin", NULL);
    if (early && answer(err))
        return err->code;
    if (cm_ipc_read_header(FD, CM_IPC_GATEWAY, CM_IPC_WORKER, &content, err) <= 0)
        leave(0);
    int rc = read_fields(&content, f, err);
    return early && !rc ? cm_err_set(err, CM_ERR_PROTOCOL, "answered before") : rc;
}

static int execute(const struct cm_ipc_header *h, struct cm_err *err)
{
    struct cm_ipc_fields fields;
    size_t len;
    id = h->id;
    result_len = 0;
    int rc = read_fields(h, &fields, err);
    if (!rc && h->type == CM_MSG_LOAD)
        rc = read_value(&fields, err);
    if (rc)
        return rc;
    const char *code = cm_ipc_get_bytes(&fields, h->type == CM_MSG_LOAD ? CM_FIELD_DATA : CM_FIELD_CODE, &len);
    static char script[SCRIPT_MAX];
    memcpy(script, code, len < sizeof script ? len : sizeof script - 1);
    silent = false;
    run_script(script);
    memset(script, 0, len);
    return silent ? 0 : answer(err);
}

static int greet(uint64_t seq, struct cm_err *err)
{
    struct cm_ipc_msg m;
    cm_ipc_msg_begin(&m, CM_MSG_READY, 0);
    cm_ipc_put_uint(&m, CM_FIELD_SEQ, seq);
    return cm_ipc_write(FD, &m, err);
}

/* ---- in the place of the real ones: the linker's --wrap */

_Noreturn void __wrap_cm_worker_serve(const struct cm_worker_life *life);
int __wrap_cm_jail_worker(const struct cm_jail_plan *plan, const struct cm_jail_worker *w, struct cm_err *err);
int __real_cm_jail_worker(const struct cm_jail_plan *plan, const struct cm_jail_worker *w, struct cm_err *err);

int __wrap_cm_jail_worker(const struct cm_jail_plan *plan, const struct cm_jail_worker *w, struct cm_err *err)
{
    if (strcmp(program_invocation_short_name, "codemode-prober-loose"))
        return __real_cm_jail_worker(plan, w, err);
    /* The zygote's filter is inherited: it lets descriptors go where the channel is now, so that stays open. */
    for (int to = 0; to < (int)w->fd_count; to++)
        if (dup2(w->fds[to], to) < 0)
            return cm_err_sys(err, errno, "dup2");
    return 0;
}

_Noreturn void __wrap_cm_worker_serve(const struct cm_worker_life *life)
{
    struct cm_err err;
    struct cm_ipc_header h;
    cm_crash_channel(FD);
    if (greet(life->seq, &err))
        leave(70);
    while (cm_ipc_read_header(FD, CM_IPC_GATEWAY, CM_IPC_WORKER, &h, &err) > 0)
        if (execute(&h, &err))
            leave(71);
        else
            life->save(h.id);
    leave(0);
}
