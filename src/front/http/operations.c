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

static bool is_once(const struct request *rq)
{
    return strcmp(rq->route->path, "/execute") == 0;
}

static void on_execute_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
{
    struct request *rq = arg;
    struct cm_buf buf;

    rq->answer.repeated = cm_run_repeated(rq->run);
    if (res) {
        const char *id = rq->ids.session[0] ? rq->ids.session : NULL;
        cm_buf_init(&buf, rq->http->answer_max);
        int rc = cm_http_write_result(&buf, res, id, cm_run_id(rq->run), is_once(rq) ? rq->correlation : NULL);
        cm_http_answer_buf(rq, 200, &buf, rc);
    } else {
        cm_http_answer_error(rq, err);
    }
    rq->run = NULL;
    cm_http_resume(rq);
}

/* The header wins over the body's member. */
static void take_correlation(struct request *rq, const struct cm_execute_body *body)
{
    char id[CORRELATION_MAX + 1];

    if (rq->correlation_is_clients || !body->correlation_id || body->correlation_id_len > CORRELATION_MAX ||
        memchr(body->correlation_id, '\0', body->correlation_id_len))
        return;
    memcpy(id, body->correlation_id, body->correlation_id_len);
    id[body->correlation_id_len] = '\0';
    rq->correlation_is_clients = cm_http_correlation(rq->http, id, rq->correlation);
}

static bool is_good_key(const char *key)
{
    size_t len = strlen(key);

    for (size_t i = 0; i < len; i++)
        if (key[i] < ' ' || key[i] > '~')
            return false;
    return len > 0 && len <= IDEMPOTENCY_MAX;
}

static int take_headers(struct request *rq, struct cm_run_request *req, struct cm_err *err)
{
    struct headers hd;

    cm_http_headers(rq->mhd, &hd);
    if (is_once(rq) && hd.session && strlen(hd.session) >= sizeof rq->ids.session)
        return cm_err_set(err, CM_ERR_NO_SESSION, "x-session-id: no such session");
    if (is_once(rq) && hd.session)
        snprintf(rq->ids.session, sizeof rq->ids.session, "%s", hd.session);
    if (hd.idempotency_key && !is_good_key(hd.idempotency_key))
        return cm_err_set(err, CM_ERR_BAD_REQUEST, "Idempotency-Key: must be 1 to %d printable ASCII characters",
                          IDEMPOTENCY_MAX);
    req->idempotency_key = hd.idempotency_key;
    req->session = !is_once(rq) || rq->ids.session[0] ? rq->ids.session : NULL; /* an empty one is nobody's */
    req->key = rq->key;
    return is_once(rq) && req->session
               ? cm_sessions_check_owner(rq->http->sessions, req->session, cm_key_name(rq->key), err)
               : 0;
}

static int start(struct request *rq, enum cm_exec_mode mode, struct cm_err *err)
{
    static const struct cm_exec_ops ops = {.done = on_execute_done};
    struct cm_run_request req = {0};
    struct cm_execute_body body;
    struct cm_limits caps;

    cm_key_caps(rq->key, &rq->http->caps, &caps);
    int rc = cm_execute_read(cm_buf_data(&rq->body), rq->body.len, &caps, &body, err);
    rc = rc ? rc : take_headers(rq, &req, err);
    if (rc < 0)
        return rc;
    take_correlation(rq, &body);
    req.exec = (struct cm_exec_request){
        .code = body.code,
        .code_len = body.code_len,
        .context = body.context,
        .context_len = body.context_len,
        .mode = mode,
        .timeout_s = body.timeout_s,
        .limits = &body.limits,
        .caps = &caps,
        .correlation_id = rq->correlation,
        .atomic = body.atomic,
        .strict = body.strict,
        .config = body.config,
        .config_len = body.config_len,
    };
    req.available_tools = body.available_tools;
    req.available_tools_len = body.available_tools_len;
    req.correlation_is_clients = rq->correlation_is_clients;
    return cm_executor_run(rq->http->executor, &req, &ops, rq, &rq->run, err);
}

static void run(struct request *rq, enum cm_exec_mode mode)
{
    struct cm_err err;
    int rc = start(rq, mode, &err);

    cm_http_drop_body(rq);
    if (rc < 0)
        cm_http_answer_error(rq, &err);
    else
        cm_http_wait(rq);
}

