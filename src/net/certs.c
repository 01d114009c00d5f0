/* SPDX-License-Identifier: Apache-2.0 */
#include "net/certs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define RSA_BITS   4096
#define PATH_SIZE  1100
#define SERIAL_LEN 16
#define SKEW_S     300 /* clocks of two machines may differ a little */

struct pair {
    const char *name, *common_name;
    const char *purpose; /* NULL: it is the authority */
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt;
};

static const char *const server_names[] = {"localhost", "executor", "host.docker.internal", "127.0.0.1", "::1"};

static int failed(struct cm_err *err, const char *what, int rc)
{
    return cm_err_set(err, CM_ERR_SYSTEM, "%s: %s", what, gnutls_strerror(rc));
}

/* The certificate */

static int add_name(gnutls_x509_crt_t crt, const char *name)
{
    unsigned char address[16];

    if (inet_pton(AF_INET, name, address) == 1)
        return gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, address, 4, GNUTLS_FSAN_APPEND);
    if (inet_pton(AF_INET6, name, address) == 1)
        return gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, address, 16, GNUTLS_FSAN_APPEND);
    return gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, name, (unsigned)strlen(name),
                                                GNUTLS_FSAN_APPEND);
}

static int add_server_names(gnutls_x509_crt_t crt, const char *further)
{
    int rc = 0;

    for (size_t i = 0; i < CM_COUNT_OF(server_names) && rc >= 0; i++)
        rc = add_name(crt, server_names[i]);
    return rc < 0 || !further ? rc : add_name(crt, further);
}

static int describe(const struct pair *p, const struct cm_certs_options *o)
{
    bool server = p->purpose && strcmp(p->purpose, GNUTLS_KP_TLS_WWW_SERVER) == 0;
    unsigned usage = p->purpose ? GNUTLS_KEY_DIGITAL_SIGNATURE : GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN;
    int rc = gnutls_x509_crt_set_dn_by_oid(p->crt, GNUTLS_OID_X520_COMMON_NAME, 0, p->common_name,
                                           (unsigned)strlen(p->common_name));

    if (rc >= 0)
        rc = gnutls_x509_crt_set_basic_constraints(p->crt, p->purpose ? 0 : 1, p->purpose ? -1 : 0);
    if (rc >= 0)
        rc = gnutls_x509_crt_set_key_usage(p->crt, usage);
    if (rc >= 0 && p->purpose)
        rc = gnutls_x509_crt_set_key_purpose_oid(p->crt, p->purpose, 0);
    if (rc >= 0 && server)
        rc = add_server_names(p->crt, o->name);
    return rc;
}

static int identify(const struct pair *p, const struct pair *ca, unsigned days)
{
    unsigned char serial[SERIAL_LEN], id[64];
    size_t len = sizeof(id);
    time_t now = time(NULL);
    int rc = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial));

    serial[0] = (serial[0] & 0x7f) | 1; /* positive, and as long as it says */
    if (rc >= 0)
        rc = gnutls_x509_crt_set_serial(p->crt, serial, sizeof(serial));
    if (rc >= 0)
        rc = gnutls_x509_crt_set_activation_time(p->crt, now - SKEW_S);
    if (rc >= 0)
        rc = gnutls_x509_crt_set_expiration_time(p->crt, now + (time_t)days * 86400);
    if (rc >= 0)
        rc = gnutls_x509_crt_get_key_id(p->crt, GNUTLS_KEYID_USE_SHA1, id, &len);
    if (rc >= 0)
        rc = gnutls_x509_crt_set_subject_key_id(p->crt, id, len);
    len = sizeof(id);
    if (rc >= 0)
        rc = gnutls_x509_crt_get_key_id(ca->crt, GNUTLS_KEYID_USE_SHA1, id, &len);
    return rc < 0 ? rc : gnutls_x509_crt_set_authority_key_id(p->crt, id, len);
}

static int make_key(gnutls_x509_privkey_t key, bool ecdsa)
{
    if (ecdsa)
        return gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
    return gnutls_x509_privkey_generate(key, GNUTLS_PK_RSA, RSA_BITS, 0);
}

