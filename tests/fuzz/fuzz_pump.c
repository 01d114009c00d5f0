/* SPDX-License-Identifier: Apache-2.0 */
/* A pump between a stream and a socket, while both far ends write, read, stop and leave in any order. What arrives is what
 * was sent, from its beginning and without a gap; when everybody has left, nothing is left over. */
#include "fuzz.h"

#include <errno.h>
#include <sys/socket.h>

#include "net/pump.h"
#include "net/stream.h"
#include "turn.h"

#define PIECE 70000

static struct cm_loop *loop;

/* One direction: bytes are numbered, so that a byte tells its place. */
struct way {
    size_t sent, seen;
};

static struct {
    int peer, socket; /* the far ends: of the stream, and of the socket; -1 when they have left */
    struct way in, out;
    struct cm_stream *stream;
    struct cm_pump *pump;
    bool ready, ended;
} w;

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at ^ at >> 8 ^ at >> 15);
}

static void on_ready(void *arg)
{
    (void)arg;
    w.ready = true;
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
    (void)arg;
    (void)data;
    (void)len;
    CHECK(!"the pump owns it");
}

static void on_closed(void *arg, const struct cm_err *err)
{
    (void)arg;
    (void)err;
}

static void on_ended(void *arg, struct cm_pump *p)
{
    (void)arg;
    CHECK(p == w.pump && !w.ended);
    w.pump = NULL;
    w.ended = true;
}

static void put(int fd, struct way *way, size_t len)
{
    static uint8_t bytes[PIECE];

    for (size_t i = 0; i < len; i++)
        bytes[i] = pattern(way->sent + i);
    ssize_t n = fd < 0 ? -1 : send(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    way->sent += n > 0 ? (size_t)n : 0;
}

static void take(int fd, struct way *way, size_t len)
{
    static uint8_t bytes[PIECE];
    ssize_t n = fd < 0 ? -1 : recv(fd, bytes, len, MSG_DONTWAIT);

    for (ssize_t i = 0; i < n; i++)
        CHECK(bytes[i] == pattern(way->seen + (size_t)i));
    way->seen += n > 0 ? (size_t)n : 0;
    CHECK(way->seen <= way->sent);
}

static void leave(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void act(struct fuzz_in *in)
{
    uint8_t what = fuzz_byte(in);
    size_t len = 1 + (size_t)(what >> 4) * (what & 8 ? 4600 : 7);

    switch (what & 7) {
    case 0:
        put(w.peer, &w.in, len);
        break;
    case 1:
        put(w.socket, &w.out, len);
        break;
    case 2:
        take(w.socket, &w.in, len);
        break;
    case 3:
        take(w.peer, &w.out, len);
        break;
    case 4:
        if (w.peer >= 0 && len > 90)
            shutdown(w.peer, SHUT_WR);
        break;
    case 5:
        if (w.socket >= 0 && len > 90)
            shutdown(w.socket, SHUT_WR);
        break;
    case 6:
        if (len > 30000)
            leave(what & 16 ? &w.peer : &w.socket);
        break;
    default:
        fuzz_turns(loop, 1 + (what >> 6));
    }
}

/* Nobody has left and both go on reading: everything arrives. */
static void check_rest(void)
{
    for (int i = 0; i < 300 && (w.in.seen < w.in.sent || w.out.seen < w.out.sent); i++) {
        fuzz_turns(loop, 1);
        take(w.socket, &w.in, PIECE);
        take(w.peer, &w.out, PIECE);
    }
    CHECK(w.in.seen == w.in.sent && w.out.seen == w.out.sent);
}

static void begin(void)
{
    static const struct cm_stream_ops ops = {.ready = on_ready, .data = on_data, .closed = on_closed};
    struct cm_stream_limits limits = {.queue_max = 1024, .handshake_ms = 60000};
    int a[2], b[2];

    memset(&w, 0, sizeof w);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, a) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, b) == 0);
    w.peer = a[1];
    w.socket = b[1];
    w.stream = cm_stream_accept(loop, a[0], NULL, &limits, &ops, NULL, NULL);
    CHECK(w.stream);
    while (!w.ready)
        fuzz_turns(loop, 1);
    w.pump = cm_pump_new(loop, w.stream, b[0], on_ended, NULL, NULL);
    CHECK(w.pump);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, data + size};
    bool whole = true;

    if (size > 512)
        return 0;
    if (!loop)
        loop = cm_loop_new(NULL);
    int lowest = fuzz_lowest_fd();
    for (const uint8_t *c = data; c < data + size; c++)
        whole = whole && (*c & 7) != 4 && (*c & 7) != 5 && (*c & 7) != 6;
    begin();
    while (in.at < in.end)
        act(&in);
    if (whole) {
        CHECK(!w.ended);
        check_rest();
    }
    leave(&w.peer);
    leave(&w.socket);
    for (int i = 0; i < 50 && !w.ended; i++)
        fuzz_turns(loop, 1);
    CHECK(w.ended);
    cm_stream_end_lingering(loop);
    fuzz_turns(loop, 2);
    CHECK(fuzz_lowest_fd() == lowest);
    return 0;
}
