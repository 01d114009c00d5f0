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
    cm_rlm_conversation_free(c->engine);
    free(c);
}

static int open_conversation(struct cm_infer *f, const char *owner, struct conversation **ret, struct cm_err *err)
{
    if (f->conversation_count >= f->config.conf->max_conversations)
        return cm_err_set(err, CM_ERR_OVERLOADED, "there are MAX_CONVERSATIONS (%u) already", f->conversation_count);
    struct conversation *c = calloc(1, sizeof *c);
    if (!c)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a conversation");
    int rc = cm_rlm_conversation_open(f->config.engine, &c->engine, err);
    if (rc < 0) {
        free(c);
        return rc;
    }
    snprintf(c->owner, sizeof c->owner, "%s", owner);
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
    if (!c->ending && strcmp(cm_rlm_conversation_id(c->engine), id) == 0 && strcmp(c->owner, owner) == 0)
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
        if (!cm_rlm_conversation_busy(c->engine))
            cm_rlm_conversation_free(c->engine);
        free(c);
    }
}
