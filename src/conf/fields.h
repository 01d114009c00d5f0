/* SPDX-License-Identifier: Apache-2.0 */
/* What the members of a struct of settings are, and what such a struct knows of where they came from. */
#ifndef CM_CONF_FIELDS_H
#define CM_CONF_FIELDS_H

#include <stdbool.h>
#include <stdint.h>

#define CM_CONF_TEXT_MAX     1024
#define CM_CONF_ROWS_MAX     128 /* settings of one program */
#define CM_CONF_WARNINGS_MAX (4u << 10)
#define CM_CONF_NAMES_MAX    1024

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
#define CM_CONF_FIELD_NUMBER(name)  double name
#define CM_CONF_FIELD_LEVEL(name)   unsigned name /* 0 DEBUG, 1 INFO, 2 WARNING, 3 ERROR */
#define CM_CONF_FIELD_BOOL(name)    bool name
#define CM_CONF_FIELD_PORTS(name)   struct cm_ports name

enum cm_conf_from {
    CM_CONF_DEFAULT,
    CM_CONF_FILE_DEFAULT, /* of the kind of file that is in use */
    CM_CONF_FILE,
    CM_CONF_ENVIRONMENT,
    CM_CONF_FLAG
};
/* Where the value of a setting comes from. */
struct cm_conf_origin {
    enum cm_conf_from from;
    const char *name; /* of the key, the variable or the flag; static */
    unsigned line;    /* of the file, or 0 */
};

struct cm_conf_source {
    char file[CM_CONF_TEXT_MAX]; /* the configuration file in use, or "" */
    char warnings[CM_CONF_WARNINGS_MAX]; /* one per line, for the log */
    struct cm_conf_origin origins[CM_CONF_ROWS_MAX]; /* of the settings, in the table's order */
    int argc; /* what it was loaded with, to load it again; the caller's */
    char *const *argv;
};

#endif
