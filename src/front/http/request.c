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
#include "front/http/internal.h"

#define DROP_FACTOR 4 /* a refused body is read up to this many times MAX_BODY */
#define DROP_BRIEF  65536 /* one of somebody without a key, up to this many bytes */
#define HELD_FACTOR 4 /* bodies of all requests together take up to this many times MAX_BODY */

struct request *cm_http_ref(struct request *rq)
{
    rq->refs++;
    return rq;
}

void cm_http_drop_body(struct request *rq)
{
    rq->http->held -= rq->body.len;
    cm_buf_done(&rq->body);
}

void cm_http_unref(struct request *rq)
{
    assert(rq->magic == REQUEST_MAGIC && rq->refs > 0);
    if (--rq->refs > 0)
        return;
    cm_buf_done(&rq->answer.body);
    rq->magic = 0;
    free(rq);
}

/* Waiting */

static void list_add(struct request *rq)
{
    rq->prev = NULL;
    rq->next = rq->http->waiting;
    if (rq->next)
        rq->next->prev = rq;
    rq->http->waiting = rq;
}

static void list_remove(struct request *rq)
{
    if (rq->next)
        rq->next->prev = rq->prev;
    if (rq->prev)
        rq->prev->next = rq->next;
    else
        rq->http->waiting = rq->next;
}

void cm_http_wait(struct request *rq)
{
    rq->state = WAITING;
    rq->conn->waiting = rq;
    list_add(rq);
    MHD_suspend_connection(rq->mhd);
    if (rq->conn->hung)
        cm_http_gone(rq);
}

static void run_daemon(void *arg)
{
    cm_http_run(arg);
}

static void unpark(struct request *rq, enum request_state state)
{
    assert(rq->state == WAITING);
    rq->state = state;
    rq->conn->waiting = NULL;
    list_remove(rq);
    MHD_resume_connection(rq->mhd);
    cm_task_post(rq->http->loop, &rq->http->run_task, run_daemon, rq->http);
}

void cm_http_resume(struct request *rq)
{
    unpark(rq, ANSWERED);
}

void cm_http_gone(struct request *rq)
{
    if (rq->run) {
        cm_run_abandon(rq->run, true);
        rq->run = NULL;
    } else if (!rq->http->closing) {
        return; /* a session is being created: the end of that will see that the client has left */
    }
    unpark(rq, GONE);
}

/* Receiving */

static struct request *new_request(struct cm_http *h, struct MHD_Connection *mhd, const char *url, const char *method)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct request *rq = info && info->socket_context ? calloc(1, sizeof(*rq)) : NULL;

    if (!rq)
        return NULL;
    rq->magic = REQUEST_MAGIC;
    rq->refs = 1;
    rq->http = h;
    rq->mhd = mhd;
    rq->conn = info->socket_context;
    assert(rq->conn->magic == CONN_MAGIC);
    rq->started_ns = cm_clock_ns();
    rq->conn->head_until_ns = 0;
    rq->conn->receiving = rq;
    rq->drop_max = DROP_FACTOR * h->conf->max_body;
    cm_buf_init(&rq->body, h->conf->max_body);
    snprintf(rq->method, sizeof(rq->method), "%s", method);
    snprintf(rq->path, sizeof(rq->path), "%s", url);
    return rq;
}

static void refuse(struct request *rq, const struct cm_err *err, bool close)
{
    cm_http_answer_error(rq, err);
    rq->answer.close = close;
}

static void refuse_size(struct request *rq)
{
    struct cm_err err;

    cm_err_set(&err, CM_ERR_TOO_LARGE, "body: has more than the %llu bytes of MAX_BODY",
               (unsigned long long)rq->http->conf->max_body);
    cm_http_drop_body(rq);
    refuse(rq, &err, false);
}

/* Many clients that each send what one may send would take the memory of everybody. */
static int hold(struct request *rq, const char *data, size_t len)
{
    struct cm_http *h = rq->http;

    if (h->held + len > HELD_FACTOR * h->conf->max_body)
        return CM_ERR_NO_MEMORY;
    int rc = cm_buf_append(&rq->body, data, len);
    if (rc == 0)
        h->held += len;
    return rc;
}

static void refuse_memory(struct request *rq)
{
    struct cm_err err;

    cm_err_set(&err, CM_ERR_NO_MEMORY, "body: too many large requests at once");
    cm_http_drop_body(rq);
    refuse(rq, &err, false);
}

/* A length that is no number was refused by the daemon before. */
static uint64_t declared_length(const struct headers *hd)
{
    return hd->content_length ? strtoull(hd->content_length, NULL, 10) : 0;
}

