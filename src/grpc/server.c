/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of the server: their sessions, what they may cost, and their ends.
 *
 * Each connection has one timer. It fires at the earliest of what may become due; things that come to nothing leave it
 * as it is, so that a call costs no change of a timer: then it fires for nothing, looks around, and is set again.
 *
 * A connection is freed from the loop's callbacks only (data, drained, closed, timer, flush), never while a function of
 * its session runs.
 */
#include "grpc/server.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/fd.h"
#include "grpc/serve.h"
#include "net/stream.h"

#define STREAM_WINDOW     (1 << 20)
#define CONNECTION_WINDOW (4 << 20)
#define STALL_NS          (60 * CM_NS_PER_S) /* a client that reads nothing for so long is gone */
#define DRAIN_NS          CM_NS_PER_S        /* from the first GOAWAY to the second, when the client is slow */
#define LINGER_MS         1000
#define HANDSHAKE_MS      10000

static void close_conn(struct cm_grpc_conn *c)
{
    struct cm_grpc_server *s = c->server;
    struct cm_grpc_call *call, *next;

    c->gone = true;
    cm_task_cancel(s->loop, &c->flush);
    c->timer = cm_timer_close(c->timer);
    DL_FOREACH_SAFE(c->calls, call, next)
    cm_grpc_call_free(call);
    nghttp2_session_del(c->session);
    c->stream = cm_stream_close(c->stream, LINGER_MS);
    DL_DELETE(s->conns, c);
    s->conn_count--;
    free(c);
}

/* Time */

static void on_timer(void *arg);

void cm_grpc_conn_wake_at(struct cm_grpc_conn *c, uint64_t at)
{
    uint64_t now;

    if (!c->timer || !at || (c->timer_at && c->timer_at <= at))
        return;
    now = cm_clock_ns();
    c->timer_at = at;
    cm_timer_start(c->timer, at > now ? (at - now + CM_NS_PER_MS - 1) / CM_NS_PER_MS : 0, 0);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return !a || (b && b < a) ? b : a;
}

/* When a call becomes due by itself. */
static uint64_t call_due(const struct cm_grpc_call *call)
{
    uint64_t patience = call->since + call->conn->server->limits.idle_ms * CM_NS_PER_MS;

    if (call->phase == CM_CALL_RUNNING)
        return call->deadline;
    return call->phase == CM_CALL_READING ? earlier(patience, call->deadline) : patience;
}

static void end_due_call(struct cm_grpc_call *call)
{
    struct cm_grpc_conn *c = call->conn;

    if (call->phase == CM_CALL_DONE) {
        /* Nobody reads the answer. */
        nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, call->id, NGHTTP2_CANCEL);
    } else if (call->phase == CM_CALL_HEADERS) {
        nghttp2_session_terminate_session(c->session, NGHTTP2_ENHANCE_YOUR_CALM);
    } else {
        cm_grpc_call_withdraw(call);
        cm_grpc_call_end(call, CM_GRPC_DEADLINE_EXCEEDED, "the deadline has passed");
    }
}

static uint64_t conn_due(const struct cm_grpc_conn *c)
{
    const struct cm_grpc_call *call;
    uint64_t due = c->drain_at;

    if (c->stalled_at)
        due = earlier(due, c->stalled_at + STALL_NS);
    if (c->call_count == 0)
        due = earlier(due, c->idle_since + c->server->limits.idle_ms * CM_NS_PER_MS);
    DL_FOREACH(c->calls, call)
    due = earlier(due, call_due(call));
    return due;
}

/* Sending */

static void go_on(struct cm_grpc_conn *c);

static void on_flush(void *arg)
{
    go_on(arg);
}

void cm_grpc_conn_flush_soon(struct cm_grpc_conn *c)
{
    if (!c->inside && c->ready && !c->gone) /* gone: the end of one call may end another one of its owner's */
        cm_task_post(c->server->loop, &c->flush, on_flush, c);
}

static void tell_writable(struct cm_grpc_conn *c)
{
    struct cm_grpc_call *call;

    if (!c->told_full || c->unread > c->server->limits.unread_max / 4)
        return;
    c->told_full = false;
    DL_FOREACH(c->calls, call)
    {
        if (!call->full || call->phase != CM_CALL_RUNNING)
            continue;
        call->full = false;
        if (call->method->writable)
            call->method->writable(c->server->arg, call);
    }
}

