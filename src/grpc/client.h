/* SPDX-License-Identifier: Apache-2.0 */
/* A gRPC client: one target, one HTTP/2 connection that is kept alive, opened when it is first needed, and opened again
 * with backoff (gRPC's connection backoff: 1 s, x 1.6, +-20 %, 120 s at the most; the first attempt after a connection
 * that worked comes at once). Calls that wait for a connection wait until their deadline, unless they are to fail fast.
 * Nobody connects while no call waits.
 *
 * GOAWAY: calls that the server has not processed are sent again on the next connection, once; those that it may have
 * processed answer UNAVAILABLE. Nothing else is ever sent twice.
 */
#ifndef CM_GRPC_CLIENT_H
#define CM_GRPC_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/status.h"

struct cm_loop;
struct cm_tls;
struct cm_grpc_client;
struct cm_grpc_request; /* one call */

struct cm_grpc_client_options {
    size_t message_max; /* bytes of one answer message */
    size_t queue_max; /* bytes of requests that wait to be sent */
    unsigned calls_max; /* calls at once, more are refused; the server's SETTINGS may say less, then calls wait */
    unsigned keepalive_ms; /* PING after this long without a byte while calls run; 0: never. Servers of other makes take
                            * one in five minutes unless they are told otherwise, and go away after the third. */
    unsigned keepalive_timeout_ms;
    unsigned idle_ms; /* without calls the connection is closed after this; 0: never */
    unsigned backoff_max_ms; /* 0: 120 s */
    unsigned eager_ms; /* a new call does not sit out the backoff when the last attempt is this old; 0: it does */
    unsigned
        connect_ms; /* calls that have waited this long for a connection answer UNAVAILABLE; 0: by their deadline */
    const char *user_agent;
};

struct cm_grpc_metadata {
    const char *key, *value; /* lower case; printable ASCII */
};

struct cm_grpc_request_ops {
    /* A message of the answer; it lives until this returns. May be NULL. */
    void (*message)(void *arg, const uint8_t *message, size_t len);
    /* Once and last. `text` is the server's grpc-message, decoded, or our own reason; never NULL. */
    void (*done)(void *arg, enum cm_grpc_status status, const char *text);
    /* Answers UNAVAILABLE as soon as an attempt to connect fails, and in the pause after one, instead of waiting for the
     * next one: for a call that is worth something only now. */
    bool fail_fast;
};

/* `target` is "host:port", copied. `tls` NULL: plaintext (h2c, prior knowledge); else a reference is taken. */
struct cm_grpc_client *cm_grpc_client_new(struct cm_loop *loop, const char *target, struct cm_tls *tls,
                                          const struct cm_grpc_client_options *options, struct cm_err *err);
/* New certificates: for the next connection, and the present one ends when its calls have. */
void cm_grpc_client_set_tls(struct cm_grpc_client *c, struct cm_tls *tls);
/* Calls that still run answer CANCELLED, from inside. Not from one of the callbacks. Accepts NULL, returns NULL. */
struct cm_grpc_client *cm_grpc_client_free(struct cm_grpc_client *c);
bool cm_grpc_client_connected(const struct cm_grpc_client *c);

/* Sends one request, at the start of the next turn, or in this one when it is called from `done` or `message`. `ops` must
 * live as long as the call, the rest is copied. At most 20 entries of metadata. CM_ERR_OVERLOADED beyond calls_max and
 * queue_max. deadline_ns is monotonic and must not be 0: it travels as grpc-timeout, and
 * DEADLINE_EXCEEDED is ours to say. NULL with *err on refusal; `done` never comes from inside. */
struct cm_grpc_request *cm_grpc_client_call(struct cm_grpc_client *c, const char *path,
                                            const struct cm_grpc_metadata *metadata, size_t count, const void *message,
                                            size_t len, uint64_t deadline_ns, const struct cm_grpc_request_ops *ops,
                                            void *arg, struct cm_err *err);
/* RST_STREAM(CANCEL); `done` is not called any more. From anywhere but its own `done`. */
void cm_grpc_request_cancel(struct cm_grpc_request *r);

#endif
