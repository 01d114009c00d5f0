/* SPDX-License-Identifier: Apache-2.0 */
/* An execution whose answer is a stream of events, and the calls of tools that its client answers (docs/streaming.md).
 *
 * It ends in one of three ways, and each of them frees it: the execution has ended, its client has left, or its client does not
 * read. The last one shows while an event is written, from inside a callback of the execution, which cannot be ended there:
 * a task does it in the next turn, and until then events are dropped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "front/http/internal.h"
#include "wire/json.h"
#include "wire/media.h"
#include "wire/sse.h"

#define EVENT_STREAM "text/event-stream"
#define BACKLOG_MAX  (8u << 20) /* bytes that may wait for the client */
#define FRAMING_MAX  64         /* bytes of an event around its data */

/* Code that runs behind the first. Its texts lie behind it. */
struct then {
    struct cm_limits_asked limits;
    double timeout_s;
    bool strict;
    char *code, *tools; /* tools: NULL for none */
    size_t code_len, tools_len;
};

/* The code waits for the client. */
struct open_call {
    struct live *live;
    struct cm_call *call;
    uint64_t number;
    struct open_call *prev, *next;
};

struct live {
    struct cm_api *api;
    struct cm_request *rq;
    struct cm_run *run; /* NULL between two */
    struct then *then; /* what comes next, or NULL */
    struct open_call *calls;
    struct cm_task leave_task, next_task;
    bool begun; /* `start` is written */
    bool overrun; /* the client does not read */
    char session[CM_SESSION_ID_MAX];
    struct {
        char bytes[4];
        size_t len;
    } rest[2]; /* of stdout and stderr: the beginning of a character */
    struct live *prev, *next; /* in api->live */
};

bool cm_api_wants_stream(const struct cm_request *rq)
{
    const char *list = cm_request_header(rq, "accept");

    return list && cm_media_list_names(list, strlen(list), EVENT_STREAM);
}

static void free_live(struct live *l)
{
    struct open_call *c, *next;

    DL_FOREACH_SAFE(l->calls, c, next) free(c);
    cm_task_cancel(l->api->loop, &l->leave_task);
    cm_task_cancel(l->api->loop, &l->next_task);
    free(l->then);
    DL_DELETE(l->api->live, l);
    free(l);
}

static void on_gone(void *arg)
{
    struct live *l = arg;

    if (l->run)
        cm_run_abandon(l->run, true);
    free_live(l);
}

static void leave(void *arg)
{
    struct live *l = arg;

    cm_request_end(l->rq, true);
    on_gone(l);
}

/* Events */

/* JSON that comes from a session may have line breaks between its tokens, and nowhere else. */
static void make_one_line(char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] == '\n' || text[i] == '\r')
            text[i] = ' ';
}

/* `rc`: of writing the data. */
static void put(struct live *l, const char *event, struct cm_buf *data, int rc)
{
    cm_autobuf struct cm_buf text;

    cm_buf_init(&text, data->len + FRAMING_MAX);
    make_one_line(cm_buf_data(data), data->len);
    rc = rc ? rc : cm_sse_put(&text, event, NULL, cm_buf_data(data), data->len);
    if (rc == 0 && !l->overrun)
        rc = cm_request_write(l->rq, cm_buf_data(&text), text.len);
    if (rc < 0) {
        l->overrun = true;
        cm_task_post(l->api->loop, &l->leave_task, leave, l);
    }
}

static void begin(struct live *l)
{
    if (l->begun)
        return;
    cm_autobuf struct cm_buf data;
    cm_buf_init(&data, l->api->event_max);
    l->begun = true;
    int rc = cm_buf_printf(&data, "{\"execution_id\":\"%s\"}", cm_run_id(l->run));
    put(l, "start", &data, rc);
}

/* Output comes cut anywhere, also inside a character, and may be no text at all. */
static void put_output(struct live *l, int stream, const char *bytes, size_t len)
{
    cm_autobuf struct cm_buf text, data;

    cm_buf_init(&text, 3 * len);
    cm_buf_init(&data, l->api->event_max);
    int rc = cm_utf8_append(&text, bytes, len);
    rc = rc ? rc : cm_buf_printf(&data, "{\"stream\":\"%s\",\"text\":", stream == 1 ? "stdout" : "stderr");
    rc = rc ? rc : cm_json_put_string(&data, cm_buf_data(&text), text.len);
    rc = rc ? rc : cm_buf_puts(&data, "}");
    put(l, "output", &data, rc);
}

