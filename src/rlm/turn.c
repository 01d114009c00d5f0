/* SPDX-License-Identifier: Apache-2.0 */
/* A turn: the model is asked, its blocks run, and what came out of them is the next message to it. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "obs/metrics.h"
#include "rlm/internal.h"
#include "rlm/output.h"
#include "rlm/prompts.h"

#define BAD_REPLIES_MAX 2 /* one after the other that are of no use: the first one is asked for again */

static void on_reply(void *arg, const struct cm_llm_reply *reply);

static void no_memory(struct cm_node *n)
{
    cm_node_fail(n, CM_ERR_NO_MEMORY, "no memory for the messages to the model");
}

static void ask(struct cm_node *n)
{
    n->ask = (struct cm_ask){
        .node = n,
        .model = n->model,
        .messages = n->history.messages,
        .count = n->history.count,
        .deltas = n->run->request.deltas && n->run->ops.event && n->state != CM_NODE_SUMMARY,
        .done = on_reply,
        .arg = n,
    };
    n->ask_ns = cm_clock_ns();
    cm_ask_start(&n->ask);
}

/* The user's next message: what is pending, and the prompt. */
static int add_message(struct cm_node *n, enum cm_prompt prompt)
{
    const struct cm_var vars[] = {
        CM_VAR_NUMBER("turn", n->turn), CM_VAR_NUMBER("max_turns", n->run->request.limits.max_iterations), {0}};
    struct cm_buf text;
    size_t len = 0;
    int rc;

    cm_buf_init(&text, CM_MESSAGE_BYTES_MAX);
    if ((rc = cm_buf_append(&text, cm_buf_data(&n->pending), n->pending.len)) == 0 &&
        (rc = cm_buf_puts(&text, "\n\n")) == 0 && (rc = cm_prompt_put(&text, prompt, vars)) == 0) {
        char *taken = cm_buf_steal(&text, &len);
        rc = cm_history_add(&n->history, CM_LLM_USER, taken, len);
    }
    cm_buf_done(&text);
    return rc;
}

static bool wants_summary(const struct cm_node *n)
{
    const struct cm_rlm_request *q = &n->run->request;

    if (!q->compaction || n->turn <= n->compacted || n->turn == q->limits.max_iterations)
        return false;
    uint64_t used = (n->tokens > 0 ? n->tokens : n->history.tokens) + n->pending.len / 4;
    double window = cm_llm_window(n->run->rlm->llm, n->model->name);
    return (double)used >= window * q->compaction_threshold;
}

static void begin_summary(struct cm_node *n)
{
    n->state = CM_NODE_SUMMARY;
    n->compacted = n->turn;
    if (add_message(n, CM_PROMPT_COMPACTION) < 0)
        return no_memory(n);
    ask(n);
}

static enum cm_prompt turn_prompt(const struct cm_node *n)
{
    if (n->turn == 1)
        return CM_PROMPT_FIRST_TURN;
    return n->turn == n->run->request.limits.max_iterations ? CM_PROMPT_LAST_TURN : CM_PROMPT_TURN;
}

static void forget_turn(struct cm_node *n)
{
    cm_reply_done(&n->reply);
    free(n->response);
    n->response = NULL;
    n->response_len = 0;
    n->failed = false;
    n->block = 0;
    n->model_ns = n->code_ns = 0;
    n->turn_usage = (struct cm_llm_usage){0};
    for (int i = 0; i < CM_RECORDS; i++)
        cm_buf_clear(&n->blocks[i]);
}

void cm_turn_begin(struct cm_node *n)
{
    if (wants_summary(n))
        return begin_summary(n);
    forget_turn(n);
    n->turn_ns = cm_clock_ns();
    n->last = n->turn == n->run->request.limits.max_iterations;
    n->state = n->last ? CM_NODE_FINAL : CM_NODE_TURN;
    if (!n->last)
        n->turn++;
    if (add_message(n, n->last ? CM_PROMPT_FINAL : turn_prompt(n)) < 0)
        return no_memory(n);
    cm_buf_clear(&n->pending);
    cm_event_turn(n);
    ask(n);
}

/* What a reply is good for */

