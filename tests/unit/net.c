/* SPDX-License-Identifier: Apache-2.0 */
/* Streams over real sockets. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/listen.h"
#include "net_world.h"

static void ping_pong(void **state)
{
    struct world w;
    (void)state;

    world_open(&w, NULL, NULL);
    await_ready(&w);
    assert_string_equal(cm_stream_alpn(w.server.s), "");
    assert_int_equal(strncmp(cm_stream_peer(w.server.s), "127.0.0.1:", 10), 0);
    assert_int_equal(cm_stream_write(w.client.s, "ping", 4, NULL), 0);
    await_bytes(&w, &w.server, 4);
    assert_int_equal(cm_stream_write(w.server.s, "pong", 4, NULL), 0);
    await_bytes(&w, &w.client, 4);
    assert_memory_equal(w.server.got, "ping", 4);
    assert_memory_equal(w.client.got, "pong", 4);
    world_close(&w);
}

/* Who is turned away gets time to read why, but many at once cannot take all descriptors with that. */
static void few_linger(void **state)
{
    static int peers[300];
    struct cm_loop *loop = cm_loop_new(NULL);
    struct world none = {.loop = loop};
    struct end end = {.w = &none};
    unsigned there = 0;
    int ends[2];
    (void)state;

    for (int i = 0; i < 300; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
        peers[i] = ends[1];
        struct cm_stream *s = cm_stream_accept(loop, ends[0], NULL, &stream_limits, &ops, &end, NULL);
        assert_non_null(s);
        turn(loop); /* it is ready */
        cm_stream_close(s, 60000);
    }
    for (int i = 0; i < 300; i++) {
        bool open = send(peers[i], "x", 1, MSG_NOSIGNAL) == 1;
        assert_int_equal(open, i >= 300 - 256);
        there += open;
        close(peers[i]);
    }
    assert_int_equal(there, 256);
    cm_stream_end_lingering(loop);
    cm_loop_free(loop);
}

/* More than the socket takes: kept up to the maximum, then refused whole; and all that was taken arrives. */
static void queue_has_a_maximum(void **state)
{
    struct world w;
    struct cm_err err;
    static char block[65536];
    size_t taken = 0;
    (void)state;

    world_open(&w, NULL, NULL);
    await_ready(&w);
    cm_stream_pause(w.server.s, true);
    while (cm_stream_write(w.client.s, block, sizeof(block), &err) == 0)
        taken += sizeof(block);
    assert_int_equal(err.code, CM_ERR_TOO_LARGE);
    assert_true(cm_stream_queued(w.client.s) <= QUEUE_MAX);
    assert_true(cm_stream_queued(w.client.s) > QUEUE_MAX - sizeof(block));
    assert_int_equal(w.server.bytes, 0);
    cm_stream_pause(w.server.s, false);
    await_bytes(&w, &w.server, taken);
    await(&w, &w.client.drained);
    assert_int_equal(cm_stream_queued(w.client.s), 0);
    world_close(&w);
}

static void close_lingers(void **state)
{
    struct world w;
    static char block[65536];
    size_t taken = 0;
    (void)state;

    world_open(&w, NULL, NULL);
    await_ready(&w);
    cm_stream_pause(w.server.s, true);
    assert_int_equal(cm_stream_write(w.server.s, "unread", 6, NULL), 0);
    while (cm_stream_write(w.client.s, block, sizeof(block), NULL) == 0)
        taken += sizeof(block);
    w.client.s = cm_stream_close(w.client.s, 5000);
    cm_stream_pause(w.server.s, false);
    await(&w, &w.server.closed);
    assert_int_equal(w.server.err.code, 0);
    assert_int_equal(w.server.bytes, taken);
    world_close(&w);
}

static void close_at_once_tells_the_peer(void **state)
{
    struct world w;
    (void)state;

    world_open(&w, NULL, NULL);
    await_ready(&w);
    w.client.s = cm_stream_close(w.client.s, 0);
    await(&w, &w.server.closed);
    assert_int_equal(w.server.err.code, 0);
    /* One side closed: the other may still write, until that fails. */
    while (cm_stream_write(w.server.s, "x", 1, NULL) == 0)
        world_turn(&w);
    world_close(&w);
}

static void may_be_closed_in_a_callback(void **state)
{
    struct world w;
    (void)state;

    world_open(&w, NULL, NULL);
    w.client.close_when_ready = true;
    w.server.close_with_data = true;
    await(&w, &w.server.closed);
    world_close(&w);

    world_open(&w, NULL, NULL);
    await_ready(&w);
    w.server.close_with_data = true;
    assert_int_equal(cm_stream_write(w.client.s, "x", 1, NULL), 0);
    await(&w, &w.client.closed);
    assert_null(w.server.s);
    world_close(&w);
}

