/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP, end to end in one process: bytes into a socket of the real server, answers out of it. The session manager is
 * made up here; an execution prints its own code.
 * Input: a byte that says how the bytes are cut into writes and whether the client stays to listen; then the bytes. */
#include "fuzz.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "base/utf8.h"
#include "front/http/internal.h"
#include "http/internal.h"
#include "model_json.h"
#include "obs/metrics.h"
#include "turn.h"
#include "../unit/one_session.h"
#include "wire/json.h"
#include "wire/sse.h"

#define CODE_MAX 1000
#define TURNS    300

struct cm_call {
    void *user;
};

struct cm_exec {
    struct cm_task task;
    struct cm_call call;
    struct cm_exec_ops ops;
    void *arg;
    bool posted;
    size_t len;
    char code[CODE_MAX + 1];
};

struct creation {
    struct cm_task task;
    void (*done)(void *arg, const char *id, const struct cm_err *err);
    void *arg;
};

struct cm_sessions {
    unsigned live_executions, live_creations, live_puts;
};

static struct cm_sessions manager;
static struct cm_conf conf;
static struct cm_loop *loop;
static struct cm_metrics *metrics;
static struct cm_api *api;

/* Codes of the executions that were answered with a result, in order: one connection, so the answers are in order. */
static struct {
    char code[64][CODE_MAX];
    size_t len[64];
    unsigned count, seen;
} finished;

/* The made-up manager */

static void finish(void *arg)
{
    struct cm_exec *x = arg;
    struct cm_exec_result res = {.success = true,
                                 .out = x->code,
                                 .out_len = x->len,
                                 .result = x->len % 2 ? x->code : NULL,
                                 .result_len = x->len % 2 ? x->len : 0,
                                 .locals = "{\"x\":42}",
                                 .locals_len = 8,
                                 .duration_ns = 1500000000};
    struct cm_err err;
    bool dies = x->len == 3 && memcmp(x->code, "die", 3) == 0;

    cm_err_set(&err, CM_ERR_SESSION_LOST, "the session's process ended: \"killed\"");
    manager.live_executions--;
    if (!dies) {
        CHECK(finished.count < 64);
        memcpy(finished.code[finished.count], x->code, x->len);
        finished.len[finished.count++] = x->len;
    }
    x->ops.done(x->arg, dies ? NULL : &res, &err);
    free(x);
}

/* A stream: the code as output, in two pieces, and a call that nobody answers. */
static void forget_call(void *arg)
{
    struct cm_exec *x = arg;

    x->ops.call_gone(x->arg, &x->call);
    cm_task_post(loop, &x->task, finish, x);
}

static void stream(void *arg)
{
    struct cm_exec *x = arg;
    const struct cm_call_request request = {
        .name = x->code, .name_len = x->len, .arguments = "{\n}", .arguments_len = 3, .number = 1};

    x->ops.output(x->arg, 1, x->code, x->len / 2);
    x->ops.output(x->arg, 1, x->code + x->len / 2, x->len - x->len / 2);
    if (x->ops.call)
        x->ops.call(x->arg, &x->call, &request);
    cm_task_post(loop, &x->task, x->ops.call ? forget_call : finish, x);
}

void cm_call_set_user(struct cm_call *call, void *user)
{
    call->user = user;
}

void *cm_call_user(const struct cm_call *call)
{
    return call->user;
}

void cm_call_answer(struct cm_call *call, const char *json, size_t len)
{
    (void)call;
    CHECK(model_json(json, len, CM_JSON_DEPTH_MAX).valid);
}

void cm_call_fail(struct cm_call *call, enum cm_call_failure why, const char *text, size_t len)
{
    (void)call;
    (void)why;
    CHECK(cm_utf8_valid(text, len));
}

