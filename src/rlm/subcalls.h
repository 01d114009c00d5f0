/* SPDX-License-Identifier: Apache-2.0 */
/* Sub-queries of a block. */
#ifndef CM_RLM_SUBCALLS_H
#define CM_RLM_SUBCALLS_H

#include "rlm/internal.h"

/* One query: a request to a model, or a node. */
struct cm_slot {
    struct cm_batch *batch;
    struct cm_parts_text prompt;
    struct cm_ask ask;
    struct cm_llm_message message;
    struct cm_node *child;
    uint64_t number; /* in the whole run, from 1 */
    uint64_t prompt_length; /* characters; bytes of a prompt that is a file */
    char *head; /* beginning of the prompt, for events */
    size_t head_len;
    uint64_t began_ns;
    struct cm_llm_usage usage;
    enum { CM_SLOT_WAITS, CM_SLOT_RUNS, CM_SLOT_DONE } state;
    char *json; /* the reply as a JSON string */
    size_t json_len;
};

/* The queries of one call of code. */
struct cm_batch {
    struct cm_batch *prev, *next;
    struct cm_node *node;
    unsigned call; /* the sidecar's number */
    bool recursive; /* rlm_query */
    bool single; /* the answer is a text, not a list */
    struct cm_llm_model model; /* that answers */
    unsigned bound; /* queries at once */
    size_t count, next_slot, running, done;
    size_t room; /* bytes of JSON that replies may still take */
    bool pumping;
    struct cm_slot *slots;
};

#define CM_SLOT_HEAD_MAX 20000 /* characters of a prompt or a reply in records of sub-queries */

const char *cm_slot_kind(const struct cm_slot *slot);

#endif
