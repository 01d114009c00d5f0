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

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool cm_url_decode(const char *text, size_t len, char *ret, size_t max, size_t *ret_len)
{
    size_t i = 0, n = 0;

    while (i < len && n < max) {
        bool escape = text[i] == '%' && len - i > 2 && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0;
        ret[n++] = escape ? (char)(16 * hex(text[i + 1]) + hex(text[i + 2])) : text[i];
        i += escape ? 3 : 1;
    }
    *ret_len = n;
    return i == len;
}
