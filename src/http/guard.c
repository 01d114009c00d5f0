/* SPDX-License-Identifier: Apache-2.0 */
/* Who may ask, and how.
 *
 * A web page that somebody looks at can send requests to a port of that person's machine. It cannot choose its
 * Origin header, and without one it can only send what a form can; so a foreign Origin is refused, and so is a
 * body that does not say it is JSON. Other programs - curl, with a form's content type by default - need not say
 * it: they are known by sending none of the headers that a browser adds by itself. A name that points to the loopback address today and pointed elsewhere
 * before (DNS rebinding) makes such a page look local to the browser: the Host header still tells.
 *
 * A body whose length could be read in two ways lets a request hide inside another one when a proxy stands in
 * front: both ways of framing at once, or one of them twice, are refused.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "http/internal.h"
#include "wire/media.h"

static const struct {
    const char *name;
    size_t offset;
    bool once;
} known[] = {
    {"host", offsetof(struct headers, host), true},
    {"origin", offsetof(struct headers, origin), true},
    {"content-type", offsetof(struct headers, content_type), true},
    {"content-length", offsetof(struct headers, content_length), true},
    {"transfer-encoding", offsetof(struct headers, transfer_encoding), true},
    {"authorization", offsetof(struct headers, authorization), true},
    {"x-api-key", offsetof(struct headers, api_key), true},
    {"expect", offsetof(struct headers, expect), false},
    {"x-correlation-id", offsetof(struct headers, correlation), false},
    {"idempotency-key", offsetof(struct headers, idempotency_key), true},
    {"x-session-id", offsetof(struct headers, session), true},
};

/* A proxy in front may cut a text at a NUL, or a name at a blank, where we would not. */
static bool well_formed(const char *name, size_t name_len, const char *value, size_t value_len)
{
    return name_len > 0 && cm_token_len(name, name_len) == name_len &&
           (value_len == 0 || !memchr(value, '\0', value_len));
}

static bool is_of_a_page(const char *name)
{
    return strcasecmp(name, "origin") == 0 || strcasecmp(name, "referer") == 0 ||
           strncasecmp(name, "sec-fetch-", 10) == 0;
}

static enum MHD_Result note_header(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_len,
                                   const char *value, size_t value_len)
{
    struct headers *ret = cls;

    (void)kind;
    if (!well_formed(name, name_len, value, value_len))
        ret->malformed = true;
    if (is_of_a_page(name))
        ret->page = true;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcasecmp(known[i].name, name) != 0)
            continue;
        const char **slot = (const char **)((char *)ret + known[i].offset);
        if (*slot && known[i].once)
            ret->twice = known[i].name;
        else
            *slot = value ? value : "";
    }
    return MHD_YES;
}

void cm_http_headers(struct MHD_Connection *mhd, struct headers *ret)
{
    memset(ret, 0, sizeof(*ret));
    MHD_get_connection_values_n(mhd, MHD_HEADER_KIND, note_header, ret);
}

/* The host of "name", "name:port", "[v6]" or "[v6]:port"; false when it is none of them. */
static bool cut_port(const char *host, char ret[static 256])
{
    size_t len = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");

    if (len == 0 || len > 255 || len > strlen(host))
        return false;
    if (host[len] != '\0' && (host[len] != ':' || host[len + 1 + strspn(host + len + 1, "0123456789")] != '\0'))
        return false;
    memcpy(ret, host, len);
    ret[len] = '\0';
    return true;
}

static bool is_address(const char *name)
{
    struct in6_addr any;
    char inner[256];

    if (*name != '[')
        return inet_pton(AF_INET, name, &any) == 1;
    snprintf(inner, sizeof(inner), "%.*s", (int)strcspn(name + 1, "]"), name + 1);
    return inet_pton(AF_INET6, inner, &any) == 1;
}

static bool is_loopback(const char *name)
{
    size_t len = strlen(name);

    if (strcasecmp(name, "localhost") == 0 || strcmp(name, "[::1]") == 0)
        return true;
    if (len > 10 && strcasecmp(name + len - 10, ".localhost") == 0)
        return true;
    return strncmp(name, "127.", 4) == 0 && is_address(name);
}

bool cm_http_host_is_local(const char *host)
{
    char name[256];

    return cut_port(host, name) && (is_loopback(name) || is_address(name));
}

static bool in_list(const char *word, const char *list)
{
    size_t len = strlen(word);

    while (*list) {
        list += strspn(list, ", ");
        size_t item = strcspn(list, ", ");
        if (item == len && len > 0 && strncasecmp(word, list, len) == 0)
            return true;
        list += item;
    }
    return false;
}

