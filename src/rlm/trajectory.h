/* SPDX-License-Identifier: Apache-2.0 */
/* The files of runs, written by a thread of their own: a disk that is slow, full or gone holds up neither the loop nor a run. */
#ifndef CM_RLM_TRAJECTORY_H
#define CM_RLM_TRAJECTORY_H

#include <stddef.h>

#include "base/err.h"

struct cm_buf;
struct cm_loop;
struct cm_metrics;
struct cm_trajectories; /* all of them */
struct cm_trajectory; /* of one run */

struct cm_trajectories_config {
    const char *dir; /* made with mode 0700 where it is missing */
    size_t waiting_max; /* bytes that wait for the disk; a line that finds no room is lost */
    struct cm_metrics *metrics; /* or NULL */
};

int cm_trajectories_open(struct cm_loop *loop, const struct cm_trajectories_config *config,
                         struct cm_trajectories **ret, struct cm_err *err);
/* Every file must have been closed. Waits so long for what is not written yet; then that is lost. Accepts NULL. */
struct cm_trajectories *cm_trajectories_close(struct cm_trajectories *all, double patience_s);

/* A file <dir>/rlm_<date>_<8 hex>.jsonl of mode 0600, which begins to be with its first line. NULL after saying why. */
struct cm_trajectory *cm_trajectory_open(struct cm_trajectories *all);
/* Takes the buffer's contents, one JSON object. Lines come to the file in their order. One that is lost is counted and missing;
 * without the first one there is no file. */
void cm_trajectory_line(struct cm_trajectory *t, struct cm_buf *json);
/* What was said goes to the file yet. Accepts NULL, returns NULL. */
struct cm_trajectory *cm_trajectory_close(struct cm_trajectory *t);

#endif
