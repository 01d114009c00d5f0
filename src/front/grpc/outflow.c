/* SPDX-License-Identifier: Apache-2.0 */
/* Output on its way to a client.
 *
 * The code is never held up by a client that reads slowly: its worker would stall, and with it whatever waits for the
 * session. So each call keeps at most PENDING_MAX bytes behind what its connection has not taken yet. What comes when
 * that is full is left out and counted, and the next event of the stream that finds room says how much it was. The
 * order of the events is the order in which they were printed.
 */
#include <string.h>

#include "base/cleanup.h"
#include "front/grpc/internal.h"
#include "wire/proto.h"

/* Bytes of an event besides its data. */
#define EVENT_MAX 64

static int pack(struct cm_buf *to, int stream, const char *data, size_t len, uint64_t omitted)
{
    Codemode__V1__ExecuteEvent event;
    Codemode__V1__Output output;

    codemode__v1__execute_event__init(&event);
    codemode__v1__output__init(&output);
    output.stream = (Codemode__V1__Stream)stream;
    output.data = cm_proto_bytes(data, len);
    output.omitted = omitted;
    event.event_case = CODEMODE__V1__EXECUTE_EVENT__EVENT_OUTPUT;
    event.output = &output;
    return cm_proto_pack(&event.base, to);
}

/* False: it is not on its way. */
static bool send(struct call *c, const void *event, size_t len)
{
    struct cm_err err;

    int rc = cm_rpc_send_packed(c, event, len, &err);
    c->out.blocked = rc != 0;
    return rc >= 0;
}

void cm_rpc_announce(struct call *c)
{
    Codemode__V1__ExecuteEvent event;
    Codemode__V1__Started started;

    if (!c->wire || !c->out.announce || !c->run || !cm_run_id(c->run)[0])
        return;
    cm_autobuf struct cm_buf packed;
    cm_buf_init(&packed, EVENT_MAX);
    codemode__v1__execute_event__init(&event);
    codemode__v1__started__init(&started);
    started.execution_id = cm_proto_text(cm_run_id(c->run));
    event.event_case = CODEMODE__V1__EXECUTE_EVENT__EVENT_STARTED;
    event.started = &started;
    if (cm_proto_pack(&event.base, &packed) == 0)
        send(c, cm_buf_data(&packed), packed.len);
    c->out.announce = false;
}

static bool put_off(struct outflow *out, const char *event, size_t len)
{
    uint32_t size = (uint32_t)len;

    if (out->pending.len + sizeof size + len > PENDING_MAX || cm_buf_append(&out->pending, &size, sizeof size) < 0)
        return false;
    if (cm_buf_append(&out->pending, event, len) == 0)
        return true;
    out->pending.len -= sizeof size;
    return false;
}

void cm_rpc_output(struct call *c, int stream, const char *data, size_t len)
{
    struct outflow *out = &c->out;
    uint64_t *omitted = &out->omitted[stream - 1];

    if (!c->wire || out->quiet || len == 0)
        return;
    if (out->blocked && out->pending.len + len + EVENT_MAX > PENDING_MAX) {
        *omitted += len;
        return;
    }
    cm_autobuf struct cm_buf event;
    cm_buf_init(&event, len + EVENT_MAX);
    bool fits = pack(&event, stream, data, len, *omitted) == 0 &&
                (out->blocked ? put_off(out, cm_buf_data(&event), event.len) : send(c, cm_buf_data(&event), event.len));
    *omitted = fits ? 0 : *omitted + len;
}

/* Sends what waits while there is room, or all of it. */
static void flush(struct call *c, bool all)
{
    struct outflow *out = &c->out;
    uint32_t size;

    while (out->pending.len > 0 && (all || !out->blocked)) {
        memcpy(&size, cm_buf_data(&out->pending), sizeof size);
        if (!send(c, cm_buf_data(&out->pending) + sizeof size, size))
            return;
        cm_buf_consume(&out->pending, sizeof size + size);
    }
}

void cm_rpc_writable(void *arg, struct cm_grpc_call *wire)
{
    struct call *c = cm_grpc_call_user(wire);

    (void)arg;
    c->out.blocked = false;
    flush(c, false);
}

void cm_rpc_output_end(struct call *c)
{
    flush(c, true);
    for (int stream = 1; stream <= 2; stream++) {
        cm_autobuf struct cm_buf event;
        cm_buf_init(&event, EVENT_MAX);
        if (c->out.omitted[stream - 1] > 0 && pack(&event, stream, "", 0, c->out.omitted[stream - 1]) == 0)
            send(c, cm_buf_data(&event), event.len);
    }
}
