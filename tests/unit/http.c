/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server without the sidecar: routes of the test's own, a client on the other end of a pair of sockets, and one
 * thread, which runs the loop turn by turn until what is waited for is there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "ev/loop.h"
#include "http/internal.h"
#include "obs/metrics.h"

#define BACKLOG_MAX 65536
#define UPLOAD_MAX  (1u << 20)
#define WAIT_NS     (10 * CM_NS_PER_S)
#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static struct cm_loop *loop;
static struct cm_metrics *metrics;
static struct cm_http *http;
static struct cm_http_limits limits;
static struct cm_http_config config;

/* What the routes do */

static struct cm_request *held; /* that waits or streams */
static unsigned gone_count, admitted, handled;
static int admit_code, taken_fd = -1;
static uint64_t seen_len;
static bool seen_fd;

static void on_gone(void *arg)
{
    assert_ptr_equal(arg, &held);
    gone_count++;
    held = NULL;
}

static int admit(struct cm_request *rq, struct cm_err *err)
{
    admitted++;
    assert_ptr_equal(cm_request_app(rq), &http);
    return admit_code ? cm_err_set(err, admit_code, "%s", cm_request_variable(rq, 0)) : 0;
}

static void do_stream(struct cm_request *rq)
{
    held = rq;
    cm_request_set_header(rq, "X-Accel-Buffering", "no");
    cm_request_stream(rq, "text/event-stream", BACKLOG_MAX, on_gone, &held);
    assert_int_equal(cm_request_write(rq, "first\n", 6), 0);
}

static void do_wait(struct cm_request *rq)
{
    held = rq;
    cm_request_wait(rq, on_gone, &held);
}

static void do_echo(struct cm_request *rq)
{
    size_t len;
    char *body = cm_request_body(rq, &len), text[256];
    const char *query = cm_request_query(rq, "q"), *header = cm_request_header(rq, "X-Any");

    snprintf(text, sizeof text, "[\"%s\",\"%s\",\"%s\",%zu,\"%.20s\",\"%s\",\"%s\"]", cm_request_variable(rq, 0),
             cm_request_variable(rq, 1), cm_request_variable(rq, 7), len, body, query ? query : "none",
             header ? header : "none");
    cm_request_set_header(rq, "X-One", "1");
    cm_request_set_header(rq, "X-Two", "two\r\nX-Evil: 1");
    cm_request_answer(rq, 201, text);
    cm_request_answer(rq, 500, "{}"); /* the first one counts */
}

static void do_fail(struct cm_request *rq)
{
    struct cm_err err;

    cm_err_set(&err, CM_ERR_BAD_FIELD, "x: \"bad\"");
    cm_request_fail(rq, &err);
}

static void do_file(struct cm_request *rq)
{
    char text[UPLOAD_MAX / 4];
    int fd = cm_request_file(rq, &seen_len);

    handled++;
    seen_fd = fd >= 0;
    if (strcmp(cm_request_variable(rq, 0), "take") == 0)
        taken_fd = cm_request_take_file(rq, &seen_len);
    for (uint64_t at = 0; fd >= 0 && at < seen_len;) { /* all of it is x */
        ssize_t n = read(fd, text, sizeof text);
        assert_true(n > 0);
        assert_true(text[0] == 'x' && memcmp(text, text + 1, (size_t)n - 1) == 0);
        at += (uint64_t)n;
    }
    if (strcmp(cm_request_variable(rq, 0), "hold") == 0)
        do_wait(rq);
    else
        cm_request_answer(rq, 200, "{}");
}

static const struct cm_http_route routes[] = {
    {"POST", "/stream", do_stream, CM_BODY_OPTIONAL, CM_KEY_OPEN},
    {"GET", "/stream", do_stream, CM_BODY_NONE, CM_KEY_OPEN},
    {"GET", "/wait", do_wait, CM_BODY_NONE, CM_KEY_OPEN},
    {"POST", "/echo/{a}/b/{c}", do_echo, CM_BODY_OPTIONAL, CM_KEY_OPEN},
    {"POST", "/fail", do_fail, CM_BODY_OPTIONAL, CM_KEY_OPEN},
    {"PUT", "/file/{name}", do_file, CM_BODY_FILE, CM_KEY_OPEN},
    {"DELETE", "/file/{name}", do_fail, CM_BODY_NONE, CM_KEY_OPEN},
    {.method = NULL},
};

