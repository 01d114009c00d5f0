/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway's keys and certificates: opened together, watched together, read again together. */
#ifndef CM_SECRETS_H
#define CM_SECRETS_H

#include "base/err.h"

struct cm_access;
struct cm_address;
struct cm_conf;
struct cm_loop;
struct cm_metrics;
struct cm_timer;
struct cm_tls;

struct cm_secrets {
    const struct cm_conf *conf;
    struct cm_timer *watch;
    struct cm_access *access;     /* never NULL once it is open */
    struct cm_tls *tls;           /* of the listening side; NULL: plain */
    struct cm_tls *callback_tls;  /* towards the tool service; NULL: plain */
    void (*changed)(void *arg);   /* our key, or callback_tls's certificates, are others now; may be NULL */
    void *arg;
};

/* Looks at the files each SECRETS_INTERVAL. CM_ERR_CONFIG for settings that do not fit together, and for an address that
 * others can reach without a key unless ALLOW_KEYLESS says so. */
int cm_secrets_open(struct cm_loop *loop, const struct cm_conf *conf, struct cm_metrics *metrics,
                    const struct cm_address *address, struct cm_secrets *ret, struct cm_err *err);
/* Reads all of it again, with the settings that *conf has now; where something does not load the old one stays, and the log
 * says why. */
void cm_secrets_reload(struct cm_secrets *s);
void cm_secrets_close(struct cm_secrets *s);

#endif