static char *copy(const char *text, size_t len)
{
    char *mine = malloc(len + 1);

    if (mine) {
        memcpy(mine, text, len);
        mine[len] = '\0';
    }
    return mine;
}

static bool is_white(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_blank(const char *text, size_t len)
{
    while (len > 0 && is_white(text[len - 1]))
        len--;
    return len == 0;
}

static void note(struct cm_node *n, const struct cm_llm_reply *r, const char *words, size_t len)
{
    n->model_ns += cm_clock_ns() - n->ask_ns;
    n->turn_usage.input_tokens += r->usage.input_tokens;
    n->turn_usage.output_tokens += r->usage.output_tokens;
    n->turn_usage.estimated |= r->usage.estimated;
    n->turn_usage.priced |= r->usage.priced;
    n->turn_usage.cost += r->usage.cost;
    n->tokens = r->usage.estimated ? 0 : r->usage.input_tokens + r->usage.output_tokens;
    if (is_blank(words, len) || n->state == CM_NODE_SUMMARY)
        return;
    char *mine = copy(words, len);
    if (!mine)
        return;
    free(n->partial);
    n->partial = mine;
    n->partial_len = len;
}

/* A reply that was cut is good when a whole block or a whole answer was not. */
static bool is_good(const struct cm_node *n, const struct cm_llm_reply *r, const struct cm_reply *read, size_t words)
{
    if (words == 0)
        return false;
    if (r->failure == CM_LLM_OK || r->failure == CM_LLM_REFUSAL)
        return true;
    bool cut = r->failure == CM_LLM_CUT || r->failure == CM_LLM_TOO_LARGE;
    return cut && n->state == CM_NODE_TURN && (read->count > 0 || read->final != CM_FINAL_NONE);
}

/* What another attempt may do better. */
static bool is_weak(enum cm_llm_failure f)
{
    return f == CM_LLM_OK || f == CM_LLM_REFUSAL || f == CM_LLM_EMPTY || f == CM_LLM_BAD_ANSWER || f == CM_LLM_CUT ||
           f == CM_LLM_TOO_LARGE;
}

static void take_bad(struct cm_node *n, const struct cm_llm_reply *r)
{
    if (n->state == CM_NODE_SUMMARY) { /* the turn begins without it */
        cm_history_drop(&n->history);
        cm_turn_begin(n);
    } else if (is_weak(r->failure) && ++n->bad_replies < BAD_REPLIES_MAX) {
        ask(n);
    } else {
        const char *name = r->failure == CM_LLM_OK ? "empty" : cm_llm_failure_name(r->failure);
        cm_node_fail(n, CM_ERR_MODEL, "the model `%.100s` gave no reply of use: %s%s%s", n->model->name, name,
                     r->reason[0] ? ": " : "", r->reason);
    }
}

static void take_summary(struct cm_node *n, const char *words, size_t len)
{
    uint64_t before = n->tokens > 0 ? n->tokens : n->history.tokens;
    char *first = copy(n->preface, n->preface_len), *summary = copy(words, len);

    cm_buf_clear(&n->pending);
    int rc = first && summary ? cm_history_compact(&n->history) : CM_ERR_NO_MEMORY;
    if (rc < 0) {
        free(first);
        free(summary);
        return no_memory(n);
    }
    rc = cm_history_add(&n->history, CM_LLM_USER, first, n->preface_len);
    if (rc < 0)
        free(summary);
    else
        rc = cm_history_add(&n->history, CM_LLM_ASSISTANT, summary, len);
    if (rc < 0 || cm_prompt_put(&n->pending, CM_PROMPT_CONTINUE, NULL) < 0)
        return no_memory(n);
    n->tokens = 0;
    n->shown = 0;
    cm_event_compaction(n, before, n->history.tokens + n->pending.len / 4);
    cm_setup_history(n);
}

/* Without turns left no code runs, but a variable may still be named. */
static void take_turn(struct cm_node *n)
{
    if (n->reply.count > 0 && !n->last)
        cm_block_begin(n);
    else
        cm_turn_ran(n);
}

static void take_good(struct cm_node *n, const struct cm_llm_reply *r, struct cm_reply *read, size_t thoughts)
{
    char *words = copy(r->text + thoughts, r->len - thoughts);

    n->bad_replies = 0;
    n->reply = *read;
    *read = (struct cm_reply){0};
    n->response = copy(r->text, r->len);
    n->response_len = r->len;
    if (!n->response || cm_history_add(&n->history, CM_LLM_ASSISTANT, words, r->len - thoughts) < 0) {
        if (!n->response)
            free(words);
        no_memory(n);
    } else {
        take_turn(n);
    }
}

static void on_reply(void *arg, const struct cm_llm_reply *r)
{
    struct cm_node *n = arg;
    size_t thoughts = cm_reply_thoughts(r->text, r->len), len = r->len - thoughts;
    struct cm_reply read = {0};

    note(n, r, r->text + thoughts, len);
    if (cm_node_over(n))
        return;
    if (cm_reply_read(r->text, r->len, &read) < 0)
        return no_memory(n);
    if (!is_good(n, r, &read, is_blank(r->text + thoughts, len) ? 0 : len))
        take_bad(n, r);
    else if (n->state == CM_NODE_SUMMARY)
        take_summary(n, r->text + thoughts, len);
    else
        take_good(n, r, &read, thoughts);
    cm_reply_done(&read);
}

/* The end of a turn */

void cm_turn_ran(struct cm_node *n)
{
    if (n->final || n->reply.final == CM_FINAL_NONE)
        return cm_turn_end(n);
    if (n->reply.final == CM_FINAL_VARIABLE)
        return cm_lookup_begin(n, n->reply.value);
    n->final = n->reply.value;
    n->final_len = n->reply.value_len;
    n->reply.value = NULL;
    cm_turn_end(n);
}

/* What is said of a reply whose code, or a part of it, could not run. */
static int put_not_run(struct cm_node *n)
{
    bool nothing = n->reply.count == 0 && n->pending.len == 0; /* FINAL_VAR of no variable has its own words */
    int rc = 0;

    if (!nothing && !n->reply.unclosed)
        return 0;
    if (n->pending.len > 0)
        rc = cm_buf_puts(&n->pending, "\n\n");
    return rc < 0 ? rc : cm_prompt_put(&n->pending, n->reply.unclosed ? CM_PROMPT_UNCLOSED : CM_PROMPT_NO_CODE, NULL);
}

static void answer(struct cm_node *n)
{
    char *text = n->final;

    n->final = NULL;
    cm_node_answer(n, text, n->final_len);
}

/* Without turns left, whatever the model has said is the answer. */
static int settle(struct cm_node *n)
{
    const struct cm_llm_message *words = &n->history.messages[n->history.count - 1];
    const char *text = words->text;
    size_t len = words->len;

    if (n->final || !n->last)
        return 0;
    while (len > 0 && is_white(text[len - 1]))
        len--;
    while (len > 0 && is_white(*text))
        text++, len--;
    n->final = copy(text, len);
    n->final_len = len;
    return n->final ? 0 : CM_ERR_NO_MEMORY;
}

void cm_turn_end(struct cm_node *n)
{
    unsigned max_errors = n->run->request.limits.max_errors;
    uint64_t took = cm_clock_ns() - n->turn_ns, elsewhere = n->model_ns + n->code_ns;

    if (settle(n) < 0)
        return no_memory(n);
    cm_metrics_observe_ns(n->run->rlm->metrics, CM_M_RLM_OVERHEAD, took > elsewhere ? took - elsewhere : 0);
    cm_event_iteration(n);
    if (n->final)
        return answer(n);
    n->errors = n->failed ? n->errors + 1 : 0;
    if (max_errors > 0 && n->errors >= max_errors) {
        const struct cm_buf *e = &n->texts[CM_BLOCK_ERROR];
        cm_node_fail(n, CM_ERR_LIMIT_ERRORS,
                     "%u turns in a row had errors in their code (max_errors), the last one: %.*s", n->errors,
                     (int)(e->len < 200 ? e->len : 200), e->mem ? e->mem + e->off : "");
    } else if (put_not_run(n) < 0) {
        no_memory(n);
    } else {
        cm_turn_begin(n);
    }
}
