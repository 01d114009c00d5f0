/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to a server that does what servers do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

#include "egress_world.h"

#define expect_text(x, words) assert_non_null(strstr((x)->text, words))

static void sends_what_it_is_told(void **state)
{
    static const struct {
        const char *method, *body, *line;
    } rows[] = {
        {"GET", NULL, "GET /echo HTTP/1.1\r\n"},        {"POST", "{\"a\": 1}", "POST /echo HTTP/1.1\r\n"},
        {"POST", NULL, "POST /echo HTTP/1.1\r\n"},      {"PUT", "x", "PUT /echo HTTP/1.1\r\n"},
        {"PUT", NULL, "PUT /echo HTTP/1.1\r\n"},        {"DELETE", NULL, "DELETE /echo HTTP/1.1\r\n"},
        {"DELETE", "why", "DELETE /echo HTTP/1.1\r\n"}, {"PATCH", "", "PATCH /echo HTTP/1.1\r\n"},
    };
    static const char *const headers[] = {"Authorization: Bearer secret", "X-B: 2", NULL};
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cm_fetch_request req = request(&w, rows[i].method, "/echo");
        struct fetch x = {.header_name = "content-type"};
        char expected[60];
        bool sized = rows[i].body || rows[i].method[0] == 'P';
        req.headers = headers;
        req.body = rows[i].body;
        req.body_len = rows[i].body ? strlen(rows[i].body) : 0;
        run(&w, &x, &req);
        assert_int_equal(x.end.why, CM_FETCH_OK);
        assert_int_equal(x.end.status, 200);
        assert_string_equal(x.text, "");
        assert_true(x.end.retry_after_s < 0);
        assert_string_equal(x.header, "text/plain");
        assert_int_equal(x.end.received, x.data.len);
        const char *got = cm_buf_data(&x.data);
        assert_int_equal(strncmp(got, rows[i].line, strlen(rows[i].line)), 0);
        assert_non_null(strstr(got, "\r\nAuthorization: Bearer secret\r\nX-B: 2\r\n"));
        assert_null(strcasestr(got, "\r\nExpect:"));
        assert_null(strcasestr(got, "\r\nContent-Type:"));
        snprintf(expected, sizeof expected, "\r\nContent-Length: %zu\r\n", req.body_len);
        assert_true((strstr(got, expected) != NULL) == sized);
        assert_string_equal(strstr(got, "\r\n\r\n") + 4, rows[i].body ? rows[i].body : "");
        fetch_end(&x);
    }
    assert_int_equal(w.server.connections, 1);
    world_close(&w);
}

static void refuses_what_cannot_be(void **state)
{
    static const char *const urls[] = {"",        "ftp://127.0.0.1/", "file:///etc/passwd", "127.0.0.1:80",
                                       "http://", "http://a b/",      "gopher://a/",        NULL};
    static const char *const methods[] = {NULL, "", "get", "GE T", "GET\r\nX: 1"};
    static const char *const bad_header[] = {"X: 1\r\nY: 2", NULL};
    struct cm_fetch *f = NULL;
    struct fetch x = {0};
    struct cm_err err;
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        struct cm_fetch_request req = {.method = "GET", .url = urls[i], .body_fd = -1};
        assert_int_equal(cm_fetch_start(w.egress, &req, &fetch_ops, &x, &f, &err), CM_ERR_BAD_FIELD);
    }
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        struct cm_fetch_request req = {.method = methods[i], .url = "http://127.0.0.1:1/", .body_fd = -1};
        assert_int_equal(cm_fetch_start(w.egress, &req, &fetch_ops, &x, &f, &err), CM_ERR_BAD_FIELD);
    }
    struct cm_fetch_request req = {.method = "GET", .url = "http://127.0.0.1:1/", .headers = bad_header, .body_fd = -1};
    assert_int_equal(cm_fetch_start(w.egress, &req, &fetch_ops, &x, &f, &err), CM_ERR_BAD_FIELD);
    assert_null(f);
    cm_fetch_cancel(NULL);
    world_close(&w);
}