static void nothing_listens(void **state)
{
    struct world w;
    (void)state;

    world_open(&w, NULL, NULL);
    await_ready(&w);
    unsigned port = closed_port();
    w.client.s = cm_stream_close(w.client.s, 0);
    w.client.closed = false;
    w.client.s = cm_stream_connect(w.loop, "127.0.0.1", port, NULL, &stream_limits, &ops, &w.client, NULL);
    assert_non_null(w.client.s);
    await(&w, &w.client.closed);
    assert_int_equal(w.client.err.code, CM_ERR_SYSTEM);
    assert_non_null(strstr(w.client.err.text, "refused"));
    world_close(&w);
}

static void names_are_looked_up(void **state)
{
    struct world w;
    (void)state;

    world_open(&w, NULL, NULL);
    await_ready(&w);
    unsigned port = listening_port(&w);
    w.client.s = cm_stream_close(w.client.s, 0);
    w.client.ready = false;
    /* ::1 may come first: nobody listens there, and the next address is tried. */
    w.client.s = cm_stream_connect(w.loop, "localhost", port, NULL, &stream_limits, &ops, &w.client, NULL);
    await(&w, &w.client.ready);
    w.client.s = cm_stream_close(w.client.s, 0);
    w.client.s = cm_stream_connect(w.loop, "no such name.invalid", port, NULL, &stream_limits, &ops, &w.client, NULL);
    await(&w, &w.client.closed);
    assert_non_null(strstr(w.client.err.text, "look up \"no such name.invalid\""));
    w.client.s = cm_stream_close(w.client.s, 0);
    w.client.s = cm_stream_connect(w.loop, "localhost", port, NULL, &stream_limits, &ops, &w.client, NULL);
    world_close(&w); /* with a look-up under way */
}

static void connecting_has_a_deadline(void **state)
{
    struct world w;
    struct cm_stream_limits brief = {.queue_max = QUEUE_MAX, .handshake_ms = 100};
    (void)state;

    world_open(&w, NULL, NULL);
    await_ready(&w);
    unsigned port = full_port(&w);
    w.client.s = cm_stream_close(w.client.s, 0);
    w.client.closed = false;
    w.client.s = cm_stream_connect(w.loop, "127.0.0.1", port, NULL, &brief, &ops, &w.client, NULL);
    await(&w, &w.client.closed);
    assert_non_null(strstr(w.client.err.text, "timed out"));
    world_close(&w);
}

/* In a process of its own, whose descriptors from 3 on are free to take. */
static void inherit_in_child(const char *host, int type, const char *pid, const char *count, int expect)
{
    pid_t child = fork();

    if (child == 0) {
        struct cm_listen_inherited in = {0};
        struct cm_address a;
        unsigned port = 0;
        char own[16];
        struct cm_err err;
        cm_listen_address(host, &a, &err);
        int fd = type == SOCK_STREAM ? cm_listen(&a, 0, &port, &err) : socket(AF_INET, type, 0);
        if (fd < 0)
            _exit(99);
        dup2(fd, 3);
        snprintf(own, sizeof own, "%d", (int)getpid());
        setenv("LISTEN_PID", pid ? pid : own, 1);
        setenv("LISTEN_FDS", count, 1);
        int rc = cm_listen_inherit(&in, &err);
        bool gone = !getenv("LISTEN_PID") && !getenv("LISTEN_FDS");
        if (rc < 0)
            _exit(gone && rc == CM_ERR_CONFIG ? 90 : 91);
        if (in.count == 0)
            _exit(gone && in.loopback ? 80 : 81);
        bool kept = fcntl(3, F_GETFD) == FD_CLOEXEC && (fcntl(3, F_GETFL) & O_NONBLOCK);
        _exit(!gone || !kept || in.fds[0] != 3 || in.ports[0] != port ? 71 : in.loopback ? 70 : 72);
    }
    int status = 0;
    assert_true(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), expect);
}

static void takes_a_supervisors_sockets(void **state)
{
    (void)state;
    inherit_in_child("127.0.0.1", SOCK_STREAM, NULL, "1", 70);
    inherit_in_child("::1", SOCK_STREAM, NULL, "1", 70);
    inherit_in_child("0.0.0.0", SOCK_STREAM, NULL, "1", 72); /* others can reach it */
    inherit_in_child("127.0.0.1", SOCK_STREAM, "1", "1", 80); /* meant for another process */
    inherit_in_child("127.0.0.1", SOCK_STREAM, NULL, "0", 80);
    inherit_in_child("127.0.0.1", SOCK_STREAM, NULL, "5", 90);
    inherit_in_child("127.0.0.1", SOCK_DGRAM, NULL, "1", 90);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_a_supervisors_sockets),
        cmocka_unit_test(ping_pong),
        cmocka_unit_test(queue_has_a_maximum),
        cmocka_unit_test(close_lingers),
        cmocka_unit_test(close_at_once_tells_the_peer),
        cmocka_unit_test(may_be_closed_in_a_callback),
        cmocka_unit_test(few_linger),
        cmocka_unit_test(nothing_listens),
        cmocka_unit_test(names_are_looked_up),
        cmocka_unit_test(connecting_has_a_deadline),
    };
    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
