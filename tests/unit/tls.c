/* SPDX-License-Identifier: Apache-2.0 */
/* TLS contexts and streams: who gets in, what is refused when it is loaded, and what a reload changes. */
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/certs.h"
#include "net/tls.h"
#include "net_world.h"

static char folder[64], other[80]; /* two authorities */
static char paths[2][6][128];

enum { CA_CRT, CA_KEY, SERVER_CRT, SERVER_KEY, CLIENT_CRT, CLIENT_KEY };

static int make_certs(const char *where, bool force)
{
    struct cm_certs_options o = {.folder = where, .ecdsa = true, .days = 1, .force = force};

    return cm_certs_generate(&o, NULL);
}

static int set_up(void **state)
{
    static const char *const names[] = {"ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"};
    (void)state;

    snprintf(folder, sizeof(folder), "/tmp/cm-tls-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(other, sizeof(other), "%s/other", folder);
    for (int i = 0; i < 6; i++) {
        snprintf(paths[0][i], sizeof(paths[0][i]), "%s/%s", folder, names[i]);
        snprintf(paths[1][i], sizeof(paths[1][i]), "%s/%s", other, names[i]);
    }
    return make_certs(folder, false) < 0 || make_certs(other, false) < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < 12; i++)
        unlink(paths[i / 6][i % 6]);
    rmdir(other);
    return rmdir(folder);
}

static struct cm_tls_config server_config(bool mutual)
{
    return (struct cm_tls_config){.prefix = "tls",
                                  .server = true,
                                  .mode = CM_TLS_CUSTOM,
                                  .cert_file = paths[0][SERVER_CRT],
                                  .key_file = paths[0][SERVER_KEY],
                                  .ca_file = mutual ? paths[0][CA_CRT] : "",
                                  .require_client_auth = mutual};
}

/* `from`: whose certificate it shows, 0 or 1, or -1 for none; `trusts`: whose server it believes. */
static struct cm_tls_config client_config(int from, int trusts)
{
    return (struct cm_tls_config){.prefix = "callback_tls",
                                  .mode = CM_TLS_CUSTOM,
                                  .cert_file = from < 0 ? "" : paths[from][CLIENT_CRT],
                                  .key_file = from < 0 ? "" : paths[from][CLIENT_KEY],
                                  .ca_file = paths[trusts][CA_CRT]};
}

static struct cm_tls *tls_of(struct cm_tls_config config)
{
    struct cm_err err = {0};
    struct cm_tls *tls = cm_tls_new(&config, &err);

    if (!tls)
        fail_msg("%s", err.text);
    return tls;
}

static void open_both(struct world *w, struct cm_tls_config server, struct cm_tls_config client)
{
    struct cm_tls *s = tls_of(server), *c = tls_of(client);

    world_open(w, s, c);
}

static void close_both(struct world *w)
{
    cm_tls_unref(w->tls);
    cm_tls_unref(w->client_tls);
    world_close(w);
}

static void talk(struct world *w)
{
    assert_int_equal(cm_stream_write(w->client.s, "ping", 4, NULL), 0);
    await_bytes(w, &w->server, w->server.bytes + 4);
    assert_int_equal(cm_stream_write(w->server.s, "pong", 4, NULL), 0);
    await_bytes(w, &w->client, w->client.bytes + 4);
}

static void mutual(void **state)
{
    struct world w;
    (void)state;

    open_both(&w, server_config(true), client_config(0, 0));
    await_ready(&w);
    assert_string_equal(cm_stream_alpn(w.client.s), "h2");
    assert_string_equal(cm_stream_alpn(w.server.s), "h2");
    talk(&w);
    w.client.s = cm_stream_close(w.client.s, 0);
    await(&w, &w.server.closed);
    assert_int_equal(w.server.err.code, 0);
    close_both(&w);
}

static void assert_text(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not say \"%s\"", text, part);
}

