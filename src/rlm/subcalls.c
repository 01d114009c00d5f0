/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of a session's functions: sub-queries one by one and in batches, pieces of long texts. */
#include "rlm/subcalls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "obs/metrics.h"
#include "rlm/output.h"
#include "rlm/prompts.h"
#include "wire/json.h"

#define NOTE_MAX 200 /* bytes of the note behind a reply that was cut */
#define RESERVE  1024 /* bytes of the answer that each reply finds room in */

static void pump(struct cm_batch *b);
static void pump_others(struct cm_node *n);

const char *cm_slot_kind(const struct cm_slot *slot)
{
    return slot->batch->recursive ? "rlm" : "llm";
}

/* The end of a batch */

static void free_slot(struct cm_slot *s)
{
    cm_parts_text_done(&s->prompt);
    free(s->head);
    free(s->json);
}

static void free_batch(struct cm_batch *b)
{
    struct cm_node *n = b->node;

    DL_DELETE(n->batches, b);
    n->waiting--;
    for (size_t i = 0; i < b->count; i++)
        free_slot(&b->slots[i]);
    free(b->slots);
    free(b);
}

/* Nobody waits for it any more. */
static void drop(struct cm_batch *b)
{
    static const char why[] = "cancelled";
    const struct cm_err cancelled = {.code = CM_ERR_CANCELLED, .text = "nobody waits for it any more"};

    for (size_t i = 0; i < b->next_slot; i++) {
        struct cm_slot *s = &b->slots[i];
        if (s->state != CM_SLOT_RUNS)
            continue;
        cm_ask_cancel(&s->ask);
        if (s->child)
            cm_node_abort(s->child, &cancelled);
        s->child = NULL;
        b->node->children -= b->recursive;
        cm_event_subcall_complete(s, why, sizeof why - 1, true);
    }
    free_batch(b);
}

void cm_subcalls_drop_all(struct cm_node *n)
{
    while (n->batches)
        drop(n->batches);
}

void cm_subcalls_gone(struct cm_node *n, unsigned number)
{
    struct cm_batch *b;

    DL_FOREACH(n->batches, b)
    if (b->call == number) {
        drop(b);
        break;
    }
    if (n->waiting == 0)
        cm_clock_resume(n);
}

static int put_answer(const struct cm_batch *b, struct cm_buf *to)
{
    int rc = b->single ? 0 : cm_buf_append(to, "[", 1);

    for (size_t i = 0; i < b->count && rc == 0; i++)
        if (i == 0 || (rc = cm_buf_append(to, ",", 1)) == 0)
            rc = cm_buf_append(to, b->slots[i].json, b->slots[i].json_len);
    return rc < 0 || b->single ? rc : cm_buf_append(to, "]", 1);
}

static void fail_call(struct cm_node *n, unsigned number, enum cm_text text, uint64_t limit)
{
    const struct cm_var vars[] = {CM_VAR_NUMBER("limit", limit), {0}};
    cm_autobuf struct cm_buf words;

    cm_buf_init(&words, 1024);
    cm_text_put(&words, text, vars);
    cm_sidecar_fail(n->exec, number, cm_buf_data(&words), words.len);
}

static void finish(struct cm_batch *b)
{
    struct cm_node *n = b->node;
    unsigned call = b->call;
    struct cm_buf json;

    cm_buf_init(&json, CM_RESULT_BYTES_MAX + 2 * b->count + 1024);
    int rc = put_answer(b, &json);
    free_batch(b);
    if (n->waiting == 0)
        cm_clock_resume(n);
    if (rc == 0)
        cm_sidecar_answer(n->exec, call, cm_buf_data(&json), json.len);
    else
        fail_call(n, call, CM_TEXT_BAD_CALL, 0);
    cm_buf_done(&json);
}

/* One query */

static size_t json_cost(char c)
{
    return (unsigned char)c < 0x20 ? 6 : c == '"' || c == '\\' ? 2 : 1;
}

