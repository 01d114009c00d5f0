/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "codemode.pb-c.h"
#include "grpc/client.h"
#include "obs/metrics.h"
#include "tools/toolset.h"
#include "wire/proto.h"
#include "wire/structs.h"

#define MESSAGE_MAX CM_TOOLS_BYTES_MAX /* of one answer */
#define REQUEST_MAX (16u << 20) /* of one call, encoded */
#define QUEUE_MAX   (64u << 20)
#define CALLS_MAX   4096
#define KEY_MAX     4096
#define TEXT_MAX    (64u << 10) /* of what went wrong */

struct cm_tool_client {
    struct cm_grpc_client *client;
    struct cm_metrics *metrics;
    struct cm_tool_request *all;
    unsigned breaks;
    char target[256], bearer[KEY_MAX + 8];
};

struct cm_tool_request {
    struct cm_tool_request *prev, *next; /* of the service's */
    struct cm_tool_client *service;
    struct cm_grpc_request *grpc;
    struct cm_buf message; /* of the answer */
    cm_tool_done *done; /* of a call; else: */
    cm_tool_answer *answer;
    void *arg;
    bool too_long; /* the answer found no room */
};

/* The service */

struct cm_tool_client *cm_tool_service_new(struct cm_loop *loop, const char *target, struct cm_tls *tls,
                                           const char *key, struct cm_metrics *metrics, struct cm_err *err)
{
    static const struct cm_grpc_client_options options = {
        .message_max = MESSAGE_MAX,
        .queue_max = QUEUE_MAX,
        .calls_max = CALLS_MAX,
        .keepalive_ms = 30000,
        .keepalive_timeout_ms = 10000,
        .backoff_max_ms = 3000, /* the application stands beside us: looking for it costs nothing */
        .eager_ms = 250,
        .connect_ms = 5000, /* a call outlasts the restart of an application */
        .user_agent = "codemode/" CM_VERSION,
    };
    struct cm_tool_client *s = calloc(1, sizeof *s);

    if (!s) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the tool service");
        return NULL;
    }
    s->metrics = metrics;
    snprintf(s->target, sizeof s->target, "%s", target);
    cm_tool_service_set_key(s, key);
    s->client = cm_grpc_client_new(loop, target, tls, &options, err);
    return s->client ? s : cm_tool_service_free(s);
}

void cm_tool_service_set_tls(struct cm_tool_client *s, struct cm_tls *tls)
{
    cm_grpc_client_set_tls(s->client, tls);
}

void cm_tool_service_set_key(struct cm_tool_client *s, const char *key)
{
    *s->bearer = '\0';
    if (key && *key)
        snprintf(s->bearer, sizeof s->bearer, "Bearer %s", key);
}

struct cm_tool_client *cm_tool_service_free(struct cm_tool_client *s)
{
    if (!s)
        return NULL;
    while (s->all)
        cm_tool_request_cancel(s->all);
    s->client = cm_grpc_client_free(s->client);
    explicit_bzero(s->bearer, sizeof s->bearer);
    free(s);
    return NULL;
}

const char *cm_tool_service_target(const struct cm_tool_client *s)
{
    return s->target;
}

unsigned cm_tool_service_breaks(const struct cm_tool_client *s)
{
    return s->breaks;
}

/* One request */

static void free_request(struct cm_tool_request *r)
{
    if (r->next)
        r->next->prev = r->prev;
    if (r->prev)
        r->prev->next = r->next;
    else
        r->service->all = r->next;
    cm_buf_done(&r->message);
    free(r);
}

void cm_tool_request_cancel(struct cm_tool_request *r)
{
    if (r->grpc)
        cm_grpc_request_cancel(r->grpc);
    free_request(r);
}

static void on_message(void *arg, const uint8_t *message, size_t len)
{
    struct cm_tool_request *r = arg;

    cm_buf_clear(&r->message);
    r->too_long = cm_buf_append(&r->message, message, len) < 0;
}

/* What the state of the service is, as far as an answer tells. */
static void note(struct cm_tool_client *s, enum cm_grpc_status status)
{
    bool down = status == CM_GRPC_UNAVAILABLE || status == CM_GRPC_UNAUTHENTICATED || status == CM_GRPC_UNIMPLEMENTED;

    if (status == CM_GRPC_UNAVAILABLE)
        s->breaks++;
    if (status != CM_GRPC_CANCELLED && status != CM_GRPC_DEADLINE_EXCEEDED)
        cm_metrics_set(s->metrics, CM_M_TOOL_SERVICE_UP, 0, !down);
}

