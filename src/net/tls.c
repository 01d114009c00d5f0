/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever does not fit together is refused when it is loaded. A setting that is ignored in silence is how a server ends up
 * open to everybody. */
#include "net/tls.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "net/files.h"
#include "net/tls_internal.h"
#include "obs/log.h"

#define FILE_MAX (1024 * 1024)
#define TEXT_MAX 1024
#define FILES    3

/* No key exchange without forward secrecy, no cipher without integrity of its own; HTTP/2 forbids them anyway. Only groups
 * that are quick to compute: a client chooses, and a server with one loop pays. */
#define PRIORITY                                                                                                       \
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-KX-ALL:+ECDHE-ECDSA:+ECDHE-RSA:-CIPHER-ALL:"                          \
    "+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:-MAC-ALL:+AEAD:-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:"           \
    "+GROUP-SECP384R1:-SIGN-RSA-SHA1:-SIGN-ECDSA-SHA1"

enum file { CERT, KEY, CA };

struct cm_tls {
    unsigned refs;
    struct cm_tls_config config; /* its texts are the ones below */
    char prefix[32], path[FILES][TEXT_MAX];
    struct cm_file_mark marks[FILES];
    struct cm_tls_creds *creds;
};

static const char *file_name(const struct cm_tls *t, enum file which)
{
    static const char *const names[][FILES] = {{[CERT] = "client_cert", [KEY] = "client_key", [CA] = "ca_file"},
                                               {[CERT] = "cert_file", [KEY] = "key_file", [CA] = "ca_file"}};

    return names[t->config.server][which];
}

/* Rules */

static int refuse(const struct cm_tls *t, const char *setting, const char *why, struct cm_err *err)
{
    return cm_err_set(err, CM_ERR_CONFIG, "%s.%s: %s", t->prefix, setting, why);
}

static int check_server(const struct cm_tls *t, struct cm_err *err)
{
    if (!*t->path[CERT])
        return refuse(t, "cert_file", "a server needs a certificate: name its file", err);
    if (!*t->path[KEY])
        return refuse(t, "key_file", "a server needs the key of its certificate: name its file", err);
    if (t->config.mode == CM_TLS_SYSTEM && *t->path[CA])
        return refuse(t, "ca_file", "is of mode custom; set mode to custom, or leave it out", err);
    if (t->config.require_client_auth && !*t->path[CA])
        return refuse(t, "require_client_auth", "needs mode custom and a ca_file that clients' certificates come from",
                      err);
    return 0;
}

static int check_client(const struct cm_tls *t, struct cm_err *err)
{
    if (t->config.require_client_auth)
        return refuse(t, "require_client_auth", "is a setting of servers", err);
    if (*t->path[CERT] && !*t->path[KEY])
        return refuse(t, "client_key", "the certificate's key is missing: set both or none", err);
    if (!*t->path[CERT] && *t->path[KEY])
        return refuse(t, "client_cert", "the key's certificate is missing: set both or none", err);
    if (t->config.mode == CM_TLS_CUSTOM && !*t->path[CA])
        return refuse(t, "ca_file", "mode custom needs one", err);
    if (t->config.mode == CM_TLS_SYSTEM && *t->path[CA])
        return refuse(t, "ca_file", "is of mode custom; set mode to custom, or leave it out", err);
    return 0;
}

/* Loading */

struct text {
    char *data;
    size_t len;
};

static int read_file(const struct cm_tls *t, enum file which, struct text *ret, struct cm_file_mark *ret_mark,
                     struct cm_err *err)
{
    char name[64];

    snprintf(name, sizeof(name), "%s.%s", t->prefix, file_name(t, which));
    if (which == KEY && cm_file_is_public(t->path[which]))
        cm_log(CM_LOG_WARNING, "key_file_readable_by_all", CM_LOG_STR("setting", name),
               CM_LOG_STR("path", t->path[which]));
    return cm_file_read(name, t->path[which], FILE_MAX, &ret->data, &ret->len, ret_mark, err);
}

static int bad_file(const struct cm_tls *t, enum file which, const char *why, struct cm_err *err)
{
    return cm_err_set(err, CM_ERR_CONFIG, "%s.%s: \"%.200s\": %s", t->prefix, file_name(t, which), t->path[which], why);
}

