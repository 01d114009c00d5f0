/* SPDX-License-Identifier: Apache-2.0 */
/* A gRPC client of src/grpc for tests. Options are in the environment, the target is the argument. Lines on stdin:
 *
 *   call ID METHOD TIMEOUT_MS WAIT HEX [KEY=VALUE]...   METHOD as in /test.Echo/METHOD; WAIT: wait, or fast; HEX or -
 *   cancel ID
 *   state                                               -> "state connected" or "state not"
 *   rounds N METHOD BYTES                               one call after the other -> "rounds P50 P99" in microseconds
 *
 * Lines on stdout: "ID message HEX", "ID done STATUS TEXT", "ID refused TEXT".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "ev/loop.h"
#include "grpc/client.h"
#include "hex.h"
#include "net/stream.h"

#define IDS       4096
#define LINE_SIZE (1 << 20)
#define PAIRS     8

struct ask {
    unsigned id;
    struct cm_grpc_request *request;
};

static struct cm_loop *loop;
static struct cm_grpc_client *client;
static struct ask asks[IDS];
static char input[LINE_SIZE];
static size_t input_len;
static struct {
    unsigned want, done;
    char path[100], *payload;
    size_t len;
    uint64_t began, *took;
} rounds;

static void on_message(void *arg, const uint8_t *message, size_t len)
{
    const struct ask *a = arg;

    printf("%u message ", a->id);
    for (size_t i = 0; i < len; i++)
        printf("%02x", message[i]);
    printf("\n");
}

static void on_done(void *arg, enum cm_grpc_status status, const char *text)
{
    struct ask *a = arg;

    a->request = NULL;
    printf("%u done %d %s\n", a->id, (int)status, text);
    fflush(stdout);
}

static const struct cm_grpc_request_ops fast = {on_message, on_done, true}, patient = {on_message, on_done, false};

static void call(char *words)
{
    struct cm_grpc_metadata pairs[PAIRS];
    size_t count = 0;
    char path[100], *save, *word = strtok_r(words, " ", &save);
    struct ask *a = &asks[strtoul(word, NULL, 10) % IDS];
    struct cm_err err;

    a->id = (unsigned)(a - asks);
    word = strtok_r(NULL, " ", &save);
    snprintf(path, sizeof path, "/test.Echo/%s", word);
    uint64_t deadline = cm_clock_ns() + strtoul(strtok_r(NULL, " ", &save), NULL, 10) * CM_NS_PER_MS;
    bool waits = strcmp(strtok_r(NULL, " ", &save), "wait") == 0;
    char *payload = strtok_r(NULL, " ", &save);
    size_t len = unhex(payload);
    while (count < PAIRS && (word = strtok_r(NULL, " ", &save))) {
        char *equals = strchr(word, '=');
        *equals = '\0';
        pairs[count++] = (struct cm_grpc_metadata){word, equals + 1};
    }
    a->request =
        cm_grpc_client_call(client, path, pairs, count, payload, len, deadline, waits ? &patient : &fast, a, &err);
    if (!a->request) {
        printf("%u refused %s\n", a->id, err.text);
        fflush(stdout);
    }
}

static void next_round(void);

static void on_round(void *arg, enum cm_grpc_status status, const char *text)
{
    (void)arg;
    if (status != CM_GRPC_OK) {
        printf("rounds failed: %d %s\n", (int)status, text);
        fflush(stdout);
        return;
    }
    rounds.took[rounds.done++] = cm_clock_ns() - rounds.began;
    next_round();
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void next_round(void)
{
    static const struct cm_grpc_request_ops ops = {NULL, on_round, false};

    if (rounds.done == rounds.want) {
        qsort(rounds.took, rounds.want, sizeof *rounds.took, compare);
        size_t middle = rounds.want / 2, late = rounds.want * 99ul / 100;
        printf("rounds %.1f %.1f\n", (double)rounds.took[middle] / 1000, (double)rounds.took[late] / 1000);
        fflush(stdout);
        free(rounds.took);
        free(rounds.payload);
        return;
    }
    rounds.began = cm_clock_ns();
    (void)cm_grpc_client_call(client, rounds.path, NULL, 0, rounds.payload, rounds.len, rounds.began + 10 * CM_NS_PER_S,
                              &ops, NULL, NULL);
}

static void begin_rounds(const char *words)
{
    char method[50] = "";

    if (sscanf(words, "%u %49s %zu", &rounds.want, method, &rounds.len) != 3 || rounds.want == 0)
        abort();
    snprintf(rounds.path, sizeof rounds.path, "/test.Echo/%s", method);
    rounds.done = 0;
    rounds.took = calloc(rounds.want, sizeof *rounds.took);
    rounds.payload = calloc(1, rounds.len + 1);
    if (!rounds.took || !rounds.payload)
        abort();
    next_round();
}

static void command(char *line)
{
    if (strncmp(line, "call ", 5) == 0) {
        call(line + 5);
    } else if (strncmp(line, "cancel ", 7) == 0) {
        struct ask *a = &asks[strtoul(line + 7, NULL, 10) % IDS];
        if (a->request)
            cm_grpc_request_cancel(a->request);
        a->request = NULL;
    } else if (strncmp(line, "rounds ", 7) == 0) {
        begin_rounds(line + 7);
    } else {
        printf("state %s\n", cm_grpc_client_connected(client) ? "connected" : "not");
        fflush(stdout);
    }
}

static void on_input(void *arg, int events)
{
    char *end;
    ssize_t n = read(0, input + input_len, sizeof input - 1 - input_len);

    (void)arg, (void)events;
    if (n <= 0) {
        cm_loop_stop(loop);
        return;
    }
    input[input_len += (size_t)n] = '\0';
    while ((end = strchr(input, '\n'))) {
        *end = '\0';
        command(input);
        input_len -= (size_t)(end + 1 - input);
        memmove(input, end + 1, input_len + 1);
    }
}

static unsigned option(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);

    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
    const struct cm_grpc_client_options options = {
        .message_max = option("MESSAGE_MAX", 8 << 20),
        .queue_max = option("QUEUE_MAX", 8 << 20),
        .calls_max = option("CALLS_MAX", 1000),
        .keepalive_ms = option("KEEPALIVE_MS", 0),
        .keepalive_timeout_ms = option("KEEPALIVE_TIMEOUT_MS", 1000),
        .idle_ms = option("IDLE_MS", 0),
        .user_agent = "codemode-test",
    };
    struct cm_err err = {0};

    if (argc != 2)
        return 2;
    loop = cm_loop_new(&err);
    client = loop ? cm_grpc_client_new(loop, argv[1], NULL, &options, &err) : NULL;
    if (!client) {
        printf("refused %s\n", err.text);
        return 1;
    }
    struct cm_watch *watch = cm_watch_open(loop, 0, CM_EV_READ, on_input, NULL, &err);
    cm_loop_run(loop);
    cm_watch_close(watch);
    cm_grpc_client_free(client);
    cm_stream_end_lingering(loop);
    cm_loop_free(loop);
    return 0;
}
