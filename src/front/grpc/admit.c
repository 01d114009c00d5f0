/* SPDX-License-Identifier: Apache-2.0 */
/* Who may call. */
#include <stdio.h>

#include "base/clock.h"
#include "front/grpc/internal.h"

enum cm_grpc_status cm_rpc_admit(void *arg, struct cm_grpc_call *wire, char *why)
{
    struct cm_rpc *rpc = arg;

    (void)wire;
    if (!rpc->draining)
        return CM_GRPC_OK;
    snprintf(why, CM_ERR_TEXT_MAX, "the server is stopping");
    return CM_GRPC_UNAVAILABLE;
}

bool cm_rpc_knows(const struct call *c)
{
    (void)c;
    return true;
}
