/* SPDX-License-Identifier: Apache-2.0 */
/* The life of one request.
 *
 * The daemon calls cm_http_on_request() once with the headers, then per piece of body, then once at the end, and
 * again after a suspended connection was resumed. A request that is refused for its headers is not answered at
 * once: its body is read and dropped first, because an answer with unread bytes behind it resets the connection
 * and the client would never see it. What is far too large to be read for nothing is answered at once after all.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "http/internal.h"

#define DROP_FACTOR 4 /* a refused body is read up to this many times MAX_BODY */
#define DROP_BRIEF  65536 /* one of somebody without a key, up to this many bytes */

/* Waiting */

static void on_gone(void *arg)
{
    cm_http_gone(arg);
}

void cm_http_join_waiting(struct cm_request *rq, void (*gone)(void *arg), void *arg)
{
    struct cm_http *h = rq->http;

    rq->gone = gone;
    rq->gone_arg = arg;
    rq->conn->waiting = rq;
    rq->prev = NULL;
    rq->next = h->waiting;
    if (rq->next)
        rq->next->prev = rq;
    h->waiting = rq;
    /* Has left already; who begins to wait hears of it when he does. */
    if (rq->conn->hung)
        cm_task_post(h->loop, &rq->gone_task, on_gone, rq);
}

static void leave_waiting(struct cm_request *rq)
{
    cm_task_cancel(rq->http->loop, &rq->gone_task);
    rq->conn->waiting = NULL;
    if (rq->next)
        rq->next->prev = rq->prev;
    if (rq->prev)
        rq->prev->next = rq->next;
    else
        rq->http->waiting = rq->next;
}

void cm_request_wait(struct cm_request *rq, void (*gone)(void *arg), void *arg)
{
    assert(rq->state == RECEIVING);
    rq->state = WAITING;
    cm_http_join_waiting(rq, gone, arg);
    MHD_suspend_connection(rq->mhd);
}

void cm_http_resume(struct cm_request *rq, enum request_state state)
{
    bool suspended = rq->state == WAITING || rq->stream.suspended;

    assert(rq->state == WAITING || rq->state == STREAMING);
    rq->state = state;
    rq->stream.suspended = false;
    if (state != STREAMING)
        leave_waiting(rq);
    if (suspended)
        MHD_resume_connection(rq->mhd);
    cm_http_run_soon(rq->http);
}

void cm_http_gone(struct cm_request *rq)
{
    cm_http_resume(rq, GONE);
    if (rq->gone)
        rq->gone(rq->gone_arg);
}

/* Receiving */

static struct cm_request *new_request(struct cm_http *h, struct MHD_Connection *mhd, const char *url,
                                      const char *method)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct cm_request *rq = info && info->socket_context ? calloc(1, sizeof(*rq)) : NULL;

    if (!rq)
        return NULL;
    rq->magic = REQUEST_MAGIC;
    rq->http = h;
    rq->mhd = mhd;
    rq->conn = info->socket_context;
    assert(rq->conn->magic == CONN_MAGIC);
    rq->started_ns = cm_clock_ns();
    rq->conn->head_until_ns = 0;
    rq->conn->receiving = rq->conn->request = rq;
    rq->drop_max = DROP_FACTOR * h->limits->body_max;
    cm_buf_init(&rq->body, h->limits->body_max);
    rq->file.fd = -1;
    snprintf(rq->method, sizeof(rq->method), "%s", method);
    snprintf(rq->path, sizeof(rq->path), "%s", url);
    return rq;
}

static void tell_over(struct cm_request *rq)
{
    if (rq->http->config.over)
        rq->http->config.over(rq);
}

static void refuse(struct cm_request *rq, const struct cm_err *err, bool close)
{
    tell_over(rq);
    cm_http_forget_body(rq);
    cm_http_set_error(rq, err);
    rq->answer.close = close;
}

/* A length that is no number was refused by the daemon before. */
static uint64_t declared_length(const struct headers *hd)
{
    return hd->content_length ? strtoull(hd->content_length, NULL, 10) : 0;
}

static void find_route(struct cm_request *rq, const char *url, const char *method)
{
    struct cm_err err;

    if (cm_http_route(rq->http->config.routes, method, url, &rq->route, rq->variables, rq->answer.allow, &err) < 0)
        refuse(rq, &err, false);
}

/* Before anything is said about the path: who has no key does not learn what there is. */
static int check_key(struct cm_request *rq, const struct headers *hd, struct cm_err *err)
{
    if (rq->route && rq->route->key == CM_KEY_OPEN)
        return 0;
    int rc = cm_access_check(rq->http->config.access, hd->authorization, hd->api_key, &rq->key, err);
    if (rc < 0)
        rq->drop_max = DROP_BRIEF;
    return rc;
}

/* Before a file's body, which may be long; else when the body is there. */
static int admit(struct cm_request *rq, struct cm_err *err)
{
    const struct cm_http_config *c = &rq->http->config;

    if (rq->admitted || !c->admit)
        return 0;
    rq->admitted = true;
    return c->admit(rq, err);
}

static int check_length(struct cm_request *rq, uint64_t length, struct cm_err *err)
{
    if (cm_http_body_too_long(rq, length))
        return cm_http_say_too_long(rq, err);
    return cm_http_takes_file(rq) && !rq->answer.status ? admit(rq, err) : 0;
}

static enum MHD_Result on_headers(struct cm_request *rq, const char *url, const char *method)
{
    struct headers hd;
    struct cm_err err;

