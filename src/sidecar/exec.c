/* SPDX-License-Identifier: Apache-2.0 */
/* An execution: a stream of events, and requests beside it that answer the calls which come on it.
 *
 * After its last event the execution is over for its caller, but the object stays until the answer has ended, so that the
 * connection can be used again. What the caller does inside a callback can end it: it is freed when the reading returns. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "sidecar/internal.h"
#include "wire/media.h"

#define EVENT_MAX      (32u << 20) /* bytes of one event; a call's arguments may have 16 MiB */
#define STREAM_MAX     (1ull << 40)
#define CODE_MAX       (64u << 20) /* bytes of a request */
#define CALLS_MAX      4096u /* that wait at once */
#define CALL_BYTES     (16u << 20) /* what we ask for as the limit of a call's arguments and of its result */
#define CALL_COUNT     100000u
#define CALL_TIMEOUT_S 1000000u /* is cut to the sidecar's cap */
#define SLACK_S        90.0 /* beyond its timeout, without a word of the sidecar and without a call that waits for us */
#define INTERRUPT_S    30.0 /* the same after an interrupt: the sidecar ends what does not heed it */
#define END_S          5.0 /* between the last event and the end of the answer */

struct cm_sidecar_exec {
    struct cm_sidecar_exec *prev, *next;
    struct cm_sidecar *s;
    char session[ID_MAX + 1], id[ID_MAX + 1]; /* id: "" before it has started */
    struct cm_sidecar_ops ops;
    void *arg;
    struct cm_buf request, refusal;
    struct cm_sse sse;
    struct cm_fetch *fetch;
    struct cm_timer *timer;
    uint64_t patience_ns, heard_ns, then_patience_ns; /* the latter 0: nothing runs behind it */
    int status;
    bool interrupted; /* calls that wait are no reason any more to go on waiting */
    bool over; /* the caller hears nothing any more */
    bool reading; /* inside a callback of its fetch */
    bool dead; /* is freed when the reading returns */
    unsigned *calls; /* that wait for an answer of ours */
    unsigned calls_count, calls_room;
    struct cm_err err;
};

/* What was sent for the code that has run is nothing to what comes behind it. */
static void let_go(struct cm_sidecar_exec *x)
{
    struct cm_sidecar_op *op, *next;

    DL_FOREACH_SAFE(x->s->ops, op, next)
    {
        if (op->exec != x)
            continue;
        op->exec = NULL;
        if (op->kind == INTERRUPT)
            cm_sidecar_op_free(op);
    }
}

static void dispose(struct cm_sidecar_exec *x)
{
    cm_fetch_cancel(x->fetch);
    x->fetch = NULL;
    if (x->reading) {
        x->dead = true;
        return;
    }
    let_go(x);
    DL_DELETE(x->s->execs, x);
    cm_timer_close(x->timer);
    cm_sse_done(&x->sse);
    cm_buf_done(&x->request);
    cm_buf_done(&x->refusal);
    free(x->calls);
    free(x);
}

static void conclude(struct cm_sidecar_exec *x, const struct cm_sidecar_result *res, const struct cm_err *err)
{
    if (x->over)
        return;
    x->over = true;
    x->ops.done(x->arg, res, err);
}

/* `err` may be x's own. */
static void break_off(struct cm_sidecar_exec *x, const struct cm_err *err)
{
    conclude(x, NULL, err);
    dispose(x);
}

void cm_sidecar_exec_end_silently(struct cm_sidecar_exec *x)
{
    x->over = true;
    dispose(x);
}

bool cm_sidecar_exec_runs(const struct cm_sidecar_exec *x)
{
    return !x->over;
}

static void on_silence(void *arg)
{
    struct cm_sidecar_exec *x = arg;
    uint64_t now = cm_clock_ns();

    bool waits_for_us = x->calls_count > 0 && !x->interrupted;

    if (x->over) {
        dispose(x);
    } else if (waits_for_us || now < x->heard_ns + x->patience_ns) {
        uint64_t left = waits_for_us ? x->patience_ns : x->heard_ns + x->patience_ns - now;
        cm_timer_start(x->timer, left / CM_NS_PER_MS + 1, 0);
    } else {
        cm_err_set(&x->err, CM_ERR_SIDECAR, "the sidecar says nothing of a running execution any more");
        break_off(x, &x->err);
    }
}

