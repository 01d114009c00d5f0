/* SPDX-License-Identifier: Apache-2.0 */
/* What a run says of itself while it works (docs/rlm-events.md), and the same for its trajectory.
 *
 * An event is for those who watch. One that finds no memory, or would be longer than any watcher wants, is left out: the run
 * itself does not depend on it. Keys of APIs are not in reach of this file's texts. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/url.h"
#include "base/utf8.h"
#include "rlm/output.h"
#include "rlm/prompts.h"
#include "rlm/subcalls.h"
#include "wire/json.h"

#define EVENT_MAX        (160u << 20)
#define PREVIEW_PROMPT   80 /* characters */
#define PREVIEW_RESPONSE 200

/* An object that grows member by member; after a failure it stays as it is, and is not said. */
struct event {
    struct cm_buf json;
    const char *type;
    int rc;
};

static void put(struct event *e, const char *text, size_t len)
{
    if (e->rc == 0)
        e->rc = cm_buf_append(&e->json, text, len);
}

static void put_key(struct event *e, const char *key)
{
    bool first = e->json.len == 0 || cm_buf_data(&e->json)[e->json.len - 1] == '{';

    put(e, ",", first ? 0 : 1);
    if (e->rc == 0)
        e->rc = cm_buf_printf(&e->json, "\"%s\":", key);
}

static void put_text(struct event *e, const char *key, const char *text, size_t len, size_t max)
{
    put_key(e, key);
    if (e->rc == 0)
        e->rc = cm_output_json(&e->json, text, len, max);
}

static void put_words(struct event *e, const char *key, const char *words)
{
    put_text(e, key, words, words ? strlen(words) : 0, CM_RUN_TEXT_MAX);
}

static void put_count(struct event *e, const char *key, uint64_t value)
{
    put_key(e, key);
    if (e->rc == 0)
        e->rc = cm_buf_printf(&e->json, "%" PRIu64, value);
}

static void put_real(struct event *e, const char *key, double value)
{
    put_key(e, key);
    if (e->rc == 0)
        e->rc = cm_buf_printf(&e->json, "%.9g", value);
}

static void put_raw(struct event *e, const char *key, const char *json, size_t len)
{
    put_key(e, key);
    put(e, json, len);
}

static void put_cost(struct event *e, const char *key, const struct cm_llm_usage *u)
{
    if (u->priced)
        put_real(e, key, u->cost);
    else
        put_raw(e, key, "null", 4);
}

static double seconds_since(uint64_t ns)
{
    return (double)(cm_clock_ns() - ns) / 1e9;
}

static void begin(struct event *e, const char *type, const struct cm_node *n)
{
    char when[CM_CLOCK_ISO8601_MAX];

    *e = (struct event){.type = type};
    cm_buf_init(&e->json, EVENT_MAX);
    cm_clock_iso8601(when);
    memcpy(when + 23, "Z", 2); /* milliseconds will do */
    put(e, "{", 1);
    put_words(e, "type", type);
    put_words(e, "timestamp", when);
    put_count(e, "node", n->number);
}

static void say(struct event *e, const struct cm_node *n)
{
    struct cm_rlm_run *run = n->run;

    put(e, "}", 1);
    if (e->rc == 0 && run->ops.event)
        run->ops.event(run->arg, e->type, cm_buf_data(&e->json), e->json.len);
    cm_buf_done(&e->json);
}

/* metadata */

static const char *backend_of(const struct cm_llm_model *m)
{
    return m->api == CM_LLM_ANTHROPIC ? "anthropic" : "openai";
}

static void put_others(struct event *e, const struct cm_rlm_request *q)
{
    put_key(e, "other_backends");
    if (!q->other.name) {
        put(e, "null", 4);
        return;
    }
    put(e, "[", 1);
    if (e->rc == 0)
        e->rc = cm_output_json(&e->json, backend_of(&q->other), strlen(backend_of(&q->other)), SIZE_MAX);
    put(e, "]", 1);
}

static void put_place(struct event *e, const char *base_url)
{
    char shown[CM_URL_SHOWN_MAX];

    cm_url_show(base_url ? base_url : "", shown);
    put_words(e, "base_url", base_url ? shown : NULL);
}

