/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that come piece by piece.
 *
 * What the owner writes waits in the answer's buffer. The daemon fetches from it whenever the socket takes more; when it finds
 * nothing it is suspended until the next piece. So there are two who can end a stream, and they do not know of each other:
 * the owner, whose rest still goes out, and the client or the daemon, which the owner hears of by `gone`.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "http/internal.h"

#define KEPT_CAPACITY 65536 /* of an empty buffer; more is given back */

static ssize_t take(struct cm_request *rq, char *to, size_t max)
{
    struct cm_buf *body = &rq->answer.body;
    size_t n = body->len < max ? body->len : max;

    memcpy(to, cm_buf_data(body), n);
    cm_buf_consume(body, n);
    rq->unread -= n;
    rq->http->unread -= n;
    if (body->len == 0 && body->cap > KEPT_CAPACITY)
        cm_buf_done(body);
    return (ssize_t)n;
}

static ssize_t on_more(void *cls, uint64_t at, char *to, size_t max)
{
    struct cm_request *rq = cls;

    (void)at;
    if (rq->state == GONE)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (rq->answer.body.len > 0)
        return take(rq, to, max);
    if (rq->stream.ended)
        return rq->stream.cut ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
    rq->stream.suspended = true;
    MHD_suspend_connection(rq->mhd);
    return 0;
}

/* The request outlives the response: the daemon asks for nothing after it has completed the request. */
struct MHD_Response *cm_http_stream_response(struct cm_request *rq)
{
    return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, KEPT_CAPACITY, on_more, rq, NULL);
}

void cm_request_stream(struct cm_request *rq, const char *content_type, size_t backlog_max, void (*gone)(void *arg),
                       void *arg)
{
    struct answer *a = &rq->answer;

    assert(rq->state == RECEIVING || rq->state == WAITING);
    snprintf(a->type_text, sizeof(a->type_text), "%s", content_type);
    a->content_type = a->type_text;
    a->status = 200;
    cm_buf_done(&a->body);
    cm_buf_init(&a->body, cm_http_unread_max(rq->http));
    rq->stream.backlog_max = backlog_max;
    rq->stream.on = true;
    if (rq->state == RECEIVING) {
        rq->state = STREAMING;
        cm_http_join_waiting(rq, gone, arg);
        return;
    }
    rq->gone = gone;
    rq->gone_arg = arg;
    cm_http_resume(rq, STREAMING);
}

/* The daemon looks at it in the next turn, when all that this turn writes is there. */
static void wake(struct cm_request *rq)
{
    if (rq->stream.suspended)
        cm_http_resume(rq, rq->state);
}

int cm_request_write(struct cm_request *rq, const void *data, size_t len)
{
    struct cm_http *h = rq->http;

    if (rq->state != STREAMING)
        return CM_ERR_CANCELLED;
    bool full = rq->answer.body.len >= rq->stream.backlog_max || h->unread + len > cm_http_unread_max(h);
    int rc = full ? CM_ERR_TOO_LARGE : cm_buf_append(&rq->answer.body, data, len);
    if (rc < 0) {
        rq->stream.overrun = true;
        return rc;
    }
    rq->unread += len;
    h->unread += len;
    if (len > 0)
        wake(rq);
    return 0;
}

size_t cm_request_backlog(const struct cm_request *rq)
{
    return rq->answer.body.len;
}

void cm_request_end(struct cm_request *rq, bool cut)
{
    if (rq->state != STREAMING)
        return;
    rq->stream.ended = true;
    rq->stream.cut = cut;
    /* The daemon waits for such a client to read, and would for a long time. */
    if (cut && rq->stream.overrun)
        shutdown(rq->conn->fd, SHUT_RDWR);
    cm_http_resume(rq, ANSWERED);
}