/* Calls that wait for us */

static int add_call(struct cm_sidecar_exec *x, unsigned call)
{
    if (x->calls_count == x->calls_room) {
        unsigned room = x->calls_room ? 2 * x->calls_room : 16;
        unsigned *longer = room <= CALLS_MAX ? realloc(x->calls, room * sizeof *longer) : NULL;
        if (!longer)
            return cm_err_set(&x->err, CM_ERR_SIDECAR, "too many calls wait for an answer at once");
        x->calls = longer;
        x->calls_room = room;
    }
    x->calls[x->calls_count++] = call;
    return 0;
}

/* False when nobody waits for it. */
static bool remove_call(struct cm_sidecar_exec *x, unsigned call)
{
    for (unsigned i = 0; i < x->calls_count; i++) {
        if (x->calls[i] != call)
            continue;
        x->calls[i] = x->calls[--x->calls_count];
        x->heard_ns = cm_clock_ns(); /* the code's time goes on from here */
        return true;
    }
    return false;
}

static void send_answer(struct cm_sidecar_exec *x, unsigned call, bool is_failure, const char *lead, const char *text,
                        size_t len)
{
    struct cm_sidecar_op *op = cm_sidecar_op_new(x->s, ANSWER, "POST", NULL);

    if (!op)
        return; /* the call ends by its own time */
    op->exec = x;
    op->call = call;
    op->is_failure = is_failure;
    op->attempts_max = 4;
    op->type = "application/json";
    if (cm_sidecar_url(x->s, op->url, NULL, "/session/%s/executions/%s/calls/%u", x->session, x->id, call) < 0 ||
        cm_buf_reserve(&op->body, strlen(lead) + len + 1, NULL) < 0 || cm_buf_puts(&op->body, lead) < 0 ||
        cm_buf_append(&op->body, text, len) < 0 || cm_buf_puts(&op->body, "}") < 0 || cm_sidecar_op_send(op, NULL) < 0)
        cm_sidecar_op_free(op);
}

static void send_failure(struct cm_sidecar_exec *x, unsigned call, const char *text, size_t len)
{
    struct cm_buf mended, quoted;

    cm_buf_init(&mended, SMALL_MAX);
    cm_buf_init(&quoted, 6 * SMALL_MAX + 2);
    if (len > SMALL_MAX / 3) /* a byte that is no character becomes three */
        len = SMALL_MAX / 3;
    len -= cm_utf8_cut_end(text, len);
    if (cm_utf8_append(&mended, text, len) == 0 && cm_json_put_string(&quoted, cm_buf_data(&mended), mended.len) == 0)
        send_answer(x, call, true, "{\"error\": ", cm_buf_data(&quoted), quoted.len);
    cm_buf_done(&mended);
    cm_buf_done(&quoted);
}

void cm_sidecar_answer(struct cm_sidecar_exec *x, unsigned call, const char *json, size_t len)
{
    static const char refusal[] = "the answer is too long";

    if (x->over || !remove_call(x, call))
        return;
    if (len > ANSWER_MAX)
        send_failure(x, call, refusal, strlen(refusal));
    else
        send_answer(x, call, false, "{\"result\": ", json, len);
}

void cm_sidecar_fail(struct cm_sidecar_exec *x, unsigned call, const char *text, size_t len)
{
    if (!x->over && remove_call(x, call))
        send_failure(x, call, text, len);
}

void cm_sidecar_exec_answered(struct cm_sidecar_op *op, const struct cm_err *err)
{
    struct cm_sidecar_exec *x = op->exec;

    if (!err || err->code == CM_ERR_NO_CALL || err->code == CM_ERR_NO_SESSION || !x || x->over)
        return;
    if (err->code == CM_ERR_SIDECAR || op->is_failure)
        break_off(x, err); /* the code would wait for nothing */
    else
        send_failure(x, op->call, err->text, strlen(err->text)); /* a result that may not be so large, for one */
}

