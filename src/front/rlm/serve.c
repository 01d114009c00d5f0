/* SPDX-License-Identifier: Apache-2.0 */
/* /infer, /runs and /v1/chat/completions: from a body to a run, and from its end to an answer.
 *
 * A job is what a request has while its body is read and its run works. A large body is read in a thread; meanwhile, and while
 * its run works, the request waits. A client that leaves takes its job's request away, and cancels what was done for it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/correlation.h"
#include "front/rlm/internal.h"
#include "wire/json.h"

#define LIST_MAX (64u << 20)

enum face { FACE_INFER, FACE_RUNS, FACE_CHAT };

struct job {
    struct cm_infer *f;
    struct cm_request *rq; /* NULL: its client has left, or has its answer */
    enum face face;
    struct cm_ask ask;
    struct cm_work *work; /* reads the body; NULL: done, or never begun */
    struct run *run; /* that will tell its end; NULL: none */
    struct alive alive; /* while a chat streams */
    bool streams, waits;
    char owner[CM_KEY_NAME_MAX], correlation[CM_CORRELATION_MAX + 1];
    int rc;
    struct cm_err err;
};

static void free_job(struct job *j)
{
    cm_ask_done(&j->ask);
    free(j);
}

/* Answers */

static int put_text(struct cm_buf *b, const char *name, const char *text, size_t len)
{
    int rc = cm_buf_printf(b, ",\"%s\":", name);

    return rc < 0 ? rc : text ? cm_json_put_string(b, text, len) : cm_buf_puts(b, "null");
}

static int put_result(struct cm_buf *b, const struct run *r)
{
    int rc;

    if ((rc = put_text(b, "model", r->model, strlen(r->model))) < 0)
        return rc;
    return cm_buf_printf(b,
                         ",\"max_depth\":%u,\"run_id\":\"%s\",\"iterations\":%u,\"execution_time\":%.6f,\"usage\":%s",
                         r->max_depth, r->id, r->iterations, r->seconds, r->usage && *r->usage ? r->usage : "{}");
}

static void answer_infer(struct cm_request *rq, const struct run *r)
{
    struct cm_buf b;
    bool ok = r->status == RUN_SUCCEEDED;

    cm_buf_init(&b, ANSWER_MAX);
    int rc = cm_buf_puts(&b, ok ? "{\"success\":true" : "{\"success\":false,");
    if (rc == 0)
        rc = ok ? put_text(&b, "answer", r->answer, r->answer_len) : infer_put_error(&b, &r->err);
    if (rc == 0 && !ok)
        rc = put_text(&b, "partial_answer", r->partial, r->partial_len);
    if (rc == 0)
        rc = put_result(&b, r);
    if (rc == 0)
        rc = cm_buf_puts(&b, "}");
    if (!ok) /* what it has cost, it would cost again */
        cm_request_set_header(rq, "x-should-retry", "false");
    cm_request_answer_buf(rq, run_http_status(r), NULL, &b, rc);
}

static void on_ended(void *arg, struct run *r)
{
    struct job *j = arg;

    if (j->streams)
        DL_DELETE(j->f->streams, &j->alive);
    if (j->rq && j->face == FACE_INFER)
        answer_infer(j->rq, r);
    else if (j->rq && j->streams)
        chat_end_stream(j->rq, &j->ask, r);
    else if (j->rq)
        chat_answer(j->rq, &j->ask, r);
    free_job(j);
}

/* Its answer is nobody's any more. */
static void on_gone(void *arg)
{
    struct job *j = arg;

    j->rq = NULL;
    if (j->streams)
        DL_DELETE(j->f->streams, &j->alive);
    j->streams = false;
    if (j->run)
        cm_rlm_cancel(j->run->engine);
    j->work = cm_work_abandon(j->work);
}

/* From a body to a run */

