/* SPDX-License-Identifier: Apache-2.0 */
/* One call: headers, one message, an answer.
 *
 * The object lives from its first header until nghttp2 closes the stream; the owner knows it from `request` until
 * finish or `cancelled`. Everything that has to be said to the client is put into the session; server.c sends it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "grpc/serve.h"
#include "net/stream.h"

#define HEADERS_MAX      16   /* of one answer, all of them */
#define HEADER_BYTES_MAX 4096
#define HEADER_VALUE_MAX 200
#define REFUSE_BEYOND    16   /* times metadata_max: from here on the stream is reset instead of answered */
#define NOISE_MAX        10000 /* frames without use in ten seconds */
#define ABUSE_NS         (10 * CM_NS_PER_S)

static struct cm_grpc_call *find(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

/* Abuse */

static void calm_down(struct cm_grpc_conn *c, unsigned *counter, unsigned max)
{
    uint64_t now = cm_clock_ns();

    if (now - c->abuse_since > ABUSE_NS) {
        c->abuse_since = now;
        c->resets = c->noise = 0;
    }
    if (++*counter > max)
        nghttp2_session_terminate_session(c->session, NGHTTP2_ENHANCE_YOUR_CALM);
}

void cm_grpc_conn_count_reset(struct cm_grpc_conn *c)
{
    calm_down(c, &c->resets, c->server->limits.resets_max);
}

/* Frames that cost work and carry nothing: none of them is needed often. */
static bool is_noise(const nghttp2_frame_hd *hd)
{
    switch (hd->type) {
    case NGHTTP2_PING:
    case NGHTTP2_SETTINGS:
        return !(hd->flags & NGHTTP2_FLAG_ACK);
    case NGHTTP2_PRIORITY:
        return true;
    case NGHTTP2_DATA:
        return hd->length == 0 && !(hd->flags & NGHTTP2_FLAG_END_STREAM);
    default:
        return false;
    }
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *arg)
{
    struct cm_grpc_conn *c = arg;

    (void)session;
    if (is_noise(hd))
        calm_down(c, &c->noise, NOISE_MAX);
    return 0;
}

/* The answer's way out */

static ssize_t read_out(nghttp2_session *session, int32_t id, uint8_t *to, size_t room, uint32_t *flags,
                        nghttp2_data_source *source, void *arg)
{
    struct cm_grpc_call *call = source->ptr;
    size_t n = call->out.len < room ? call->out.len : room;
    char status[8];

    (void)arg;
    memcpy(to, cm_buf_data(&call->out), n);
    cm_buf_consume(&call->out, n);
    call->conn->unread -= n;
    if (call->out.len > 0)
        return (ssize_t)n;
    if (call->phase != CM_CALL_DONE) {
        call->deferred = n == 0;
        return n > 0 ? (ssize_t)n : NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    snprintf(status, sizeof status, "%d", (int)call->status);
    nghttp2_nv nv[] = {cm_grpc_nv("grpc-status", status, false),
                       cm_grpc_nv("grpc-message", cm_buf_data(&call->trailer), true)};
    return nghttp2_submit_trailer(session, id, nv, call->trailer.len > 0 ? 2 : 1) < 0
               ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
               : (ssize_t)n;
}

/* Appends the headers of the answer that the owner wants. */
static size_t put_headers(struct cm_grpc_call *call, nghttp2_nv *nv, size_t count)
{
    const char *at = cm_buf_data(&call->headers), *end = at + call->headers.len;

    while (at < end && count < HEADERS_MAX) {
        const char *value = at + strlen(at) + 1;
        nv[count++] = cm_grpc_nv(at, value, true);
        at = value + strlen(value) + 1;
    }
    return count;
}

static void begin_answer(struct cm_grpc_call *call)
{
    nghttp2_nv nv[HEADERS_MAX] = {cm_grpc_nv(":status", "200", false),
                                  cm_grpc_nv("content-type", "application/grpc", false),
                                  cm_grpc_nv("grpc-accept-encoding", "identity", false)};
    nghttp2_data_provider provider = {{.ptr = call}, read_out};

    call->answering = true;
    nghttp2_submit_response(call->conn->session, call->id, nv, put_headers(call, nv, 3), &provider);
}

/* No message: one block of headers says it all. */
static void answer_trailers_only(struct cm_grpc_call *call)
{
    char status[8], http[8];

    snprintf(status, sizeof status, "%d", (int)call->status);
    snprintf(http, sizeof http, "%d", call->http ? call->http : 200);
    nghttp2_nv nv[HEADERS_MAX + 2] = {cm_grpc_nv(":status", http, false),
                                      cm_grpc_nv("content-type", "application/grpc", false),
                                      cm_grpc_nv("grpc-accept-encoding", "identity", false)};
    size_t count = put_headers(call, nv, 3);
    nv[count++] = cm_grpc_nv("grpc-status", status, false);
    if (call->trailer.len > 0)
        nv[count++] = cm_grpc_nv("grpc-message", cm_buf_data(&call->trailer), true);
    call->answering = true;
    nghttp2_submit_response(call->conn->session, call->id, nv, count, NULL);
}

static void drop_request(struct cm_grpc_call *call)
{
    call->conn->server->assembling -= call->reader.body.len;
    cm_grpc_reader_done(&call->reader);
}

void cm_grpc_call_end(struct cm_grpc_call *call, enum cm_grpc_status status, const char *text)
{
    struct cm_grpc_conn *c = call->conn;

    drop_request(call);
    call->phase = CM_CALL_DONE;
    call->status = status;
    call->since = cm_clock_ns();
    call->full = false;
    if (text && cm_grpc_percent_encode(&call->trailer, text) < 0)
        cm_buf_clear(&call->trailer); /* the code says enough */
    if (!call->answering) {
        answer_trailers_only(call);
    } else if (call->deferred) {
        call->deferred = false;
        nghttp2_session_resume_data(c->session, call->id);
    }
    cm_grpc_conn_wake_at(c, call->since + c->server->limits.idle_ms * CM_NS_PER_MS);
    cm_grpc_conn_flush_soon(c);
}

void cm_grpc_call_withdraw(struct cm_grpc_call *call)
{
    if (call->phase != CM_CALL_RUNNING)
        return;
    call->phase = CM_CALL_DONE;
    call->method->cancelled(call->conn->server->arg, call);
}

void cm_grpc_call_free(struct cm_grpc_call *call)
{
    struct cm_grpc_conn *c = call->conn;

    cm_grpc_call_withdraw(call);
    drop_request(call);
    c->unread -= call->out.len;
    DL_DELETE(c->calls, call);
    c->call_count--;
    cm_buf_done(&call->metadata);
    cm_buf_done(&call->headers);
    cm_buf_done(&call->trailer);
    cm_buf_done(&call->out);
    free(call);
}

/* Headers */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct cm_grpc_conn *c = arg;
    const struct cm_grpc_server_limits *limits = &c->server->limits;

    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct cm_grpc_call *call = calloc(1, sizeof *call);
    if (!call)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    call->conn = c;
    call->id = frame->hd.stream_id;
    call->since = cm_clock_ns();
    cm_buf_init(&call->metadata, limits->metadata_max);
    cm_buf_init(&call->headers, HEADER_BYTES_MAX);
    cm_buf_init(&call->trailer, 3 * CM_GRPC_TEXT_MAX);
    cm_buf_init(&call->out, limits->unread_max);
    cm_grpc_reader_init(&call->reader, limits->message_max);
    DL_APPEND(c->calls, call);
    c->call_count++;
    nghttp2_session_set_stream_user_data(session, call->id, call);
    cm_grpc_conn_wake_at(c, call->since + limits->idle_ms * CM_NS_PER_MS);
    return 0;
}

static void find_method(struct cm_grpc_call *call, const char *path)
{
    const struct cm_grpc_server *s = call->conn->server;

    for (size_t i = 0; i < s->method_count; i++)
        if (strcmp(s->methods[i].path, path) == 0)
            call->method = &s->methods[i];
}

static bool is(const char *text, const uint8_t *name, size_t len)
{
    return strlen(text) == len && memcmp(text, name, len) == 0;
}

static void take_header(struct cm_grpc_call *call, const uint8_t *name, size_t name_len, const char *value, size_t len)
{
    uint64_t ns;

    if (is(":path", name, name_len)) {
        find_method(call, value);
    } else if (is(":method", name, name_len)) {
        call->is_post = strcmp(value, "POST") == 0;
    } else if (is("content-type", name, name_len)) {
        call->is_grpc = cm_grpc_content_type(value, len);
    } else if (is("grpc-timeout", name, name_len)) {
        call->bad_timeout = !cm_grpc_timeout_parse(value, &ns);
        call->deadline = call->bad_timeout ? 0 : call->since + ns;
    } else if (is("grpc-encoding", name, name_len)) {
        call->bad_encoding = strcmp(value, "identity") != 0;
    }
}

/* nghttp2 has checked both texts: no NUL in them, and one behind each. What does not fit into the metadata is counted and
 * left out: the call is refused when its headers are complete. */
static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    struct cm_grpc_call *call = find(session, frame->hd.stream_id);

    (void)flags, (void)arg;
    if (!call || call->phase != CM_CALL_HEADERS)
        return 0;
    size_t max = call->conn->server->limits.metadata_max;
    call->header_size += name_len + value_len + 32;
    if (call->header_size > REFUSE_BEYOND * max)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (call->header_size > max)
        return 0;
    take_header(call, name, name_len, (const char *)value, value_len);
    if (name[0] != ':' && (cm_buf_append(&call->metadata, name, name_len + 1) < 0 ||
                           cm_buf_append(&call->metadata, value, value_len + 1) < 0))
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    return 0;
}

