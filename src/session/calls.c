/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of tools that running code makes.
 *
 * A call lives in its execution's list from the CALL frame until it is answered, cancelled, or its execution is over;
 * whichever comes first takes it out of there before anybody is called back. Nothing of it depends on what its owner
 * does: its deadline is watched here, too.
 *
 * An honest guest keeps to the number of calls, their size and their order by itself, with errors that the code can
 * catch. So whatever passes one of these limits is no honest guest, and its worker has to go. */
#include "session/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/utf8.h"
#include "obs/log.h"
#include "wire/json.h"

#define FAILURE_MAX (64u << 10) /* bytes of a failure's text */

struct cm_call {
    struct cm_call *prev, *next;
    struct cm_exec *exec;
    void *user;
    uint64_t started_ns;
    uint64_t due_ns; /* when it fails by itself; UINT64_MAX: not before its execution's time is over */
    double limit_s;  /* that due_ns comes from */
    uint32_t number;
    char name[];
};

/* the end of a call */

static const char *const outcomes[] = {
#define VALUE(set, value, text) text,
    CM_LABELS_CALL(VALUE)
#undef VALUE
};

static void count(const struct cm_call *c, enum cm_label_call outcome, size_t bytes)
{
    const struct cm_exec *e = c->exec;
    uint64_t ns = cm_clock_ns() - c->started_ns;

    cm_log(CM_LOG_INFO, "tool_call", CM_LOG_STR("session", e->session_id), CM_LOG_STR("exec", e->id),
           CM_LOG_STR("correlation_id", e->correlation_id), CM_LOG_STR("tool", c->name),
           CM_LOG_STR("outcome", outcomes[outcome]), CM_LOG_REAL("seconds", (double)ns / 1e9));
    cm_log(CM_LOG_DEBUG, "tool_answer", CM_LOG_STR("exec", e->id), CM_LOG_INT("call", c->number),
           CM_LOG_INT("bytes", bytes));
    cm_metrics_add(e->m->metrics, CM_M_TOOL_CALLS, outcome, 1);
    cm_metrics_observe_ns(e->m->metrics, CM_M_TOOL_CALL_DURATION, ns);
    cm_metrics_add(e->m->metrics, CM_M_TOOL_CALLS_RUNNING, 0, -1);
}

static void take_out(struct cm_call *c, enum cm_label_call outcome, size_t bytes)
{
    DL_DELETE(c->exec->calls, c);
    c->exec->calls_live--;
    count(c, outcome, bytes);
}

/* The owner hears that nobody waits any more. Out of the list it must be. */
static void let_go(struct cm_call *c)
{
    struct cm_exec *e = c->exec;

    if (e->ops.call_gone)
        e->ops.call_gone(e->arg, c);
    free(c);
}

/* Calls end in no order that they know of: the next one to end first is taken from the front. */
static void drop_all(struct cm_exec *e)
{
    while (e->calls) {
        struct cm_call *c = e->calls;
        take_out(c, CM_L_CALL_CANCELLED, 0);
        let_go(c);
    }
}

/* answers to the worker */

/* Whoever hears that one call is gone may answer the others, and by then the process may be gone, too. */
static bool has_worker(const struct cm_exec *e)
{
    return e->session && e->session->worker;
}

static int send_answer(struct cm_exec *e, uint32_t number, const char *json, size_t len, struct cm_err *err)
{
    struct cm_ipc_msg msg;

    if (!has_worker(e))
        return cm_err_set(err, CM_ERR_CANCELLED, "the session's process is gone");
    cm_ipc_msg_begin(&msg, CM_MSG_ANSWER, number);
    cm_ipc_put_uint(&msg, CM_FIELD_SUCCESS, 1);
    cm_ipc_put_bytes(&msg, CM_FIELD_DATA, json, len);
    return cm_channel_send(e->session->worker->channel, &msg, -1, err);
}

/* A worker that does not even take this has stopped reading, and its execution would wait in vain. */
static void send_failure(struct cm_exec *e, uint32_t number, enum cm_call_failure why, const char *text, size_t len)
{
    struct cm_worker *w = has_worker(e) ? e->session->worker : NULL;
    struct cm_ipc_msg msg;
    struct cm_buf clean;

    if (!w)
        return;
    if (len > FAILURE_MAX) {
        len = FAILURE_MAX;
        len -= cm_utf8_cut_end(text, len);
    }
    cm_buf_init(&clean, 3 * FAILURE_MAX);
    if (!cm_utf8_valid(text, len)) {
        if (cm_utf8_append(&clean, text, len) < 0)
            cm_buf_clear(&clean);
        text = cm_buf_data(&clean);
        len = clean.len;
    }
    cm_ipc_msg_begin(&msg, CM_MSG_ANSWER, number);
    cm_ipc_put_uint(&msg, CM_FIELD_SUCCESS, 0);
    cm_ipc_put_uint(&msg, CM_FIELD_FAILURE, (uint64_t)why);
    cm_ipc_put_bytes(&msg, CM_FIELD_ERROR, text, len);
    if (cm_channel_send(w->channel, &msg, -1, NULL) < 0 && !w->killed_for)
        cm_worker_kill(w, CM_L_DEATH_PROTOCOL,
                       "the session's process did not take the answers of its calls and was ended");
    cm_buf_done(&clean);
}

