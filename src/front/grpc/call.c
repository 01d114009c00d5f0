/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a call: begun by its request, ended by one answer, or by its client's leaving, whichever comes first. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "front/grpc/internal.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "wire/proto.h"

struct call *cm_rpc_ref(struct call *c)
{
    c->refs++;
    return c;
}

void cm_rpc_unref(struct call *c)
{
    assert(c->magic == RPC_MAGIC && c->refs > 0);
    if (--c->refs > 0)
        return;
    if (c->rpc)
        DL_DELETE(c->rpc->calls, c);
    cm_buf_done(&c->out.pending);
    c->magic = 0;
    free(c);
}

void cm_rpc_correlate(struct call *c, const char *given, size_t len)
{
    c->correlation_is_clients = cm_correlation_take(&c->rpc->correlations, given, len, c->correlation);
}

struct call *cm_rpc_begin(void *rpc, struct cm_grpc_call *wire, const char *method)
{
    struct call *c = calloc(1, sizeof *c);

    if (!c) {
        cm_rpc_count(rpc, method, CM_GRPC_RESOURCE_EXHAUSTED, cm_clock_ns(), "");
        cm_grpc_call_finish(wire, CM_GRPC_RESOURCE_EXHAUSTED, "no memory for a call");
        return NULL;
    }
    c->magic = RPC_MAGIC;
    c->refs = 1;
    c->rpc = rpc;
    c->wire = wire;
    c->method = method;
    c->started_ns = cm_clock_ns();
    c->key = cm_grpc_call_user(wire); /* left there by whoever let the call in */
    cm_key_caps(c->key, &c->rpc->caps, &c->caps);
    cm_buf_init(&c->out.pending, PENDING_MAX);
    const char *given = cm_grpc_call_metadata(wire, "x-correlation-id");
    cm_rpc_correlate(c, given, given ? strlen(given) : 0);
    cm_grpc_call_set_user(wire, c);
    DL_APPEND(c->rpc->calls, c);
    return c;
}

void *cm_rpc_read(struct call *c, const ProtobufCMessageDescriptor *type, const uint8_t *message, size_t len)
{
    struct cm_err err;
    void *request = cm_proto_unpack(type, message, len, &err);

    if (!request)
        cm_rpc_fail(c, &err);
    return request;
}

void cm_rpc_count(struct cm_rpc *rpc, const char *method, enum cm_grpc_status status, uint64_t started_ns,
                  const char *correlation)
{
    bool ours = status == CM_GRPC_UNKNOWN || status == CM_GRPC_INTERNAL || status == CM_GRPC_DATA_LOSS;

    cm_metrics_add(rpc->parts.metrics, CM_M_GRPC_REQUESTS, status, 1);
    cm_log(ours ? CM_LOG_WARNING : CM_LOG_DEBUG, "grpc_request", CM_LOG_STR("method", method),
           CM_LOG_INT("status", status), CM_LOG_REAL("seconds", (double)(cm_clock_ns() - started_ns) / 1e9),
           CM_LOG_STR("correlation_id", correlation));
}

/* The client's part is over: the call is nobody's but its holders'. */
static void detach(struct call *c, enum cm_grpc_status status)
{
    cm_rpc_count(c->rpc, c->method, status, c->started_ns, c->correlation);
    c->wire = NULL;
    cm_rpc_unref(c);
}

/* Before the first message, or instead of one. */
static void put_headers(struct call *c)
{
    if (!c->headed)
        cm_grpc_call_header(c->wire, "x-correlation-id", c->correlation);
    c->headed = true;
}

void cm_rpc_refuse(struct call *c, enum cm_grpc_status status, const char *text)
{
    if (!c->wire)
        return;
    put_headers(c);
    cm_grpc_call_finish(c->wire, status, text);
    detach(c, status);
}

void cm_rpc_fail(struct call *c, const struct cm_err *err)
{
    const struct cm_err_info *info = cm_err_info(err->code);

    if (c->wire && !c->headed)
        cm_grpc_call_header(c->wire, "x-error-code", info->short_name);
    cm_rpc_refuse(c, (enum cm_grpc_status)info->grpc, err->text);
}

int cm_rpc_send_packed(struct call *c, const void *message, size_t len, struct cm_err *err)
{
    put_headers(c);
    return cm_grpc_call_send(c->wire, message, len, err);
}

int cm_rpc_send(struct call *c, const ProtobufCMessage *message, struct cm_err *err)
{
    cm_autobuf struct cm_buf buf;

    cm_buf_init(&buf, c->rpc->answer_max);
    int rc = cm_proto_pack(message, &buf);
    if (rc < 0)
        return cm_err_set(err, rc, "the answer could not be written");
    return cm_rpc_send_packed(c, cm_buf_data(&buf), buf.len, err);
}

void cm_rpc_reply(struct call *c, const ProtobufCMessage *answer)
{
    struct cm_err err;

    if (!c->wire)
        return;
    if (cm_rpc_send(c, answer, &err) < 0) {
        cm_rpc_fail(c, &err);
        return;
    }
    cm_grpc_call_finish(c->wire, CM_GRPC_OK, NULL);
    detach(c, CM_GRPC_OK);
}

void cm_rpc_gone(void *arg, struct cm_grpc_call *wire)
{
    struct call *c = cm_grpc_call_user(wire);

    (void)arg;
    assert(c && c->magic == RPC_MAGIC && c->wire == wire);
    bool lost = cm_grpc_call_lost(wire);
    struct cm_run *run = cm_steal(c->run);
    detach(c, lost ? CM_GRPC_UNAVAILABLE : CM_GRPC_CANCELLED);
    if (run)
        cm_run_abandon(run, lost);
}