int cm_executor_run(struct cm_executor *executor, const struct cm_run_request *run, const struct cm_exec_ops *ops,
                    void *arg, struct cm_run **ret, struct cm_err *err)
{
    struct cm_sessions *m = (struct cm_sessions *)executor;
    const struct cm_exec_request *req = &run->exec;
    const char *id = run->session;

    CHECK(req->code_len <= CODE_MAX && cm_utf8_valid(req->code, req->code_len));
    CHECK(!id || strlen(id) < CM_SESSION_ID_MAX);
    CHECK(req->correlation_id && strlen(req->correlation_id) <= CM_CORRELATION_MAX);
    CHECK(req->timeout_s >= 0);
    if (id && strcmp(id, "session-1") != 0)
        return cm_err_set(err, CM_ERR_NO_SESSION, "no session \"%.200s\"", id);
    if (req->context)
        CHECK(model_json(req->context, req->context_len, CM_JSON_DEPTH_MAX).valid);
    struct cm_exec *x = calloc(1, sizeof(*x));
    x->ops = *ops;
    x->arg = arg;
    x->len = req->code_len;
    memcpy(x->code, req->code, req->code_len);
    m->live_executions++;
    x->posted = !(x->len == 4 && memcmp(x->code, "hang", 4) == 0);
    if (x->posted)
        cm_task_post(loop, &x->task, run->streamed ? stream : finish, x);
    *ret = (struct cm_run *)x;
    return 0;
}

void cm_run_abandon(struct cm_run *run, bool lost)
{
    struct cm_exec *x = (struct cm_exec *)run;

    (void)lost;
    CHECK(manager.live_executions > 0);
    manager.live_executions--;
    if (x->posted)
        cm_task_cancel(loop, &x->task);
    free(x);
}

const char *cm_run_id(const struct cm_run *x)
{
    CHECK(x);
    return "exec-1";
}

bool cm_run_repeated(const struct cm_run *x)
{
    (void)x;
    return false;
}

/* Variables */

struct put {
    struct cm_task task;
    void (*done)(void *arg, const struct cm_put_result *res, const struct cm_err *err);
    void *arg;
};

static void put_done(void *arg)
{
    struct put *p = arg;
    const struct cm_put_result res = {.type = "str", .length = 1, .has_length = true};

    manager.live_puts--;
    p->done(p->arg, &res, NULL);
    free(p);
}

int cm_sessions_put(struct cm_sessions *m, const char *id, const struct cm_put_request *req,
                    void (*done)(void *arg, const struct cm_put_result *res, const struct cm_err *err), void *arg,
                    struct cm_exec **ret_exec, struct cm_err *err)
{
    struct put *p = calloc(1, sizeof *p);

    (void)err;
    CHECK(p && strcmp(id, "session-1") == 0);
    CHECK(req->name_len > 0 && req->name_len <= CM_PUT_NAME_MAX && cm_utf8_valid(req->name, req->name_len));
    CHECK(!memchr(req->name, '\0', req->name_len));
    CHECK(lseek(req->fd, 0, SEEK_END) == (off_t)req->length && req->length <= conf.max_upload);
    close(req->fd);
    p->done = done;
    p->arg = arg;
    m->live_puts++;
    cm_task_post(loop, &p->task, put_done, p);
    *ret_exec = (struct cm_exec *)p;
    return 0;
}

void cm_exec_abandon(struct cm_exec *exec)
{
    struct put *p = (struct put *)exec;

    manager.live_puts--;
    cm_task_cancel(loop, &p->task);
    free(p);
}

uint64_t cm_pressure_left(struct cm_pressure *p)
{
    (void)p;
    return UINT64_MAX;
}

static void created(void *arg)
{
    struct creation *c = arg;

    manager.live_creations--;
    c->done(c->arg, "session-1", NULL);
    free(c);
}

int cm_sessions_create_for(struct cm_sessions *m, const struct cm_session_owner *owner,
                           const struct cm_limits_asked *limits, const char *correlation_id,
                           void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                           struct cm_err *err)
{
    struct creation *c = calloc(1, sizeof *c);

    (void)err;
    CHECK(owner && limits && c && correlation_id);
    m->live_creations++;
    c->done = done;
    c->arg = arg;
    cm_task_post(loop, &c->task, created, c);
    return 0;
}

bool cm_sessions_ready(const struct cm_sessions *m)
{
    return m->live_executions == 0;
}

int cm_sessions_info(struct cm_sessions *m, const char *id, struct cm_session_info *ret, struct cm_err *err)
{
    (void)m;
    if (strcmp(id, "session-1") != 0)
        return cm_err_set(err, CM_ERR_NO_SESSION, "no session \"%.200s\"", id);
    *ret = (struct cm_session_info){.id = "session-1", .state = "idle", .expires_in_s = -1};
    ret->limits.at[CM_LIMIT_MEMORY] = 1 << 20;
    return 0;
}

