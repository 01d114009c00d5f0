/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "ipc/channel.h"
#include "ipc/sync.h"

/* A finished message as flat bytes. */
static size_t flat(struct cm_ipc_msg *m, uint8_t *to)
{
    size_t at = 0;

    assert_int_equal(cm_ipc_msg_finish(m, NULL), 0);
    for (int i = 0; i < m->iovcnt; i++) {
        memcpy(to + at, m->iov[i].iov_base, m->iov[i].iov_len);
        at += m->iov[i].iov_len;
    }
    assert_int_equal(at, cm_ipc_msg_size(m));
    return at;
}

static size_t result_frame(uint8_t *to, uint64_t id)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, CM_MSG_RESULT, id);
    cm_ipc_put_uint(&m, CM_FIELD_SUCCESS, 1);
    cm_ipc_put_uint(&m, CM_FIELD_PEAK_MEMORY, 0x123456789abc);
    cm_ipc_put_bytes(&m, CM_FIELD_LOCALS, "{}", 2);
    cm_ipc_put_bytes(&m, CM_FIELD_RESULT, "", 0);
    return flat(&m, to);
}

static void round_trip(void **state)
{
    uint8_t bytes[256];
    struct cm_ipc_header head;
    struct cm_ipc_fields f;
    size_t len;
    (void)state;

    size_t n = result_frame(bytes, 77);
    assert_int_equal(cm_ipc_header_get(bytes, CM_IPC_WORKER, CM_IPC_GATEWAY, &head, NULL), 0);
    assert_int_equal(head.type, CM_MSG_RESULT);
    assert_int_equal(head.id, 77);
    assert_int_equal(head.len, n - CM_IPC_HEADER_SIZE);
    assert_int_equal(cm_ipc_fields_get(bytes + CM_IPC_HEADER_SIZE, head.len, &f, NULL), 0);
    assert_int_equal(cm_ipc_get_uint(&f, CM_FIELD_SUCCESS, 9), 1);
    assert_int_equal(cm_ipc_get_uint(&f, CM_FIELD_PEAK_MEMORY, 0), 0x123456789abc);
    assert_int_equal(cm_ipc_get_uint(&f, CM_FIELD_PID, 5), 5);
    assert_memory_equal(cm_ipc_get_bytes(&f, CM_FIELD_LOCALS, &len), "{}", 2);
    assert_int_equal(len, 2);
    assert_true(cm_ipc_has(&f, CM_FIELD_RESULT));
    assert_null(cm_ipc_get_bytes(&f, CM_FIELD_ERROR, &len));
}

static int header(uint32_t len, uint16_t type, uint16_t version, enum cm_ipc_role from, enum cm_ipc_role to)
{
    uint8_t bytes[CM_IPC_HEADER_SIZE] = {0};
    struct cm_ipc_header head;

    memcpy(bytes, &len, 4);
    memcpy(bytes + 4, &type, 2);
    memcpy(bytes + 6, &version, 2);
    return cm_ipc_header_get(bytes, from, to, &head, NULL);
}

static void hostile_headers(void **state)
{
    (void)state;
    assert_int_equal(header(256, CM_MSG_READY, 1, CM_IPC_WORKER, CM_IPC_GATEWAY), 0);
    assert_int_equal(header(257, CM_MSG_READY, 1, CM_IPC_WORKER, CM_IPC_GATEWAY), CM_ERR_PROTOCOL);
    assert_int_equal(header(UINT32_MAX, CM_MSG_RESULT, 1, CM_IPC_WORKER, CM_IPC_GATEWAY), CM_ERR_PROTOCOL);
    assert_int_equal(header(0, 999, 1, CM_IPC_WORKER, CM_IPC_GATEWAY), CM_ERR_PROTOCOL);
    assert_int_equal(header(0, CM_MSG_READY, 2, CM_IPC_WORKER, CM_IPC_GATEWAY), CM_ERR_PROTOCOL);
    assert_int_equal(header(0, CM_MSG_HELLO, 1, CM_IPC_WORKER, CM_IPC_GATEWAY), CM_ERR_PROTOCOL);
    assert_int_equal(header(0, CM_MSG_EXECUTE, 1, CM_IPC_WORKER, CM_IPC_GATEWAY), CM_ERR_PROTOCOL);
    assert_int_equal(header(0, CM_MSG_EXECUTE, 1, CM_IPC_GATEWAY, CM_IPC_ZYGOTE), CM_ERR_PROTOCOL);
}