static void begin_stream(struct job *j)
{
    j->streams = true;
    j->alive.rq = j->rq;
    DL_APPEND(j->f->streams, &j->alive);
    cm_request_stream(j->rq, "text/event-stream; charset=utf-8", ANSWER_MAX, on_gone, j);
    chat_begin_stream(j->rq, &j->ask, j->run);
    infer_plan(j->f);
}

static void answer_started(struct job *j, struct run *r)
{
    char json[120];

    if (j->face == FACE_RUNS) {
        snprintf(json, sizeof json, "{\"run_id\":\"%s\",\"status\":\"running\"}", r->id);
        cm_request_answer(j->rq, 202, json);
        return;
    }
    j->run = r;
    if (j->ask.stream)
        begin_stream(j);
    else if (!j->waits)
        cm_request_wait(j->rq, on_gone, j);
}

/* The body has been read. */
static void start(struct job *j)
{
    struct run_order order = {.ask = &j->ask,
                              .owner = j->owner,
                              .correlation = j->correlation,
                              .deltas = j->face == FACE_RUNS,
                              .ended = j->face == FACE_RUNS ? NULL : on_ended,
                              .arg = j};
    struct run *r = NULL;

    if (j->rc == 0 && j->ask.user) {
        cm_request_offer_correlation(j->rq, j->ask.user, strlen(j->ask.user));
        snprintf(j->correlation, sizeof j->correlation, "%s", cm_request_correlation(j->rq));
    }
    if (j->rc == 0 && j->face == FACE_CHAT)
        j->rc = chat_take_model(&j->ask, &j->err);
    if (j->rc == 0 && cm_http_draining(j->f->http))
        j->rc = cm_err_set(&j->err, CM_ERR_DRAINING, "the server is shutting down");
    if (j->rc == 0)
        j->rc = runs_start(j->f, &order, &r, &j->err);
    if (j->rc < 0)
        cm_request_fail(j->rq, &j->err);
    else
        answer_started(j, r);
}

static void read_body(void *arg)
{
    struct job *j = arg;

    j->rc = cm_ask_read(&j->ask, &j->err);
}

static void on_read(void *arg)
{
    struct job *j = arg;

    j->work = NULL;
    start(j);
}

static void on_read_over(void *arg)
{
    struct job *j = arg;

    if (!j->run)
        free_job(j);
}

static struct job *new_job(struct cm_request *rq, enum face face)
{
    struct job *j = calloc(1, sizeof *j);
    size_t len = 0;
    char *body = j ? cm_request_take_body(rq, &len) : NULL;

    if (!body) {
        free(j);
        return NULL;
    }
    j->f = infer_of(rq);
    j->rq = rq;
    j->face = face;
    snprintf(j->owner, sizeof j->owner, "%s", infer_owner(rq));
    snprintf(j->correlation, sizeof j->correlation, "%s", cm_request_correlation(rq));
    cm_ask_init(&j->ask, face == FACE_CHAT ? CM_ASK_CHAT : CM_ASK_RUN, j->f->config.conf, body, len);
    return j;
}

static void begin(struct cm_request *rq, enum face face)
{
    struct job *j = new_job(rq, face);

    if (!j) {
        infer_fail(rq, CM_ERR_NO_MEMORY, "no memory for the request");
        return;
    }
    if (j->ask.len >= CM_ASK_BIG) {
        j->waits = true;
        j->work = cm_work_start(j->f->loop, read_body, on_read, on_read_over, j, &j->err);
    }
    if (j->work) {
        cm_request_wait(rq, on_gone, j);
        return;
    }
    j->waits = false;
    read_body(j);
    start(j);
    on_read_over(j);
}

void cm_infer_infer(struct cm_request *rq)
{
    begin(rq, FACE_INFER);
}

void cm_infer_start_run(struct cm_request *rq)
{
    begin(rq, FACE_RUNS);
}

void cm_infer_complete_chat(struct cm_request *rq)
{
    begin(rq, FACE_CHAT);
}

