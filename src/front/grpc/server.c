/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/cleanup.h"
#include "conf/conf.h"
#include "front/grpc/internal.h"

/* What one connection may leave unread, in answers of the largest size. */
#define UNREAD_FACTOR 2
#define STREAMS_MAX   256
#define METADATA_MAX  16384
#define RESETS_MAX    1000

#define ADMIT_KEY  cm_rpc_admit
#define ADMIT_OPEN NULL
static const struct cm_grpc_method methods[] = {
#define CM_RPC(path, function, key) {path, ADMIT_##key, cm_rpc_##function, cm_rpc_gone, cm_rpc_writable},
#include "rpcs.def"
#undef CM_RPC
};

static struct cm_grpc_server_limits limits_of(const struct cm_rpc *rpc)
{
    const struct cm_conf *conf = rpc->parts.conf;

    return (struct cm_grpc_server_limits){
        .message_max = conf->max_body,
        .metadata_max = METADATA_MAX,
        .unread_max = UNREAD_FACTOR * (rpc->answer_max + PENDING_MAX),
        .streams_max = STREAMS_MAX,
        .connections_max = conf->max_connections,
        .idle_ms = conf->idle_timeout * 1000,
        .resets_max = RESETS_MAX,
    };
}

void cm_rpc_reload(struct cm_rpc *rpc)
{
    const struct cm_conf *conf = rpc->parts.conf;

    cm_conf_limits(conf, &rpc->defaults, &rpc->caps);
    rpc->answer_max = 2 * conf->max_output + 3 * conf->max_result + conf->max_locals + 65536;
}

int cm_rpc_open(const struct cm_rpc_parts *parts, struct cm_rpc **ret, struct cm_err *err)
{
    struct cm_rpc *rpc = calloc(1, sizeof *rpc);

    if (!rpc)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the gRPC server");
    rpc->parts = *parts;
    cm_rpc_reload(rpc);
    int rc = cm_correlations_init(&rpc->correlations, err);
    if (rc == 0) {
        struct cm_grpc_server_limits limits = limits_of(rpc);
        rpc->server = cm_grpc_server_new(parts->loop, &limits, methods, CM_COUNT_OF(methods), rpc, err);
        rc = rpc->server ? 0 : err->code;
    }
    if (rc < 0) {
        cm_rpc_free(rpc);
        return rc;
    }
    *ret = rpc;
    return 0;
}

struct cm_grpc_server *cm_rpc_server(const struct cm_rpc *rpc)
{
    return rpc->server;
}

void cm_rpc_drain(struct cm_rpc *rpc)
{
    if (rpc->draining)
        return;
    rpc->draining = true;
    cm_grpc_server_drain(rpc->server);
}

struct cm_rpc *cm_rpc_free(struct cm_rpc *rpc)
{
    if (!rpc)
        return NULL;
    rpc->server = cm_grpc_server_free(rpc->server);
    for (struct call *c = rpc->calls; c; c = c->next)
        c->rpc = NULL; /* somebody below has yet to answer it */
    free(rpc);
    return NULL;
}
