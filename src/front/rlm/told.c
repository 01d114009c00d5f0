/* SPDX-License-Identifier: Apache-2.0 */
/* GET /runs/{id}/trajectory. It is written in a thread where there is much to write: of a copy of the events, since the run may
 * lose some of them, or end, meanwhile. */
#include <stdlib.h>
#include <string.h>

#include "front/rlm/internal.h"

struct head {
    size_t len; /* of the event's JSON, which is behind it */
    char type;
};

struct telling {
    struct cm_request *rq;
    struct cm_work *work; /* NULL: none, or done */
    struct cm_buf events, answer;
    int rc;
};

static void free_telling(void *arg)
{
    struct telling *t = arg;

    cm_buf_done(&t->events);
    cm_buf_done(&t->answer);
    free(t);
}

static void write_it(void *arg)
{
    struct telling *t = arg;
    const char *at = cm_buf_data(&t->events), *end = at + t->events.len;
    struct cm_infer_trajectory made;
    struct head h;

    cm_infer_trajectory_init(&made, ANSWER_MAX);
    for (; at < end && t->rc == 0; at += sizeof h + h.len) {
        memcpy(&h, at, sizeof h);
        t->rc = cm_infer_trajectory_put(&made, h.type, at + sizeof h, h.len, &t->answer);
    }
    cm_infer_trajectory_done(&made);
}

static void answer(void *arg)
{
    struct telling *t = arg;

    t->work = NULL;
    cm_request_answer_buf(t->rq, 200, "application/x-ndjson", &t->answer, t->rc);
}

static void on_gone(void *arg)
{
    struct telling *t = arg;

    t->work = cm_work_abandon(t->work);
}

static struct telling *new_telling(struct cm_request *rq, const struct run *r)
{
    struct telling *t = calloc(1, sizeof *t);
    char *room;

    if (!t)
        return NULL;
    t->rq = rq;
    cm_buf_init(&t->events, r->bytes); /* which counts more of each event than is copied */
    cm_buf_init(&t->answer, ANSWER_MAX);
    t->rc = cm_buf_reserve(&t->events, r->bytes, &room); /* once, and not by and by */
    for (const struct event *e = r->first; e && t->rc == 0; e = e->next) {
        struct head h = {.len = e->data_len, .type = e->type};
        if (e->part == CM_PART_NONE)
            continue;
        t->rc = cm_buf_append(&t->events, &h, sizeof h);
        t->rc = t->rc ? t->rc : cm_buf_append(&t->events, e->text + e->data, e->data_len);
    }
    return t;
}

void infer_tell_trajectory(struct cm_request *rq, const struct run *r)
{
    struct telling *t = new_telling(rq, r);
    struct cm_err err;

    if (!t) {
        infer_fail(rq, CM_ERR_NO_MEMORY, "no memory for a trajectory");
        return;
    }
    if (t->rc == 0 && t->events.len >= CM_ASK_BIG)
        t->work = cm_work_start(r->f->loop, write_it, answer, free_telling, t, &err);
    if (t->work) {
        cm_request_wait(rq, on_gone, t);
        return;
    }
    write_it(t);
    answer(t);
    free_telling(t);
}
