/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share.
 *
 * A run is a tree of nodes. A node has a session and a history; it asks its model, runs the blocks of the reply, and asks
 * again. Code in a block makes batches of sub-queries; a slot of a batch is a request to a model or a node of its own.
 *
 * Nothing ends from inside a callback of another room but what that callback is the end of: a run that fails, is cancelled or
 * has its answer posts a task, and that takes the tree down. Until it runs, every callback looks at `ending` first.
 */
#ifndef CM_RLM_INTERNAL_H
#define CM_RLM_INTERNAL_H

#include "base/buf.h"
#include "ev/loop.h"
#include "rlm/gate.h"
#include "rlm/history.h"
#include "rlm/parts.h"
#include "rlm/reply.h"
#include "rlm/rlm.h"
#include "rlm/trajectory.h"
#include "rlm/usage.h"
#include "sidecar/sidecar.h"

#define CM_NODE_SESSION_MAX      128
#define CM_NODE_NAMES_MAX        8192 /* bytes of a list of variables' names */
#define CM_NODE_OUTPUT_EVENT_MAX (1u << 20) /* bytes of a block's output that events say */
#define CM_NODE_RECORDS_LIVE_MAX (4u << 20) /* bytes of JSON about the sub-queries of a turn, in events */
#define CM_NODE_RECORDS_FILE_MAX (64u << 20) /* ... and in the trajectory's file */
#define CM_RUN_NODES_MAX         1000
#define CM_RUN_STRINGS_MAX       64
#define CM_RUN_TEXT_MAX          200000 /* characters of one text in events and trajectories */
#define CM_BLOCK_SUBCALLS_MAX    10000
#define CM_LLM_BATCH_BOUND       16
#define CM_PROMPT_BYTES_MAX      (32u << 20) /* of a plain sub-query */
#define CM_RESULT_BYTES_MAX      (12u << 20) /* of the JSON that answers a call from code; the sidecar takes 16 MiB */
#define CM_ANSWER_BYTES_MAX      (64u << 20)
#define CM_MESSAGE_BYTES_MAX     (256u << 20) /* of one message to a model */

enum { CM_LIVE, CM_FILE, CM_RECORDS }; /* what events say, and what the trajectory's file has */

enum { CM_BLOCK_OUT, CM_BLOCK_VALUE, CM_BLOCK_ERR, CM_BLOCK_ERROR, CM_BLOCK_TEXTS };

struct cm_batch;
struct cm_json_value;
struct cm_node;
struct cm_slot;

struct cm_rlm {
    struct cm_loop *loop;
    struct cm_llm *llm;
    struct cm_sidecar *sidecar;
    struct cm_metrics *metrics;
    unsigned runs_max, running;
    struct cm_trajectories *files; /* NULL: they are not written */
    struct cm_gate gate;
    struct cm_parts_room room, held;
    struct cm_rlm_run *runs;
    struct cm_rlm_key *keys;
    struct cm_rlm_conversation *conversations;
};

struct cm_rlm_conversation {
    struct cm_rlm_conversation *prev, *next;
    struct cm_rlm *rlm;
    struct cm_rlm_run *run; /* that it has now */
    char id[CM_RLM_ID_MAX];
    char session[CM_NODE_SESSION_MAX]; /* "": none yet, or it was lost */
    unsigned contexts, histories;
    char *history; /* JSON of the newest run's messages, which goes to the session before the next run */
    size_t history_len;
};

/* A request to a model: waits at the gate, then for its reply. */
struct cm_ask {
    struct cm_gate_wait wait;
    struct cm_node *node; /* that it counts for */
    const struct cm_llm_model *model;
    const struct cm_llm_message *messages;
    size_t count;
    struct cm_llm_call *call;
    struct cm_task task; /* says that it could not be started */
    struct cm_err err;
    bool deltas;
    void (*done)(void *arg, const struct cm_llm_reply *reply); /* not after cm_ask_cancel() */
    void *arg;
};

/* Whose runs share a part of the room. It lives as long as they. */
struct cm_rlm_key {
    struct cm_rlm_key *prev, *next;
    unsigned runs;
    struct cm_parts_room room, held;
    char name[];
};

struct cm_rlm_run {
    struct cm_rlm_run *prev, *next;
    struct cm_rlm *rlm;
    struct cm_rlm_key *key; /* or NULL */
    char id[CM_RLM_ID_MAX];
    struct cm_rlm_ops ops;
    void *arg;

