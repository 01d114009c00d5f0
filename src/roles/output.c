/* SPDX-License-Identifier: Apache-2.0 */
/* The buffer holds whole frames in the order of their output. The last one stays open for more bytes of its stream
 * until a part of it was sent.
 */
#include "roles/output.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "ipc/frame.h"

#define BUFFER     (128u << 10)
#define FRAME_MAX  (64u << 10) /* payload; well below CM_IPC_OUTPUT_MAX */
#define AGE_MAX_NS 5000000

/* header, field STREAM, head of field DATA */
#define FRAME_HEAD  (CM_IPC_HEADER_SIZE + CM_IPC_FIELD_SIZE + 1 + CM_IPC_FIELD_SIZE)
#define DATA_LEN_AT (FRAME_HEAD - 4)

static struct {
    int fd;
    uint64_t id;
    uint64_t sent_at;
    size_t start, end; /* bytes that wait */
    size_t first;      /* where the frame begins that was not wholly sent: start, or before it */
    size_t open;       /* where the last frame begins, while it may grow; else SIZE_MAX */
    int stream;        /* of the open frame */
    uint8_t data[BUFFER];
} out;

/* cm_output_push() comes from signal handlers and keeps its hands off while somebody else is at work. */
static volatile sig_atomic_t busy;

static void enter(void)
{
    busy = 1;
    atomic_signal_fence(memory_order_seq_cst);
}

static void leave(void)
{
    atomic_signal_fence(memory_order_seq_cst);
    busy = 0;
}

void cm_output_begin(int fd, uint64_t id)
{
    enter();
    out.fd = fd;
    out.id = id;
    out.start = out.end = out.first = 0;
    out.open = SIZE_MAX;
    out.sent_at = 0;
    leave();
}

static void open_frame(int stream)
{
    struct cm_ipc_msg m;
    cm_ipc_msg_begin(&m, CM_MSG_OUTPUT, out.id);
    cm_ipc_put_uint(&m, CM_FIELD_STREAM, (uint64_t)stream);
    cm_ipc_put_bytes(&m, CM_FIELD_DATA, "", 0);
    cm_ipc_msg_finish(&m, NULL); /* cannot be too large */
    out.open = out.end;
    out.stream = stream;
    for (int i = 0; i < m.iovcnt; i++) {
        memcpy(out.data + out.end, m.iov[i].iov_base, m.iov[i].iov_len);
        out.end += m.iov[i].iov_len;
    }
}

static void add_u32(size_t at, size_t more)
{
    uint32_t v;
    memcpy(&v, out.data + at, sizeof v);
    v += (uint32_t)more;
    memcpy(out.data + at, &v, sizeof v);
}

static size_t end_of_frame(size_t at)
{
    uint32_t len;
    memcpy(&len, out.data + at, sizeof len);
    return at + CM_IPC_HEADER_SIZE + len;
}

static void sent(size_t n)
{
    out.start += n;
    while (out.first < out.start && end_of_frame(out.first) <= out.start)
        out.first = end_of_frame(out.first);
    if (out.open != SIZE_MAX && out.start > out.open)
        out.open = SIZE_MAX;
    if (out.start == out.end) {
        out.start = out.end = out.first = 0;
        out.open = SIZE_MAX;
    }
}

static void send_some(uint64_t now)
{
    ssize_t n = send(out.fd, out.data + out.start, out.end - out.start, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0)
        sent((size_t)n);
    out.sent_at = now;
}

static bool emit(int stream, const void *data, size_t len)
{
    if (!len)
        return true;
    bool fits_open = out.open != SIZE_MAX && out.stream == stream && out.end - out.open + len <= FRAME_MAX;
    if (out.end + (fits_open ? 0 : FRAME_HEAD) + len > BUFFER)
        return false;
    if (!fits_open)
        open_frame(stream);
    memcpy(out.data + out.end, data, len);
    out.end += len;
    add_u32(out.open, len);
    add_u32(out.open + DATA_LEN_AT, len);
    uint64_t now = cm_clock_ns();
    if (now - out.sent_at > AGE_MAX_NS)
        send_some(now);
    return true;
}

bool cm_output_emit(int stream, const void *data, size_t len)
{
    enter();
    bool taken = emit(stream, data, len);
    leave();
    return taken;
}

void cm_output_push(void)
{
    if (!busy && out.start != out.end)
        send_some(cm_clock_ns());
}

bool cm_output_pending(void)
{
    return out.start != out.end;
}

int cm_output_flush(struct cm_err *err)
{
    if (out.start == out.end)
        return 0;
    enter();
    int rc = cm_fd_write_all(out.fd, out.data + out.start, out.end - out.start);
    sent(out.end - out.start);
    leave();
    return rc ? cm_err_sys(err, -rc, "send output") : 0;
}

bool cm_output_end_frame(void)
{
    if (out.first == out.start)
        return true;
    if (busy || end_of_frame(out.first) > out.end)
        return false;
    return cm_fd_write_all(out.fd, out.data + out.start, end_of_frame(out.first) - out.start) == 0;
}