/* By its id: one that comes late shall not meet the session's next execution. */
static void send_interrupt(struct cm_sidecar_exec *x)
{
    struct cm_sidecar_op *op = cm_sidecar_op_new(x->s, INTERRUPT, "POST", NULL);

    if (!op)
        return;
    op->exec = x;
    op->attempts_max = 1000; /* while there is nothing to interrupt yet */
    op->type = "application/json";
    if (cm_buf_printf(&op->body, "{\"execution_id\": \"%s\"}", x->id) < 0 ||
        cm_sidecar_url(x->s, op->url, NULL, "/session/%s/interrupt", x->session) < 0 ||
        cm_sidecar_op_send(op, NULL) < 0)
        cm_sidecar_op_free(op);
}

/* Events */

static int misunderstood(struct cm_sidecar_exec *x, const char *event)
{
    return cm_err_set(&x->err, CM_ERR_SIDECAR, "the sidecar's event \"%.40s\" is not what it should be", event);
}

static int take_start(struct cm_sidecar_exec *x, char *data, size_t len)
{
    struct cm_json_member m = {.name = "execution_id"};
    const char *id;
    size_t id_len;

    if (cm_json_object(data, len, &m, 1, NULL) < 0 || cm_sidecar_read_text(&m.value, &id, &id_len, NULL) < 0 ||
        !cm_sidecar_is_id(id) || x->id[0])
        return misunderstood(x, "start");
    memcpy(x->id, id, id_len + 1);
    if (x->interrupted)
        send_interrupt(x);
    return 0;
}

static int take_output(struct cm_sidecar_exec *x, char *data, size_t len)
{
    struct cm_json_member m[] = {{.name = "stream"}, {.name = "text"}};
    const char *stream, *text;
    size_t stream_len, text_len;

    if (cm_json_object(data, len, m, 2, NULL) < 0 ||
        cm_sidecar_read_text(&m[0].value, &stream, &stream_len, NULL) < 0 ||
        cm_sidecar_read_text(&m[1].value, &text, &text_len, NULL) < 0)
        return misunderstood(x, "output");
    if (x->ops.output)
        x->ops.output(x->arg, strcmp(stream, "stderr") == 0 ? 2 : 1, text, text_len);
    return 0;
}

static bool read_number(const struct cm_json_value *value, unsigned *ret)
{
    double number = value->kind == CM_JSON_NUMBER ? cm_json_number(value) : -1;

    if (number < 0 || number > 4e9 || number != (double)(unsigned)number)
        return false;
    *ret = (unsigned)number;
    return true;
}

static int take_call(struct cm_sidecar_exec *x, char *data, size_t len)
{
    struct cm_json_member m[] = {{.name = "call"}, {.name = "name"}, {.name = "arguments"}};
    const char *name;
    size_t name_len;
    unsigned call;

    if (!x->id[0] || cm_json_object(data, len, m, 3, NULL) < 0 || !read_number(&m[0].value, &call) ||
        cm_sidecar_read_text(&m[1].value, &name, &name_len, NULL) < 0 || m[2].value.kind != CM_JSON_OBJECT)
        return misunderstood(x, "call");
    int rc = add_call(x, call);
    if (rc == 0)
        x->ops.call(x->arg, call, name, m[2].value.raw, m[2].value.len);
    return rc;
}

static int take_call_gone(struct cm_sidecar_exec *x, char *data, size_t len)
{
    struct cm_json_member m = {.name = "call"};
    unsigned call;

    if (cm_json_object(data, len, &m, 1, NULL) < 0 || !read_number(&m.value, &call))
        return misunderstood(x, "call_gone");
    if (remove_call(x, call) && x->ops.call_gone)
        x->ops.call_gone(x->arg, call);
    return 0;
}

static void take_first(struct cm_sidecar_exec *x, const struct cm_sidecar_result *res)
{
    x->patience_ns = x->then_patience_ns;
    x->then_patience_ns = 0;
    x->id[0] = '\0';
    x->calls_count = 0;
    x->interrupted = false;
    let_go(x);
    cm_timer_start(x->timer, x->patience_ns / CM_NS_PER_MS + 1, 0);
    x->ops.result(x->arg, res);
}

static int take_result(struct cm_sidecar_exec *x, char *data, size_t len)
{
    struct cm_sidecar_result res;
    int rc = cm_sidecar_read_result(data, len, &res, &x->err);

    if (rc == 0 && x->then_patience_ns > 0)
        take_first(x, &res);
    else if (rc == 0)
        conclude(x, &res, NULL);
    return rc;
}

