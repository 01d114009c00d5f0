/* SPDX-License-Identifier: Apache-2.0 */
#include "ipc/sync.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Bytes read: `len`, less when the peer has closed, or a negative error. */
static ssize_t read_exactly(int fd, void *to, size_t len, struct cm_err *err)
{
    size_t got = 0;

    while (got < len) {
        ssize_t n = read(fd, (char *)to + got, len - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cm_err_sys(err, errno, "read frame");
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

/* The rest of a header of which `got` bytes have come already. */
static int finish_header(int fd, uint8_t bytes[static CM_IPC_HEADER_SIZE], size_t got, enum cm_ipc_role sender,
                         enum cm_ipc_role receiver, struct cm_ipc_header *ret, struct cm_err *err)
{
    ssize_t n = read_exactly(fd, bytes + got, CM_IPC_HEADER_SIZE - got, err);

    if (n < 0)
        return (int)n;
    got += (size_t)n;
    if (got == 0)
        return 0;
    if (got < CM_IPC_HEADER_SIZE)
        return cm_err_set(err, CM_ERR_PROTOCOL, "the peer closed within a header");
    int r = cm_ipc_header_get(bytes, sender, receiver, ret, err);
    return r < 0 ? r : 1;
}

int cm_ipc_read_header(int fd, enum cm_ipc_role sender, enum cm_ipc_role receiver, struct cm_ipc_header *ret,
                       struct cm_err *err)
{
    uint8_t bytes[CM_IPC_HEADER_SIZE];

    return finish_header(fd, bytes, 0, sender, receiver, ret, err);
}

int cm_ipc_recv_header_fd(int fd, enum cm_ipc_role sender, enum cm_ipc_role receiver, struct cm_ipc_header *ret,
                          int *ret_fd, struct cm_err *err)
{
    uint8_t bytes[CM_IPC_HEADER_SIZE];
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))]; /* the kernel closes what does not fit */
    } control;
    struct iovec iov = {bytes, sizeof bytes};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    cm_autofd int got_fd = -1;
    ssize_t n;

    do
        n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return cm_err_sys(err, errno, "receive frame");
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&got_fd, CMSG_DATA(c), sizeof got_fd);
    if (n == 0)
        return 0;
    int r = finish_header(fd, bytes, (size_t)n, sender, receiver, ret, err);
    if (r <= 0)
        return r;
    unsigned want = cm_ipc_message(ret->type)->max_fds;
    if (want != (got_fd >= 0 ? 1u : 0u) || (msg.msg_flags & MSG_CTRUNC))
        return cm_err_set(err, CM_ERR_PROTOCOL, "%s frame with a wrong number of descriptors",
                          cm_ipc_message(ret->type)->name);
    *ret_fd = cm_steal_fd(&got_fd);
    return 1;
}

int cm_ipc_read_payload(int fd, void *to, size_t len, struct cm_err *err)
{
    ssize_t n = read_exactly(fd, to, len, err);

    if (n >= 0 && (size_t)n < len)
        return cm_err_set(err, CM_ERR_PROTOCOL, "the peer closed within a payload");
    return n < 0 ? (int)n : 0;
}

/* Drops `n` written bytes from the front of the vector. */
static void advance(struct iovec **iov, int *count, size_t n)
{
    while (*count > 0 && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        (*iov)++;
        (*count)--;
    }
    if (n > 0 && *count > 0) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
}

static volatile sig_atomic_t writing;

bool cm_ipc_writing(void)
{
    return writing;
}

static int write_vector(int fd, struct iovec *iov, int count, struct cm_err *err)
{
    writing = 1;
    while (count > 0) {
        ssize_t n = writev(fd, iov, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cm_err_sys(err, errno, "write frame");
        advance(&iov, &count, (size_t)n);
    }
    writing = 0;
    return 0;
}

int cm_ipc_write(int fd, struct cm_ipc_msg *m, struct cm_err *err)
{
    int r = cm_ipc_msg_finish(m, err);

    return r < 0 ? r : write_vector(fd, m->iov, m->iovcnt, err);
}

int cm_ipc_write_fd(int fd, struct cm_ipc_msg *m, int passed, struct cm_err *err)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    ssize_t n;

    int r = cm_ipc_msg_finish(m, err);
    if (r < 0)
        return r;
    control.head =
        (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof passed), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.head), &passed, sizeof passed);
    struct msghdr msg = {
        .msg_iov = m->iov, .msg_iovlen = (size_t)m->iovcnt, .msg_control = &control, .msg_controllen = sizeof control};
    do
        n = sendmsg(fd, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return cm_err_sys(err, errno, "send frame with a descriptor");
    struct iovec *iov = m->iov;
    int count = m->iovcnt;
    advance(&iov, &count, (size_t)n);
    return write_vector(fd, iov, count, err);
}

int cm_ipc_skip_payload(int fd, size_t len, struct cm_err *err)
{
    char scrap[16 << 10];

    while (len) {
        size_t n = len < sizeof scrap ? len : sizeof scrap;
        int r = cm_ipc_read_payload(fd, scrap, n, err);
        if (r < 0)
            return r;
        len -= n;
    }
    return 0;
}

int cm_ipc_write_payload(int fd, enum cm_ipc_type type, uint64_t id, const void *payload, size_t len,
                         struct cm_err *err)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, type, id);
    m.len = len;
    int r = cm_ipc_msg_finish(&m, err);
    if (r < 0)
        return r;
    struct iovec iov[] = {{m.header, CM_IPC_HEADER_SIZE}, {(void *)payload, len}};
    return write_vector(fd, iov, 2, err);
}