/* Headers are complete: OK lets the message come. */
static enum cm_grpc_status look(struct cm_grpc_call *call, char why[static CM_ERR_TEXT_MAX])
{
    const struct cm_grpc_server *s = call->conn->server;

    if (call->header_size > s->limits.metadata_max) {
        snprintf(why, CM_ERR_TEXT_MAX, "%zu bytes of metadata, at most %zu are taken", call->header_size,
                 s->limits.metadata_max);
        return CM_GRPC_RESOURCE_EXHAUSTED;
    }
    call->http = !call->is_post ? 405 : !call->is_grpc ? 415 : 0;
    if (call->http) {
        snprintf(why, CM_ERR_TEXT_MAX, "%s",
                 call->http == 405 ? "gRPC calls are POST requests" : "content-type must be application/grpc");
        return CM_GRPC_INTERNAL;
    }
    if (!call->method) {
        snprintf(why, CM_ERR_TEXT_MAX, "unknown method");
        return CM_GRPC_UNIMPLEMENTED;
    }
    if (call->bad_encoding) {
        snprintf(why, CM_ERR_TEXT_MAX, "grpc-encoding: only identity is taken");
        return CM_GRPC_UNIMPLEMENTED;
    }
    if (call->bad_timeout) {
        snprintf(why, CM_ERR_TEXT_MAX, "malformed grpc-timeout");
        return CM_GRPC_INTERNAL;
    }
    return call->method->admit ? call->method->admit(s->arg, call, why) : CM_GRPC_OK;
}