void cm_call_fail(struct cm_call *c, enum cm_call_failure why, const char *text, size_t len)
{
    take_out(c, (enum cm_label_call)(why + 1), len);
    send_failure(c->exec, c->number, why, text, len);
    free(c);
}

static void fail_with(struct cm_call *c, enum cm_call_failure why, const char *text)
{
    cm_call_fail(c, why, text, strlen(text));
}

void cm_call_answer(struct cm_call *c, const char *json, size_t len)
{
    struct cm_exec *e = c->exec;
    uint64_t max = cm_exec_limit(e, CM_LIMIT_TOOL_RESULT);
    char text[200];

    if (len > max) {
        snprintf(text, sizeof text,
                 "the result has %zu bytes of JSON, limits.tool_result is %llu; ask the tool for less, or in parts",
                 len, (unsigned long long)max);
        fail_with(c, CM_CALL_LIMIT, text);
    } else if (send_answer(e, c->number, json, len, NULL) < 0) {
        fail_with(c, CM_CALL_LIMIT,
                  "too many bytes of results wait for this code to take them; make fewer calls at once");
    } else {
        take_out(c, CM_L_CALL_OK, len);
        free(c);
    }
}

void cm_call_set_user(struct cm_call *c, void *user)
{
    c->user = user;
}

void *cm_call_user(const struct cm_call *c)
{
    return c->user;
}

/* deadlines: one timer for all calls of an execution */

static void watch(struct cm_exec *e, uint64_t due_ns)
{
    uint64_t now = cm_clock_ns();

    if (due_ns == UINT64_MAX || (e->calls_due_ns && e->calls_due_ns <= due_ns))
        return;
    e->calls_due_ns = due_ns;
    cm_timer_start(e->calls_timer, due_ns > now ? (due_ns - now) / CM_NS_PER_MS + 1 : 1, 0);
}

static struct cm_call *find_late(struct cm_exec *e, uint64_t now)
{
    struct cm_call *c = e->calls;

    while (c && c->due_ns > now)
        c = c->next;
    return c;
}

static void on_timer(void *arg)
{
    struct cm_exec *e = arg;
    struct cm_call *c;
    uint64_t now = cm_clock_ns();
    char text[100];

    e->calls_due_ns = 0;
    while ((c = find_late(e, now))) {
        int n = snprintf(text, sizeof text, "no answer within %g s", c->limit_s);
        take_out(c, CM_L_CALL_TIMEOUT, 0);
        send_failure(e, c->number, CM_CALL_TIMEOUT, text, (size_t)n);
        let_go(c);
    }
    DL_FOREACH(e->calls, c)
    watch(e, c->due_ns);
}

/* Returns the deadline. One that is the execution's is not watched: the code shall hear of that, not of this call. */
static uint64_t set_deadline(struct cm_call *c, uint64_t asked_ms)
{
    const struct cm_exec *e = c->exec;
    double limit = e->limits.at[CM_LIMIT_TOOL_TIMEOUT], all = e->limits.at[CM_LIMIT_TIMEOUT];
    uint64_t end_ns = e->start_ns + (uint64_t)(all * 1e9);

    if (asked_ms > 0 && (double)asked_ms / 1e3 < limit)
        limit = (double)asked_ms / 1e3;
    c->limit_s = limit;
    c->due_ns = c->started_ns + (uint64_t)(limit * 1e9);
    if (c->due_ns < end_ns)
        return c->due_ns;
    c->due_ns = UINT64_MAX;
    return end_ns;
}

/* frames */

static bool is_object(const char *text, size_t len, const char *what, struct cm_err *err)
{
    struct cm_json_value value;

    if (text && cm_json_check(text, len, &value, err) == 0 && value.kind == CM_JSON_OBJECT)
        return true;
    cm_err_set(err, CM_ERR_PROTOCOL, "CALL frame whose %s are no JSON object", what);
    return false;
}

static bool check_texts(const struct cm_exec *e, const struct cm_ipc_fields *f, struct cm_err *err)
{
    size_t name_len, len, context_len;
    const char *name = cm_ipc_get_bytes(f, CM_FIELD_NAME, &name_len);
    const char *arguments = cm_ipc_get_bytes(f, CM_FIELD_ARGUMENTS, &len);
    const char *context = cm_ipc_get_bytes(f, CM_FIELD_CONTEXT, &context_len);

    if (!name || name_len == 0 || name_len > CM_CALL_NAME_MAX || memchr(name, 0, name_len) ||
        !cm_utf8_valid(name, name_len)) {
        cm_err_set(err, CM_ERR_PROTOCOL, "CALL frame without a tool's name");
        return false;
    }
    if (len + context_len > cm_exec_limit(e, CM_LIMIT_TOOL_ARGUMENT)) {
        cm_err_set(err, CM_ERR_PROTOCOL, "CALL frame with %zu bytes of arguments", len + context_len);
        return false;
    }
    return is_object(arguments, len, "arguments", err) &&
           (!cm_ipc_has(f, CM_FIELD_CONTEXT) || is_object(context, context_len, "context", err));
}

