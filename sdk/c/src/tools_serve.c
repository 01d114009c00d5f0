/* SPDX-License-Identifier: Apache-2.0 */
/* codemode.ToolService. Requests come to the loop's thread, tools run in the pool's, answers go back through the loop's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "net/listen.h"
#include "tools.h"
#include "wire/json.h"
#include "wire/structs.h"

#define CONNECTIONS_MAX 1024
#define HEAD_MS         10000
#define IDLE_MS         86400000u /* executors keep their connections */
#define STREAMS_MAX     1000
#define METADATA_MAX    16384
#define RESETS_MAX      10000 /* an execution that is interrupted may take a thousand calls with it */
#define ERROR_MAX       65536

/* In the loop's thread */

static void free_call(struct codemode_call *call)
{
    cm_buf_done(&call->arguments);
    cm_buf_done(&call->context);
    cm_buf_done(&call->result);
    free(call->correlation);
    free(call->error);
    free(call);
}

static void count(struct codemode_tools *t, int n)
{
    pthread_mutex_lock(&t->mutex);
    t->calls += (unsigned)n;
    if (t->calls == 0)
        pthread_cond_broadcast(&t->idle);
    pthread_mutex_unlock(&t->mutex);
}

/* Packs, sends and ends. */
static void reply(struct cm_grpc_call *wire, const ProtobufCMessage *answer)
{
    cm_autobuf struct cm_buf buf = {.max = TOOLS_MESSAGE_MAX};
    struct cm_err err;

    if (cm_proto_pack(answer, &buf) < 0 || cm_grpc_call_send(wire, cm_buf_data(&buf), buf.len, &err) < 0)
        cm_grpc_call_finish(wire, CM_GRPC_RESOURCE_EXHAUSTED, "the answer is too large, or there is no memory for it");
    else
        cm_grpc_call_finish(wire, CM_GRPC_OK, NULL);
}

static void fail(struct cm_grpc_call *wire, const struct cm_err *err)
{
    cm_grpc_call_finish(wire, (enum cm_grpc_status)cm_err_info(err->code)->grpc, err->text);
}

static void reply_call(struct cm_grpc_call *wire, const struct codemode_call *call, const char *error)
{
    Codemode__ToolCallResponse answer;

    codemode__tool_call_response__init(&answer);
    answer.success = !error;
    answer.error = cm_proto_text(error);
    answer.correlation_id = cm_proto_text(call->correlation);
    if (!error) {
        answer.has_result_case = CODEMODE__TOOL_CALL_RESPONSE__HAS_RESULT_RESULT;
        answer.result = cm_proto_bytes(cm_buf_data((struct cm_buf *)&call->result), call->result.len);
    }
    reply(wire, &answer.base);
}

/* A worker has given the call back. */
static void on_run(void *arg)
{
    struct codemode_call *call = arg;
    struct codemode_tools *t = call->service;

    if (call->wire)
        reply_call(call->wire, call, call->error ? call->error : call->answered ? NULL : "the tool has not answered");
    free_call(call);
    count(t, -1);
}

static void on_cancelled(void *arg, struct cm_grpc_call *wire)
{
    struct codemode_call *call = cm_grpc_call_user(wire);

    (void)arg;
    if (!call)
        return;
    call->wire = NULL;
    atomic_store(&call->cancelled, true);
}

static const struct tool *find(const struct codemode_tools *t, const ProtobufCBinaryData *name)
{
    for (const struct tool *tool = t->first; tool; tool = tool->next)
        if (strlen(tool->public.name) == name->len &&
            memcmp(tool->public.name, name->len ? (char *)name->data : "", name->len) == 0)
            return tool;
    return NULL;
}