/* In words for whoever has to mend it. */
static void explain(const struct cm_tool_client *s, enum cm_grpc_status status, const char *text, char *ret,
                    size_t size)
{
    const char *at = s->target;

    switch (status) {
    case CM_GRPC_UNAUTHENTICATED:
        snprintf(ret, size,
                 "the tool service at %s has refused our key: CODEMODE_API_KEY must be the same on both sides (%s)", at,
                 text);
        break;
    case CM_GRPC_PERMISSION_DENIED:
        snprintf(ret, size, "the tool service at %s does not allow this (%s)", at, text);
        break;
    case CM_GRPC_UNIMPLEMENTED:
        snprintf(ret, size,
                 "what listens at %s is no codemode.ToolService (%s): CODEMODE_MAIN_APP_TARGET must name the "
                 "application's gRPC port",
                 at, text);
        break;
    case CM_GRPC_DEADLINE_EXCEEDED:
        snprintf(ret, size, "no answer from the tool service at %s in time", at);
        break;
    case CM_GRPC_RESOURCE_EXHAUSTED:
        snprintf(ret, size, "too large, or too much at once, for the tool service at %s or for us (%s)", at, text);
        break;
    case CM_GRPC_UNAVAILABLE:
        snprintf(ret, size,
                 "the tool service at %s cannot be reached (%s): is the application running, and does "
                 "CODEMODE_MAIN_APP_TARGET name its gRPC port?",
                 at, text);
        break;
    default:
        snprintf(ret, size, "the tool service at %s has answered with status %d (%s)", at, (int)status, text);
    }
}

static enum cm_call_failure failure_of(enum cm_grpc_status status)
{
    switch (status) {
    case CM_GRPC_DEADLINE_EXCEEDED:
        return CM_CALL_TIMEOUT;
    case CM_GRPC_UNAUTHENTICATED:
    case CM_GRPC_PERMISSION_DENIED:
    case CM_GRPC_UNIMPLEMENTED:
    case CM_GRPC_UNAVAILABLE:
    case CM_GRPC_CANCELLED:
        return CM_CALL_UNAVAILABLE;
    case CM_GRPC_NOT_FOUND:
        return CM_CALL_UNKNOWN;
    case CM_GRPC_INVALID_ARGUMENT:
        return CM_CALL_ARGUMENTS;
    default:
        return CM_CALL_TOOL_ERROR;
    }
}

/* The answer of a call: `json` gets the result. 0, or why it is a failure with *ret_text set. */
static int read_result(const Codemode__ToolCallResponse *m, struct cm_buf *json, enum cm_call_failure *ret_why,
                       char *text, size_t size)
{
    struct cm_err err = {0};

    *ret_why = CM_CALL_TOOL_ERROR;
    if (!m->success) {
        snprintf(text, size, "%.*s", (int)m->error.len, m->error.len ? (const char *)m->error.data : "");
        if (!*text)
            snprintf(text, size, "the tool has failed and does not say why");
        return -1;
    }
    int rc =
        m->has_result_case ? cm_struct_to_json(m->result.data, m->result.len, json, &err) : cm_buf_puts(json, "{}");
    if (rc == 0)
        return 0;
    snprintf(text, size, rc == CM_ERR_TOO_LARGE ? "the result is too large" : "the result cannot be read: %s",
             err.text);
    return -1;
}

static void finish_call(struct cm_tool_request *r)
{
    cm_autobuf struct cm_buf json;
    cm_autofree char *text = calloc(1, TEXT_MAX);
    enum cm_call_failure why = CM_CALL_TOOL_ERROR;
    struct cm_err err = {0};

    cm_buf_init(&json, MESSAGE_MAX);
    Codemode__ToolCallResponse *m =
        cm_proto_unpack(&codemode__tool_call_response__descriptor, cm_buf_data(&r->message), r->message.len, &err);
    if (!m || !text)
        r->done(r->arg, NULL, 0, why, m ? "no memory for the tool's answer" : err.text);
    else if (read_result(m, &json, &why, text, TEXT_MAX) == 0)
        r->done(r->arg, cm_buf_data(&json), json.len, why, NULL);
    else
        r->done(r->arg, NULL, 0, why, text);
    cm_proto_free(m);
}

static void on_done(void *arg, enum cm_grpc_status status, const char *text)
{
    struct cm_tool_request *r = arg;
    char words[1200];

    r->grpc = NULL;
    note(r->service, status);
    if (status == CM_GRPC_OK && r->too_long) {
        status = CM_GRPC_RESOURCE_EXHAUSTED;
        text = "no memory for the answer";
    }
    if (status != CM_GRPC_OK)
        explain(r->service, status, text, words, sizeof words);
    if (status == CM_GRPC_OK && r->done)
        finish_call(r);
    else if (r->done)
        r->done(r->arg, NULL, 0, failure_of(status), words);
    else if (status == CM_GRPC_OK)
        r->answer(r->arg, (const uint8_t *)cm_buf_data(&r->message), r->message.len, status, "");
    else
        r->answer(r->arg, NULL, 0, status, words);
    free_request(r);
}

static struct cm_tool_request *new_request(struct cm_tool_client *s, void *arg, struct cm_err *err)
{
    struct cm_tool_request *r = calloc(1, sizeof *r);

    if (!r) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request to the tool service");
        return NULL;
    }
    r->service = s;
    r->arg = arg;
    cm_buf_init(&r->message, MESSAGE_MAX);
    r->next = s->all;
    if (r->next)
        r->next->prev = r;
    s->all = r;
    return r;
}

