/* SPDX-License-Identifier: Apache-2.0 */
/* Framing by itself; then server and client on one loop, for what an owner may do in its callbacks. What other makes and
 * bad peers do is in tests/e2e/test_grpc_peers.py and test_http2.py. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "ev/loop.h"
#include "grpc/client.h"
#include "grpc/framing.h"
#include "grpc/server.h"
#include "net/stream.h"

/* Framing */

static void timeouts(void **state)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {{"0n", 0},           {"99999999n", 99999999}, {"1u", 1000},
                {"250m", 250000000}, {"7S", 7000000000},      {"2M", 120000000000}};
    static const char *const bad[] = {"", "n", "1", "1s", "1x", "123456789n", "-1n", "1 n", "1nn", "+1n", "0x1n"};
    static const struct {
        uint64_t ns;
        const char *text;
    } formats[] = {{1, "1n"},
                   {99999999, "99999999n"},
                   {100000000, "100000u"},
                   {100000001, "100001u"},
                   {30000000000, "30000000u"},
                   {99999998001, "99999999u"},
                   {99999999001, "100000m"},
                   {86400000000000, "86400000m"},
                   {UINT64_MAX, "5124096H"}};
    uint64_t ns;
    char text[16];
    (void)state;

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(cm_grpc_timeout_parse(good[i].text, &ns));
        assert_int_equal(ns, good[i].ns);
    }
    assert_true(cm_grpc_timeout_parse("99999999H", &ns));
    assert_true(ns > (uint64_t)1 << 61);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(cm_grpc_timeout_parse(bad[i], &ns));
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        cm_grpc_timeout_format(formats[i].ns, text);
        assert_string_equal(text, formats[i].text);
        assert_true(cm_grpc_timeout_parse(text, &ns));
        assert_true(ns >= (formats[i].ns < UINT64_MAX / 4 ? formats[i].ns : 0));
    }
}

static void texts_are_percent_encoded(void **state)
{
    struct cm_buf there, back;
    char longer[3000];
    (void)state;

    cm_buf_init(&there, 8192);
    cm_buf_init(&back, 8192);
    assert_int_equal(cm_grpc_percent_encode(&there, "a b%\n\xc3\xa9~\x7f"), 0);
    assert_string_equal(cm_buf_data(&there), "a b%25%0A%C3%A9~%7F");
    assert_int_equal(cm_grpc_percent_decode(&back, cm_buf_data(&there), there.len), 0);
    assert_string_equal(cm_buf_data(&back), "a b%\n\xc3\xa9~\x7f");
    cm_buf_clear(&back);
    assert_int_equal(cm_grpc_percent_decode(&back, "%zz%4%e9%", 9), 0);
    assert_string_equal(cm_buf_data(&back), "%zz%4\xef\xbf\xbd%");
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    memcpy(longer + CM_GRPC_TEXT_MAX - 1, "\xc3\xa9", 2); /* the cut would go through it */
    cm_buf_clear(&there);
    assert_int_equal(cm_grpc_percent_encode(&there, longer), 0);
    assert_int_equal(there.len, CM_GRPC_TEXT_MAX - 1);
    cm_buf_done(&there);
    cm_buf_done(&back);
}