static void put_metadata(struct event *e, const struct cm_node *n)
{
    const struct cm_rlm_request *q = &n->run->request;

    put_words(e, "root_model", n->model->name);
    put_count(e, "max_depth", q->limits.max_depth);
    put_count(e, "max_iterations", q->limits.max_iterations);
    put_words(e, "backend", backend_of(n->model));
    put_key(e, "backend_kwargs");
    put(e, "{", 1);
    put_words(e, "model_name", n->model->name);
    put_place(e, n->model->base_url);
    put(e, "}", 1);
    put_words(e, "environment_type", "codemode");
    put_raw(e, "environment_kwargs", "{}", 2);
    put_others(e, q);
    put_words(e, "query", n->slot ? NULL : q->query);
    put_words(e, "context_type", n->context_type);
    put_count(e, "context_length", n->context_length);
    put_words(e, "prompts", "v1");
}

/* A copy: the event goes on. */
static void write_metadata(struct cm_trajectory *file, struct cm_buf *json)
{
    cm_autobuf struct cm_buf line;

    cm_buf_init(&line, json->len + 2); /* with the line's end */
    if (cm_buf_append(&line, cm_buf_data(json), json->len) == 0 && cm_buf_puts(&line, "}") == 0)
        cm_trajectory_line(file, &line);
}

void cm_event_metadata(struct cm_node *n)
{
    struct event e;

    n->said = true;
    if (!cm_run_logs(n->run, CM_LIVE) && !cm_run_logs(n->run, CM_FILE))
        return;
    begin(&e, "metadata", n);
    put_words(&e, "run_id", n->run->id);
    if (n->slot) {
        put_count(&e, "parent", n->slot->batch->node->number);
        put_count(&e, "call", n->slot->number);
    } else {
        put_raw(&e, "parent", "null", 4);
        put_raw(&e, "call", "null", 4);
    }
    put_count(&e, "depth", n->depth);
    put_metadata(&e, n);
    if (e.rc == 0 && n->run->file && !n->slot)
        write_metadata(n->run->file, &e.json);
    say(&e, n);
}

/* The turn */

void cm_event_turn(struct cm_node *n)
{
    struct event e;

    if (!cm_run_logs(n->run, CM_LIVE))
        return;
    begin(&e, "turn", n);
    put_count(&e, "iteration", n->turn + n->last);
    say(&e, n);
}

void cm_event_delta(struct cm_node *n, const char *text, size_t len)
{
    struct event e;

    begin(&e, "delta", n);
    put_count(&e, "iteration", n->turn + n->last);
    put_text(&e, "text", text, len, CM_RUN_TEXT_MAX);
    say(&e, n);
}

void cm_event_code(struct cm_node *n)
{
    const struct cm_reply_block *b = &n->reply.blocks[n->block];
    struct event e;

    if (!cm_run_logs(n->run, CM_LIVE))
        return;
    begin(&e, "code", n);
    put_count(&e, "iteration", n->turn);
    put_count(&e, "block", n->block);
    put_text(&e, "code", b->code, b->len, CM_RUN_TEXT_MAX);
    say(&e, n);
}

void cm_event_output(struct cm_node *n, int stream, const char *text, size_t len)
{
    struct event e;

    n->said_output += len;
    if (!cm_run_logs(n->run, CM_LIVE) || n->said_output > CM_NODE_OUTPUT_EVENT_MAX)
        return;
    begin(&e, "output", n);
    put_count(&e, "iteration", n->turn);
    put_count(&e, "block", n->block);
    put_words(&e, "stream", stream == 2 ? "stderr" : "stdout");
    put_text(&e, "text", text, len, CM_RUN_TEXT_MAX);
    say(&e, n);
}

/* Sub-queries */

void cm_event_subcall_start(struct cm_slot *s)
{
    struct cm_node *n = s->batch->node;
    struct event e;

    if (!cm_run_logs(n->run, CM_LIVE))
        return;
    begin(&e, "subcall_start", n);
    put_count(&e, "iteration", n->turn);
    put_count(&e, "call", s->number);
    put_words(&e, "kind", cm_slot_kind(s));
    put_count(&e, "depth", n->depth + 1);
    put_words(&e, "model", s->batch->model.name);
    put_text(&e, "prompt_preview", s->head, cm_utf8_offset(s->head, s->head ? s->head_len : 0, PREVIEW_PROMPT),
             SIZE_MAX);
    put_count(&e, "prompt_length", s->prompt_length);
    say(&e, n);
}

static void put_slot_usage(struct event *e, const struct cm_slot *s)
{
    struct cm_usage own = {0};

    put_key(e, "usage_summary");
    if (s->child) {
        e->rc = e->rc ? e->rc : cm_usage_json(&s->child->usage, &e->json);
        return;
    }
    cm_usage_add(&own, s->batch->model.name, &s->usage);
    e->rc = e->rc ? e->rc : cm_usage_json(&own, &e->json);
    cm_usage_done(&own);
}

