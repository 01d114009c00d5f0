/* SPDX-License-Identifier: Apache-2.0 */
/* codemode.v1.Sessions. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "conf/conf.h"
#include "front/grpc/internal.h"
#include "wire/proto.h"

/* Bytes of one answer of ReadOutput: clients take 4 MiB unless told otherwise. */
#define READ_MAX (2u << 20)

/* Executions */

static void on_output(void *arg, int stream, const char *data, size_t len)
{
    cm_rpc_announce(arg);
    cm_rpc_output(arg, stream, data, len);
}

static void on_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
{
    struct call *c = arg;
    struct cm_err own;

    if (res)
        cm_rpc_announce(c);
    cm_rpc_output_end(c);
    if (!res)
        cm_rpc_fail(c, err);
    else if (cm_rpc_send_result(c, res, &own) < 0)
        cm_rpc_fail(c, &own);
    else
        cm_rpc_refuse(c, CM_GRPC_OK, NULL);
}

static int take_timeout(double asked, const struct cm_limits_asked *limits, struct cm_err *err)
{
    if (!(asked >= 0) || !isfinite(asked))
        return cm_err_set(err, CM_ERR_BAD_FIELD,
                          "timeout: must be a number of seconds from 0 (the default) to MAX_TIMEOUT");
    if (asked > 0 && limits->named & 1u << CM_LIMIT_TIMEOUT)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "limits.timeout: is the same as timeout; send one of them");
    return 0;
}

static int take_key(struct call *c, const Codemode__V1__ExecuteRequest *m, struct cm_err *err)
{
    const char *key = cm_grpc_call_metadata(c->wire, "idempotency-key");

    if (key)
        return cm_rpc_take_key(key, strlen(key), c->idempotency, err);
    return cm_rpc_take_key((const char *)m->idempotency_key.data, m->idempotency_key.len, c->idempotency, err);
}

/* `tools` gets the names, `limits` what is asked for; both are referred to by *ret. */
static int take(struct call *c, Codemode__V1__ExecuteRequest *m, struct cm_buf *tools, struct cm_limits_asked *limits,
                struct cm_run_request *ret, struct cm_err *err)
{
    struct cm_exec_request *e = &ret->exec;
    int rc;

    if ((rc = cm_rpc_take_session(c, &m->session_id, err)) < 0 || (rc = take_key(c, m, err)) < 0 ||
        (rc = cm_rpc_take_limits(c, m->limits, m->n_limits, CM_LIMIT_OF_EXECUTION, limits, err)) < 0 ||
        (rc = take_timeout(m->timeout, limits, err)) < 0 ||
        (rc = cm_rpc_take_object("context_json", &m->context_json, &e->context, &e->context_len, err)) < 0 ||
        (rc = cm_rpc_take_object("config_json", &m->config_json, &e->config, &e->config_len, err)) < 0 ||
        (rc = cm_rpc_take_names(m->available_tools, m->n_available_tools, tools, err)) < 0)
        return rc;
    if (m->on_error != CODEMODE__V1__ON_ERROR__ON_ERROR_KEEP &&
        m->on_error != CODEMODE__V1__ON_ERROR__ON_ERROR_ROLLBACK)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "on_error: must be ON_ERROR_KEEP or ON_ERROR_ROLLBACK");
    e->code = m->code.len ? (const char *)m->code.data : "";
    e->code_len = m->code.len;
    e->mode = c->session[0] ? CM_EXEC_SESSION : CM_EXEC_ONESHOT;
    e->timeout_s = m->timeout;
    e->limits = limits;
    e->atomic = m->on_error == CODEMODE__V1__ON_ERROR__ON_ERROR_ROLLBACK;
    ret->available_tools = cm_buf_data(tools);
    ret->available_tools_len = tools->len;
    return 0;
}

void cm_rpc_execute(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    static const struct cm_exec_ops ops = {.output = on_output, .done = on_done};
    struct call *c = cm_rpc_begin(arg, wire, "/codemode.v1.Sessions/Execute");
    struct cm_run_request req = {0};
    struct cm_limits_asked limits = {0};
    struct cm_err err;

    if (!c)
        return;
    Codemode__V1__ExecuteRequest *m = cm_rpc_read(c, &codemode__v1__execute_request__descriptor, message, len);
    if (!m)
        return;
    cm_autobuf struct cm_buf tools;
    cm_buf_init(&tools, c->rpc->parts.conf->max_body * 2);
    c->out.quiet = m->quiet;
    c->out.announce = m->announce;
    if (take(c, m, &tools, &limits, &req, &err) < 0 || cm_rpc_run(c, &req, &ops, &err) < 0)
        cm_rpc_fail(c, &err);
    else
        cm_rpc_announce(c);
    cm_proto_free(m);
}

/* Their lives */

/* A creation cannot be withdrawn: when its client has left meanwhile, the session goes at once. */
static void on_created(void *arg, const char *id, const struct cm_err *err)
{
    struct call *c = arg;
    Codemode__V1__CreateResponse answer;

    if (id && !c->wire && c->rpc)
        cm_sessions_delete(c->rpc->parts.sessions, id);
    codemode__v1__create_response__init(&answer);
    answer.session_id = cm_proto_text(id);
    if (id)
        cm_rpc_reply(c, &answer.base);
    else
        cm_rpc_fail(c, err);
    cm_rpc_unref(c);
}