static void warn_of_dates(const struct cm_tls *t, const struct text *cert)
{
    gnutls_datum_t datum = {.data = (unsigned char *)cert->data, .size = (unsigned)cert->len};
    gnutls_x509_crt_t crt;
    time_t now = time(NULL);

    if (gnutls_x509_crt_init(&crt) < 0)
        return;
    if (gnutls_x509_crt_import(crt, &datum, GNUTLS_X509_FMT_PEM) >= 0) {
        const char *event = now > gnutls_x509_crt_get_expiration_time(crt)   ? "certificate_expired"
                            : now < gnutls_x509_crt_get_activation_time(crt) ? "certificate_not_yet_valid"
                                                                             : NULL;
        if (event)
            cm_log(CM_LOG_WARNING, event, CM_LOG_STR("setting", t->prefix), CM_LOG_STR("path", t->path[CERT]));
    }
    gnutls_x509_crt_deinit(crt);
}

static int use_pair(const struct cm_tls *t, struct cm_tls_creds *creds, const struct text *cert, const struct text *key,
                    struct cm_err *err)
{
    gnutls_datum_t c = {.data = (unsigned char *)cert->data, .size = (unsigned)cert->len};
    gnutls_datum_t k = {.data = (unsigned char *)key->data, .size = (unsigned)key->len};
    int rc = gnutls_certificate_set_x509_key_mem2(creds->cert, &c, &k, GNUTLS_X509_FMT_PEM, NULL, 0);

    if (rc == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
        return bad_file(t, KEY, "is not the key of the certificate", err);
    if (rc == GNUTLS_E_DECRYPTION_FAILED)
        return bad_file(t, KEY, "is protected by a password; store it without", err);
    if (rc >= 0) {
        warn_of_dates(t, cert);
        return 0;
    }
    gnutls_x509_crt_t list[16];
    unsigned count = 16;
    bool cert_good = gnutls_x509_crt_list_import(list, &count, &c, GNUTLS_X509_FMT_PEM, 0) >= 0;
    for (unsigned i = 0; cert_good && i < count; i++)
        gnutls_x509_crt_deinit(list[i]);
    return bad_file(t, cert_good ? KEY : CERT, cert_good ? "holds no usable private key (PEM)" : gnutls_strerror(rc),
                    err);
}

static int load_pair(struct cm_tls *t, struct cm_tls_creds *creds, struct cm_file_mark *marks, struct cm_err *err)
{
    struct text cert = {0}, key = {0};

    if (!*t->path[CERT])
        return 0;
    int rc = read_file(t, CERT, &cert, &marks[CERT], err);
    if (rc == 0)
        rc = read_file(t, KEY, &key, &marks[KEY], err);
    if (rc == 0)
        rc = use_pair(t, creds, &cert, &key, err);
    cm_file_wipe(cert.data, cert.len);
    cm_file_wipe(key.data, key.len);
    return rc;
}

static int load_ca(struct cm_tls *t, struct cm_tls_creds *creds, struct cm_file_mark *mark, struct cm_err *err)
{
    struct text ca = {0};
    int rc = read_file(t, CA, &ca, mark, err);

    if (rc < 0)
        return rc;
    gnutls_datum_t datum = {.data = (unsigned char *)ca.data, .size = (unsigned)ca.len};
    int n = gnutls_certificate_set_x509_trust_mem(creds->cert, &datum, GNUTLS_X509_FMT_PEM);
    cm_file_wipe(ca.data, ca.len);
    if (n <= 0)
        return bad_file(t, CA, n < 0 ? gnutls_strerror(n) : "holds no certificate (PEM)", err);
    return 0;
}

static int load_trust(struct cm_tls *t, struct cm_tls_creds *creds, struct cm_file_mark *mark, struct cm_err *err)
{
    if (*t->path[CA])
        return load_ca(t, creds, mark, err);
    if (t->config.server)
        return 0; /* asks nobody for a certificate */
    int n = gnutls_certificate_set_x509_system_trust(creds->cert);
    if (n <= 0)
        return refuse(t, "mode", "the system's trust store is empty; install ca-certificates, or use mode custom", err);
    return 0;
}

static int load(struct cm_tls *t, struct cm_tls_creds *creds, struct cm_file_mark *marks, struct cm_err *err)
{
    if (gnutls_certificate_allocate_credentials(&creds->cert) < 0 ||
        gnutls_priority_init(&creds->priority, PRIORITY, NULL) < 0)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "%s: no memory", t->prefix);
    int rc = load_pair(t, creds, marks, err);
    if (rc == 0)
        rc = load_trust(t, creds, &marks[CA], err);
    if (rc < 0)
        return rc;
    creds->ask_peer = !t->config.server || *t->path[CA];
    creds->require_peer = !t->config.server || t->config.require_client_auth;
    if (!creds->ask_peer && gnutls_session_ticket_key_generate(&creds->ticket_key) < 0)
        return cm_err_set(err, CM_ERR_SYSTEM, "%s: no random numbers for session tickets", t->prefix);
    return 0;
}