/* The client */

static int fd = -1;
static char heard[1 << 20];
static size_t heard_len;
static bool closed;

static int start(void **state)
{
    (void)state;
    loop = cm_loop_new(NULL);
    metrics = cm_metrics_new();
    limits = (struct cm_http_limits){.body_max = 4096,
                                     .upload_max = UPLOAD_MAX,
                                     .answers_max = 4 * BACKLOG_MAX,
                                     .connections_max = 10,
                                     .idle_timeout_s = 60,
                                     .head_timeout_s = 60,
                                     .body_timeout_s = 60,
                                     .allowed_origins = ""};
    config = (struct cm_http_config){
        .routes = routes, .limits = &limits, .metrics = metrics, .loopback = true, .app = &http, .admit = admit};
    held = NULL;
    gone_count = admitted = handled = 0;
    admit_code = 0;
    return cm_http_open(loop, &config, &http, NULL);
}

static void hang_up(void)
{
    if (fd >= 0)
        close(fd);
    fd = -1;
}

static int stop(void **state)
{
    (void)state;
    hang_up();
    http = cm_http_free(http);
    loop = cm_loop_free(loop);
    metrics = cm_metrics_free(metrics);
    return 0;
}

static void turn_is_over(void *arg)
{
    cm_loop_stop(arg);
}

static void turn(void)
{
    struct cm_task task = {0};

    cm_task_post(loop, &task, turn_is_over, loop);
    cm_loop_run(loop);
}

static int dial_more(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int pair[2], small = 4096;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    cm_http_adopt(http, pair[0], (struct sockaddr *)&address, sizeof address);
    return pair[1];
}

static void dial(void)
{
    hang_up();
    heard_len = 0;
    heard[0] = '\0';
    closed = false;
    fd = dial_more();
}

static void listen_once(void)
{
    ssize_t n = recv(fd, heard + heard_len, sizeof heard - 1 - heard_len, MSG_DONTWAIT);

    closed |= n == 0 || (n < 0 && errno == ECONNRESET);
    heard_len += n > 0 ? (size_t)n : 0;
    heard[heard_len] = '\0';
}

/* Runs the loop until the condition holds; the client reads where `reads`. */
#define UNTIL(condition, reads)                                                                                        \
    do {                                                                                                               \
        uint64_t late = cm_clock_ns() + WAIT_NS;                                                                       \
        while (!(condition)) {                                                                                         \
            assert_true(cm_clock_ns() < late);                                                                         \
            turn();                                                                                                    \
            if (reads)                                                                                                 \
                listen_once();                                                                                         \
        }                                                                                                              \
    } while (0)

static void hear(const char *text)
{
    UNTIL(strstr(heard, text), true);
}

static void say(const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        assert_true(n > 0 || errno == EAGAIN);
        text += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
        turn();
        listen_once();
    }
}

static void ask(const char *head)
{
    dial();
    say(head, strlen(head));
}

#define H          "Host: localhost\r\n"
#define GET_STREAM "GET /stream HTTP/1.1\r\n" H "\r\n"

/* Tests */

