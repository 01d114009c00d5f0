/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the gRPC face: the first byte picks the method, the rest is its message. Below it stand an executor and a
 * session manager that look at what they are given: texts are UTF-8, JSON is JSON, limits keep the caps. Every call is
 * answered once. */
#include "fuzz.h"

#include <math.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "conf/conf.h"
#include "front/grpc/internal.h"
#include "model_json.h"
#include "wire/json.h"
#include "wire/proto.h"

/* The call, as src/grpc has it */

struct cm_grpc_call {
    void *user;
    bool answered, sent, reset;
    enum cm_grpc_status status;
};

struct cm_grpc_server {
    int unused;
};

static struct cm_grpc_server server;
static const struct cm_grpc_method *methods;
static size_t method_count;
static void *method_arg;

struct cm_grpc_server *cm_grpc_server_new(struct cm_loop *loop, const struct cm_grpc_server_limits *limits,
                                          const struct cm_grpc_method *list, size_t count, void *arg,
                                          struct cm_err *err)
{
    (void)loop;
    (void)err;
    CHECK(limits->message_max > 0);
    methods = list;
    method_count = count;
    method_arg = arg;
    return &server;
}

struct cm_grpc_server *cm_grpc_server_free(struct cm_grpc_server *s)
{
    (void)s;
    return NULL;
}

void cm_grpc_server_drain(struct cm_grpc_server *s)
{
    (void)s;
}

const char *cm_grpc_call_metadata(const struct cm_grpc_call *call, const char *key)
{
    (void)call;
    (void)key;
    return NULL;
}

uint64_t cm_grpc_call_deadline(const struct cm_grpc_call *call)
{
    (void)call;
    return 0;
}

bool cm_grpc_call_lost(const struct cm_grpc_call *call)
{
    (void)call;
    return true;
}

void cm_grpc_call_set_user(struct cm_grpc_call *call, void *user)
{
    call->user = user;
}

void *cm_grpc_call_user(const struct cm_grpc_call *call)
{
    return call->user;
}

void cm_grpc_call_header(struct cm_grpc_call *call, const char *key, const char *value)
{
    CHECK(!call->answered && !call->sent && *key && value);
}

int cm_grpc_call_send(struct cm_grpc_call *call, const void *message, size_t len, struct cm_err *err)
{
    (void)message;
    (void)err;
    CHECK(!call->answered && len < 1 << 20);
    call->sent = true;
    return 0;
}

void cm_grpc_call_finish(struct cm_grpc_call *call, enum cm_grpc_status status, const char *text)
{
    CHECK(!call->answered && (status != CM_GRPC_OK || call->sent) && (status == CM_GRPC_OK || (text && *text)));
    CHECK(!text || cm_utf8_valid(text, strlen(text)) || status != CM_GRPC_OK);
    call->answered = true;
    call->status = status;
}

/* The rooms below */

static const struct cm_exec_ops *waiting_ops;
static void *waiting;

static void check_json(const char *text, size_t len, char kind)
{
    if (!text) {
        CHECK(len == 0);
        return;
    }
    struct model m = model_json(text, len, CM_JSON_DEPTH_MAX + 4);
    CHECK(m.valid && m.kind == kind);
}

int cm_executor_run(struct cm_executor *x, const struct cm_run_request *req, const struct cm_exec_ops *ops, void *arg,
                    struct cm_run **ret, struct cm_err *err)
{
    const struct cm_exec_request *e = &req->exec;

    (void)x;
    CHECK(cm_utf8_valid(e->code, e->code_len) && isfinite(e->timeout_s) && e->timeout_s >= 0);
    check_json(e->context, e->context_len, '{');
    check_json(e->config, e->config_len, '{');
    check_json(req->available_tools, req->available_tools_len, '[');
    CHECK(!req->session || (*req->session && strlen(req->session) < CM_SESSION_ID_MAX));
    CHECK(e->correlation_id && *e->correlation_id && strlen(e->correlation_id) <= CM_CORRELATION_MAX);
    for (int i = 0; e->limits && i < CM_LIMITS; i++)
        CHECK(!(e->limits->named & 1u << i) || e->limits->value.at[i] <= e->caps->at[i]);
    if (e->code_len % 4 == 3)
        return cm_err_set(err, CM_ERR_QUEUE_FULL, "full");
    waiting_ops = ops;
    waiting = arg;
    *ret = (struct cm_run *)&waiting;
    return 0;
}

void cm_run_abandon(struct cm_run *run, bool lost)
{
    CHECK(run == (struct cm_run *)&waiting && waiting && lost);
    waiting = NULL;
}

const char *cm_run_id(const struct cm_run *run)
{
    (void)run;
    return "exec-1";
}

const char *cm_executor_target(const struct cm_executor *x)
{
    (void)x;
    return "localhost:50051";
}