static void set_stalled(struct cm_grpc_conn *c, bool stalled)
{
    if (stalled == (c->stalled_at != 0))
        return;
    c->stalled_at = stalled ? cm_clock_ns() : 0;
    if (stalled)
        cm_grpc_conn_wake_at(c, c->stalled_at + STALL_NS);
    /* Whoever does not read our answers is not read either, so that there is an end to what waits for him. */
    cm_stream_pause(c->stream, stalled);
}

/* The second GOAWAY says which call was the last, once no earlier one can be on its way any more. */
static void go_away(struct cm_grpc_conn *c)
{
    c->drain_at = 0;
    c->last_goaway = true;
    nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->session),
                          NGHTTP2_NO_ERROR, NULL, 0);
}

/* After anything has happened: sends, and finds out whether this is the end. The connection may be gone afterwards. */
static void go_on(struct cm_grpc_conn *c)
{
    int rc;

    if (!c->ready)
        return;
    cm_task_cancel(c->server->loop, &c->flush);
    if (c->last_goaway && c->call_count == 0)
        nghttp2_session_terminate_session(c->session, NGHTTP2_NO_ERROR);
    c->inside = true;
    rc = cm_grpc_pump(c->session, c->stream, NULL);
    c->inside = false;
    bool over = !nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session);
    if (rc < 0 || c->broken || over) {
        close_conn(c);
        return;
    }
    set_stalled(c, rc == 1);
    tell_writable(c); /* what comes of it goes out with the next turn */
    if (c->last_goaway && c->call_count == 0)
        cm_grpc_conn_flush_soon(c);
}

static void on_timer(void *arg)
{
    struct cm_grpc_conn *c = arg;
    struct cm_grpc_call *call;
    uint64_t now = cm_clock_ns(), idle = c->server->limits.idle_ms * CM_NS_PER_MS;

    c->timer_at = 0;
    if (c->stalled_at && now - c->stalled_at >= STALL_NS) {
        close_conn(c);
        return;
    }
    if (c->drain_at && now >= c->drain_at)
        go_away(c);
    if (c->call_count == 0 && now - c->idle_since >= idle) {
        c->idle_since = now;
        nghttp2_session_terminate_session(c->session, NGHTTP2_NO_ERROR);
    }
    DL_FOREACH(c->calls, call)
    if (call_due(call) && now >= call_due(call)) {
        end_due_call(call);
        call->since = now; /* what was begun has its time again */
    }
    cm_grpc_conn_wake_at(c, conn_due(c));
    if (!c->ready)
        return;
    go_on(c);
}

/* The stream */

static void on_ready(void *arg)
{
    struct cm_grpc_conn *c = arg;

    c->ready = true;
    go_on(c);
}

static bool is_flood(int code)
{
#ifdef CM_NGHTTP2_CONTINUATIONS
    if (code == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS)
        return true;
#endif
    return code == NGHTTP2_ERR_FLOODED;
}

static void take(struct cm_grpc_conn *c, const uint8_t *data, size_t len)
{
    c->inside = true;
    ssize_t n = nghttp2_session_mem_recv(c->session, data, len);
    c->broken = n != (ssize_t)len;
    /* The session ends without a word where it sees a flood. */
    if (c->broken)
        nghttp2_session_terminate_session(c->session,
                                          is_flood((int)n) ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_PROTOCOL_ERROR);
    c->inside = false;
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
    take(arg, data, len);
    go_on(arg);
}

static void on_drained(void *arg)
{
    go_on(arg);
}

static void on_closed(void *arg, const struct cm_err *err)
{
    (void)err;
    close_conn(arg);
}

static const struct cm_stream_ops stream_ops = {on_ready, on_data, on_drained, on_closed};

/* Connections */

static int begin_session(struct cm_grpc_conn *c, struct cm_err *err)
{
    const struct cm_grpc_server *s = c->server;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, s->limits.streams_max},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)s->limits.metadata_max},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    int rc = nghttp2_session_server_new2(&c->session, s->callbacks, c, s->option);

    if (rc == 0)
        rc = nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]);
    if (rc == 0)
        rc = nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
    return rc == 0 ? 0 : cm_err_set(err, CM_ERR_NO_MEMORY, "HTTP/2 session: %s", nghttp2_strerror(rc));
}

static struct cm_grpc_conn *new_conn(struct cm_grpc_server *s, struct cm_err *err)
{
    if (s->draining) {
        cm_err_set(err, CM_ERR_DRAINING, "shutting down");
        return NULL;
    }
    if (s->conn_count >= s->limits.connections_max) {
        cm_err_set(err, CM_ERR_OVERLOADED, "%u gRPC connections are open, that is the maximum", s->conn_count);
        return NULL;
    }
    struct cm_grpc_conn *c = calloc(1, sizeof *c);
    if (!c) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a connection");
        return NULL;
    }
    c->server = s;
    c->idle_since = cm_clock_ns();
    c->timer = cm_timer_open(s->loop, on_timer, c, err);
    if (!c->timer || begin_session(c, err) < 0) {
        cm_timer_close(c->timer);
        nghttp2_session_del(c->session);
        free(c);
        return NULL;
    }
    DL_APPEND(s->conns, c);
    s->conn_count++;
    cm_grpc_conn_wake_at(c, conn_due(c));
    return c;
}