static void finds_routes(void **state)
{
    static const struct {
        const char *method, *path;
        int rc, which;
        const char *first, *allow;
    } list[] = {
        {"GET", "/stream", 0, 1, "", ""},
        {"HEAD", "/stream", 0, 1, "", ""},
        {"POST", "/echo/1/b/2", 0, 3, "1", ""},
        {"POST", "/echo//b/2", CM_ERR_NOT_FOUND, 0, "", ""},
        {"POST", "/echo/1/b/", CM_ERR_NOT_FOUND, 0, "", ""},
        {"POST", "/echo/1/b/2/", CM_ERR_NOT_FOUND, 0, "", ""},
        {"POST", "/echo/1/c/2", CM_ERR_NOT_FOUND, 0, "", ""},
        {"GET", "/file/x", CM_ERR_METHOD, 0, "", "PUT, DELETE"},
        {"PATCH", "/stream", CM_ERR_METHOD, 0, "", "POST, GET, HEAD"},
        {"PUT", "/file/..", 0, 5, "..", ""},
    };
    char variables[VARIABLES][VARIABLE_MAX], allow[64], path[VARIABLE_MAX + 50];
    const struct cm_http_route *route = NULL;

    (void)state;
    for (size_t i = 0; i < COUNT(list); i++) {
        assert_int_equal(cm_http_route(routes, list[i].method, list[i].path, &route, variables, allow, NULL),
                         list[i].rc);
        if (list[i].rc == 0)
            assert_ptr_equal(route, &routes[list[i].which]);
        if (list[i].rc == 0)
            assert_string_equal(variables[0], list[i].first);
        if (list[i].rc == CM_ERR_METHOD)
            assert_string_equal(allow, list[i].allow);
    }
    snprintf(path, sizeof path, "/file/%0*d", VARIABLE_MAX - 1, 0);
    assert_int_equal(cm_http_route(routes, "PUT", path, &route, variables, allow, NULL), 0);
    assert_int_equal(strlen(variables[0]), VARIABLE_MAX - 1);
    snprintf(path, sizeof path, "/file/%0*d", VARIABLE_MAX, 0);
    assert_int_equal(cm_http_route(routes, "PUT", path, &route, variables, allow, NULL), 0);
    assert_string_equal(variables[0], "");
}

static void lets_files_in_by_type(void **state)
{
    static const struct {
        const char *type;
        int program, page, own_page; /* a page without its origin, and one of this machine */
    } list[] = {
        {"text/plain; charset=utf-8", 0, CM_ERR_MEDIA_TYPE, 0},
        {"TEXT/PLAIN", 0, CM_ERR_MEDIA_TYPE, 0},
        {"text/plain; charset=\"latin-1\"", CM_ERR_MEDIA_TYPE, CM_ERR_MEDIA_TYPE, CM_ERR_MEDIA_TYPE},
        {"text/plain charset=utf-8", CM_ERR_MEDIA_TYPE, CM_ERR_MEDIA_TYPE, CM_ERR_MEDIA_TYPE},
        {"application/json; charset=latin-1", 0, 0, 0},
        {"application/octet-stream; charset=latin-1", 0, 0, 0},
        {"application/json", 0, 0, 0},
        {"application/octet-stream", 0, 0, 0},
        {"application/x-www-form-urlencoded", CM_ERR_MEDIA_TYPE, CM_ERR_MEDIA_TYPE, CM_ERR_MEDIA_TYPE},
        {"multipart/form-data; boundary=x", CM_ERR_MEDIA_TYPE, CM_ERR_MEDIA_TYPE, CM_ERR_MEDIA_TYPE},
        {"text/plain,application/json", CM_ERR_MEDIA_TYPE, CM_ERR_MEDIA_TYPE, CM_ERR_MEDIA_TYPE},
        {NULL, CM_ERR_MEDIA_TYPE, CM_ERR_MEDIA_TYPE, CM_ERR_MEDIA_TYPE},
    };
    const struct cm_http_route *file = &routes[5];

    (void)state;
    for (size_t i = 0; i < COUNT(list); i++) {
        struct headers hd = {.content_type = list[i].type, .content_length = "5"};
        assert_int_equal(cm_http_guard(http, file, &hd, NULL), list[i].program);
        hd.page = true;
        assert_int_equal(cm_http_guard(http, file, &hd, NULL), list[i].page);
        hd.origin = "http://localhost:3000";
        assert_int_equal(cm_http_guard(http, file, &hd, NULL), list[i].own_page);
        hd.origin = "https://evil.example";
        assert_int_equal(cm_http_guard(http, file, &hd, NULL), CM_ERR_FORBIDDEN);
        hd.origin = "null";
        assert_int_equal(cm_http_guard(http, file, &hd, NULL), CM_ERR_FORBIDDEN);
    }
}

static void hands_a_request_over(void **state)
{
    (void)state;
    ask("POST /echo/one/b/t%20wo?q=7 HTTP/1.1\r\n" H "X-Any: thing\r\nContent-Length: 4\r\n\r\nbody");
    hear("[\"one\",\"t%20wo\",\"\",4,\"body\",\"7\",\"thing\"]");
    assert_non_null(strstr(heard, "HTTP/1.1 201 "));
    assert_non_null(strstr(heard, "X-One: 1\r\n"));
    assert_null(strstr(heard, "X-Evil"));
    assert_int_equal(admitted, 1);
    admit_code = CM_ERR_NO_SESSION;
    ask("POST /echo/one/b/two HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n");
    hear("{\"detail\":\"one\",\"code\":\"unknown_session\",");
    assert_null(strstr(heard, "X-One"));
}

