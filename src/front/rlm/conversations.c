/* SPDX-License-Identifier: Apache-2.0 */
/* Conversations: a session that lives over several runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "front/rlm/internal.h"

static void end(struct cm_infer *f, struct conversation *c)
{
    DL_DELETE(f->conversations, c);
    f->conversation_count--;
    c->holder->conversations--;
    holders_leave(f, c->holder);
    cm_rlm_conversation_free(c->engine);
    free(c);
}

static int open_conversation(struct cm_infer *f, const char *owner, struct conversation **ret, struct cm_err *err)
{
    const struct room room = {"conversations", "MAX_CONVERSATIONS", "delete one", f->config.conf->max_conversations};
    struct holder *h = holders_take(f, owner);
    struct conversation *c = h ? calloc(1, sizeof *c) : NULL;

    if (!c)
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a conversation");
    if (!c || shares_check(f, &room, f->conversation_count, h->conversations, 1, err) < 0 ||
        cm_rlm_conversation_open(f->config.engine, &c->engine, err) < 0) {
        free(c);
        if (h)
            holders_leave(f, h);
        return err->code;
    }
    c->holder = h;
    h->conversations++;
    c->used_ns = cm_clock_ns();
    DL_APPEND(f->conversations, c);
    f->conversation_count++;
    *ret = c;
    return 0;
}

void cm_infer_create_conversation(struct cm_request *rq)
{
    struct cm_infer *f = infer_of(rq);
    struct conversation *c = NULL;
    struct cm_err err;
    char json[100];

    if (open_conversation(f, infer_owner(rq), &c, &err) < 0 || !c) {
        cm_request_fail(rq, &err);
        return;
    }
    infer_plan(f);
    snprintf(json, sizeof json, "{\"conversation_id\":\"%s\"}", cm_rlm_conversation_id(c->engine));
    cm_request_answer(rq, 200, json);
}

struct conversation *conversations_find(struct cm_infer *f, const char *id, const char *owner)
{
    struct conversation *c;

    DL_FOREACH(f->conversations, c)
    if (!c->ending && strcmp(cm_rlm_conversation_id(c->engine), id) == 0 && strcmp(c->holder->name, owner) == 0)
        return c;
    return NULL;
}

/* With a run it ends when that has ended, which is soon. */
static void end_or_cancel(struct cm_infer *f, struct conversation *c)
{
    struct run *r;

    if (!cm_rlm_conversation_busy(c->engine)) {
        end(f, c);
        return;
    }
    c->ending = true;
    DL_FOREACH(f->runs, r)
    if (r->conversation == c && r->engine)
        cm_rlm_cancel(r->engine);
}

void cm_infer_delete_conversation(struct cm_request *rq)
{
    struct cm_infer *f = infer_of(rq);
    struct conversation *c = conversations_find(f, cm_request_variable(rq, 0), infer_owner(rq));

    if (c)
        end_or_cancel(f, c);
    cm_request_answer(rq, 200, "{\"status\":\"ok\"}");
}

/* The engine still counts it as busy while it tells of the end: an ending one goes with the next sweep. */
void conversations_run_ended(struct cm_infer *f, struct conversation *c)
{
    (void)f;
    c->used_ns = cm_clock_ns();
}

void conversations_sweep(struct cm_infer *f, uint64_t now)
{
    struct conversation *c, *next;
    uint64_t ttl_ns = f->config.conf->conversation_ttl * CM_NS_PER_S;

    DL_FOREACH_SAFE(f->conversations, c, next)
    if ((c->ending || now - c->used_ns > ttl_ns) && !cm_rlm_conversation_busy(c->engine))
        end(f, c);
}

void conversations_free(struct cm_infer *f)
{
    struct conversation *c, *next;

    DL_FOREACH_SAFE(f->conversations, c, next)
    {
        DL_DELETE(f->conversations, c);
        holders_leave(f, c->holder);
        if (!cm_rlm_conversation_busy(c->engine))
            cm_rlm_conversation_free(c->engine);
        free(c);
    }
}
