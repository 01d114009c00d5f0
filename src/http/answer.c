/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "http/internal.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "wire/json.h"

#define ERROR_MAX      8192 /* three short texts, each byte at most six when escaped */
#define TEXT_MAX       65536 /* of cm_request_answer() */
#define ANSWERS_FACTOR 4
#define WORDS_MAX      (3 * CM_ERR_TEXT_MAX) /* each bad byte becomes three */
#define JSON_TYPE      "application/json"

/* The text may quote what a client has sent, which may be no UTF-8, or cut in the middle of a character. */
static int put_words(struct cm_buf *buf, const char *text)
{
    cm_autobuf struct cm_buf words;

    cm_buf_init(&words, WORDS_MAX);
    int rc = cm_utf8_append(&words, text, strlen(text));
    return rc < 0 ? rc : cm_json_put_string(buf, cm_buf_data(&words), words.len);
}

int cm_http_put_error(struct cm_buf *to, const struct cm_err *err, const char *lead)
{
    const struct cm_err_info *info = cm_err_info(err->code);
    int rc = cm_buf_printf(to, "{%s\"detail\":", lead);

    if (rc < 0 || (rc = put_words(to, err->text)) < 0)
        return rc;
    return cm_buf_printf(to, ",\"code\":\"%s\",\"remediation\":\"%s\"}", info->short_name, info->remediation);
}

void cm_http_set_error(struct cm_request *rq, const struct cm_err *err)
{
    struct answer *a = &rq->answer;

    cm_buf_done(&a->body);
    cm_buf_init(&a->body, ERROR_MAX);
    a->status = (unsigned)cm_err_info(err->code)->http;
    a->content_type = NULL;
    a->retry_after = cm_err_info(err->code)->retry;
    const struct cm_http_config *c = &rq->http->config;
    if ((c->error_body ? c->error_body(rq, err, &a->body) : cm_http_put_error(&a->body, err, "")) < 0)
        a->status = 0; /* not even memory for this: the connection is closed */
}

/* Of a request whose client has left, or that is answered already, nothing more becomes. */
static bool is_open(const struct cm_request *rq)
{
    return (rq->state == RECEIVING || rq->state == WAITING) && !rq->answer.status;
}

static void finish(struct cm_request *rq)
{
    if (rq->state == WAITING)
        cm_http_resume(rq, ANSWERED);
}

void cm_request_fail(struct cm_request *rq, const struct cm_err *err)
{
    if (!is_open(rq))
        return;
    cm_http_set_error(rq, err);
    finish(rq);
}

void cm_request_answer_buf(struct cm_request *rq, unsigned status, const char *content_type, struct cm_buf *body,
                           int rc)
{
    struct answer *a = &rq->answer;
    struct cm_err err;

    if (rc < 0 || !is_open(rq)) {
        cm_buf_done(body);
        cm_err_set(&err, rc, "the answer could not be written");
        cm_request_fail(rq, &err);
        return;
    }
    cm_buf_done(&a->body);
    a->body = *body;
    cm_buf_init(body, body->max);
    a->status = status;
    if (content_type) {
        snprintf(a->type_text, sizeof(a->type_text), "%s", content_type);
        a->content_type = a->type_text;
    }
    finish(rq);
}

void cm_request_answer(struct cm_request *rq, unsigned status, const char *json)
{
    struct cm_buf buf;

    cm_buf_init(&buf, TEXT_MAX);
    int rc = cm_buf_puts(&buf, json);
    cm_request_answer_buf(rq, status, NULL, &buf, rc);
}

static void drop_extra(struct answer *a)
{
    for (int i = 0; i < EXTRA_HEADERS; i++) {
        free(a->extra[i][0]);
        free(a->extra[i][1]);
        a->extra[i][0] = a->extra[i][1] = NULL;
    }
}

/* Without memory for it the header is missing. */
void cm_request_set_header(struct cm_request *rq, const char *name, const char *value)
{
    char *(*free_one)[2] = NULL;

    for (int i = 0; i < EXTRA_HEADERS && !free_one; i++)
        free_one = rq->answer.extra[i][0] ? NULL : &rq->answer.extra[i];
    if (!free_one || rq->stream.on)
        return;
    (*free_one)[0] = strdup(name);
    (*free_one)[1] = (*free_one)[0] ? strdup(value) : NULL;
}

