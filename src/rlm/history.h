/* SPDX-License-Identifier: Apache-2.0 */
/* The messages between a node and its model. Each is kept once, and a request points at them. */
#ifndef CM_RLM_HISTORY_H
#define CM_RLM_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "llm/llm.h"

struct cm_buf;

struct cm_history {
    struct cm_llm_message *messages; /* texts are ours */
    size_t count, capacity;
    uint64_t tokens; /* about */
    struct cm_buf *old; /* JSON of messages that compaction has taken away, without brackets; NULL: none */
};

#define CM_HISTORY_OLD_MAX (256u << 20)

void cm_history_done(struct cm_history *h);
/* Takes the text over, in any case. 0 or CM_ERR_NO_MEMORY. */
int cm_history_add(struct cm_history *h, enum cm_llm_role role, char *text, size_t len);
/* Drops the newest one. */
void cm_history_drop(struct cm_history *h);
/* Moves all messages but the system's to the old ones; what finds no room there is forgotten. The caller adds the first
 * user's message again, and then the summary. */
int cm_history_compact(struct cm_history *h);
/* Appends the list of {"role", "content"} from message `from` on, without brackets; texts of more than `max` characters are
 * cut. 0 or the buffer's error. */
int cm_history_json(const struct cm_history *h, size_t from, size_t max, struct cm_buf *to);
/* The whole of it, with what was compacted, as a JSON list. */
int cm_history_whole(const struct cm_history *h, struct cm_buf *to);

#endif
