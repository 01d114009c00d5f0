/* SPDX-License-Identifier: Apache-2.0 */
/* One connection of the client.
 *
 * It counts as ready when the server's SETTINGS have come: only then is it known that the other side speaks HTTP/2, and
 * nothing has been sent that could be lost without a trace. Whatever goes wrong ends in `gone`, which client.c looks at;
 * nothing is freed from inside.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/clock.h"
#include "grpc/dial.h"
#include "net/stream.h"

#define STREAM_WINDOW     (1 << 20)
#define CONNECTION_WINDOW (4 << 20)
#define CONNECT_MS        10000
#define LINGER_MS         200
#define METADATA_MAX      16384     /* of an answer: what we announce */
#define METADATA_CEILING  (4 * METADATA_MAX) /* what we bear */
#define HEADERS_MAX       32

static struct cm_grpc_request *find(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static void lose(struct cm_grpc_link *l, const char *reason)
{
    if (l->gone)
        return;
    l->gone = true;
    if (!l->why.code)
        cm_err_set(&l->why, CM_ERR_NOT_READY, "%s", reason);
}

/* Requests */

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *arg)
{
    struct cm_grpc_request *r = find(session, id);

    (void)source, (void)arg;
    if (!r)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    size_t left = r->body.len - r->body_sent, n = left < room ? left : room;
    memcpy(to, cm_buf_data(&r->body) + r->body_sent, n);
    r->body_sent += n;
    r->client->queued -= n;
    if (n == left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

unsigned cm_grpc_link_room(const struct cm_grpc_link *l)
{
    uint32_t max;

    if (l->gone || l->retiring || l->ready_by)
        return 0;
    max = nghttp2_session_get_remote_settings(l->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    return l->count < max ? max - l->count : 0;
}

/* Secrets and what differs in each call stay out of the compression's memory. */
static bool is_indexed(const char *key)
{
    return strcmp(key, "authorization") != 0 && strcmp(key, "x-correlation-id") != 0;
}

bool cm_grpc_link_take(struct cm_grpc_link *l, struct cm_grpc_request *r)
{
    const struct cm_grpc_client *c = l->client;
    const char *at = cm_buf_data(&r->head), *end = at + r->head.len;
    nghttp2_data_provider provider = {{.ptr = NULL}, read_body};
    uint64_t now = cm_clock_ns();
    char timeout[16];

    cm_grpc_timeout_format(r->deadline > now ? r->deadline - now : 1, timeout);
    nghttp2_nv nv[HEADERS_MAX] = {cm_grpc_nv(":method", "POST", false),
                                  cm_grpc_nv(":scheme", c->tls ? "https" : "http", false),
                                  cm_grpc_nv(":path", at, false),
                                  cm_grpc_nv(":authority", c->target, false),
                                  cm_grpc_nv("te", "trailers", false),
                                  cm_grpc_nv("content-type", "application/grpc", false),
                                  cm_grpc_nv("user-agent", c->user_agent, false),
                                  cm_grpc_nv("grpc-accept-encoding", "identity", false),
                                  cm_grpc_nv("grpc-timeout", timeout, true)};
    size_t count = 9;
    for (at += strlen(at) + 1; at < end && count < HEADERS_MAX; at += strlen(at) + 1) {
        const char *key = at;
        at += strlen(at) + 1;
        nv[count++] = cm_grpc_nv(key, at, !is_indexed(key));
    }
    int32_t id = nghttp2_submit_request(l->session, NULL, nv, count, &provider, r);
    if (id < 0)
        return false;
    if (l->count++ == 0)
        l->heard_at = now;
    r->id = id;
    r->link = l;
    DL_APPEND(l->requests, r);
    return true;
}

void cm_grpc_link_forget(struct cm_grpc_link *l, struct cm_grpc_request *r)
{
    nghttp2_session_set_stream_user_data(l->session, r->id, NULL);
    DL_DELETE(l->requests, r);
    l->count--;
    r->link = NULL;
}

void cm_grpc_link_reset(struct cm_grpc_link *l, struct cm_grpc_request *r)
{
    nghttp2_submit_rst_stream(l->session, NGHTTP2_FLAG_NONE, r->id, NGHTTP2_CANCEL);
}

/* Answers */

static bool is(const char *text, const uint8_t *name, size_t len)
{
    return strlen(text) == len && memcmp(text, name, len) == 0;
}

static enum cm_grpc_status status_of(const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);

    return end == text || *end || value < 0 || value > CM_GRPC_UNAUTHENTICATED ? CM_GRPC_UNKNOWN : (int)value;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    struct cm_grpc_request *r = find(session, frame->hd.stream_id);
    const char *text = (const char *)value;

    (void)flags, (void)arg;
    if (!r)
        return 0;
    r->header_size += name_len + value_len + 32;
    if (r->header_size > METADATA_CEILING)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (is(":status", name, name_len)) {
        r->http = atoi(text);
    } else if (is("content-type", name, name_len)) {
        r->is_grpc = cm_grpc_content_type(text, value_len);
    } else if (is("grpc-status", name, name_len)) {
        r->status = status_of(text);
        r->has_status = true;
    } else if (is("grpc-message", name, name_len)) {
        cm_buf_clear(&r->text);
        cm_grpc_percent_decode(&r->text, text, value_len);
    }
    return 0;
}

/* Ends a call in the middle of its stream. */
static void abort_call(struct cm_grpc_request *r, enum cm_grpc_status status, const char *text)
{
    cm_grpc_link_reset(r->link, r);
    cm_grpc_request_end(r, status, text);
}

/* The first headers are complete. Whoever answers with something else is no gRPC server, whatever it goes on to say. */
static void look_at_headers(struct cm_grpc_request *r)
{
    char text[120];

    if (r->http != 200 && r->http >= 200 && !r->has_status) {
        snprintf(text, sizeof text, "the server answers with HTTP status %d and no grpc-status", r->http);
        abort_call(r, cm_grpc_status_of_http(r->http), text);
    } else if (r->http == 200 && !r->is_grpc && !r->has_status) {
        abort_call(r, CM_GRPC_UNKNOWN, "the server's answer is not application/grpc");
    }
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                         void *arg)
{
    struct cm_grpc_request *r = find(session, id);
    char why[CM_ERR_TEXT_MAX];
    bool whole;

    (void)flags, (void)arg;
    while (r && len > 0) {
        enum cm_grpc_status status = cm_grpc_reader_feed(&r->reader, &data, &len, &whole, why);
        if (status != CM_GRPC_OK) {
            abort_call(r, status, why);
            break;
        }
        if (!whole)
            break;
        r->in_callback = true;
        if (r->ops->message)
            r->ops->message(r->arg, (const uint8_t *)cm_buf_data(&r->reader.body), r->reader.body.len);
        r->in_callback = false;
        cm_grpc_reader_next(&r->reader);
        if (r->cancelled) {
            cm_grpc_request_free(r);
            break;
        }
    }
    return 0;
}

/* The server has said all that it will. */
static void answer_complete(struct cm_grpc_request *r)
{
    if (!r->has_status)
        cm_grpc_request_end(r, CM_GRPC_UNKNOWN, "the server's answer ends without a grpc-status");
    else if (r->status == CM_GRPC_OK && !cm_grpc_reader_between(&r->reader))
        cm_grpc_request_end(r, CM_GRPC_INTERNAL, "the server's answer ends within a message");
    else
        cm_grpc_request_end(r, r->status, NULL);
}

static void take_goaway(struct cm_grpc_link *l, const nghttp2_goaway *goaway)
{
    l->retiring = true;
    if (goaway->error_code != NGHTTP2_NO_ERROR && !l->why.code)
        cm_err_set(&l->why, CM_ERR_NOT_READY, "the server went away: %s%s%.*s",
                   nghttp2_http2_strerror(goaway->error_code), goaway->opaque_data_len ? ", " : "",
                   (int)(goaway->opaque_data_len < 100 ? goaway->opaque_data_len : 100),
                   goaway->opaque_data ? (const char *)goaway->opaque_data : "");
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct cm_grpc_link *l = arg;
    struct cm_grpc_request *r;

    if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK))
        l->ready_by = 0;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        take_goaway(l, &frame->goaway);
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    r = find(session, frame->hd.stream_id);
    if (r && frame->hd.type == NGHTTP2_HEADERS)
        look_at_headers(r);
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) && (r = find(session, frame->hd.stream_id))) {
        /* What we have not sent of the request yet, nobody will read. */
        if (nghttp2_session_get_stream_local_close(session, r->id) == 0)
            cm_grpc_link_reset(l, r);
        answer_complete(r);
    }
    return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct cm_grpc_request *r;

    (void)arg;
    if (frame->hd.type == NGHTTP2_HEADERS && (r = find(session, frame->hd.stream_id)))
        r->sent = true;
    return 0;
}