/* With TLS 1.3 the client's handshake is over before the server has seen its certificate. Either way it must end. */
static void refuse_client(int from, const char *why)
{
    struct world w;

    open_both(&w, server_config(true), client_config(from, 0));
    await(&w, &w.server.closed);
    assert_false(w.server.ready);
    assert_text(w.server.err.text, why);
    w.server.s = cm_stream_close(w.server.s, 1000);
    await(&w, &w.client.closed);
    assert_int_equal(w.client.bytes, 0);
    assert_non_null(strstr(w.client.err.text, "the peer says"));
    close_both(&w);
}

static void client_without_certificate(void **state)
{
    (void)state;
    refuse_client(-1, "Certificate is required");
}

static void client_of_another_authority(void **state)
{
    (void)state;
    refuse_client(1, "issuer is unknown");
}

/* A certificate is not asked for, but the one that comes is looked at. */
static void client_may_show_a_certificate(void **state)
{
    struct world w;
    struct cm_tls_config config = server_config(true);
    (void)state;

    config.require_client_auth = false;
    open_both(&w, config, client_config(-1, 0));
    await_ready(&w);
    talk(&w);
    close_both(&w);
    open_both(&w, config, client_config(0, 0));
    await_ready(&w);
    talk(&w);
    close_both(&w);
    open_both(&w, config, client_config(1, 0));
    await(&w, &w.server.closed);
    assert_false(w.server.ready);
    close_both(&w);
}

static void server_of_another_authority(void **state)
{
    struct world w;
    (void)state;

    open_both(&w, server_config(false), client_config(-1, 1));
    await(&w, &w.client.closed);
    assert_false(w.client.ready);
    assert_non_null(strstr(w.client.err.text, "issuer is unknown"));
    close_both(&w);
    struct cm_tls_config system = client_config(-1, 0);
    system.mode = CM_TLS_SYSTEM;
    system.ca_file = "";
    open_both(&w, server_config(false), system);
    await(&w, &w.client.closed);
    assert_false(w.client.ready);
    close_both(&w);
}

/* A client's certificate, good as it is, does not make a server. */
static void server_with_a_certificate_for_clients(void **state)
{
    struct world w;
    struct cm_tls_config config = server_config(false);
    (void)state;

    config.cert_file = paths[0][CLIENT_CRT];
    config.key_file = paths[0][CLIENT_KEY];
    open_both(&w, config, client_config(-1, 0));
    await(&w, &w.client.closed);
    assert_false(w.client.ready);
    close_both(&w);
}

static void server_of_another_name(void **state)
{
    struct world w;
    (void)state;

    open_both(&w, server_config(false), client_config(-1, 0));
    await_ready(&w);
    w.client.s = cm_stream_close(w.client.s, 0);
    w.client.ready = false;
    unsigned port = listening_port(&w);
    w.server.s = cm_stream_close(w.server.s, 0);
    w.server = (struct end){.w = &w};
    /* 127.0.0.2 is the same machine, and not in the certificate. */
    w.client.s = cm_stream_connect(w.loop, "127.0.0.2", port, w.client_tls, &stream_limits, &ops, &w.client, NULL);
    await(&w, &w.client.closed);
    assert_text(w.client.err.text, "name in the certificate does not match");
    close_both(&w);
}

static void plain_client(void **state)
{
    struct world w;
    (void)state;

    world_open(&w, tls_of(server_config(false)), NULL);
    await(&w, &w.client.ready);
    assert_int_equal(cm_stream_write(w.client.s, "GET / HTTP/1.1\r\n\r\n", 18, NULL), 0);
    await(&w, &w.server.closed);
    assert_false(w.server.ready);
    assert_int_equal(w.server.bytes, 0);
    close_both(&w);
}

static void silent_client(void **state)
{
    struct world w;
    (void)state;

    world_open(&w, tls_of(server_config(false)), NULL);
    w.handshake_ms = 100;
    await(&w, &w.server.closed);
    assert_non_null(strstr(w.server.err.text, "no handshake within 100 ms"));
    close_both(&w);
}

