/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/substitute.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

#define NAME_MAX_LEN 200

static const char name_letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";

/* What stands between the braces: NAME, or NAME:-default. */
static int put_variable(const char *at, size_t len, struct cm_buf *to, struct cm_err *err)
{
    size_t n = strspn(at, name_letters);
    bool has_default = n + 1 < len && at[n] == ':' && at[n + 1] == '-';
    char name[NAME_MAX_LEN + 1];

    if (n == 0 || n > NAME_MAX_LEN || (at[0] >= '0' && at[0] <= '9') || (n < len && !has_default))
        return cm_err_set(err, CM_ERR_CONFIG, "\"${%.*s}\" is neither ${NAME} nor ${NAME:-default}",
                          (int)(len < 60 ? len : 60), at);
    memcpy(name, at, n);
    name[n] = '\0';
    const char *value = getenv(name);
    if (has_default && (!value || !*value))
        return cm_buf_append(to, at + n + 2, len - n - 2);
    if (!value)
        return cm_err_set(err, CM_ERR_CONFIG, "the variable %s is not set; ${%s:-...} would give it a default", name,
                          name);
    return cm_buf_puts(to, value);
}

static int put_reference(const char **at, struct cm_buf *to, struct cm_err *err)
{
    const char *inner = *at + 2, *end = strchr(inner, '}'), *nested = strstr(inner, "${");

    if (!end)
        return cm_err_set(err, CM_ERR_CONFIG, "\"${\" without its \"}\"; write $${ for the characters themselves");
    if (nested && nested < end)
        return cm_err_set(err, CM_ERR_CONFIG, "a variable inside another one's default is not supported");
    *at = end + 1;
    return put_variable(inner, (size_t)(end - inner), to, err);
}

int cm_substitute(const char *text, struct cm_buf *to, struct cm_err *err)
{
    int rc = 0;

    while (*text && rc == 0) {
        size_t plain = strcspn(text, "$");
        if (plain > 0) {
            rc = cm_buf_append(to, text, plain);
            text += plain;
        } else if (text[1] == '{') {
            rc = put_reference(&text, to, err);
        } else {
            rc = cm_buf_append(to, "$", 1);
            text += text[1] == '$' ? 2 : 1;
        }
    }
    if (rc < 0 && rc != CM_ERR_CONFIG)
        return cm_err_set(err, rc, "the value with its variables is too long");
    return rc;
}
