/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to models, with what they cost. Limits of tokens and money end the run as soon as they are passed. */
#include <math.h>

#include "base/clock.h"
#include "obs/metrics.h"
#include "rlm/internal.h"

#define COST_MAX 1e15 /* millionths of USD that one reply counts for: services say any number of tokens */

static void count(const struct cm_ask *ask, const struct cm_llm_reply *reply)
{
    struct cm_metrics *m = ask->node->run->rlm->metrics;
    const struct cm_llm_usage *u = &reply->usage;

    cm_metrics_add(m, CM_M_RLM_MODEL_CALLS, (unsigned)reply->failure, 1);
    cm_metrics_observe_ns(m, CM_M_RLM_MODEL_DURATION, (uint64_t)(reply->seconds * 1e9));
    if (reply->attempts > 1)
        cm_metrics_add(m, CM_M_RLM_MODEL_RETRIES, 0, reply->attempts - 1);
    cm_metrics_add(m, CM_M_RLM_TOKENS, CM_L_TOKENS_INPUT, (int64_t)u->input_tokens);
    cm_metrics_add(m, CM_M_RLM_TOKENS, CM_L_TOKENS_OUTPUT, (int64_t)u->output_tokens);
    cm_metrics_add(m, CM_M_RLM_TOKENS, CM_L_TOKENS_CACHED, (int64_t)u->cached_tokens);
    cm_metrics_add(m, CM_M_RLM_COST, 0, (int64_t)fmin(u->cost * 1e6, COST_MAX));
}

static void account(const struct cm_ask *ask, const struct cm_llm_reply *reply)
{
    struct cm_rlm_run *run = ask->node->run;
    const struct cm_rlm_limits *limits = &run->request.limits;

    count(ask, reply);
    run->tokens += reply->usage.input_tokens + reply->usage.output_tokens;
    run->cost += reply->usage.cost;
    for (struct cm_node *n = ask->node; n; n = cm_node_parent(n))
        cm_usage_add(&n->usage, ask->model->name, &reply->usage);
    if (limits->max_tokens > 0 && run->tokens > limits->max_tokens)
        cm_run_fail(run, CM_ERR_LIMIT_TOKENS, "the run has used %llu of %llu tokens (max_tokens)",
                    (unsigned long long)run->tokens, (unsigned long long)limits->max_tokens);
    if (limits->max_budget > 0 && run->cost > limits->max_budget)
        cm_run_fail(run, CM_ERR_LIMIT_BUDGET, "the run has spent %.6g of %.6g USD (max_budget)", run->cost,
                    limits->max_budget);
}

static void leave(struct cm_ask *ask)
{
    if (ask->wait.state == CM_GATE_IN)
        cm_metrics_add(ask->node->run->rlm->metrics, CM_M_RLM_MODEL_CALLS_RUNNING, 0, -1);
    cm_gate_leave(&ask->node->run->rlm->gate, &ask->wait);
}

static void on_delta(void *arg, const char *text, size_t len)
{
    const struct cm_ask *ask = arg;

    if (!ask->node->run->ending)
        cm_event_delta(ask->node, text, len);
}

static void on_done(void *arg, const struct cm_llm_reply *reply)
{
    struct cm_ask *ask = arg;

    ask->call = NULL;
    account(ask, reply);
    leave(ask);
    ask->done(ask->arg, reply);
}

static void on_refused(void *arg)
{
    struct cm_ask *ask = arg;
    const struct cm_llm_reply reply = {
        .failure = ask->err.code == CM_ERR_NO_MEMORY ? CM_LLM_NO_MEMORY : CM_LLM_BAD_REQUEST,
        .text = "",
        .reason = ask->err.text,
        .finish = "",
        .model = ask->model->name,
    };

    leave(ask);
    ask->done(ask->arg, &reply);
}

static void go(void *arg)
{
    static const struct cm_llm_ops quiet = {.done = on_done}, loud = {.delta = on_delta, .done = on_done};
    struct cm_ask *ask = arg;
    struct cm_rlm_run *run = ask->node->run;

    cm_metrics_add(run->rlm->metrics, CM_M_RLM_MODEL_CALLS_RUNNING, 0, 1);
    if (cm_llm_ask(run->rlm->llm, ask->model, ask->messages, ask->count, cm_run_left(run), ask->deltas ? &loud : &quiet,
                   ask, &ask->call, &ask->err) < 0) {
        ask->call = NULL;
        cm_task_post(run->rlm->loop, &ask->task, on_refused, ask);
    }
}

void cm_ask_start(struct cm_ask *ask)
{
    struct cm_rlm_run *run = ask->node->run;

    ask->wait = (struct cm_gate_wait){.go = go, .arg = ask};
    cm_gate_enter(&run->rlm->gate, &run->asks, &ask->wait);
}

void cm_ask_cancel(struct cm_ask *ask)
{
    if (!ask->node)
        return;
    cm_task_cancel(ask->node->run->rlm->loop, &ask->task);
    if (ask->call)
        cm_llm_cancel(ask->call);
    ask->call = NULL;
    leave(ask);
}