static int make(struct pair *p, const struct pair *ca, const struct cm_certs_options *o)
{
    int rc = gnutls_x509_privkey_init(&p->key);

    if (rc >= 0)
        rc = gnutls_x509_crt_init(&p->crt);
    if (rc >= 0)
        rc = make_key(p->key, o->ecdsa);
    if (rc >= 0)
        rc = gnutls_x509_crt_set_version(p->crt, 3);
    if (rc >= 0)
        rc = gnutls_x509_crt_set_key(p->crt, p->key);
    if (rc >= 0)
        rc = describe(p, o);
    if (rc >= 0)
        rc = identify(p, ca, o->days);
    return rc < 0 ? rc : gnutls_x509_crt_sign2(p->crt, ca->crt, ca->key, GNUTLS_DIG_SHA256, 0);
}

static void release(struct pair *p)
{
    if (p->key)
        gnutls_x509_privkey_deinit(p->key);
    if (p->crt)
        gnutls_x509_crt_deinit(p->crt);
}

/* Files */

static void path_of(char ret[static PATH_SIZE], const struct cm_certs_options *o, const char *name, const char *suffix)
{
    snprintf(ret, PATH_SIZE, "%s/%s%s", o->folder, name, suffix);
}

/* A server that reads the file while it is written must see the old one or the new one. */
static int write_file(const struct cm_certs_options *o, const struct pair *p, const char *suffix, mode_t mode,
                      const gnutls_datum_t *text, struct cm_err *err)
{
    char path[PATH_SIZE], fresh[PATH_SIZE + 8];

    path_of(path, o, p->name, suffix);
    snprintf(fresh, sizeof(fresh), "%s.new", path);
    unlink(fresh);
    cm_autofd int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0 || fchmod(fd, mode) < 0)
        return cm_err_sys(err, errno, "%s", fresh);
    int rc = cm_fd_write_all(fd, text->data, text->size);
    if (rc == 0 && (fsync(fd) < 0 || rename(fresh, path) < 0))
        rc = -errno;
    if (rc < 0) {
        unlink(fresh);
        return cm_err_sys(err, -rc, "%s", path);
    }
    if (o->made)
        o->made(o->arg, path);
    return 0;
}

static int store(const struct cm_certs_options *o, const struct pair *p, struct cm_err *err)
{
    gnutls_datum_t key = {0}, crt = {0};
    int rc = gnutls_x509_privkey_export2_pkcs8(p->key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &key);

    if (rc >= 0)
        rc = gnutls_x509_crt_export2(p->crt, GNUTLS_X509_FMT_PEM, &crt);
    if (rc < 0)
        rc = failed(err, p->name, rc);
    else if ((rc = write_file(o, p, ".key", 0600, &key, err)) == 0)
        rc = write_file(o, p, ".crt", 0644, &crt, err);
    if (key.data)
        gnutls_memset(key.data, 0, key.size);
    gnutls_free(key.data);
    gnutls_free(crt.data);
    return rc;
}

static int look_for_old(const struct cm_certs_options *o, const struct pair *pairs, size_t count, struct cm_err *err)
{
    char path[PATH_SIZE];
    struct stat st;

    if (strlen(o->folder) > PATH_SIZE - 32)
        return cm_err_set(err, CM_ERR_CONFIG, "the folder's path is too long");
    if (mkdir(o->folder, 0755) < 0 && errno != EEXIST)
        return cm_err_sys(err, errno, "%.200s", o->folder);
    for (size_t i = 0; i < count && !o->force; i++) {
        for (int key = 0; key < 2; key++) {
            path_of(path, o, pairs[i].name, key ? ".key" : ".crt");
            if (lstat(path, &st) == 0)
                return cm_err_set(err, CM_ERR_CONFIG, "%.200s exists; --force replaces it", path);
        }
    }
    return 0;
}

int cm_certs_generate(const struct cm_certs_options *options, struct cm_err *err)
{
    struct pair pairs[] = {
        {.name = "ca", .common_name = "Codemode test CA"},
        {.name = "server", .common_name = "localhost", .purpose = GNUTLS_KP_TLS_WWW_SERVER},
        {.name = "client", .common_name = "codemode-client", .purpose = GNUTLS_KP_TLS_WWW_CLIENT},
    };
    size_t count = CM_COUNT_OF(pairs);
    int rc = look_for_old(options, pairs, count, err);

    for (size_t i = 0; i < count && rc == 0; i++) {
        int failure = make(&pairs[i], &pairs[0], options);
        rc = failure < 0 ? failed(err, pairs[i].name, failure) : 0;
    }
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = store(options, &pairs[i], err);
    for (size_t i = 0; i < count; i++)
        release(&pairs[i]);
    return rc;
}
