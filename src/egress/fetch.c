/* SPDX-License-Identifier: Apache-2.0 */
/* One request: what curl is told of it, what curl asks for while it runs, and what its end means. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "egress/internal.h"

#define COPY_MAX (60u << 10) /* of bodies; curl sends up to 64 KiB with the head */
#define HEAD_MAX (128u << 10) /* bytes of an answer's head, with what came before it */

/* What curl asks */

static void moved(struct cm_fetch *f)
{
    f->moved_ns = cm_clock_ns();
}

static size_t fail(struct cm_fetch *f, enum cm_fetch_failure why, const char *text)
{
    f->why = why;
    f->reason = text;
    return 0;
}

/* A connection is there; the request goes out next. */
static int on_connected(void *arg, char *ip, char *local_ip, int port, int local_port)
{
    struct cm_fetch *f = arg;

    (void)ip, (void)local_ip, (void)port, (void)local_port;
    moved(f);
    return f->state == CANCELLED ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static size_t on_read(char *to, size_t size, size_t count, void *arg)
{
    struct cm_fetch *f = arg;
    size_t len = size * count;
    ssize_t n;

    if (f->state == CANCELLED)
        return CURL_READFUNC_ABORT;
    moved(f);
    if (len > f->body_len - f->sent)
        len = (size_t)(f->body_len - f->sent);
    if (f->body) {
        memcpy(to, f->body + f->sent, len);
        f->sent += len;
        return len;
    }
    do
        n = pread(f->body_fd, to, len, (off_t)(f->body_offset + f->sent));
    while (n < 0 && errno == EINTR);
    if (n < 0 || (n == 0 && len > 0)) {
        fail(f, CM_FETCH_CUT, "the file of the body ended early");
        return CURL_READFUNC_ABORT;
    }
    f->sent += (size_t)n;
    return (size_t)n;
}

/* A kept connection may turn out to be closed when the request has begun to go out: curl begins anew on another. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct cm_fetch *f = arg;

    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > f->body_len)
        return CURL_SEEKFUNC_CANTSEEK;
    f->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

static int status_of(const struct cm_fetch *f)
{
    long status = 0;

    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    return (int)status;
}

static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
    struct cm_fetch *f = arg;
    size_t len = size * count;

    if (f->state == CANCELLED)
        return 0;
    moved(f);
    f->head_bytes += len;
    if (f->head_bytes > HEAD_MAX)
        return fail(f, CM_FETCH_CUT, "the answer's head has no end");
    bool blank = len == 0 || line[0] == '\r' || line[0] == '\n';
    int status = blank && !f->head_done ? status_of(f) : 0;
    if (status >= 200) {
        f->head_done = true;
        if (f->ops.head)
            f->ops.head(f->arg, status);
    }
    return f->state == CANCELLED ? 0 : len;
}

static size_t on_data(char *data, size_t size, size_t count, void *arg)
{
    struct cm_fetch *f = arg;
    size_t len = size * count;

    if (f->state == CANCELLED)
        return 0;
    moved(f);
    if (len > f->answer_max - f->received)
        return fail(f, CM_FETCH_TOO_LARGE, NULL);
    f->received += len;
    if (f->ops.data && len > 0)
        f->ops.data(f->arg, data, len);
    return f->state == CANCELLED ? 0 : len;
}

/* So that no child process has our connections. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)arg, (void)purpose;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* What curl is told */

static bool is_loopback(const char *host)
{
    size_t len = strlen(host);
    static const char suffix[] = ".localhost";
    size_t suffix_len = sizeof suffix - 1;

    return strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 || strncmp(host, "127.", 4) == 0 ||
           (len > suffix_len && strcasecmp(host + len - suffix_len, suffix) == 0);
}

static int read_url(struct cm_fetch *f, const char *url, bool *ret_loopback, struct cm_err *err)
{
    CURLU *parts = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    int rc = 0;

    if (!parts)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request");
    if (!url || curl_url_set(parts, CURLUPART_URL, url, 0) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK) {
        rc = cm_err_set(err, CM_ERR_BAD_FIELD, "a URL must look like http://host:port/path or https://host/path");
    } else if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0) {
        rc = cm_err_set(err, CM_ERR_BAD_FIELD, "a URL must begin with http:// or https://");
    } else {
        bool usual = strcmp(port, strcmp(scheme, "http") == 0 ? "80" : "443") == 0;
        snprintf(f->host, sizeof f->host, "%.70s%s%s", host, usual ? "" : ":", usual ? "" : port);
        *ret_loopback = is_loopback(host);
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parts);
    return rc;
}

