/* SPDX-License-Identifier: Apache-2.0 */
/* The application's codemode.ToolService, as its client: calls of tools, and the two questions about them. A call of a
 * tool is sent once and never again: the application may have run it, whatever became of the answer.
 */
#ifndef CM_TOOLS_SERVICE_H
#define CM_TOOLS_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/status.h"
#include "session/session.h"

struct cm_loop;
struct cm_metrics;
struct cm_tls;
struct cm_tool_client;
struct cm_tool_request; /* one question or call */

/* `target` is "host:port"; `key`, which may be NULL, is shown as a bearer. Both are copied. `tls` as for the gRPC client. */
struct cm_tool_client *cm_tool_service_new(struct cm_loop *loop, const char *target, struct cm_tls *tls,
                                           const char *key, struct cm_metrics *metrics, struct cm_err *err);
void cm_tool_service_set_tls(struct cm_tool_client *s, struct cm_tls *tls);
void cm_tool_service_set_key(struct cm_tool_client *s, const char *key);
/* What still runs is dropped; its `done` is not called. Accepts NULL, returns NULL. */
struct cm_tool_client *cm_tool_service_free(struct cm_tool_client *s);
const char *cm_tool_service_target(const struct cm_tool_client *s);
/* Goes up with every call that could not reach the service or was cut off: what was known of its tools may be old. */
unsigned cm_tool_service_breaks(const struct cm_tool_client *s);

struct cm_tool_call {
    const char *name, *arguments, *context; /* UTF-8; JSON objects, `context` may be NULL */
    size_t name_len, arguments_len, context_len;
    const char *correlation_id;
    /* The same when the same request runs in another server: with the number, it names the call. */
    const char *execution;
    const char *run; /* another one each time that it runs: calls of one run are not repetitions of each other */
    uint64_t number; /* of the call in its execution */
    uint64_t deadline_ns; /* monotonic */
};

/* `json` is the result as a JSON object, or NULL: then `why` and `text` say what went wrong, for the code's author. */
typedef void cm_tool_done(void *arg, const char *json, size_t len, enum cm_call_failure why, const char *text);

/* NULL with *err: CM_ERR_BAD_FIELD for arguments that cannot be sent, CM_ERR_NO_MEMORY, CM_ERR_OVERLOADED. */
struct cm_tool_request *cm_tool_service_call(struct cm_tool_client *s, const struct cm_tool_call *call,
                                             cm_tool_done *done, void *arg, struct cm_err *err);

/* An encoded answer, or NULL and the reason in words that say what to look at. */
typedef void cm_tool_answer(void *arg, const uint8_t *message, size_t len, enum cm_grpc_status status,
                            const char *text);

/* Both give up at once when nobody listens. */
struct cm_tool_request *cm_tool_service_list(struct cm_tool_client *s, uint64_t deadline_ns, cm_tool_answer *done,
                                             void *arg, struct cm_err *err);
struct cm_tool_request *cm_tool_service_schema(struct cm_tool_client *s, const char *name, size_t len,
                                               uint64_t deadline_ns, cm_tool_answer *done, void *arg,
                                               struct cm_err *err);
/* `done` is not called any more. */
void cm_tool_request_cancel(struct cm_tool_request *r);

#endif