static int take_error(struct cm_sidecar_exec *x, char *data, size_t len)
{
    cm_sidecar_read_error(500, data, len, &x->err);
    conclude(x, NULL, &x->err);
    return 0;
}

static int on_event(void *arg, const char *event, char *data, size_t len)
{
    static const struct {
        const char *name;
        int (*take)(struct cm_sidecar_exec *x, char *data, size_t len);
    } events[] = {{"start", take_start},         {"output", take_output}, {"call", take_call},
                  {"call_gone", take_call_gone}, {"result", take_result}, {"error", take_error}};
    struct cm_sidecar_exec *x = arg;
    int rc = 0;

    for (size_t i = 0; i < sizeof events / sizeof events[0] && !x->over; i++) /* unknown ones are passed over */
        if (strcmp(events[i].name, event) == 0) {
            rc = events[i].take(x, data, len);
            break;
        }
    return x->dead ? CM_ERR_CANCELLED : rc;
}

/* The request */

static void on_head(void *arg, int status)
{
    struct cm_sidecar_exec *x = arg;
    const char *type = cm_fetch_header(x->fetch, "Content-Type");
    struct cm_media media;

    x->status = status;
    if (status == 200 &&
        (!type || !cm_media_read(type, strlen(type), &media) || !cm_media_is(&media, "text/event-stream")))
        x->status = 0; /* something else answers at this address */
}

static void on_data(void *arg, const char *data, size_t len)
{
    struct cm_sidecar_exec *x = arg;

    x->heard_ns = cm_clock_ns();
    if (x->status != 200) {
        size_t room = SMALL_MAX - x->refusal.len;
        cm_buf_append(&x->refusal, data, len < room ? len : room);
        return;
    }
    x->reading = true;
    int rc = cm_sse_feed(&x->sse, data, len, on_event, x);
    x->reading = false;
    if (rc == CM_ERR_TOO_LARGE)
        cm_err_set(&x->err, CM_ERR_SIDECAR, "an event of the sidecar has more than %u MiB", EVENT_MAX >> 20);
    else if (rc == CM_ERR_NO_MEMORY)
        cm_err_set(&x->err, CM_ERR_NO_MEMORY, "no memory for an event of the sidecar");
    if (x->dead)
        dispose(x);
    else if (rc < 0)
        break_off(x, &x->err);
    else if (x->over)
        cm_timer_start(x->timer, (uint64_t)(END_S * 1000), 0);
}

static void on_done(void *arg, const struct cm_fetch_end *end)
{
    struct cm_sidecar_exec *x = arg;

    x->fetch = NULL;
    if (end->why != CM_FETCH_OK)
        cm_sidecar_no_answer(end, &x->err);
    else if (x->status == 200)
        cm_err_set(&x->err, CM_ERR_SIDECAR, "the sidecar ended an execution without its result");
    else if (end->status == 200)
        cm_err_set(&x->err, CM_ERR_SIDECAR, "the sidecar does not answer with events: is it one of this version?");
    else
        cm_sidecar_read_error(end->status, cm_buf_data(&x->refusal), x->refusal.len, &x->err);
    break_off(x, &x->err);
}

/* Nobody here looks at the variables of an answer. */
static int write_limits(struct cm_buf *to, const struct cm_sidecar_code *code)
{
    int rc = cm_buf_puts(to, ", \"limits\": {\"locals\": 2");

    if (rc == 0 && code->timeout_s > 0)
        rc = cm_buf_printf(to, ", \"timeout\": %.3f", fmax(code->timeout_s, 0.01));
    if (rc == 0 && code->output_max > 0)
        rc = cm_buf_printf(to, ", \"output\": %llu", (unsigned long long)code->output_max);
    if (rc == 0 && code->caller_tools)
        rc = cm_buf_printf(to, ", \"tool_calls\": %u, \"tool_argument\": %u, \"tool_result\": %u, \"tool_timeout\": %u",
                           CALL_COUNT, CALL_BYTES, CALL_BYTES, CALL_TIMEOUT_S);
    return rc < 0 ? rc : cm_buf_puts(to, "}");
}

