/* SPDX-License-Identifier: Apache-2.0 */
/* GnuTLS reads from the stream's socket and writes into its queue, never to the socket: so one queue, one maximum and one
 * way of closing serve both kinds of stream, and GnuTLS never has to be asked again for what it has taken. */
#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/internal.h"
#include "net/tls_internal.h"

#define RECORD       16384
#define RECORD_EXTRA 64 /* header, tag and padding of one record */
#define HELLO_MAX    32768 /* bytes of one handshake message: a chain of certificates fits */
#define HELLOS_MAX   98304 /* bytes of a whole handshake */
#define WARNINGS_MAX 8 /* of the peer in all: each is a step that brings nothing, and they need not end */

struct cm_tls_session {
    gnutls_session_t session;
    struct cm_tls_creds *creds;
    char host[256];
    size_t heard; /* bytes of the handshake */
    bool done;
    unsigned status; /* what is wrong with the peer's certificate */
    unsigned warnings; /* alerts that ended nothing */
};

size_t cm_tls_overhead(size_t len)
{
    return (len / RECORD + 1) * RECORD_EXTRA;
}

static ssize_t pull(gnutls_transport_ptr_t arg, void *to, size_t size)
{
    struct cm_stream *s = arg;
    ssize_t n;

    if (s->tls->heard > HELLOS_MAX) { /* GnuTLS would go on collecting what a message's length has promised */
        gnutls_transport_set_errno(s->tls->session, EMSGSIZE);
        return -1;
    }
    n = recv(s->fd, to, size, 0);
    if (n < 0)
        gnutls_transport_set_errno(s->tls->session, errno);
    else if (!s->tls->done)
        s->tls->heard += (size_t)n;
    return n;
}

/* The queue's maximum has room for what the owner may write, encrypted, and for a handshake. A peer that makes us answer
 * and never reads comes to its end here. */
static ssize_t push(gnutls_transport_ptr_t arg, const void *data, size_t len)
{
    struct cm_stream *s = arg;

    if (cm_buf_append(&s->queue, data, len) == 0)
        return (ssize_t)len;
    gnutls_transport_set_errno(s->tls->session, ENOBUFS);
    return -1;
}

static bool is_address(const char *host)
{
    struct in6_addr any;

    return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

static int tell_protocols(gnutls_session_t session, bool server)
{
    static const gnutls_datum_t list[] = {{.data = (unsigned char *)"h2", .size = 2},
                                          {.data = (unsigned char *)"http/1.1", .size = 8}};

    /* Our clients speak HTTP/2 only; our servers prefer it. */
    return gnutls_alpn_set_protocols(session, list, server ? 2 : 1, server ? GNUTLS_ALPN_SERVER_PRECEDENCE : 0);
}

/* Called by GnuTLS in the handshake. Failing here ends it. */
static int check_peer(gnutls_session_t session)
{
    const struct cm_stream *s = gnutls_session_get_ptr(session);
    struct cm_tls_session *t = s->tls;
    unsigned n = 0, count = 0;
    gnutls_typed_vdata_st checks[2];

    if (t->creds->server && !t->creds->require_peer && !gnutls_certificate_get_peers(session, &count))
        return 0;
    checks[n++] = (gnutls_typed_vdata_st){
        .type = GNUTLS_DT_KEY_PURPOSE_OID,
        .data = (unsigned char *)(t->creds->server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER)};
    if (!t->creds->server)
        checks[n++] = (gnutls_typed_vdata_st){.type = GNUTLS_DT_DNS_HOSTNAME, .data = (unsigned char *)t->host};
    int rc = gnutls_certificate_verify_peers(session, checks, n, &t->status);
    return rc < 0 ? rc : t->status == 0 ? 0 : GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
}

static int set_up(struct cm_tls_session *t, struct cm_stream *s)
{
    const struct cm_tls_creds *creds = t->creds;
    unsigned side = creds->server ? GNUTLS_SERVER : GNUTLS_CLIENT;
    unsigned tickets = creds->ticket_key.data || !creds->server ? 0 : GNUTLS_NO_TICKETS;
    int rc = gnutls_init(&t->session, side | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | tickets);

    if (rc < 0)
        return rc;
    if ((rc = gnutls_priority_set(t->session, creds->priority)) < 0 ||
        (rc = gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, creds->cert)) < 0 ||
        (rc = tell_protocols(t->session, creds->server)) < 0)
        return rc;
    if (creds->server && creds->ticket_key.data)
        gnutls_session_ticket_enable_server(t->session, &creds->ticket_key);
    if (creds->server)
        gnutls_certificate_server_set_request(t->session, creds->require_peer ? GNUTLS_CERT_REQUIRE
                                                          : creds->ask_peer   ? GNUTLS_CERT_REQUEST
                                                                              : GNUTLS_CERT_IGNORE);
    else if (!is_address(t->host))
        rc = gnutls_server_name_set(t->session, GNUTLS_NAME_DNS, t->host, strlen(t->host));
    if (creds->ask_peer)
        gnutls_session_set_verify_function(t->session, check_peer);
    gnutls_handshake_set_max_packet_length(t->session, HELLO_MAX);
    gnutls_handshake_set_timeout(t->session, 0); /* the stream has a deadline of its own */
    gnutls_session_set_ptr(t->session, s);
    gnutls_transport_set_ptr(t->session, s);
    gnutls_transport_set_pull_function(t->session, pull);
    gnutls_transport_set_push_function(t->session, push);
    return rc;
}

