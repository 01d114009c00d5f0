/* SPDX-License-Identifier: Apache-2.0 */
/* One short function per route of tables/routes.def: each sets an answer, or waits for one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/http/internal.h"
#include "obs/metrics.h"
#include "wire/execute.h"
#include "wire/json.h"
#include "wire/limits.h"

#define SMALL_MAX       4096
#define LIST_MAX        (100000u * (CM_SESSION_ID_MAX + 4)) /* the most that MAX_SESSIONS allows */
#define METRICS_MAX     (1u << 20)
#define IDEMPOTENCY_MAX 255

/* Executions */

static bool is_once(const struct cm_request *rq)
{
    return strcmp(cm_request_route(rq)->path, "/execute") == 0;
}

/* NULL where it is a fresh one; an empty one is nobody's. */
static const char *session_of(const struct cm_request *rq)
{
    const char *named = is_once(rq) ? cm_request_header(rq, "x-session-id") : cm_api_session(rq);

    return is_once(rq) && named && !named[0] ? NULL : named;
}

static void on_execute_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
{
    struct cm_request *rq = arg;
    const struct cm_run *run = cm_request_user(rq);
    struct cm_buf buf;

    if (!res) {
        cm_request_fail(rq, err);
        return;
    }
    if (cm_run_repeated(run))
        cm_request_set_header(rq, "x-codemode-repeated", "true");
    cm_buf_init(&buf, api_of(rq)->answer_max);
    int rc =
        cm_api_write_result(&buf, res, session_of(rq), cm_run_id(run), is_once(rq) ? cm_request_correlation(rq) : NULL);
    cm_request_answer_buf(rq, 200, NULL, &buf, rc);
}

static void on_execute_gone(void *arg)
{
    cm_run_abandon(cm_request_user(arg), true);
}

static bool is_good_key(const char *key)
{
    size_t len = strlen(key);

    for (size_t i = 0; i < len; i++)
        if (key[i] < ' ' || key[i] > '~')
            return false;
    return len > 0 && len <= IDEMPOTENCY_MAX;
}

static int take_headers(struct cm_request *rq, struct cm_run_request *req, struct cm_err *err)
{
    const char *session = session_of(rq), *idempotency = cm_request_header(rq, "idempotency-key");

    if (session && strlen(session) >= CM_SESSION_ID_MAX)
        return cm_err_set(err, CM_ERR_NO_SESSION, "x-session-id: no such session");
    if (idempotency && !is_good_key(idempotency))
        return cm_err_set(err, CM_ERR_BAD_REQUEST, "Idempotency-Key: must be 1 to %d printable ASCII characters",
                          IDEMPOTENCY_MAX);
    req->idempotency_key = idempotency;
    req->session = session;
    req->key = cm_request_key(rq);
    return is_once(rq) && session
               ? cm_sessions_check_owner(api_of(rq)->config.sessions, session, cm_key_name(req->key), err)
               : 0;
}

static int run_and_wait(struct cm_request *rq, const struct cm_run_request *req, struct cm_err *err)
{
    static const struct cm_exec_ops ops = {.done = on_execute_done};
    struct cm_run *started;

    if (req->caller_tools)
        return cm_err_set(err, CM_ERR_BAD_FIELD,
                          "caller_tools: only a stream can call them (Accept: text/event-stream)");
    int rc = cm_executor_run(api_of(rq)->config.executor, req, &ops, rq, &started, err);
    if (rc < 0)
        return rc;
    cm_request_set_user(rq, started);
    cm_request_wait(rq, on_execute_gone, rq);
    return 0;
}