static void sends_large_bodies(void **state)
{
    enum { SIZE = 20 << 20, OFFSET = 12345 };
    char *body = malloc(SIZE), expected[64];
    int fd = memfd_create("body", MFD_CLOEXEC);
    unsigned long sum = 0;
    struct world w;

    (void)state;
    for (size_t i = 0; i < SIZE; i++) {
        body[i] = (char)(i * 7 + i / 1000);
        sum += (unsigned char)body[i];
    }
    snprintf(expected, sizeof expected, "%d %lu", (int)SIZE, sum);
    assert_int_equal(lseek(fd, 3, SEEK_SET), 3); /* its own offset says nothing */
    assert_int_equal(pwrite(fd, body, SIZE, OFFSET), SIZE);
    world_open(&w, 4, 4);
    struct cm_fetch_request req = request(&w, "POST", "/sum");
    struct fetch x = {0}, y = {0};
    req.body = body;
    req.body_len = SIZE;
    run(&w, &x, &req);
    assert_string_equal(cm_buf_data(&x.data), expected);

    req = request(&w, "PUT", "/sum");
    req.body_fd = fd;
    req.body_offset = OFFSET;
    req.body_fd_len = SIZE;
    run(&w, &y, &req);
    assert_string_equal(cm_buf_data(&y.data), expected);
    fetch_end(&x);
    fetch_end(&y);

    struct fetch z = {0};
    req.body_fd_len = SIZE + 1; /* more than there is */
    run(&w, &z, &req);
    assert_int_equal(z.end.why, CM_FETCH_CUT);
    expect_text(&z, "file of the body ended early");
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 3);
    fetch_end(&z);
    world_close(&w);
    close(fd);
    free(body);
}

static void reads_answers(void **state)
{
    static const struct {
        const char *path, *header, *value, *body;
        int status;
    } rows[] = {
        {"/chunks", "Transfer-Encoding", "chunked", "onetwo", 200},
        {"/early", "x-a", "1", "hi", 201},
        {"/early", "Link", "none", "hi", 201},
        {"/empty", "Content-Length", "none", "", 204},
        {"/moved", "Location", "/echo", "elsewhere", 302}, /* not followed */
        {"/other", "Content-Length", "2", "no", 404},
        {"/echo", "X-None", "none", NULL, 200},
    };
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fetch x = {.header_name = rows[i].header};
        run_path(&w, &x, rows[i].path);
        assert_int_equal(x.end.why, CM_FETCH_OK);
        assert_int_equal(x.end.status, rows[i].status);
        assert_int_equal(x.heads, 1);
        assert_int_equal(x.head_status, rows[i].status);
        assert_string_equal(x.header, rows[i].value);
        if (rows[i].body)
            assert_string_equal(cm_buf_data(&x.data), rows[i].body);
        fetch_end(&x);
    }
    assert_int_equal(w.server.connections, 1);
    world_close(&w);
}

static void reads_when_to_come_again(void **state)
{
    static const struct {
        const char *path;
        double low, high;
    } rows[] = {
        {"/busy", 7, 7}, {"/busy_odd", -1, -1}, {"/busy_past", 0, 0}, {"/busy_date", 86400, 1e10}, {"/empty", -1, -1}};
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fetch x = {0};
        run_path(&w, &x, rows[i].path);
        assert_int_equal(x.end.why, CM_FETCH_OK);
        assert_true(x.end.retry_after_s >= rows[i].low && x.end.retry_after_s <= rows[i].high);
        fetch_end(&x);
    }
    world_close(&w);
}

static void knows_broken_answers(void **state)
{
    static const char *const paths[] = {"/cut", "/cut_chunk", "/cut_head", "/hang_up", "/foreign", "/endless_head"};
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct fetch x = {0};
        run_path(&w, &x, paths[i]);
        assert_int_equal(x.end.why, CM_FETCH_CUT);
        assert_int_equal(x.end.status, strncmp(paths[i], "/cut", 4) == 0 || i == 5 ? 200 : 0);
        assert_int_equal(strncmp(x.text, "127.0.0.1:", 10), 0);
        assert_true(strlen(x.text) > 20);
        if (i == 0)
            assert_string_equal(cm_buf_data(&x.data), "ten bytes.");
        fetch_end(&x);
    }
    world_close(&w);
}