bool cm_http_origin_allowed(const char *origin, const char *allowed)
{
    char name[256];
    const char *host = strstr(origin, "://");

    if (in_list(origin, allowed))
        return true;
    if (strncmp(origin, "http://", 7) != 0 && strncmp(origin, "https://", 8) != 0)
        return false;
    return cut_port(host + 3, name) && is_loopback(name);
}

/* A page that we have served ourselves. A name that somebody has made point here looks the same, so this is enough only where
 * a key is needed: that page has none. */
static bool is_own_page(const struct cm_http *h, const struct headers *hd)
{
    const char *host = strstr(hd->origin, "://");

    return host && hd->host && cm_access_on(h->config.access) && strcasecmp(host + 3, hd->host) == 0;
}

static int guard_framing(const struct headers *hd, struct cm_err *err)
{
    if (hd->malformed)
        return cm_err_set(err, CM_ERR_BAD_REQUEST, "a header is malformed");
    if (hd->twice)
        return cm_err_set(err, CM_ERR_BAD_REQUEST, "header %s appears twice", hd->twice);
    if (hd->transfer_encoding && hd->content_length)
        return cm_err_set(err, CM_ERR_BAD_REQUEST, "Content-Length and Transfer-Encoding exclude each other");
    if (hd->transfer_encoding && strcasecmp(hd->transfer_encoding, "chunked") != 0)
        return cm_err_set(err, CM_ERR_BAD_REQUEST, "Transfer-Encoding: only \"chunked\" is known");
    if (hd->expect && strcasecmp(hd->expect, "100-continue") != 0)
        return cm_err_set(err, CM_ERR_BAD_REQUEST, "Expect: only \"100-continue\" is known");
    return 0;
}

/* Also what a form may send: plain text, and curl's own idea of a body. */
static bool is_of_a_form(const struct cm_media *type)
{
    return cm_media_is(type, "text/plain") || cm_media_is(type, "application/x-www-form-urlencoded");
}

/* A body of JSON is read as JSON in UTF-8 whatever it says; what it says tells who sends it. */
static int guard_type(const struct headers *hd, struct cm_err *err)
{
    const char *type = hd->content_type;
    struct cm_media media;

    if (!type)
        return hd->page ? cm_err_set(err, CM_ERR_MEDIA_TYPE, "Content-Type is missing") : 0;
    if (cm_media_read(type, strlen(type), &media) && (cm_media_is_json(&media) || (!hd->page && is_of_a_form(&media))))
        return 0;
    return cm_err_set(err, CM_ERR_MEDIA_TYPE, "Content-Type: \"%.100s\" is not application/json", type);
}

int cm_http_upload_kind(const char *type)
{
    struct cm_media media;

    if (!type || !cm_media_read(type, strlen(type), &media))
        return -1;
    if (cm_media_is(&media, "text/plain"))
        return cm_media_is_utf8(&media) ? CM_UPLOAD_TEXT : -1;
    if (cm_media_is_json(&media))
        return CM_UPLOAD_JSON;
    return cm_media_is(&media, "application/octet-stream") ? CM_UPLOAD_BYTES : -1;
}

/* A file says what it is. A page of an allowed origin may send one; without its origin a page could have sent plain text
 * from a form, anybody's. */
static int guard_file_type(const struct headers *hd, struct cm_err *err)
{
    int kind = cm_http_upload_kind(hd->content_type);

    if (kind >= 0 && (kind != CM_UPLOAD_TEXT || !hd->page || hd->origin))
        return 0;
    return cm_err_set(
        err, CM_ERR_MEDIA_TYPE,
        "Content-Type: \"%.100s\" is not text/plain in UTF-8, application/json or application/octet-stream",
        hd->content_type ? hd->content_type : "");
}

static bool has_body(const struct headers *hd)
{
    return hd->transfer_encoding || (hd->content_length && strcmp(hd->content_length, "0") != 0);
}

int cm_http_guard(const struct cm_http *h, const struct cm_http_route *route, const struct headers *hd,
                  struct cm_err *err)
{
    const char *origins = h->limits->allowed_origins ? h->limits->allowed_origins : "";
    int rc = guard_framing(hd, err);

    if (rc < 0)
        return rc;
    if (hd->origin && !cm_http_origin_allowed(hd->origin, origins) && !is_own_page(h, hd))
        return cm_err_set(err, CM_ERR_FORBIDDEN, "origin \"%.100s\" may not call", hd->origin);
    if (h->config.loopback && hd->host && !cm_http_host_is_local(hd->host))
        return cm_err_set(err, CM_ERR_FORBIDDEN, "host \"%.100s\" is not a name of this machine", hd->host);
    if (route && route->body == CM_BODY_FILE)
        return guard_file_type(hd, err);
    return route && route->body != CM_BODY_NONE && has_body(hd) ? guard_type(hd, err) : 0;
}
