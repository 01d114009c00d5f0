/* SPDX-License-Identifier: Apache-2.0 */
/* Who may call. */
#include <stdio.h>

#include "access/access.h"
#include "base/clock.h"
#include "front/grpc/internal.h"

static int find_key(const struct cm_rpc *rpc, struct cm_grpc_call *wire, const struct cm_key **ret, struct cm_err *err)
{
    *ret = NULL;
    if (!rpc->parts.access)
        return 0;
    return cm_access_check(rpc->parts.access, cm_grpc_call_metadata(wire, "authorization"),
                           cm_grpc_call_metadata(wire, "x-api-key"), ret, err);
}

enum cm_grpc_status cm_rpc_admit(void *arg, struct cm_grpc_call *wire, char *why)
{
    struct cm_rpc *rpc = arg;
    const struct cm_key *key;
    struct cm_err err;
    int rc = find_key(rpc, wire, &key, &err);

    if (rc == 0 && rpc->draining)
        rc = cm_err_set(&err, CM_ERR_DRAINING, "the server is stopping");
    if (rc == 0) {
        cm_grpc_call_set_user(wire,
                              (void *)(uintptr_t)key); /* keys outlive calls; cm_rpc_begin() takes it from there */
        return CM_GRPC_OK;
    }
    enum cm_grpc_status status = (enum cm_grpc_status)cm_err_info(rc)->grpc;
    snprintf(why, CM_ERR_TEXT_MAX, "%s", err.text);
    cm_rpc_count(rpc, "", status, cm_clock_ns(), "");
    return status;
}

bool cm_rpc_knows(const struct call *c)
{
    const struct cm_key *key;

    return find_key(c->rpc, c->wire, &key, NULL) == 0;
}
