/* SPDX-License-Identifier: Apache-2.0 */
/* One execution with everything around it, the same for every face (HTTP, gRPC): which tools its code may call, their
 * calls, and the promise that a request that is sent again does not run again.
 *
 * Retries. A request with an idempotency key, or with a correlation id that its client has chosen, is remembered for ten
 * minutes by (access key, id, session, code): the same one again waits for the first one's answer, or gets it from the
 * record. Such a run does not end when its client's connection is lost, only by its limits or an explicit cancellation.
 * The record is bounded; an answer that found no room is answered CM_ERR_NOT_KEPT, never by a second run. "The same"
 * means the same code, context, config, available_tools and mode; refusals that ask to come again later are not remembered.
 */
#ifndef CM_EXECUTOR_H
#define CM_EXECUTOR_H

#include "session/session.h"

#define CM_CALLER_TOOLS_MAX 64

struct cm_conf;
struct cm_executor;
struct cm_key; /* access/access.h */
struct cm_run;
struct cm_tls;

/* `callback_tls` for the ToolService, or NULL; counted. What it is given must outlive it. */
int cm_executor_open(struct cm_loop *loop, const struct cm_conf *conf, struct cm_sessions *sessions,
                     struct cm_metrics *metrics, struct cm_tls *callback_tls, struct cm_executor **ret,
                     struct cm_err *err);
/* After a reload of the settings: limits and the callback's TLS. */
void cm_executor_reload(struct cm_executor *x, const struct cm_conf *conf, struct cm_tls *callback_tls);
/* Call it before cm_sessions_free(). Accepts NULL. */
struct cm_executor *cm_executor_free(struct cm_executor *x);

struct cm_run_request {
    const char *session;         /* NULL: a fresh one that ends with the execution */
    struct cm_exec_request exec; /* but for `tools`, which the executor fills in */
    const char *available_tools; /* a checked JSON array of strings; NULL or an empty one: all that the service lists */
    size_t available_tools_len;
    /* Tools that the caller answers himself: a checked JSON array of up to CM_CALLER_TOOLS_MAX names, or NULL. Their calls go
     * to ops->call of cm_executor_run(). They are there whatever available_tools says and without any tool service, and
     * hide the service's of the same name. */
    const char *caller_tools;
    size_t caller_tools_len;
    bool streamed; /* or with caller_tools: the run is not remembered, and ends with its client */
    const char *idempotency_key; /* as the client sent it, or NULL */
    bool correlation_is_clients; /* exec.correlation_id was chosen by the client */
    const struct cm_key *key; /* who asks; NULL where no key is needed */
};

/* As cm_sessions_execute(). ops->call and ops->call_gone, NULL without caller_tools, are of calls of exactly those tools;
 * they are answered by cm_call_answer() or cm_call_fail(), and cm_call_set_user() is the face's. When cm_run_abandon()
 * returns, the calls that were not answered are dead; call_gone is not called for them. CM_ERR_BAD_FIELD for
 * caller_tools that are not good. Tools that `available_tools` names and the service does not list, or a service that cannot be reached when some are named, end the
 * run at once: success false, error type "RuntimeError", with a text that says what to look at. */
int cm_executor_run(struct cm_executor *x, const struct cm_run_request *req, const struct cm_exec_ops *ops, void *arg,
                    struct cm_run **ret, struct cm_err *err);
/* The client is gone; `lost`: its connection has broken, else it has said so. `done` is not called any more. */
void cm_run_abandon(struct cm_run *run, bool lost);
/* Id of the execution, of the first one for a repeated request; empty while it waits for the list of tools. */
const char *cm_run_id(const struct cm_run *run);
/* The request has been sent before: its answer is that of the first one. Of one that still runs, ops->output says only
 * what comes from now on. */
bool cm_run_repeated(const struct cm_run *run);

enum cm_tool_service { CM_TOOLS_NONE, CM_TOOLS_UNREACHABLE, CM_TOOLS_REACHABLE };
/* Asks the ToolService for its list, for at most two seconds; `done` comes from the loop. */
void cm_executor_ping(struct cm_executor *x, void (*done)(void *arg, enum cm_tool_service state), void *arg);
/* "localhost:50051", or "" when there is none. */
const char *cm_executor_target(const struct cm_executor *x);

#endif