static int start(struct cm_request *rq, enum cm_exec_mode mode, struct cm_err *err)
{
    struct cm_run_request req = {0};
    struct cm_execute_body body;
    struct cm_limits caps;
    size_t len;
    char *text = cm_request_body(rq, &len);

    cm_key_caps(cm_request_key(rq), &api_of(rq)->caps, &caps);
    int rc = cm_execute_read(text, len, &caps, &body, err);
    rc = rc ? rc : take_headers(rq, &req, err);
    if (rc < 0)
        return rc;
    cm_request_offer_correlation(rq, body.correlation_id, body.correlation_id_len);
    req.exec = (struct cm_exec_request){
        .code = body.code,
        .code_len = body.code_len,
        .context = body.context,
        .context_len = body.context_len,
        .mode = mode,
        .timeout_s = body.timeout_s,
        .limits = &body.limits,
        .caps = &caps,
        .correlation_id = cm_request_correlation(rq),
        .atomic = body.atomic,
        .strict = body.strict,
        .config = body.config,
        .config_len = body.config_len,
    };
    req.available_tools = body.available_tools;
    req.available_tools_len = body.available_tools_len;
    req.caller_tools = body.caller_tools;
    req.caller_tools_len = body.caller_tools_len;
    req.correlation_is_clients = cm_request_correlation_is_clients(rq);
    if (!is_once(rq) && cm_api_wants_stream(rq))
        return cm_api_run_live(rq, &req, body.then, body.then_len, body.then_timeout_s, err);
    return body.then ? cm_err_set(err, CM_ERR_BAD_FIELD, "then: only a stream can have it (Accept: text/event-stream)")
                     : run_and_wait(rq, &req, err);
}

static void run(struct cm_request *rq, enum cm_exec_mode mode)
{
    struct cm_err err;
    int rc = start(rq, mode, &err);

    cm_request_drop_body(rq);
    if (rc < 0)
        cm_request_fail(rq, &err);
}

void cm_api_execute(struct cm_request *rq)
{
    run(rq, CM_EXEC_SESSION);
}

void cm_api_execute_once(struct cm_request *rq)
{
    run(rq, CM_EXEC_ONESHOT);
}

/* Sessions */

/* What cannot be withdrawn: it outlives a client that leaves meanwhile. */
struct change {
    struct cm_request *rq; /* NULL: the client has left */
    struct cm_sessions *sessions;
};

static void on_change_gone(void *arg)
{
    struct change *c = arg;

    c->rq = NULL;
}

static struct change *begin_change(struct cm_request *rq, struct cm_err *err)
{
    struct change *c = calloc(1, sizeof(*c));

    if (!c) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request");
        return NULL;
    }
    c->rq = rq;
    c->sessions = api_of(rq)->config.sessions;
    return c;
}

/* `rc`: of beginning it. */
static void wait_for_change(struct change *c, struct cm_request *rq, int rc, const struct cm_err *err)
{
    if (rc < 0) {
        free(c);
        cm_request_fail(rq, err);
        return;
    }
    cm_request_wait(rq, on_change_gone, c);
}

static void write_created(struct cm_request *rq, const char *id)
{
    char text[CM_SESSION_ID_MAX + 32];

    snprintf(text, sizeof(text), "{\"session_id\":\"%s\"}", id);
    cm_request_answer(rq, 200, text);
}

static void on_created(void *arg, const char *id, const struct cm_err *err)
{
    struct change *c = arg;

    if (!c->rq && id)
        cm_sessions_delete(c->sessions, id);
    else if (c->rq && id)
        write_created(c->rq, id);
    else if (c->rq)
        cm_request_fail(c->rq, err);
    free(c);
}

void cm_api_create_session(struct cm_request *rq)
{
    const struct cm_key *key = cm_request_key(rq);
    struct cm_limits_asked limits;
    struct cm_limits caps;
    struct cm_err err;
    struct cm_session_owner owner = {
        .name = cm_key_name(key), .caps = &caps, .max_sessions = key ? key->max_sessions : 0};
    struct change *c = begin_change(rq, &err);
    size_t len;
    char *text = cm_request_body(rq, &len);

    cm_key_caps(key, &api_of(rq)->caps, &caps);
    int rc = c ? cm_create_read(text, len, &caps, &limits, &err) : err.code;
    if (rc == 0)
        rc = cm_sessions_create_for(c->sessions, &owner, &limits, cm_request_correlation(rq), on_created, c, &err);
    wait_for_change(c, rq, rc, &err);
}

/* These routes take nothing; a body that is sent all the same has to be an object. */
static int check_empty_or_object(struct cm_request *rq, struct cm_err *err)
{
    size_t len;
    char *text = cm_request_body(rq, &len);

    return len == 0 ? 0 : cm_json_object(text, len, NULL, 0, err);
}