void cm_rpc_create(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct call *c = cm_rpc_begin(arg, wire, "/codemode.v1.Sessions/Create");
    struct cm_limits_asked limits;
    struct cm_err err;

    if (!c)
        return;
    Codemode__V1__CreateRequest *m = cm_rpc_read(c, &codemode__v1__create_request__descriptor, message, len);
    if (!m)
        return;
    int rc = cm_rpc_take_limits(c, m->limits, m->n_limits, CM_LIMIT_OF_SESSION, &limits, &err);
    const struct cm_session_owner owner = {
        .name = cm_key_name(c->key), .caps = &c->caps, .max_sessions = c->key ? c->key->max_sessions : 0};
    rc = rc ? rc
            : cm_sessions_create_for(c->rpc->parts.sessions, c->key ? &owner : NULL, &limits, c->correlation,
                                     on_created, c, &err);
    if (rc < 0)
        cm_rpc_fail(c, &err);
    else
        cm_rpc_ref(c);
    cm_proto_free(m);
}

/* Reads a session's id, which must be there; it is then in the call. */
static int read_id(struct call *c, const uint8_t *message, size_t len, struct cm_err *err)
{
    /* All requests that begin with a session's id look the same on the wire. */
    Codemode__V1__GetRequest *m = cm_proto_unpack(&codemode__v1__get_request__descriptor, message, len, err);

    if (!m)
        return err->code;
    int rc = m->session_id.len > 0 ? cm_rpc_take_session(c, &m->session_id, err)
                                   : cm_err_set(err, CM_ERR_BAD_FIELD, "session_id: field required");
    cm_proto_free(m);
    return rc;
}

static struct call *begin(void *arg, struct cm_grpc_call *wire, const char *method, const uint8_t *message, size_t len)
{
    struct call *c = cm_rpc_begin(arg, wire, method);
    struct cm_err err;

    if (!c || read_id(c, message, len, &err) == 0)
        return c;
    cm_rpc_fail(c, &err);
    return NULL;
}

void cm_rpc_interrupt(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct call *c = begin(arg, wire, "/codemode.v1.Sessions/Interrupt", message, len);
    Codemode__V1__InterruptResponse answer;
    char execution[CM_SESSION_ID_MAX] = ""; /* which is nobody's */
    bool stopped = false;
    struct cm_err err;

    if (!c)
        return;
    Codemode__V1__InterruptRequest *m = cm_rpc_read(c, &codemode__v1__interrupt_request__descriptor, message, len);
    if (!m)
        return;
    bool named = m->execution_id.len > 0;
    if (named)
        cm_rpc_take_id(&m->execution_id, execution);
    cm_proto_free(m);
    if (cm_sessions_interrupt(c->rpc->parts.sessions, c->session, named ? execution : NULL, &stopped, &err) < 0) {
        cm_rpc_fail(c, &err);
        return;
    }
    codemode__v1__interrupt_response__init(&answer);
    answer.interrupted = stopped;
    cm_rpc_reply(c, &answer.base);
}

static void on_rolled_back(void *arg, const char *id, const struct cm_err *err)
{
    struct call *c = arg;
    Codemode__V1__RollbackResponse answer;

    codemode__v1__rollback_response__init(&answer);
    if (id)
        cm_rpc_reply(c, &answer.base);
    else
        cm_rpc_fail(c, err);
    cm_rpc_unref(c);
}

void cm_rpc_roll_back(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct call *c = begin(arg, wire, "/codemode.v1.Sessions/Rollback", message, len);
    struct cm_err err;

    if (!c)
        return;
    if (cm_sessions_roll_back(c->rpc->parts.sessions, c->session, on_rolled_back, c, &err) < 0)
        cm_rpc_fail(c, &err);
    else
        cm_rpc_ref(c);
}

void cm_rpc_delete_session(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct call *c = cm_rpc_begin(arg, wire, "/codemode.v1.Sessions/Delete");
    Codemode__V1__DeleteResponse answer;
    struct cm_err err;

    if (!c)
        return;
    int rc = read_id(c, message, len, &err);
    if (rc < 0 && rc != CM_ERR_NO_SESSION) {
        cm_rpc_fail(c, &err);
        return;
    }
    codemode__v1__delete_response__init(&answer);
    answer.deleted = rc == 0 && cm_sessions_delete(c->rpc->parts.sessions, c->session);
    cm_rpc_reply(c, &answer.base);
}

/* Looking */