static void bounds_answers(void **state)
{
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    for (unsigned max = 5; max <= 7; max++) {
        struct fetch x = {0};
        struct cm_fetch_request req = request(&w, "GET", "/chunks");
        req.answer_max = max;
        run(&w, &x, &req);
        assert_int_equal(x.end.why, max < 6 ? CM_FETCH_TOO_LARGE : CM_FETCH_OK);
        assert_true(x.data.len <= max && x.data.len == x.end.received);
        assert_int_equal(x.end.status, 200);
        if (max < 6)
            expect_text(&x, "more than 5 bytes");
        fetch_end(&x);
    }
    struct fetch huge = {0}, length = {0}, none = {0};
    run_path(&w, &huge, "/huge");
    assert_int_equal(huge.end.why, CM_FETCH_TOO_LARGE);
    assert_true(huge.data.len <= 1u << 20);
    struct cm_fetch_request req = request(&w, "GET", "/long"); /* says 1,000,000 */
    req.answer_max = 999999;
    run(&w, &length, &req);
    assert_int_equal(length.end.why, CM_FETCH_TOO_LARGE);
    assert_int_equal(length.data.len, 0);
    req = request(&w, "GET", "/empty");
    req.answer_max = 0;
    run(&w, &none, &req);
    assert_int_equal(none.end.why, CM_FETCH_OK);
    fetch_end(&huge);
    fetch_end(&length);
    fetch_end(&none);
    world_close(&w);
}

static void gives_up_in_time(void **state)
{
    static const struct {
        const char *path, *words;
        double idle, whole;
        int status;
    } rows[] = {
        {"/silent", "no answer in time", 0.05, 0, 0},
        {"/silent", "no answer in time", 0, 0.05, 0},
        {"/stuck", "did not end in time", 0.1, 100, 200},
        {"/stuck", "did not end in time", 100, 0.1, 200},
    };
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fetch x = {0};
        struct cm_fetch_request req = request(&w, "GET", rows[i].path);
        req.idle_timeout_s = rows[i].idle;
        req.timeout_s = rows[i].whole;
        run(&w, &x, &req);
        assert_int_equal(x.end.why, CM_FETCH_TIMEOUT);
        assert_int_equal(x.end.status, rows[i].status);
        expect_text(&x, rows[i].words);
        fetch_end(&x);
    }
    world_close(&w);
}

static void says_when_there_is_no_connection(void **state)
{
    struct cm_fetch_request req = {.method = "GET", .url = "http://unknown.test/x", .body_fd = -1};
    struct fetch x = {0}, y = {0}, z = {0};
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    run(&w, &x, &req);
    assert_int_equal(x.end.why, CM_FETCH_CONNECT);
    expect_text(&x, "unknown.test: ");
    req.url = "http://user:secret@127.0.0.1:1/?key=secret";
    run(&w, &y, &req);
    assert_int_equal(y.end.why, CM_FETCH_CONNECT);
    assert_int_equal(y.end.status, 0);
    expect_text(&y, "127.0.0.1:1: ");
    assert_null(strstr(y.text, "secret"));

    char url[100];
    snprintf(url, sizeof url, "https://127.0.0.1:%u/empty", w.server.port); /* no TLS there */
    req.url = url;
    req.timeout_s = 10;
    run(&w, &z, &req);
    assert_int_equal(z.end.why, CM_FETCH_TLS);
    fetch_end(&x);
    fetch_end(&y);
    fetch_end(&z);
    world_close(&w);
}

/* Loopback is never reached through a proxy; other hosts are. */
static void uses_proxies_of_the_environment(void **state)
{
    struct cm_fetch_request req = {.method = "GET", .body_fd = -1, .answer_max = 10000};
    struct fetch x = {0}, y = {0};
    struct world w;
    char proxy[60], url[60];

    (void)state;
    world_open(&w, 4, 4);
    snprintf(proxy, sizeof proxy, "http://127.0.0.1:%u", w.server.port);
    setenv("http_proxy", proxy, 1);
    req.url = "http://unknown.test/echo";
    run(&w, &x, &req);
    assert_int_equal(x.end.status, 404); /* our server's word, for a path that begins with http:// */
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    snprintf(url, sizeof url, "http://localhost:%u/echo", w.server.port);
    req.url = url;
    run(&w, &y, &req);
    assert_int_equal(y.end.status, 200);
    unsetenv("http_proxy");
    fetch_end(&x);
    fetch_end(&y);
    world_close(&w);
}

