/* SPDX-License-Identifier: Apache-2.0 */
/* What an execution answered, in the words of both services. */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "executor/error_type.h"
#include "front/grpc/internal.h"
#include "wire/proto.h"

/* Bytes of a time limit's text, with the session's own words. */
#define TIMEOUT_TEXT_MAX 4096

static void fill_texts(Codemode__V1__ExecutionResult *to, const struct cm_exec_result *res)
{
    to->stdout = cm_proto_bytes(res->out, res->out_len);
    to->stderr = cm_proto_bytes(res->err, res->err_len);
    to->error = cm_proto_bytes(res->error, res->error_len);
    to->error_type = cm_proto_bytes(res->error_type, res->error_type_len);
    to->traceback = cm_proto_bytes(res->traceback, res->traceback_len);
    to->locals_json = res->locals ? cm_proto_bytes(res->locals, res->locals_len) : cm_proto_text("{}");
    if (res->result) {
        to->has_result_case = CODEMODE__V1__EXECUTION_RESULT__HAS_RESULT_RESULT;
        to->result = cm_proto_bytes(res->result, res->result_len);
    }
}

static void fill_figures(Codemode__V1__ExecutionResult *to, const struct cm_exec_result *res)
{
    to->success = res->success;
    to->timed_out = res->timed_out;
    to->state = (Codemode__V1__State)res->state;
    to->stdout_truncated = res->out_truncated;
    to->stderr_truncated = res->err_truncated;
    to->result_truncated = res->result_truncated;
    to->error_truncated = res->error_truncated;
    to->locals_truncated = res->locals_truncated;
    to->stdout_bytes = res->out_bytes;
    to->stderr_bytes = res->err_bytes;
    to->execution_time = (double)res->duration_ns / 1e9;
    to->cpu_time = (double)res->cpu_ns / 1e9;
    to->memory_bytes = res->memory_bytes;
}

int cm_rpc_send_result(struct call *c, const struct cm_exec_result *res, struct cm_err *err)
{
    Codemode__V1__ExecutionResult result;
    Codemode__V1__ExecuteEvent event;

    codemode__v1__execution_result__init(&result);
    codemode__v1__execute_event__init(&event);
    fill_texts(&result, res);
    fill_figures(&result, res);
    result.stdout_stored = res->out_stored && c->session[0];
    result.stderr_stored = res->err_stored && c->session[0];
    result.session_id = cm_proto_text(c->session);
    result.execution_id = cm_proto_text(c->run ? cm_run_id(c->run) : "");
    result.correlation_id = cm_proto_text(c->correlation);
    event.event_case = CODEMODE__V1__EXECUTE_EVENT__EVENT_RESULT;
    event.result = &result;
    return cm_rpc_send(c, &event.base, err);
}

void cm_rpc_reply_once(struct call *c, const struct cm_exec_result *res)
{
    Codemode__ExecutionResponse answer;
    char text[TIMEOUT_TEXT_MAX];

    codemode__execution_response__init(&answer);
    answer.success = res->success;
    answer.result = cm_proto_bytes(res->result, res->result_len);
    answer.stdout = cm_proto_bytes(res->out, res->out_len);
    answer.stderr = cm_proto_bytes(res->err, res->err_len);
    answer.error = cm_proto_bytes(res->error, res->error_len);
    if (res->timed_out) {
        int n = snprintf(text, sizeof text, "Execution timeout after %g seconds: ", c->timeout_s);
        size_t room = sizeof text - (size_t)n, len = res->error_len;
        if (len > room)
            len = room - cm_utf8_cut_end(res->error, room);
        memcpy(text + n, len ? res->error : "", len);
        answer.error = cm_proto_bytes(text, (size_t)n + len);
    }
    answer.error_type = cm_proto_text(cm_error_type(res));
    answer.correlation_id = cm_proto_text(c->correlation);
    answer.duration_ms = (float)((double)res->duration_ns / 1e6);
    cm_rpc_reply(c, &answer.base);
}