int cm_tls_session_open(struct cm_stream *s, struct cm_tls *tls, const char *host, struct cm_err *err)
{
    struct cm_tls_session *t = calloc(1, sizeof(*t));

    if (!t)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a TLS connection");
    s->tls = t;
    t->creds = cm_tls_creds(tls);
    snprintf(t->host, sizeof(t->host), "%s", host ? host : "");
    int rc = t->creds->server != !host ? GNUTLS_E_INVALID_REQUEST : set_up(t, s);
    if (rc < 0) {
        cm_tls_session_close(s);
        return cm_err_set(err, CM_ERR_SYSTEM, "TLS: %s", gnutls_strerror(rc));
    }
    return 0;
}

static const char *alert_text(gnutls_session_t session)
{
    const char *name = gnutls_alert_get_name(gnutls_alert_get(session));

    return name ? name : "unknown alert";
}

/* What a failure says to a person: a refused certificate with its reason. */
static int failed(struct cm_stream *s, int rc, struct cm_err *err)
{
    gnutls_session_t session = s->tls->session;
    gnutls_datum_t text = {0};

    if (s->tls->status != 0) {
        gnutls_certificate_verification_status_print(s->tls->status, GNUTLS_CRT_X509, &text, 0);
        cm_err_set(err, CM_ERR_SYSTEM, "%s: TLS: %s", s->peer, text.data ? (char *)text.data : gnutls_strerror(rc));
        gnutls_free(text.data);
        return CM_ERR_SYSTEM;
    }
    if (rc == GNUTLS_E_FATAL_ALERT_RECEIVED)
        return cm_err_set(err, CM_ERR_SYSTEM, "%s: TLS: the peer says: %s", s->peer, alert_text(session));
    if (rc == GNUTLS_E_PREMATURE_TERMINATION)
        return cm_err_set(err, CM_ERR_SYSTEM, "%s: TLS: closed during the handshake", s->peer);
    return cm_err_set(err, CM_ERR_SYSTEM, "%s: TLS: %s", s->peer, gnutls_strerror(rc));
}

/* Passes over what is no end. False: the peer sends nothing but warnings, or this is an end. */
static bool goes_on(struct cm_tls_session *t, ssize_t rc)
{
    if (rc == GNUTLS_E_WARNING_ALERT_RECEIVED)
        return ++t->warnings <= WARNINGS_MAX;
    return rc != GNUTLS_E_REHANDSHAKE && !gnutls_error_is_fatal((int)rc);
}

int cm_tls_session_step(struct cm_stream *s, struct cm_err *err)
{
    gnutls_session_t session = s->tls->session;
    gnutls_datum_t alpn = {0};
    int rc;

    do
        rc = gnutls_handshake(session);
    while (rc == GNUTLS_E_INTERRUPTED || (rc == GNUTLS_E_WARNING_ALERT_RECEIVED && goes_on(s->tls, rc)));
    if (rc == GNUTLS_E_AGAIN)
        return 1;
    if (rc < 0) {
        gnutls_alert_send_appropriate(session, rc);
        return failed(s, rc, err);
    }
    s->tls->done = true;
    s->tls->heard = 0;
    if (gnutls_alpn_get_selected_protocol(session, &alpn) == 0 && alpn.size < CM_STREAM_ALPN_MAX)
        memcpy(s->alpn, alpn.data, alpn.size);
    return 0;
}

ssize_t cm_tls_session_read(struct cm_stream *s, void *to, size_t size, struct cm_err *err)
{
    for (;;) {
        ssize_t n = gnutls_record_recv(s->tls->session, to, size);
        if (n >= 0)
            return n;
        if (n == GNUTLS_E_PREMATURE_TERMINATION)
            return 0; /* most peers just close; what matters above us has lengths of its own */
        if (n == GNUTLS_E_AGAIN) {
            errno = EAGAIN;
            return -1;
        }
        if (!goes_on(s->tls, n)) {
            failed(s, (int)n, err);
            return -2;
        }
    }
}

size_t cm_tls_session_pending(const struct cm_stream *s)
{
    return s->tls ? gnutls_record_check_pending(s->tls->session) : 0;
}

int cm_tls_session_write(struct cm_stream *s, const void *data, size_t len, struct cm_err *err)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = gnutls_record_send(s->tls->session, p, len);
        if (n == GNUTLS_E_INTERRUPTED)
            continue;
        if (n <= 0)
            return failed(s, (int)n, err);
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

void cm_tls_session_bye(struct cm_stream *s)
{
    gnutls_bye(s->tls->session, GNUTLS_SHUT_WR);
}

void cm_tls_session_close(struct cm_stream *s)
{
    if (!s->tls)
        return;
    if (s->tls->session)
        gnutls_deinit(s->tls->session);
    cm_tls_creds_unref(s->tls->creds);
    free(s->tls);
    s->tls = NULL;
}