static int fill_call(struct codemode_call *call, const Codemode__ToolCallRequest *m, struct cm_err *err)
{
    const ProtobufCBinaryData *id = &m->correlation_id;

    cm_buf_init(&call->arguments, 4 * TOOLS_MESSAGE_MAX);
    cm_buf_init(&call->context, 4 * TOOLS_MESSAGE_MAX);
    cm_buf_init(&call->result, TOOLS_MESSAGE_MAX);
    call->deadline_ns = cm_grpc_call_deadline(call->wire);
    call->correlation = strndup(id->len ? (char *)id->data : "", id->len);
    if (!call->correlation)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a call");
    call->has_context = m->has_context_case;
    int rc = cm_struct_to_json(m->arguments.data, m->has_arguments_case ? m->arguments.len : 0, &call->arguments, err);
    if (rc == 0 && call->has_context)
        rc = cm_struct_to_json(m->context.data, m->context.len, &call->context, err);
    return rc;
}

/* In a worker's thread. */
static void run(void *arg)
{
    struct codemode_call *call = arg;

    if (!atomic_load(&call->cancelled))
        call->tool->public.run(call->tool->public.arg, call);
    lib_thread_post(&call->service->thread, &call->job, on_run, call);
}

static void begin(struct codemode_tools *t, struct cm_grpc_call *wire, const struct tool *tool,
                  const Codemode__ToolCallRequest *m)
{
    struct codemode_call *call = calloc(1, sizeof *call);
    struct cm_err err;

    if (!call) {
        cm_grpc_call_finish(wire, CM_GRPC_RESOURCE_EXHAUSTED, "no memory for a call");
        return;
    }
    call->service = t;
    call->tool = tool;
    call->wire = wire;
    if (fill_call(call, m, &err) < 0) {
        free_call(call);
        fail(wire, &err);
        return;
    }
    cm_grpc_call_set_user(wire, call);
    count(t, 1);
    if (lib_pool_post(t->pool, &call->job, run, call))
        return;
    free_call(call);
    count(t, -1);
    cm_grpc_call_finish(wire, CM_GRPC_RESOURCE_EXHAUSTED, "too many calls wait for a worker");
}

static void reply_unknown(struct cm_grpc_call *wire, const Codemode__ToolCallRequest *m)
{
    Codemode__ToolCallResponse answer;
    char text[320];

    snprintf(text, sizeof text, "Unknown tool: %.*s", (int)(m->tool_name.len < 256 ? m->tool_name.len : 0),
             m->tool_name.len ? (char *)m->tool_name.data : "");
    codemode__tool_call_response__init(&answer);
    answer.error = cm_proto_text(text);
    answer.correlation_id = m->correlation_id;
    reply(wire, &answer.base);
}

static void on_call_tool(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct codemode_tools *t = arg;
    struct cm_err err;
    Codemode__ToolCallRequest *m = cm_proto_unpack(&codemode__tool_call_request__descriptor, message, len, &err);

    if (!m) {
        fail(wire, &err);
        return;
    }
    const struct tool *tool = find(t, &m->tool_name);
    if (tool)
        begin(t, wire, tool, m);
    else
        reply_unknown(wire, m);
    cm_proto_free(m);
}

/* Listing */

/* A schema of "" is none. */
static Codemode__ToolSchema *fill_schema(Codemode__ToolSchema *schema, const char *text)
{
    codemode__tool_schema__init(schema);
    schema->json_schema = cm_proto_text(text);
    return *text ? schema : NULL;
}

struct entry {
    Codemode__ToolInfo info;
    Codemode__ToolSchema input, output;
};

static void fill_entry(struct entry *e, const struct codemode_tool *tool)
{
    codemode__tool_info__init(&e->info);
    e->info.name = cm_proto_text(tool->name);
    e->info.is_async = tool->is_async;
    e->info.has_context = tool->has_context;
    e->info.description = cm_proto_text(tool->description);
    e->info.input_schema = fill_schema(&e->input, tool->input_schema);
    e->info.output_schema = fill_schema(&e->output, tool->output_schema);
}

static void on_list_tools(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct codemode_tools *t = arg;
    Codemode__ListToolsResponse answer;
    size_t n = 0;

    (void)message; /* Empty */
    (void)len;
    for (const struct tool *tool = t->first; tool; tool = tool->next)
        n++;
    cm_autofree struct entry *entries = calloc(n + 1, sizeof *entries);
    cm_autofree Codemode__ToolInfo **list = calloc(n + 1, sizeof *list);
    if (!entries || !list) {
        cm_grpc_call_finish(wire, CM_GRPC_RESOURCE_EXHAUSTED, "no memory for a list");
        return;
    }
    codemode__list_tools_response__init(&answer);
    answer.tools = list;
    for (const struct tool *tool = t->first; tool; tool = tool->next) {
        fill_entry(&entries[answer.n_tools], &tool->public);
        list[answer.n_tools] = &entries[answer.n_tools].info;
        answer.n_tools++;
    }
    reply(wire, &answer.base);
}

