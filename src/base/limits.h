/* SPDX-License-Identifier: Apache-2.0 */
/* The limits of tables/limits.def as values: one number for each, so that asking, checking, showing and merging are
 * loops over the table. */
#ifndef CM_BASE_LIMITS_H
#define CM_BASE_LIMITS_H

#include <stddef.h>

enum cm_limit {
#define CM_LIMIT(id, name, unit, scope, def, def_key, cap, cap_key, min, help) CM_LIMIT_##id,
#include "limits.def"
#undef CM_LIMIT
    CM_LIMITS /* how many there are */
};

enum cm_limit_unit { CM_LIMIT_SECONDS, CM_LIMIT_BYTES, CM_LIMIT_COUNT };
enum cm_limit_scope { CM_LIMIT_OF_EXECUTION, CM_LIMIT_OF_SESSION, CM_LIMIT_OF_SERVER };

/* Seconds, bytes or counts; none is above 2^53, so each is exact. */
struct cm_limits {
    double at[CM_LIMITS];
};

/* What a request asks for: bit 1 << i of `named` says that value.at[i] counts. */
struct cm_limits_asked {
    unsigned named;
    struct cm_limits value;
};

struct cm_limit_info {
    const char *name, *def_key, *cap_key, *help;
    enum cm_limit_unit unit;
    enum cm_limit_scope scope;
    double min;
};
const struct cm_limit_info *cm_limit_info(enum cm_limit limit);
/* The limit of that name, which need not end with a NUL; -1 when there is none. */
int cm_limit_find(const char *name, size_t len);
/* " bytes", " seconds" or nothing, to stand behind a value. */
const char *cm_limit_unit_text(enum cm_limit limit);
/* Overwrites what is asked for; NULL asks for nothing. */
void cm_limits_merge(struct cm_limits *to, const struct cm_limits_asked *asked);
/* None above `caps`; NULL caps nothing. */
void cm_limits_cap(struct cm_limits *to, const struct cm_limits *caps);

#endif