static int own_error(const struct cm_request *rq, const struct cm_err *err, struct cm_buf *to)
{
    char lead[64];

    snprintf(lead, sizeof lead, "\"path\":\"%s\",", cm_request_path(rq));
    return cm_http_put_error(to, err, lead);
}

static void says_errors_as_the_owner_wants(void **state)
{
    (void)state;
    ask("POST /fail HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n");
    hear("\r\n\r\n{\"detail\":\"x: \\\"bad\\\"\",\"code\":\"invalid_field\",");
    http->config.error_body = own_error;
    ask("POST /fail HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n");
    hear("\r\n\r\n{\"path\":\"/fail\",\"detail\":\"x: \\\"bad\\\"\",\"code\":\"invalid_field\",");
}

static void streams_piece_by_piece(void **state)
{
    (void)state;
    ask("POST /stream HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n");
    hear("\r\n6\r\nfirst\n\r\n");
    assert_non_null(strstr(heard, "HTTP/1.1 200 OK"));
    assert_non_null(strstr(heard, "Content-Type: text/event-stream\r\n"));
    assert_non_null(strstr(heard, "X-Accel-Buffering: no\r\n"));
    assert_null(strstr(heard, "Content-Length"));
    for (int i = 0; i < 100; i++) {
        char text[16], chunk[32];
        int n = snprintf(text, sizeof text, "<%d>", i);
        assert_int_equal(cm_request_write(held, text, (size_t)n), 0);
        snprintf(chunk, sizeof chunk, "%s\r\n", text);
        hear(chunk);
        assert_int_equal(cm_request_backlog(held), 0);
    }
    assert_null(strstr(heard, "\r\n0\r\n\r\n"));
    cm_request_end(held, false);
    hear("\r\n0\r\n\r\n");
    /* The connection goes on. */
    heard_len = 0;
    say(GET_STREAM, strlen(GET_STREAM));
    hear("first");
    cm_request_end(held, false);
    hear("\r\n0\r\n\r\n");
    assert_int_equal(gone_count, 0);
    assert_int_equal(http->unread, 0);
}

static void streams_to_what_is_no_stream_for_a_client(void **state)
{
    (void)state;
    ask("GET /stream HTTP/1.0\r\n" H "\r\n");
    hear("\r\n\r\nfirst\n");
    cm_request_write(held, "second", 6);
    cm_request_end(held, false);
    UNTIL(closed, true);
    assert_non_null(strstr(heard, "\r\n\r\nfirst\nsecond"));
    ask("HEAD /stream HTTP/1.1\r\n" H "\r\n");
    hear("\r\n\r\n");
    UNTIL(gone_count == 1, true); /* nobody will ever fetch it */
    assert_null(strstr(heard, "first"));
    assert_int_equal(http->unread, 0);
}

static void streams_after_a_wait(void **state)
{
    (void)state;
    ask("GET /wait HTTP/1.1\r\n" H "\r\n");
    UNTIL(held, true);
    assert_int_equal(heard_len, 0);
    cm_request_stream(held, "text/plain", BACKLOG_MAX, on_gone, &held);
    hear("text/plain");
    assert_int_equal(cm_request_write(held, "later", 5), 0);
    hear("\r\n5\r\nlater\r\n");
    hang_up();
    UNTIL(gone_count == 1, false);
    ask("GET /wait HTTP/1.1\r\n" H "\r\n");
    UNTIL(held, true);
    hang_up();
    UNTIL(gone_count == 2, false);
}

static void cuts_a_stream(void **state)
{
    (void)state;
    ask(GET_STREAM);
    hear("first");
    assert_int_equal(cm_request_write(held, "last words", 10), 0);
    cm_request_end(held, true);
    UNTIL(closed, true);
    assert_non_null(strstr(heard, "last words"));
    assert_null(strstr(heard, "\r\n0\r\n"));
    assert_int_equal(gone_count, 0);
}