/* The stream was reset, or GOAWAY says that it was not processed: that counts as REFUSED_STREAM. */
static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    struct cm_grpc_request *r = find(session, id);
    char text[100];

    (void)arg;
    if (!r)
        return 0;
    if (code == NGHTTP2_REFUSED_STREAM && !r->repeated) {
        r->repeated = true;
        cm_grpc_request_wait_again(r);
    } else if (code == NGHTTP2_NO_ERROR || r->has_status) {
        answer_complete(r);
    } else {
        snprintf(text, sizeof text, "the stream was reset: %s", nghttp2_http2_strerror(code));
        cm_grpc_request_end(r, cm_grpc_status_of_h2(code), text);
    }
    return 0;
}

static int on_error(nghttp2_session *session, int code, const char *text, size_t len, void *arg)
{
    struct cm_grpc_link *l = arg;

    (void)session, (void)code;
    if (!l->why.code && l->ready_by)
        cm_err_set(&l->why, CM_ERR_PROTOCOL, "no HTTP/2 server: %.*s", (int)(len < 200 ? len : 200), text);
    return 0;
}

void cm_grpc_link_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_error_callback2(callbacks, on_error);
}

/* The stream */

static void on_ready(void *arg)
{
    struct cm_grpc_link *l = arg;

    l->open = true;
    l->ready_by = cm_clock_ns() + CONNECT_MS * CM_NS_PER_MS;
    if (l->client->tls && strcmp(cm_stream_alpn(l->stream), "h2") != 0)
        lose(l, "the server does not offer HTTP/2 (ALPN h2)");
    cm_grpc_client_go_on(l->client);
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
    struct cm_grpc_link *l = arg;

    l->heard_at = cm_clock_ns();
    l->pinged_at = 0;
    if (nghttp2_session_mem_recv(l->session, data, len) != (ssize_t)len)
        lose(l, "the server breaks the rules of HTTP/2");
    cm_grpc_client_go_on(l->client);
}

