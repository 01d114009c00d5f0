/* SPDX-License-Identifier: Apache-2.0 */
/* A server's keys and certificates: opened together, watched together, read again together. */
#ifndef CM_SECRETS_H
#define CM_SECRETS_H

#include <stdbool.h>

#include "access/access.h"
#include "base/err.h"

struct cm_loop;
struct cm_metrics;
struct cm_timer;
struct cm_tls;

/* Texts of the settings: a reload changes them in place. */
struct cm_secrets_config {
    const char *prefix; /* of the variables, for messages: "CODEMODE" */
    struct cm_access_config access;
    const char *host; /* where it listens, for messages */
    bool loopback; /* nobody from outside can connect */
    bool allow_keyless;
    bool tls, tls_require_client_auth;
    const char *tls_mode, *tls_cert_file, *tls_key_file, *tls_ca_file;
    bool callback_tls;
    const char *callback_ca_file, *callback_cert_file, *callback_key_file;
    const char *callback_target; /* who is shown our key; NULL: nobody */
    double interval_s; /* between looks at the files */
};

struct cm_secrets {
    struct cm_secrets_config config;
    struct cm_timer *watch;
    struct cm_access *access;     /* never NULL once it is open */
    struct cm_tls *tls;           /* of the listening side; NULL: plain */
    struct cm_tls *callback_tls;  /* towards the tool service; NULL: plain */
    void (*changed)(void *arg);   /* our key, or callback_tls's certificates, are others now; may be NULL */
    void *arg;
};

/* CM_ERR_CONFIG for settings that do not fit together, and for an address that
 * others can reach without a key unless ALLOW_KEYLESS says so. */
int cm_secrets_open(struct cm_loop *loop, const struct cm_secrets_config *config, struct cm_metrics *metrics,
                    struct cm_secrets *ret, struct cm_err *err);
/* Reads all of it again; where something does not load the old one stays, and the log
 * says why. */
void cm_secrets_reload(struct cm_secrets *s);
void cm_secrets_close(struct cm_secrets *s);

#endif