/* Runs */

static int put_error(struct cm_buf *b, const struct run *r)
{
    int rc;

    if (!r->err.code)
        return cm_buf_puts(b, ",\"error\":null");
    if ((rc = cm_buf_puts(b, ",\"error\":{")) < 0 || (rc = infer_put_error(b, &r->err)) < 0)
        return rc;
    return cm_buf_puts(b, "}");
}

static int put_run(struct cm_buf *b, const struct run *r, bool brief)
{
    double seconds = r->engine ? (double)(cm_clock_ns() - r->started_ns) / 1e9 : r->seconds;
    int rc = cm_buf_printf(b, "{\"run_id\":\"%s\",\"status\":\"%s\",\"created_at\":\"%s\"", r->id,
                           run_status_name(r->status), r->created);

    if (rc < 0 || (rc = put_text(b, "query", r->query, strlen(r->query))) < 0 ||
        (rc = put_text(b, "model", r->model, strlen(r->model))) < 0 || (rc = put_error(b, r)) < 0)
        return rc;
    rc = cm_buf_printf(b, ",\"execution_time\":%.6f,\"iterations\":%u,\"max_depth\":%u", seconds, r->iterations,
                       r->max_depth);
    if (rc == 0 && !brief)
        rc = put_text(b, "answer", r->answer, r->answer_len);
    if (rc == 0 && !brief)
        rc = put_text(b, "partial_answer", r->partial, r->partial_len);
    if (rc == 0 && !brief)
        rc = cm_buf_printf(b, ",\"usage\":%s", r->usage && *r->usage ? r->usage : "null");
    return rc < 0 ? rc : cm_buf_puts(b, "}");
}

void cm_infer_list_runs(struct cm_request *rq)
{
    struct cm_infer *f = infer_of(rq);
    const char *owner = infer_owner(rq);
    struct cm_buf b;
    bool first = true;

    cm_buf_init(&b, LIST_MAX);
    int rc = cm_buf_puts(&b, "{\"runs\":[");
    for (const struct run *r = f->runs; r && rc == 0; r = r->next) {
        if (strcmp(r->holder->name, owner) != 0)
            continue;
        rc = cm_buf_puts(&b, first ? "" : ",");
        first = false;
        if (rc == 0)
            rc = put_run(&b, r, true);
    }
    if (rc == 0)
        rc = cm_buf_puts(&b, "]}");
    cm_request_answer_buf(rq, 200, NULL, &b, rc);
}

/* NULL after an answer. */
static struct run *run_of(struct cm_request *rq)
{
    struct run *r = runs_find(infer_of(rq), cm_request_variable(rq, 0), infer_owner(rq));

    if (!r)
        infer_fail(rq, CM_ERR_NO_RUN, "there is no such run");
    return r;
}

void cm_infer_show_run(struct cm_request *rq)
{
    struct run *r = run_of(rq);
    struct cm_buf b;

    if (!r)
        return;
    cm_buf_init(&b, ANSWER_MAX);
    int rc = put_run(&b, r, false);
    cm_request_answer_buf(rq, 200, NULL, &b, rc);
}

void cm_infer_follow_run(struct cm_request *rq)
{
    struct run *r = run_of(rq);
    const char *after = cm_request_header(rq, "last-event-id");

    after = after ? after : cm_request_query(rq, "last_event_id");
    if (r)
        runs_follow(r, rq, after ? strtoull(after, NULL, 10) : 0);
}

void cm_infer_cancel_run(struct cm_request *rq)
{
    struct run *r = run_of(rq);

    if (!r)
        return;
    if (r->engine)
        cm_rlm_cancel(r->engine);
    cm_request_answer(rq, 200, "{\"status\":\"ok\"}");
}

void cm_infer_show_trajectory(struct cm_request *rq)
{
    const struct run *r = run_of(rq);

    if (r)
        infer_tell_trajectory(rq, r);
}