/* A client of another make, which has nothing to say but warnings. */
static void *warn_without_end(void *arg)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const unsigned *port = arg;
    gnutls_certificate_credentials_t trust;
    gnutls_session_t session;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

    if (fd < 0)
        return NULL;
    in.sin_port = htons((uint16_t)*port);
    gnutls_certificate_allocate_credentials(&trust);
    gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
    gnutls_priority_set_direct(session, "NORMAL:-VERS-ALL:+VERS-TLS1.2", NULL);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, trust);
    gnutls_transport_set_int(session, fd);
    rc = connect(fd, (struct sockaddr *)&in, sizeof(in)) < 0 ? -1 : gnutls_handshake(session);
    for (int i = 0; rc == 0 && i < 1000; i++)
        rc = gnutls_alert_send(session, GNUTLS_AL_WARNING, GNUTLS_A_USER_CANCELED);
    gnutls_deinit(session);
    close(fd);
    gnutls_certificate_free_credentials(trust);
    return NULL;
}

/* Each costs a step and brings nothing, so a client could keep the loop to itself. */
static void only_warnings(void **state)
{
    struct world w;
    pthread_t client;
    (void)state;

    world_open(&w, tls_of(server_config(false)), NULL);
    w.client.s = cm_stream_close(w.client.s, 0);
    await(&w, &w.server.closed); /* that was the world's own client */
    w.server.s = cm_stream_close(w.server.s, 0);
    w.server = (struct end){.w = &w};
    unsigned port = listening_port(&w);
    assert_int_equal(pthread_create(&client, NULL, warn_without_end, &port), 0);
    await(&w, &w.server.closed);
    assert_int_equal(pthread_join(client, NULL), 0);
    assert_true(w.server.ready);
    assert_non_null(strstr(w.server.err.text, "warning"));
    close_both(&w);
}

static void much_both_ways(void **state)
{
    struct world w;
    static char block[100000];
    size_t taken = 0;
    (void)state;

    open_both(&w, server_config(false), client_config(-1, 0));
    await_ready(&w);
    cm_stream_pause(w.server.s, true);
    while (cm_stream_write(w.client.s, block, sizeof(block), NULL) == 0)
        taken += sizeof(block);
    cm_stream_pause(w.server.s, false);
    await_bytes(&w, &w.server, taken);
    for (int i = 0; i < 5; i++)
        assert_int_equal(cm_stream_write(w.server.s, block, sizeof(block), NULL), 0);
    w.server.s = cm_stream_close(w.server.s, 5000);
    await(&w, &w.client.closed);
    assert_int_equal(w.client.err.code, 0);
    assert_int_equal(w.client.bytes, 5 * sizeof(block));
    close_both(&w);
}

/* A pause in the middle of a record: what is decrypted already must come later, without a byte from the socket. */
static void pause_keeps_the_rest(void **state)
{
    struct world w;
    static char block[60000];
    (void)state;

    open_both(&w, server_config(false), client_config(-1, 0));
    await_ready(&w);
    w.server.pause_with_data = true;
    assert_int_equal(cm_stream_write(w.client.s, block, sizeof(block), NULL), 0);
    while (w.server.bytes < sizeof(block)) {
        size_t before = w.server.bytes;
        cm_stream_pause(w.server.s, false);
        await_more(&w, &w.server, before);
        assert_true(w.server.bytes - before <= 16384);
    }
    close_both(&w);
}

static void refused_config(struct cm_tls_config config, const char *why)
{
    struct cm_err err = {0};

    assert_null(cm_tls_new(&config, &err));
    assert_int_equal(err.code, CM_ERR_CONFIG);
    assert_text(err.text, why);
}

