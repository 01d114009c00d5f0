/* SPDX-License-Identifier: Apache-2.0 */
#include "access/access.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "access/parse.h"
#include "base/buf.h"
#include "net/files.h"
#include "obs/log.h"
#include "obs/metrics.h"

#define FILE_MAX      (1024 * 1024)
#define PATH_MAX_HERE 1024

/* One who has keys; all that there ever were stay, for requests and sessions point at them. */
struct holder {
    struct cm_key key;
    uint64_t requests;
    struct holder *next;
};

/* What is compared. */
struct entry {
    uint8_t digest[DIGEST];
    struct holder *holder;
};

struct cm_access {
    struct cm_metrics *metrics;
    char key_name[32], key_file_name[32], keys_file_name[32]; /* of the settings */
    char key_file[PATH_MAX_HERE], keys_file[PATH_MAX_HERE];
    uint8_t blind[DIGEST]; /* random; entries are HMACs under it: memory that leaks gives nothing to try keys against */
    struct secrets fixed; /* of the setting, which a reload without a configuration keeps */
    struct cm_file_mark key_mark, keys_mark;
    struct entry *entries;
    size_t count;
    bool shared; /* they have more than one name */
    struct holder *holders;
};

/* Reading */

static int read_file(const char *name, const char *path, struct cm_file_mark *mark, struct secrets *to,
                     int (*read)(struct secrets *s, const char *where, char *text, struct cm_err *err),
                     struct cm_err *err)
{
    char *text, where[320];
    size_t len;

    *mark = cm_file_mark(path);
    if (!*path)
        return 0;
    int rc = cm_file_read(name, path, FILE_MAX, &text, &len, mark, err);
    if (rc < 0)
        return rc;
    if (cm_file_is_public(path))
        cm_log(CM_LOG_WARNING, "key_file_readable_by_all", CM_LOG_STR("setting", name), CM_LOG_STR("path", path));
    snprintf(where, sizeof(where), "%s: \"%.200s\"", name, path);
    size_t before = to->count;
    rc = strlen(text) != len ? cm_err_set(err, CM_ERR_CONFIG, "%s: holds a zero byte", where)
                             : read(to, where, text, err);
    if (rc == 0 && to->count == before)
        rc = cm_err_set(err, CM_ERR_CONFIG, "%s: holds no key", where);
    cm_file_wipe(text, len);
    return rc;
}

static void warn_of_brief(const struct secrets *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->list[i].brief)
            cm_log(CM_LOG_WARNING, "key_is_short", CM_LOG_STR("key", s->list[i].name),
                   CM_LOG_STR("advice", "use at least 16 random characters"));
}

static int copy_secrets(struct secrets *to, const struct secrets *from, struct cm_err *err)
{
    if (from->count == 0)
        return 0;
    to->list = calloc(from->count, sizeof(*to->list));
    if (!to->list)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for keys");
    memcpy(to->list, from->list, from->count * sizeof(*to->list));
    to->count = from->count;
    return 0;
}

/* Limits of a name that its lines share. */
static int spread_limits(struct secrets *s, struct cm_err *err)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct secret *said = &s->list[i];
        for (size_t k = 0; said->with_limits && k < s->count; k++) {
            struct secret *other = &s->list[k];
            if (k == i || strcmp(other->name, said->name) != 0)
                continue;
            if (other->with_limits && k > i)
                return cm_err_set(err, CM_ERR_CONFIG, "keys: \"%s\" has limits in more than one line", said->name);
            other->caps = said->caps;
            other->max_sessions = said->max_sessions;
        }
    }
    return 0;
}

/* Installing */

static bool same_terms(const struct cm_key *key, const struct secret *s)
{
    if (strcmp(key->name, s->name) != 0 || key->caps.named != s->caps.named || key->max_sessions != s->max_sessions)
        return false;
    for (int i = 0; i < CM_LIMITS; i++)
        if (key->caps.value.at[i] != s->caps.value.at[i])
            return false;
    return true;
}

static struct holder *holder_of(struct cm_access *a, const struct secret *s)
{
    for (struct holder *h = a->holders; h; h = h->next)
        if (same_terms(&h->key, s))
            return h;
    struct holder *h = calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    memcpy(h->key.name, s->name, sizeof(h->key.name));
    h->key.caps = s->caps;
    h->key.max_sessions = s->max_sessions;
    h->next = a->holders;
    return a->holders = h;
}

