/* SPDX-License-Identifier: Apache-2.0 */
/* A gRPC server of src/grpc for tests: says its port on stdout and serves until its stdin closes.
 *
 *   /test.Echo/Unary    the request comes back
 *   /test.Echo/Later    the same, from a later turn of the loop
 *   /test.Echo/Stream   the first byte of the request is a number: so many messages, each the rest of the request
 *   /test.Echo/Big      the request is a number in decimal: one answer of so many bytes
 *   /test.Echo/Fail     the first byte is the status, the rest its text
 *   /test.Echo/Never    no answer
 *   /test.Echo/Guarded  let in with `authorization: Bearer secret` only; answers with the value of x-ask
 *   /test.Echo/Count    how often Never was cancelled, in decimal
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "ev/loop.h"
#include "grpc/server.h"
#include "net/stream.h"

struct later {
    struct cm_task task;
    struct cm_grpc_call *call;
    unsigned left; /* messages of a stream */
    size_t len;
    char data[];
};

static struct cm_loop *loop;
static struct cm_grpc_server *server;
static unsigned cancelled_calls;

static void finish_ok(struct cm_grpc_call *call, const void *data, size_t len)
{
    struct cm_err err;

    if (cm_grpc_call_send(call, data, len, &err) < 0)
        cm_grpc_call_finish(call, CM_GRPC_RESOURCE_EXHAUSTED, err.text);
    else
        cm_grpc_call_finish(call, CM_GRPC_OK, NULL);
}

static void unary(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    (void)arg;
    finish_ok(call, message, len);
}

static void drop(struct later *l)
{
    cm_task_cancel(loop, &l->task);
    free(l);
}

static void answer_later(void *arg)
{
    struct later *l = arg;

    finish_ok(l->call, l->data, l->len);
    drop(l);
}

static struct later *keep(struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    struct later *l = calloc(1, sizeof *l + len + 1);

    if (!l)
        abort();
    l->call = call;
    l->len = len;
    memcpy(l->data, message, len);
    cm_grpc_call_set_user(call, l);
    return l;
}

static void later(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    struct later *l = keep(call, message, len);

    (void)arg;
    cm_task_post(loop, &l->task, answer_later, l);
}

static void send_more(void *arg, struct cm_grpc_call *call)
{
    struct later *l = cm_grpc_call_user(call);

    (void)arg;
    while (l->left > 0) {
        l->left--;
        int rc = cm_grpc_call_send(call, l->data + 1, l->len - 1, NULL);
        if (rc == 0)
            continue;
        if (rc > 0)
            return;
        cm_grpc_call_finish(call, CM_GRPC_RESOURCE_EXHAUSTED, "too much");
        drop(l);
        return;
    }
    cm_grpc_call_finish(call, CM_GRPC_OK, NULL);
    drop(l);
}

static void stream(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    if (len == 0) {
        cm_grpc_call_finish(call, CM_GRPC_INVALID_ARGUMENT, "how many?");
        return;
    }
    keep(call, message, len)->left = message[0];
    send_more(arg, call);
}

static void big(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    char number[16] = "";

    (void)arg;
    memcpy(number, message, len < 15 ? len : 15);
    size_t size = strtoul(number, NULL, 10);
    char *data = calloc(1, size ? size : 1);
    if (!data)
        abort();
    finish_ok(call, data, size);
    free(data);
}

static void fail(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    struct later *l = keep(call, message, len);

    (void)arg;
    cm_grpc_call_finish(call, len > 0 ? l->data[0] : CM_GRPC_UNKNOWN, len > 1 ? l->data + 1 : NULL);
    drop(l);
}

static void never(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    (void)arg;
    keep(call, message, len);
}

static void guarded(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    const char *ask = cm_grpc_call_metadata(call, "x-ask");

    (void)arg, (void)message, (void)len;
    cm_grpc_call_header(call, "x-answer", ask ? ask : "nothing");
    finish_ok(call, ask ? ask : "", ask ? strlen(ask) : 0);
}

static void count(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    char text[16];

    (void)arg, (void)message, (void)len;
    finish_ok(call, text, (size_t)snprintf(text, sizeof text, "%u", cancelled_calls));
}

static enum cm_grpc_status check_key(void *arg, struct cm_grpc_call *call, char *why)
{
    const char *key = cm_grpc_call_metadata(call, "authorization");

    (void)arg;
    if (key && strcmp(key, "Bearer secret") == 0)
        return CM_GRPC_OK;
    snprintf(why, CM_ERR_TEXT_MAX, "no key");
    return CM_GRPC_UNAUTHENTICATED;
}

static void cancelled(void *arg, struct cm_grpc_call *call)
{
    (void)arg;
    cancelled_calls++;
    if (cm_grpc_call_user(call))
        drop(cm_grpc_call_user(call));
}

static const struct cm_grpc_method methods[] = {
    {"/test.Echo/Unary", NULL, unary, cancelled, NULL},
    {"/test.Echo/Later", NULL, later, cancelled, NULL},
    {"/test.Echo/Stream", NULL, stream, cancelled, send_more},
    {"/test.Echo/Big", NULL, big, cancelled, NULL},
    {"/test.Echo/Fail", NULL, fail, cancelled, NULL},
    {"/test.Echo/Never", NULL, never, cancelled, NULL},
    {"/test.Echo/Guarded", check_key, guarded, cancelled, NULL},
    {"/test.Echo/Count", NULL, count, cancelled, NULL},
};

static void on_accept(void *arg, int events)
{
    int fd = accept4(*(int *)arg, NULL, NULL, SOCK_CLOEXEC);

    (void)events;
    if (fd >= 0)
        (void)cm_grpc_server_adopt_fd(server, fd, NULL);
}

/* "drain" on stdin: GOAWAY. The end of stdin: the end. */
static void on_command(void *arg, int events)
{
    char text[64];
    ssize_t n = read(0, text, sizeof text);

    (void)arg, (void)events;
    if (n <= 0)
        cm_loop_stop(loop);
    else
        cm_grpc_server_drain(server);
}

static unsigned option(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);

    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

int main(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    const struct cm_grpc_server_limits limits = {
        .message_max = option("MESSAGE_MAX", 1 << 20),
        .metadata_max = option("METADATA_MAX", 8192),
        .requests_max = option("REQUESTS_MAX", 8 << 20),
        .unread_max = option("UNREAD_MAX", 4 << 20),
        .streams_max = option("STREAMS_MAX", 100),
        .connections_max = option("CONNECTIONS_MAX", 100),
        .idle_ms = option("IDLE_MS", 60000),
        .resets_max = option("RESETS_MAX", 100),
    };
    struct cm_err err;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    loop = cm_loop_new(&err);
    server = loop ? cm_grpc_server_new(loop, &limits, methods, sizeof methods / sizeof methods[0], NULL, &err) : NULL;
    if (!server || fd < 0 || bind(fd, (struct sockaddr *)&at, size) < 0 || listen(fd, 128) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &size) < 0)
        return 1;
    struct cm_watch *listener = cm_watch_open(loop, fd, CM_EV_READ, on_accept, &fd, &err);
    struct cm_watch *commands = cm_watch_open(loop, 0, CM_EV_READ, on_command, NULL, &err);
    printf("%u\n", ntohs(at.sin_port));
    fflush(stdout);
    cm_loop_run(loop);
    cm_watch_close(listener);
    cm_watch_close(commands);
    cm_grpc_server_free(server);
    cm_stream_end_lingering(loop);
    cm_fd_close(fd);
    cm_loop_free(loop);
    return 0;
}