    char *strings[CM_RUN_STRINGS_MAX]; /* copies of what the request has */
    size_t strings_count;
    struct cm_rlm_request request; /* of pointers into them */
    struct cm_rlm_conversation *conversation;

    uint64_t began_ns, deadline_ns; /* 0: none */
    struct cm_timer *timer;
    struct cm_task end;
    bool ending;
    struct cm_err err; /* of a run that has failed */
    char *answer;
    size_t answer_len;

    struct cm_node *root;
    unsigned nodes; /* that were started */
    uint64_t subcalls;
    uint64_t tokens;
    double cost;
    struct cm_gate_group asks;
    struct cm_parts_room room, held; /* of texts in pieces, of texts inside calls: a part of all runs' */
    struct cm_trajectory *file;
};

enum cm_node_state {
    CM_NODE_SETUP, /* the session is made, and what belongs into it */
    CM_NODE_TURN, /* the model is asked */
    CM_NODE_SUMMARY, /* it is asked for a summary */
    CM_NODE_FINAL, /* it is asked for the answer, there are no turns left */
    CM_NODE_BLOCK, /* code runs */
    CM_NODE_REPORT, /* the session is asked what the code has left */
    CM_NODE_LOOKUP, /* the session is asked for the variable of FINAL_VAR */
    CM_NODE_KEEP, /* the session is told that `history` is new */
};

enum cm_setup {
    CM_SETUP_SESSION,
    CM_SETUP_HISTORY,
    CM_SETUP_CONTEXT,
    CM_SETUP_TOOLS,
    CM_SETUP_CODE,
    CM_SETUP_DONE,
};

struct cm_node {
    struct cm_rlm_run *run;
    struct cm_slot *slot; /* that it answers; NULL for the root */
    unsigned number, depth;
    enum cm_node_state state;
    enum cm_setup setup;
    struct cm_llm_model *model;
    bool said, said_result; /* its first event and its last one */
    bool lost; /* its session */

    char session[CM_NODE_SESSION_MAX];
    struct cm_sidecar_op *op;
    struct cm_sidecar_exec *exec;
    struct cm_ask ask;
    struct cm_parts_text context;
    enum { CM_OWN_NONE, CM_OWN_TEXT, CM_OWN_JSON } own; /* context of this node, not of an earlier run */
    unsigned contexts, histories; /* variables that the session has */
    unsigned *putting; /* the one of these that is on its way */
    char context_type[32];
    uint64_t context_length;
    const char *tools; /* JSON, or NULL */

    struct cm_history history;
    size_t shown; /* messages that events have said */
    char *preface; /* the first user's message without its turn */
    size_t preface_len;
    struct cm_buf pending; /* the next user's message, without its turn */
    uint64_t tokens; /* of the newest request and its reply, 0 where only estimated */
    unsigned compacted; /* turn of the newest compaction */
    unsigned turn, errors, bad_replies;
    char *partial; /* the newest words of the model */
    size_t partial_len;

    /* Of the turn. */
    char *response; /* the whole reply */
    size_t response_len;
    struct cm_reply reply;
    size_t block; /* that runs */
    bool failed; /* a block of it has */
    bool last; /* its text is the answer */
    char *final;
    size_t final_len;
    uint64_t turn_ns, model_ns, code_ns, ask_ns; /* of code: its own time, without that of questions around it */
    struct cm_llm_usage turn_usage;
    struct cm_buf blocks[CM_RECORDS]; /* JSON of code_blocks */

    /* Of the block. */
    struct cm_buf calls[CM_RECORDS]; /* JSON of rlm_calls */
    struct cm_buf texts[CM_BLOCK_TEXTS]; /* what came out of it */
    double code_s; /* that it ran */
    struct cm_buf names; /* of variables, with commas */
    struct cm_buf variables; /* JSON of them */
    struct cm_parts parts;
    struct cm_batch *batches;
    unsigned waiting; /* batches that are not answered */
    unsigned children; /* that run, of all batches */
    uint64_t block_calls, streamed, said_output;
    struct cm_timer *clock; /* of the code's own time */
    uint64_t clock_left_ns, clock_since_ns; /* since 0: it stands */
    bool timed_out, reverted;

    struct cm_usage usage; /* with that of all nodes below */
    uint64_t began_ns;
    struct cm_buf log; /* JSON of a child's iterations */
};

