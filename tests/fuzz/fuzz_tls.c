/* SPDX-License-Identifier: Apache-2.0 */
/* What a client sends to a port with TLS, in pieces. It never becomes a connection, for that takes a key exchange that
 * the input cannot know; the stream always ends, with a reason or without, and exactly once. */
#include "fuzz.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/certs.h"
#include "net/door_internal.h"
#include "net/stream.h"
#include "net/tls.h"
#include "turn.h"

static struct cm_loop *loop;
static struct cm_tls *tls;
static unsigned closed;

static void on_ready(void *arg)
{
    (void)arg;
    CHECK(!"a handshake out of nothing");
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
    (void)arg;
    (void)data;
    (void)len;
    CHECK(!"bytes before the handshake");
}

static void on_closed(void *arg, const struct cm_err *err)
{
    (void)arg;
    (void)err;
    closed++;
}

static void remove_files(const char *folder)
{
    static const char *const names[] = {"ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"};
    char path[128];

    for (int i = 0; i < 6; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char folder[] = "/tmp/cm-fuzz-tls-XXXXXX", cert[64], key[64], ca[64];

    (void)argc;
    (void)argv;
    CHECK(mkdtemp(folder));
    struct cm_certs_options o = {.folder = folder, .ecdsa = true, .days = 1};
    CHECK(cm_certs_generate(&o, NULL) == 0);
    snprintf(cert, sizeof cert, "%s/server.crt", folder);
    snprintf(key, sizeof key, "%s/server.key", folder);
    snprintf(ca, sizeof ca, "%s/ca.crt", folder);
    struct cm_tls_config config = {.prefix = "tls",
                                   .server = true,
                                   .mode = CM_TLS_CUSTOM,
                                   .cert_file = cert,
                                   .key_file = key,
                                   .ca_file = ca,
                                   .require_client_auth = true};
    tls = cm_tls_new(&config, NULL);
    loop = cm_loop_new(NULL);
    CHECK(tls && loop);
    remove_files(folder);
    return 0;
}

/* The door's first look, with every beginning of the input. */
static void check_first_look(const uint8_t *data, size_t size)
{
    for (int secure = 0; secure < 2; secure++) {
        enum cm_door_speech before = CM_DOOR_MORE;
        for (size_t n = 0; n <= size && n <= 32; n++) {
            enum cm_door_speech now = cm_door_listen_to((const char *)data, n, secure);
            CHECK(before == CM_DOOR_MORE || now == before); /* once decided, more bytes change nothing */
            CHECK(n > 0 || now == CM_DOOR_MORE);
            CHECK(n < CM_DOOR_PREFACE_LEN || now != CM_DOOR_MORE);
            CHECK(secure ? now != CM_DOOR_HTTP1 && now != CM_DOOR_HTTP2 : now != CM_DOOR_TLS && now != CM_DOOR_WRONG);
            before = now;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cm_stream_ops ops = {.ready = on_ready, .data = on_data, .closed = on_closed};
    struct cm_stream_limits limits = {.queue_max = 65536, .handshake_ms = 60000};
    struct fuzz_in in = {data, data + size};
    int pair[2];

    if (size < 1 || size > 4096)
        return 0;
    check_first_look(data, size);
    closed = 0;
    int lowest = fuzz_lowest_fd();
    unsigned piece = 1 + fuzz_byte(&in) * 5u;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    struct cm_stream *s = cm_stream_accept(loop, pair[0], tls, &limits, &ops, NULL, NULL);
    CHECK(s);
    while (in.at < in.end && !closed) {
        size_t len;
        const uint8_t *at = fuzz_bytes(&in, piece, &len);
        CHECK(send(pair[1], at, len, MSG_NOSIGNAL) == (ssize_t)len || closed);
        fuzz_turns(loop, 2);
    }
    close(pair[1]);
    for (int i = 0; i < 10 && !closed; i++)
        fuzz_turns(loop, 1);
    CHECK(closed == 1);
    cm_stream_close(s, piece % 2 ? 1000 : 0);
    cm_stream_end_lingering(loop);
    fuzz_turns(loop, 2);
    CHECK(closed == 1 && fuzz_lowest_fd() == lowest);
    return 0;
}