static void hostile_fields(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
        {"\x0b", 1},                                               /* half a head */
        {"\x0b\x05\x00\x00\x00"
         "abcd",
         9},                        /* longer than what is there */
        {"\x0b\xff\xff\xff\xff"
         "abcd",
         9},
        {"\xee\x00\x00\x00\x00", 5},                               /* unknown */
        {"\x00\x00\x00\x00\x00", 5},
        {"\x0c\x02\x00\x00\x00\x01\x01", 7},                       /* a number of a wrong width */
        {"\x0b\x01\x00\x00\x00"
         "a\x0b\x01\x00\x00\x00"
         "b",
         12},  /* twice */
        {"\x0b\x00\x00\x00\x00\x0b\x00\x00\x00\x00", 10},          /* twice, empty */
        {"\x0b\x01\x00\x00\x00"
         "ab",
         7},                          /* a rest */
    };
    struct cm_ipc_fields f;
    (void)state;

    for (size_t i = 0; i < CM_COUNT_OF(bad); i++)
        assert_int_equal(cm_ipc_fields_get(bad[i].bytes, bad[i].len, &f, NULL), CM_ERR_PROTOCOL);
    assert_int_equal(cm_ipc_fields_get("", 0, &f, NULL), 0);
}

/* Every cut and every single changed byte is either read within its bounds or refused; the sanitizer builds watch. */
static void damaged_frames(void **state)
{
    uint8_t bytes[256], copy[256];
    struct cm_ipc_header head;
    struct cm_ipc_fields f;
    (void)state;

    size_t n = result_frame(bytes, 1);
    for (size_t cut = 0; cut < n - CM_IPC_HEADER_SIZE; cut++) {
        cm_autofree uint8_t *part = malloc(cut + 1);
        memcpy(part, bytes + CM_IPC_HEADER_SIZE, cut);
        (void)cm_ipc_fields_get(part, cut, &f, NULL);
    }
    for (size_t i = 0; i < n; i++)
        for (unsigned v = 0; v < 256; v++) {
            memcpy(copy, bytes, n);
            copy[i] = (uint8_t)v;
            if (cm_ipc_header_get(copy, CM_IPC_WORKER, CM_IPC_GATEWAY, &head, NULL) < 0)
                continue;
            size_t len = head.len < n - CM_IPC_HEADER_SIZE ? head.len : n - CM_IPC_HEADER_SIZE;
            if (cm_ipc_fields_get(copy + CM_IPC_HEADER_SIZE, len, &f, NULL) == 0 && cm_ipc_has(&f, CM_FIELD_LOCALS))
                assert_true(f.at[CM_FIELD_LOCALS].data + f.at[CM_FIELD_LOCALS].len <= copy + n);
        }
}

static void too_large_to_send(void **state)
{
    struct cm_ipc_msg m;
    char big[300] = {0};
    (void)state;

    cm_ipc_msg_begin(&m, CM_MSG_READY, 0);
    cm_ipc_put_bytes(&m, CM_FIELD_ERROR, big, sizeof big);
    assert_int_equal(cm_ipc_msg_finish(&m, NULL), CM_ERR_TOO_LARGE);
    cm_ipc_msg_begin(&m, CM_MSG_RESULT, 0);
    for (int i = 0; i <= CM_IPC_FIELDS_MAX; i++)
        cm_ipc_put_uint(&m, CM_FIELD_SUCCESS, 1);
    assert_int_equal(cm_ipc_msg_finish(&m, NULL), CM_ERR_TOO_LARGE);
}