/* Fills what the client does not read, until no more is taken. */
static size_t fill(void)
{
    static const char piece[1000] = "";
    size_t taken = 0;
    unsigned refused = 0;

    /* Between the pieces the server writes what the socket takes. */
    while (refused < 3) {
        size_t before = cm_request_backlog(held);
        int rc = cm_request_write(held, piece, sizeof piece);
        assert_true(rc == 0 || rc == CM_ERR_TOO_LARGE);
        assert_int_equal(cm_request_backlog(held), before + (rc == 0 ? sizeof piece : 0));
        assert_true(cm_request_backlog(held) < BACKLOG_MAX + sizeof piece);
        refused += rc < 0;
        taken += rc == 0 ? sizeof piece : 0;
        turn();
    }
    return taken;
}

static void bounds_what_a_slow_client_costs(void **state)
{
    (void)state;
    ask(GET_STREAM);
    hear("first");
    assert_true(fill() > BACKLOG_MAX - 1000);
    assert_true(http->unread < BACKLOG_MAX + 1000);
    /* A client that reads again gets all of it. */
    cm_request_end(held, false);
    UNTIL(heard_len > 5 && strcmp(heard + heard_len - 5, "0\r\n\r\n") == 0 && heard_len > BACKLOG_MAX, true);
    assert_int_equal(gone_count, 0);
    assert_int_equal(http->unread, 0);
}

static void leaves_a_client_that_does_not_read(void **state)
{
    (void)state;
    ask(GET_STREAM);
    hear("first");
    fill();
    cm_request_end(held, true);
    UNTIL(cm_http_connections(http) == 0, false);
    assert_int_equal(http->unread, 0);
    assert_int_equal(gone_count, 0);
}

static void bounds_all_streams_together(void **state)
{
    static const char piece[BACKLOG_MAX / 2] = "";
    int fds[9], rc = 0;
    unsigned count = 0;

    (void)state;
    for (; count < 9 && rc == 0; count++) {
        held = NULL;
        fds[count] = dial_more();
        assert_int_equal(send(fds[count], GET_STREAM, strlen(GET_STREAM), 0), (ssize_t)strlen(GET_STREAM));
        UNTIL(held, false);
        rc = cm_request_write(held, piece, sizeof piece); /* it waits: the daemon has had no turn */
        assert_true(http->unread <= limits.answers_max);
        fill();
    }
    assert_int_equal(rc, CM_ERR_TOO_LARGE);
    assert_true(count > 3);
    for (unsigned i = 0; i < count; i++) {
        close(fds[i]);
        UNTIL(gone_count == i + 1, false);
    }
    UNTIL(cm_http_connections(http) == 0, false);
    assert_int_equal(http->unread, 0);
}

static void hears_of_clients_that_leave(void **state)
{
    (void)state;
    ask(GET_STREAM);
    hear("first");
    hang_up();
    UNTIL(gone_count == 1, false);
    /* In the middle of what it has not read; and before the handler is called. */
    ask(GET_STREAM);
    hear("first");
    fill();
    hang_up();
    UNTIL(gone_count == 2, false);
    dial();
    assert_int_equal(send(fd, GET_STREAM, strlen(GET_STREAM), 0), (ssize_t)strlen(GET_STREAM));
    shutdown(fd, SHUT_WR);
    UNTIL(gone_count == 3, false);
    UNTIL(cm_http_connections(http) == 0, false);
    assert_int_equal(http->unread, 0);
}

static void ends_with_streams(void **state)
{
    (void)state;
    ask(GET_STREAM);
    hear("first");
    cm_http_drain(http);
    assert_int_equal(cm_request_write(held, "still", 5), 0);
    hear("still");
    http = cm_http_free(http);
    assert_int_equal(gone_count, 1);
    UNTIL(closed, true);
    assert_null(strstr(heard, "\r\n0\r\n"));
}

/* Files */

static char body[2 * UPLOAD_MAX];

static void put(const char *name, size_t len, bool chunked)
{
    char head[256];

    dial();
    int n = chunked ? snprintf(head, sizeof head,
                               "PUT /file/%s HTTP/1.1\r\n" H "Content-Type: text/plain\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n%zx\r\n",
                               name, len)
                    : snprintf(head, sizeof head,
                               "PUT /file/%s HTTP/1.1\r\n" H "Content-Type: text/plain\r\nContent-Length: %zu\r\n\r\n",
                               name, len);
    say(head, (size_t)n);
    memset(body, 'x', len);
    for (size_t at = 0; at < len && !closed; at += 65536)
        say(body + at, len - at < 65536 ? len - at : 65536);
    if (chunked)
        say("\r\n0\r\n\r\n", 7);
}