static int write_request(struct cm_buf *to, const struct cm_sidecar_code *code)
{
    int rc = cm_buf_puts(to, "{\"code\": ");

    if (rc == 0)
        rc = cm_json_put_string(to, code->code, code->len);
    if (rc == 0)
        rc = write_limits(to, code);
    if (rc == 0 && code->caller_tools)
        rc = cm_buf_puts(to, ", \"caller_tools\": ");
    if (rc == 0 && code->caller_tools)
        rc = cm_buf_puts(to, code->caller_tools);
    if (rc == 0 && code->then)
        rc = cm_buf_puts(to, ", \"then\": {\"code\": ");
    if (rc == 0 && code->then)
        rc = cm_json_put_string(to, code->then, strlen(code->then));
    if (rc == 0 && code->then)
        rc = cm_buf_printf(to, ", \"timeout\": %.3f}", code->then_timeout_s);
    return rc < 0 ? rc : cm_buf_puts(to, "}");
}

static int send_request(struct cm_sidecar_exec *x, const struct cm_sidecar_code *code, struct cm_err *err)
{
    static const struct cm_fetch_ops ops = {.head = on_head, .data = on_data, .done = on_done};
    char url[URL_MAX];
    struct headers headers;
    int rc = write_request(&x->request, code);

    if (rc < 0)
        return cm_err_set(err, rc, rc == CM_ERR_TOO_LARGE ? "the code is too long" : "no memory for the code");
    rc = cm_sidecar_url(x->s, url, err, "/session/%s/execute", x->session);
    x->timer = cm_timer_open(x->s->loop, on_silence, x, err);
    if (rc < 0 || !x->timer)
        return rc < 0 ? rc : CM_ERR_NO_MEMORY;
    cm_sidecar_headers(x->s, "text/event-stream", "application/json", code->correlation, &headers);
    struct cm_fetch_request req = {.method = "POST",
                                   .url = url,
                                   .headers = headers.line,
                                   .body = cm_buf_data(&x->request),
                                   .body_len = x->request.len,
                                   .body_fd = -1,
                                   .answer_max = STREAM_MAX,
                                   .beside = true};
    return cm_fetch_start(x->s->egress, &req, &ops, x, &x->fetch, err);
}

static uint64_t patience(double timeout_s)
{
    return (uint64_t)((fmin(timeout_s > 0 ? timeout_s : 300, 1e8) + SLACK_S) * (double)CM_NS_PER_S);
}

int cm_sidecar_execute(struct cm_sidecar *s, const char *session, const struct cm_sidecar_code *code,
                       const struct cm_sidecar_ops *ops, void *arg, struct cm_sidecar_exec **ret, struct cm_err *err)
{
    if (!cm_sidecar_is_id(session))
        return cm_err_set(err, CM_ERR_NO_SESSION, "this is no name of a session");
    struct cm_sidecar_exec *x = calloc(1, sizeof *x);
    if (!x)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for an execution");
    *x = (struct cm_sidecar_exec){.s = s, .ops = *ops, .arg = arg, .heard_ns = cm_clock_ns()};
    x->patience_ns = patience(code->timeout_s);
    x->then_patience_ns = code->then ? patience(code->then_timeout_s) : 0;
    memcpy(x->session, session, strlen(session) + 1);
    cm_buf_init(&x->request, CODE_MAX);
    cm_buf_init(&x->refusal, SMALL_MAX);
    cm_sse_init(&x->sse, EVENT_MAX);
    DL_APPEND(s->execs, x);
    int rc = send_request(x, code, err);
    if (rc < 0) {
        cm_sidecar_exec_end_silently(x);
        return rc;
    }
    cm_timer_start(x->timer, x->patience_ns / CM_NS_PER_MS + 1, 0);
    *ret = x;
    return 0;
}

void cm_sidecar_interrupt(struct cm_sidecar_exec *x)
{
    if (x->over || x->interrupted)
        return;
    x->interrupted = true;
    x->heard_ns = cm_clock_ns();
    x->patience_ns = (uint64_t)(INTERRUPT_S * (double)CM_NS_PER_S);
    cm_timer_start(x->timer, (uint64_t)(INTERRUPT_S * 1000) + 1, 0);
    if (x->id[0]) /* else when it has one */
        send_interrupt(x);
}

void cm_sidecar_abandon(struct cm_sidecar_exec *x)
{
    if (x && !x->over)
        cm_sidecar_exec_end_silently(x);
}
