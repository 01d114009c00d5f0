/* SPDX-License-Identifier: Apache-2.0 */
#include "base/correlation.h"

#include <stdio.h>
#include <string.h>

#include "base/random.h"

int cm_correlations_init(struct cm_correlations *ids, struct cm_err *err)
{
    ids->count = 0;
    return cm_random_hex(ids->seed, sizeof ids->seed - 1, err);
}

static bool is_good(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] > '~' || text[i] == '"' || text[i] == '\'')
            return false;
    return len > 0 && len <= CM_CORRELATION_MAX;
}

bool cm_correlation_take(struct cm_correlations *ids, const char *given, size_t len,
                         char ret[static CM_CORRELATION_MAX + 1])
{
    bool good = given && is_good(given, len);

    if (good)
        snprintf(ret, CM_CORRELATION_MAX + 1, "%.*s", (int)len, given);
    else
        snprintf(ret, CM_CORRELATION_MAX + 1, "%s-%llx", ids->seed, (unsigned long long)++ids->count);
    return good;
}