void cm_sessions_each(struct cm_sessions *m, void (*each)(void *arg, const struct cm_session_info *info), void *arg)
{
    struct cm_session_info info = {.id = "session-1", .owner = ""};

    (void)m;
    each(arg, &info);
}

/* The server */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    CHECK(cm_conf_defaults(&conf, NULL) == 0);
    conf.max_body = 4096;
    conf.max_code_length = CODE_MAX;
    conf.max_upload = 8192;
    loop = cm_loop_new(NULL);
    metrics = cm_metrics_new();
    struct cm_api_config config = {.conf = &conf,
                                   .sessions = &manager,
                                   .executor = (struct cm_executor *)&manager,
                                   .metrics = metrics,
                                   .loopback = true};
    CHECK(cm_api_open(loop, &config, &api, NULL) == 0);
    return 0;
}

/* The client */

static struct {
    char bytes[1 << 20];
    size_t len;
    bool closed;
} heard;

static void listen_to(int fd)
{
    ssize_t n = 1;

    while (n > 0 && heard.len < sizeof heard.bytes) {
        n = recv(fd, heard.bytes + heard.len, sizeof heard.bytes - heard.len, MSG_DONTWAIT);
        heard.len += n > 0 ? (size_t)n : 0;
    }
    heard.closed |= n == 0 && heard.len < sizeof heard.bytes;
}