static int add_header(struct cm_fetch *f, const char *line, struct cm_err *err)
{
    if (strpbrk(line, "\r\n"))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "a header must not hold a line break");
    struct curl_slist *longer = curl_slist_append(f->headers, line);
    if (!longer)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request");
    f->headers = longer;
    return 0;
}

static int set_headers(struct cm_fetch *f, const char *const *lines, struct cm_err *err)
{
    bool typed = false;
    int rc = add_header(f, "Expect:", err); /* a wait of its own, and nobody who says no */

    for (; rc == 0 && lines && *lines; lines++) {
        typed = typed || strncasecmp(*lines, "content-type:", strlen("content-type:")) == 0;
        rc = add_header(f, *lines, err);
    }
    if (rc == 0 && !typed)
        rc = add_header(f, "Content-Type:", err); /* else curl calls it a form */
    return rc;
}

/* A small body is copied, and goes out in one piece with the head: else the other side wakes up twice. */
static bool set_body(struct cm_fetch *f)
{
    curl_easy_setopt(f->easy, CURLOPT_POST, 1L);
    curl_easy_setopt(f->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)f->body_len);
    if (f->body_fd < 0 && f->body_len <= COPY_MAX)
        return curl_easy_setopt(f->easy, CURLOPT_COPYPOSTFIELDS, f->body ? f->body : "") == CURLE_OK;
    curl_easy_setopt(f->easy, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(f->easy, CURLOPT_READDATA, f);
    curl_easy_setopt(f->easy, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(f->easy, CURLOPT_SEEKDATA, f);
    return true;
}

static int set_method(struct cm_fetch *f, const struct cm_fetch_request *req, struct cm_err *err)
{
    const char *method = req->method;
    bool has_body = req->body || req->body_fd >= 0;

    if (!method || !*method || method[strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")])
        return cm_err_set(err, CM_ERR_BAD_FIELD, "a request's method must be a word of capital letters");
    f->body = req->body;
    f->body_fd = req->body ? -1 : req->body_fd;
    f->body_offset = req->body_offset;
    f->body_len = req->body ? req->body_len : has_body ? req->body_fd_len : 0;
    if ((has_body || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0) && !set_body(f))
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request");
    if (strcmp(method, "HEAD") == 0)
        curl_easy_setopt(f->easy, CURLOPT_NOBODY, 1L);
    return curl_easy_setopt(f->easy, CURLOPT_CUSTOMREQUEST, method) == CURLE_OK
               ? 0
               : cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request");
}

static void set_callbacks(struct cm_fetch *f)
{
    curl_easy_setopt(f->easy, CURLOPT_PRIVATE, f);
    curl_easy_setopt(f->easy, CURLOPT_ERRORBUFFER, f->curls_reason);
    curl_easy_setopt(f->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(f->easy, CURLOPT_HEADERDATA, f);
    curl_easy_setopt(f->easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(f->easy, CURLOPT_WRITEDATA, f);
    curl_easy_setopt(f->easy, CURLOPT_PREREQFUNCTION, on_connected);
    curl_easy_setopt(f->easy, CURLOPT_PREREQDATA, f);
    curl_easy_setopt(f->easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
}

static void set_manners(struct cm_fetch *f, double connect_timeout_s)
{
    double connect_ms = (connect_timeout_s > 0 ? connect_timeout_s : 10) * 1000;

    curl_easy_setopt(f->easy, CURLOPT_NOSIGNAL, 1L);
    /* a look-up that nobody waits for any more runs on in its thread: without this the loop would wait for it */
    curl_easy_setopt(f->easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(f->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(f->easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(f->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(f->easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(f->easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(f->easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(f->easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(f->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(connect_ms < 1e9 ? connect_ms + 1 : 1e9));
    if (f->answer_max > 0 && f->answer_max <= INT64_MAX) /* refuses by the length that the head says */
        curl_easy_setopt(f->easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)f->answer_max);
}

static uint64_t ns(double seconds)
{
    return seconds <= 0 ? 0 : seconds > 1e8 ? (uint64_t)1e17 : (uint64_t)(seconds * (double)CM_NS_PER_S) + 1;
}

int cm_fetch_set_up(struct cm_fetch *f, const struct cm_fetch_request *req, struct cm_err *err)
{
    bool loopback = false;
    int rc = read_url(f, req->url, &loopback, err);

    if (rc < 0)
        return rc;
    f->easy = curl_easy_init();
    if (!f->easy)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request");
    f->idle_ns = ns(req->idle_timeout_s);
    f->total_ns = ns(req->timeout_s);
    f->answer_max = req->answer_max;
    set_callbacks(f);
    set_manners(f, req->connect_timeout_s);
    rc = set_method(f, req, err);
    if (rc == 0)
        rc = set_headers(f, req->headers, err);
    if (rc < 0)
        return rc;
    curl_easy_setopt(f->easy, CURLOPT_HTTPHEADER, f->headers);
    if (curl_easy_setopt(f->easy, CURLOPT_URL, req->url) != CURLE_OK ||
        curl_easy_setopt(f->easy, CURLOPT_USERAGENT, "codemode/" CM_VERSION) != CURLE_OK ||
        (loopback && curl_easy_setopt(f->easy, CURLOPT_PROXY, "") != CURLE_OK) ||
        (f->e->ca_file && curl_easy_setopt(f->easy, CURLOPT_CAINFO, f->e->ca_file) != CURLE_OK))
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request");
    return 0;
}

/* What its end means */

static enum cm_fetch_failure failure_of(const struct cm_fetch *f, CURLcode code)
{
    if (f->why != CM_FETCH_OK)
        return f->why;
    switch (code) {
    case CURLE_OK: /* also when the connection ended inside the head */
        return f->head_done ? CM_FETCH_OK : CM_FETCH_CUT;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PROXY:
        return CM_FETCH_CONNECT;
    case CURLE_OPERATION_TIMEDOUT: /* ours are found by ourselves */
        return f->moved_ns ? CM_FETCH_TIMEOUT : CM_FETCH_CONNECT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CRL_BADFILE:
        return CM_FETCH_TLS;
    case CURLE_FILESIZE_EXCEEDED:
        return CM_FETCH_TOO_LARGE;
    case CURLE_OUT_OF_MEMORY:
        return CM_FETCH_MEMORY;
    default:
        return CM_FETCH_CUT;
    }
}

static void describe(struct cm_fetch *f, enum cm_fetch_failure why, CURLcode code)
{
    switch (why) {
    case CM_FETCH_OK:
        f->text[0] = '\0';
        break;
    case CM_FETCH_TIMEOUT:
        snprintf(f->text, sizeof f->text, "%s: %s", f->host,
                 f->queued || f->state == NEW ? "no connection was free in time"
                 : f->moved_ns == 0           ? "no connection in time"
                 : f->head_done               ? "the answer did not end in time"
                                              : "no answer in time");
        break;
    case CM_FETCH_TOO_LARGE:
        snprintf(f->text, sizeof f->text, "%s: the answer has more than %llu bytes", f->host,
                 (unsigned long long)f->answer_max);
        break;
    default:
        snprintf(f->text, sizeof f->text, "%s: %s", f->host,
                 f->reason            ? f->reason
                 : f->curls_reason[0] ? f->curls_reason
                 : code == CURLE_OK   ? "the answer ended inside its head"
                                      : curl_easy_strerror(code));
    }
    f->text[strcspn(f->text, "\r\n")] = '\0';
}

static double retry_after(const struct cm_fetch *f)
{
    const char *value = cm_fetch_header(f, "Retry-After");
    char *end;

    if (!value)
        return -1;
    if (isdigit((unsigned char)*value)) {
        double seconds = strtod(value, &end);
        return *end ? -1 : seconds;
    }
    time_t when = curl_getdate(value, NULL), now = time(NULL);
    return when == -1 ? -1 : when < now ? 0 : (double)(when - now);
}

void cm_fetch_conclude(struct cm_fetch *f, CURLcode code, struct cm_fetch_end *ret)
{
    enum cm_fetch_failure why = failure_of(f, code);

    describe(f, why, code);
    *ret = (struct cm_fetch_end){
        .why = why, .status = status_of(f), .retry_after_s = retry_after(f), .received = f->received, .text = f->text};
}

const char *cm_fetch_header(const struct cm_fetch *f, const char *name)
{
    struct curl_header *header;

    return curl_easy_header(f->easy, name, 0, CURLH_HEADER, -1, &header) == CURLHE_OK ? header->value : NULL;
}

void cm_fetch_dispose(struct cm_fetch *f)
{
    cm_timer_close(f->timer);
    if (f->easy)
        curl_easy_cleanup(f->easy);
    curl_slist_free_all(f->headers);
    free(f);
}