int cm_grpc_server_adopt_fd(struct cm_grpc_server *s, int fd, struct cm_err *err)
{
    const struct cm_stream_limits limits = {CM_GRPC_QUEUE_MAX, HANDSHAKE_MS};
    struct cm_err why = {0};
    struct cm_grpc_conn *c = new_conn(s, &why);

    if (!c || cm_fd_nonblock(fd) < 0) {
        cm_fd_close(fd);
        if (c)
            cm_err_set(&why, CM_ERR_SYSTEM, "socket");
    } else {
        c->stream = cm_stream_accept(s->loop, fd, NULL, &limits, &stream_ops, c, &why);
    }
    if (c && c->stream)
        return 0;
    if (c)
        close_conn(c);
    return cm_err_set(err, why.code, "%s", why.text);
}

int cm_grpc_server_adopt(struct cm_grpc_server *s, struct cm_stream *stream, const void *head, size_t len,
                         struct cm_err *err)
{
    struct cm_err why = {0};
    struct cm_grpc_conn *c = new_conn(s, &why);

    if (!c) {
        cm_stream_close(stream, 0);
        return cm_err_set(err, why.code, "%s", why.text);
    }
    c->stream = stream;
    cm_stream_hand_over(stream, CM_GRPC_QUEUE_MAX, &stream_ops, c);
    c->ready = true;
    if (len > 0)
        take(c, head, len);
    cm_grpc_conn_flush_soon(c);
    return 0;
}

/* The server */

static int set_up(struct cm_grpc_server *s)
{
    if (nghttp2_session_callbacks_new(&s->callbacks) != 0 || nghttp2_option_new(&s->option) != 0)
        return -1;
    cm_grpc_call_callbacks(s->callbacks);
    nghttp2_option_set_no_closed_streams(s->option, 1);
    nghttp2_option_set_max_settings(s->option, 32);
    nghttp2_option_set_max_outbound_ack(s->option, 1000);
    nghttp2_option_set_max_deflate_dynamic_table_size(s->option, 4096);
#ifdef CM_NGHTTP2_RESET_RATE
    /* Ours counts more than these: theirs stays behind it. */
    nghttp2_option_set_stream_reset_rate_limit(s->option, 2 * (uint64_t)s->limits.resets_max + 100,
                                               s->limits.resets_max + 10);
#endif
#ifdef CM_NGHTTP2_CONTINUATIONS
    nghttp2_option_set_max_continuations(s->option, 8);
#endif
    return 0;
}

struct cm_grpc_server *cm_grpc_server_new(struct cm_loop *loop, const struct cm_grpc_server_limits *limits,
                                          const struct cm_grpc_method *methods, size_t count, void *arg,
                                          struct cm_err *err)
{
    struct cm_grpc_server *s = calloc(1, sizeof *s);

    if (s) {
        *s = (struct cm_grpc_server){
            .loop = loop, .limits = *limits, .methods = methods, .method_count = count, .arg = arg};
        if (!s->limits.requests_max)
            s->limits.requests_max = 4 * limits->message_max;
    }
    if (!s || set_up(s) < 0) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the gRPC server");
        return cm_grpc_server_free(s);
    }
    return s;
}

void cm_grpc_server_drain(struct cm_grpc_server *s)
{
    struct cm_grpc_conn *c;

    s->draining = true;
    DL_FOREACH(s->conns, c)
    {
        if (c->drain_at || c->last_goaway)
            continue;
        nghttp2_submit_shutdown_notice(c->session);
        nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
        cm_grpc_conn_wake_at(c, c->drain_at = cm_clock_ns() + DRAIN_NS);
        cm_grpc_conn_flush_soon(c);
    }
}

unsigned cm_grpc_server_connections(const struct cm_grpc_server *s)
{
    return s->conn_count;
}

struct cm_grpc_server *cm_grpc_server_free(struct cm_grpc_server *s)
{
    if (!s)
        return NULL;
    while (s->conns)
        close_conn(s->conns);
    nghttp2_session_callbacks_del(s->callbacks);
    nghttp2_option_del(s->option);
    free(s);
    return NULL;
}