/* *ret NULL: whichever runs. An id with a NUL byte is nobody's as the id before that byte would not be: it is refused. */
static int read_execution(struct cm_request *rq, const char **ret, struct cm_err *err)
{
    struct cm_json_member m = {.name = "execution_id"};
    size_t len, id_len;
    char *text = cm_request_body(rq, &len);
    int rc = len > 0 ? cm_json_object(text, len, &m, 1, err) : 0;

    *ret = NULL;
    if (rc < 0 || m.value.kind == CM_JSON_ABSENT || m.value.kind == CM_JSON_NULL)
        return rc;
    if (m.value.kind != CM_JSON_STRING || !cm_json_decode(&m.value, &id_len) || memchr(m.value.raw, 0, id_len))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "execution_id: must be the id of an execution");
    m.value.raw[id_len] = '\0'; /* over its quote */
    *ret = m.value.raw;
    return 0;
}

void cm_api_interrupt(struct cm_request *rq)
{
    const char *execution;
    struct cm_err err;
    bool stopped = false;
    int rc = read_execution(rq, &execution, &err);

    if (rc == 0)
        rc = cm_sessions_interrupt(api_of(rq)->config.sessions, cm_api_session(rq), execution, &stopped, &err);
    if (rc < 0)
        cm_request_fail(rq, &err);
    else
        cm_request_answer(rq, 200,
                          stopped ? "{\"status\":\"ok\",\"interrupted\":true}"
                                  : "{\"status\":\"ok\",\"interrupted\":false}");
}

static void on_rolled_back(void *arg, const char *id, const struct cm_err *err)
{
    struct change *c = arg;

    if (c->rq && id)
        cm_request_answer(c->rq, 200, "{\"status\":\"ok\",\"state\":\"rolled_back\"}");
    else if (c->rq)
        cm_request_fail(c->rq, err);
    free(c);
}

void cm_api_roll_back(struct cm_request *rq)
{
    struct cm_err err;
    struct change *c = begin_change(rq, &err);
    int rc = c ? check_empty_or_object(rq, &err) : err.code;

    if (rc == 0)
        rc = cm_sessions_roll_back(c->sessions, cm_api_session(rq), on_rolled_back, c, &err);
    wait_for_change(c, rq, rc, &err);
}

void cm_api_delete_session(struct cm_request *rq)
{
    if (cm_sessions_check_owner(api_of(rq)->config.sessions, cm_api_session(rq), cm_key_name(cm_request_key(rq)),
                                NULL) == 0)
        cm_sessions_delete(api_of(rq)->config.sessions, cm_api_session(rq));
    cm_request_answer(rq, 200, "{\"status\":\"ok\"}");
}

static int write_info(struct cm_buf *buf, const struct cm_session_info *info)
{
    char expires[32] = "null";

    if (info->expires_in_s >= 0)
        snprintf(expires, sizeof(expires), "%.3f", info->expires_in_s);
    int rc = cm_buf_printf(buf,
                           "{\"session_id\":\"%s\",\"state\":\"%s\",\"executions\":%u,\"queued\":%u,"
                           "\"age_seconds\":%.3f,\"idle_seconds\":%.3f,\"expires_in_seconds\":%s,"
                           "\"memory_bytes\":%llu,\"restores\":%u,\"can_roll_back\":%s,\"pid\":%d,\"limits\":",
                           info->id, info->state, info->executions, info->queued, info->age_s, info->idle_s, expires,
                           (unsigned long long)info->memory_bytes, info->restores,
                           info->can_roll_back ? "true" : "false", info->pid);
    rc = rc ? rc : cm_limits_write(buf, &info->limits);
    return rc ? rc : cm_buf_puts(buf, "}");
}

void cm_api_show_session(struct cm_request *rq)
{
    struct cm_session_info info;
    struct cm_buf buf;
    struct cm_err err;

    if (cm_sessions_info(api_of(rq)->config.sessions, cm_api_session(rq), &info, &err) < 0) {
        cm_request_fail(rq, &err);
        return;
    }
    cm_buf_init(&buf, SMALL_MAX);
    int rc = write_info(&buf, &info);
    cm_request_answer_buf(rq, 200, NULL, &buf, rc);
}

/* `absent` where the query has no such parameter. */
static int query_number(struct cm_request *rq, const char *name, uint64_t absent, uint64_t *ret, struct cm_err *err)
{
    const char *text = cm_request_query(rq, name);
    size_t digits = text ? strspn(text, "0123456789") : 0;

    *ret = text ? strtoull(text, NULL, 10) : absent;
    if (!text || (digits > 0 && digits < 20 && text[digits] == '\0'))
        return 0;
    return cm_err_set(err, CM_ERR_BAD_FIELD, "%s: must be a whole number of bytes", name);
}