static void fill(Codemode__V1__Session *to, const struct cm_session_info *info)
{
    codemode__v1__session__init(to);
    to->session_id = cm_proto_text(info->id);
    to->state = cm_proto_text(info->state);
    to->executions = info->executions;
    to->queued = info->queued;
    to->age_seconds = info->age_s;
    to->idle_seconds = info->idle_s;
    if (info->expires_in_s >= 0) {
        to->has_expires_in_seconds_case = CODEMODE__V1__SESSION__HAS_EXPIRES_IN_SECONDS_EXPIRES_IN_SECONDS;
        to->expires_in_seconds = info->expires_in_s;
    }
    to->memory_bytes = info->memory_bytes;
    to->restores = info->restores;
    to->can_roll_back = info->can_roll_back;
    to->pid = info->pid;
}

void cm_rpc_show_session(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct call *c = begin(arg, wire, "/codemode.v1.Sessions/Get", message, len);
    Codemode__V1__Pair pairs[CM_LIMITS], *list[CM_LIMITS];
    struct cm_session_info info;
    Codemode__V1__Session answer;
    struct cm_err err;

    if (!c)
        return;
    if (cm_sessions_info(c->rpc->parts.sessions, c->session, &info, &err) < 0) {
        cm_rpc_fail(c, &err);
        return;
    }
    fill(&answer, &info);
    answer.limits = list;
    for (int i = 0; i < CM_LIMITS; i++) {
        if (cm_limit_info(i)->scope == CM_LIMIT_OF_SERVER)
            continue;
        codemode__v1__pair__init(&pairs[i]);
        pairs[i].key = cm_proto_text(cm_limit_info(i)->name);
        pairs[i].value = info.limits.at[i];
        list[answer.n_limits++] = &pairs[i];
    }
    cm_rpc_reply(c, &answer.base);
}

struct list {
    const char *owner; /* whose they are to be */
    char *ids; /* CM_SESSION_ID_MAX bytes each */
    size_t count, room;
};

static void add(void *arg, const struct cm_session_info *info)
{
    struct list *list = arg;

    if (strcmp(info->owner, list->owner) != 0)
        return;
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 64; /* of at most as many as MAX_SESSIONS allows */
        char *ids = reallocarray(list->ids, room, CM_SESSION_ID_MAX);
        if (!ids)
            return;
        list->ids = ids;
        list->room = room;
    }
    memcpy(list->ids + list->count++ * CM_SESSION_ID_MAX, info->id, CM_SESSION_ID_MAX);
}

void cm_rpc_list_sessions(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct call *c = cm_rpc_begin(arg, wire, "/codemode.v1.Sessions/List");
    Codemode__V1__ListResponse answer;
    struct list list = {0};

    (void)message; /* has no fields */
    (void)len;
    if (!c)
        return;
    list.owner = cm_key_name(c->key);
    cm_sessions_each(c->rpc->parts.sessions, add, &list);
    cm_autofree char *ids = list.ids;
    cm_autofree ProtobufCBinaryData *names = calloc(list.count + 1, sizeof *names);
    if (!names) {
        cm_rpc_refuse(c, CM_GRPC_RESOURCE_EXHAUSTED, "no memory for a list of sessions");
        return;
    }
    for (size_t i = 0; i < list.count; i++)
        names[i] = cm_proto_text(ids + i * CM_SESSION_ID_MAX);
    codemode__v1__list_response__init(&answer);
    answer.session_ids = names;
    answer.n_session_ids = list.count;
    cm_rpc_reply(c, &answer.base);
}

static int read_output(struct call *c, const Codemode__V1__ReadOutputRequest *m, struct cm_buf *to,
                       struct cm_output_info *ret, struct cm_err *err)
{
    char execution[CM_SESSION_ID_MAX];
    int rc = cm_rpc_take_session(c, &m->session_id, err);

    if (rc < 0)
        return rc;
    if (!cm_rpc_take_id(&m->execution_id, execution))
        return cm_err_set(err, CM_ERR_NO_OUTPUT, "there is no such execution");
    if (m->stream != CODEMODE__V1__STREAM__STREAM_STDOUT && m->stream != CODEMODE__V1__STREAM__STREAM_STDERR)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "stream: must be STREAM_STDOUT or STREAM_STDERR");
    uint64_t length = m->length > 0 && m->length < to->max ? m->length : to->max;
    return cm_sessions_output(c->rpc->parts.sessions, c->session, execution, (int)m->stream, m->offset, length, to, ret,
                              err);
}

void cm_rpc_read_output(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len)
{
    struct call *c = cm_rpc_begin(arg, wire, "/codemode.v1.Sessions/ReadOutput");
    Codemode__V1__ReadOutputResponse answer;
    struct cm_output_info info = {0};
    struct cm_err err;

    if (!c)
        return;
    Codemode__V1__ReadOutputRequest *m = cm_rpc_read(c, &codemode__v1__read_output_request__descriptor, message, len);
    if (!m)
        return;
    cm_autobuf struct cm_buf data;
    cm_buf_init(&data, READ_MAX);
    codemode__v1__read_output_response__init(&answer);
    if (read_output(c, m, &data, &info, &err) < 0) {
        cm_rpc_fail(c, &err);
    } else {
        answer.data = cm_proto_bytes(cm_buf_data(&data), data.len);
        answer.printed = info.printed;
        answer.stored = info.stored;
        cm_rpc_reply(c, &answer.base);
    }
    cm_proto_free(m);
}