/* Of a child: what the file's reader finds below its call. Events have it as events of its own, of that node. */
static void put_child(struct event *e, const struct cm_slot *s, int what)
{
    struct cm_node *c = s->child;

    if (c && c->said && what == CM_LIVE)
        put_count(e, "node", c->number);
    put_key(e, "metadata");
    if (!c || !c->said || what == CM_LIVE) {
        put(e, "null", 4);
        return;
    }
    put(e, "{\"run_metadata\":{", 17);
    put_metadata(e, c);
    put(e, "},\"iterations\":[", 16);
    put(e, cm_buf_data(&c->log), c->log.len);
    put(e, "]}", 2);
}

/* A record of a sub-query joins those of the block. What finds no room is left out. */
static void record(const struct cm_slot *s, const char *text, size_t len, int what)
{
    struct cm_node *n = s->batch->node;
    struct cm_buf *to = &n->calls[what];
    struct event e = {.rc = 0};

    if (!cm_run_logs(n->run, what) || n->state != CM_NODE_BLOCK)
        return;
    cm_buf_init(&e.json, to->max);
    put(&e, "{", 1);
    put_words(&e, "root_model", s->batch->model.name);
    put_text(&e, "prompt", s->head ? s->head : "", s->head ? s->head_len : 0, CM_SLOT_HEAD_MAX);
    put_text(&e, "response", text, len, CM_SLOT_HEAD_MAX);
    put_slot_usage(&e, s);
    put_real(&e, "execution_time", seconds_since(s->began_ns));
    put_child(&e, s, what);
    put(&e, "}", 1);
    if (e.rc == 0 && e.json.len + 1 <= to->max - to->len) {
        if (to->len == 0 || cm_buf_append(to, ",", 1) == 0)
            cm_buf_append(to, cm_buf_data(&e.json), e.json.len);
    }
    cm_buf_done(&e.json);
}

void cm_event_subcall_complete(struct cm_slot *s, const char *text, size_t len, bool failed)
{
    struct cm_node *n = s->batch->node;
    struct event e;

    record(s, text, len, CM_LIVE);
    record(s, text, len, CM_FILE);
    if (!cm_run_logs(n->run, CM_LIVE))
        return;
    begin(&e, "subcall_complete", n);
    put_count(&e, "call", s->number);
    put_real(&e, "duration", seconds_since(s->began_ns));
    put_text(&e, "error", failed ? text : NULL, len, CM_SLOT_HEAD_MAX);
    put_count(&e, "input_tokens", s->usage.input_tokens);
    put_count(&e, "output_tokens", s->usage.output_tokens);
    put_cost(&e, "cost", &s->usage);
    put_text(&e, "response_preview", text, cm_utf8_offset(text, len, PREVIEW_RESPONSE), SIZE_MAX);
    say(&e, n);
}

/* The end of a block, a turn, a node */

static void put_block(struct event *e, struct cm_node *n, int what)
{
    const struct cm_reply_block *b = &n->reply.blocks[n->block];

    put(e, "{", 1);
    put_text(e, "code", b->code, b->len, CM_RUN_TEXT_MAX);
    put_key(e, "result");
    put(e, "{", 1);
    put_text(e, "stdout", cm_buf_data(&n->texts[CM_BLOCK_OUT]), n->texts[CM_BLOCK_OUT].len, CM_RUN_TEXT_MAX);
    put_text(e, "stderr", cm_buf_data(&n->texts[CM_BLOCK_ERR]), n->texts[CM_BLOCK_ERR].len, CM_RUN_TEXT_MAX);
    if (n->texts[CM_BLOCK_VALUE].len > 0)
        put_text(e, "value", cm_buf_data(&n->texts[CM_BLOCK_VALUE]), n->texts[CM_BLOCK_VALUE].len, CM_RUN_TEXT_MAX);
    if (n->texts[CM_BLOCK_ERROR].len > 0)
        put_text(e, "error", cm_buf_data(&n->texts[CM_BLOCK_ERROR]), n->texts[CM_BLOCK_ERROR].len, CM_RUN_TEXT_MAX);
    put_raw(e, "locals", n->variables.len ? cm_buf_data(&n->variables) : "{}", n->variables.len ? n->variables.len : 2);
    put_real(e, "execution_time", n->code_s);
    put_key(e, "rlm_calls");
    put(e, "[", 1);
    put(e, cm_buf_data(&n->calls[what]), n->calls[what].len);
    put(e, "]", 1);
    put_text(e, "final_answer", n->final, n->final_len, CM_RUN_TEXT_MAX);
    put(e, "}}", 2);
}