void cm_http_execute(struct request *rq)
{
    run(rq, CM_EXEC_SESSION);
}

void cm_http_execute_once(struct request *rq)
{
    run(rq, CM_EXEC_ONESHOT);
}

/* Sessions */

static void write_created(struct request *rq, const char *id)
{
    char text[CM_SESSION_ID_MAX + 32];

    snprintf(text, sizeof(text), "{\"session_id\":\"%s\"}", id);
    cm_http_answer_text(rq, 200, text);
}

/* A creation cannot be withdrawn: when its client has left meanwhile, the session goes at once. */
static void on_created(void *arg, const char *id, const struct cm_err *err)
{
    struct request *rq = arg;

    if (rq->http && rq->state == WAITING) {
        if (rq->conn->hung && id)
            cm_sessions_delete(rq->http->sessions, id);
        if (id)
            write_created(rq, id);
        else
            cm_http_answer_error(rq, err);
        cm_http_resume(rq);
    }
    cm_http_unref(rq);
}

void cm_http_create_session(struct request *rq)
{
    struct cm_limits_asked limits;
    struct cm_limits caps;
    struct cm_err err;
    struct cm_session_owner owner = {
        .name = cm_key_name(rq->key), .caps = &caps, .max_sessions = rq->key ? rq->key->max_sessions : 0};

    cm_key_caps(rq->key, &rq->http->caps, &caps);
    int rc = cm_create_read(cm_buf_data(&rq->body), rq->body.len, &caps, &limits, &err);
    if (rc == 0)
        rc = cm_sessions_create_for(rq->http->sessions, &owner, &limits, rq->correlation, on_created, rq, &err);
    if (rc < 0) {
        cm_http_answer_error(rq, &err);
        return;
    }
    cm_http_ref(rq);
    cm_http_wait(rq);
}

/* These routes take nothing; a body that is sent all the same has to be an object. */
static int check_empty_or_object(struct request *rq, struct cm_err *err)
{
    char *text = cm_buf_data(&rq->body);

    return rq->body.len == 0 ? 0 : cm_json_object(text, rq->body.len, NULL, 0, err);
}

void cm_http_interrupt(struct request *rq)
{
    struct cm_err err;
    bool stopped = false;
    int rc = check_empty_or_object(rq, &err);

    if (rc == 0)
        rc = cm_sessions_interrupt(rq->http->sessions, rq->ids.session, &stopped, &err);
    if (rc < 0)
        cm_http_answer_error(rq, &err);
    else
        cm_http_answer_text(rq, 200,
                            stopped ? "{\"status\":\"ok\",\"interrupted\":true}"
                                    : "{\"status\":\"ok\",\"interrupted\":false}");
}

static void on_rolled_back(void *arg, const char *id, const struct cm_err *err)
{
    struct request *rq = arg;

    if (rq->http && rq->state == WAITING) {
        if (id)
            cm_http_answer_text(rq, 200, "{\"status\":\"ok\",\"state\":\"rolled_back\"}");
        else
            cm_http_answer_error(rq, err);
        cm_http_resume(rq);
    }
    cm_http_unref(rq);
}

void cm_http_roll_back(struct request *rq)
{
    struct cm_err err;
    int rc = check_empty_or_object(rq, &err);

    if (rc == 0)
        rc = cm_sessions_roll_back(rq->http->sessions, rq->ids.session, on_rolled_back, rq, &err);
    if (rc < 0) {
        cm_http_answer_error(rq, &err);
        return;
    }
    cm_http_ref(rq);
    cm_http_wait(rq);
}

