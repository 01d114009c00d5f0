/* SPDX-License-Identifier: Apache-2.0 */
/* A read lands on the stack; whole frames are handed out from there, and only a frame that is not yet whole moves to
 * the heap. So the common case - one small frame per turn - allocates nothing and copies nothing.
 *
 * Descriptors: the kernel ends a read behind the bytes that a descriptor came with, so those of one direction
 * arrive in the order of their frames. They wait in a short queue until their frame is whole.
 */
#include "ipc/channel.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define READ_SIZE   65536
#define FDS_WAITING 4
/* A socket buffer's worth of frames and more; a peer that is alive and keeps writing must not hold the loop. */
#define DRAIN_READS 64

/* From this size on, bytes whose owner hands them over are sent from where they are. */
#define BORROW_MIN 4096

/* Bytes that the socket has not taken yet. */
struct chunk {
    struct chunk *next;
    const uint8_t *data; /* `copy`, or somewhere in `owner` */
    size_t len, off;
    int fd;      /* goes with the first byte, -1 when gone or never there */
    int file;    /* where the bytes are instead of at `data`, or -1; they are not counted in out_len */
    void *owner; /* freed with the chunk */
    uint8_t copy[];
};

struct cm_channel {
    struct cm_loop *loop;
    struct cm_watch *watch;
    int fd;
    enum cm_ipc_role self, peer;
    bool takes_fds;    /* some frame of the peer carries a descriptor */
    bool busy, closed; /* inside a callback; closed by its owner */
    bool over;         /* `closed` was called */
    const struct cm_channel_ops *ops;
    void *arg;
    struct cm_buf in;
    size_t in_need; /* bytes at `in` before the next look is worth it */
    int fds[FDS_WAITING];
    unsigned fds_waiting;
    struct chunk *out, **out_tail;
    size_t out_len, out_max;
};

static void flush(struct cm_channel *ch);
static void on_event(void *arg, int events);

/* life */

/* What the peer may send decides how much a frame may take, and whether descriptors are looked for at all. */
static size_t largest_frame(const struct cm_channel *ch, bool *ret_fds)
{
    size_t max = 0;

    *ret_fds = false;
    for (unsigned type = 0; type < 256; type++) {
        const struct cm_ipc_message_info *info = cm_ipc_message(type);
        if (!info || info->sender != ch->peer || info->receiver != ch->self)
            continue;
        max = info->max_payload > max ? info->max_payload : max;
        *ret_fds |= info->max_fds > 0;
    }
    return CM_IPC_HEADER_SIZE + max;
}

struct cm_channel *cm_channel_open(struct cm_loop *loop, int fd, enum cm_ipc_role self, enum cm_ipc_role peer,
                                   size_t out_max, const struct cm_channel_ops *ops, void *arg, struct cm_err *err)
{
    cm_autofd int taken = fd;
    struct cm_channel *ch = calloc(1, sizeof *ch);

    if (!ch) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a channel");
        return NULL;
    }
    *ch = (struct cm_channel){.loop = loop, .fd = -1, .self = self, .peer = peer, .ops = ops, .arg = arg};
    ch->out_max = out_max;
    ch->out_tail = &ch->out;
    cm_buf_init(&ch->in, largest_frame(ch, &ch->takes_fds) + READ_SIZE);
    int r = cm_fd_nonblock(fd);
    if (r < 0)
        cm_err_sys(err, -r, "channel");
    else
        ch->watch = cm_watch_open(loop, fd, CM_EV_READ, on_event, ch, err);
    if (!ch->watch)
        return cm_channel_close(ch);
    ch->fd = cm_steal_fd(&taken);
    return ch;
}

static void free_chunk(struct chunk *c)
{
    cm_fd_close(c->fd);
    cm_fd_close(c->file);
    free(c->owner);
    free(c);
}

static void free_chunks(struct chunk *c)
{
    while (c) {
        struct chunk *next = c->next;
        free_chunk(c);
        c = next;
    }
}

static void drop_io(struct cm_channel *ch)
{
    ch->watch = cm_watch_close(ch->watch);
    ch->fd = cm_fd_close(ch->fd);
    while (ch->fds_waiting > 0)
        cm_fd_close(ch->fds[--ch->fds_waiting]);
    free_chunks(ch->out);
    ch->out = NULL;
    ch->out_tail = &ch->out;
    ch->out_len = 0;
    cm_buf_done(&ch->in);
}

