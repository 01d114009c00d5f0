/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib.h"

#define DEFAULT_TARGET "localhost:8001"
#define DEFAULT_PORT   "8001"
#define KEY_MAX        4096

static const char *variable(const char *const *names)
{
    for (; *names; names++) {
        const char *value = getenv(*names);
        if (value && *value)
            return value;
    }
    return NULL;
}

/* A port stands behind the last colon, which is none of an IPv6 address in brackets. */
static bool has_port(const char *text, size_t len)
{
    const char *colon = memrchr(text, ':', len), *bracket = memrchr(text, ']', len);

    return colon && (!bracket || colon > bracket);
}

char *lib_target(const char *given, bool *ret_tls, struct codemode_error *err)
{
    static const char *const names[] = {"CODEMODE_EXECUTOR_URL", NULL};
    const char *text = given ? given : variable(names);
    char *target = NULL;

    text = text ? text : DEFAULT_TARGET;
    bool https = strncmp(text, "https://", 8) == 0, http = strncmp(text, "http://", 7) == 0;
    text += https ? 8 : http ? 7 : 0;
    size_t len = strcspn(text, "/");
    if (len == 0 || len > 255 || text[len + strspn(text + len, "/")] != '\0') {
        lib_error(err, CODEMODE_INVALID_ARGUMENT, "target: \"%.100s\" is no host:port", text);
        return NULL;
    }
    if (asprintf(&target, "%.*s%s", (int)len, text, has_port(text, len) ? "" : ":" DEFAULT_PORT) < 0) {
        lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for a target");
        return NULL;
    }
    *ret_tls = https;
    return target;
}

int lib_bearer(const char *given, const char *const *variables, char **ret, struct codemode_error *err)
{
    const char *key = given ? given : variable(variables);

    *ret = NULL;
    if (!key || !*key)
        return 0;
    for (const char *at = key; *at; at++)
        if (*at <= ' ' || *at > '~')
            return lib_error(err, CODEMODE_INVALID_ARGUMENT, "api_key: may hold printable ASCII only");
    if (strlen(key) > KEY_MAX)
        return lib_error(err, CODEMODE_INVALID_ARGUMENT, "api_key: is longer than %d bytes", KEY_MAX);
    if (asprintf(ret, "Bearer %s", key) < 0) {
        *ret = NULL;
        return lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for a key");
    }
    return 0;
}