static void blocking_side(void **state)
{
    int s[2], got = -1;
    struct cm_ipc_msg m;
    struct cm_ipc_header head;
    uint8_t payload[64];
    (void)state;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    cm_ipc_msg_begin(&m, CM_MSG_BEGIN, 4);
    cm_ipc_put_uint(&m, CM_FIELD_MEMORY_LIMIT, 1 << 20);
    assert_int_equal(cm_ipc_write_fd(s[0], &m, STDIN_FILENO, NULL), 0);
    assert_int_equal(cm_ipc_recv_header_fd(s[1], CM_IPC_GATEWAY, CM_IPC_WORKER, &head, &got, NULL), 1);
    assert_int_equal(head.id, 4);
    assert_true(got > STDERR_FILENO);
    assert_true(fcntl(got, F_GETFD) & FD_CLOEXEC);
    close(got);
    assert_int_equal(cm_ipc_read_payload(s[1], payload, head.len, NULL), 0);

    cm_ipc_msg_begin(&m, CM_MSG_SPAWN, 5); /* without the descriptor that belongs to it */
    assert_int_equal(cm_ipc_write(s[0], &m, NULL), 0);
    assert_int_equal(cm_ipc_recv_header_fd(s[1], CM_IPC_GATEWAY, CM_IPC_ZYGOTE, &head, &got, NULL), CM_ERR_PROTOCOL);

    assert_int_equal(write(s[0], "abc", 3), 3);
    close(s[0]);
    assert_int_equal(cm_ipc_read_header(s[1], CM_IPC_GATEWAY, CM_IPC_WORKER, &head, NULL), CM_ERR_PROTOCOL);
    assert_int_equal(cm_ipc_read_header(s[1], CM_IPC_GATEWAY, CM_IPC_WORKER, &head, NULL), 0);
    close(s[1]);
}

/* The channel against a scripted peer */

struct peer {
    struct cm_loop *loop;
    struct cm_channel *ch;
    int fd; /* the other end */
    unsigned frames, fds, closed;
    size_t last_len;
    uint64_t last_id;
    int code;
    bool close_on_frame;
};

static void on_frame(void *arg, const struct cm_ipc_header *head, const struct cm_ipc_fields *f, int *fd)
{
    struct peer *p = arg;

    p->frames++;
    p->fds += *fd >= 0;
    p->last_id = head->id;
    cm_ipc_get_bytes(f, CM_FIELD_DATA, &p->last_len);
    if (p->close_on_frame) {
        p->ch = cm_channel_close(p->ch);
        cm_loop_stop(p->loop);
    }
}

static void on_closed(void *arg, const struct cm_err *err)
{
    struct peer *p = arg;

    p->closed++;
    p->code = err ? err->code : 0;
    p->ch = cm_channel_close(p->ch);
    cm_loop_stop(p->loop);
}

static const struct cm_channel_ops ops = {on_frame, on_closed};