struct cm_channel *cm_channel_close(struct cm_channel *ch)
{
    if (!ch)
        return NULL;
    ch->closed = true;
    if (ch->busy) { /* the callback's caller ends it */
        ch->watch = cm_watch_close(ch->watch);
        ch->fd = cm_fd_close(ch->fd);
        return NULL;
    }
    drop_io(ch);
    free(ch);
    return NULL;
}

/* Tells the owner that it is over. The channel may be gone afterwards. */
static void end(struct cm_channel *ch, const struct cm_err *err)
{
    if (ch->over)
        return;
    ch->over = true;
    drop_io(ch);
    ch->ops->closed(ch->arg, err);
}

/* reading */

static int take_fd(struct cm_channel *ch)
{
    int fd = ch->fds_waiting > 0 ? ch->fds[0] : -1;

    if (fd >= 0)
        memmove(ch->fds, ch->fds + 1, --ch->fds_waiting * sizeof ch->fds[0]);
    return fd;
}

static int deliver(struct cm_channel *ch, const struct cm_ipc_header *head, const uint8_t *payload, struct cm_err *err)
{
    struct cm_ipc_fields fields;
    const struct cm_ipc_message_info *info = cm_ipc_message(head->type);
    cm_autofd int fd = info->max_fds > 0 ? take_fd(ch) : -1;

    if (info->max_fds > 0 && fd < 0)
        return cm_err_set(err, CM_ERR_PROTOCOL, "%s frame without its descriptor", info->name);
    int r = cm_ipc_fields_get(payload, head->len, &fields, err);
    if (r < 0)
        return cm_err_wrap(err, "%s frame", info->name);
    ch->ops->frame(ch->arg, head, &fields, &fd);
    return 0;
}

/* Hands out the whole frames at the front. Returns the bytes used, or a negative error; *ret_need is what the frame
 * behind them takes. */
static ssize_t parse(struct cm_channel *ch, const uint8_t *data, size_t len, size_t *ret_need, struct cm_err *err)
{
    size_t used = 0;

    *ret_need = CM_IPC_HEADER_SIZE;
    while (!ch->closed && len - used >= CM_IPC_HEADER_SIZE) {
        struct cm_ipc_header head;
        int r = cm_ipc_header_get(data + used, ch->peer, ch->self, &head, err);
        if (r < 0)
            return r;
        *ret_need = CM_IPC_HEADER_SIZE + head.len;
        if (len - used < *ret_need)
            break;
        r = deliver(ch, &head, data + used + CM_IPC_HEADER_SIZE, err);
        if (r < 0)
            return r;
        used += *ret_need;
        *ret_need = CM_IPC_HEADER_SIZE;
    }
    return (ssize_t)used;
}

static int feed(struct cm_channel *ch, const uint8_t *data, size_t len, struct cm_err *err)
{
    bool direct = ch->in.len == 0;
    char *room;
    int r = 0;

    if (!direct) {
        r = cm_buf_append(&ch->in, data, len);
        if (r < 0 || ch->in.len < ch->in_need)
            return r;
        data = (const uint8_t *)cm_buf_data(&ch->in);
        len = ch->in.len;
    }
    ssize_t used = parse(ch, data, len, &ch->in_need, err);
    if (used < 0 || ch->closed)
        return used < 0 ? (int)used : 0;
    if ((size_t)used == len) {
        cm_buf_done(&ch->in);
    } else if (direct) {
        /* One allocation for the frame to come, whose length the table has bounded. */
        r = cm_buf_reserve(&ch->in, ch->in_need + READ_SIZE, &room);
        if (r == 0)
            r = cm_buf_append(&ch->in, data + used, len - (size_t)used);
    } else {
        cm_buf_consume(&ch->in, (size_t)used);
    }
    return r;
}

static int keep_fds(struct cm_channel *ch, struct msghdr *msg, struct cm_err *err)
{
    bool full = false;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            full |= ch->fds_waiting == FDS_WAITING;
            if (full)
                cm_fd_close(fd);
            else
                ch->fds[ch->fds_waiting++] = fd;
        }
    }
    if (full || (msg->msg_flags & MSG_CTRUNC))
        return cm_err_set(err, CM_ERR_PROTOCOL, "more descriptors than frames that carry one");
    return 0;
}