bool cm_calls_check(const struct cm_exec *e, const struct cm_ipc_header *head, const struct cm_ipc_fields *f,
                    struct cm_err *err)
{
    uint64_t number = cm_ipc_get_uint(f, CM_FIELD_CALL, 0);

    if (head->type == CM_MSG_CALL_CANCEL) {
        if (number > 0 && number <= e->calls_made)
            return true;
        cm_err_set(err, CM_ERR_PROTOCOL, "CALL_CANCEL frame for no call");
        return false;
    }
    if (number != e->calls_made + 1ull || number > cm_exec_limit(e, CM_LIMIT_TOOL_CALLS) ||
        e->calls_live >= CM_CALLS_AT_ONCE) {
        cm_err_set(err, CM_ERR_PROTOCOL, "CALL frame with number %llu, after %u of which %u run",
                   (unsigned long long)number, e->calls_made, e->calls_live);
        return false;
    }
    return check_texts(e, f, err);
}

static struct cm_call *new_call(struct cm_exec *e, const struct cm_ipc_fields *f)
{
    size_t len;
    const char *name = cm_ipc_get_bytes(f, CM_FIELD_NAME, &len);
    struct cm_call *c = malloc(sizeof *c + len + 1);

    if (!e->calls_timer)
        e->calls_timer = cm_timer_open(e->m->loop, on_timer, e, NULL);
    if (!c || !e->calls_timer) {
        free(c);
        return NULL;
    }
    *c = (struct cm_call){.exec = e, .number = e->calls_made, .started_ns = cm_clock_ns()};
    memcpy(c->name, name, len);
    c->name[len] = '\0';
    DL_APPEND(e->calls, c);
    e->calls_live++;
    cm_metrics_add(e->m->metrics, CM_M_TOOL_CALLS_RUNNING, 0, 1);
    return c;
}

static void begin(struct cm_exec *e, const struct cm_ipc_fields *f)
{
    static const char no_memory[] = "the server has no memory for this call; try again later";
    struct cm_call_request r = {.number = ++e->calls_made};
    struct cm_call *c = new_call(e, f);

    if (!c) {
        send_failure(e, e->calls_made, CM_CALL_UNAVAILABLE, no_memory, sizeof no_memory - 1);
        return;
    }
    r.name = cm_ipc_get_bytes(f, CM_FIELD_NAME, &r.name_len);
    r.arguments = cm_ipc_get_bytes(f, CM_FIELD_ARGUMENTS, &r.arguments_len);
    r.context = cm_ipc_get_bytes(f, CM_FIELD_CONTEXT, &r.context_len);
    r.deadline_ns = set_deadline(c, cm_ipc_get_uint(f, CM_FIELD_CALL_TIMEOUT, 0));
    cm_log(CM_LOG_DEBUG, "tool_asked", CM_LOG_STR("exec", e->id), CM_LOG_STR("tool", c->name),
           CM_LOG_INT("call", c->number), CM_LOG_INT("bytes", r.arguments_len + r.context_len));
    if (e->calls_over || e->abandoned) {
        fail_with(c, CM_CALL_CANCELLED, "the execution was interrupted");
    } else if (!e->ops.call) {
        fail_with(c, CM_CALL_UNKNOWN, "no tool service is configured");
    } else {
        watch(e, c->due_ns);
        e->ops.call(e->arg, c, &r);
    }
}

static void cancel(struct cm_exec *e, uint64_t number)
{
    struct cm_call *c;

    DL_SEARCH_SCALAR(e->calls, c, number, number);
    if (!c)
        return; /* its answer is under way */
    take_out(c, CM_L_CALL_CANCELLED, 0);
    let_go(c);
}

void cm_calls_frame(struct cm_exec *e, const struct cm_ipc_header *head, const struct cm_ipc_fields *f)
{
    if (head->type == CM_MSG_CALL)
        begin(e, f);
    else
        cancel(e, cm_ipc_get_uint(f, CM_FIELD_CALL, 0));
}

/* the end of an execution */

void cm_calls_cancel(struct cm_exec *e)
{
    static const char text[] = "the execution was interrupted";

    e->calls_over = true;
    for (const struct cm_call *c = e->calls; c; c = c->next)
        send_failure(e, c->number, CM_CALL_CANCELLED, text, sizeof text - 1);
    drop_all(e);
}

void cm_calls_end(struct cm_exec *e)
{
    e->calls_over = true;
    drop_all(e);
    e->calls_timer = cm_timer_close(e->calls_timer);
}
