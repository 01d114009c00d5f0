/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share. */
#ifndef CM_RPC_INTERNAL_H
#define CM_RPC_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "access/access.h"
#include "base/buf.h"
#include "base/correlation.h"
#include "base/limits.h"
#include "codemode.pb-c.h"
#include "codemode_v1.pb-c.h"
#include "executor/executor.h"
#include "front/grpc/rpc.h"
#include "grpc/server.h"
#include "session/session.h"

#define RPC_MAGIC   0x52504331u
#define KEY_MAX     128 /* bytes of an idempotency key */
#define PENDING_MAX 262144 /* bytes of output that wait for a client to read what it was sent before */

struct cm_rpc {
    struct cm_rpc_parts parts;
    struct cm_grpc_server *server;
    struct call *calls;
    struct cm_limits defaults, caps;
    size_t answer_max; /* bytes of one message of an answer */
    bool draining;
    struct cm_correlations correlations;
};

/* Output on its way to a client that may be slow. */
struct outflow {
    struct cm_buf pending; /* packed events, each behind its length */
    uint64_t omitted[2];   /* bytes of stdout and stderr that found no room since the last event of that stream */
    bool blocked;          /* until `writable` */
    bool quiet;
    bool announce; /* the execution's id is to go first */
};

/* One call. It outlives its client (wire NULL) where something cannot be withdrawn: a creation, a ping. */
struct call {
    unsigned magic, refs;
    struct cm_rpc *rpc; /* NULL once the face is closed */
    struct cm_grpc_call *wire;
    const char *method; /* its path */
    struct call *prev, *next; /* in rpc->calls */
    struct cm_run *run;
    const struct cm_key *key;
    struct cm_limits caps; /* the most that this caller gets */
    struct outflow out;
    uint64_t started_ns;
    double timeout_s; /* that holds for the execution, as far as it is known here */
    char session[CM_SESSION_ID_MAX]; /* "" for a fresh one */
    char correlation[CM_CORRELATION_MAX + 1];
    char idempotency[KEY_MAX + 1];
    bool correlation_is_clients, headed; /* headed: the answer has its headers */
};

/* call.c */

/* For a method's `request`: NULL when there is no memory, and then the call has been answered. The one reference is
 * given back by whatever ends the call for its client. */
struct call *cm_rpc_begin(void *rpc, struct cm_grpc_call *wire, const char *method);
/* A request, for cm_proto_free(). NULL: the call has been refused. */
void *cm_rpc_read(struct call *c, const ProtobufCMessageDescriptor *type, const uint8_t *message, size_t len);
/* One more holder, who comes back later with cm_rpc_unref(). */
struct call *cm_rpc_ref(struct call *c);
void cm_rpc_unref(struct call *c);
/* Each of these ends the call for its client, who may have left before; the object stays while it is referred to. */
void cm_rpc_reply(struct call *c, const ProtobufCMessage *answer);
void cm_rpc_fail(struct call *c, const struct cm_err *err);
void cm_rpc_refuse(struct call *c, enum cm_grpc_status status, const char *text);
/* Packs and sends one message of several. As cm_grpc_call_send(). */
int cm_rpc_send(struct call *c, const ProtobufCMessage *message, struct cm_err *err);
int cm_rpc_send_packed(struct call *c, const void *message, size_t len, struct cm_err *err);
/* The client has left. */
void cm_rpc_gone(void *arg, struct cm_grpc_call *wire);
/* The client's own id when it is a good one, else one of ours. */
void cm_rpc_correlate(struct call *c, const char *given, size_t len);
/* Counts and logs a call that was answered. */
void cm_rpc_count(struct cm_rpc *rpc, const char *method, enum cm_grpc_status status, uint64_t started_ns,
                  const char *correlation);

/* fields.c: requests into what the rooms below take. */

/* Into c->session: CM_ERR_NO_SESSION for a text that can be no id, or a session of somebody else; empty is allowed. */
int cm_rpc_take_session(struct call *c, const ProtobufCBinaryData *text, struct cm_err *err);
/* An execution's, as a text. False for one that can be none. */
bool cm_rpc_take_id(const ProtobufCBinaryData *text, char ret[static CM_SESSION_ID_MAX]);
/* Printable ASCII of at most KEY_MAX bytes. */
int cm_rpc_take_key(const char *text, size_t len, char ret[static KEY_MAX + 1], struct cm_err *err);
int cm_rpc_take_limits(const struct call *c, Codemode__V1__Pair *const *list, size_t count, enum cm_limit_scope scope,
                       struct cm_limits_asked *ret, struct cm_err *err);
/* A JSON object or nothing: NULL. */
int cm_rpc_take_object(const char *name, ProtobufCBinaryData *text, const char **ret, size_t *ret_len,
                       struct cm_err *err);
/* Appends the names as a JSON array. */
int cm_rpc_take_names(const ProtobufCBinaryData *names, size_t count, struct cm_buf *to, struct cm_err *err);

/* result.c */
int cm_rpc_send_result(struct call *c, const struct cm_exec_result *res, struct cm_err *err);
void cm_rpc_reply_once(struct call *c, const struct cm_exec_result *res);

/* admit.c */

/* For methods that need a key: leaves it in the call's user pointer. As cm_grpc_method's admit. */
enum cm_grpc_status cm_rpc_admit(void *arg, struct cm_grpc_call *wire, char *why);
/* Whether an open method's caller could call the others as well. */
bool cm_rpc_knows(const struct call *c);

/* run.c */
int cm_rpc_run(struct call *c, struct cm_run_request *req, const struct cm_exec_ops *ops, struct cm_err *err);

/* outflow.c */
/* Tells the execution's id as soon as there is one, if that is wanted; once. */
void cm_rpc_announce(struct call *c);
void cm_rpc_output(struct call *c, int stream, const char *data, size_t len);
void cm_rpc_writable(void *arg, struct cm_grpc_call *wire);
/* Sends what waits, and what was left out, ahead of the result. */
void cm_rpc_output_end(struct call *c);

/* The methods: request callbacks of the table in server.c. */
#define CM_RPC(path, function, key)                                                                                    \
    void cm_rpc_##function(void *arg, struct cm_grpc_call *wire, const uint8_t *message, size_t len);
#include "rpcs.def"
#undef CM_RPC

#endif
