/* SPDX-License-Identifier: Apache-2.0 */
/* TLS under a stream: the stream owns the socket and the queue, GnuTLS turns bytes into other bytes. */
#ifndef CM_NET_TLS_INTERNAL_H
#define CM_NET_TLS_INTERNAL_H

#include <gnutls/gnutls.h>
#include <sys/types.h>

#include "net/tls.h"

struct cm_stream;
struct cm_tls_session;

/* What one state of the files has made; counted, because connections outlive a reload. */
struct cm_tls_creds {
    unsigned refs;
    gnutls_certificate_credentials_t cert;
    gnutls_priority_t priority;
    gnutls_datum_t ticket_key; /* of a server that asks for no certificates: a ticket would stand for one */
    bool server, require_peer, ask_peer;
};

struct cm_tls_creds *cm_tls_creds(const struct cm_tls *tls);
void cm_tls_creds_unref(struct cm_tls_creds *creds);

/* `host` NULL: we are the server. */
int cm_tls_session_open(struct cm_stream *s, struct cm_tls *tls, const char *host, struct cm_err *err);
/* One step of the handshake. 1: there is more to come; 0: done, s->alpn is set; or negative. */
int cm_tls_session_step(struct cm_stream *s, struct cm_err *err);
/* Bytes; 0: the peer sends no more; -1 with errno EAGAIN; or -2 with *err filled. */
ssize_t cm_tls_session_read(struct cm_stream *s, void *to, size_t size, struct cm_err *err);
/* Bytes that a read would give without the socket. */
size_t cm_tls_session_pending(const struct cm_stream *s);
/* Puts all of it, encrypted, into the queue. */
int cm_tls_session_write(struct cm_stream *s, const void *data, size_t len, struct cm_err *err);
/* Puts the notice that nothing more will come into the queue. */
void cm_tls_session_bye(struct cm_stream *s);
void cm_tls_session_close(struct cm_stream *s);
/* What encryption adds to `len` bytes at the most. */
size_t cm_tls_overhead(size_t len);

#endif