static void open_peer(enum cm_ipc_role role, struct peer *p)
{
    int s[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    *p = (struct peer){.loop = cm_loop_new(NULL), .fd = s[1]};
    p->ch = cm_channel_open(p->loop, s[0], CM_IPC_GATEWAY, role, 1 << 20, &ops, p, NULL);
    assert_non_null(p->ch);
}

static void run_and_free(struct peer *p)
{
    close(p->fd);
    cm_loop_run(p->loop);
    assert_null(p->ch);
    cm_loop_free(p->loop);
}

static void write_raw(struct peer *p, const void *data, size_t len)
{
    assert_int_equal(write(p->fd, data, len), len);
}

static void channel_takes_frames_in_any_pieces(void **state)
{
    uint8_t bytes[256];
    struct peer p;
    (void)state;

    size_t n = result_frame(bytes, 5);
    for (size_t piece = 1; piece < 2 * n; piece += 3) {
        uint8_t both[512];
        open_peer(CM_IPC_WORKER, &p);
        memcpy(both, bytes, n);
        memcpy(both + n, bytes, n);
        for (size_t at = 0; at < 2 * n; at += piece) {
            write_raw(&p, both + at, piece < 2 * n - at ? piece : 2 * n - at);
            cm_channel_drain(p.ch); /* one read for each piece */
        }
        run_and_free(&p);
        assert_int_equal(p.frames, 2);
        assert_int_equal(p.closed, 1);
        assert_int_equal(p.code, 0);
    }
}

static void channel_takes_large_frames(void **state)
{
    static char data[200000];
    struct cm_ipc_msg m;
    struct peer p;
    (void)state;

    open_peer(CM_IPC_WORKER, &p);
    for (int i = 0; i < 3; i++) {
        uint8_t *frame = malloc(sizeof data + 64);
        cm_ipc_msg_begin(&m, CM_MSG_OUTPUT, 9);
        cm_ipc_put_uint(&m, CM_FIELD_STREAM, 1);
        cm_ipc_put_bytes(&m, CM_FIELD_DATA, data, sizeof data);
        size_t n = flat(&m, frame);
        for (size_t at = 0; at < n; at += 50000) {
            write_raw(&p, frame + at, n - at < 50000 ? n - at : 50000);
            cm_channel_drain(p.ch);
        }
        free(frame);
    }
    run_and_free(&p);
    assert_int_equal(p.frames, 3);
    assert_int_equal(p.last_len, sizeof data);
}

/* A peer that closes without having read what it was sent resets the socket. Its last words are still all heard, also
 * when they take several reads, and its end is noticed. */
static void channel_hears_a_peer_out_that_did_not_read(void **state)
{
    static char data[75000];
    uint8_t *frame = malloc(sizeof data + 64);
    struct cm_ipc_msg m;
    struct peer p;
    (void)state;

    open_peer(CM_IPC_WORKER, &p);
    cm_ipc_msg_begin(&m, CM_MSG_EXECUTE, 9);
    cm_ipc_put_bytes(&m, CM_FIELD_CODE, "1", 1);
    assert_int_equal(cm_channel_send(p.ch, &m, -1, NULL), 0);
    cm_ipc_msg_begin(&m, CM_MSG_OUTPUT, 9);
    cm_ipc_put_uint(&m, CM_FIELD_STREAM, 1);
    cm_ipc_put_bytes(&m, CM_FIELD_DATA, data, sizeof data);
    size_t n = flat(&m, frame);
    write_raw(&p, frame, n);
    write_raw(&p, frame, n);
    free(frame);
    run_and_free(&p);
    assert_int_equal(p.frames, 2);
    assert_int_equal(p.closed, 1);
    assert_int_equal(p.code, 0);
}

static void channel_ends_liars(void **state)
{
    static const uint8_t bad[] = {0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}; /* HELLO, from a worker */
    struct peer p;
    (void)state;

    open_peer(CM_IPC_WORKER, &p);
    write_raw(&p, bad, sizeof bad);
    run_and_free(&p);
    assert_int_equal(p.frames, 0);
    assert_int_equal(p.code, CM_ERR_PROTOCOL);
}

static void channel_may_close_itself(void **state)
{
    uint8_t bytes[512];
    struct peer p;
    (void)state;

    open_peer(CM_IPC_WORKER, &p);
    p.close_on_frame = true;
    size_t n = result_frame(bytes, 5);
    memcpy(bytes + n, bytes, n);
    write_raw(&p, bytes, 2 * n);
    run_and_free(&p);
    assert_int_equal(p.frames, 1);
    assert_int_equal(p.closed, 0);
}

static void channel_passes_descriptors(void **state)
{
    struct cm_ipc_msg m;
    struct cm_ipc_header head;
    uint8_t payload[64];
    struct peer p;
    int got = -1;
    (void)state;

    open_peer(CM_IPC_ZYGOTE, &p);
    for (uint64_t id = 1; id <= 3; id++) {
        cm_ipc_msg_begin(&m, CM_MSG_SPAWNED, id);
        cm_ipc_put_uint(&m, CM_FIELD_PID, 12);
        assert_int_equal(cm_ipc_write_fd(p.fd, &m, STDIN_FILENO, NULL), 0);
    }
    cm_ipc_msg_begin(&m, CM_MSG_SPAWN, 8);
    assert_int_equal(cm_channel_send(p.ch, &m, dup(STDIN_FILENO), NULL), 0);
    assert_int_equal(cm_ipc_recv_header_fd(p.fd, CM_IPC_GATEWAY, CM_IPC_ZYGOTE, &head, &got, NULL), 1);
    assert_int_equal(cm_ipc_read_payload(p.fd, payload, head.len, NULL), 0);
    assert_true(got >= 0);
    close(got);
    run_and_free(&p);
    assert_int_equal(p.frames, 3);
    assert_int_equal(p.fds, 3);
}

static void channel_without_its_descriptor(void **state)
{
    struct cm_ipc_msg m;
    struct peer p;
    (void)state;

    open_peer(CM_IPC_ZYGOTE, &p);
    cm_ipc_msg_begin(&m, CM_MSG_SPAWNED, 1);
    assert_int_equal(cm_ipc_write(p.fd, &m, NULL), 0);
    run_and_free(&p);
    assert_int_equal(p.code, CM_ERR_PROTOCOL);
}

/* A slow reader: the socket fills, the queue takes the rest up to its maximum, and all of it arrives in order. */
static void queue_what_the_socket_refuses(bool owned)
{
    static char code[300000];
    struct cm_ipc_msg m;
    struct cm_ipc_header head;
    struct peer p;
    int sent = 0, r;

    open_peer(CM_IPC_WORKER, &p);
    do {
        char *own = owned ? calloc(1, sizeof code) : NULL;
        cm_ipc_msg_begin(&m, CM_MSG_EXECUTE, (uint64_t)sent);
        cm_ipc_put_bytes(&m, CM_FIELD_CODE, owned ? own : code, sizeof code);
        cm_ipc_put_uint(&m, CM_FIELD_MODE, 1);
        r = owned ? cm_channel_send_owned(p.ch, &m, own, NULL) : cm_channel_send(p.ch, &m, -1, NULL);
        sent += r == 0;
    } while (r == 0);
    assert_int_equal(r, CM_ERR_TOO_LARGE);
    assert_in_range(sent, 3, 6);
    int child = fork();
    if (child == 0) {
        static char to[400000];
        struct cm_ipc_fields f;
        for (int i = 0; i < sent; i++) {
            if (cm_ipc_read_header(p.fd, CM_IPC_GATEWAY, CM_IPC_WORKER, &head, NULL) != 1 || head.id != (uint64_t)i ||
                cm_ipc_read_payload(p.fd, to, head.len, NULL) < 0 || cm_ipc_fields_get(to, head.len, &f, NULL) < 0 ||
                cm_ipc_get_uint(&f, CM_FIELD_MODE, 0) != 1)
                _exit(1);
        }
        cm_ipc_msg_begin(&m, CM_MSG_RESULT, 42);
        _exit(cm_ipc_write(p.fd, &m, NULL) < 0);
    }
    run_and_free(&p);
    assert_int_equal(p.last_id, 42);
}

static void channel_queues_copies(void **state)
{
    (void)state;
    queue_what_the_socket_refuses(false);
}

static void channel_queues_what_it_was_given(void **state)
{
    (void)state;
    queue_what_the_socket_refuses(true);
}

static int file_with(size_t len)
{
    int fd = memfd_create("content", MFD_CLOEXEC);
    cm_autofree uint8_t *bytes = malloc(len);

    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(i * 7 >> 3);
    assert_int_equal(write(fd, bytes, len), len);
    return fd;
}

static int send_content(struct peer *p, uint64_t id, int fd, size_t len)
{
    struct cm_ipc_msg m;

    cm_ipc_msg_begin(&m, CM_MSG_CONTENT, id);
    cm_ipc_put_rest(&m, CM_FIELD_DATA, len);
    return cm_channel_send_file(p->ch, &m, fd, len, NULL);
}

/* Files of sizes around those of pieces, each between frames of the other kind. */
static void channel_sends_files(void **state)
{
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 3000000};
    static uint8_t to[3000000 + CM_IPC_FIELD_SIZE];
    struct cm_ipc_header head;
    struct cm_ipc_msg m;
    struct peer p;
    (void)state;

    open_peer(CM_IPC_WORKER, &p);
    for (size_t i = 0; i < CM_COUNT_OF(sizes); i++) {
        assert_int_equal(send_content(&p, i, file_with(sizes[i]), sizes[i]), 0);
        cm_ipc_msg_begin(&m, CM_MSG_LOAD, 100 + i);
        assert_int_equal(cm_channel_send(p.ch, &m, -1, NULL), 0);
    }
    int child = fork();
    if (child == 0) {
        for (size_t i = 0; i < CM_COUNT_OF(sizes); i++) {
            if (cm_ipc_read_header(p.fd, CM_IPC_GATEWAY, CM_IPC_WORKER, &head, NULL) != 1 || head.id != i ||
                head.len != sizes[i] + CM_IPC_FIELD_SIZE || cm_ipc_read_payload(p.fd, to, head.len, NULL) < 0 ||
                !cm_ipc_is_rest(to, CM_FIELD_DATA, (uint32_t)sizes[i]) ||
                cm_ipc_is_rest(to, CM_FIELD_DATA, (uint32_t)sizes[i] + 1))
                _exit(1);
            for (size_t at = 0; at < sizes[i]; at++)
                if (to[CM_IPC_FIELD_SIZE + at] != (uint8_t)(at * 7 >> 3))
                    _exit(2);
            if (cm_ipc_read_header(p.fd, CM_IPC_GATEWAY, CM_IPC_WORKER, &head, NULL) != 1 || head.id != 100 + i)
                _exit(3);
        }
        cm_ipc_msg_begin(&m, CM_MSG_RESULT, 42);
        _exit(cm_ipc_write(p.fd, &m, NULL) < 0);
    }
    run_and_free(&p);
    assert_int_equal(p.last_id, 42);
}

