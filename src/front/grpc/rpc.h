/* SPDX-License-Identifier: Apache-2.0 */
/* The gRPC face: codemode.ExecutorService, codemode.v1.Sessions and grpc.health.v1.Health over the executor and the
 * session manager, on the gateway's loop. It listens nowhere: connections are handed to its server. */
#ifndef CM_RPC_H
#define CM_RPC_H

#include "base/err.h"

struct cm_access;
struct cm_conf;
struct cm_executor;
struct cm_grpc_server;
struct cm_loop;
struct cm_metrics;
struct cm_rpc;
struct cm_sessions;

struct cm_rpc_parts {
    struct cm_loop *loop;
    const struct cm_conf *conf;
    struct cm_sessions *sessions;
    struct cm_executor *executor;
    struct cm_access *access; /* NULL: everybody may call */
    struct cm_metrics *metrics;
};

/* What it is given must outlive it; the struct itself is copied. 0, or a negative code with *err filled. */
int cm_rpc_open(const struct cm_rpc_parts *parts, struct cm_rpc **ret, struct cm_err *err);
/* After a change of the settings that it was opened with. */
void cm_rpc_reload(struct cm_rpc *rpc);
/* Takes connections: cm_grpc_server_adopt() and its like. */
struct cm_grpc_server *cm_rpc_server(const struct cm_rpc *rpc);
/* Refuses new calls with UNAVAILABLE and tells every connection to go elsewhere; running calls finish. */
void cm_rpc_drain(struct cm_rpc *rpc);
/* Abandons what runs and closes every connection. Call it before cm_executor_free(). Accepts NULL, returns NULL. */
struct cm_rpc *cm_rpc_free(struct cm_rpc *rpc);

#endif
