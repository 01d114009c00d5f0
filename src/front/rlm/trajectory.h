/* SPDX-License-Identifier: Apache-2.0 */
/* A trajectory file made of a run's events (docs/rlm-events.md). */
#ifndef CM_INFER_TRAJECTORY_H
#define CM_INFER_TRAJECTORY_H

#include <stddef.h>

#include "base/buf.h"

/* A node, as far as its events have come. */
struct cm_infer_node {
    struct cm_infer_node *next;
    unsigned number;
    struct cm_buf metadata; /* members of its object, in the file's words; of children only */
    struct cm_buf prompts; /* its messages up to here, without brackets */
    struct cm_buf iterations; /* without brackets; of children only */
};

struct cm_infer_trajectory {
    struct cm_infer_node root, *children; /* that stand in no call yet */
    unsigned count;
    size_t held, max; /* bytes of children */
};

/* What an event is to a trajectory; the larger the more is lost without it. */
enum cm_infer_part { CM_PART_NONE, CM_PART_CHILD, CM_PART_ROOT, CM_PARTS };

void cm_infer_trajectory_init(struct cm_infer_trajectory *t, size_t max);
void cm_infer_trajectory_done(struct cm_infer_trajectory *t);
enum cm_infer_part cm_infer_trajectory_part(const char *type, const char *json, size_t len);
/* Takes such an event, in their order, and appends the line, if any, that it completes: an iteration's `prompt` has all messages
 * and not only those that are new, and calls that were runs have theirs inside. A child that finds no room, or whose beginning is
 * missing, is left out. 0 or the buffer's error. */
int cm_infer_trajectory_put(struct cm_infer_trajectory *t, char type, const char *json, size_t len, struct cm_buf *to);

#endif
