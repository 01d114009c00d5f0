/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/rlm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>

#include "base/cleanup.h"
#include "conf/files.h"
#include "conf/schema.h"

enum {
#define CM_CONFIG(field, type, env, flag, min, max, def, unit, help) ROW_##field,
#include "rlm_config.def"
#undef CM_CONFIG
    ROWS
};
static_assert((int)ROWS <= CM_CONF_ROWS_MAX, "room for the origins of all settings");

static const struct cm_row rows[ROWS] = {
#define CM_CONFIG(field, type, env, flag, min, max, def, unit, help)                                                   \
    {#field, env, flag, CM_ROW_##type, offsetof(struct cm_rlm_conf, field), min, max, def, unit, help},
#include "rlm_config.def"
#undef CM_CONFIG
};

#define CM_CONFIG_RELOAD(field)
#define CM_CONFIG_ALIAS(env, field) {env, ROW_##field},
static const struct cm_alias aliases[] = {
#include "rlm_config_names.def"
};
#undef CM_CONFIG_ALIAS
#undef CM_CONFIG_RELOAD
#define CM_CONFIG_ALIAS(env, field)
#define CM_CONFIG_RELOAD(field) [ROW_##field] = true,
static const bool reloads[ROWS] = {
#include "rlm_config_names.def"
};
#undef CM_CONFIG_ALIAS
#undef CM_CONFIG_RELOAD

/* The key is what stands in the file without blanks around it. Opening must not block: somebody may name a pipe. */
static int read_key(const char *setting, const char *path, char ret[static CM_CONF_TEXT_MAX], struct cm_err *err)
{
    cm_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char text[CM_CONF_TEXT_MAX];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

    if (n < 0)
        return cm_err_set(err, CM_ERR_CONFIG, "%s: %.200s: %s", setting, path, strerror(errno));
    text[n] = '\0';
    char *first = text + strspn(text, " \t\r\n");
    size_t len = strcspn(first, " \t\r\n");
    if (len == 0 || first[len + strspn(first + len, " \t\r\n")])
        return cm_err_set(err, CM_ERR_CONFIG, "%s: %.200s: must hold one key and nothing else", setting, path);
    first[len] = '\0';
    memset(ret, 0, CM_CONF_TEXT_MAX);
    memcpy(ret, first, len);
    return 0;
}

static int read_keys(void *conf, struct cm_err *err)
{
    struct cm_rlm_conf *c = conf;
    int rc = 0;

    if (*c->llm_api_key_file && !*c->llm_api_key)
        rc = read_key("LLM_API_KEY_FILE", c->llm_api_key_file, c->llm_api_key, err);
    if (rc == 0 && *c->sidecar_api_key_file && !*c->sidecar_api_key)
        rc = read_key("CODEMODE_API_KEY_FILE", c->sidecar_api_key_file, c->sidecar_api_key, err);
    return rc;
}

static int check_url(const char *setting, const char *url, struct cm_err *err)
{
    size_t scheme = strncmp(url, "http://", 7) == 0 ? 7 : strncmp(url, "https://", 8) == 0 ? 8 : 0;

    if (!*url || (scheme > 0 && url[scheme] && url[scheme] != '/' && !strpbrk(url, " \t\r\n")))
        return 0;
    return cm_err_set(err, CM_ERR_CONFIG, "%s: must be a URL such as http://localhost:8080", setting);
}

static int check_caps(const struct cm_rlm_conf *c, struct cm_err *err)
{
#define CM_RLM_LIMIT(id, name, member, min, max, whole, above, def, def_key, cap, cap_key)                             \
    if (c->cap != 0 && c->def > c->cap)                                                                                \
        return cm_err_set(err, CM_ERR_CONFIG, "%s: %.12g is above %s, which is %.12g", def_key, (double)c->def,        \
                          cap_key, (double)c->cap);
#include "rlm_limits.def"
#undef CM_RLM_LIMIT
    return 0;
}

static int check(const void *conf, struct cm_err *err)
{
    const struct cm_rlm_conf *c = conf;
    int rc;

    if (strcmp(c->llm_api, "auto") != 0 && strcmp(c->llm_api, "openai") != 0 && strcmp(c->llm_api, "anthropic") != 0)
        return cm_err_set(err, CM_ERR_CONFIG, "LLM_API: \"%.20s\" is not one of openai, anthropic, auto", c->llm_api);
    if ((rc = check_caps(c, err)) < 0 || (rc = check_url("LLM_BASE_URL", c->llm_base_url, err)) < 0 ||
        (rc = check_url("LLM_RECURSIVE_BASE_URL", c->llm_recursive_base_url, err)) < 0)
        return rc;
    return check_url("WASM_MANAGER_SERVICE_URL", c->wasm_manager_service_url, err);
}

const struct cm_schema cm_rlm_schema = {
    .rows = rows,
    .count = ROWS,
    .size = sizeof(struct cm_rlm_conf),
    .source = offsetof(struct cm_rlm_conf, source),
    .aliases = aliases,
    .aliases_count = CM_COUNT_OF(aliases),
    .reloads = reloads,
    .file_variable = "RLM_CONFIG",
    .files = {"rlm.yaml", NULL},
    .file_kind = CM_FILE_RLM,
    .of = "the RLM service",
    .check = check,
    .finish = read_keys,
};

int cm_rlm_conf_load(int argc, char *const *argv, struct cm_rlm_conf *ret, struct cm_err *err)
{
    return cm_schema_load(&cm_rlm_schema, argc, argv, ret, err);
}

int cm_rlm_conf_reload(struct cm_rlm_conf *conf, char *ret_changed, char *ret_kept, struct cm_err *err)
{
    return cm_schema_reload(&cm_rlm_schema, conf, ret_changed, ret_kept, err);
}

void cm_rlm_conf_show(const struct cm_rlm_conf *conf, FILE *out)
{
    cm_schema_show(&cm_rlm_schema, conf, out);
}

void cm_rlm_conf_help(FILE *out)
{
    cm_schema_help(&cm_rlm_schema, out);
}
