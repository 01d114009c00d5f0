/* SPDX-License-Identifier: Apache-2.0 */
/* A trajectory file made of a run's events (docs/rlm-events.md). */
#ifndef CM_INFER_TRAJECTORY_H
#define CM_INFER_TRAJECTORY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

struct cm_infer_trajectory {
    struct cm_buf prompts; /* of the root up to here, without brackets */
};

void cm_infer_trajectory_init(struct cm_infer_trajectory *t, size_t max);
void cm_infer_trajectory_done(struct cm_infer_trajectory *t);
/* Whether the event is one that a trajectory is made of. */
bool cm_infer_trajectory_wants(const char *type, const char *json, size_t len);
/* Appends the line, if any, that such an event makes: an iteration's `prompt` has all messages and not only those that are
 * new. 0 or the buffer's error. */
int cm_infer_trajectory_put(struct cm_infer_trajectory *t, char type, const char *json, size_t len, struct cm_buf *to);

#endif