/* Bytes of a text whose JSON is not above `room`. */
static size_t fitting(const char *text, size_t len, size_t room)
{
    size_t cost = 2;

    for (size_t i = 0; i < len; i++)
        if ((cost += json_cost(text[i])) > room)
            return i;
    return len;
}

/* What is beyond the batch's room is left out with a note. Each reply that is still to come has its reserve. */
static int put_reply(struct cm_batch *b, struct cm_buf *to, const char *text, size_t len)
{
    size_t share = CM_RESULT_BYTES_MAX / b->count, reserve = share < RESERVE ? share : RESERVE;
    size_t room = b->room - reserve * (b->count - b->done);
    size_t fits = fitting(text, len, room);
    cm_autobuf struct cm_buf cut;

    cm_buf_init(&cut, len + NOTE_MAX);
    if (fits == len)
        return cm_json_put_string(to, text, len);
    fits = room > NOTE_MAX ? fitting(text, len, room - NOTE_MAX) : 0;
    fits -= cm_utf8_cut_end(text, fits);
    const struct cm_var vars[] = {CM_VAR_NUMBER("dropped", cm_utf8_count(text + fits, len - fits)), {0}};
    if (cm_buf_append(&cut, text, fits) < 0 || (room > NOTE_MAX && cm_text_put(&cut, CM_TEXT_REPLY_CUT, vars) < 0))
        return CM_ERR_NO_MEMORY;
    return cm_json_put_string(to, cm_buf_data(&cut), cut.len);
}

static void end_slot(struct cm_slot *s, const char *text, size_t len, bool failed)
{
    struct cm_batch *b = s->batch;
    struct cm_node *n = b->node;
    struct cm_buf json;

    s->state = CM_SLOT_DONE;
    b->running--;
    n->children -= b->recursive;
    b->done++;
    cm_buf_init(&json, CM_RESULT_BYTES_MAX);
    if (put_reply(b, &json, text, len) < 0) {
        cm_buf_clear(&json);
        cm_buf_puts(&json, "\"\"");
    }
    s->json = cm_buf_steal(&json, &s->json_len);
    cm_buf_done(&json);
    b->room -= s->json_len < b->room ? s->json_len : b->room;
    cm_event_subcall_complete(s, text, len, failed);
    s->child = NULL;
    cm_parts_text_done(&s->prompt);
    free(s->head);
    s->head = NULL;
    if (b->pumping)
        return;
    pump(b);
    pump_others(n);
}

static void fail_slot(struct cm_slot *s, const char *reason)
{
    const struct cm_var vars[] = {CM_VAR("reason", reason, strlen(reason)), {0}};
    cm_autobuf struct cm_buf text;

    cm_buf_init(&text, strlen(reason) + 1024);
    cm_text_put(&text, CM_TEXT_ERROR, vars);
    end_slot(s, cm_buf_data(&text), text.len, true);
}

static void on_reply(void *arg, const struct cm_llm_reply *r)
{
    struct cm_slot *s = arg;
    size_t thoughts = cm_reply_thoughts(r->text, r->len);
    char reason[600];

    if (s->batch->node->run->ending)
        return;
    s->usage = r->usage;
    while (thoughts > 0 && thoughts < r->len && strchr("\r\n", r->text[thoughts]))
        thoughts++;
    bool words = r->len > thoughts && (r->failure == CM_LLM_OK || r->failure == CM_LLM_REFUSAL);
    if (words) {
        end_slot(s, r->text + thoughts, r->len - thoughts, false);
        return;
    }
    const char *name = r->failure == CM_LLM_OK ? "empty" : cm_llm_failure_name(r->failure);
    int n = snprintf(reason, sizeof reason, "%s%s%s", name, r->reason[0] ? ": " : "", r->reason);
    if (n >= (int)sizeof reason)
        reason[sizeof reason - 1 - cm_utf8_cut_end(reason, sizeof reason - 1)] = '\0';
    fail_slot(s, reason);
}