static void on_output(void *arg, int stream, const char *bytes, size_t len)
{
    struct live *l = arg;
    char *rest = l->rest[stream - 1].bytes;
    size_t *rest_len = &l->rest[stream - 1].len;

    begin(l);
    if (l->overrun)
        return;
    cm_autobuf struct cm_buf all;
    cm_buf_init(&all, *rest_len + len);
    if (cm_buf_append(&all, rest, *rest_len) < 0 || cm_buf_append(&all, bytes, len) < 0) {
        put(l, "output", &all, CM_ERR_NO_MEMORY);
        return;
    }
    *rest_len = cm_utf8_cut_end(cm_buf_data(&all), all.len);
    size_t whole = all.len - *rest_len;
    memcpy(rest, cm_buf_data(&all) + whole, *rest_len);
    if (whole > 0)
        put_output(l, stream, cm_buf_data(&all), whole);
}

static void on_call(void *arg, struct cm_call *call, const struct cm_call_request *request)
{
    static const char text[] = "no memory for the call";
    struct live *l = arg;
    struct open_call *c = calloc(1, sizeof(*c));
    cm_autobuf struct cm_buf data;

    cm_buf_init(&data, l->api->event_max);
    if (!c) {
        cm_call_fail(call, CM_CALL_UNAVAILABLE, text, strlen(text));
        return;
    }
    c->live = l;
    c->call = call;
    c->number = request->number;
    cm_call_set_user(call, c);
    DL_APPEND(l->calls, c);
    begin(l);
    int rc = cm_buf_printf(&data, "{\"call\":%llu,\"name\":", (unsigned long long)c->number);
    rc = rc ? rc : cm_json_put_string(&data, request->name, request->name_len);
    rc = rc ? rc : cm_buf_puts(&data, ",\"arguments\":");
    rc = rc ? rc : cm_buf_append(&data, request->arguments, request->arguments_len);
    rc = rc ? rc : cm_buf_puts(&data, "}");
    put(l, "call", &data, rc);
}

static void on_call_gone(void *arg, struct cm_call *call)
{
    struct live *l = arg;
    struct open_call *c = cm_call_user(call);
    cm_autobuf struct cm_buf data;

    cm_buf_init(&data, l->api->event_max);
    int rc = cm_buf_printf(&data, "{\"call\":%llu}", (unsigned long long)c->number);
    put(l, "call_gone", &data, rc);
    DL_DELETE(l->calls, c);
    free(c);
}

static void put_error(struct live *l, const struct cm_err *err)
{
    cm_autobuf struct cm_buf data;
    char status[32];

    cm_buf_init(&data, l->api->event_max);
    snprintf(status, sizeof(status), "\"status\":%d,", cm_err_info(err->code)->http);
    int rc = cm_http_put_error(&data, err, status);
    put(l, "error", &data, rc);
}

/* False: the stream ends with an error in its place. */
static bool put_result(struct live *l, const struct cm_exec_result *res)
{
    cm_autobuf struct cm_buf data;
    struct cm_err err;

    cm_buf_init(&data, l->api->answer_max);
    int rc = cm_api_write_result(&data, res, l->session, cm_run_id(l->run), NULL);
    if (rc == 0) {
        put(l, "result", &data, 0);
        return true;
    }
    cm_err_set(&err, rc, "the answer could not be written");
    put_error(l, &err);
    return false;
}

static void end(struct live *l)
{
    cm_request_end(l->rq, l->overrun);
    free_live(l);
}

static void next(void *arg);

static void on_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
{
    struct live *l = arg;

    begin(l);
    for (int i = 0; i < 2; i++) {
        if (l->rest[i].len > 0)
            put_output(l, i + 1, l->rest[i].bytes, l->rest[i].len);
        l->rest[i].len = 0;
    }
    bool good = res && put_result(l, res);
    if (!res)
        put_error(l, err);
    l->run = NULL;
    if (good && l->then && !l->overrun)
        cm_task_post(l->api->loop, &l->next_task, next, l); /* the session is in the middle of its answer */
    else
        end(l);
}

static int run(struct live *l, struct cm_run_request *req, struct cm_err *err)
{
    static const struct cm_exec_ops ops = {
        .output = on_output, .done = on_done, .call = on_call, .call_gone = on_call_gone};
    static const struct cm_exec_ops no_calls = {.output = on_output, .done = on_done};

    req->streamed = true;
    l->begun = false;
    return cm_executor_run(l->api->config.executor, req, req->caller_tools ? &ops : &no_calls, l, &l->run, err);
}

static void next(void *arg)
{
    struct live *l = arg;
    struct then *then = cm_steal(l->then);
    struct cm_run_request req = {
        .session = l->session,
        .caller_tools = then->tools,
        .caller_tools_len = then->tools_len,
        .key = cm_request_key(l->rq),
    };
    struct cm_limits caps;
    struct cm_err err;

    cm_key_caps(req.key, &l->api->caps, &caps);
    req.exec = (struct cm_exec_request){
        .code = then->code,
        .code_len = then->code_len,
        .mode = CM_EXEC_SESSION,
        .timeout_s = then->timeout_s,
        .limits = &then->limits,
        .caps = &caps,
        .correlation_id = cm_request_correlation(l->rq),
        .strict = then->strict,
    };
    int rc = run(l, &req, &err);
    free(then);
    if (rc < 0) {
        put_error(l, &err);
        end(l);
    } else if (cm_run_id(l->run)[0]) {
        begin(l);
    }
}

