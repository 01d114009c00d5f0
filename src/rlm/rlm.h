/* SPDX-License-Identifier: Apache-2.0 */
/* Recursive language model inference (Zhang, Kraska, Khattab: arXiv 2512.24601).
 *
 * A run answers a query about a context that may be far larger than any model's window. The context becomes a variable in a
 * sandboxed session; the model sees its type and size only, writes Python that looks at it, asks models about parts of it
 * (llm_query) or starts runs on parts of it (rlm_query), and says when it has the answer. The whole is a tree of nodes: the
 * root is 0, each rlm_query that recurses is a node of its own with a session of its own.
 *
 * All is driven by one loop; every callback comes from there, never from inside the call that asked for it.
 */
#ifndef CM_RLM_H
#define CM_RLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "llm/llm.h"

#define CM_RLM_ID_MAX     40 /* "run-" or "conversation-", hex digits and the final NUL */
#define CM_RLM_MODELS_MAX 8

struct cm_buf;
struct cm_loop;
struct cm_metrics;
struct cm_rlm; /* the engine */
struct cm_rlm_conversation; /* persistent mode: one session over several runs */
struct cm_rlm_run;
struct cm_sidecar;

struct cm_rlm_config {
    struct cm_llm *llm;
    struct cm_sidecar *sidecar;
    struct cm_metrics *metrics; /* rlm_code_generated_total counts here; or NULL */
    unsigned runs_max; /* at once; further ones are CM_ERR_OVERLOADED */
    unsigned model_calls_max; /* requests to models at once, of all runs; further ones wait */
    const char *log_dir; /* trajectories go to <log_dir>/rlm_<date>_<8 hex>.jsonl, soon after; NULL: nowhere */
};

int cm_rlm_open(struct cm_loop *loop, const struct cm_rlm_config *config, struct cm_rlm **ret, struct cm_err *err);
/* Cancels all runs without a word, and waits a few seconds for trajectories to be written. Accepts NULL. */
struct cm_rlm *cm_rlm_free(struct cm_rlm *r);
unsigned cm_rlm_running(const struct cm_rlm *r);

struct cm_rlm_limits {
    unsigned max_depth; /* 1: sub-queries are plain completions */
    unsigned max_iterations; /* turns of each node */
    unsigned max_errors; /* consecutive turns with an error in their code; 0: any number */
    unsigned max_concurrent_subcalls; /* nodes below each node; llm_query_batched has 16 at once */
    uint64_t max_tokens; /* in and out, of the whole tree; 0: any number */
    double max_budget; /* USD, of the whole tree; 0: any sum */
    double max_timeout_s; /* of the whole tree; 0: none */
    double execution_timeout_s; /* of one block, without the time that it waits for sub-queries */
    uint64_t session_memory; /* bytes; 0: the sidecar's default */
};

/* Where a context comes from. With fd >= 0 it is read from there, once, as it goes to the session. */
struct cm_rlm_context {
    enum { CM_CONTEXT_TEXT, CM_CONTEXT_JSON } kind; /* JSON: any value; a list or an object stays one */
    const char *data; /* copied; NULL: none, or: */
    int fd; /* the engine's from cm_rlm_start() on, in any case; -1 for none */
    uint64_t len;
};

/* Strings are copied; NULL where there is none. */
struct cm_rlm_request {
    const char *query; /* root_prompt; may be NULL when there is a context */
    struct cm_rlm_context context;
    struct cm_llm_model models[CM_RLM_MODELS_MAX]; /* of depth 0, 1, ...: the last one repeats */
    unsigned models_count; /* at least 1 */
    struct cm_llm_model other; /* of llm_query, where name is set; else that of the next depth */
    struct cm_rlm_limits limits;
    const char *system_prompt; /* in place of ours; the names in braces of prompts/v1/system.md are filled in */
    const char *user_prologue;
    const char *custom_tools; /* JSON object: {name: value} or {name: {"tool": value, "description"}} makes variables,
                               * {name: {"code": source that defines the name, "description"}} makes functions */
    const char *custom_sub_tools; /* the same for nodes below the root; NULL: those of the root */
    const char *correlation;
    const char *key; /* whose it is, where several share the room for long texts; NULL: one has all of it */
    bool no_orchestrator; /* leave prompts/v1/orchestrator.md out */
    bool compaction;
    double compaction_threshold; /* part of the model's window, 0.85 where 0 */
    bool deltas; /* events say the words of models as they come */
    struct cm_rlm_conversation *conversation; /* or NULL */
};

/* What comes out. Pointers live until `done` returns; "" where there is nothing. */
struct cm_rlm_result {
    const char *answer; /* UTF-8; NULL when the run has failed */
    size_t answer_len;
    struct cm_err err; /* code 0, or CM_ERR_MODEL, CM_ERR_SIDECAR, CM_ERR_LIMIT_*, CM_ERR_CANCELLED, ... */
    const char *partial; /* of a run that has failed: the model's newest words */
    size_t partial_len;
    const char *usage; /* JSON: {"model_usage_summaries": {...}, "total_cost"?} */
    unsigned iterations; /* of the root */
    double seconds;
};

/* Events are JSON objects without line breaks; their shapes are in docs/rlm-events.md. */
struct cm_rlm_ops {
    void (*event)(void *arg, const char *type, const char *json, size_t len); /* may be NULL */
    void (*done)(void *arg, const struct cm_rlm_result *res); /* exactly once; the run is gone when it returns */
};

/* CM_ERR_BAD_FIELD names what cannot be; CM_ERR_BUSY: the conversation has a run. */
int cm_rlm_start(struct cm_rlm *r, const struct cm_rlm_request *req, const struct cm_rlm_ops *ops, void *arg,
                 struct cm_rlm_run **ret, struct cm_err *err);
/* Ends it with CM_ERR_CANCELLED: running code and requests are broken off; `done` comes from the loop. */
void cm_rlm_cancel(struct cm_rlm_run *run);
const char *cm_rlm_run_id(const struct cm_rlm_run *run);

/* A conversation's session begins with its first run and ends with it. `id` is its own. */
int cm_rlm_conversation_open(struct cm_rlm *r, struct cm_rlm_conversation **ret, struct cm_err *err);
const char *cm_rlm_conversation_id(const struct cm_rlm_conversation *c);
bool cm_rlm_conversation_busy(const struct cm_rlm_conversation *c);
/* Not while it is busy. Accepts NULL. */
struct cm_rlm_conversation *cm_rlm_conversation_free(struct cm_rlm_conversation *c);

#endif