static void start_plain(struct cm_slot *s)
{
    const struct cm_var vars[] = {
        CM_VAR_NUMBER("length", s->prompt.len), CM_VAR_NUMBER("limit", CM_PROMPT_BYTES_MAX), {0}};
    cm_autobuf struct cm_buf text;
    int rc = cm_parts_load(&s->prompt, CM_PROMPT_BYTES_MAX);

    cm_buf_init(&text, 1024);
    if (rc < 0) {
        cm_text_put(&text, CM_TEXT_PROMPT_TOO_LONG, vars);
        fail_slot(s, rc == CM_ERR_TOO_LARGE ? cm_buf_data(&text) : "no memory for the prompt");
        return;
    }
    s->message = (struct cm_llm_message){CM_LLM_USER, s->prompt.data, (size_t)s->prompt.len};
    if (s->message.len == 0)
        s->message = (struct cm_llm_message){CM_LLM_USER, " ", 1}; /* a message without a text is refused by some */
    s->ask = (struct cm_ask){
        .node = s->batch->node,
        .model = &s->batch->model,
        .messages = &s->message,
        .count = 1,
        .done = on_reply,
        .arg = s,
    };
    cm_ask_start(&s->ask);
}

static void start_child(struct cm_slot *s)
{
    struct cm_node *parent = s->batch->node;
    struct cm_rlm_run *run = parent->run;
    const struct cm_var vars[] = {CM_VAR_NUMBER("limit", CM_RUN_NODES_MAX), {0}};
    cm_autobuf struct cm_buf text;
    struct cm_err err = {0};

    cm_buf_init(&text, 1024);
    if (run->nodes > CM_RUN_NODES_MAX) {
        cm_text_put(&text, CM_TEXT_TOO_MANY_RUNS, vars);
        fail_slot(s, cm_buf_data(&text));
        return;
    }
    struct cm_node *child = cm_node_new(run, s, parent->depth + 1, &err);
    if (!child) {
        fail_slot(s, err.text);
        return;
    }
    s->child = child;
    child->model = &s->batch->model;
    child->own = CM_OWN_TEXT;
    child->context = s->prompt;
    s->prompt = (struct cm_parts_text){.fd = -1};
    cm_setup_next(child);
}

void cm_slot_child_ended(struct cm_slot *s, struct cm_node *child, const char *answer, size_t len,
                         const struct cm_err *err)
{
    s->usage = (struct cm_llm_usage){0};
    for (size_t i = 0; i < child->usage.count; i++) {
        s->usage.input_tokens += child->usage.rows[i].input_tokens;
        s->usage.output_tokens += child->usage.rows[i].output_tokens;
        s->usage.priced |= child->usage.rows[i].priced;
        s->usage.cost += child->usage.rows[i].cost;
    }
    if (answer)
        end_slot(s, answer, len, false);
    else
        fail_slot(s, err->text);
}

/* The beginning of a prompt, for whoever watches. */
static void take_head(struct cm_slot *s)
{
    struct cm_parts_text *p = &s->prompt;
    size_t max = 4 * CM_SLOT_HEAD_MAX, len = p->len < max ? (size_t)p->len : max;

    s->prompt_length = p->data ? cm_utf8_count(p->data, (size_t)p->len) : p->len;
    s->head = malloc(len + 1);
    if (!s->head)
        return;
    if (p->data) {
        memcpy(s->head, p->data, len);
    } else {
        ssize_t n = pread(p->fd, s->head, len, 0);
        len = n > 0 ? (size_t)n : 0;
    }
    s->head_len = len - cm_utf8_cut_end(s->head, len);
    s->head[s->head_len] = '\0';
}

static void start_slot(struct cm_slot *s)
{
    struct cm_batch *b = s->batch;
    struct cm_rlm_run *run = b->node->run;

    s->state = CM_SLOT_RUNS;
    s->number = ++run->subcalls;
    s->began_ns = cm_clock_ns();
    b->running++;
    b->node->children += b->recursive;
    cm_metrics_add(run->rlm->metrics, CM_M_RLM_SUBCALLS, b->recursive ? CM_L_SUBCALL_RLM : CM_L_SUBCALL_LLM, 1);
    take_head(s);
    cm_event_subcall_start(s);
    if (b->recursive)
        start_child(s);
    else
        start_plain(s);
}

