/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_BASE_URL_H
#define CM_BASE_URL_H

#include <stddef.h>

#define CM_URL_SHOWN_MAX 1024

/* What of a URL may be seen: not who it logs in as, with what password, nor its query, where some services want their key. */
void cm_url_show(const char *url, char ret[static CM_URL_SHOWN_MAX]);

#endif