/* long: one line for each wrong combination */
static void wrong_combinations(void **state)
{
    struct cm_tls_config s = server_config(true), c = client_config(0, 0), x;
    (void)state;

    x = s, x.cert_file = "", refused_config(x, "tls.cert_file: a server needs a certificate");
    x = s, x.key_file = "", refused_config(x, "tls.key_file: a server needs the key");
    x = s, x.ca_file = "", refused_config(x, "tls.require_client_auth: needs mode custom and a ca_file");
    x = s, x.mode = CM_TLS_SYSTEM, refused_config(x, "tls.ca_file: is of mode custom");
    x = s, x.mode = CM_TLS_SYSTEM, x.ca_file = "", refused_config(x, "tls.require_client_auth: needs mode custom");
    x = s, x.key_file = paths[1][SERVER_KEY], refused_config(x, "tls.key_file: ");
    x = s, x.key_file = paths[1][SERVER_KEY], refused_config(x, "is not the key of the certificate");
    x = s, x.key_file = paths[0][SERVER_CRT], refused_config(x, "tls.key_file: ");
    x = s, x.cert_file = paths[0][SERVER_KEY], refused_config(x, "tls.cert_file: ");
    x = s, x.cert_file = "/nowhere/x.crt", refused_config(x, "tls.cert_file: \"/nowhere/x.crt\": No such file");
    x = s, x.ca_file = folder, refused_config(x, "is not a regular file");
    x = s, x.ca_file = paths[0][CA_KEY], refused_config(x, "tls.ca_file: ");
    x = s, x.ca_file = "/dev/zero", refused_config(x, "is not a regular file");
    x = c, x.key_file = "", refused_config(x, "callback_tls.client_key: the certificate's key is missing");
    x = c, x.cert_file = "", refused_config(x, "callback_tls.client_cert: the key's certificate is missing");
    x = c, x.ca_file = "", refused_config(x, "callback_tls.ca_file: mode custom needs one");
    x = c, x.mode = CM_TLS_SYSTEM, refused_config(x, "callback_tls.ca_file: is of mode custom");
    x = c, x.require_client_auth = true, refused_config(x, "require_client_auth: is a setting of servers");
}

static void copy_file(const char *from, const char *to)
{
    char text[8192];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_TRUNC);
    ssize_t n = read(in, text, sizeof(text));

    assert_true(in >= 0 && out >= 0 && n > 0 && write(out, text, (size_t)n) == n);
    close(in);
    close(out);
}

/* New files count for new connections; the old connection goes on; files that do not load change nothing. */
static void reload(void **state)
{
    struct world w;
    struct cm_err err = {0};
    (void)state;

    open_both(&w, server_config(false), client_config(-1, 0));
    await_ready(&w);
    assert_false(cm_tls_changed(w.tls));
    copy_file(paths[1][SERVER_KEY], paths[0][SERVER_KEY]); /* half of the new pair */
    assert_true(cm_tls_changed(w.tls));
    assert_int_equal(cm_tls_reload(w.tls, &err), CM_ERR_CONFIG);
    assert_false(cm_tls_changed(w.tls));
    talk(&w);
    reconnect(&w);
    await_ready(&w); /* with the old pair */
    copy_file(paths[1][SERVER_CRT], paths[0][SERVER_CRT]);
    assert_true(cm_tls_changed(w.tls));
    assert_int_equal(cm_tls_reload(w.tls, NULL), 0);
    talk(&w);
    reconnect(&w); /* by a client that does not know the other authority */
    await(&w, &w.client.closed);
    assert_false(w.client.ready);
    assert_int_equal(make_certs(folder, true), 0); /* as it was for the tests that follow */
    close_both(&w);
}

static void certificates_are_not_overwritten(void **state)
{
    struct stat st;
    (void)state;

    assert_int_equal(make_certs(folder, false), CM_ERR_CONFIG);
    assert_int_equal(make_certs("/nowhere/at/all", false), CM_ERR_SYSTEM);
    assert_int_equal(stat(paths[0][SERVER_KEY], &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutual),
        cmocka_unit_test(client_without_certificate),
        cmocka_unit_test(client_of_another_authority),
        cmocka_unit_test(client_may_show_a_certificate),
        cmocka_unit_test(server_of_another_authority),
        cmocka_unit_test(server_with_a_certificate_for_clients),
        cmocka_unit_test(server_of_another_name),
        cmocka_unit_test(plain_client),
        cmocka_unit_test(silent_client),
        cmocka_unit_test(only_warnings),
        cmocka_unit_test(much_both_ways),
        cmocka_unit_test(pause_keeps_the_rest),
        cmocka_unit_test(wrong_combinations),
        cmocka_unit_test(reload),
        cmocka_unit_test(certificates_are_not_overwritten),
    };
    return cmocka_run_group_tests_name("tls", tests, set_up, tear_down);
}