static void on_get_schema(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    Codemode__GetToolSchemaResponse answer;
    struct entry e;
    struct cm_err err;
    Codemode__GetToolSchemaRequest *m =
        cm_proto_unpack(&codemode__get_tool_schema_request__descriptor, message, len, &err);

    if (!m) {
        fail(wire, &err);
        return;
    }
    const struct tool *tool = find(arg, &m->tool_name);
    cm_proto_free(m);
    if (!tool) {
        cm_grpc_call_finish(wire, CM_GRPC_NOT_FOUND, "there is no such tool");
        return;
    }
    fill_entry(&e, &tool->public);
    codemode__get_tool_schema_response__init(&answer);
    answer.tool_name = e.info.name;
    answer.input_schema = e.info.input_schema;
    answer.output_schema = e.info.output_schema;
    answer.description = e.info.description;
    answer.is_async = e.info.is_async;
    answer.has_context = e.info.has_context;
    reply(wire, &answer.base);
}

/* Who may call */

/* Takes as long whatever the difference is. */
static bool same(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    volatile unsigned char differs = n != m;

    for (size_t i = 0; i < m; i++)
        differs |= (unsigned char)(a[n ? i % n : 0] ^ b[i]);
    return !differs;
}

static enum cm_grpc_status admit(void *arg, struct cm_grpc_call *wire, char *why)
{
    const struct codemode_tools *t = arg;
    const char *given = cm_grpc_call_metadata(wire, "authorization");

    if (!t->bearer || (given && same(given, t->bearer)))
        return CM_GRPC_OK;
    strcpy(why, given ? "the key is not the one of this tool service" : "the metadata authorization is missing");
    return CM_GRPC_UNAUTHENTICATED;
}

static const struct cm_grpc_method methods[] = {
    {"/codemode.ToolService/CallTool", admit, on_call_tool, on_cancelled, NULL},
    {"/codemode.ToolService/ListTools", admit, on_list_tools, on_cancelled, NULL},
    {"/codemode.ToolService/GetToolSchema", admit, on_get_schema, on_cancelled, NULL},
};

/* Connections */

static void on_http(void *arg, int fd, const struct sockaddr *peer, socklen_t len)
{
    (void)arg;
    (void)peer;
    (void)len;
    close(fd); /* nothing here speaks HTTP/1.1 */
}

static void on_h2_fd(void *arg, int fd)
{
    struct codemode_tools *t = arg;

    cm_grpc_server_adopt_fd(t->grpc, fd, NULL);
}

static void on_h2_stream(void *arg, struct cm_stream *s)
{
    struct codemode_tools *t = arg;

    cm_grpc_server_adopt(t->grpc, s, NULL, 0, NULL);
}

static unsigned connections(void *arg)
{
    struct codemode_tools *t = arg;

    return t->grpc ? cm_grpc_server_connections(t->grpc) : 0;
}

struct opening {
    struct codemode_tools *tools;
    struct cm_err err;
    int rc;
};

static int listen_at(struct codemode_tools *t, struct cm_err *err)
{
    static const struct cm_door_ops ops = {on_http, on_h2_fd, on_h2_stream, connections};
    struct cm_door_config config = {
        .ports = &t->options.port,
        .ports_count = 1,
        .connections_max = CONNECTIONS_MAX,
        .head_ms = HEAD_MS,
        .tls = t->tls,
    };
    int rc = cm_listen_address(t->host, &config.address, err);

    if (rc < 0)
        return rc;
    if (!cm_address_is_loopback(&config.address) && !t->bearer && !t->options.ca_file)
        return cm_err_set(err, CM_ERR_CONFIG,
                          "host: beyond loopback, everybody could call: set api_key, or ca_file with TLS");
    rc = cm_door_open(t->thread.loop, &config, &ops, t, &t->door, err);
    if (rc == 0)
        t->port = cm_door_port(t->door, 0);
    return rc;
}