static void blind(const struct cm_access *a, const uint8_t digest[static DIGEST], uint8_t ret[static DIGEST])
{
    gnutls_hmac_fast(GNUTLS_MAC_SHA256, a->blind, DIGEST, digest, DIGEST, ret);
}

static int install(struct cm_access *a, const struct secrets *s, struct cm_err *err)
{
    struct entry *entries = calloc(s->count + 1, sizeof(*entries));

    if (!entries)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for keys");
    for (size_t i = 0; i < s->count; i++) {
        blind(a, s->list[i].digest, entries[i].digest);
        entries[i].holder = holder_of(a, &s->list[i]);
        for (size_t k = 0; k < i; k++)
            if (memcmp(entries[k].digest, entries[i].digest, DIGEST) == 0 && entries[k].holder != entries[i].holder) {
                free(entries);
                return cm_err_set(err, CM_ERR_CONFIG, "keys: \"%s\" and \"%s\" have the same key", s->list[k].name,
                                  s->list[i].name);
            }
        if (!entries[i].holder) {
            free(entries);
            return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for keys");
        }
    }
    free(a->entries);
    a->entries = entries;
    a->count = s->count;
    a->shared = false;
    for (size_t i = 1; i < s->count; i++)
        a->shared |= strcmp(s->list[i].name, s->list[0].name) != 0;
    return 0;
}

static int load(struct cm_access *a, const char *key_file, const char *keys_file, const struct secrets *fixed,
                struct cm_err *err)
{
    struct secrets all = {0};
    int rc = copy_secrets(&all, fixed, err);

    if (rc == 0)
        rc = read_file(a->key_file_name, key_file, &a->key_mark, &all, cm_secrets_read_plain, err);
    if (rc == 0)
        rc = read_file(a->keys_file_name, keys_file, &a->keys_mark, &all, cm_secrets_read_named, err);
    if (rc == 0)
        rc = spread_limits(&all, err);
    if (rc == 0 && all.count == 0 && a->count > 0)
        rc = cm_err_set(err, CM_ERR_CONFIG, "no key would be left");
    if (rc == 0)
        rc = install(a, &all, err);
    if (rc == 0)
        warn_of_brief(&all);
    cm_secrets_done(&all);
    return rc;
}

static int load_config(struct cm_access *a, const struct cm_access_config *config, struct cm_err *err)
{
    const char *key_file = config->key_file ? config->key_file : "";
    const char *keys_file = config->keys_file ? config->keys_file : "";
    struct secrets fixed = {0};
    int rc = 0;

    if (strlen(key_file) >= PATH_MAX_HERE || strlen(keys_file) >= PATH_MAX_HERE)
        return cm_err_set(err, CM_ERR_CONFIG, "%s or %s: the path is too long", a->key_file_name, a->keys_file_name);
    if (config->key && *config->key)
        rc = cm_secrets_add(&fixed, a->key_name, config->key, err);
    if (rc == 0)
        rc = load(a, key_file, keys_file, &fixed, err);
    if (rc < 0) {
        cm_secrets_done(&fixed);
        return rc;
    }
    cm_secrets_done(&a->fixed);
    a->fixed = fixed;
    memmove(a->key_file, key_file, strlen(key_file) + 1);
    memmove(a->keys_file, keys_file, strlen(keys_file) + 1);
    return 0;
}

int cm_access_open(const struct cm_access_config *config, struct cm_metrics *metrics, struct cm_access **ret,
                   struct cm_err *err)
{
    struct cm_access *a = calloc(1, sizeof(*a));

    if (!a)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for keys");
    a->metrics = metrics;
    const char *prefix = config->prefix ? config->prefix : "CODEMODE";
    snprintf(a->key_name, sizeof(a->key_name), "%s_API_KEY", prefix);
    snprintf(a->key_file_name, sizeof(a->key_file_name), "%s_API_KEY_FILE", prefix);
    snprintf(a->keys_file_name, sizeof(a->keys_file_name), "%s_KEYS_FILE", prefix);
    int rc = gnutls_rnd(GNUTLS_RND_KEY, a->blind, DIGEST) < 0
                 ? cm_err_set(err, CM_ERR_SYSTEM, "keys: no random numbers")
                 : load_config(a, config, err);
    if (rc < 0) {
        cm_access_free(a);
        return rc;
    }
    *ret = a;
    return 0;
}