static void find_route(struct request *rq, const char *url, const char *method)
{
    struct cm_err err;
    int rc = cm_http_route(method, url, &rq->route, &rq->ids, rq->answer.allow_text, &err);

    if (rc == CM_ERR_METHOD)
        rq->answer.allow = rq->answer.allow_text;
    if (rc < 0)
        refuse(rq, &err, false);
}

/* Before anything is said about the path: who has no key does not learn what there is. */
static int check_key(struct request *rq, const struct headers *hd, struct cm_err *err)
{
    if (rq->route && rq->route->key == KEY_OPEN)
        return 0;
    int rc = cm_access_check(rq->http->access, hd->authorization, hd->api_key, &rq->key, err);
    if (rc < 0) {
        rq->answer.allow = NULL;
        rq->drop_max = DROP_BRIEF;
    }
    return rc;
}

static enum MHD_Result on_headers(struct request *rq, const char *url, const char *method)
{
    struct headers hd;
    struct cm_err err;

    cm_http_headers(rq->mhd, &hd);
    rq->correlation_is_clients = cm_http_correlation(rq->http, hd.correlation, rq->correlation);
    find_route(rq, url, method);
    uint64_t length = declared_length(&hd);
    int rc = cm_http_guard(rq->http, rq->route, &hd, &err);
    rc = rc ? rc : check_key(rq, &hd, &err);
    if (rc < 0)
        refuse(rq, &err, rc == CM_ERR_BAD_REQUEST); /* after doubtful framing, the next byte is doubtful too */
    else if (length > rq->http->conf->max_body)
        refuse_size(rq);
    if (!rq->answer.status)
        return MHD_YES;
    if (rc != CM_ERR_BAD_REQUEST && !hd.expect && length <= rq->drop_max)
        return MHD_YES;
    rq->conn->receiving = NULL;
    return cm_http_send(rq);
}

static void abort_body(struct request *rq, int code, const char *text)
{
    struct cm_err err;

    rq->conn->receiving = NULL;
    cm_err_set(&err, code, "%s", text);
    cm_http_send_raw(rq, &err);
}

void cm_http_too_slow(struct request *rq)
{
    abort_body(rq, CM_ERR_TOO_SLOW, "body: did not arrive within BODY_TIMEOUT");
}

static enum MHD_Result on_body(struct request *rq, const char *data, size_t len)
{
    rq->received += len;
    if (rq->received > rq->drop_max) {
        abort_body(rq, CM_ERR_TOO_LARGE, "body: has far more bytes than are read of a request like this");
        return MHD_NO;
    }
    if (rq->answer.status || rq->route->body == BODY_NONE)
        return MHD_YES;
    int rc = hold(rq, data, len);
    if (rc == CM_ERR_TOO_LARGE)
        refuse_size(rq);
    else if (rc < 0)
        refuse_memory(rq);
    return MHD_YES;
}

/* A session that was made with another key is none at all. Deleting one that there is not is no error. */
static bool is_own(struct request *rq, struct cm_err *err)
{
    if (!rq->ids.session[0] || rq->route->handle == cm_http_delete_session)
        return true;
    return cm_sessions_check_owner(rq->http->sessions, rq->ids.session, cm_key_name(rq->key), err) == 0;
}

static enum MHD_Result on_end(struct request *rq)
{
    struct cm_err err;

    rq->conn->receiving = NULL;
    if (rq->state == GONE)
        return MHD_NO;
    if (rq->state == RECEIVING && !rq->answer.status) {
        if (rq->route->body == BODY_JSON && rq->body.len == 0) {
            cm_err_set(&err, CM_ERR_BAD_JSON, "body: is empty");
            refuse(rq, &err, false);
        } else if (!is_own(rq, &err)) {
            refuse(rq, &err, false);
        } else {
            rq->route->handle(rq);
        }
    }
    return rq->state == WAITING || rq->state == GONE ? MHD_YES : cm_http_send(rq);
}

enum MHD_Result cm_http_on_request(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                                   const char *version, const char *data, size_t *len, void **state)
{
    struct request *rq = *state;

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
    struct request *rq = *state;

    (void)cls;
    (void)mhd;
    (void)why;
    if (!rq)
        return;
    const struct cm_conf *conf = rq->http->conf;
    rq->conn->receiving = NULL;
    rq->conn->head_until_ns = cm_clock_ns() + (uint64_t)((conf->idle_timeout + conf->head_timeout) * 1e9);
    *state = NULL;
    cm_http_drop_body(rq);
    rq->http->unread -= rq->unread;
    rq->http = NULL;
    rq->mhd = NULL;
    rq->conn = NULL;
    cm_http_unref(rq);
}
