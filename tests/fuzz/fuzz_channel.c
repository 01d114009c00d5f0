/* SPDX-License-Identifier: Apache-2.0 */
/* A peer that has been taken over writes to the gateway's channel: bytes in pieces of any size, descriptors anywhere.
 * However they are cut, the frames that come out, and the moment of the refusal, are those of a reader that looks at
 * the whole stream. The other way, what the gateway sends arrives byte for byte.
 * Input: whose channel it is, then steps. */
#include "fuzz.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "ipc/channel.h"
#include "turn.h"

#define STREAM_MAX  (1 << 20)
#define FRAMES_MAX  4096
#define FDS_WAITING 4 /* as channel.c has it */
#define OUT_MAX     6000

static struct cm_loop *loop;

struct frame {
    uint16_t type;
    uint32_t len;
    uint64_t id;
    size_t at; /* of the payload, in the stream */
};

/* The slow reader. */
static struct {
    enum cm_ipc_role peer;
    uint8_t bytes[STREAM_MAX];
    size_t len, at;
    unsigned fds;
    struct frame frames[FRAMES_MAX];
    size_t count;
    bool refused;
} model;

/* What the channel said. */
static struct {
    struct cm_channel *ch;
    size_t count, close_after;
    bool closed, refused;
} seen;

/* What was sent the other way. */
static struct {
    uint8_t bytes[1 << 17];
    size_t len;
} sent;

static void model_feed(const uint8_t *data, size_t len, unsigned fds)
{
    struct cm_ipc_header h;
    struct cm_ipc_fields f;

    if (model.refused || model.len + len > STREAM_MAX)
        return;
    memcpy(model.bytes + model.len, data, len);
    model.len += len;
    model.fds += model.peer == CM_IPC_ZYGOTE ? fds : 0; /* a worker's are dropped by the kernel */
    model.refused = model.fds > FDS_WAITING;
    while (!model.refused && model.len - model.at >= CM_IPC_HEADER_SIZE && model.count < FRAMES_MAX) {
        const uint8_t *p = model.bytes + model.at;
        if (cm_ipc_header_get(p, model.peer, CM_IPC_GATEWAY, &h, NULL) < 0) {
            model.refused = true;
            return;
        }
        if (model.len - model.at < CM_IPC_HEADER_SIZE + h.len)
            return;
        unsigned want = cm_ipc_message(h.type)->max_fds;
        if (want > model.fds || cm_ipc_fields_get(p + CM_IPC_HEADER_SIZE, h.len, &f, NULL) < 0) {
            model.refused = true;
            return;
        }
        model.fds -= want;
        model.frames[model.count++] = (struct frame){h.type, h.len, h.id, model.at + CM_IPC_HEADER_SIZE};
        model.at += CM_IPC_HEADER_SIZE + h.len;
    }
}

static void on_frame(void *arg, const struct cm_ipc_header *head, const struct cm_ipc_fields *fields, int *fd)
{
    (void)arg;
    CHECK(!seen.closed && seen.count < model.count);
    const struct frame *m = &model.frames[seen.count++];
    CHECK(head->type == m->type && head->len == m->len && head->id == m->id);
    CHECK((*fd >= 0) == (cm_ipc_message(head->type)->max_fds > 0));
    for (unsigned tag = 0; tag < CM_FIELD_END; tag++)
        if (fields->at[tag].data && fields->at[tag].len > 0)
            CHECK(memmem(model.bytes + m->at, m->len, fields->at[tag].data, fields->at[tag].len));
    if (seen.count == seen.close_after) {
        seen.ch = cm_channel_close(seen.ch);
        seen.closed = true;
    }
}

static void on_closed(void *arg, const struct cm_err *err)
{
    (void)arg;
    CHECK(!seen.closed);
    CHECK(!err || err->text[0]);
    seen.closed = true;
    seen.refused = err != NULL;
}

static const struct cm_channel_ops ops = {on_frame, on_closed};