struct cm_access *cm_access_free(struct cm_access *a)
{
    if (!a)
        return NULL;
    while (a->holders) {
        struct holder *h = a->holders;
        a->holders = h->next;
        free(h);
    }
    cm_secrets_done(&a->fixed);
    free(a->entries);
    explicit_bzero(a, sizeof(*a));
    free(a);
    return NULL;
}

int cm_access_reload(struct cm_access *a, const struct cm_access_config *config, struct cm_err *err)
{
    a->key_mark = cm_file_mark(a->key_file);
    a->keys_mark = cm_file_mark(a->keys_file);
    return config ? load_config(a, config, err) : load(a, a->key_file, a->keys_file, &a->fixed, err);
}

bool cm_access_changed(const struct cm_access *a)
{
    struct cm_file_mark key = cm_file_mark(a->key_file), keys = cm_file_mark(a->keys_file);

    return !cm_file_mark_same(&key, &a->key_mark) || !cm_file_mark_same(&keys, &a->keys_mark);
}

/* Checking */

bool cm_access_shared(const struct cm_access *a)
{
    return a && a->shared;
}

bool cm_access_on(const struct cm_access *a)
{
    return a && a->count > 0;
}

/* "" when there is no key in it; that is nobody's. */
static const char *presented(const char *authorization, const char *x_api_key)
{
    if (!authorization)
        return x_api_key ? x_api_key : "";
    if (strncasecmp(authorization, "Bearer ", 7) != 0)
        return "";
    return authorization + 7 + strspn(authorization + 7, " ");
}

/* All of it is looked at, whatever comes first: a difference of time would tell how much of a guess is right. */
static bool same_digest(const uint8_t *a, const uint8_t *b)
{
    uint8_t difference = 0;

    for (size_t i = 0; i < DIGEST; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

int cm_access_check(struct cm_access *a, const char *authorization, const char *x_api_key, const struct cm_key **ret,
                    struct cm_err *err)
{
    const char *key = presented(authorization, x_api_key);
    uint8_t digest[DIGEST], own[DIGEST];
    struct holder *found = NULL;

    if (!cm_access_on(a)) {
        *ret = NULL;
        return 0;
    }
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, key, strlen(key), digest) < 0)
        return cm_err_set(err, CM_ERR_SYSTEM, "the key cannot be hashed");
    blind(a, digest, own);
    for (size_t i = 0; i < a->count; i++)
        found = same_digest(a->entries[i].digest, own) ? a->entries[i].holder : found;
    if (!found) {
        cm_metrics_add(a->metrics, CM_M_AUTH_FAILURES, 0, 1);
        return cm_err_set(err, CM_ERR_NO_KEY, "this needs a key that the server knows");
    }
    found->requests++;
    *ret = &found->key;
    return 0;
}

/* A name may stand for several holders, before and after a change of its limits; the newest speaks for all. */
static bool newest_of_name(const struct cm_access *a, const struct holder *h)
{
    const struct holder *o = a->holders;

    while (o != h && strcmp(o->key.name, h->key.name) != 0)
        o = o->next;
    return o == h;
}

int cm_access_render(const struct cm_access *a, struct cm_buf *to)
{
    if (!cm_access_on(a))
        return 0;
    int rc =
        cm_buf_puts(to, "# HELP codemode_key_requests_total Requests and calls that were let in, by name of the key\n"
                        "# TYPE codemode_key_requests_total counter\n");
    for (const struct holder *h = a->holders; h && rc == 0; h = h->next) {
        uint64_t sum = 0;
        for (const struct holder *o = h; o; o = o->next)
            sum += strcmp(o->key.name, h->key.name) == 0 ? o->requests : 0;
        if (newest_of_name(a, h))
            rc = cm_buf_printf(to, "codemode_key_requests_total{key=\"%s\"} %llu\n", h->key.name,
                               (unsigned long long)sum);
    }
    return rc;
}

/* Keys */

const char *cm_key_name(const struct cm_key *key)
{
    return key ? key->name : "";
}

void cm_key_caps(const struct cm_key *key, const struct cm_limits *server, struct cm_limits *ret)
{
    *ret = *server;
    for (int i = 0; key && i < CM_LIMITS; i++)
        if (key->caps.named & 1u << i && key->caps.value.at[i] < ret->at[i])
            ret->at[i] = key->caps.value.at[i];
}
