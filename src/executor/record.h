/* SPDX-License-Identifier: Apache-2.0 */
/* What has run in the last ten minutes under an id that its client has chosen, and what came of it: so a request that is
 * sent again gets its answer, and does not run again.
 *
 * Answers are bounded in number and in bytes, and the oldest leave first. What has left is still known to have run: sixty
 * bytes or so for each, as many as CM_RECORDS_MAX.
 */
#ifndef CM_EXECUTOR_RECORD_H
#define CM_EXECUTOR_RECORD_H

#include "base/hash.h"
#include "session/session.h"

#define CM_RECORD_NS   (600 * CM_NS_PER_S) /* from the answer on */
#define CM_RECORDS_MAX 262144 /* more than four hundred requests in each second of ten minutes */

struct cm_records;

enum cm_record_state {
    CM_RECORD_RUNNING,
    CM_RECORD_KEPT,
    CM_RECORD_GONE, /* it has run; its answer found no room */
};

/* A copy of what an execution has answered: `res`, or `err` when res.state says nothing. */
struct cm_kept {
    unsigned refs;
    bool has_result;
    struct cm_exec_result res;
    struct cm_err err;
    const char *id; /* of the execution */
    size_t bytes;
};

struct cm_record {
    struct cm_hash hash;
    enum cm_record_state state;
    void *job; /* of one that runs: the owner's */
    struct cm_kept *kept;
};

/* NULL when there is no memory. */
struct cm_records *cm_records_new(unsigned answers_max, uint64_t bytes_max);
struct cm_records *cm_records_free(struct cm_records *r);
void cm_records_limit(struct cm_records *r, unsigned answers_max, uint64_t bytes_max);
/* NULL when nothing is known of it. */
struct cm_record *cm_records_find(struct cm_records *r, const struct cm_hash *hash);
/* A new one, RUNNING. NULL when there is no memory. */
struct cm_record *cm_records_begin(struct cm_records *r, const struct cm_hash *hash, void *job);
/* It has ended with a result or an error, which is copied if there is room. `rec` may be forgotten at any later call. */
void cm_records_finish(struct cm_records *r, struct cm_record *rec, const struct cm_exec_result *res,
                       const struct cm_err *err, const char *id);
/* It did not run after all: only one that is RUNNING. */
void cm_records_drop(struct cm_records *r, struct cm_record *rec);
struct cm_kept *cm_kept_ref(struct cm_kept *kept);
void cm_kept_unref(struct cm_kept *kept);

/* For tests. */
size_t cm_records_count(const struct cm_records *r);
uint64_t cm_records_bytes(const struct cm_records *r);

#endif