/* Sends it, or frees it. */
static struct cm_tool_request *send(struct cm_tool_request *r, const char *path, struct cm_buf *message,
                                    uint64_t deadline_ns, const struct cm_grpc_metadata *more, size_t count,
                                    struct cm_err *err)
{
    static const struct cm_grpc_request_ops patient = {.message = on_message, .done = on_done};
    static const struct cm_grpc_request_ops hasty = {.message = on_message, .done = on_done, .fail_fast = true};
    struct cm_grpc_metadata metadata[4];
    size_t n = 0;

    if (*r->service->bearer)
        metadata[n++] = (struct cm_grpc_metadata){"authorization", r->service->bearer};
    for (size_t i = 0; i < count; i++)
        metadata[n++] = more[i];
    r->grpc = cm_grpc_client_call(r->service->client, path, metadata, n, cm_buf_data(message), message->len,
                                  deadline_ns, r->done ? &patient : &hasty, r, err);
    if (r->grpc)
        return r;
    free_request(r);
    return NULL;
}

/* Calls */

static int encode_call(const struct cm_tool_call *call, struct cm_buf *to, struct cm_err *err)
{
    Codemode__ToolCallRequest m;
    cm_autobuf struct cm_buf arguments, context;
    int rc;

    codemode__tool_call_request__init(&m);
    cm_buf_init(&arguments, REQUEST_MAX);
    cm_buf_init(&context, REQUEST_MAX);
    if ((rc = cm_struct_from_json(call->arguments, call->arguments_len, &arguments, err)) < 0)
        return rc == CM_ERR_BAD_FIELD || rc == CM_ERR_BAD_JSON ? cm_err_wrap(err, "arguments")
                                                               : cm_err_set(err, rc, "arguments: too large");
    if (call->context && (rc = cm_struct_from_json(call->context, call->context_len, &context, err)) < 0)
        return rc == CM_ERR_BAD_FIELD || rc == CM_ERR_BAD_JSON ? cm_err_wrap(err, "context")
                                                               : cm_err_set(err, rc, "context: too large");
    m.tool_name = cm_proto_bytes(call->name, call->name_len);
    m.has_arguments_case = CODEMODE__TOOL_CALL_REQUEST__HAS_ARGUMENTS_ARGUMENTS;
    m.arguments = cm_proto_bytes(cm_buf_data(&arguments), arguments.len);
    if (call->context) {
        m.has_context_case = CODEMODE__TOOL_CALL_REQUEST__HAS_CONTEXT_CONTEXT;
        m.context = cm_proto_bytes(cm_buf_data(&context), context.len);
    }
    m.correlation_id = cm_proto_text(call->correlation_id);
    rc = cm_proto_pack(&m.base, to);
    return rc < 0 ? cm_err_set(err, rc, "the call is too large") : 0;
}

struct cm_tool_request *cm_tool_service_call(struct cm_tool_client *s, const struct cm_tool_call *call,
                                             cm_tool_done *done, void *arg, struct cm_err *err)
{
    cm_autobuf struct cm_buf message;
    char id[400];

    cm_buf_init(&message, 2 * REQUEST_MAX);
    if (encode_call(call, &message, err) < 0)
        return NULL;
    struct cm_tool_request *r = new_request(s, arg, err);
    if (!r)
        return NULL;
    r->done = done;
    snprintf(id, sizeof id, "%s:%llu", call->execution, (unsigned long long)call->number);
    const struct cm_grpc_metadata metadata[] = {
        {"x-correlation-id", call->correlation_id}, {"x-codemode-call", id}, {"x-codemode-run", call->run}};
    return send(r, "/codemode.ToolService/CallTool", &message, call->deadline_ns, metadata, 3, err);
}

/* Questions */

struct cm_tool_request *cm_tool_service_list(struct cm_tool_client *s, uint64_t deadline_ns, cm_tool_answer *done,
                                             void *arg, struct cm_err *err)
{
    struct cm_tool_request *r = new_request(s, arg, err);
    struct cm_buf nothing;

    if (!r)
        return NULL;
    cm_buf_init(&nothing, 0);
    r->answer = done;
    return send(r, "/codemode.ToolService/ListTools", &nothing, deadline_ns, NULL, 0, err);
}

struct cm_tool_request *cm_tool_service_schema(struct cm_tool_client *s, const char *name, size_t len,
                                               uint64_t deadline_ns, cm_tool_answer *done, void *arg,
                                               struct cm_err *err)
{
    Codemode__GetToolSchemaRequest m = CODEMODE__GET_TOOL_SCHEMA_REQUEST__INIT;
    struct cm_tool_request *r = new_request(s, arg, err);
    cm_autobuf struct cm_buf message;

    cm_buf_init(&message, 2 * CM_TOOL_NAME_MAX);
    if (!r)
        return NULL;
    r->answer = done;
    m.tool_name = cm_proto_bytes(name, len);
    int rc = cm_proto_pack(&m.base, &message);
    if (rc == 0)
        return send(r, "/codemode.ToolService/GetToolSchema", &message, deadline_ns, NULL, 0, err);
    cm_err_set(err, rc, "no room for the name of a tool");
    free_request(r);
    return NULL;
}