static void headers_complete(struct cm_grpc_call *call)
{
    char why[CM_ERR_TEXT_MAX] = "";
    enum cm_grpc_status status = look(call, why);

    if (status != CM_GRPC_OK) {
        cm_grpc_call_end(call, status, why);
        return;
    }
    call->phase = CM_CALL_READING;
    if (call->deadline)
        cm_grpc_conn_wake_at(call->conn, call->deadline);
}

/* The message */

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                         void *arg)
{
    struct cm_grpc_call *call = find(session, id);
    char why[CM_ERR_TEXT_MAX];
    bool whole = false;

    (void)flags, (void)arg;
    if (!call || call->phase != CM_CALL_READING || len == 0)
        return 0;
    struct cm_grpc_server *s = call->conn->server;
    if (call->has_message) {
        cm_grpc_call_end(call, CM_GRPC_UNIMPLEMENTED, "more than one message in the request");
        return 0;
    }
    if (s->assembling + len > s->limits.requests_max) {
        cm_grpc_call_end(call, CM_GRPC_RESOURCE_EXHAUSTED, "too many bytes of requests are on their way; try again");
        return 0;
    }
    size_t before = call->reader.body.len;
    enum cm_grpc_status status = cm_grpc_reader_feed(&call->reader, &data, &len, &whole, why);
    s->assembling += call->reader.body.len - before;
    call->has_message = whole;
    if (status != CM_GRPC_OK)
        cm_grpc_call_end(call, status, why);
    else if (len > 0)
        cm_grpc_call_end(call, CM_GRPC_UNIMPLEMENTED, "more than one message in the request");
    return 0;
}

