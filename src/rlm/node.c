/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "rlm/internal.h"
#include "rlm/subcalls.h"

struct cm_node *cm_node_parent(const struct cm_node *node)
{
    return node->slot ? node->slot->batch->node : NULL;
}

bool cm_node_over(const struct cm_node *node)
{
    return node->run->ending;
}

static void on_clock(void *arg)
{
    cm_clock_ran_out(arg);
}

static void init_buffers(struct cm_node *n)
{
    static const size_t most[CM_RECORDS] = {CM_NODE_RECORDS_LIVE_MAX, CM_NODE_RECORDS_FILE_MAX};

    cm_buf_init(&n->pending, CM_MESSAGE_BYTES_MAX);
    cm_buf_init(&n->names, CM_NODE_NAMES_MAX);
    cm_buf_init(&n->variables, 1 << 16);
    cm_buf_init(&n->log, CM_NODE_RECORDS_FILE_MAX);
    for (int i = 0; i < CM_BLOCK_TEXTS; i++)
        cm_buf_init(&n->texts[i], 64 << 20);
    for (int i = 0; i < CM_RECORDS; i++) {
        cm_buf_init(&n->blocks[i], 2 * most[i]);
        cm_buf_init(&n->calls[i], most[i]);
    }
}

struct cm_node *cm_node_new(struct cm_rlm_run *run, struct cm_slot *slot, unsigned depth, struct cm_err *err)
{
    struct cm_node *n = calloc(1, sizeof *n);

    if (!n) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a node");
        return NULL;
    }
    n->run = run;
    n->slot = slot;
    n->depth = depth;
    n->number = run->nodes++;
    n->model = cm_run_model(run, depth);
    n->context.fd = -1;
    n->parts.room = &run->room;
    n->tools = depth > 0 ? run->request.custom_sub_tools : run->request.custom_tools;
    n->began_ns = cm_clock_ns();
    init_buffers(n);
    n->clock = cm_timer_open(run->rlm->loop, on_clock, n, err);
    if (!n->clock) {
        free(n);
        return NULL;
    }
    return n;
}

void cm_node_stop(struct cm_node *n)
{
    cm_ask_cancel(&n->ask);
    if (n->op)
        cm_sidecar_cancel(n->op);
    cm_sidecar_abandon(n->exec);
    n->op = NULL;
    n->exec = NULL;
    cm_subcalls_drop_all(n);
}

/* A conversation keeps its session, unless that is lost, and the messages for its next run. */
static void leave_session(struct cm_node *n)
{
    struct cm_rlm_conversation *c = n->slot ? NULL : n->run->conversation;

    if (!c) {
        if (n->session[0])
            cm_sidecar_delete(n->run->rlm->sidecar, n->session);
        return;
    }
    cm_conversation_leave(c, n);
}

static void free_node(struct cm_node *n)
{
    cm_timer_close(n->clock);
    cm_parts_text_done(&n->context);
    cm_parts_done(&n->parts);
    cm_history_done(&n->history);
    cm_reply_done(&n->reply);
    cm_usage_done(&n->usage);
    cm_buf_done(&n->pending);
    cm_buf_done(&n->names);
    cm_buf_done(&n->variables);
    cm_buf_done(&n->log);
    for (int i = 0; i < CM_BLOCK_TEXTS; i++)
        cm_buf_done(&n->texts[i]);
    for (int i = 0; i < CM_RECORDS; i++) {
        cm_buf_done(&n->blocks[i]);
        cm_buf_done(&n->calls[i]);
    }
    free(n->preface);
    free(n->partial);
    free(n->response);
    free(n->final);
    free(n);
}

void cm_node_abort(struct cm_node *n, const struct cm_err *err)
{
    cm_node_stop(n);
    cm_event_result(n, NULL, 0, err);
    leave_session(n);
    free_node(n);
}

/* A child is gone before its slot goes on, but for its answer and what was said of it. */
static void end_child(struct cm_node *n, const char *answer, size_t len, const struct cm_err *err)
{
    struct cm_slot *slot = n->slot;

    cm_node_stop(n);
    cm_event_result(n, answer, len, err);
    leave_session(n);
    cm_slot_child_ended(slot, n, answer, len, err);
}

void cm_node_answer(struct cm_node *n, char *answer, size_t len)
{
    const struct cm_err none = {0};

    if (!n->slot) {
        cm_run_answer(n->run, answer, len);
        return;
    }
    end_child(n, answer, len, &none);
    free(answer);
    free_node(n);
}

void cm_node_fail(struct cm_node *n, int code, const char *format, ...)
{
    struct cm_err err = {.code = code};
    va_list ap;

    if (cm_node_over(n))
        return;
    va_start(ap, format);
    vsnprintf(err.text, sizeof err.text, format, ap);
    va_end(ap);
    err.text[strlen(err.text) - cm_utf8_cut_end(err.text, strlen(err.text))] = '\0';
    if (!n->slot) {
        cm_run_fail(n->run, code, "%s", err.text);
        return;
    }
    end_child(n, NULL, 0, &err);
    free_node(n);
}
