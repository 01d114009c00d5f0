/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates to try TLS with: an authority of one's own, a server, a client. */
#ifndef CM_NET_CERTS_H
#define CM_NET_CERTS_H

#include <stdbool.h>

#include "base/err.h"

struct cm_certs_options {
    const char *folder; /* made when it is missing */
    bool force;         /* replaces what is there; without it CM_ERR_CONFIG, and nothing is written */
    bool ecdsa;         /* P-256 instead of RSA 4096: handshakes cost the server a tenth */
    unsigned days;      /* that they are valid */
    const char *name;   /* a further name or address of the server; NULL: none */
    void (*made)(void *arg, const char *path); /* after each file; may be NULL */
    void *arg;
};

/* Writes ca, server and client, .crt (0644) and .key (0600), each in one step. The server's names are localhost, executor,
 * host.docker.internal, 127.0.0.1 and ::1. Takes seconds with RSA. */
int cm_certs_generate(const struct cm_certs_options *options, struct cm_err *err);

#endif
