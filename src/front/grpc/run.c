/* SPDX-License-Identifier: Apache-2.0 */
/* The one place that starts executions. */
#include "front/grpc/internal.h"

int cm_rpc_run(struct call *c, struct cm_run_request *req, const struct cm_exec_ops *ops, struct cm_err *err)
{
    req->session = c->session[0] ? c->session : NULL;
    req->exec.correlation_id = c->correlation;
    req->exec.caps = &c->caps;
    req->correlation_is_clients = c->correlation_is_clients;
    req->idempotency_key = c->idempotency[0] ? c->idempotency : NULL;
    req->key = c->key;
    return cm_executor_run(c->rpc->parts.executor, req, ops, c, &c->run, err);
}
