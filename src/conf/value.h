/* SPDX-License-Identifier: Apache-2.0 */
/* Texts to values. Each returns false, with *ret untouched, unless the whole text is a value. */
#ifndef CM_CONF_VALUE_H
#define CM_CONF_VALUE_H

#include <stdbool.h>

bool cm_conf_parse_uint(const char *text, double *ret);    /* decimal digits */
bool cm_conf_parse_bytes(const char *text, double *ret);   /* digits and k, M, G, Ki, Mi or Gi; bytes */
bool cm_conf_parse_seconds(const char *text, double *ret); /* a decimal number and ms, s, m or h; seconds */
bool cm_conf_parse_number(const char *text, double *ret);  /* a decimal number */
bool cm_conf_parse_level(const char *text, double *ret);   /* 0 DEBUG, 1 INFO, 2 WARNING (or WARN), 3 ERROR */
bool cm_conf_parse_bool(const char *text, bool *ret);      /* true, yes, on, 1; false, no, off, 0; in any case */

#endif
