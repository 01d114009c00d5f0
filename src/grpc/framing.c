/* SPDX-License-Identifier: Apache-2.0 */
#include "grpc/framing.h"

#include <stdio.h>
#include <string.h>

#include "base/url.h"
#include "base/utf8.h"
#include "net/stream.h"

/* Messages */

void cm_grpc_reader_init(struct cm_grpc_reader *r, size_t max)
{
    *r = (struct cm_grpc_reader){0};
    cm_buf_init(&r->body, max);
}

void cm_grpc_reader_done(struct cm_grpc_reader *r)
{
    cm_buf_done(&r->body);
    r->prefix_len = 0;
    r->want = 0;
}

void cm_grpc_reader_next(struct cm_grpc_reader *r)
{
    cm_buf_clear(&r->body);
    r->prefix_len = 0;
    r->want = 0;
}

bool cm_grpc_reader_between(const struct cm_grpc_reader *r)
{
    return r->prefix_len == 0;
}

static enum cm_grpc_status read_prefix(struct cm_grpc_reader *r, char why[static CM_ERR_TEXT_MAX])
{
    const uint8_t *p = r->prefix;

    r->want = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    if (p[0] > 1) {
        snprintf(why, CM_ERR_TEXT_MAX, "message flags %u are unknown", p[0]);
        return CM_GRPC_INTERNAL;
    }
    if (p[0] == 1) {
        snprintf(why, CM_ERR_TEXT_MAX, "the message is compressed; only the encoding identity is taken");
        return CM_GRPC_INTERNAL;
    }
    if (r->want > r->body.max) {
        snprintf(why, CM_ERR_TEXT_MAX, "the message has %zu bytes, at most %zu are taken", r->want, r->body.max);
        return CM_GRPC_RESOURCE_EXHAUSTED;
    }
    return CM_GRPC_OK;
}

enum cm_grpc_status cm_grpc_reader_feed(struct cm_grpc_reader *r, const uint8_t **data, size_t *len, bool *ret_whole,
                                        char why[static CM_ERR_TEXT_MAX])
{
    *ret_whole = false;
    for (; r->prefix_len < CM_GRPC_PREFIX; ++*data, --*len) {
        if (*len == 0)
            return CM_GRPC_OK;
        r->prefix[r->prefix_len++] = **data;
        enum cm_grpc_status status = r->prefix_len == CM_GRPC_PREFIX ? read_prefix(r, why) : CM_GRPC_OK;
        if (status != CM_GRPC_OK)
            return status;
    }
    size_t more = r->want - r->body.len < *len ? r->want - r->body.len : *len;
    if (cm_buf_append(&r->body, *data, more) < 0) {
        snprintf(why, CM_ERR_TEXT_MAX, "no memory for a message of %zu bytes", r->want);
        return CM_GRPC_RESOURCE_EXHAUSTED;
    }
    *data += more;
    *len -= more;
    *ret_whole = r->body.len == r->want;
    return CM_GRPC_OK;
}

int cm_grpc_put_message(struct cm_buf *to, const void *message, size_t len)
{
    const uint8_t prefix[CM_GRPC_PREFIX] = {0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                                            (uint8_t)len};

    if (len > UINT32_MAX)
        return CM_ERR_TOO_LARGE;
    int rc = cm_buf_reserve(to, CM_GRPC_PREFIX + len, NULL);
    if (rc < 0)
        return rc;
    cm_buf_append(to, prefix, sizeof prefix);
    return cm_buf_append(to, message, len);
}

/* Texts */

static const struct {
    char name;
    uint64_t ns;
} units[] = {{'n', 1}, {'u', 1000}, {'m', 1000000}, {'S', 1000000000}, {'M', 60000000000ull}, {'H', 3600000000000ull}};