static struct cm_tls_creds *new_creds(struct cm_tls *t, struct cm_file_mark *marks, struct cm_err *err)
{
    struct cm_tls_creds *creds = calloc(1, sizeof(*creds));

    if (!creds) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "%s: no memory", t->prefix);
        return NULL;
    }
    creds->refs = 1;
    creds->server = t->config.server;
    if (load(t, creds, marks, err) == 0)
        return creds;
    cm_tls_creds_unref(creds);
    return NULL;
}

struct cm_tls_creds *cm_tls_creds(const struct cm_tls *tls)
{
    tls->creds->refs++;
    return tls->creds;
}

void cm_tls_creds_unref(struct cm_tls_creds *creds)
{
    if (!creds || --creds->refs > 0)
        return;
    if (creds->cert)
        gnutls_certificate_free_credentials(creds->cert);
    if (creds->priority)
        gnutls_priority_deinit(creds->priority);
    if (creds->ticket_key.data) {
        gnutls_memset(creds->ticket_key.data, 0, creds->ticket_key.size);
        gnutls_free(creds->ticket_key.data);
    }
    free(creds);
}

/* The whole */

static int copy_path(struct cm_tls *t, enum file which, const char *path, struct cm_err *err)
{
    if (path && strlen(path) >= TEXT_MAX)
        return refuse(t, file_name(t, which), "the path is too long", err);
    snprintf(t->path[which], TEXT_MAX, "%s", path ? path : "");
    return 0;
}

static int set_up(struct cm_tls *t, const struct cm_tls_config *config, struct cm_err *err)
{
    t->config = *config;
    snprintf(t->prefix, sizeof(t->prefix), "%s", config->prefix);
    int rc = copy_path(t, CERT, config->cert_file, err);
    if (rc == 0)
        rc = copy_path(t, KEY, config->key_file, err);
    if (rc == 0)
        rc = copy_path(t, CA, config->ca_file, err);
    if (rc == 0)
        rc = config->server ? check_server(t, err) : check_client(t, err);
    if (rc < 0)
        return rc;
    t->creds = new_creds(t, t->marks, err);
    return t->creds ? 0 : CM_ERR_CONFIG;
}

struct cm_tls *cm_tls_new(const struct cm_tls_config *config, struct cm_err *err)
{
    struct cm_tls *t = calloc(1, sizeof(*t));

    if (!t) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "%s: no memory", config->prefix);
        return NULL;
    }
    t->refs = 1;
    return set_up(t, config, err) < 0 ? cm_tls_unref(t) : t;
}

struct cm_tls *cm_tls_ref(struct cm_tls *tls)
{
    tls->refs++;
    return tls;
}

struct cm_tls *cm_tls_unref(struct cm_tls *tls)
{
    if (!tls || --tls->refs > 0)
        return NULL;
    cm_tls_creds_unref(tls->creds);
    free(tls);
    return NULL;
}

int cm_tls_reload(struct cm_tls *tls, struct cm_err *err)
{
    struct cm_file_mark marks[FILES];

    for (int i = 0; i < FILES; i++)
        marks[i] = cm_file_mark(tls->path[i]);
    struct cm_tls_creds *creds = new_creds(tls, marks, err);
    memcpy(tls->marks, marks, sizeof(marks));
    if (!creds)
        return CM_ERR_CONFIG;
    cm_tls_creds_unref(tls->creds);
    tls->creds = creds;
    return 0;
}

bool cm_tls_changed(const struct cm_tls *tls)
{
    for (int i = 0; i < FILES; i++) {
        struct cm_file_mark now = cm_file_mark(tls->path[i]);
        if (!cm_file_mark_same(&now, &tls->marks[i]))
            return true;
    }
    return false;
}
