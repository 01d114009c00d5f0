/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "http/internal.h"

/* What is too long for any name of ours becomes the empty text, which names nothing. */
static void copy(char to[static VARIABLE_MAX], const char *text, size_t len)
{
    if (len >= VARIABLE_MAX)
        len = 0;
    memcpy(to, text, len);
    to[len] = '\0';
}

static bool match(const char *pattern, const char *path, char variables[static VARIABLES][VARIABLE_MAX])
{
    unsigned count = 0;

    while (*pattern) {
        if (*pattern == '{') {
            size_t len = strcspn(path, "/");
            if (len == 0 || count == VARIABLES)
                return false;
            copy(variables[count++], path, len);
            path += len;
            pattern = strchr(pattern, '}') + 1;
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    return *path == '\0';
}

static bool same_method(const char *wanted, const char *method)
{
    return strcmp(wanted, method) == 0 || (strcmp(wanted, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static void add_method(char allow[static 64], const char *method)
{
    size_t used = strlen(allow);

    snprintf(allow + used, 64 - used, "%s%s%s", used ? ", " : "", method, strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

int cm_http_route(const struct cm_http_route *routes, const char *method, const char *path,
                  const struct cm_http_route **ret, char variables[static VARIABLES][VARIABLE_MAX],
                  char allow[static 64], struct cm_err *err)
{
    allow[0] = '\0';
    for (const struct cm_http_route *r = routes; r->method; r++) {
        memset(variables, 0, sizeof(char[VARIABLES][VARIABLE_MAX]));
        if (!match(r->path, path, variables))
            continue;
        if (same_method(r->method, method)) {
            *ret = r;
            return 0;
        }
        add_method(allow, r->method);
    }
    if (!allow[0])
        return cm_err_set(err, CM_ERR_NOT_FOUND, "there is no such path");
    return cm_err_set(err, CM_ERR_METHOD, "this path answers to %s", allow);
}
