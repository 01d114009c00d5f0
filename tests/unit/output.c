/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's output: what is put in comes out whole and in order, in frames that a gateway accepts. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/sync.h"
#include "roles/output.h"

enum { ID = 7, CHUNK = 32 << 10 };

static int ours, theirs;

static int set_up(void **state)
{
    int pair[2];
    (void)state;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        return -1;
    ours = pair[0];
    theirs = pair[1];
    cm_output_begin(ours, ID);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    close(ours);
    close(theirs);
    return 0;
}

/* The next frame as the gateway reads it. Returns its bytes, which are put to `to`, and the stream. */
static size_t next_frame(char *to, int *ret_stream)
{
    static uint8_t payload[CM_IPC_OUTPUT_MAX];
    struct cm_ipc_header h;
    struct cm_ipc_fields f;
    size_t len;

    assert_int_equal(cm_ipc_read_header(theirs, CM_IPC_WORKER, CM_IPC_GATEWAY, &h, NULL), 1);
    assert_int_equal(h.type, CM_MSG_OUTPUT);
    assert_int_equal(h.id, ID);
    assert_int_equal(cm_ipc_read_payload(theirs, payload, h.len, NULL), 0);
    assert_int_equal(cm_ipc_fields_get(payload, h.len, &f, NULL), 0);
    const char *data = cm_ipc_get_bytes(&f, CM_FIELD_DATA, &len);
    memcpy(to, data, len);
    *ret_stream = (int)cm_ipc_get_uint(&f, CM_FIELD_STREAM, 0);
    return len;
}

static void assert_frame(int stream, const char *text)
{
    char data[CM_IPC_OUTPUT_MAX];
    int got;

    size_t len = next_frame(data, &got);
    assert_int_equal(got, stream);
    assert_int_equal(len, strlen(text));
    assert_memory_equal(data, text, len);
}

static void assert_silence(void)
{
    char byte;
    assert_int_equal(recv(theirs, &byte, 1, MSG_DONTWAIT), -1);
}

static bool emit(int stream, const char *text)
{
    return cm_output_emit(stream, text, strlen(text));
}

static void gathers_what_follows_closely(void **state)
{
    (void)state;
    assert_true(emit(1, "at once")); /* nothing was sent for long */
    assert_false(cm_output_pending());
    assert_frame(1, "at once");
    assert_true(emit(1, "a"));
    assert_true(emit(1, ""));
    assert_true(emit(1, "b"));
    assert_true(emit(2, "c"));
    assert_true(emit(1, "d"));
    assert_true(cm_output_pending());
    assert_silence();
    assert_int_equal(cm_output_flush(NULL), 0);
    assert_false(cm_output_pending());
    assert_frame(1, "ab");
    assert_frame(2, "c");
    assert_frame(1, "d");
    assert_int_equal(cm_output_flush(NULL), 0); /* nothing is sent twice */
    assert_silence();
}

static void pushes_what_waits(void **state)
{
    (void)state;
    assert_true(emit(1, "a"));
    assert_true(emit(1, "b"));
    cm_output_push();
    assert_false(cm_output_pending());
    assert_frame(1, "a");
    assert_frame(1, "b");
    cm_output_push();
    assert_silence();
}

static void sends_when_the_last_is_old(void **state)
{
    (void)state;
    assert_true(emit(1, "a"));
    assert_true(emit(1, "b"));
    usleep(6000);
    assert_true(emit(1, "c"));
    assert_false(cm_output_pending());
    assert_frame(1, "a");
    assert_frame(1, "bc");
}

static void refuses_what_does_not_fit(void **state)
{
    static char chunk[CHUNK], got[CM_IPC_OUTPUT_MAX];
    size_t total = 0;
    int accepted = 0, stream;
    (void)state;

    assert_true(emit(1, "x"));
    assert_frame(1, "x");
    while (cm_output_emit(1, memset(chunk, 'a' + accepted, sizeof chunk), sizeof chunk))
        accepted++;
    assert_int_equal(accepted, 3); /* of four that the buffer would hold without heads */
    assert_false(cm_output_emit(1, NULL, SIZE_MAX / 2));
    assert_true(emit(2, "small things still fit"));
    assert_int_equal(cm_output_flush(NULL), 0);
    while (total < (size_t)accepted * CHUNK) {
        size_t n = next_frame(got, &stream);
        assert_int_equal(stream, 1);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(got[i], 'a' + (int)((total + i) / CHUNK));
        total += n;
    }
    assert_frame(2, "small things still fit");
    assert_silence();
}

