/* SPDX-License-Identifier: Apache-2.0 */
#include "roles/secrets.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>

#include "access/access.h"
#include "ev/loop.h"
#include "net/tls.h"
#include "obs/log.h"

/* TLS */

static int parse_mode(const char *text, enum cm_tls_mode *ret, struct cm_err *err)
{
    bool custom = strcasecmp(text, "custom") == 0;

    if (!custom && strcasecmp(text, "system") != 0)
        return cm_err_set(err, CM_ERR_CONFIG, "tls.mode: \"%.20s\" is neither system nor custom", text);
    *ret = custom ? CM_TLS_CUSTOM : CM_TLS_SYSTEM;
    return 0;
}

static void warn_of_idle_files(const struct cm_secrets_config *c, const char *what, const char *file)
{
    char setting[40];

    snprintf(setting, sizeof(setting), "%s_%s_ENABLED", c->prefix, what);
    if (*file)
        cm_log(CM_LOG_WARNING, "tls_is_not_enabled", CM_LOG_STR("setting", setting), CM_LOG_STR("path", file));
}

static int open_tls(const struct cm_secrets_config *c, struct cm_tls **ret, struct cm_err *err)
{
    struct cm_tls_config config = {.prefix = "tls",
                                   .server = true,
                                   .cert_file = c->tls_cert_file,
                                   .key_file = c->tls_key_file,
                                   .ca_file = c->tls_ca_file,
                                   .require_client_auth = c->tls_require_client_auth};
    int rc = parse_mode(c->tls_mode, &config.mode, err);

    if (rc < 0)
        return rc;
    if (!c->tls && c->tls_require_client_auth)
        return cm_err_set(err, CM_ERR_CONFIG, "tls.require_client_auth: needs TLS; set %s_TLS_ENABLED=true", c->prefix);
    if (!c->tls)
        warn_of_idle_files(c, "TLS", c->tls_cert_file);
    *ret = c->tls ? cm_tls_new(&config, err) : NULL;
    return c->tls && !*ret ? CM_ERR_CONFIG : 0;
}

static int open_callback_tls(const struct cm_secrets_config *c, struct cm_tls **ret, struct cm_err *err)
{
    const char *ca = c->callback_ca_file ? c->callback_ca_file : "";
    struct cm_tls_config config = {.prefix = "callback_tls",
                                   .mode = *ca ? CM_TLS_CUSTOM : CM_TLS_SYSTEM,
                                   .cert_file = c->callback_cert_file,
                                   .key_file = c->callback_key_file,
                                   .ca_file = ca};

    if (!c->callback_tls && c->callback_target)
        warn_of_idle_files(c, "CALLBACK_TLS", *ca ? ca : c->callback_cert_file);
    *ret = c->callback_tls ? cm_tls_new(&config, err) : NULL;
    return c->callback_tls && !*ret ? CM_ERR_CONFIG : 0;
}

/* Keys */

static int check_exposure(const struct cm_secrets *s, struct cm_err *err)
{
    const struct cm_secrets_config *c = &s->config;

    if (cm_access_on(s->access) || c->loopback)
        return 0;
    if (!c->allow_keyless)
        return cm_err_set(err, CM_ERR_CONFIG,
                          "others can reach HOST \"%.80s\", and there is no key: set %s_API_KEY, "
                          "%s_API_KEY_FILE or %s_KEYS_FILE, or listen on 127.0.0.1, or, where something "
                          "else decides who may call, say ALLOW_KEYLESS=true (--allow-keyless)",
                          c->host, c->prefix, c->prefix, c->prefix);
    cm_log(CM_LOG_WARNING, "serving_without_key", CM_LOG_STR("host", c->host));
    return 0;
}

static bool is_beside_us(const char *target)
{
    static const char *const here[] = {"localhost:", "127.", "[::1]:", "none"};

    for (size_t i = 0; i < sizeof(here) / sizeof(here[0]); i++)
        if (strncasecmp(target, here[i], strlen(here[i])) == 0)
            return true;
    return !*target;
}

/* The tool service is shown our key with every call. */
static void check_callback(const struct cm_secrets *s)
{
    if (cm_access_on(s->access) && s->config.callback_target && !s->callback_tls &&
        !is_beside_us(s->config.callback_target))
        cm_log(CM_LOG_WARNING, "key_travels_in_clear", CM_LOG_STR("target", s->config.callback_target),
               CM_LOG_STR("remedy", "CODEMODE_CALLBACK_TLS_ENABLED=true, or a network that nobody else is in"));
}

/* Changes */

static void say(const char *what, int rc, const struct cm_err *err)
{
    if (rc < 0)
        cm_log(CM_LOG_ERROR, "reload_failed", CM_LOG_STR("what", what), CM_LOG_STR("why", err->text),
               CM_LOG_STR("then", "the old ones hold"));
    else
        cm_log(CM_LOG_INFO, "reloaded", CM_LOG_STR("what", what));
}

static void reload_keys(struct cm_secrets *s)
{
    struct cm_err err;
    int rc = cm_access_reload(s->access, &s->config.access, &err);

    say("keys", rc, &err);
    if (rc == 0 && s->changed)
        s->changed(s->arg);
}

static int reload_tls(struct cm_tls *tls, const char *what)
{
    struct cm_err err;
    int rc = cm_tls_reload(tls, &err);

    say(what, rc, &err);
    return rc;
}

static void reload_callback(struct cm_secrets *s)
{
    if (reload_tls(s->callback_tls, "callback_tls") == 0 && s->changed)
        s->changed(s->arg);
}

void cm_secrets_reload(struct cm_secrets *s)
{
    reload_keys(s);
    if (s->tls)
        reload_tls(s->tls, "tls");
    if (s->callback_tls)
        reload_callback(s);
}

static void on_watch(void *arg)
{
    struct cm_secrets *s = arg;

    if (cm_access_changed(s->access))
        reload_keys(s);
    if (s->tls && cm_tls_changed(s->tls))
        reload_tls(s->tls, "tls");
    if (s->callback_tls && cm_tls_changed(s->callback_tls))
        reload_callback(s);
}

/* Keys stand in our environment and memory: other processes of the same user may look at neither, and no core file is
 * written. */
static void keep_from_neighbours(const struct cm_secrets *s)
{
    if (cm_access_on(s->access) || s->tls || s->callback_tls)
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

int cm_secrets_open(struct cm_loop *loop, const struct cm_secrets_config *config, struct cm_metrics *metrics,
                    struct cm_secrets *ret, struct cm_err *err)
{
    uint64_t interval_ms = (uint64_t)(config->interval_s * 1e3);
    int rc;

    ret->config = *config;
    if ((rc = cm_access_open(&config->access, metrics, &ret->access, err)) < 0 || (rc = check_exposure(ret, err)) < 0 ||
        (rc = open_tls(config, &ret->tls, err)) < 0 || (rc = open_callback_tls(config, &ret->callback_tls, err)) < 0)
        return rc;
    check_callback(ret);
    keep_from_neighbours(ret);
    ret->watch = cm_timer_open(loop, on_watch, ret, err);
    if (!ret->watch)
        return CM_ERR_NO_MEMORY;
    cm_timer_start(ret->watch, interval_ms, interval_ms);
    return 0;
}

void cm_secrets_close(struct cm_secrets *s)
{
    s->watch = cm_timer_close(s->watch);
    s->callback_tls = cm_tls_unref(s->callback_tls);
    s->tls = cm_tls_unref(s->tls);
    s->access = cm_access_free(s->access);
}