static void content_types(void **state)
{
    static const char *const good[] = {"application/grpc", "application/grpc+proto", "application/grpc;a=b",
                                       "application/grpc+proto;a"};
    static const char *const bad[] = {
        "",          "application/grp",  "application/grpc-web", "application/grpc+json", "application/grpc+protobuf",
        "text/html", "application/grpcx"};
    (void)state;

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(cm_grpc_content_type(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(cm_grpc_content_type(bad[i], strlen(bad[i])));
}

static void messages_come_in_any_pieces(void **state)
{
    static const char *const texts[] = {"", "a", "hello", ""};
    struct cm_buf all;
    char why[CM_ERR_TEXT_MAX];
    (void)state;

    cm_buf_init(&all, 1000);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(cm_grpc_put_message(&all, texts[i], strlen(texts[i])), 0);
    for (size_t piece = 1; piece <= all.len; piece++) {
        struct cm_grpc_reader r;
        size_t seen = 0;
        cm_grpc_reader_init(&r, 5);
        for (size_t at = 0; at < all.len; at += piece) {
            const uint8_t *data = (const uint8_t *)cm_buf_data(&all) + at;
            size_t len = all.len - at < piece ? all.len - at : piece;
            while (len > 0) {
                bool whole;
                assert_int_equal(cm_grpc_reader_feed(&r, &data, &len, &whole, why), CM_GRPC_OK);
                if (!whole)
                    continue;
                assert_string_equal(cm_buf_data(&r.body), texts[seen++]);
                cm_grpc_reader_next(&r);
            }
        }
        assert_int_equal(seen, 4);
        assert_true(cm_grpc_reader_between(&r));
        cm_grpc_reader_done(&r);
    }
    cm_buf_done(&all);
}

static void codes_have_meanings(void **state)
{
    (void)state;
    assert_int_equal(cm_grpc_status_of_http(404), CM_GRPC_UNIMPLEMENTED);
    assert_int_equal(cm_grpc_status_of_http(502), CM_GRPC_UNAVAILABLE);
    assert_int_equal(cm_grpc_status_of_http(418), CM_GRPC_UNKNOWN);
    assert_int_equal(cm_grpc_status_of_h2(NGHTTP2_REFUSED_STREAM), CM_GRPC_UNAVAILABLE);
    assert_int_equal(cm_grpc_status_of_h2(NGHTTP2_CANCEL), CM_GRPC_CANCELLED);
    assert_int_equal(cm_grpc_status_of_h2(999), CM_GRPC_INTERNAL);
    assert_string_equal(cm_grpc_status_name(CM_GRPC_DATA_LOSS), "DATA_LOSS");
}

/* Server and client */

struct world {
    struct cm_loop *loop;
    struct cm_grpc_server *server;
    struct cm_grpc_client *client;
    struct cm_watch *listener;
    struct cm_timer *bound;
    bool running;
    int fd;
    struct cm_grpc_call *held; /* the last call of /t/Hold */
    struct cm_grpc_call *mate; /* one that ends when another one is cancelled */
    unsigned held_count, cancelled;
    unsigned left, writable; /* of /t/Flow */
};

static struct world *w;

static void run(void)
{
    w->running = true;
    cm_loop_run(w->loop);
    w->running = false;
}

/* What comes from freeing something stops nothing. */
static void stop(void)
{
    if (w->running)
        cm_loop_stop(w->loop);
}

static void unary(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    (void)arg;
    assert_true(strncmp(cm_grpc_call_peer(call), "127.0.0.1:", 10) == 0);
    assert_true(cm_grpc_call_deadline(call) > cm_clock_ns());
    assert_int_equal(cm_grpc_call_send(call, message, len, NULL), 0);
    cm_grpc_call_finish(call, CM_GRPC_OK, NULL);
}

static void hold(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    (void)message, (void)len;
    w->held = call;
    w->held_count++;
    assert_null(cm_grpc_call_user(call));
    cm_grpc_call_set_user(call, arg);
}

static void two(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    (void)arg;
    cm_grpc_call_send(call, message, len, NULL);
    cm_grpc_call_send(call, message, len, NULL);
    cm_grpc_call_finish(call, CM_GRPC_ABORTED, "both");
}

/* Sends until it is told to wait. */
static void pour(struct cm_grpc_call *call)
{
    static const char block[10000];
    int rc = 0;

    while (w->left > 0 && rc == 0) {
        rc = cm_grpc_call_send(call, block, sizeof block, NULL);
        assert_true(rc >= 0);
        w->left--;
    }
    if (rc == 0)
        cm_grpc_call_finish(call, CM_GRPC_OK, NULL);
}

static void flow(void *arg, struct cm_grpc_call *call, const uint8_t *message, size_t len)
{
    (void)arg, (void)message, (void)len;
    w->left = 1000;
    pour(call);
    assert_true(w->left > 0);
}

static void on_writable(void *arg, struct cm_grpc_call *call)
{
    (void)arg;
    w->writable++;
    pour(call);
}

static void on_cancelled(void *arg, struct cm_grpc_call *call)
{
    assert_ptr_equal(arg, w);
    if (call == w->held)
        assert_ptr_equal(cm_grpc_call_user(call), w);
    w->held = NULL;
    w->cancelled++;
    if (w->mate && w->mate != call)
        cm_grpc_call_finish(w->mate, CM_GRPC_ABORTED, "the other one has gone");
    w->mate = NULL;
    stop();
}

static const struct cm_grpc_method methods[] = {{"/t/Unary", NULL, unary, on_cancelled, NULL},
                                                {"/t/Hold", NULL, hold, on_cancelled, NULL},
                                                {"/t/Two", NULL, two, on_cancelled, NULL},
                                                {"/t/Flow", NULL, flow, on_cancelled, on_writable}};

static void on_accept(void *arg, int events)
{
    int fd = accept(w->fd, NULL, NULL);

    (void)arg, (void)events;
    assert_int_equal(cm_grpc_server_adopt_fd(w->server, fd, NULL), 0);
}

static void on_bound(void *arg)
{
    (void)arg;
    fail_msg("nothing has happened for ten seconds");
}

static int set_up(void **state)
{
    static const struct cm_grpc_server_limits limits = {.message_max = 65536,
                                                        .metadata_max = 4096,
                                                        .unread_max = 200000,
                                                        .streams_max = 10,
                                                        .connections_max = 10,
                                                        .idle_ms = 20000,
                                                        .resets_max = 100};
    static const struct cm_grpc_client_options options = {
        .message_max = 65536, .queue_max = 200000, .calls_max = 20, .user_agent = "unit"};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    char target[40];

    *state = w = calloc(1, sizeof *w);
    w->loop = cm_loop_new(NULL);
    w->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (w->fd < 0 || bind(w->fd, (struct sockaddr *)&at, size) < 0 || listen(w->fd, 5) < 0 ||
        getsockname(w->fd, (struct sockaddr *)&at, &size) < 0)
        return -1;
    snprintf(target, sizeof target, "localhost:%u", ntohs(at.sin_port));
    w->listener = cm_watch_open(w->loop, w->fd, CM_EV_READ, on_accept, NULL, NULL);
    w->server = cm_grpc_server_new(w->loop, &limits, methods, 4, w, NULL);
    w->client = cm_grpc_client_new(w->loop, target, NULL, &options, NULL);
    w->bound = cm_timer_open(w->loop, on_bound, NULL, NULL);
    cm_timer_start(w->bound, 10000, 0);
    return w->server && w->client && w->bound ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    cm_grpc_client_free(w->client);
    cm_grpc_server_free(w->server);
    cm_timer_close(w->bound);
    cm_watch_close(w->listener);
    cm_stream_end_lingering(w->loop);
    cm_loop_free(w->loop);
    close(w->fd);
    free(w);
    return 0;
}

struct seen {
    struct cm_grpc_request *request;
    unsigned messages, done;
    size_t bytes;
    enum cm_grpc_status status;
    char text[CM_ERR_TEXT_MAX];
    bool cancels; /* in its first message */
    unsigned again; /* calls to make in `done` */
};

static void begin(struct seen *s, const char *method, unsigned timeout_ms);

static void on_message(void *arg, const uint8_t *message, size_t len)
{
    struct seen *s = arg;

    (void)message;
    s->messages++;
    s->bytes += len;
    if (s->cancels) {
        cm_grpc_request_cancel(s->request);
        stop();
    }
}

static void on_done(void *arg, enum cm_grpc_status status, const char *text)
{
    struct seen *s = arg;

    s->done++;
    s->status = status;
    snprintf(s->text, sizeof s->text, "%s", text);
    if (s->again > 0) {
        s->again--;
        begin(s, "/t/Unary", 5000);
    } else {
        stop();
    }
}

static void begin(struct seen *s, const char *method, unsigned timeout_ms)
{
    static const struct cm_grpc_request_ops ops = {on_message, on_done, true};
    struct cm_err err = {0};

    s->request = cm_grpc_client_call(w->client, method, NULL, 0, "hello", 5, cm_clock_ns() + timeout_ms * CM_NS_PER_MS,
                                     &ops, s, &err);
    if (!s->request)
        snprintf(s->text, sizeof s->text, "%s", err.text);
}

static void calls_from_done(void **state)
{
    struct seen s = {.again = 99};
    (void)state;

    begin(&s, "/t/Unary", 5000);
    assert_int_equal(s.done, 0); /* never from inside */
    run();
    assert_int_equal(s.done, 100);
    assert_int_equal(s.messages, 100);
    assert_int_equal(s.status, CM_GRPC_OK);
    assert_true(cm_grpc_client_connected(w->client));
    assert_int_equal(cm_grpc_server_connections(w->server), 1);
}

static void cancels_in_a_message(void **state)
{
    struct seen s = {.cancels = true}, after = {0};
    (void)state;

    begin(&s, "/t/Two", 5000);
    run();
    begin(&after, "/t/Two", 5000);
    run();
    assert_int_equal(s.messages, 1);
    assert_int_equal(s.done, 0);
    assert_int_equal(after.messages, 2);
    assert_int_equal(after.status, CM_GRPC_ABORTED);
    assert_string_equal(after.text, "both");
}

static void deadlines_end_both_sides(void **state)
{
    struct seen s = {0};
    (void)state;

    begin(&s, "/t/Hold", 60);
    while (s.done == 0 || w->cancelled == 0)
        run();
    assert_int_equal(s.status, CM_GRPC_DEADLINE_EXCEEDED);
    assert_int_equal(w->cancelled, 1);
}

static void cancel_reaches_the_server(void **state)
{
    struct seen held = {0}, unary_call = {0};
    (void)state;

    begin(&held, "/t/Hold", 5000);
    begin(&unary_call, "/t/Unary", 5000);
    run();
    assert_int_equal(unary_call.done, 1);
    assert_int_equal(w->held_count, 1);
    cm_grpc_request_cancel(held.request);
    run();
    assert_int_equal(w->cancelled, 1);
    assert_int_equal(held.done, 0);
}

/* Before anything could be sent. */
static void cancels_while_it_waits(void **state)
{
    struct seen s = {0}, other = {0};
    (void)state;

    begin(&s, "/t/Hold", 5000);
    cm_grpc_request_cancel(s.request);
    begin(&other, "/t/Unary", 5000);
    run();
    assert_int_equal(other.status, CM_GRPC_OK);
    assert_int_equal(w->held_count, 0);
}

static void an_answer_waits_for_its_reader(void **state)
{
    struct seen s = {0};
    (void)state;

    begin(&s, "/t/Flow", 5000);
    run();
    assert_int_equal(s.status, CM_GRPC_OK);
    assert_int_equal(s.messages, 1000);
    assert_int_equal(s.bytes, 10000000);
    assert_true(w->writable > 0);
}

static void calls_have_a_maximum(void **state)
{
    struct seen s[21] = {0};
    (void)state;

    for (size_t i = 0; i < 21; i++)
        begin(&s[i], "/t/Unary", 5000);
    for (size_t i = 0; i < 20; i++) /* ten at once, as the server wants */
        assert_non_null(s[i].request);
    assert_null(s[20].request);
    assert_non_null(strstr(s[20].text, "20 calls"));
    for (size_t done = 0; done < 20;) {
        run();
        done = 0;
        for (size_t i = 0; i < 20; i++)
            done += s[i].done;
    }
    for (size_t i = 0; i < 20; i++)
        assert_int_equal(s[i].status, CM_GRPC_OK);
}

static void freeing_ends_calls(void **state)
{
    struct seen s = {0}, probe = {0};
    (void)state;

    begin(&s, "/t/Hold", 5000);
    begin(&probe, "/t/Unary", 5000);
    run();
    w->server = cm_grpc_server_free(w->server);
    assert_int_equal(w->cancelled, 1);
    run();
    assert_int_equal(s.status, CM_GRPC_UNAVAILABLE);
    s.done = 0;
    begin(&s, "/t/Hold", 5000);
    w->client = cm_grpc_client_free(w->client);
    assert_int_equal(s.done, 1);
    assert_int_equal(s.status, CM_GRPC_CANCELLED);
}

static void on_turn(void *arg)
{
    (void)arg;
    stop();
}

/* The connection is being freed while one call's end ends the next one: nothing may be left to be done for it. */
static void one_end_may_be_two(void **state)
{
    struct seen s[2] = {{0}}, probe = {0};
    struct cm_task turn = {0};
    (void)state;

    begin(&s[0], "/t/Hold", 5000);
    begin(&s[1], "/t/Hold", 5000);
    begin(&probe, "/t/Unary", 5000);
    run();
    assert_int_equal(w->held_count, 2);
    w->mate = w->held;
    w->client = cm_grpc_client_free(w->client);
    while (w->cancelled == 0)
        run();
    assert_int_equal(w->cancelled, 1);
    assert_int_equal(cm_grpc_server_connections(w->server), 0);
    cm_task_post(w->loop, &turn, on_turn, NULL);
    run();
}

/* Answers of calls that were running come in spite of it. */
static void drain_lets_calls_end(void **state)
{
    struct seen held = {0}, probe = {0}, late = {0};
    (void)state;

    begin(&held, "/t/Hold", 5000);
    begin(&probe, "/t/Unary", 5000);
    run();
    cm_grpc_server_drain(w->server);
    cm_watch_set(w->listener, 0);
    while (cm_grpc_client_connected(w->client)) {
        struct cm_task turn = {0};
        cm_task_post(w->loop, &turn, (void (*)(void *))cm_loop_stop, w->loop);
        run();
    }
    cm_grpc_call_send(w->held, "x", 1, NULL);
    cm_grpc_call_finish(w->held, CM_GRPC_OK, NULL);
    run();
    assert_int_equal(held.status, CM_GRPC_OK);
    assert_int_equal(held.messages, 1);
    begin(&late, "/t/Unary", 200); /* nobody takes the new connection */
    run();
    assert_int_equal(late.status, CM_GRPC_DEADLINE_EXCEEDED);
    assert_int_equal(cm_grpc_server_connections(w->server), 0);
}

int main(void)
{
#define ON_LOOP(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timeouts),
        cmocka_unit_test(texts_are_percent_encoded),
        cmocka_unit_test(content_types),
        cmocka_unit_test(messages_come_in_any_pieces),
        cmocka_unit_test(codes_have_meanings),
        ON_LOOP(calls_from_done),
        ON_LOOP(cancels_in_a_message),
        ON_LOOP(deadlines_end_both_sides),
        ON_LOOP(cancel_reaches_the_server),
        ON_LOOP(cancels_while_it_waits),
        ON_LOOP(an_answer_waits_for_its_reader),
        ON_LOOP(calls_have_a_maximum),
        ON_LOOP(freeing_ends_calls),
        ON_LOOP(one_end_may_be_two),
        ON_LOOP(drain_lets_calls_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