static void slow_look_ups_hold_nobody_up(void **state)
{
    struct cm_fetch_request slow = {
        .method = "GET", .url = "http://slow.test/", .body_fd = -1, .connect_timeout_s = 0.05};
    struct fetch x = {0}, y = {0}, z = {0}, other = {0};
    struct world w;

    (void)state;
    sem_init(&look_up_goes_on, 0, 0);
    world_open(&w, 4, 4);
    fetch_begin(&x, &w, &slow); /* ends for its connect timeout */
    slow.connect_timeout_s = 60;
    fetch_begin(&y, &w, &slow); /* is cancelled */
    fetch_begin(&z, &w, &slow); /* is there when the room ends */
    run_path(&w, &other, "/echo");
    await_ended(&w, 2);
    assert_int_equal(other.dones, 1);
    assert_int_equal(x.end.why, CM_FETCH_CONNECT);
    while (look_ups_waiting < 3)
        ;
    cm_fetch_cancel(y.f);
    struct fetch again = {0};
    run_path(&w, &again, "/echo");
    assert_int_equal(look_ups_waiting, 3); /* all that, and no look-up has ended */
    world_close(&w);
    assert_int_equal(y.dones + z.dones, 0);
    for (unsigned i = 0; i < 3; i++)
        sem_post(&look_up_goes_on);
    while (look_ups_waiting > 0)
        ;
    fetch_end(&x);
    fetch_end(&other);
    fetch_end(&again);
}

static void cancels_in_each_callback(void **state)
{
    static const enum when whens[] = {IN_HEAD, IN_DATA, IN_DONE};
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    for (size_t i = 0; i < 3; i++) {
        for (unsigned other = 0; other < 2; other++) {
            struct fetch victim = {0}, x = {.cancel_when = whens[i], .cancels = other ? &victim : NULL};
            struct fetch last = {0};
            if (other) {
                struct cm_fetch_request silent = request(&w, "POST", "/silent");
                silent.body = "x";
                silent.body_len = 1;
                fetch_begin(&victim, &w, &silent);
            }
            struct cm_fetch_request req = request(&w, "GET", "/chunks");
            fetch_begin(&x, &w, &req);
            await_ended(&w, w.ended + 1 + other);
            run_path(&w, &last, "/echo"); /* some turns later */
            bool itself = !other && whens[i] != IN_DONE;
            assert_int_equal(x.dones, !itself);
            assert_int_equal(x.heads, 1);
            if (itself)
                assert_int_equal(x.pieces, whens[i] == IN_DATA);
            assert_int_equal(victim.dones + victim.heads, 0);
            fetch_end(&x);
            fetch_end(&victim);
            fetch_end(&last);
        }
    }
    world_close(&w);
}

static void starts_in_each_callback(void **state)
{
    static const enum when whens[] = {IN_HEAD, IN_DATA, IN_DONE};
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    for (size_t i = 0; i < 3; i++) {
        struct fetch next = {0}, x = {.start_when = whens[i], .next = &next, .next_path = "/empty"};
        struct cm_fetch_request req = request(&w, "GET", "/busy");
        fetch_begin(&x, &w, &req);
        await_ended(&w, w.ended + 2);
        assert_int_equal(x.dones, 1);
        assert_int_equal(next.end.status, 204);
        fetch_end(&x);
        fetch_end(&next);
    }
    world_close(&w);
}