/* A piece of the stream with `fds` descriptors, as far as the socket takes it. */
static void step_write(int fd, const uint8_t *data, size_t len, unsigned fds)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(7 * sizeof(int))];
    } control = {.space = {0}};
    struct iovec iov = {(void *)data, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (len == 0)
        return;
    if (fds > 0) {
        control.head = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(fds * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memset(CMSG_DATA(&control.head), 0, fds * sizeof(int)); /* descriptor 0, several times */
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(fds * sizeof(int));
    }
    if (sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len)
        model_feed(data, len, fds);
}

static void step_send(struct fuzz_in *in)
{
    struct cm_ipc_msg m;
    struct cm_err err = {0};
    size_t len, want = fuzz_byte(in) * 20u;
    const uint8_t *bytes = fuzz_bytes(in, want, &len);
    bool worker = model.peer == CM_IPC_WORKER, owned = want & 64;

    char *copy = fuzz_copy(bytes, len);
    cm_ipc_msg_begin(&m, worker ? CM_MSG_EXECUTE : CM_MSG_SPAWN, sent.len);
    if (worker)
        cm_ipc_put_bytes(&m, CM_FIELD_CODE, copy, len);
    CHECK(cm_ipc_msg_finish(&m, NULL) == 0);
    size_t before = sent.len;
    for (int i = 0; i < m.iovcnt; sent.len += m.iov[i++].iov_len) {
        CHECK(sent.len + m.iov[i].iov_len <= sizeof sent.bytes);
        memcpy(sent.bytes + sent.len, m.iov[i].iov_base, m.iov[i].iov_len);
    }
    int rc = owned && worker ? cm_channel_send_owned(seen.ch, &m, copy, &err)
                             : cm_channel_send(seen.ch, &m, worker ? -1 : dup(0), &err);
    CHECK(rc == 0 || (rc == CM_ERR_TOO_LARGE && err.text[0]));
    if (rc < 0) /* its frame is not sent, also not in part */
        sent.len = before;
    if (!owned || !worker)
        free(copy);
}

static void step_read(int fd, size_t *done)
{
    uint8_t got[4096];
    ssize_t n = recv(fd, got, sizeof got, MSG_DONTWAIT);

    if (n <= 0)
        return;
    CHECK(*done + (size_t)n <= sent.len && memcmp(got, sent.bytes + *done, (size_t)n) == 0);
    *done += (size_t)n;
}

static void step(struct fuzz_in *in, int fd, size_t *read_so_far)
{
    uint8_t what = fuzz_byte(in);
    size_t len;

    switch (what >> 5) {
    case 0: /* a piece and a bit: up to 31 bytes */
    case 1:
    case 2: {
        const uint8_t *bytes = fuzz_bytes(in, what & 31, &len);
        step_write(fd, bytes, len, what >> 5 == 2 ? 1 : 0);
        break;
    }
    case 3: { /* a long one with descriptors */
        const uint8_t *bytes = fuzz_bytes(in, fuzz_byte(in) * 16u, &len);
        step_write(fd, bytes, len, what & 7);
        break;
    }
    case 4:
        if (seen.ch && sent.len < sizeof sent.bytes / 2)
            step_send(in);
        break;
    case 5:
        step_read(fd, read_so_far);
        break;
    case 6:
        cm_channel_drain(seen.ch);
        break;
    default:
        fuzz_turns(loop, 1);
    }
    if (what & 32)
        fuzz_turns(loop, 2);
}

static void finish(int fd, bool die, size_t *read_so_far)
{
    for (size_t before = sent.len + 1; !die && *read_so_far != before && !seen.closed;) {
        before = *read_so_far;
        fuzz_turns(loop, 2);
        step_read(fd, read_so_far);
    }
    CHECK(die || seen.closed || *read_so_far == sent.len);
    close(fd);
    /* A read takes up to 64 KiB, or ends at a descriptor. */
    for (size_t i = 0; i < 500 && !seen.closed; i++)
        fuzz_turns(loop, 2);
    CHECK(seen.closed);
    if (seen.close_after > model.count || seen.close_after == 0)
        CHECK(seen.count == model.count && seen.refused == model.refused);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, data + size};
    size_t read_so_far = 0;
    int pair[2], lowest;

    if (!loop)
        loop = cm_loop_new(NULL);
    fuzz_turns(loop, 1);
    lowest = fuzz_lowest_fd();
    uint8_t kind = fuzz_byte(&in);
    model.peer = kind & 1 ? CM_IPC_WORKER : CM_IPC_ZYGOTE;
    model.len = model.at = model.count = sent.len = 0;
    model.fds = 0;
    model.refused = false;
    memset(&seen, 0, sizeof seen);
    seen.close_after = kind >> 5;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    seen.ch = cm_channel_open(loop, pair[0], CM_IPC_GATEWAY, model.peer, OUT_MAX, &ops, NULL, NULL);
    CHECK(seen.ch);
    for (int steps = 0; in.at < in.end && steps < 200 && !seen.closed; steps++)
        step(&in, pair[1], &read_so_far);
    finish(pair[1], kind & 2, &read_so_far);
    seen.ch = cm_channel_close(seen.ch);
    fuzz_turns(loop, 1);
    CHECK(fuzz_lowest_fd() == lowest);
    return 0;
}