void cm_event_block(struct cm_node *n)
{
    for (int what = CM_LIVE; what < CM_RECORDS; what++) {
        struct cm_buf *to = &n->blocks[what];
        struct event e = {.rc = 0};
        if (!cm_run_logs(n->run, what))
            continue;
        cm_buf_init(&e.json, to->max);
        put_block(&e, n, what);
        if (e.rc == 0 && e.json.len + 1 <= to->max - to->len && (to->len == 0 || cm_buf_append(to, ",", 1) == 0))
            cm_buf_append(to, cm_buf_data(&e.json), e.json.len);
        cm_buf_done(&e.json);
    }
}

static void put_iteration(struct event *e, struct cm_node *n, int what)
{
    const struct cm_llm_usage *u = &n->turn_usage;
    const struct cm_history shown = {.messages = n->history.messages, .count = n->history.count - 1};

    put_count(e, "iteration", n->turn + n->last);
    put_key(e, "prompt");
    put(e, "[", 1);
    if (e->rc == 0)
        e->rc = cm_history_json(&shown, what == CM_LIVE ? n->shown : 0, CM_RUN_TEXT_MAX, &e->json);
    put(e, "]", 1);
    put_text(e, "response", n->response, n->response_len, CM_RUN_TEXT_MAX);
    put_key(e, "code_blocks");
    put(e, "[", 1);
    put(e, cm_buf_data(&n->blocks[what]), n->blocks[what].len);
    put(e, "]", 1);
    put_text(e, "final_answer", n->final, n->final_len, CM_RUN_TEXT_MAX);
    put_real(e, "iteration_time", seconds_since(n->turn_ns));
    put_real(e, "model_time", (double)n->model_ns / 1e9);
    put_key(e, "usage");
    put(e, "{", 1);
    put_count(e, "input_tokens", u->input_tokens);
    put_count(e, "output_tokens", u->output_tokens);
    put_cost(e, "cost", u);
    put_raw(e, "estimated", u->estimated ? "true" : "false", u->estimated ? 4 : 5);
    put(e, "}", 1);
}

static void write_iteration(struct cm_node *n)
{
    struct event e;

    if (!n->run->file)
        return;
    begin(&e, "iteration", n);
    put_iteration(&e, n, CM_FILE);
    put(&e, "}", 1);
    if (e.rc == 0 && !n->slot)
        cm_trajectory_line(n->run->file, &e.json);
    else if (e.rc == 0 && e.json.len + 1 <= n->log.max - n->log.len &&
             (n->log.len == 0 || cm_buf_append(&n->log, ",", 1) == 0))
        cm_buf_append(&n->log, cm_buf_data(&e.json), e.json.len);
    cm_buf_done(&e.json);
}

void cm_event_iteration(struct cm_node *n)
{
    struct event e;

    write_iteration(n);
    if (!cm_run_logs(n->run, CM_LIVE))
        return;
    begin(&e, "iteration", n);
    put_iteration(&e, n, CM_LIVE);
    n->shown = n->history.count - 1; /* the reply is told with the next turn */
    say(&e, n);
}

void cm_event_compaction(struct cm_node *n, uint64_t before, uint64_t after)
{
    struct event e;

    if (!cm_run_logs(n->run, CM_LIVE))
        return;
    begin(&e, "compaction", n);
    put_count(&e, "iteration", n->turn);
    put_count(&e, "tokens_before", before);
    put_count(&e, "tokens_after", after);
    say(&e, n);
}

void cm_event_result(struct cm_node *n, const char *answer, size_t len, const struct cm_err *err)
{
    struct event e;

    if (n->said_result)
        return;
    n->said_result = true;
    if (!n->said) /* it has ended before its first turn */
        cm_event_metadata(n);
    if (!cm_run_logs(n->run, CM_LIVE))
        return;
    begin(&e, "result", n);
    put_text(&e, "answer", answer, len, SIZE_MAX);
    put_key(&e, "error");
    if (err->code) {
        put(&e, "{", 1);
        put_words(&e, "code", cm_err_info(err->code)->short_name);
        put_words(&e, "detail", err->text);
        put(&e, "}", 1);
    } else {
        put(&e, "null", 4);
    }
    put_text(&e, "partial_answer", err->code ? n->partial : NULL, n->partial_len, CM_RUN_TEXT_MAX);
    put_key(&e, "usage_summary");
    e.rc = e.rc ? e.rc : cm_usage_json(&n->usage, &e.json);
    put_real(&e, "execution_time", seconds_since(n->began_ns));
    say(&e, n);
}
