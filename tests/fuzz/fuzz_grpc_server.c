/* SPDX-License-Identifier: Apache-2.0 */
/* A client of the gRPC server that sends anything. Whatever it is, each request that the owner was given has one end, the
 * owner hears of it when that is not his own, and nothing is left of the connection.
 * Input: options, then pieces, each behind its length; by default the preface and SETTINGS stand in front. */
#include "fuzz.h"

#include <sys/socket.h>

#include "grpc/server.h"
#include "net/stream.h"
#include "turn.h"

#define CALLS_MAX 64

static struct cm_loop *loop;
static struct cm_grpc_server *server;
static struct cm_grpc_call *held[CALLS_MAX];
static size_t held_count;

static void drop(const struct cm_grpc_call *call)
{
    for (size_t i = 0; i < held_count; i++)
        if (held[i] == call) {
            held[i] = held[--held_count];
            return;
        }
    CHECK(!"a call that was not there, or had ended");
}

static void echo(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    char *copy = fuzz_copy(message, len);

    (void)arg;
    CHECK(len <= 5000);
    cm_grpc_call_header(call, "x-answer", cm_grpc_call_metadata(call, "x-ask") ? "yes" : "no");
    if (cm_grpc_call_send(call, copy, len, NULL) < 0)
        cm_grpc_call_finish(call, CM_GRPC_RESOURCE_EXHAUSTED, copy[0] ? "full" : NULL);
    else
        cm_grpc_call_finish(call, CM_GRPC_OK, NULL);
    free(copy);
}

static void hold(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    (void)arg, (void)message, (void)len;
    CHECK(held_count < CALLS_MAX);
    held[held_count++] = call;
}

static void cancelled(void *arg, struct cm_grpc_call *call)
{
    (void)arg;
    drop(call);
}

static void writable(void *arg, struct cm_grpc_call *call)
{
    (void)arg, (void)call;
}

static enum cm_grpc_status admit(void *arg, struct cm_grpc_call *call, char *why)
{
    (void)arg;
    if (!cm_grpc_call_metadata(call, "refuse"))
        return CM_GRPC_OK;
    snprintf(why, 20, "refused \xc3\xa9");
    return CM_GRPC_PERMISSION_DENIED;
}

static const struct cm_grpc_method methods[] = {{"/e", admit, echo, cancelled, writable},
                                                {"/h", NULL, hold, cancelled, writable}};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    CHECK((loop = cm_loop_new(NULL)));
    return 0;
}

/* Answers the oldest call that is held. */
static void answer(uint8_t detail)
{
    if (held_count == 0)
        return;
    struct cm_grpc_call *call = held[0];
    if (detail & 1 && cm_grpc_call_send(call, "some answer", 11, NULL) == 1)
        return;
    if (detail & 2) {
        drop(call);
        cm_grpc_call_finish(call, detail >> 4, detail & 4 ? "100 % \xc3\xa9" : NULL);
    }
}

static void take_answers(int fd)
{
    char bytes[65536];

    while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
}

static void play(struct fuzz_in *in, int fd, bool reads)
{
    size_t len;

    while (in->at < in->end) {
        uint8_t step = fuzz_byte(in);
        if (step >= 0xF0) {
            answer(fuzz_byte(in));
        } else if (step == 0xEF) {
            cm_grpc_server_drain(server);
        } else {
            const uint8_t *piece = fuzz_bytes(in, step, &len);
            (void)!send(fd, piece, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        fuzz_turns(loop, 2);
        if (reads)
            take_answers(fd);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    static const struct cm_grpc_server_limits limits = {.message_max = 5000,
                                                        .metadata_max = 2000,
                                                        .unread_max = 8000,
                                                        .streams_max = 8,
                                                        .connections_max = 1,
                                                        .idle_ms = 60000,
                                                        .resets_max = 5};
    struct fuzz_in in = {data, data + size};
    uint8_t options = fuzz_byte(&in);
    int fds[2];

    int lowest = fuzz_lowest_fd();
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    CHECK((server = cm_grpc_server_new(loop, &limits, methods, 2, NULL, NULL)));
    CHECK(cm_grpc_server_adopt_fd(server, fds[0], NULL) == 0);
    if (!(options & 1))
        CHECK(send(fds[1], hello, sizeof hello - 1, MSG_NOSIGNAL) == sizeof hello - 1);
    play(&in, fds[1], !(options & 2));
    if (options & 4) {
        shutdown(fds[1], SHUT_WR);
        fuzz_turns(loop, 3);
        CHECK(cm_grpc_server_connections(server) == 0 && held_count == 0);
    }
    server = cm_grpc_server_free(server);
    CHECK(held_count == 0);
    close(fds[1]);
    cm_stream_end_lingering(loop);
    fuzz_turns(loop, 1);
    CHECK(fuzz_lowest_fd() == lowest);
    return 0;
}