/* run.c */
/* The run ends soon; the first reason counts. */
void cm_run_fail(struct cm_rlm_run *run, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
void cm_run_answer(struct cm_rlm_run *run, char *answer, size_t len);
/* Seconds for what a room below does: a little more than is left, 0 for no limit. */
double cm_run_left(const struct cm_rlm_run *run);
void cm_run_kill(struct cm_rlm_run *run);
struct cm_llm_model *cm_run_model(struct cm_rlm_run *run, unsigned depth);
bool cm_run_logs(const struct cm_rlm_run *run, int what);

/* ask.c */
void cm_ask_start(struct cm_ask *ask);
void cm_ask_cancel(struct cm_ask *ask);

/* node.c */
struct cm_node *cm_node_new(struct cm_rlm_run *run, struct cm_slot *slot, unsigned depth, struct cm_err *err);
/* Breaks off what is under way for it. */
void cm_node_stop(struct cm_node *node);
/* Ends it without a word to whoever waits for it. */
void cm_node_abort(struct cm_node *node, const struct cm_err *err);
/* The end of a node: goes to its slot or its run. Takes the answer over. */
void cm_node_answer(struct cm_node *node, char *answer, size_t len);
void cm_node_fail(struct cm_node *node, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The node whose code has started it; NULL for the root. */
struct cm_node *cm_node_parent(const struct cm_node *node);
/* Whether its callbacks have nothing to do any more. */
bool cm_node_over(const struct cm_node *node);

/* setup.c: from a new node to its first turn */
void cm_setup_next(struct cm_node *node);
void cm_setup_coded(struct cm_node *node, const struct cm_sidecar_result *res, const struct cm_err *err);
/* The list of messages becomes the session's variable `history`; then the next turn begins. */
void cm_setup_history(struct cm_node *node);

/* preface.c: the system message and the first user's one */
int cm_preface_write(struct cm_node *node);
/* Whether the names of custom tools can be; CM_ERR_BAD_FIELD with `field`. */
int cm_preface_check_tools(const char *json, const char *field, struct cm_err *err);

/* turn.c */
void cm_turn_begin(struct cm_node *node);
/* The blocks have run, as far as they shall. */
void cm_turn_ran(struct cm_node *node);
void cm_turn_end(struct cm_node *node);

/* report.c: what rlm_session.report() says. What is nonsense says nothing. */
void cm_report_take(struct cm_node *node, const char *result, size_t len);

/* conversation.c: the end of its run */
void cm_conversation_leave(struct cm_rlm_conversation *c, struct cm_node *node);

/* execution.c */
/* Runs code of ours or the model's, as the node's state says. Fails the node itself. */
void cm_execute(struct cm_node *node, const char *code, size_t len);
void cm_block_begin(struct cm_node *node);
void cm_lookup_begin(struct cm_node *node, const char *name);
/* How an error of the sidecar ends a node. */
void cm_node_fail_sidecar(struct cm_node *node, const char *doing, const struct cm_err *err);
/* The clock of the code's own time. */
void cm_clock_pause(struct cm_node *node);
void cm_clock_resume(struct cm_node *node);
void cm_clock_ran_out(struct cm_node *node);

/* subcalls.c */
void cm_subcalls_call(struct cm_node *node, unsigned number, const char *name, char *arguments, size_t len);
void cm_subcalls_gone(struct cm_node *node, unsigned number);
void cm_subcalls_drop_all(struct cm_node *node);
/* The node goes when this returns. */
void cm_slot_child_ended(struct cm_slot *slot, struct cm_node *child, const char *answer, size_t len,
                         const struct cm_err *err);

/* A text of a call: a string, which is decoded in place, or the key of one that was sent before. */
int cm_text_take(struct cm_node *node, struct cm_json_value *value, struct cm_parts_text *ret);

/* events.c */
void cm_event_metadata(struct cm_node *node);
void cm_event_turn(struct cm_node *node);
void cm_event_delta(struct cm_node *node, const char *text, size_t len);
void cm_event_code(struct cm_node *node);
void cm_event_output(struct cm_node *node, int stream, const char *text, size_t len);
void cm_event_subcall_start(struct cm_slot *slot);
void cm_event_subcall_complete(struct cm_slot *slot, const char *text, size_t len, bool failed);
/* A block has ended: becomes a part of the turn's iteration. */
void cm_event_block(struct cm_node *node);
void cm_event_iteration(struct cm_node *node);
void cm_event_compaction(struct cm_node *node, uint64_t before, uint64_t after);
void cm_event_result(struct cm_node *node, const char *answer, size_t len, const struct cm_err *err);

#endif