/* The caller's body may be gone from the moment of the cancel on. */
static void leaves_a_cancelled_body_alone(void **state)
{
    enum { SIZE = 8 << 20 };
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    for (unsigned turns = 0; turns < 4; turns++) {
        char *body = calloc(1, SIZE);
        struct cm_fetch_request req = request(&w, "POST", "/silent");
        req.body = body;
        req.body_len = SIZE;
        struct fetch x = {0};
        fetch_begin(&x, &w, &req);
        for (unsigned i = 0; i < turns; i++) { /* it is on its way when it is cancelled */
            struct fetch other = {0};
            run_path(&w, &other, "/echo");
            fetch_end(&other);
        }
        cm_fetch_cancel(x.f);
        cm_fetch_cancel(x.f);
        free(body);
        struct fetch other = {0};
        run_path(&w, &other, "/echo");
        fetch_end(&other);
        assert_int_equal(x.dones, 0);
        fetch_end(&x);
    }
    world_close(&w);
}

static void uses_connections_again(void **state)
{
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    for (unsigned i = 0; i < 50; i++) {
        struct fetch x = {0};
        run_path(&w, &x, i % 2 ? "/echo" : "/chunks");
        assert_int_equal(x.end.why, CM_FETCH_OK);
        fetch_end(&x);
    }
    assert_int_equal(w.server.connections, 1);
    world_close(&w);
}

static void survives_a_kept_connection_that_closed(void **state)
{
    struct fetch x = {0}, y = {0};
    struct world w;

    (void)state;
    world_open(&w, 4, 4);
    run_path(&w, &x, "/echo");
    pthread_mutex_lock(&w.server.lock);
    for (int fd = 0; fd < 1024; fd++)
        if (w.server.fds[fd])
            shutdown(fd, SHUT_RDWR);
    while (w.server.open > 0)
        pthread_cond_wait(&w.server.moved, &w.server.lock);
    pthread_mutex_unlock(&w.server.lock);
    struct cm_fetch_request req = request(&w, "POST", "/echo");
    req.body = "again";
    req.body_len = 5;
    run(&w, &y, &req);
    assert_int_equal(y.end.why, CM_FETCH_OK);
    assert_string_equal(strstr(cm_buf_data(&y.data), "\r\n\r\n") + 4, "again");
    assert_int_equal(w.server.connections, 2);
    fetch_end(&x);
    fetch_end(&y);
    world_close(&w);
}

enum { MANY = 200 };

static void begin_many(struct world *w, struct fetch *all)
{
    struct cm_fetch_request req = request(w, "GET", "/together");

    for (unsigned i = 0; i < MANY; i++)
        fetch_begin(&all[i], w, &req);
}

static void end_many(struct fetch *all)
{
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(all[i].end.why, CM_FETCH_OK);
        assert_string_equal(cm_buf_data(&all[i].data), "together");
        fetch_end(&all[i]);
        memset(&all[i], 0, sizeof all[i]);
    }
}

static void two_hundred_at_once(void **state)
{
    static struct fetch all[MANY];
    struct world w;

    (void)state;
    world_open(&w, MANY, MANY);
    w.server.together = MANY; /* none is answered before all are there */
    begin_many(&w, all);
    await_ended(&w, MANY);
    end_many(all);
    assert_int_equal(w.server.connections, MANY);
    begin_many(&w, all);
    await_ended(&w, 2 * MANY);
    end_many(all);
    assert_int_equal(w.server.connections, MANY); /* they were kept */
    world_close(&w);
}

static void waits_for_a_free_connection(void **state)
{
    static struct fetch all[MANY];
    struct world w;

    (void)state;
    world_open(&w, 7, 3);
    w.server.together = 7;
    begin_many(&w, all);
    cm_fetch_cancel(all[MANY - 1].f); /* in the queue */
    await_ended(&w, MANY - 1);
    assert_int_equal(all[MANY - 1].dones, 0);
    memset(&all[MANY - 1], 0, sizeof all[0]);
    run_path(&w, &all[MANY - 1], "/together");
    end_many(all);
    assert_int_equal(w.server.peak, 7);
    pthread_mutex_lock(&w.server.lock);
    while (w.server.open > 3) /* no more than that are kept */
        pthread_cond_wait(&w.server.moved, &w.server.lock);
    pthread_mutex_unlock(&w.server.lock);

    struct fetch held = {0}, late = {0};
    world_close(&w);
    world_open(&w, 1, 1);
    struct cm_fetch_request req = request(&w, "GET", "/silent");
    fetch_begin(&held, &w, &req);
    req = request(&w, "GET", "/echo");
    req.timeout_s = 0.05;
    run(&w, &late, &req);
    assert_int_equal(late.end.why, CM_FETCH_TIMEOUT);
    expect_text(&late, "no connection was free in time");
    cm_fetch_cancel(held.f);
    req.timeout_s = 10;
    struct fetch again = {0};
    run(&w, &again, &req);
    assert_int_equal(again.end.why, CM_FETCH_OK);
    fetch_end(&again);
    fetch_end(&late);
    world_close(&w);
}

