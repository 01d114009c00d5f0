/* SPDX-License-Identifier: Apache-2.0 */
/* Executions. A result keeps the message that it came in, and its texts point into copies with a NUL behind each. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "codemode.pb-c.h"
#include "codemode_v1.pb-c.h"
#include "lib.h"
#include "wire/structs.h"

/* Longer than any server lets code run: its own limits decide, and a dead connection is found out by its keep-alive. */
#define EXECUTION_MAX 86400.0
#define NAMES_MAX     10000

int lib_limits_begin(struct lib_limits *l, const struct codemode_limit *limits, size_t count,
                     struct codemode_error *err)
{
    l->pairs = calloc(count + 1, sizeof *l->pairs);
    l->pointers = calloc(count + 1, sizeof *l->pointers);
    if (!l->pairs || !l->pointers) {
        lib_limits_end(l);
        return lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for limits");
    }
    for (size_t i = 0; i < count; i++) {
        codemode__v1__pair__init(&l->pairs[i]);
        l->pairs[i].key = cm_proto_text(limits[i].name);
        l->pairs[i].value = limits[i].value;
        l->pointers[i] = &l->pairs[i];
    }
    return 0;
}

void lib_limits_end(struct lib_limits *l)
{
    free(l->pairs);
    free(l->pointers);
}

/* Results */

struct result {
    struct codemode_result public;
    char texts[];
};

/* Appends a text to those of the result. */
static const char *put(char **at, const ProtobufCBinaryData *text)
{
    char *begin = *at;

    if (text->len > 0)
        memcpy(begin, text->data, text->len);
    begin[text->len] = '\0';
    *at = begin + text->len + 1;
    return begin;
}

static struct result *new_result(const ProtobufCBinaryData *const *texts, size_t count)
{
    size_t size = 0;

    for (size_t i = 0; i < count; i++)
        size += texts[i]->len + 1;
    return calloc(1, sizeof(struct result) + size);
}

static struct codemode_result *from_event(const Codemode__V1__ExecutionResult *m)
{
    static const ProtobufCBinaryData none;
    const ProtobufCBinaryData *result = m->has_result_case ? &m->result : &none;
    const ProtobufCBinaryData *const texts[] = {result,           &m->stdout,        &m->stderr,      &m->error,
                                                &m->error_type,   &m->traceback,     &m->locals_json, &m->session_id,
                                                &m->execution_id, &m->correlation_id};
    struct result *r = new_result(texts, CM_COUNT_OF(texts));

    if (!r)
        return NULL;
    char *at = r->texts;
    const char *text = put(&at, result);
    r->public = (struct codemode_result){
        .success = m->success,
        .timed_out = m->timed_out,
        .stdout_truncated = m->stdout_truncated,
        .stderr_truncated = m->stderr_truncated,
        .result_truncated = m->result_truncated,
        .error_truncated = m->error_truncated,
        .locals_truncated = m->locals_truncated,
        .stdout_stored = m->stdout_stored,
        .stderr_stored = m->stderr_stored,
        .state = (enum codemode_state)m->state,
        .result = m->has_result_case ? text : NULL,
        .result_len = result->len,
        .out_len = m->stdout.len,
        .error_out_len = m->stderr.len,
        .out_bytes = m->stdout_bytes,
        .error_out_bytes = m->stderr_bytes,
        .seconds = m->execution_time,
        .cpu_seconds = m->cpu_time,
        .memory = m->memory_bytes,
    };
    r->public.out = put(&at, &m->stdout);
    r->public.error_out = put(&at, &m->stderr);
    r->public.error = put(&at, &m->error);
    r->public.error_type = put(&at, &m->error_type);
    r->public.traceback = put(&at, &m->traceback);
    r->public.locals_json = put(&at, &m->locals_json);
    r->public.session = put(&at, &m->session_id);
    r->public.execution = put(&at, &m->execution_id);
    r->public.correlation_id = put(&at, &m->correlation_id);
    return &r->public;
}

static struct codemode_result *from_response(const Codemode__ExecutionResponse *m)
{
    const ProtobufCBinaryData *const texts[] = {&m->result, &m->stdout,     &m->stderr,
                                                &m->error,  &m->error_type, &m->correlation_id};
    struct result *r = new_result(texts, CM_COUNT_OF(texts));