/* Bytes, 0 at the end, -EAGAIN when there is nothing, or another negative errno; a bad descriptor sets *err. */
static ssize_t receive(struct cm_channel *ch, void *to, size_t len, struct cm_err *err)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(FDS_WAITING * sizeof(int))];
    } control;
    struct iovec iov = {to, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (ch->takes_fds) { /* without room for them the kernel closes whatever a peer passes */
        msg.msg_control = &control;
        msg.msg_controllen = sizeof control;
    }
    do
        n = recvmsg(ch->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if (n > 0 && ch->takes_fds && keep_fds(ch, &msg, err) < 0)
        return -EPROTO;
    return n;
}

/* One read. True when there may be more to read. */
static bool read_some(struct cm_channel *ch)
{
    uint8_t space[READ_SIZE];
    struct cm_err err = {0};

    ssize_t n = receive(ch, space, sizeof space, &err);
    if (n == -EAGAIN)
        return false;
    if (n == 0 || n == -ECONNRESET || n == -EPIPE) {
        end(ch, NULL); /* also within a frame: a peer that was killed is no liar */
        return false;
    }
    int r = 0;
    if (n < 0 && err.code == 0)
        cm_err_sys(&err, (int)-n, "receive");
    else if (n > 0)
        r = feed(ch, space, (size_t)n, &err);
    if (r < 0 && err.code == 0)
        cm_err_set(&err, r, "no room for a frame");
    if (err.code != 0 && !ch->closed)
        end(ch, &err);
    return err.code == 0 && !ch->closed;
}

static void leave(struct cm_channel *ch)
{
    ch->busy = false;
    if (ch->closed)
        cm_channel_close(ch);
}

static void on_event(void *arg, int events)
{
    struct cm_channel *ch = arg;

    ch->busy = true;
    if (events & CM_EV_WRITE)
        flush(ch);
    if ((events & CM_EV_READ) && !ch->over)
        read_some(ch);
    leave(ch);
}

void cm_channel_drain(struct cm_channel *ch)
{
    if (!ch || ch->over || ch->busy)
        return;
    ch->busy = true;
    for (int i = 0; i < DRAIN_READS && read_some(ch); i++)
        ;
    leave(ch);
}

/* writing */

static ssize_t send_some(struct cm_channel *ch, struct iovec *iov, int count, int fd)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    ssize_t n;

    if (fd >= 0) {
        control.head =
            (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
        msg.msg_control = &control;
        msg.msg_controllen = sizeof control;
    }
    do
        n = sendmsg(ch->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static bool is_gone(ssize_t n)
{
    return n == -EPIPE || n == -ECONNRESET;
}

static ssize_t send_chunk(struct cm_channel *ch, const struct chunk *c)
{
    uint8_t piece[READ_SIZE];
    struct iovec iov = {piece, c->len - c->off};

    if (c->file < 0) {
        iov.iov_base = (void *)(c->data + c->off);
    } else {
        ssize_t n = pread(c->file, piece, iov.iov_len < sizeof piece ? iov.iov_len : sizeof piece, (off_t)c->off);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        iov.iov_len = (size_t)n;
    }
    return send_some(ch, &iov, 1, c->fd);
}

/* Writes what waits. A failed write drops it all, and nothing can follow half a frame: the read side meets the end and
 * tells the owner. */
static void flush(struct cm_channel *ch)
{
    while (ch->out) {
        struct chunk *c = ch->out;
        ssize_t n = send_chunk(ch, c);
        if (n == -EAGAIN)
            return;
        if (n < 0)
            shutdown(ch->fd, SHUT_RDWR);
        size_t done = n < 0 ? c->len - c->off : (size_t)n;
        c->fd = cm_fd_close(c->fd);
        c->off += done;
        ch->out_len -= c->file < 0 ? done : 0;
        if (c->off < c->len)
            return;
        ch->out = c->next;
        free_chunk(c);
    }
    ch->out_tail = &ch->out;
    cm_watch_set(ch->watch, CM_EV_READ);
}

static struct chunk *new_chunk(const struct iovec *iov, size_t off, bool borrow)
{
    struct chunk *c = malloc(sizeof *c + (borrow ? 0 : iov->iov_len));

    if (!c)
        return NULL;
    *c = (struct chunk){.len = iov->iov_len, .off = off, .fd = -1, .file = -1};
    c->data = borrow ? iov->iov_base : memcpy(c->copy, iov->iov_base, iov->iov_len);
    return c;
}

/* Queues the message without the `skip` bytes that have gone out already. Takes the owner in any case. */
static int enqueue(struct cm_channel *ch, const struct cm_ipc_msg *m, size_t skip, int *fd, void *owner,
                   struct cm_err *err)
{
    struct chunk *first = NULL, *last = NULL;

    for (int i = 0; i < m->iovcnt; i++) {
        const struct iovec *iov = &m->iov[i];
        size_t off = skip < iov->iov_len ? skip : iov->iov_len;
        skip -= off;
        if (off == iov->iov_len)
            continue;
        struct chunk *c = new_chunk(iov, off, owner && iov->iov_len >= BORROW_MIN);
        if (!c) {
            free_chunks(first);
            free(owner);
            return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a frame of %zu bytes", cm_ipc_msg_size(m));
        }
        *(last ? &last->next : &first) = c;
        last = c;
        ch->out_len += c->len - c->off; /* an error ends the channel: see send_msg() */
    }
    assert(last);
    first->fd = cm_steal_fd(fd);
    last->owner = owner;
    *ch->out_tail = first;
    ch->out_tail = &last->next;
    cm_watch_set(ch->watch, CM_EV_READ | CM_EV_WRITE);
    return 0;
}

static int send_msg(struct cm_channel *ch, struct cm_ipc_msg *m, int fd, void *owned, struct cm_err *err)
{
    cm_autofree void *owner = owned;
    cm_autofd int passed = fd;
    ssize_t n = 0;

    int r = cm_ipc_msg_finish(m, err);
    if (r < 0)
        return r;
    if (ch->over || ch->closed)
        return 0;
    if (cm_ipc_msg_size(m) > ch->out_max - ch->out_len)
        return cm_err_set(err, CM_ERR_TOO_LARGE, "the peer does not take its frames");
    if (!ch->out) {
        n = send_some(ch, m->iov, m->iovcnt, passed);
        if (n == (ssize_t)cm_ipc_msg_size(m) || is_gone(n))
            return 0;
        if (n < 0 && n != -EAGAIN) /* the kernel had no room; the channel is as it was */
            return cm_err_sys(err, (int)-n, "send");
        if (n > 0)
            passed = cm_fd_close(passed);
    }
    r = enqueue(ch, m, n > 0 ? (size_t)n : 0, &passed, cm_steal(owner), err);
    if (r < 0) /* half a frame may be out: nothing can follow it */
        shutdown(ch->fd, SHUT_RDWR);
    return r;
}

int cm_channel_send(struct cm_channel *ch, struct cm_ipc_msg *m, int fd, struct cm_err *err)
{
    return send_msg(ch, m, fd, NULL, err);
}

int cm_channel_send_owned(struct cm_channel *ch, struct cm_ipc_msg *m, void *owner, struct cm_err *err)
{
    return send_msg(ch, m, -1, owner, err);
}

int cm_channel_send_file(struct cm_channel *ch, struct cm_ipc_msg *m, int fd, uint64_t len, struct cm_err *err)
{
    cm_autofd int file = fd;
    int none = -1;

    int r = cm_ipc_msg_finish(m, err);
    if (r < 0 || ch->over || ch->closed)
        return r;
    struct chunk *c = malloc(sizeof *c);
    if (!c)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a frame");
    r = enqueue(ch, m, 0, &none, NULL, err);
    if (r < 0) /* as in send_msg() */
        shutdown(ch->fd, SHUT_RDWR);
    if (r < 0 || len == 0) {
        free(c);
        return r;
    }
    *c = (struct chunk){.len = len, .fd = -1, .file = cm_steal_fd(&file)};
    *ch->out_tail = c;
    ch->out_tail = &c->next;
    return 0;
}

void cm_channel_finish(struct cm_channel *ch)
{
    if (ch && !ch->over && !ch->closed)
        shutdown(ch->fd, SHUT_WR);
}