/* Runs inside this one are counted over all calls: code may make them from many threads. */
static bool can_start(const struct cm_batch *b)
{
    const struct cm_node *n = b->node;

    return b->next_slot < b->count && b->running < b->bound && !n->run->ending &&
           !(b->recursive && n->children >= n->run->request.limits.max_concurrent_subcalls);
}

static void pump(struct cm_batch *b)
{
    b->pumping = true;
    while (can_start(b))
        start_slot(&b->slots[b->next_slot++]);
    b->pumping = false;
    if (b->done == b->count)
        finish(b);
}

/* A batch that ends is gone, so the look at them begins anew each time. */
static void pump_others(struct cm_node *n)
{
    struct cm_batch *b = n->batches;

    while (b) {
        bool can = can_start(b);
        if (can)
            pump(b);
        b = can ? n->batches : b->next;
    }
}

/* The beginning of a batch */

static bool is_json_null(const struct cm_json_value *v)
{
    return v->kind == CM_JSON_ABSENT || v->kind == CM_JSON_NULL;
}

int cm_text_take(struct cm_node *n, struct cm_json_value *v, struct cm_parts_text *ret)
{
    struct cm_json_member key = {.name = "key"};
    size_t len;

    if (v->kind == CM_JSON_STRING)
        return cm_json_decode(v, &len) ? cm_parts_hold(&n->run->held, v->raw, len, ret) : CM_ERR_BAD_FIELD;
    if (v->kind != CM_JSON_OBJECT || cm_json_object(v->raw, v->len, &key, 1, NULL) < 0 ||
        key.value.kind != CM_JSON_STRING || !cm_json_decode(&key.value, &len))
        return CM_ERR_BAD_FIELD;
    return cm_parts_take(&n->parts, key.value.raw, len, ret);
}

/* The run's own models only: what code asks for must not choose what the caller's key pays for. */
static const struct cm_llm_model *model_named(const struct cm_rlm_request *q, const char *name, size_t len)
{
    for (unsigned i = 0; i < q->models_count; i++)
        if (strlen(q->models[i].name) == len && memcmp(q->models[i].name, name, len) == 0)
            return &q->models[i];
    return q->other.name && strlen(q->other.name) == len && memcmp(q->other.name, name, len) == 0 ? &q->other : NULL;
}

static int take_model(struct cm_batch *b, struct cm_json_value *v)
{
    const struct cm_rlm_request *q = &b->node->run->request;
    const struct cm_llm_model *next = cm_run_model(b->node->run, b->node->depth + 1), *named;
    size_t len;

    b->model = !b->recursive && q->other.name ? q->other : *next;
    if (is_json_null(v))
        return 0;
    if (v->kind != CM_JSON_STRING || !cm_json_decode(v, &len))
        return CM_ERR_BAD_FIELD;
    named = model_named(q, v->raw, len);
    if (named)
        b->model = *named;
    return 0;
}

static bool count_one(void *arg, struct cm_json_value *value)
{
    (void)value;
    return ++*(size_t *)arg <= CM_BLOCK_SUBCALLS_MAX;
}

struct taking {
    struct cm_batch *b;
    size_t next;
    int rc;
};

static bool take_prompt(void *arg, struct cm_json_value *value)
{
    struct taking *t = arg;

    t->rc = cm_text_take(t->b->node, value, &t->b->slots[t->next].prompt);
    t->next += t->rc == 0;
    return t->rc == 0;
}

static int take_prompts(struct cm_batch *b, struct cm_json_value *v)
{
    struct taking t = {b, 0, 0};
    size_t count = 1;

    if (!b->single) {
        count = 0;
        if (v->kind != CM_JSON_ARRAY)
            return CM_ERR_BAD_FIELD;
        cm_json_elements(v, count_one, &count);
    }
    if (count > CM_BLOCK_SUBCALLS_MAX || b->node->block_calls + count > CM_BLOCK_SUBCALLS_MAX)
        return CM_ERR_OVERLOADED;
    b->slots = calloc(count ? count : 1, sizeof *b->slots);
    if (!b->slots)
        return CM_ERR_NO_MEMORY;
    b->count = count;
    b->node->block_calls += count;
    for (size_t i = 0; i < count; i++) {
        b->slots[i].batch = b;
        b->slots[i].prompt.fd = -1;
    }
    if (b->single)
        take_prompt(&t, v);
    else
        cm_json_elements(v, take_prompt, &t);
    return t.rc;
}