void cm_http_answer_done(struct cm_request *rq)
{
    cm_buf_done(&rq->answer.body);
    drop_extra(&rq->answer);
}

static void count(const struct cm_request *rq)
{
    unsigned status = rq->answer.status;
    enum cm_log_level level = status >= 500 && status != 503 ? CM_LOG_WARNING : CM_LOG_DEBUG;

    cm_metrics_add(rq->http->config.metrics, CM_M_HTTP_REQUESTS, status / 100 - 1, 1);
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

static bool has_extra(const struct answer *a, const char *name)
{
    for (int i = 0; i < EXTRA_HEADERS; i++)
        if (a->extra[i][1] && strcasecmp(a->extra[i][0], name) == 0)
            return true;
    return false;
}

static void add_headers(const struct cm_request *rq, struct MHD_Response *response)
{
    const struct answer *a = &rq->answer;

    MHD_add_response_header(response, "Content-Type", a->content_type ? a->content_type : JSON_TYPE);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (!has_extra(a, "Cache-Control"))
        MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "x-correlation-id", rq->correlation);
    if (a->status == 401)
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (a->status == 405 && a->allow[0])
        MHD_add_response_header(response, "Allow", a->allow);
    for (int i = 0; i < EXTRA_HEADERS; i++)
        if (a->extra[i][1])
            MHD_add_response_header(response, a->extra[i][0], a->extra[i][1]);
    if (a->retry_after)
        add_number(response, "Retry-After", a->retry_after);
    if (a->close || rq->http->draining)
        MHD_add_response_header(response, "Connection", "close");
}

uint64_t cm_http_unread_max(const struct cm_http *h)
{
    return h->limits->answers_max ? h->limits->answers_max : ANSWERS_FACTOR * h->limits->body_max;
}

/* Clients that ask and do not read would take the memory of everybody. What GET reads can be asked for again, so it is
 * refused first: that leaves room for answers that there are only once. */
static void hold(struct cm_request *rq)
{
    struct cm_http *h = rq->http;
    uint64_t max = cm_http_unread_max(h), len = rq->answer.body.len;
    bool again = rq->route && strcmp(rq->route->method, "GET") == 0;
    struct cm_err err;

    if (len > ERROR_MAX && h->unread + len > (again ? max / 4 : max)) {
        cm_err_set(&err, CM_ERR_NO_MEMORY, "too many large answers wait for their clients to read them");
        drop_extra(&rq->answer);
        cm_http_set_error(rq, &err);
    }
    h->unread += rq->answer.body.len - rq->unread;
    rq->unread = rq->answer.body.len;
}

/* Takes the body. */
static struct MHD_Response *whole(struct cm_request *rq)
{
    size_t len;
    char *data = cm_buf_steal(&rq->answer.body, &len);
    struct MHD_Response *r = data ? MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE) : NULL;

    if (!r)
        free(data);
    return r;
}

enum MHD_Result cm_http_send(struct cm_request *rq)
{
    if (!rq->stream.on && rq->answer.status)
        hold(rq);
    if (!rq->answer.status)
        return MHD_NO;
    struct MHD_Response *response = rq->stream.on ? cm_http_stream_response(rq) : whole(rq);
    if (!response)
        return MHD_NO;
    add_headers(rq, response);
    enum MHD_Result ok = MHD_queue_response(rq->mhd, rq->answer.status, response);
    MHD_destroy_response(response);
    if (ok == MHD_YES)
        count(rq);
    return ok;
}

void cm_http_send_raw(struct cm_request *rq, const struct cm_err *err)
{
    struct cm_buf head;

    cm_http_set_error(rq, err);
    if (!rq->answer.status)
        return;
    cm_buf_init(&head, 2 * ERROR_MAX);
    const char *reason = MHD_get_reason_phrase_for(rq->answer.status);
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
