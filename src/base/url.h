/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_BASE_URL_H
#define CM_BASE_URL_H

#include <stdbool.h>
#include <stddef.h>

#define CM_URL_SHOWN_MAX 1024

/* What of a URL may be seen: not who it logs in as, with what password, nor its query, where some services want their key. */
void cm_url_show(const char *url, char ret[static CM_URL_SHOWN_MAX]);

/* Percent-encoding (RFC 3986, section 2.1): each %XX is a byte, what is no escape stands for itself. Up to `max` bytes without a NUL
 * at their end; false when there are more. */
bool cm_url_decode(const char *text, size_t len, char *ret, size_t max, size_t *ret_len);

#endif
