/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "front/http/internal.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "wire/json.h"

#define ERROR_MAX     8192 /* three short texts, each byte at most six when escaped */
#define UNREAD_FACTOR 16 /* answers together take up to this many times the largest one */
#define WORDS_MAX     (3 * CM_ERR_TEXT_MAX) /* each bad byte becomes three */
#define JSON_TYPE     "application/json"

/* The text may quote what a client has sent, which may be no UTF-8, or cut in the middle of a character. */
static int put_words(struct cm_buf *buf, const char *text)
{
    cm_autobuf struct cm_buf words;

    cm_buf_init(&words, WORDS_MAX);
    int rc = cm_utf8_append(&words, text, strlen(text));
    return rc < 0 ? rc : cm_json_put_string(buf, cm_buf_data(&words), words.len);
}

static int write_error(struct cm_buf *buf, const struct cm_err *err)
{
    const struct cm_err_info *info = cm_err_info(err->code);
    int rc;

    if ((rc = cm_buf_puts(buf, "{\"detail\":")) < 0 || (rc = put_words(buf, err->text)) < 0)
        return rc;
    return cm_buf_printf(buf, ",\"code\":\"%s\",\"remediation\":\"%s\"}", info->short_name, info->remediation);
}

void cm_http_answer_error(struct request *rq, const struct cm_err *err)
{
    struct answer *a = &rq->answer;

    cm_buf_done(&a->body);
    cm_buf_init(&a->body, ERROR_MAX);
    a->status = (unsigned)cm_err_info(err->code)->http;
    a->content_type = JSON_TYPE;
    a->retry_after = cm_err_info(err->code)->retry;
    if (write_error(&a->body, err) < 0)
        a->status = 0; /* not even memory for this: the connection is closed */
}

void cm_http_answer_buf(struct request *rq, unsigned status, struct cm_buf *body, int rc)
{
    struct cm_err err;

    if (rc < 0) {
        cm_buf_done(body);
        cm_err_set(&err, rc, "the answer could not be written");
        cm_http_answer_error(rq, &err);
        return;
    }
    cm_buf_done(&rq->answer.body);
    rq->answer.body = *body;
    cm_buf_init(body, body->max);
    rq->answer.status = status;
    if (!rq->answer.content_type)
        rq->answer.content_type = JSON_TYPE;
}

void cm_http_answer_text(struct request *rq, unsigned status, const char *json)
{
    struct cm_buf buf;

    cm_buf_init(&buf, ERROR_MAX);
    int rc = cm_buf_puts(&buf, json);
    cm_http_answer_buf(rq, status, &buf, rc);
}

static void count(const struct request *rq)
{
    unsigned status = rq->answer.status;
    enum cm_log_level level = status >= 500 && status != 503 ? CM_LOG_WARNING : CM_LOG_DEBUG;

    cm_metrics_add(rq->http->metrics, CM_M_HTTP_REQUESTS, status / 100 - 1, 1);
    cm_log(level, "http_request", CM_LOG_STR("method", rq->method), CM_LOG_STR("path", rq->path),
           CM_LOG_INT("status", status), CM_LOG_REAL("seconds", (double)(cm_clock_ns() - rq->started_ns) / 1e9),
           CM_LOG_STR("key", rq->key ? cm_key_name(rq->key) : NULL), CM_LOG_STR("correlation_id", rq->correlation));
}

static void add_number(struct MHD_Response *response, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    MHD_add_response_header(response, name, text);
}

static void add_headers(const struct request *rq, struct MHD_Response *response)
{
    const struct answer *a = &rq->answer;

    MHD_add_response_header(response, "Content-Type", a->content_type);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "x-correlation-id", rq->correlation);
    if (a->status == 401)
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (a->repeated)
        MHD_add_response_header(response, "x-codemode-repeated", "true");
    if (a->allow)
        MHD_add_response_header(response, "Allow", a->allow);
    if (a->has_output) {
        add_number(response, "X-Total-Length", a->output.printed);
        add_number(response, "X-Stored-Length", a->output.stored);
    }
    if (a->retry_after)
        add_number(response, "Retry-After", a->retry_after);
    if (a->close || rq->http->draining)
        MHD_add_response_header(response, "Connection", "close");
}

/* Clients that ask and do not read would take the memory of everybody. What is stored can be asked for again, so
 * it is refused first: that leaves room for answers that there are only once. */
static void hold(struct request *rq)
{
    struct cm_http *h = rq->http;
    size_t max = UNREAD_FACTOR * (h->conf->stored_output > h->answer_max ? h->conf->stored_output : h->answer_max);
    struct cm_err err;

    if (rq->answer.body.len > ERROR_MAX && h->unread + rq->answer.body.len > (rq->answer.has_output ? max / 4 : max)) {
        cm_err_set(&err, CM_ERR_NO_MEMORY, "too many large answers wait for their clients to read them");
        rq->answer.has_output = false;
        cm_http_answer_error(rq, &err);
    }
    h->unread += rq->answer.body.len - rq->unread;
    rq->unread = rq->answer.body.len;
}

enum MHD_Result cm_http_send(struct request *rq)
{
    size_t len;

    if (!rq->answer.status)
        return MHD_NO;
    hold(rq);
    if (!rq->answer.status)
        return MHD_NO;
    char *data = cm_buf_steal(&rq->answer.body, &len);
    if (!data)
        return MHD_NO;
    struct MHD_Response *response = MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(data);
        return MHD_NO;
    }
    add_headers(rq, response);
    enum MHD_Result ok = MHD_queue_response(rq->mhd, rq->answer.status, response);
    MHD_destroy_response(response);
    if (ok == MHD_YES)
        count(rq);
    return ok;
}

void cm_http_send_raw(struct request *rq, const struct cm_err *err)
{
    struct cm_buf head;

    cm_http_answer_error(rq, err);
    if (!rq->answer.status)
        return;
    cm_buf_init(&head, 2 * ERROR_MAX);
    const char *reason = rq->answer.status == 408 ? "Request Timeout" : "Content Too Large";
    int rc = cm_buf_printf(&head,
                           "HTTP/1.1 %u %s\r\nContent-Type: " JSON_TYPE "\r\nx-correlation-id: %s\r\n"
                           "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                           rq->answer.status, reason, rq->correlation, rq->answer.body.len);
    if (rc == 0)
        rc = cm_buf_append(&head, cm_buf_data(&rq->answer.body), rq->answer.body.len);
    /* What the socket does not take at once is lost, as it is for a client that never reads. */
    if (rc == 0 && send(rq->conn->fd, cm_buf_data(&head), head.len, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        count(rq);
    cm_buf_done(&head);
}
