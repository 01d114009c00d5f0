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
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 32) : NULL;

    return at && (c >= 'A' || c <= '9') ? (int)(at - digits) : -1;
}

bool cm_url_decode(const char *text, char *ret, size_t max, size_t *ret_len)
{
    size_t n = 0;

    for (; *text && n < max; n++) {
        int high = *text == '%' ? hex(text[1]) : -1, low = high < 0 ? -1 : hex(text[2]);
        ret[n] = low < 0 ? *text : (char)(16 * high + low);
        text += low < 0 ? 1 : 3;
    }
    *ret_len = n;
    return *text == '\0';
}
