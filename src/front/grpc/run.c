/* SPDX-License-Identifier: Apache-2.0 */
/* The one place that starts executions. */
#include "front/grpc/internal.h"

int cm_rpc_run(struct call *c, struct cm_run_request *req, const struct cm_exec_ops *ops, struct cm_err *err)
{
    struct cm_exec *exec = NULL;

    req->exec.correlation_id = c->correlation;
    req->exec.caps = &c->caps;
    int rc =
        cm_sessions_execute(c->rpc->parts.sessions, c->session[0] ? c->session : NULL, &req->exec, ops, c, &exec, err);
    if (rc == 0)
        c->run = (struct cm_run *)exec;
    return rc;
}

void cm_rpc_run_abandon(struct cm_run *run, bool lost)
{
    (void)lost;
    cm_exec_abandon((struct cm_exec *)run);
}

const char *cm_rpc_run_id(const struct cm_run *run)
{
    return cm_exec_id((const struct cm_exec *)run);
}

void cm_rpc_ping(struct cm_rpc *rpc, void (*done)(void *arg, enum cm_tool_service state), void *arg)
{
    (void)rpc;
    done(arg, CM_TOOLS_NONE);
}

const char *cm_rpc_target(const struct cm_rpc *rpc)
{
    (void)rpc;
    return "";
}