/* Fills the socket, so that the next frame leaves in parts. */
static size_t clog_socket(void)
{
    static char zeros[4096];
    size_t total = 0;
    ssize_t n;

    while ((n = send(ours, zeros, sizeof zeros, MSG_DONTWAIT)) > 0)
        total += (size_t)n;
    while ((n = send(ours, zeros, 1, MSG_DONTWAIT)) > 0)
        total += (size_t)n;
    return total;
}

static void unclog(size_t len)
{
    char scrap[4096];

    while (len)
        len -= (size_t)read(theirs, scrap, len < sizeof scrap ? len : sizeof scrap);
}

static void goes_on_after_a_partial_send(void **state)
{
    static char chunk[CHUNK], got[CM_IPC_OUTPUT_MAX];
    int small = 4096, stream, status;
    (void)state;

    assert_int_equal(setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    memset(chunk, 'q', sizeof chunk);
    assert_true(cm_output_emit(1, chunk, sizeof chunk)); /* more than the socket takes */
    assert_true(cm_output_pending());
    assert_true(emit(1, "tail")); /* must not grow a frame whose length has left already */
    pid_t child = fork();
    if (child == 0)
        _exit(cm_output_flush(NULL) ? 1 : 0);
    size_t len = next_frame(got, &stream);
    assert_int_equal(len, sizeof chunk);
    assert_memory_equal(got, chunk, len);
    assert_frame(1, "tail");
    assert_silence();
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void never_blocks_in_emit(void **state)
{
    (void)state;
    size_t clogged = clog_socket();
    assert_true(emit(1, "a")); /* old enough to be sent, but there is no room */
    assert_true(cm_output_pending());
    assert_true(emit(1, "b"));
    unclog(clogged);
    assert_int_equal(cm_output_flush(NULL), 0);
    assert_frame(1, "ab");
}

static void begins_anew(void **state)
{
    char data[64];
    struct cm_ipc_header h;
    (void)state;

    assert_true(emit(1, "sent"));
    assert_true(emit(1, "of an execution that is over"));
    cm_output_begin(ours, ID + 1);
    assert_false(cm_output_pending());
    assert_true(emit(1, "new"));
    assert_frame(1, "sent");
    assert_int_equal(cm_ipc_read_header(theirs, CM_IPC_WORKER, CM_IPC_GATEWAY, &h, NULL), 1);
    assert_int_equal(h.id, ID + 1);
    assert_int_equal(read(theirs, data, sizeof data), h.len);
}

static void says_that_the_gateway_is_gone(void **state)
{
    struct cm_err err = {0};
    (void)state;

    assert_true(emit(1, "a"));
    assert_true(emit(1, "b"));
    close(theirs);
    assert_true(cm_output_flush(&err) < 0);
    theirs = dup(ours);
}

/* All that can be read now, appended to what came before. */
static size_t drain(uint8_t *to, size_t got, size_t size)
{
    ssize_t n;
    while ((n = recv(theirs, to + got, size - got, MSG_DONTWAIT)) > 0)
        got += (size_t)n;
    return got;
}

static void ends_a_frame_for_another(void **state)
{
    static uint8_t bytes[2 * CHUNK];
    static char chunk[CHUNK];
    struct cm_ipc_header h;
    int small = 4096, status;
    size_t got = 0;
    (void)state;

    assert_true(cm_output_end_frame()); /* nothing was ever sent */
    assert_int_equal(setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    assert_true(cm_output_emit(1, chunk, sizeof chunk)); /* more than the socket takes */
    assert_true(emit(2, "behind it"));
    pid_t child = fork();
    if (child == 0)
        _exit(cm_output_end_frame() ? 0 : 1);
    assert_int_equal(read(theirs, bytes, CM_IPC_HEADER_SIZE), CM_IPC_HEADER_SIZE);
    assert_int_equal(cm_ipc_header_get(bytes, CM_IPC_WORKER, CM_IPC_GATEWAY, &h, NULL), 0);
    assert_true(h.len > CHUNK && h.len < sizeof bytes);
    assert_int_equal(cm_ipc_read_payload(theirs, bytes, h.len, NULL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    got = drain(bytes, got, sizeof bytes);
    assert_int_equal(got, 0); /* the frame, and no byte of the next */
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(gathers_what_follows_closely),
        TEST(sends_when_the_last_is_old),
        TEST(refuses_what_does_not_fit),
        TEST(goes_on_after_a_partial_send),
        TEST(never_blocks_in_emit),
        TEST(begins_anew),
        TEST(pushes_what_waits),
        TEST(ends_a_frame_for_another),
        TEST(says_that_the_gateway_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
