/* SPDX-License-Identifier: Apache-2.0 */
/* codemode.ExecutorService, and what probes ask. */
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "conf/conf.h"
#include "front/grpc/internal.h"
#include "grpc_health_v1.pb-c.h"
#include "wire/proto.h"
#include "wire/structs.h"

/* What an execution is started with, as texts. */
struct texts {
    struct cm_buf tools, config, context;
};

static void on_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
{
    struct call *c = arg;

    if (res)
        cm_rpc_reply_once(c, res);
    else
        cm_rpc_fail(c, err);
}

/* Success false, without a run. */
static void refuse_length(struct call *c, size_t most)
{
    char text[96];
    struct cm_exec_result res = {.error = text, .error_type = "SecurityViolation", .error_type_len = 17};

    res.error_len = (size_t)snprintf(text, sizeof text, "Code exceeds maximum length of %zu characters", most);
    cm_rpc_reply_once(c, &res);
}

/* The limit that will hold: asked for, or the session's or the server's, and never beyond the client's own deadline. */
static int set_timeout(struct call *c, int32_t asked, struct cm_err *err)
{
    const struct cm_rpc *rpc = c->rpc;
    uint64_t deadline = cm_grpc_call_deadline(c->wire), now = cm_clock_ns();
    struct cm_session_info info;

    if (asked < 0)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "timeout: must be a number of seconds from 0 (the default) upwards");
    c->timeout_s = asked > 0 ? asked : rpc->defaults.at[CM_LIMIT_TIMEOUT];
    if (c->session[0] && asked == 0 && cm_sessions_info(rpc->parts.sessions, c->session, &info, NULL) == 0)
        c->timeout_s = info.limits.at[CM_LIMIT_TIMEOUT];
    if (c->timeout_s > c->caps.at[CM_LIMIT_TIMEOUT])
        c->timeout_s = c->caps.at[CM_LIMIT_TIMEOUT];
    if (deadline && deadline > now && c->timeout_s > (double)(deadline - now) / 1e9)
        c->timeout_s = (double)(deadline - now) / 1e9;
    return 0;
}

static int take_metadata(struct call *c, const Codemode__ExecutionRequest *m, struct cm_err *err)
{
    const char *session = cm_grpc_call_metadata(c->wire, "x-session-id");
    const char *key = cm_grpc_call_metadata(c->wire, "idempotency-key");
    ProtobufCBinaryData id = cm_proto_text(session);

    if (!cm_grpc_call_metadata(c->wire, "x-correlation-id") && m->correlation_id.len > 0)
        cm_rpc_correlate(c, (const char *)m->correlation_id.data, m->correlation_id.len);
    if (session && !*session)
        return cm_err_set(err, CM_ERR_NO_SESSION, "x-session-id: is empty");
    int rc = cm_rpc_take_session(c, &id, err);
    return rc ? rc : cm_rpc_take_key(key ? key : "", key ? strlen(key) : 0, c->idempotency, err);
}

static int take_struct(const char *name, int present, const ProtobufCBinaryData *from, struct cm_buf *to,
                       struct cm_err *err)
{
    int rc = present ? cm_struct_to_json(from->data, from->len, to, err) : 0;

    if (rc < 0)
        cm_err_wrap(err, "%s", name);
    return rc;
}

static int take_texts(struct call *c, const Codemode__ExecutionRequest *m, struct texts *t, struct cm_err *err)
{
    int rc = take_metadata(c, m, err);

    rc = rc ? rc : set_timeout(c, m->timeout, err);
    rc = rc ? rc : cm_rpc_take_names(m->available_tools, m->n_available_tools, &t->tools, err);
    rc = rc ? rc : take_struct("config", m->has_config_case, &m->config, &t->config, err);
    return rc ? rc : take_struct("context", m->has_context_case, &m->context, &t->context, err);
}

static int start(struct call *c, const Codemode__ExecutionRequest *m, struct texts *t, struct cm_err *err)
{
    static const struct cm_exec_ops ops = {.done = on_done};
    int rc = take_texts(c, m, t, err);

    if (rc < 0)
        return rc;
    struct cm_run_request req = {
        .exec = {.code = m->code.len ? (const char *)m->code.data : "",
                 .code_len = m->code.len,
                 .context = t->context.len ? cm_buf_data(&t->context) : NULL,
                 .context_len = t->context.len,
                 .config = t->config.len ? cm_buf_data(&t->config) : NULL,
                 .config_len = t->config.len,
                 .mode = CM_EXEC_ONESHOT,
                 .timeout_s = c->timeout_s},
        .available_tools = cm_buf_data(&t->tools),
        .available_tools_len = t->tools.len,
    };
    return cm_rpc_run(c, &req, &ops, err);
}