static int read_batch(struct cm_batch *b, char *arguments, size_t len)
{
    struct cm_json_member members[] = {{.name = b->single ? "prompt" : "prompts"}, {.name = "model"}};
    int rc = cm_json_object(arguments, len, members, 2, NULL);

    if (rc < 0 || (rc = take_model(b, &members[1].value)) < 0)
        return rc;
    return take_prompts(b, &members[0].value);
}

static enum cm_text text_of(int rc)
{
    switch (rc) {
    case CM_ERR_OVERLOADED:
        return CM_TEXT_TOO_MANY_SUBCALLS;
    case CM_ERR_NO_CALL:
        return CM_TEXT_UNKNOWN_TEXT;
    case CM_ERR_TOO_LARGE:
    case CM_ERR_NO_MEMORY:
        return CM_TEXT_TOO_MANY_TEXTS;
    default:
        return CM_TEXT_BAD_CALL;
    }
}

static void begin_batch(struct cm_node *n, unsigned number, bool recursive, bool single, char *arguments, size_t len)
{
    const struct cm_rlm_limits *limits = &n->run->request.limits;
    struct cm_batch *b = calloc(1, sizeof *b);

    if (!b) {
        fail_call(n, number, CM_TEXT_TOO_MANY_TEXTS, 0);
        return;
    }
    b->node = n;
    b->call = number;
    b->single = single;
    b->recursive = recursive && n->depth + 1 < limits->max_depth;
    b->bound = recursive ? limits->max_concurrent_subcalls : CM_LLM_BATCH_BOUND;
    b->room = CM_RESULT_BYTES_MAX;
    DL_APPEND(n->batches, b);
    n->waiting++;
    int rc = read_batch(b, arguments, len);
    if (rc < 0) {
        free_batch(b);
        fail_call(n, number, text_of(rc), CM_BLOCK_SUBCALLS_MAX);
        return;
    }
    cm_clock_pause(n);
    pump(b);
}

static void take_part(struct cm_node *n, unsigned number, char *arguments, size_t len)
{
    struct cm_json_member members[] = {{.name = "key"}, {.name = "text"}};
    struct cm_json_value *key = &members[0].value, *text = &members[1].value;
    size_t key_len, text_len;
    int rc = CM_ERR_BAD_FIELD;

    if (cm_json_object(arguments, len, members, 2, NULL) == 0 && key->kind == CM_JSON_STRING &&
        text->kind == CM_JSON_STRING && cm_json_decode(key, &key_len) && cm_json_decode(text, &text_len))
        rc = cm_parts_add(&n->parts, key->raw, key_len, text->raw, text_len);
    if (rc == 0)
        cm_sidecar_answer(n->exec, number, "null", 4);
    else
        fail_call(n, number, text_of(rc), 0);
}

void cm_subcalls_call(struct cm_node *n, unsigned number, const char *name, char *arguments, size_t len)
{
    static const struct {
        const char *name;
        bool recursive, single;
    } queries[] = {
        {"rlm.llm_query", false, true},
        {"rlm.llm_query_batched", false, false},
        {"rlm.rlm_query", true, true},
        {"rlm.rlm_query_batched", true, false},
    };

    for (size_t i = 0; i < CM_COUNT_OF(queries); i++)
        if (strcmp(name, queries[i].name) == 0) {
            if (n->state == CM_NODE_BLOCK)
                begin_batch(n, number, queries[i].recursive, queries[i].single, arguments, len);
            else
                fail_call(n, number, CM_TEXT_BAD_CALL, 0);
            return;
        }
    if (strcmp(name, "rlm.part") == 0)
        take_part(n, number, arguments, len);
    else
        fail_call(n, number, CM_TEXT_BAD_CALL, 0);
}