static struct then *copy_then(const struct cm_run_request *req, const char *code, size_t len, double timeout_s)
{
    struct then *t = malloc(sizeof(*t) + len + req->caller_tools_len + 2);

    if (!t)
        return NULL;
    *t = (struct then){.limits = *req->exec.limits,
                       .timeout_s = timeout_s,
                       .strict = req->exec.strict,
                       .code = (char *)(t + 1),
                       .code_len = len,
                       .tools_len = req->caller_tools_len};
    memcpy(t->code, code, len);
    t->code[len] = '\0';
    if (req->caller_tools) {
        t->tools = t->code + len + 1;
        memcpy(t->tools, req->caller_tools, t->tools_len);
        t->tools[t->tools_len] = '\0';
    }
    return t;
}

int cm_api_run_live(struct cm_request *rq, struct cm_run_request *req, const char *then, size_t then_len,
                    double then_timeout_s, struct cm_err *err)
{
    struct cm_api *a = api_of(rq);
    struct live *l = calloc(1, sizeof(*l));

    if (!l || (then && !(l->then = copy_then(req, then, then_len, then_timeout_s)))) {
        free(l);
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a stream");
    }
    l->api = a;
    l->rq = rq;
    snprintf(l->session, sizeof(l->session), "%s", req->session);
    int rc = run(l, req, err);
    if (rc < 0) {
        free(l->then);
        free(l);
        return rc;
    }
    DL_APPEND(a->live, l);
    cm_request_set_header(rq, "X-Accel-Buffering", "no"); /* proxies are to pass events on as they come */
    cm_request_stream(rq, EVENT_STREAM, BACKLOG_MAX, on_gone, l);
    if (cm_run_id(l->run)[0])
        begin(l);
    return 0;
}

/* Answers to calls */

static struct open_call *find_call(const struct cm_api *a, const char *session, const char *execution,
                                   const char *number)
{
    struct open_call *c = NULL;
    struct live *l;
    char text[24];

    DL_FOREACH(a->live, l)
    if (l->run && strcmp(cm_run_id(l->run), execution) == 0 && strcmp(l->session, session) == 0)
        break;
    if (l)
        DL_FOREACH(l->calls, c)
        {
            snprintf(text, sizeof(text), "%llu", (unsigned long long)c->number);
            if (strcmp(text, number) == 0)
                return c;
        }
    return NULL;
}

static int read_answer(struct cm_request *rq, struct cm_json_member m[static 2], struct cm_err *err)
{
    size_t len;
    char *text = cm_request_body(rq, &len);

    m[0] = (struct cm_json_member){.name = "result"};
    m[1] = (struct cm_json_member){.name = "error"};
    int rc = cm_json_object(text, len, m, 2, err);
    if (rc < 0)
        return rc;
    if ((m[0].value.kind == CM_JSON_ABSENT) == (m[1].value.kind == CM_JSON_ABSENT))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "body: must have either result or error");
    struct cm_json_value *error = &m[1].value;
    if (error->kind != CM_JSON_ABSENT && (error->kind != CM_JSON_STRING || !cm_json_decode(error, &error->len)))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "error: must be a string");
    return 0;
}

void cm_api_answer_call(struct cm_request *rq)
{
    const char *execution = cm_request_variable(rq, 1), *number = cm_request_variable(rq, 2);
    struct cm_session_info info;
    struct cm_json_member m[2];
    struct cm_err err;
    /* A session that there is not is said before anything else, as one that is somebody else's. */
    int rc = cm_sessions_info(api_of(rq)->config.sessions, cm_api_session(rq), &info, &err);
    rc = rc ? rc : read_answer(rq, m, &err);
    struct open_call *c = rc == 0 ? find_call(api_of(rq), cm_api_session(rq), execution, number) : NULL;

    if (rc == 0 && !c)
        cm_err_set(&err, CM_ERR_NO_CALL, "execution \"%.50s\" does not wait for call \"%.20s\"", execution, number);
    if (!c) {
        cm_request_fail(rq, &err);
        return;
    }
    struct live *l = c->live;
    struct cm_call *call = c->call;
    DL_DELETE(l->calls, c);
    free(c);
    if (m[0].value.kind != CM_JSON_ABSENT)
        cm_call_answer(call, m[0].value.raw, m[0].value.len);
    else
        cm_call_fail(call, CM_CALL_TOOL_ERROR, m[1].value.raw, m[1].value.len);
    cm_request_drop_body(rq);
    cm_request_answer(rq, 200, "{\"status\":\"ok\"}");
}
