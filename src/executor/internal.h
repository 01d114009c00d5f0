/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share. Nobody outside includes it.
 *
 *     executor  runs and who waits for them     plan   which tools an execution may call
 *     record    what has run lately             calls  its calls, on the way to the service
 *     meta      questions about tools           error_type
 *
 * A `cm_run` is one client that waits; a `job` is the execution that it waits for. A request that is sent again is a
 * further run of the same job. A job without runs goes on when its answer will be asked for again.
 */
#ifndef CM_EXECUTOR_INTERNAL_H
#define CM_EXECUTOR_INTERNAL_H

#include "base/buf.h"
#include "base/correlation.h"
#include "base/hash.h"
#include "ev/loop.h"
#include "executor/executor.h"
#include "executor/record.h"
#include "tools/registry.h"
#include "tools/service.h"

#define EXEC_ID_MAX        32
#define EXECUTION_NAME_MAX 280
#define CONTEXT_MAX        (1u << 20) /* bytes of an execution's context that go with each call */
#define ERROR_TEXT_MAX     4096
#define WAITING_MAX        (64u << 20) /* bytes of all requests that wait for the list of tools */

struct cm_executor {
    struct cm_loop *loop;
    const struct cm_conf *conf;
    struct cm_sessions *sessions;
    struct cm_metrics *metrics;
    struct cm_tool_client *service; /* NULL: there is none */
    struct cm_registry *registry; /* with it */
    struct cm_records *records;
    struct cm_hash_key hash_key;
    struct job *jobs;
    struct cm_run *answered; /* runs that are answered from the record, next turn */
    struct ping *pings;
    size_t waiting; /* bytes of the jobs' copies of their requests */
};

struct cm_run {
    struct cm_run *prev, *next; /* of its job, or of x->answered */
    struct cm_executor *x;
    struct job *job; /* NULL: answered from the record */
    struct cm_exec_ops ops;
    void *arg;
    bool repeated;
    struct cm_kept *kept; /* what it will be answered */
    struct cm_task task;
};

/* Which tools an execution may call. */
struct allowance {
    struct cm_toolset *set; /* a reference; NULL: no list was had */
    uint8_t *chosen; /* a byte for each tool of the set; NULL: all of them */
};

struct job {
    struct job *prev, *next; /* of all */
    struct cm_executor *x;
    struct cm_run *runs;
    struct cm_record *record; /* NULL: nobody may ask for its answer again */
    struct cm_exec *exec; /* once it has been handed to its session */
    char id[EXEC_ID_MAX];
    struct allowance own; /* the caller's tools, which he answers himself */
    struct allowance allowance; /* the service's */
    char *context; /* of the execution; NULL: none, or too large to go with calls */
    size_t context_len, context_given; /* the latter: that there were */
    char correlation[CM_CORRELATION_MAX + 1];
    char name[EXECUTION_NAME_MAX]; /* for the application, which may have seen its calls before */
    struct call *calls;
    uint64_t called; /* calls so far */

    /* While it waits for the list of tools: */
    struct cm_registry_wait *wait;
    struct cm_run_request *request; /* a copy */
    size_t request_bytes;

    struct cm_task task; /* ends it with `error` */
    char *error;
};

/* A call of a tool, from ops->call until its answer. */
struct call {
    struct call *prev, *next; /* of its job */
    struct job *job;
    struct cm_call *call;
    struct cm_tool_request *request; /* while the service has it */
    struct cm_registry_wait *wait; /* while it waits for a list */
    struct cm_call_request what; /* while it waits: a copy, with its texts behind */
    const struct cm_tool *tool; /* of the service's set, or of the caller's own */
};

/* plan.c */

/* Takes the names that the caller answers himself: 0, CM_ERR_BAD_FIELD or CM_ERR_NO_MEMORY. */
int cm_plan_own(struct allowance *own, const char *names, size_t names_len, struct cm_err *err);
/* Choose among the tools of `set`, of which a reference is taken: those with names of `own` are hidden. 0; 1 when some are
 * named that are not there: `why` (of ERROR_TEXT_MAX bytes) says which; or CM_ERR_NO_MEMORY. */
int cm_plan_choose(struct allowance *a, struct cm_toolset *set, const struct allowance *own, const char *names,
                   size_t names_len, char *why);
void cm_plan_done(struct allowance *a);
/* True when names are among those asked for that begin without "__" and are not in `own`. */
bool cm_plan_names_some(const struct allowance *own, const char *names, size_t len);
/* True when anything is asked for: then nothing else is allowed. Names with "__" alone allow none of the service's. */
bool cm_plan_restricts(const char *names, size_t len);
/* The code looks as if it used tools: it says so by one of their names for them. */
bool cm_plan_mentions(const char *code, size_t len);
/* What the code is told: [[name, flags], ...]. */
int cm_plan_write(const struct allowance *own, const struct allowance *a, struct cm_buf *to);
/* NULL when there is none or it is not allowed. */
const struct cm_tool *cm_plan_find(const struct allowance *a, const char *name, size_t len);
/* Appends "; did you mean 'x'?" and the first names there are. */
void cm_plan_hint(const struct allowance *a, const char *name, size_t len, struct cm_buf *to);

/* calls.c */
void cm_calls_begin(void *job, struct cm_call *call, const struct cm_call_request *request);
void cm_calls_gone(void *job, struct cm_call *call);
/* Nobody waits for any of them any more. */
void cm_calls_drop(struct job *job);
void cm_calls_answer(struct call *c, const char *json, size_t len);
void cm_calls_fail(struct call *c, enum cm_call_failure why, const char *text);

/* meta.c: answers "__list__" and its like, at once or later. */
void cm_meta_call(struct call *c, const struct cm_call_request *request);

#endif
