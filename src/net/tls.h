/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and rules of one side of TLS connections (GnuTLS): TLS 1.2 and 1.3, ALPN.
 *
 * A struct cm_tls is counted. What its files hold is read when it is made and when it is told to; each connection keeps
 * what held when it began, so a reload disturbs none.
 */
#ifndef CM_NET_TLS_H
#define CM_NET_TLS_H

#include <stdbool.h>

#include "base/err.h"

struct cm_tls;

/* Whom the peer's certificate must come from. */
enum cm_tls_mode {
    CM_TLS_SYSTEM, /* the operating system's trust store */
    CM_TLS_CUSTOM, /* ca_file */
};

/* Texts may be "" for none, and are copied. `prefix` stands in front of the settings' names in errors and log lines,
 * e.g. "tls" for tls.cert_file; a client's are client_cert, client_key and ca_file. */
struct cm_tls_config {
    const char *prefix;
    bool server;
    enum cm_tls_mode mode;
    const char *cert_file, *key_file; /* ours: required of a server, both or none of a client */
    const char *ca_file;              /* mode custom: required of a client; of a server with require_client_auth */
    bool require_client_auth; /* of a server; without it a certificate that comes is checked if there is a ca_file */
};

/* NULL with *err (CM_ERR_CONFIG; the setting is named) for every combination that does not make sense, and for files that
 * cannot be used. Warns in the log about keys that everybody may read and certificates that are not valid now. */
struct cm_tls *cm_tls_new(const struct cm_tls_config *config, struct cm_err *err);
struct cm_tls *cm_tls_ref(struct cm_tls *tls);
/* Accepts NULL, returns NULL. */
struct cm_tls *cm_tls_unref(struct cm_tls *tls);
/* Reads the files again, for connections that begin afterwards. What does not load leaves everything as it is. */
int cm_tls_reload(struct cm_tls *tls, struct cm_err *err);
/* Whether a file is another one, or was written, since it was read; looks at no content. A reload that failed counts as
 * read, so that the same fault is not reported again and again. */
bool cm_tls_changed(const struct cm_tls *tls);

#endif
