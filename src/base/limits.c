/* SPDX-License-Identifier: Apache-2.0 */
#include "base/limits.h"

#include <string.h>

static const struct cm_limit_info table[CM_LIMITS] = {
#define CM_LIMIT(id, name, unit, scope, def, def_key, cap, cap_key, min, help)                                         \
    {name, def_key, cap_key, help, CM_LIMIT_##unit, CM_LIMIT_OF_##scope, min},
#include "limits.def"
#undef CM_LIMIT
};

const struct cm_limit_info *cm_limit_info(enum cm_limit limit)
{
    return &table[limit];
}

int cm_limit_find(const char *name, size_t len)
{
    for (int i = 0; i < CM_LIMITS; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
            return i;
    return -1;
}

const char *cm_limit_unit_text(enum cm_limit limit)
{
    static const char *const texts[] = {" seconds", " bytes", ""};

    return texts[table[limit].unit];
}

void cm_limits_merge(struct cm_limits *to, const struct cm_limits_asked *asked)
{
    for (int i = 0; asked && i < CM_LIMITS; i++)
        if (asked->named & 1u << i)
            to->at[i] = asked->value.at[i];
}

void cm_limits_cap(struct cm_limits *to, const struct cm_limits *caps)
{
    for (int i = 0; caps && i < CM_LIMITS; i++)
        if (to->at[i] > caps->at[i])
            to->at[i] = caps->at[i];
}