/* Half a frame is out: the peer must not take for its rest what comes next. */
static void channel_ends_where_a_file_does(void **state)
{
    struct peer p;
    (void)state;

    open_peer(CM_IPC_WORKER, &p);
    assert_int_equal(send_content(&p, 1, file_with(1000), 1001), 0);
    int child = fork();
    if (child == 0) {
        uint8_t to[2000];
        size_t got = 0;
        for (ssize_t n = 1; n > 0; got += (size_t)n)
            n = read(p.fd, to, sizeof to);
        _exit(got != CM_IPC_HEADER_SIZE + CM_IPC_FIELD_SIZE + 1000);
    }
    int status = 1;
    run_and_free(&p);
    assert_int_equal(p.closed, 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void files_too_large_to_send(void **state)
{
    struct peer p;
    (void)state;

    open_peer(CM_IPC_WORKER, &p);
    int fd = file_with(1);
    assert_int_equal(send_content(&p, 1, fd, CM_IPC_CONTENT_MAX), CM_ERR_TOO_LARGE);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken all the same */
    run_and_free(&p);
    assert_int_equal(p.closed, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(hostile_headers),
        cmocka_unit_test(hostile_fields),
        cmocka_unit_test(damaged_frames),
        cmocka_unit_test(too_large_to_send),
        cmocka_unit_test(blocking_side),
        cmocka_unit_test(channel_takes_frames_in_any_pieces),
        cmocka_unit_test(channel_takes_large_frames),
        cmocka_unit_test(channel_hears_a_peer_out_that_did_not_read),
        cmocka_unit_test(channel_ends_liars),
        cmocka_unit_test(channel_may_close_itself),
        cmocka_unit_test(channel_passes_descriptors),
        cmocka_unit_test(channel_without_its_descriptor),
        cmocka_unit_test(channel_queues_copies),
        cmocka_unit_test(channel_queues_what_it_was_given),
        cmocka_unit_test(channel_sends_files),
        cmocka_unit_test(channel_ends_where_a_file_does),
        cmocka_unit_test(files_too_large_to_send),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