void cm_executor_ping(struct cm_executor *x, void (*done)(void *arg, enum cm_tool_service state), void *arg)
{
    (void)x;
    done(arg, CM_TOOLS_UNREACHABLE);
}

bool cm_sessions_ready(const struct cm_sessions *m)
{
    (void)m;
    return true;
}

int cm_sessions_create_for(struct cm_sessions *m, const struct cm_session_owner *owner,
                           const struct cm_limits_asked *limits, const char *correlation_id,
                           void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                           struct cm_err *err)
{
    (void)m;
    (void)err;
    CHECK(!owner && *correlation_id);
    for (int i = 0; i < CM_LIMITS; i++)
        CHECK(!(limits->named & 1u << i) || isfinite(limits->value.at[i]));
    waiting_ops = NULL;
    (void)done;
    (void)arg;
    return cm_err_set(err, CM_ERR_MAX_SESSIONS, "there are enough");
}

static int known(const char *id, struct cm_err *err)
{
    CHECK(*id && strlen(id) < CM_SESSION_ID_MAX && cm_utf8_valid(id, strlen(id)));
    return *id == 's' ? 0 : cm_err_set(err, CM_ERR_NO_SESSION, "no session");
}

int cm_sessions_check_owner(const struct cm_sessions *m, const char *id, const char *owner, struct cm_err *err)
{
    (void)m;
    CHECK(strcmp(owner, "") == 0);
    return known(id, err);
}

int cm_sessions_info(struct cm_sessions *m, const char *id, struct cm_session_info *ret, struct cm_err *err)
{
    (void)m;
    *ret = (struct cm_session_info){.state = "idle", .owner = "", .expires_in_s = -1};
    return known(id, err);
}

int cm_sessions_interrupt(struct cm_sessions *m, const char *id, const char *execution, bool *ret_stopped,
                          struct cm_err *err)
{
    (void)m;
    (void)execution;
    *ret_stopped = true;
    return known(id, err);
}

int cm_sessions_roll_back(struct cm_sessions *m, const char *id,
                          void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                          struct cm_err *err)
{
    (void)m;
    (void)done;
    (void)arg;
    return known(id, err) ? err->code : cm_err_set(err, CM_ERR_NOTHING_TO_UNDO, "nothing");
}

bool cm_sessions_delete(struct cm_sessions *m, const char *id)
{
    (void)m;
    return *id == 's';
}

int cm_sessions_output(struct cm_sessions *m, const char *id, const char *execution, int stream, uint64_t offset,
                       uint64_t length, struct cm_buf *to, struct cm_output_info *ret, struct cm_err *err)
{
    (void)m;
    (void)id;
    (void)err;
    CHECK((stream == 1 || stream == 2) && strlen(execution) < CM_SESSION_ID_MAX && length <= to->max);
    *ret = (struct cm_output_info){offset, offset};
    return 0;
}

void cm_sessions_each(struct cm_sessions *m, void (*each)(void *arg, const struct cm_session_info *info), void *arg)
{
    const struct cm_session_info mine = {.id = "session-1", .owner = ""}, other = {.id = "session-2", .owner = "bob"};

    (void)m;
    each(arg, &mine);
    each(arg, &other);
}

/* One input */

static struct cm_rpc *rpc;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static struct cm_conf conf;
    struct cm_err err;

    (void)argc;
    (void)argv;
    CHECK(cm_conf_defaults(&conf, &err) == 0);
    const struct cm_rpc_parts parts = {.conf = &conf};
    CHECK(cm_rpc_open(&parts, &rpc, &err) == 0);
    return 0;
}

static void answer(uint8_t what)
{
    struct cm_exec_result res = {
        .success = what & 1, .timed_out = what & 2, .out = "o", .out_len = 1, .error = "E: \xc3\xa4", .error_len = 5};
    struct cm_err err;
    void *arg = cm_steal(waiting);

    cm_err_set(&err, CM_ERR_SESSION_LOST, "gone");
    for (int i = 0; waiting_ops->output && i < what % 7; i++)
        waiting_ops->output(arg, 1 + i % 2, "text", 4);
    waiting_ops->done(arg, what & 4 ? NULL : &res, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_grpc_call call = {0};

    if (size < 2)
        return 0;
    const struct cm_grpc_method *method = &methods[data[0] % method_count];
    char *message = fuzz_copy(data + 2, size - 2);
    method->request(method_arg, &call, (uint8_t *)message, size - 2);
    free(message);
    CHECK(call.answered == !waiting);
    if (waiting && data[1] & 8) {
        method->cancelled(method_arg, &call);
        CHECK(!waiting && !call.answered);
    } else if (waiting) {
        answer(data[1]);
        CHECK(call.answered);
    }
    return 0;
}