static void set_number(struct cm_request *rq, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    cm_request_set_header(rq, name, text);
}

static void show_output(struct cm_request *rq, int stream)
{
    uint64_t offset, length, most = api_of(rq)->config.conf->stored_output;
    const char *execution = cm_request_variable(rq, 1);
    struct cm_output_info info = {0};
    struct cm_buf buf;
    struct cm_err err;

    cm_buf_init(&buf, most);
    int rc = query_number(rq, "offset", 0, &offset, &err);
    rc = rc ? rc : query_number(rq, "length", most, &length, &err);
    rc = rc ? rc
            : cm_sessions_output(api_of(rq)->config.sessions, cm_api_session(rq), execution, stream, offset, length,
                                 &buf, &info, &err);
    if (rc < 0) {
        cm_buf_done(&buf);
        cm_request_fail(rq, &err);
        return;
    }
    set_number(rq, "X-Total-Length", info.printed);
    set_number(rq, "X-Stored-Length", info.stored);
    cm_request_answer_buf(rq, 200, "text/plain; charset=utf-8", &buf, 0);
}

void cm_api_show_stdout(struct cm_request *rq)
{
    show_output(rq, 1);
}

void cm_api_show_stderr(struct cm_request *rq)
{
    show_output(rq, 2);
}

struct list {
    struct cm_buf buf;
    const char *lead, *owner;
    int rc;
};

static void add_session(void *arg, const struct cm_session_info *info)
{
    struct list *list = arg;

    if (list->rc < 0 || strcmp(info->owner, list->owner) != 0)
        return;
    list->rc = cm_buf_puts(&list->buf, list->lead);
    if (list->rc == 0)
        list->rc = cm_json_put_string(&list->buf, info->id, strlen(info->id));
    list->lead = ",";
}

void cm_api_list_sessions(struct cm_request *rq)
{
    struct list list = {.lead = "", .owner = cm_key_name(cm_request_key(rq))};

    cm_buf_init(&list.buf, LIST_MAX);
    list.rc = cm_buf_puts(&list.buf, "{\"sessions\":[");
    cm_sessions_each(api_of(rq)->config.sessions, add_session, &list);
    if (list.rc == 0)
        list.rc = cm_buf_puts(&list.buf, "]}");
    cm_request_answer_buf(rq, 200, NULL, &list.buf, list.rc);
}

/* The server itself */

void cm_api_health(struct cm_request *rq)
{
    cm_request_answer(rq, 200, "{\"status\":\"healthy\"}");
}

void cm_api_ready(struct cm_request *rq)
{
    if (!cm_http_draining(api_of(rq)->http) && cm_sessions_ready(api_of(rq)->config.sessions)) {
        cm_request_answer(rq, 200, "{\"status\":\"ready\"}");
    } else {
        set_number(rq, "Retry-After", cm_err_info(CM_ERR_NOT_READY)->retry);
        cm_request_answer(rq, 503, "{\"status\":\"not_ready\"}");
    }
}

void cm_api_version(struct cm_request *rq)
{
    const char *image = cm_sessions_image(api_of(rq)->config.sessions);
    struct cm_buf buf;

    cm_buf_init(&buf, SMALL_MAX);
    int rc = cm_buf_puts(&buf, "{\"name\":\"codemode\",\"version\":\"" CM_VERSION "\",\"python\":\"" CM_GUEST_PYTHON
                               "\",\"image\":");
    rc = rc ? rc : cm_json_put_string(&buf, *image ? image : NULL, strlen(image));
    rc = rc ? rc : cm_buf_puts(&buf, "}");
    cm_request_answer_buf(rq, 200, NULL, &buf, rc);
}

void cm_api_metrics(struct cm_request *rq)
{
    const struct cm_api_config *config = &api_of(rq)->config;
    struct cm_buf buf;

    cm_buf_init(&buf, METRICS_MAX);
    int rc = cm_metrics_render(config->metrics, &buf);
    rc = rc || !config->access ? rc : cm_access_render(config->access, &buf);
    cm_request_answer_buf(rq, 200, rc ? NULL : "text/plain; version=0.0.4; charset=utf-8", &buf, rc);
}