static void open_service(void *arg)
{
    struct opening *o = arg;
    const struct cm_grpc_server_limits limits = {
        .message_max = TOOLS_MESSAGE_MAX,
        .metadata_max = METADATA_MAX,
        .unread_max = 2 * TOOLS_MESSAGE_MAX,
        .streams_max = STREAMS_MAX,
        .connections_max = CONNECTIONS_MAX,
        .idle_ms = IDLE_MS,
        .resets_max = RESETS_MAX,
    };

    o->tools->grpc =
        cm_grpc_server_new(o->tools->thread.loop, &limits, methods, CM_COUNT_OF(methods), o->tools, &o->err);
    o->rc = o->tools->grpc ? listen_at(o->tools, &o->err) : o->err.code;
}

int lib_tools_open(struct codemode_tools *tools, struct codemode_error *err)
{
    struct opening o = {.tools = tools};

    lib_thread_call(&tools->thread, open_service, &o);
    return o.rc < 0 ? lib_error_from(err, &o.err) : 0;
}

void lib_tools_drain(void *tools)
{
    struct codemode_tools *t = tools;

    cm_door_shut(t->door);
    cm_grpc_server_drain(t->grpc);
}

void lib_tools_close(void *tools)
{
    struct codemode_tools *t = tools;

    t->door = cm_door_free(t->door);
    t->grpc = cm_grpc_server_free(t->grpc);
}

/* In a callback */

const char *codemode_call_tool(const struct codemode_call *call)
{
    return call->tool->public.name;
}

const char *codemode_call_arguments(const struct codemode_call *call)
{
    return cm_buf_data((struct cm_buf *)&call->arguments);
}

const char *codemode_call_context(const struct codemode_call *call)
{
    return call->has_context ? cm_buf_data((struct cm_buf *)&call->context) : NULL;
}

const char *codemode_call_correlation_id(const struct codemode_call *call)
{
    return call->correlation;
}

double codemode_call_time_left(const struct codemode_call *call)
{
    uint64_t now = cm_clock_ns();

    return call->deadline_ns ? ((double)call->deadline_ns - (double)now) / 1e9 : HUGE_VAL;
}

bool codemode_call_cancelled(const struct codemode_call *call)
{
    return atomic_load(&call->cancelled);
}

static int wrap(struct cm_buf *to, const char *json)
{
    int rc = cm_buf_puts(to, "{\"value\":");

    rc = rc ? rc : cm_buf_puts(to, json);
    return rc ? rc : cm_buf_puts(to, "}");
}

int codemode_answer(struct codemode_call *call, const char *json)
{
    struct cm_json_value value;
    cm_autobuf struct cm_buf text = {.max = 4 * (size_t)TOOLS_MESSAGE_MAX};
    struct cm_err err = {0};

    free(cm_steal(call->error));
    cm_buf_clear(&call->result);
    call->answered = false;
    int rc = json ? cm_json_check(json, strlen(json), &value, &err) : CM_ERR_BAD_JSON;
    if (rc == 0)
        rc = value.kind == CM_JSON_OBJECT ? cm_buf_puts(&text, json) : wrap(&text, json);
    rc = rc ? rc : cm_struct_from_json(cm_buf_data(&text), text.len, &call->result, &err);
    call->answered = rc == 0;
    if (rc == 0)
        return 0;
    codemode_answer_error(call, "the tool's answer is no JSON, or too large");
    return -CODEMODE_INVALID_ARGUMENT;
}

void codemode_answer_error(struct codemode_call *call, const char *text)
{
    struct cm_buf words = {.max = ERROR_MAX};
    size_t len = text ? strnlen(text, ERROR_MAX / 3) : 0; /* a bad byte becomes three */

    free(cm_steal(call->error));
    call->answered = true;
    if (cm_utf8_append(&words, len ? text : "the tool has failed", len ? len : 19) == 0)
        call->error = cm_buf_steal(&words, &len);
    call->answered = call->error;
    cm_buf_done(&words);
}