static void request_complete(struct cm_grpc_call *call)
{
    struct cm_grpc_server *s = call->conn->server;

    if (!call->has_message) {
        bool none = cm_grpc_reader_between(&call->reader);
        cm_grpc_call_end(call, none ? CM_GRPC_UNIMPLEMENTED : CM_GRPC_INTERNAL,
                         none ? "no message in the request" : "the request ends within its message");
        return;
    }
    if (call->deadline && cm_clock_ns() >= call->deadline) {
        cm_grpc_call_end(call, CM_GRPC_DEADLINE_EXCEEDED, "the deadline has passed");
        return;
    }
    /* The call may be finished in there, and answered: the message must not go with it. */
    struct cm_buf message = call->reader.body;
    s->assembling -= message.len;
    cm_buf_init(&call->reader.body, message.max);
    call->phase = CM_CALL_RUNNING;
    call->method->request(s->arg, call, (const uint8_t *)cm_buf_data(&message), message.len);
    cm_buf_done(&message);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct cm_grpc_conn *c = arg;

    if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code != NGHTTP2_NO_ERROR)
        cm_grpc_conn_count_reset(c);
    if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) && c->drain_at)
        cm_grpc_conn_wake_at(c, c->drain_at = cm_clock_ns());
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    struct cm_grpc_call *call = find(session, frame->hd.stream_id);
    if (call && call->phase == CM_CALL_HEADERS && frame->hd.type == NGHTTP2_HEADERS)
        headers_complete(call);
    if (call && call->phase == CM_CALL_READING && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        request_complete(call);
    return 0;
}

/* A client that is still sending when its answer is complete is told to stop. */
static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct cm_grpc_conn *c = arg;
    int32_t id = frame->hd.stream_id;

    if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code != NGHTTP2_NO_ERROR)
        cm_grpc_conn_count_reset(c);
    if (frame->hd.type == NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
        nghttp2_session_get_stream_remote_close(session, id) == 0)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    struct cm_grpc_conn *c = arg;
    struct cm_grpc_call *call = find(session, id);

    (void)code;
    if (call)
        cm_grpc_call_free(call);
    if (c->call_count == 0) {
        c->idle_since = cm_clock_ns();
        cm_grpc_conn_wake_at(c, c->idle_since + c->server->limits.idle_ms * CM_NS_PER_MS);
    }
    return 0;
}

void cm_grpc_call_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
}

/* For the owner */

const char *cm_grpc_call_metadata(const struct cm_grpc_call *call, const char *key)
{
    const char *at = cm_buf_data((struct cm_buf *)&call->metadata), *end = at + call->metadata.len;

    while (at < end) {
        const char *value = at + strlen(at) + 1;
        if (strcmp(at, key) == 0)
            return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}

bool cm_grpc_call_lost(const struct cm_grpc_call *call)
{
    return call->conn->gone;
}

uint64_t cm_grpc_call_deadline(const struct cm_grpc_call *call)
{
    return call->deadline;
}

const char *cm_grpc_call_peer(const struct cm_grpc_call *call)
{
    return cm_stream_peer(call->conn->stream);
}

void cm_grpc_call_set_user(struct cm_grpc_call *call, void *user)
{
    call->user = user;
}

void *cm_grpc_call_user(const struct cm_grpc_call *call)
{
    return call->user;
}

void cm_grpc_call_header(struct cm_grpc_call *call, const char *key, const char *value)
{
    size_t key_len = strlen(key) + 1, len = strnlen(value, HEADER_VALUE_MAX);

    if (call->headers.len + key_len + len + 1 > call->headers.max ||
        cm_buf_reserve(&call->headers, key_len + len + 1, NULL) < 0)
        return;
    cm_buf_append(&call->headers, key, key_len);
    for (size_t i = 0; i < len; i++)
        cm_buf_append(&call->headers, value[i] >= 0x20 && value[i] < 0x7F ? &value[i] : "?", 1);
    cm_buf_append(&call->headers, "", 1);
}

int cm_grpc_call_send(struct cm_grpc_call *call, const void *message, size_t len, struct cm_err *err)
{
    struct cm_grpc_conn *c = call->conn;
    size_t max = c->server->limits.unread_max, before = call->out.len;

    if (len > max || c->unread + CM_GRPC_PREFIX + len > max)
        return cm_err_set(err, CM_ERR_TOO_LARGE, "%zu bytes of answers wait for %s, at most %zu may", c->unread + len,
                          cm_stream_peer(c->stream), max);
    int rc = cm_grpc_put_message(&call->out, message, len);
    if (rc < 0)
        return cm_err_set(err, rc, "no memory for an answer of %zu bytes", len);
    c->unread += call->out.len - before;
    if (!call->answering) {
        begin_answer(call);
    } else if (call->deferred) {
        call->deferred = false;
        nghttp2_session_resume_data(c->session, call->id);
    }
    cm_grpc_conn_flush_soon(c);
    if (c->unread <= max / 2)
        return 0;
    call->full = c->told_full = true;
    return 1;
}

void cm_grpc_call_finish(struct cm_grpc_call *call, enum cm_grpc_status status, const char *text)
{
    cm_grpc_call_end(call, status, text);
}
