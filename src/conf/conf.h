/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of the server: one checked struct, declared in tables/config.def. */
#ifndef CM_CONF_H
#define CM_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/limits.h"

#define CM_CONF_TEXT_MAX 1024

#define CM_PORTS_MAX 4

/* Different ones, at least one. */
struct cm_ports {
    unsigned count, at[CM_PORTS_MAX]; /* the rest is 0 */
};

#define CM_CONF_FIELD_TEXT(name)    char name[CM_CONF_TEXT_MAX]
#define CM_CONF_FIELD_SECRET(name)  char name[CM_CONF_TEXT_MAX] /* never printed or logged */
#define CM_CONF_FIELD_PATH(name)    char name[CM_CONF_TEXT_MAX]
#define CM_CONF_FIELD_UINT(name)    unsigned name
#define CM_CONF_FIELD_BYTES(name)   uint64_t name
#define CM_CONF_FIELD_SECONDS(name) double name
#define CM_CONF_FIELD_LEVEL(name)   unsigned name /* 0 DEBUG, 1 INFO, 2 WARNING, 3 ERROR */
#define CM_CONF_FIELD_BOOL(name)    bool name
#define CM_CONF_FIELD_PORTS(name)   struct cm_ports name

enum {
#define CM_CONFIG(field, type, env, flag, min, max, def, unit, help) CM_CONF_ROW_##field,
#include "config.def"
#undef CM_CONFIG
    CM_CONF_ROWS /* how many settings there are */
};

struct cm_conf {
#define CM_CONFIG(field, type, env, flag, min, max, def, unit, help) CM_CONF_FIELD_##type(field);
#include "config.def"
#undef CM_CONFIG
};

/* Defaults only. Fails when a default cannot be resolved, e.g. a path too long. */
int cm_conf_defaults(struct cm_conf *ret, struct cm_err *err);
/* Defaults, then the environment, then the flags: argv[0] to argv[argc - 1], each `--flag value` or
 * `--flag=value`. CM_ERR_CONFIG with the setting named; *ret is untouched then. */
int cm_conf_load(int argc, char *const *argv, struct cm_conf *ret, struct cm_err *err);
/* One paragraph per setting: flag, variable, default, range, meaning. */
void cm_conf_help(FILE *out);
/* What holds where nobody asks for a limit, and the most that one may ask for. */
void cm_conf_limits(const struct cm_conf *conf, struct cm_limits *ret_defaults, struct cm_limits *ret_caps);

#endif