    if (!r)
        return NULL;
    char *at = r->texts;
    r->public = (struct codemode_result){
        .success = m->success,
        .result_len = m->result.len,
        .out_len = m->stdout.len,
        .error_out_len = m->stderr.len,
        .out_bytes = m->stdout.len,
        .error_out_bytes = m->stderr.len,
        .seconds = (double)m->duration_ms / 1e3,
        .traceback = "",
        .locals_json = "{}",
        .session = "",
        .execution = "",
    };
    r->public.result = put(&at, &m->result);
    r->public.out = put(&at, &m->stdout);
    r->public.error_out = put(&at, &m->stderr);
    r->public.error = put(&at, &m->error);
    r->public.error_type = put(&at, &m->error_type);
    r->public.correlation_id = put(&at, &m->correlation_id);
    r->public.timed_out = strcmp(r->public.error_type, "Timeout") == 0;
    return &r->public;
}

void codemode_result_free(struct codemode_result *result)
{
    free(result); /* the public part is the first of what was allocated */
}

/* Requests */

static ProtobufCBinaryData code_of(const struct codemode_request *r)
{
    return r->code_len ? cm_proto_bytes(r->code, r->code_len) : cm_proto_text(r->code);
}

/* For free(). */
static ProtobufCBinaryData *names_of(const struct codemode_request *r, size_t *ret_count)
{
    size_t count = 0;

    while (r->available_tools && r->available_tools[count] && count < NAMES_MAX)
        count++;
    ProtobufCBinaryData *names = calloc(count + 1, sizeof *names);
    for (size_t i = 0; names && i < count; i++)
        names[i] = cm_proto_text(r->available_tools[i]);
    *ret_count = count;
    return names;
}

static int check(const struct codemode_request *r, struct codemode_error *err)
{
    if (!r->code)
        return lib_error(err, CODEMODE_INVALID_ARGUMENT, "code: is NULL");
    if (!(r->timeout >= 0) || r->timeout > EXECUTION_MAX)
        return lib_error(err, CODEMODE_INVALID_ARGUMENT, "timeout: must be from 0 to %g seconds", EXECUTION_MAX);
    return 0;
}

struct stream {
    const struct codemode_request *request;
    struct codemode_result *result;
    uint64_t omitted[2]; /* not yet told of */
    bool no_memory;
};

static bool tell(struct stream *s, int stream, const ProtobufCBinaryData *data, uint64_t omitted)
{
    omitted += s->omitted[stream - 1];
    s->omitted[stream - 1] = 0;
    if (!s->request->output || (data->len == 0 && omitted == 0))
        return true;
    return s->request->output(s->request->arg, stream, data->len ? (const char *)data->data : "", data->len, omitted);
}

static bool on_message(void *arg, const uint8_t *message, size_t len, const uint64_t omitted[2])
{
    static const ProtobufCBinaryData none;
    struct stream *s = arg;
    bool more = true;

    s->omitted[0] += omitted[0];
    s->omitted[1] += omitted[1];
    Codemode__V1__ExecuteEvent *event = cm_proto_unpack(&codemode__v1__execute_event__descriptor, message, len, NULL);
    if (!event) {
        s->no_memory = true;
        return true;
    }
    if (event->event_case == CODEMODE__V1__EXECUTE_EVENT__EVENT_OUTPUT) {
        const Codemode__V1__Output *output = event->output;
        more = tell(s, output->stream == CODEMODE__V1__STREAM__STREAM_STDERR ? 2 : 1, &output->data, output->omitted);
    } else if (event->event_case == CODEMODE__V1__EXECUTE_EVENT__EVENT_RESULT && !s->result) {
        more = tell(s, 1, &none, 0) && tell(s, 2, &none, 0);
        s->result = from_event(event->result);
        s->no_memory |= !s->result;
    }
    cm_proto_free(event);
    return more;
}

static int stream(struct codemode_client *client, const struct codemode_request *r, const ProtobufCMessage *message,
                  struct codemode_result **ret, struct codemode_error *err)
{
    struct stream s = {.request = r};
    const struct lib_call call = {
        .path = "/codemode.v1.Sessions/Execute",
        .request = message,
        .correlation_id = r->correlation_id,
        .timeout = EXECUTION_MAX + lib_timeout(client),
        .message = on_message,
        .arg = &s,
    };
    int rc = lib_call(client, &call, NULL, err);