static void goes_beside_the_limit(void **state)
{
    struct fetch held = {0}, waits = {0}, beside = {0};
    struct world w;

    (void)state;
    world_open(&w, 1, 1);
    struct cm_fetch_request req = request(&w, "GET", "/silent");
    fetch_begin(&held, &w, &req);
    req = request(&w, "GET", "/echo");
    fetch_begin(&waits, &w, &req);
    req.beside = true;
    run(&w, &beside, &req);
    assert_int_equal(beside.end.why, CM_FETCH_OK);
    assert_int_equal(waits.dones, 0);
    cm_fetch_cancel(held.f);
    await_ended(&w, 2);
    assert_int_equal(waits.end.why, CM_FETCH_OK);
    fetch_end(&beside);
    fetch_end(&waits);
    world_close(&w);
}

static void ends_with_requests_under_way(void **state)
{
    static const char *const paths[] = {"/silent", "/stuck", "/huge", "/echo"};
    struct fetch x[8] = {0}, other = {0};
    struct world w;

    (void)state;
    world_open(&w, 6, 4);
    for (unsigned i = 0; i < 8; i++) {
        struct cm_fetch_request req = request(&w, "GET", paths[i % 4]);
        req.answer_max = 32u << 20;
        req.timeout_s = 60;
        fetch_begin(&x[i], &w, &req);
    }
    run_path(&w, &other, "/echo");
    world_close(&w);
    assert_true(x[0].dones + x[1].dones == 0);
    for (unsigned i = 0; i < 8; i++)
        fetch_end(&x[i]);
    fetch_end(&other);
}

static void no_child_has_our_connections(void **state)
{
    struct world w;
    struct fetch x = {0};

    (void)state;
    world_open(&w, 4, 4);
    run_path(&w, &x, "/echo");
    unsigned seen = 0;
    for (int fd = 3; fd < 64; fd++) {
        struct sockaddr_in peer = {0};
        socklen_t len = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && peer.sin_family == AF_INET &&
            ntohs(peer.sin_port) == w.server.port) {
            seen++;
            assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        }
    }
    assert_int_equal(seen, 1);
    fetch_end(&x);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sends_what_it_is_told),
        cmocka_unit_test(refuses_what_cannot_be),
        cmocka_unit_test(sends_large_bodies),
        cmocka_unit_test(reads_answers),
        cmocka_unit_test(reads_when_to_come_again),
        cmocka_unit_test(knows_broken_answers),
        cmocka_unit_test(bounds_answers),
        cmocka_unit_test(gives_up_in_time),
        cmocka_unit_test(says_when_there_is_no_connection),
        cmocka_unit_test(uses_proxies_of_the_environment),
        cmocka_unit_test(slow_look_ups_hold_nobody_up),
        cmocka_unit_test(cancels_in_each_callback),
        cmocka_unit_test(starts_in_each_callback),
        cmocka_unit_test(leaves_a_cancelled_body_alone),
        cmocka_unit_test(uses_connections_again),
        cmocka_unit_test(survives_a_kept_connection_that_closed),
        cmocka_unit_test(two_hundred_at_once),
        cmocka_unit_test(waits_for_a_free_connection),
        cmocka_unit_test(goes_beside_the_limit),
        cmocka_unit_test(ends_with_requests_under_way),
        cmocka_unit_test(no_child_has_our_connections),
    };

    /* a proxy of this machine's is not for these tests */
    static const char *const variables[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
                                            "ALL_PROXY",  "no_proxy",    "NO_PROXY"};
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
        unsetenv(variables[i]);
    return cmocka_run_group_tests_name("egress", tests, NULL, NULL);
}
