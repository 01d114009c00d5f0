/* SPDX-License-Identifier: Apache-2.0 */
/* A byte stream over a connected socket, plain or TLS, on the loop.
 *
 * One owner, one set of callbacks, always from the loop and never from inside the call that asked for something.
 * Writing copies into a queue with a maximum; reading can be paused. cm_stream_close() is final: no callback comes
 * after it; it may be called from any callback.
 */
#ifndef CM_NET_STREAM_H
#define CM_NET_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct cm_loop;
struct cm_stream;
struct cm_tls; /* net/tls.h: certificates and rules of one side; counted, so a reload leaves live streams alone */

struct cm_stream_ops {
    /* Connected, and with TLS the handshake is over and the peer's certificate good: once, before any data. */
    void (*ready)(void *arg);
    /* All of `len` bytes have been read; 64 KiB at the most in one call. */
    void (*data)(void *arg, const uint8_t *data, size_t len);
    /* The queue is empty again after a write that it had to keep. May be NULL. */
    void (*drained)(void *arg);
    /* Once: the peer has closed (err NULL) or something failed. No `data` comes any more. The owner calls
     * cm_stream_close(), now or later: after err NULL what it writes still goes out, with `drained`. */
    void (*closed)(void *arg, const struct cm_err *err);
};

struct cm_stream_limits {
    size_t queue_max; /* bytes that wait to be written */
    unsigned handshake_ms; /* from accept or connect to `ready` */
};

/* Takes an accepted, non-blocking socket in any case. `tls` NULL: plain. */
struct cm_stream *cm_stream_accept(struct cm_loop *loop, int fd, struct cm_tls *tls,
                                   const struct cm_stream_limits *limits, const struct cm_stream_ops *ops, void *arg,
                                   struct cm_err *err);
/* Resolves off the loop, connects to the first address that answers. `tls` NULL: plain; else `host` is the name that the
 * certificate must have. Failure before `ready` comes as `closed`. */
struct cm_stream *cm_stream_connect(struct cm_loop *loop, const char *host, unsigned port, struct cm_tls *tls,
                                    const struct cm_stream_limits *limits, const struct cm_stream_ops *ops, void *arg,
                                    struct cm_err *err);
/* 0; CM_ERR_TOO_LARGE when the queue would pass its maximum, with nothing of `data` taken; CM_ERR_NOT_READY before
 * `ready` and after a failure. A failure of the write itself comes as `closed`. */
int cm_stream_write(struct cm_stream *s, const void *data, size_t len, struct cm_err *err);
/* Another owner, at any time from `ready` to `closed`, also within `data`: what comes from now on comes to him. */
void cm_stream_hand_over(struct cm_stream *s, size_t queue_max, const struct cm_stream_ops *ops, void *arg);
/* Bytes that wait to be written. */
size_t cm_stream_queued(const struct cm_stream *s);
/* While paused nothing is read, and so TCP pushes back. */
void cm_stream_pause(struct cm_stream *s, bool pause);
/* What ALPN has chosen: "h2", "http/1.1", or "" when there was none. Valid from `ready`. */
const char *cm_stream_alpn(const struct cm_stream *s);
/* The peer as text, "127.0.0.1:4711". */
const char *cm_stream_peer(const struct cm_stream *s);
/* Sends what is queued and waits for the peer to close, for at most `linger_ms`, then closes; 0: closes at once. No
 * callback comes after it. Accepts NULL, returns NULL. */
struct cm_stream *cm_stream_close(struct cm_stream *s, unsigned linger_ms);
/* Closes at once what still lingers; before cm_loop_free(). */
void cm_stream_end_lingering(struct cm_loop *loop);

#endif
