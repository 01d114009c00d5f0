/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "front/http/internal.h"

static const struct route routes[] = {
#define CM_ROUTE(method, path, handler, body, key) {method, path, cm_http_##handler, BODY_##body, KEY_##key},
#include "routes.def"
#undef CM_ROUTE
};

#define ROUTES (sizeof(routes) / sizeof(routes[0]))

/* An id that is too long is nobody's; it becomes the empty one, which is nobody's either. */
static void copy_id(char id[static CM_SESSION_ID_MAX], const char *text, size_t len)
{
    if (len >= CM_SESSION_ID_MAX)
        len = 0;
    memcpy(id, text, len);
    id[len] = '\0';
}

static bool match(const char *pattern, const char *path, struct ids *ids)
{
    while (*pattern) {
        if (*pattern == '{') {
            size_t len = strcspn(path, "/");
            if (len == 0)
                return false;
            copy_id(pattern[1] == 'i' ? ids->session : ids->execution, path, len);
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

int cm_http_route(const char *method, const char *path, const struct route **ret, struct ids *ids,
                  char allow[static 64], struct cm_err *err)
{
    allow[0] = '\0';
    *ids = (struct ids){.session = ""};
    for (size_t i = 0; i < ROUTES; i++) {
        if (!match(routes[i].path, path, ids))
            continue;
        if (same_method(routes[i].method, method)) {
            *ret = &routes[i];
            return 0;
        }
        add_method(allow, routes[i].method);
    }
    if (!allow[0])
        return cm_err_set(err, CM_ERR_NOT_FOUND, "there is no such path");
    return cm_err_set(err, CM_ERR_METHOD, "this path answers to %s", allow);
}