static void talk(int fd, const uint8_t *data, size_t size, unsigned seed)
{
    while (size > 0) {
        size_t n = seed % 16 == 0 ? size : 1 + seed * 7 % 61;
        n = n < size ? n : size;
        if (send(fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n)
            return;
        data += n;
        size -= n;
        seed = seed * 5 + 3;
        fuzz_turns(loop, 1);
        listen_to(fd);
    }
}

/* The answers */

static size_t content_length(const char *head, size_t len)
{
    static const char name[] = "\r\nContent-Length: ";
    const char *at = memmem(head, len, name, sizeof name - 1);

    return at ? strtoul(at + sizeof name - 1, NULL, 10) : 0;
}

static void check_output(const char *body, size_t len)
{
    struct cm_json_member m[] = {{.name = "stdout"}};
    char *copy = fuzz_copy(body, len);
    size_t n;

    CHECK(cm_json_object(copy, len, m, 1, NULL) == 0);
    if (m[0].value.kind == CM_JSON_STRING) {
        CHECK(finished.seen < finished.count && cm_json_decode(&m[0].value, &n));
        CHECK(n == finished.len[finished.seen] && memcmp(m[0].value.raw, finished.code[finished.seen], n) == 0);
        finished.seen++;
    }
    free(copy);
}

struct events {
    unsigned count;
    bool ended;
    struct cm_buf text;
};

static int on_event(void *arg, const char *event, char *data, size_t len)
{
    struct events *e = arg;
    struct cm_json_member m[] = {{.name = "text"}};
    size_t n;

    CHECK(!e->ended && (e->count++ == 0) == (strcmp(event, "start") == 0));
    CHECK(model_json(data, len, CM_JSON_DEPTH_MAX).valid);
    e->ended = strcmp(event, "result") == 0 || strcmp(event, "error") == 0;
    if (strcmp(event, "result") == 0) {
        unsigned at = finished.seen;
        check_output(data, len);
        CHECK(finished.seen == at + 1 && e->text.len == finished.len[at]);
        CHECK(memcmp(cm_buf_data(&e->text), finished.code[at], e->text.len) == 0);
    } else if (strcmp(event, "output") == 0) {
        CHECK(cm_json_object(data, len, m, 1, NULL) == 0 && cm_json_decode(&m[0].value, &n));
        CHECK(cm_buf_append(&e->text, m[0].value.raw, n) == 0);
    }
    return 0;
}

/* The next piece of a body; false when it was cut there. */
static bool next_piece(const char *at, size_t left, size_t *used, size_t *ret)
{
    const char *line = memmem(at + *used, left - *used, "\r\n", 2);
    char *end;

    if (!line)
        return false;
    *ret = strtoul(at + *used, &end, 16);
    CHECK(end == line && end > at + *used);
    *used = (size_t)(line + 2 - at);
    return *used + *ret + 2 <= left;
}

/* The body of a stream, in pieces or not; returns its length. One whose client has closed its side is cut anywhere, and
 * nothing comes behind it. */
static size_t check_stream(const char *at, size_t left, bool chunked)
{
    struct events events = {0};
    struct cm_sse sse;
    size_t used = 0, piece = 1;

    cm_sse_init(&sse, 1 << 20);
    cm_buf_init(&events.text, 1 << 20);
    if (!chunked)
        CHECK(cm_sse_feed(&sse, at, left, on_event, &events) == 0);
    while (chunked && piece > 0 && next_piece(at, left, &used, &piece)) {
        CHECK(cm_sse_feed(&sse, at + used, piece, on_event, &events) == 0);
        used += piece + 2;
    }
    CHECK(events.ended || piece > 0);
    cm_buf_done(&events.text);
    cm_sse_done(&sse);
    return chunked && piece == 0 ? used : left;
}

/* One answer; returns its length. What the daemon answers by itself is HTML, all of ours is JSON or metrics. */
static size_t check_answer(const char *at, size_t left, bool no_body)
{
    const char *end = memmem(at, left, "\r\n\r\n", 4);

    CHECK(left > 12 && memcmp(at, "HTTP/1.", 7) == 0 && end);
    int status = atoi(at + 9);
    size_t head = (size_t)(end - at) + 4, body = content_length(at, head);
    CHECK(status == 100 || status == 200 || (status >= 400 && status < 506));
    if (status == 100)
        return head;
    if (no_body && left - head < body)
        return left;
    if (memmem(at, head, "text/event-stream", 17))
        return head + check_stream(end + 4, left - head, memmem(at, head, "chunked", 7));
    bool json = memmem(at, head, "application/json", 16);
    CHECK(json || status >= 400 || memmem(at, head, "text/plain; version=0.0.4", 25));
    if (json) {
        CHECK(memmem(at, head, "nosniff", 7) || status == 408 || status == 413);
        CHECK(memmem(at, head, "x-correlation-id: ", 18));
    }
    /* libmicrohttpd 0.9.75 sends the head of its own refusal twice when an earlier request was suspended; the
     * connection ends with it. */
    if (!json && status >= 400)
        return left;
    CHECK(left - head >= body);
    if (!json || no_body)
        return head + body;
    CHECK(model_json(end + 4, body, CM_JSON_DEPTH_MAX).valid);
    if (status == 200)
        check_output(end + 4, body);
    else if (status != 503 || !memmem(end, body + 4, "not_ready", 9))
        CHECK(memmem(end, body + 4, "\"detail\":", 9) && memmem(end, body + 4, "\"code\":", 7));
    return head + body;
}

static void check_answers(const uint8_t *data, size_t size)
{
    bool no_body = memmem(data, size, "HEAD", 4);

    for (size_t at = 0; at < heard.len && !(no_body && at > 0);)
        at += check_answer(heard.bytes + at, heard.len - at, no_body);
    CHECK(heard.len == 0 || no_body || finished.seen == finished.count);
}

static void end(int fd, bool leave)
{
    if (leave)
        close(fd);
    else
        shutdown(fd, SHUT_WR);
    for (int i = 0; i < TURNS && !heard.closed; i++) {
        fuzz_turns(loop, 1);
        if (!leave)
            listen_to(fd);
        heard.closed |= leave && i == 30;
    }
    CHECK(heard.closed);
    if (!leave)
        close(fd);
    fuzz_turns(loop, 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct cm_http *http = cm_api_http(api);
    int pair[2];

    if (size < 1 || size > 16384)
        return 0;
    bool leave = (data[0] & 0xc0) == 0xc0;
    finished.count = finished.seen = 0;
    heard.len = 0;
    heard.closed = false;
    int lowest = fuzz_lowest_fd();
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(MHD_add_connection(http->daemon, pair[0], (struct sockaddr *)&address, sizeof address) == MHD_YES);
    cm_http_run(http);
    talk(pair[1], data + 1, size - 1, data[0] & 0x3f);
    end(pair[1], leave);
    if (!leave)
        check_answers(data + 1, size - 1);
    CHECK(http->held == 0 && http->held_files == 0 && http->unread == 0 && !http->waiting);
    CHECK(manager.live_executions == 0 && manager.live_creations == 0 && manager.live_puts == 0);
    CHECK(fuzz_lowest_fd() == lowest);
    return 0;
}
