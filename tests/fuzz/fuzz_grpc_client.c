/* SPDX-License-Identifier: Apache-2.0 */
/* A server that answers our gRPC client with anything. Each call ends once; one that was cancelled is not heard of again.
 * Input: options, then pieces, each behind its length; by default SETTINGS stand in front. */
#include "fuzz.h"

#include <sys/socket.h>

#include "base/clock.h"
#include "grpc/client.h"
#include "net/stream.h"
#include "turn.h"

#define CALLS 4

static struct cm_loop *loop;
static struct cm_grpc_client *client;
static int theirs; /* the server's end of the newest connection, -1 for none */

static struct call {
    struct cm_grpc_request *request; /* NULL when it has ended */
    unsigned messages;
} calls[CALLS];

struct cm_stream *__wrap_cm_stream_connect(struct cm_loop *on, const char *host, unsigned port, struct cm_tls *tls,
                                           const struct cm_stream_limits *limits, const struct cm_stream_ops *ops,
                                           void *arg, struct cm_err *err);
struct cm_stream *__wrap_cm_stream_connect(struct cm_loop *on, const char *host, unsigned port, struct cm_tls *tls,
                                           const struct cm_stream_limits *limits, const struct cm_stream_ops *ops,
                                           void *arg, struct cm_err *err)
{
    int fds[2];

    CHECK(strcmp(host, "server") == 0 && port == 1 && !tls);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    if (theirs >= 0)
        close(theirs);
    theirs = fds[1];
    return cm_stream_accept(on, fds[0], NULL, limits, ops, arg, err);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    CHECK((loop = cm_loop_new(NULL)));
    return 0;
}

static void on_message(void *arg, const uint8_t *message, size_t len)
{
    struct call *c = arg;

    CHECK(c->request && len <= 3000);
    free(fuzz_copy(message, len));
    if (len > 0 && message[0] == 'c') { /* cancelled from inside */
        cm_grpc_request_cancel(c->request);
        c->request = NULL;
    }
}

static void on_done(void *arg, enum cm_grpc_status status, const char *text)
{
    struct call *c = arg;

    CHECK(c->request && status >= CM_GRPC_OK && status <= CM_GRPC_UNAUTHENTICATED);
    free(fuzz_copy(text, strlen(text) + 1));
    c->request = NULL;
}

static void begin(struct call *c, uint8_t detail)
{
    static const struct cm_grpc_request_ops ops[] = {{on_message, on_done, false}, {on_message, on_done, true}};
    static const struct cm_grpc_metadata metadata = {"x-a", "b"};
    static const char body[4 * 256];

    if (!c->request)
        c->request = cm_grpc_client_call(client, "/m", &metadata, detail & 1, body, detail * 4u,
                                         cm_clock_ns() + 60 * CM_NS_PER_S, &ops[detail >> 1 & 1], c, NULL);
}

static void cancel(struct call *c)
{
    if (c->request)
        cm_grpc_request_cancel(c->request);
    c->request = NULL;
}

static void play(struct fuzz_in *in)
{
    char bytes[65536];
    size_t len;

    while (in->at < in->end) {
        uint8_t step = fuzz_byte(in);
        if (step >= 0xF8) {
            begin(&calls[step & 3], fuzz_byte(in));
        } else if (step >= 0xF4) {
            cancel(&calls[step & 3]);
        } else if (step == 0xF3) {
            cm_grpc_client_set_tls(client, NULL);
        } else {
            const uint8_t *piece = fuzz_bytes(in, step, &len);
            if (theirs >= 0)
                (void)!send(theirs, piece, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        fuzz_turns(loop, 3);
        while (theirs >= 0 && recv(theirs, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
            ;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cm_grpc_client_options with = {.message_max = 3000, .queue_max = 2000, .calls_max = 3};
    static const char hello[] = "\0\0\0\4\0\0\0\0\0";
    struct fuzz_in in = {data, data + size};
    uint8_t options = fuzz_byte(&in);

    theirs = -1;
    memset(calls, 0, sizeof calls);
    int lowest = fuzz_lowest_fd();
    CHECK((client = cm_grpc_client_new(loop, "server:1", NULL, &with, NULL)));
    begin(&calls[0], 10);
    begin(&calls[1], 2);
    fuzz_turns(loop, 3);
    CHECK(theirs >= 0);
    if (!(options & 1)) {
        CHECK(send(theirs, hello, sizeof hello - 1, MSG_NOSIGNAL) == sizeof hello - 1);
        fuzz_turns(loop, 3);
        CHECK(cm_grpc_client_connected(client));
    }
    play(&in);
    if ((options & 2) && theirs >= 0) {
        theirs = close(theirs) - 1;
        fuzz_turns(loop, 3);
        CHECK(!cm_grpc_client_connected(client));
    }
    client = cm_grpc_client_free(client);
    for (size_t i = 0; i < CALLS; i++)
        CHECK(!calls[i].request);
    if (theirs >= 0)
        close(theirs);
    cm_stream_end_lingering(loop);
    fuzz_turns(loop, 1);
    CHECK(fuzz_lowest_fd() == lowest);
    return 0;
}