void cm_rpc_execute_once(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct call *c = cm_rpc_begin(arg, wire, "/codemode.ExecutorService/Execute");
    struct cm_err err;

    if (!c)
        return;
    Codemode__ExecutionRequest *m = cm_rpc_read(c, &codemode__execution_request__descriptor, message, len);
    if (!m)
        return;
    size_t most = (size_t)c->caps.at[CM_LIMIT_CODE_LENGTH], max = c->rpc->parts.conf->max_body * 2;
    struct texts t;
    cm_buf_init(&t.tools, max);
    cm_buf_init(&t.config, max);
    cm_buf_init(&t.context, max);
    if (m->code.len > most && cm_utf8_count((const char *)m->code.data, m->code.len) > most)
        refuse_length(c, most);
    else if (start(c, m, &t, &err) < 0)
        cm_rpc_fail(c, &err);
    cm_buf_done(&t.tools);
    cm_buf_done(&t.config);
    cm_buf_done(&t.context);
    cm_proto_free(m);
}

/* Probes */

/* Who may not call learns no name of a machine. */
static void reply_health(struct call *c, const char *status)
{
    Codemode__HealthResponse answer;

    codemode__health_response__init(&answer);
    answer.status = cm_proto_text(status);
    answer.version = cm_proto_text(CM_VERSION);
    answer.main_app_target = cm_proto_text(cm_rpc_knows(c) ? cm_executor_target(c->rpc->parts.executor) : "");
    cm_rpc_reply(c, &answer.base);
}

static bool is_serving(const struct cm_rpc *rpc)
{
    return !rpc->draining && cm_sessions_ready(rpc->parts.sessions);
}

void cm_rpc_health(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct call *c = cm_rpc_begin(arg, wire, "/codemode.ExecutorService/Health");

    (void)message; /* Empty: whatever it holds is unknown to us and of no effect */
    (void)len;
    if (c)
        reply_health(c, "healthy");
}

static void on_ping(void *arg, enum cm_tool_service state)
{
    struct call *c = arg;

    if (c->wire)
        reply_health(c, !is_serving(c->rpc) ? "not_ready" : state == CM_TOOLS_UNREACHABLE ? "unreachable" : "ready");
    cm_rpc_unref(c);
}

void cm_rpc_ready(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct call *c = cm_rpc_begin(arg, wire, "/codemode.ExecutorService/Ready");

    (void)message;
    (void)len;
    if (!c)
        return;
    if (!is_serving(c->rpc))
        reply_health(c, "not_ready");
    else
        cm_executor_ping(c->rpc->parts.executor, on_ping, cm_rpc_ref(c));
}

static bool is_service(const ProtobufCBinaryData *name)
{
    static const char *const known[] = {"", "codemode.ExecutorService", "codemode.v1.Sessions"};

    for (size_t i = 0; i < CM_COUNT_OF(known); i++)
        if (strlen(known[i]) == name->len && memcmp(known[i], name->len ? (char *)name->data : "", name->len) == 0)
            return true;
    return false;
}

void cm_rpc_check(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct call *c = cm_rpc_begin(arg, wire, "/grpc.health.v1.Health/Check");
    Grpc__Health__V1__HealthCheckResponse answer;

    if (!c)
        return;
    Grpc__Health__V1__HealthCheckRequest *m =
        cm_rpc_read(c, &grpc__health__v1__health_check_request__descriptor, message, len);
    if (!m)
        return;
    grpc__health__v1__health_check_response__init(&answer);
    answer.status =
        is_serving(c->rpc) ? GRPC__HEALTH__V1__SERVING_STATUS__SERVING : GRPC__HEALTH__V1__SERVING_STATUS__NOT_SERVING;
    if (is_service(&m->service))
        cm_rpc_reply(c, &answer.base);
    else
        cm_rpc_refuse(c, CM_GRPC_NOT_FOUND, "there is no such service");
    cm_proto_free(m);
}
