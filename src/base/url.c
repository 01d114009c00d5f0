/* SPDX-License-Identifier: Apache-2.0 */
#include "base/url.h"

#include <stdio.h>
#include <string.h>

void cm_url_show(const char *url, char ret[static CM_URL_SHOWN_MAX])
{
    const char *scheme = strstr(url, "://"), *host = scheme ? scheme + 3 : url;
    size_t lead = (size_t)(host - url), authority = strcspn(host, "/?#");

    for (size_t i = authority; i > 0; i--) /* the last one: a password may hold another */
        if (host[i - 1] == '@') {
            host += i;
            break;
        }
    snprintf(ret, CM_URL_SHOWN_MAX, "%.*s%.*s", (int)lead, url, (int)strcspn(host, "?#"), host);
}