static void on_drained(void *arg)
{
    struct cm_grpc_link *l = arg;

    cm_grpc_client_go_on(l->client);
}

static void on_closed(void *arg, const struct cm_err *err)
{
    struct cm_grpc_link *l = arg;

    if (err && !l->why.code)
        l->why = *err;
    l->open = false;
    lose(l, l->ready_by ? "the server closed the connection before HTTP/2 began" : "the server closed the connection");
    cm_grpc_client_go_on(l->client);
}

static const struct cm_stream_ops stream_ops = {on_ready, on_data, on_drained, on_closed};

static bool begin_session(struct cm_grpc_link *l)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, METADATA_MAX},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };

    return nghttp2_session_client_new2(&l->session, l->client->callbacks, l, l->client->option) == 0 &&
           nghttp2_submit_settings(l->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]) ==
               0 &&
           nghttp2_session_set_local_window_size(l->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) == 0;
}

struct cm_grpc_link *cm_grpc_link_new(struct cm_grpc_client *c)
{
    const struct cm_stream_limits limits = {CM_GRPC_QUEUE_MAX, CONNECT_MS};
    struct cm_grpc_link *l = calloc(1, sizeof *l);

    if (!l)
        return NULL;
    l->client = c;
    l->began = l->heard_at = cm_clock_ns();
    l->ready_by = l->began + 2 * CONNECT_MS * CM_NS_PER_MS;
    if (!begin_session(l)) {
        nghttp2_session_del(l->session);
        free(l);
        return NULL;
    }
    l->stream = cm_stream_connect(c->loop, c->host, c->port, c->tls, &limits, &stream_ops, l, &l->why);
    if (!l->stream) {
        lose(l, "cannot connect");
        cm_grpc_client_go_on_soon(c);
    }
    return l;
}

void cm_grpc_link_step(struct cm_grpc_link *l)
{
    if (!l->open || l->gone)
        return;
    if (cm_grpc_pump(l->session, l->stream, &l->why) < 0)
        lose(l, "cannot send");
    else if (!nghttp2_session_want_read(l->session) && !nghttp2_session_want_write(l->session))
        lose(l, "the server breaks the rules of HTTP/2");
}

uint64_t cm_grpc_link_due(const struct cm_grpc_link *l)
{
    const struct cm_grpc_client_options *o = &l->client->options;

    if (l->ready_by)
        return l->ready_by;
    if (l->pinged_at)
        return l->pinged_at + o->keepalive_timeout_ms * CM_NS_PER_MS;
    return o->keepalive_ms && l->count > 0 ? l->heard_at + o->keepalive_ms * CM_NS_PER_MS : 0;
}

void cm_grpc_link_tick(struct cm_grpc_link *l, uint64_t now)
{
    uint64_t due = cm_grpc_link_due(l);

    if (!due || now < due || l->gone)
        return;
    if (l->ready_by) {
        lose(l, "the server does not answer");
    } else if (l->pinged_at) {
        lose(l, "the server does not answer a PING");
    } else {
        nghttp2_submit_ping(l->session, NGHTTP2_FLAG_NONE, NULL);
        l->pinged_at = now;
    }
}

void cm_grpc_link_close(struct cm_grpc_link *l)
{
    if (l->open && !l->gone && nghttp2_session_terminate_session(l->session, NGHTTP2_NO_ERROR) == 0)
        (void)cm_grpc_pump(l->session, l->stream, NULL);
    nghttp2_session_del(l->session);
    l->stream = cm_stream_close(l->stream, l->gone ? 0 : LINGER_MS);
    free(l);
}