    cm_http_headers(rq->mhd, &hd);
    rq->correlation_is_clients = cm_correlation_take(&rq->http->correlations, hd.correlation,
                                                     hd.correlation ? strlen(hd.correlation) : 0, rq->correlation);
    find_route(rq, url, method);
    uint64_t length = rq->declared = declared_length(&hd);
    int rc = cm_http_guard(rq->http, rq->route, &hd, &err);
    rc = rc ? rc : check_key(rq, &hd, &err);
    bool doubtful = rc == CM_ERR_BAD_REQUEST; /* after such framing, the next byte is doubtful too */
    rc = rc ? rc : check_length(rq, length, &err);
    if (rc < 0)
        refuse(rq, &err, doubtful);
    if (!rq->answer.status)
        return MHD_YES;
    if (!doubtful && !hd.expect && length <= rq->drop_max)
        return MHD_YES;
    rq->conn->receiving = NULL;
    return cm_http_send(rq);
}

static void abort_body(struct cm_request *rq, int code, const char *text)
{
    struct cm_err err;

    rq->conn->receiving = NULL;
    cm_err_set(&err, code, "%s", text);
    cm_http_send_raw(rq, &err);
}

void cm_http_too_slow(struct cm_request *rq)
{
    abort_body(rq, CM_ERR_TOO_SLOW, "body: did not arrive within BODY_TIMEOUT");
}

static enum MHD_Result on_body(struct cm_request *rq, const char *data, size_t len)
{
    struct cm_err err;

    rq->received += len;
    if (!rq->answer.status && rq->route->body != CM_BODY_NONE) {
        if (cm_http_keep(rq, data, len, &err) < 0)
            refuse(rq, &err, false);
    } else if (rq->received > rq->drop_max) {
        abort_body(rq, CM_ERR_TOO_LARGE, "body: has far more bytes than are read of a request like this");
        return MHD_NO;
    }
    return MHD_YES;
}

static void dispatch(struct cm_request *rq)
{
    struct cm_err err;

    if (rq->route->body == CM_BODY_JSON && rq->body.len == 0) {
        cm_err_set(&err, CM_ERR_BAD_JSON, "body: is empty");
        refuse(rq, &err, false);
    } else if (admit(rq, &err) < 0) {
        refuse(rq, &err, false);
    } else {
        rq->route->handle(rq);
    }
}

static enum MHD_Result on_end(struct cm_request *rq)
{
    rq->conn->receiving = NULL;
    if (rq->state == RECEIVING && !rq->answer.status)
        dispatch(rq);
    if (rq->state == GONE)
        return MHD_NO;
    return rq->state == WAITING ? MHD_YES : cm_http_send(rq);
}

enum MHD_Result cm_http_on_request(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                                   const char *version, const char *data, size_t *len, void **state)
{
    struct cm_request *rq = *state;

    (void)version;
    if (!rq) {
        *state = rq = new_request(cls, mhd, url, method);
        return rq ? on_headers(rq, url, method) : MHD_NO;
    }
    assert(rq->magic == REQUEST_MAGIC);
    if (*len == 0)
        return on_end(rq);
    enum MHD_Result ok = on_body(rq, data, *len);
    *len = 0;
    return ok;
}

/* Whatever ended the request, its connection is on the way out of our hands. */
void cm_http_on_completed(void *cls, struct MHD_Connection *mhd, void **state, enum MHD_RequestTerminationCode why)
{
    struct cm_request *rq = *state;
    struct cm_http *h = cls;
    const struct cm_http_limits *l = h->limits;

    (void)mhd;
    (void)why;
    if (!rq)
        return;
    *state = NULL;
    if (rq->state == STREAMING)
        cm_http_gone(rq);
    tell_over(rq);
    rq->conn->receiving = rq->conn->request = NULL;
    rq->conn->head_until_ns = cm_clock_ns() + (uint64_t)((l->idle_timeout_s + l->head_timeout_s) * 1e9);
    cm_http_forget_body(rq);
    h->unread -= rq->unread;
    cm_http_answer_done(rq);
    rq->magic = 0;
    free(rq);
}

/* What handlers ask */

void *cm_request_app(const struct cm_request *rq)
{
    return rq->http->config.app;
}

const char *cm_request_path(const struct cm_request *rq)
{
    return rq->path;
}

const struct cm_http_route *cm_request_route(const struct cm_request *rq)
{
    return rq->route;
}

const char *cm_request_variable(const struct cm_request *rq, unsigned i)
{
    return i < VARIABLES ? rq->variables[i] : "";
}

const char *cm_request_header(const struct cm_request *rq, const char *name)
{
    return MHD_lookup_connection_value(rq->mhd, MHD_HEADER_KIND, name);
}

const char *cm_request_query(const struct cm_request *rq, const char *name)
{
    return MHD_lookup_connection_value(rq->mhd, MHD_GET_ARGUMENT_KIND, name);
}

uint64_t cm_request_declared(const struct cm_request *rq)
{
    return rq->declared;
}

const struct cm_key *cm_request_key(const struct cm_request *rq)
{
    return rq->key;
}

const char *cm_request_correlation(const struct cm_request *rq)
{
    return rq->correlation;
}

bool cm_request_correlation_is_clients(const struct cm_request *rq)
{
    return rq->correlation_is_clients;
}

void cm_request_offer_correlation(struct cm_request *rq, const char *id, size_t len)
{
    if (!rq->correlation_is_clients && id)
        rq->correlation_is_clients = cm_correlation_take(&rq->http->correlations, id, len, rq->correlation);
}

void cm_request_set_user(struct cm_request *rq, void *user)
{
    rq->user = user;
}

void *cm_request_user(const struct cm_request *rq)
{
    return rq->user;
}