static void keeps_bodies_as_files(void **state)
{
    int lowest;

    (void)state;
    put("x", 0, false);
    hear("200 OK");
    assert_true(!seen_fd && seen_len == 0);
    lowest = dup(0);
    close(lowest);
    for (int chunked = 0; chunked < 2; chunked++) {
        heard[0] = '\0';
        put("x", UPLOAD_MAX, chunked);
        hear("200 OK");
        assert_true(seen_fd && seen_len == UPLOAD_MAX);
        assert_int_equal(http->held, 0);
    }
    hang_up();
    UNTIL(cm_http_connections(http) == 0, false);
    assert_int_equal(http->held_files, 0);
    put("take", 1000, false);
    hear("200 OK");
    assert_int_equal(lseek(taken_fd, 0, SEEK_END), 1000);
    close(taken_fd);
    hang_up();
    UNTIL(cm_http_connections(http) == 0, false);
    assert_int_equal(http->held_files, 0);
    int now = dup(0);
    close(now);
    assert_true(now <= lowest);
}

static void forgets_files_of_clients_that_break_off(void **state)
{
    static const char head[] =
        "PUT /file/x HTTP/1.1\r\n" H "Content-Type: text/plain\r\nContent-Length: 9000\r\n\r\nxxxxx";

    (void)state;
    dial();
    assert_int_equal(send(fd, head, strlen(head), 0), (ssize_t)strlen(head));
    hang_up();
    UNTIL(cm_http_connections(http) == 0, false);
    assert_int_equal(http->held_files, 0);
    assert_int_equal(handled, 0);
}

static void refuses_files_that_are_too_long(void **state)
{
    (void)state;
    limits.upload_setting = "MAX_CONTEXT";
    ask("PUT /file/x HTTP/1.1\r\n" H
        "Content-Type: text/plain\r\nExpect: 100-continue\r\nContent-Length: 1048577\r\n\r\n");
    hear("has more than the 1048576 bytes of MAX_CONTEXT");
    limits.upload_setting = NULL;
    put("x", UPLOAD_MAX + 1, true);
    hear("has more than the 1048576 bytes of MAX_UPLOAD");
    assert_int_equal(http->held_files, 0);
    assert_int_equal(handled, 0);
    /* By the routes' owner: before a byte of it is kept. */
    admit_code = CM_ERR_NO_SESSION;
    put("x", 10000, false);
    hear("unknown_session");
    assert_int_equal(handled, 0);
}

static void bounds_all_files_together(void **state)
{
    int fds[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        held = NULL;
        put("hold", UPLOAD_MAX, i % 2);
        UNTIL(held, false);
        fds[i] = fd;
        fd = -1;
    }
    assert_int_equal(http->held_files, 4 * UPLOAD_MAX);
    put("x", 1, false);
    hear("too many large requests at once");
    assert_non_null(strstr(heard, "503 "));
    assert_int_equal(http->held_files, 4 * UPLOAD_MAX);
    for (unsigned i = 0; i < 4; i++) {
        close(fds[i]);
        UNTIL(gone_count == i + 1, false);
    }
    UNTIL(http->held_files == 0, false);
    put("x", 1, false);
    hear("200 OK");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(finds_routes),
        TEST(lets_files_in_by_type),
        TEST(hands_a_request_over),
        TEST(says_errors_as_the_owner_wants),
        TEST(streams_piece_by_piece),
        TEST(streams_to_what_is_no_stream_for_a_client),
        TEST(streams_after_a_wait),
        TEST(cuts_a_stream),
        TEST(bounds_what_a_slow_client_costs),
        TEST(leaves_a_client_that_does_not_read),
        TEST(bounds_all_streams_together),
        TEST(hears_of_clients_that_leave),
        TEST(ends_with_streams),
        TEST(keeps_bodies_as_files),
        TEST(forgets_files_of_clients_that_break_off),
        TEST(refuses_files_that_are_too_long),
        TEST(bounds_all_files_together),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