bool cm_grpc_timeout_parse(const char *text, uint64_t *ret_ns)
{
    uint64_t value = 0;
    unsigned digits = 0;

    for (; *text >= '0' && *text <= '9'; text++, digits++) {
        if (digits == 8)
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    for (size_t i = 0; digits > 0 && i < sizeof units / sizeof units[0]; i++)
        if (text[0] == units[i].name && text[1] == '\0') {
            *ret_ns = value > UINT64_MAX / 4 / units[i].ns ? UINT64_MAX / 4 : value * units[i].ns;
            return true;
        }
    return false;
}

void cm_grpc_timeout_format(uint64_t ns, char ret[static 16])
{
    size_t i = 0;
    uint64_t value = ns;

    while (value > 99999999 && i + 1 < sizeof units / sizeof units[0]) {
        i++;
        value = ns / units[i].ns + (ns % units[i].ns != 0);
    }
    snprintf(ret, 16, "%u%c", value > 99999999 ? 99999999u : (unsigned)value, units[i].name);
}

int cm_grpc_percent_encode(struct cm_buf *to, const char *text)
{
    size_t len = strnlen(text, CM_GRPC_TEXT_MAX);
    int rc = 0;

    if (len == CM_GRPC_TEXT_MAX)
        len -= cm_utf8_cut_end(text, len);
    for (size_t i = 0; i < len && rc == 0; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c <= 0x7E && c != '%')
            rc = cm_buf_append(to, &text[i], 1);
        else
            rc = cm_buf_printf(to, "%%%02X", c);
    }
    return rc;
}

int cm_grpc_percent_decode(struct cm_buf *to, const char *text, size_t len)
{
    char plain[CM_GRPC_TEXT_MAX];
    size_t n;

    cm_url_decode(text, len, plain, sizeof plain, &n);
    if (n == sizeof plain)
        n -= cm_utf8_cut_end(plain, n);
    return cm_utf8_append(to, plain, n);
}

bool cm_grpc_content_type(const char *value, size_t len)
{
    static const char plain[] = "application/grpc", proto[] = "application/grpc+proto";

    if (len >= sizeof proto - 1 && memcmp(value, proto, sizeof proto - 1) == 0)
        return len == sizeof proto - 1 || value[sizeof proto - 1] == ';';
    return len >= sizeof plain - 1 && memcmp(value, plain, sizeof plain - 1) == 0 &&
           (len == sizeof plain - 1 || value[sizeof plain - 1] == ';');
}

/* Status codes */

enum cm_grpc_status cm_grpc_status_of_http(int http)
{
    switch (http) {
    case 400:
        return CM_GRPC_INTERNAL;
    case 401:
        return CM_GRPC_UNAUTHENTICATED;
    case 403:
        return CM_GRPC_PERMISSION_DENIED;
    case 404:
        return CM_GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return CM_GRPC_UNAVAILABLE;
    default:
        return CM_GRPC_UNKNOWN;
    }
}

enum cm_grpc_status cm_grpc_status_of_h2(uint32_t code)
{
    switch (code) {
    case NGHTTP2_REFUSED_STREAM:
        return CM_GRPC_UNAVAILABLE;
    case NGHTTP2_CANCEL:
        return CM_GRPC_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return CM_GRPC_RESOURCE_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY:
        return CM_GRPC_PERMISSION_DENIED;
    case NGHTTP2_STREAM_CLOSED:
        return CM_GRPC_UNKNOWN;
    default:
        return CM_GRPC_INTERNAL;
    }
}

const char *cm_grpc_status_name(enum cm_grpc_status status)
{
    static const char *const names[] = {
        "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
        "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
        "DATA_LOSS", "UNAUTHENTICATED"};

    return (unsigned)status < sizeof names / sizeof names[0] ? names[status] : "UNKNOWN";
}

nghttp2_nv cm_grpc_nv(const char *name, const char *value, bool never)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
                        never ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE};
}

/* From session to stream */

int cm_grpc_pump(nghttp2_session *session, struct cm_stream *stream, struct cm_err *err)
{
    static _Thread_local uint8_t out[CM_GRPC_QUEUE_MAX - CM_GRPC_OUT_HIGH];
    const uint8_t *piece;
    ssize_t n = 0;
    size_t len = 0;
    int rc = 0;

    do {
        bool full = cm_stream_queued(stream) + len >= CM_GRPC_OUT_HIGH;
        n = full ? 0 : nghttp2_session_mem_send(session, &piece);
        if (len > 0 && (n <= 0 || (size_t)n > sizeof out - len)) {
            rc = cm_stream_write(stream, out, len, err);
            len = 0;
        }
        if (n > 0 && (size_t)n <= sizeof out) {
            memcpy(out + len, piece, (size_t)n);
            len += (size_t)n;
        } else if (n > 0 && rc == 0) {
            rc = cm_stream_write(stream, piece, (size_t)n, err);
        }
    } while (n > 0 && rc == 0);
    if (n < 0)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "HTTP/2: %s", nghttp2_strerror((int)n));
    return rc < 0 ? rc : cm_stream_queued(stream) >= CM_GRPC_OUT_HIGH;
}