    if (rc == 0 && s.result) {
        *ret = s.result;
        return 0;
    }
    codemode_result_free(s.result);
    if (rc < 0)
        return rc;
    return s.no_memory ? lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for the result")
                       : lib_error(err, CODEMODE_INTERNAL, "the server has sent no result");
}

int codemode_execute(struct codemode_client *client, const struct codemode_request *r, struct codemode_result **ret,
                     struct codemode_error *err)
{
    Codemode__V1__ExecuteRequest m;
    struct lib_limits limits = {0};
    int rc = check(r, err);

    rc = rc ? rc : lib_limits_begin(&limits, r->limits, r->limit_count, err);
    if (rc < 0)
        return rc;
    codemode__v1__execute_request__init(&m);
    m.session_id = cm_proto_text(r->session);
    m.code = code_of(r);
    m.timeout = r->timeout;
    m.limits = limits.pointers;
    m.n_limits = r->limit_count;
    m.on_error = r->atomic ? CODEMODE__V1__ON_ERROR__ON_ERROR_ROLLBACK : CODEMODE__V1__ON_ERROR__ON_ERROR_KEEP;
    m.context_json = cm_proto_text(r->context_json);
    m.config_json = cm_proto_text(r->config_json);
    m.idempotency_key = cm_proto_text(r->idempotency_key);
    m.quiet = !r->output;
    ProtobufCBinaryData *names = names_of(r, &m.n_available_tools);
    m.available_tools = names;
    rc = names ? stream(client, r, &m.base, ret, err) : lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory");
    free(names);
    lib_limits_end(&limits);
    return rc;
}

/* A Struct from a JSON text; *ret_case stays 0 without one. */
static int pack_struct(const char *name, const char *json, struct cm_buf *space, ProtobufCBinaryData *ret,
                       struct codemode_error *err)
{
    struct cm_err why;

    if (!json)
        return 0;
    if (cm_struct_from_json(json, strlen(json), space, &why) < 0)
        return lib_error(err, CODEMODE_INVALID_ARGUMENT, "%s: %s", name, why.text);
    *ret = cm_proto_bytes(cm_buf_data(space), space->len);
    return 0;
}

static int execute_once(struct codemode_client *client, const struct codemode_request *r,
                        const Codemode__ExecutionRequest *m, struct codemode_result **ret, struct codemode_error *err)
{
    Codemode__ExecutionResponse *answer;
    const struct lib_call call = {
        .path = "/codemode.ExecutorService/Execute",
        .request = &m->base,
        .answer_type = &codemode__execution_response__descriptor,
        .correlation_id = r->correlation_id,
        .session = r->session,
        .idempotency_key = r->idempotency_key,
        .timeout = EXECUTION_MAX + lib_timeout(client),
    };
    int rc = lib_call(client, &call, (void **)&answer, err);

    if (rc < 0)
        return rc;
    *ret = from_response(answer);
    cm_proto_free(answer);
    return *ret ? 0 : lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for the result");
}

#define STRUCT_MAX (256u << 20)

int codemode_execute_once(struct codemode_client *client, const struct codemode_request *r,
                          struct codemode_result **ret, struct codemode_error *err)
{
    Codemode__ExecutionRequest m;
    cm_autobuf struct cm_buf config = {.max = STRUCT_MAX}, context = {.max = STRUCT_MAX};
    int rc = check(r, err);

    if (rc < 0)
        return rc;
    codemode__execution_request__init(&m);
    m.code = code_of(r);
    m.timeout = (int32_t)ceil(r->timeout);
    rc = pack_struct("config_json", r->config_json, &config, &m.config, err);
    rc = rc ? rc : pack_struct("context_json", r->context_json, &context, &m.context, err);
    if (rc < 0)
        return rc;
    if (r->config_json)
        m.has_config_case = CODEMODE__EXECUTION_REQUEST__HAS_CONFIG_CONFIG;
    if (r->context_json)
        m.has_context_case = CODEMODE__EXECUTION_REQUEST__HAS_CONTEXT_CONTEXT;
    cm_autofree ProtobufCBinaryData *names = names_of(r, &m.n_available_tools);
    if (!names)
        return lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory");
    m.available_tools = names;
    return execute_once(client, r, &m, ret, err);
}