void cm_http_delete_session(struct request *rq)
{
    if (cm_sessions_check_owner(rq->http->sessions, rq->ids.session, cm_key_name(rq->key), NULL) == 0)
        cm_sessions_delete(rq->http->sessions, rq->ids.session);
    cm_http_answer_text(rq, 200, "{\"status\":\"ok\"}");
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

void cm_http_show_session(struct request *rq)
{
    struct cm_session_info info;
    struct cm_buf buf;
    struct cm_err err;

    if (cm_sessions_info(rq->http->sessions, rq->ids.session, &info, &err) < 0) {
        cm_http_answer_error(rq, &err);
        return;
    }
    cm_buf_init(&buf, SMALL_MAX);
    int rc = write_info(&buf, &info);
    cm_http_answer_buf(rq, 200, &buf, rc);
}

/* `absent` where the query has no such parameter. */
static int query_number(struct request *rq, const char *name, uint64_t absent, uint64_t *ret, struct cm_err *err)
{
    const char *text = MHD_lookup_connection_value(rq->mhd, MHD_GET_ARGUMENT_KIND, name);
    size_t digits = text ? strspn(text, "0123456789") : 0;

    *ret = text ? strtoull(text, NULL, 10) : absent;
    if (!text || (digits > 0 && digits < 20 && text[digits] == '\0'))
        return 0;
    return cm_err_set(err, CM_ERR_BAD_FIELD, "%s: must be a whole number of bytes", name);
}

static void show_output(struct request *rq, int stream)
{
    uint64_t offset, length, most = rq->http->conf->stored_output;
    struct cm_buf buf;
    struct cm_err err;

    cm_buf_init(&buf, most);
    int rc = query_number(rq, "offset", 0, &offset, &err);
    rc = rc ? rc : query_number(rq, "length", most, &length, &err);
    rc = rc ? rc
            : cm_sessions_output(rq->http->sessions, rq->ids.session, rq->ids.execution, stream, offset, length, &buf,
                                 &rq->answer.output, &err);
    if (rc < 0) {
        cm_buf_done(&buf);
        cm_http_answer_error(rq, &err);
        return;
    }
    rq->answer.has_output = true;
    rq->answer.content_type = "text/plain; charset=utf-8";
    cm_http_answer_buf(rq, 200, &buf, 0);
}

void cm_http_show_stdout(struct request *rq)
{
    show_output(rq, 1);
}

void cm_http_show_stderr(struct request *rq)
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

void cm_http_list_sessions(struct request *rq)
{
    struct list list = {.lead = "", .owner = cm_key_name(rq->key)};

    cm_buf_init(&list.buf, LIST_MAX);
    list.rc = cm_buf_puts(&list.buf, "{\"sessions\":[");
    cm_sessions_each(rq->http->sessions, add_session, &list);
    if (list.rc == 0)
        list.rc = cm_buf_puts(&list.buf, "]}");
    cm_http_answer_buf(rq, 200, &list.buf, list.rc);
}

/* The server itself */

void cm_http_health(struct request *rq)
{
    cm_http_answer_text(rq, 200, "{\"status\":\"healthy\"}");
}

void cm_http_ready(struct request *rq)
{
    if (!rq->http->draining && cm_sessions_ready(rq->http->sessions)) {
        cm_http_answer_text(rq, 200, "{\"status\":\"ready\"}");
    } else {
        cm_http_answer_text(rq, 503, "{\"status\":\"not_ready\"}");
        rq->answer.retry_after = cm_err_info(CM_ERR_NOT_READY)->retry;
    }
}

void cm_http_version(struct request *rq)
{
    const char *image = cm_sessions_image(rq->http->sessions);
    struct cm_buf buf;

    cm_buf_init(&buf, SMALL_MAX);
    int rc = cm_buf_puts(&buf, "{\"name\":\"codemode\",\"version\":\"" CM_VERSION "\",\"python\":\"" CM_GUEST_PYTHON
                               "\",\"image\":");
    rc = rc ? rc : cm_json_put_string(&buf, *image ? image : NULL, strlen(image));
    rc = rc ? rc : cm_buf_puts(&buf, "}");
    cm_http_answer_buf(rq, 200, &buf, rc);
}

void cm_http_metrics(struct request *rq)
{
    struct cm_buf buf;

    cm_buf_init(&buf, METRICS_MAX);
    int rc = cm_metrics_render(rq->http->metrics, &buf);
    rc = rc || !rq->http->access ? rc : cm_access_render(rq->http->access, &buf);
    if (rc == 0)
        rq->answer.content_type = "text/plain; version=0.0.4; charset=utf-8";
    cm_http_answer_buf(rq, 200, &buf, rc);
}
