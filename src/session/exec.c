/* SPDX-License-Identifier: Apache-2.0 */
/* One execution: the copied request, what it has printed, and its one answer. */
#include "session/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/random.h"
#include "base/utf8.h"
#include "obs/log.h"
#include "session/locals.h"

/* What the frame's heads and numbers take besides its texts. */
#define FRAME_SLACK 256

/* asking */

static void set_limits(struct cm_exec *e, const struct cm_limits *base, const struct cm_exec_request *req)
{
    double *timeout = &e->limits.at[CM_LIMIT_TIMEOUT], longest = e->m->config.caps.at[CM_LIMIT_TIMEOUT];

    e->limits = *base;
    cm_limits_merge(&e->limits, req->limits);
    if (req->timeout_s > 0)
        *timeout = req->timeout_s;
    if (*timeout > longest)
        *timeout = longest;
    cm_limits_cap(&e->limits, req->caps);
}

static void place(char **to, char **ret, size_t *ret_len, const char *text, size_t len)
{
    if (!text)
        return;
    *ret = *to;
    *ret_len = len;
    if (len > 0)
        memcpy(*to, text, len);
    *to += len;
}

static int copy_source(struct cm_exec *e, const struct cm_exec_request *req, struct cm_err *err)
{
    if (req->code_len > cm_exec_limit(e, CM_LIMIT_CODE_LENGTH))
        return cm_err_set(err, CM_ERR_TOO_LARGE,
                          "code: has %zu bytes, limits.code_length is %llu; split it into several executions",
                          req->code_len, (unsigned long long)cm_exec_limit(e, CM_LIMIT_CODE_LENGTH));
    const char *rules = e->strict ? e->m->config.strict_rules : NULL;
    size_t left = CM_IPC_EXECUTE_MAX - FRAME_SLACK, size = 0, rules_len = rules ? strlen(rules) + 1 : 0;
    const size_t parts[] = {rules_len, req->code_len, req->context_len, req->config_len, req->tools_len};
    for (unsigned i = 0; i < CM_COUNT_OF(parts); i++) {
        if (parts[i] > left - size)
            return cm_err_set(err, CM_ERR_TOO_LARGE,
                              "code, context, config and the list of tools have more than %zu bytes", left);
        size += parts[i];
    }
    e->code = malloc(size + 1);
    if (!e->code)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the code");
    char *to = e->code;
    if (rules) {
        to = mempcpy(to, rules, rules_len - 1);
        *to++ = '\n';
    }
    memcpy(to, req->code, req->code_len);
    to += req->code_len;
    e->code_len = rules_len + req->code_len;
    place(&to, &e->context, &e->context_len, req->context, req->context_len);
    place(&to, &e->cfg, &e->cfg_len, req->config, req->config_len);
    place(&to, &e->tools, &e->tools_len, req->tools, req->tools_len);
    return 0;
}

struct cm_exec *cm_exec_new(struct cm_sessions *m, const struct cm_limits *base, const struct cm_exec_request *req,
                            const struct cm_exec_ops *ops, void *arg, struct cm_err *err)
{
    struct cm_exec *e = calloc(1, sizeof *e);

    if (!e) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for an execution");
        return NULL;
    }
    e->m = m;
    e->seq = ++m->next_seq;
    e->mode = req->mode;
    e->strict = req->strict || m->config.strict;
    set_limits(e, base, req);
    e->atomic = req->atomic;
    e->ops = *ops;
    e->arg = arg;
    cm_keep_init(&e->out, cm_exec_limit(e, CM_LIMIT_OUTPUT));
    cm_keep_init(&e->err_out, cm_exec_limit(e, CM_LIMIT_OUTPUT));
    snprintf(e->correlation_id, sizeof e->correlation_id, "%s", req->correlation_id ? req->correlation_id : "");
    strcpy(e->id, "exec-");
    if (cm_random_hex(e->id + 5, 16, err) < 0 || copy_source(e, req, err) < 0)
        return cm_exec_free(e);
    return e;
}

struct cm_exec *cm_exec_free(struct cm_exec *e)
{
    if (!e)
        return NULL;
    if (e->stored)
        cm_stored_finish(e->stored);
    cm_keep_done(&e->out);
    cm_keep_done(&e->err_out);
    cm_timer_close(e->calls_timer);
    cm_put_free(e->put);
    free(e->late);
    free(e->code);
    free(e);
    return NULL;
}

const char *cm_exec_id(const struct cm_exec *exec)
{
    return exec->id;
}

int cm_exec_send(struct cm_exec *e, bool once, struct cm_channel *ch, struct cm_err *err)
{
    struct cm_ipc_msg msg;

    if (e->put)
        return cm_put_send(e, ch, err);
    cm_ipc_msg_begin(&msg, CM_MSG_EXECUTE, e->seq);
    cm_ipc_put_bytes(&msg, CM_FIELD_CODE, e->code, e->code_len);
    if (e->context)
        cm_ipc_put_bytes(&msg, CM_FIELD_CONTEXT, e->context, e->context_len);
    if (e->cfg)
        cm_ipc_put_bytes(&msg, CM_FIELD_CONFIG, e->cfg, e->cfg_len);
    if (e->tools) {
        cm_ipc_put_bytes(&msg, CM_FIELD_TOOLS, e->tools, e->tools_len);
        cm_ipc_put_uint(&msg, CM_FIELD_TOOL_CALLS, cm_exec_limit(e, CM_LIMIT_TOOL_CALLS));
        cm_ipc_put_uint(&msg, CM_FIELD_TOOL_ARGUMENT, cm_exec_limit(e, CM_LIMIT_TOOL_ARGUMENT));
    }
    cm_ipc_put_uint(&msg, CM_FIELD_MODE, (uint64_t)e->mode | (e->strict ? CM_EXEC_STRICT : 0));
    cm_ipc_put_uint(&msg, CM_FIELD_LOCALS_MAX, cm_exec_limit(e, CM_LIMIT_LOCALS));
    cm_ipc_put_uint(&msg, CM_FIELD_RESULT_MAX, cm_exec_limit(e, CM_LIMIT_RESULT));
    cm_ipc_put_uint(&msg, CM_FIELD_RECURSION, cm_exec_limit(e, CM_LIMIT_RECURSION));
    cm_ipc_put_uint(&msg, CM_FIELD_FILES_MAX, cm_exec_limit(e, CM_LIMIT_FILES));
    cm_ipc_put_uint(&msg, CM_FIELD_FILE_BYTES_MAX, cm_exec_limit(e, CM_LIMIT_FILE_BYTES));
    cm_ipc_put_uint(&msg, CM_FIELD_MEMORY_LIMIT, cm_exec_limit(e, CM_LIMIT_MEMORY));
    if (once || e->atomic) /* whatever the mode: a session that stays is saved */
        cm_ipc_put_uint(&msg, CM_FIELD_SAVE, e->atomic ? CM_SAVE_SUCCESS : CM_SAVE_NEVER);
    e->start_ns = cm_clock_ns();
    e->context = e->cfg = e->tools = NULL;
    return cm_channel_send_owned(ch, &msg, cm_steal(e->code), err);
}

/* answering with a result */

uint64_t cm_exec_cpu_clock(int pid)
{
    struct timespec t;
    clockid_t clock;

    if (pid <= 0 || clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t) < 0)
        return 0;
    return (uint64_t)t.tv_sec * CM_NS_PER_S + (uint64_t)t.tv_nsec;
}

void cm_exec_look(struct cm_exec *e, const struct cm_worker *w)
{
    uint64_t cpu = w ? cm_exec_cpu_clock(w->pid) : 0;

    if (cpu > e->cpu_start_ns + e->cpu_ns)
        e->cpu_ns = cpu - e->cpu_start_ns;
}

/* A worker's guest has one thread: its processor time runs no faster than the clock on the wall. */
uint64_t cm_exec_time_left(struct cm_exec *e, const struct cm_worker *w)
{
    cm_exec_look(e, w);
    double wall = e->limits.at[CM_LIMIT_TIMEOUT] - (double)(cm_clock_ns() - e->start_ns) / 1e9;
    double cpu = e->limits.at[CM_LIMIT_CPU_TIME] - (double)e->cpu_ns / 1e9;

    e->cpu_over = cpu <= 0 && wall > 0;
    if (wall <= 0 || cpu <= 0)
        return 0;
    return (uint64_t)((wall < cpu ? wall : cpu) * 1000) + 1;
}

/* From the moment at which the answer will lack something, all of the stream is stored as well. */
static void store(struct cm_exec *e, int stream, struct cm_keep *keep, const char *data, size_t len)
{
    bool overflows = keep->dropped == 0 && len > keep->buf.max - keep->buf.len;

    if (overflows && e->session && !e->session->oneshot &&
        (e->stored || cm_stored_new(&e->session->shelf, e->id, &e->stored)))
        cm_stored_add(e->stored, stream, cm_buf_data(&keep->buf), keep->buf.len);
    if (e->stored && e->stored->stream[stream - 1].begun)
        cm_stored_add(e->stored, stream, data, len);
}

void cm_exec_collect(struct cm_exec *e, int stream, const char *data, size_t len)
{
    struct cm_keep *keep = stream == 2 ? &e->err_out : &e->out;

    store(e, stream, keep, data, len);
    cm_keep_add(keep, data, len);
}

bool cm_exec_check_result(const struct cm_exec *e, const struct cm_ipc_fields *f, struct cm_err *err)
{
    size_t len;
    const char *locals = cm_ipc_get_bytes(f, CM_FIELD_LOCALS, &len);

    if (!cm_ipc_has(f, CM_FIELD_SUCCESS))
        cm_err_set(err, CM_ERR_PROTOCOL, "RESULT frame without SUCCESS");
    else if (!locals || len > cm_exec_limit(e, CM_LIMIT_LOCALS))
        cm_err_set(err, CM_ERR_PROTOCOL, "RESULT frame with %zu bytes of LOCALS", len);
    else if (!cm_locals_valid(locals, len))
        cm_err_set(err, CM_ERR_PROTOCOL, "RESULT frame whose LOCALS are no JSON object");
    else
        return true;
    return false;
}

/* Texts of one answer that could not be used as they came. */
struct spaces {
    struct cm_buf buf[8];
    unsigned used;
};

static struct cm_buf *next_space(struct spaces *sp, size_t max)
{
    struct cm_buf *b = &sp->buf[sp->used++];

    cm_buf_init(b, max);
    return b;
}

static void free_spaces(struct spaces *sp)
{
    while (sp->used > 0)
        cm_buf_done(&sp->buf[--sp->used]);
}

/* A field's text, cut to the maximum and made valid UTF-8. *ret_cut becomes true when something was cut here. */
static const char *text_of(const struct cm_exec *e, const struct cm_ipc_fields *f, enum cm_ipc_field tag,
                           struct spaces *sp, size_t *ret_len, bool *ret_cut)
{
    const char *text = f ? cm_ipc_get_bytes(f, tag, ret_len) : NULL;

    if (!text) {
        *ret_len = 0;
        return NULL;
    }
    if (*ret_len > cm_exec_limit(e, CM_LIMIT_RESULT)) {
        *ret_len = cm_exec_limit(e, CM_LIMIT_RESULT);
        *ret_len -= cm_utf8_cut_end(text, *ret_len);
        *ret_cut = true;
    }
    if (cm_utf8_valid(text, *ret_len))
        return text;
    struct cm_buf *b = next_space(sp, 3 * *ret_len);
    if (cm_utf8_append(b, text, *ret_len) < 0)
        cm_buf_clear(b);
    *ret_len = b->len;
    return cm_buf_data(b);
}

static void fill_texts(struct cm_exec *e, const struct cm_ipc_fields *f, struct spaces *sp, struct cm_exec_result *res)
{
    res->out_bytes = cm_keep_total(&e->out);
    res->err_bytes = cm_keep_total(&e->err_out);
    res->out_stored = e->stored && e->stored->stream[0].begun;
    res->err_stored = e->stored && e->stored->stream[1].begun;
    res->out = cm_keep_text(&e->out, next_space(sp, 1), &res->out_len, &res->out_truncated);
    res->err = cm_keep_text(&e->err_out, next_space(sp, 1), &res->err_len, &res->err_truncated);
    uint64_t cut = f ? cm_ipc_get_uint(f, CM_FIELD_TRUNCATED, 0) : 0;

    res->result_truncated = cut & 1;
    res->error_truncated = cut & 6;
    res->locals_truncated = cut & 8;
    res->result = text_of(e, f, CM_FIELD_RESULT, sp, &res->result_len, &res->result_truncated);
    res->error = text_of(e, f, CM_FIELD_ERROR, sp, &res->error_len, &res->error_truncated);
    res->error_type = text_of(e, f, CM_FIELD_ERROR_TYPE, sp, &res->error_type_len, &res->error_truncated);
    res->traceback = text_of(e, f, CM_FIELD_TRACEBACK, sp, &res->traceback_len, &res->error_truncated);
    res->locals = f ? cm_ipc_get_bytes(f, CM_FIELD_LOCALS, &res->locals_len) : NULL;
}

static const char *const aftermath[] = {
    [CM_STATE_KEPT] = "",
    [CM_STATE_ROLLED_BACK] = "; the session is back in the state before it",
    [CM_STATE_LOST] = "; the session is lost",
};

static void say(struct cm_exec_result *res, const char *type, char *text, int len)
{
    res->success = false;
    res->error = text;
    res->error_len = (size_t)len;
    res->error_type = type;
    res->error_type_len = strlen(type);
    res->result = NULL;
    res->result_len = 0;
}

/* The gateway's word replaces the worker's: whatever the code made of its interrupt, its time was over. */
static void say_timeout(const struct cm_exec *e, struct cm_exec_result *res, char *space, size_t size)
{
    int n = snprintf(space, size,
                     e->cpu_over ? "TimeoutError: Execution used up its CPU time (limits.cpu_time of %g s)%s%s"
                                 : "TimeoutError: Execution timed out (timeout of %g s)%s%s",
                     e->limits.at[e->cpu_over ? CM_LIMIT_CPU_TIME : CM_LIMIT_TIMEOUT],
                     e->late || res->state == CM_STATE_KEPT ? "" : "; it did not stop and was ended",
                     e->late ? "" : aftermath[res->state]);

    res->timed_out = true;
    say(res, "Timeout", space, n);
}

/* What there is to say when no answer came. */
static void say_killed(const struct cm_exec *e, struct cm_exec_result *res, const char *why, char *space, size_t size)
{
    const char *type = e->stopped ? "KeyboardInterrupt" : "RuntimeError";
    int n = snprintf(space, size, "%s: %s%s", type, why, aftermath[res->state]);

    say(res, type, space, n < (int)size ? n : (int)size - 1);
}

enum { WHERE_MAX = 2000 }; /* bytes of the worker's words on a timeout */

/* Where the code was when its time was over, and what used its memory: the worker's word, behind the gateway's. Of a
 * late answer, what became of the state comes last. */
static void say_where(const struct cm_exec *e, const struct cm_ipc_fields *f, struct spaces *sp,
                      struct cm_exec_result *res)
{
    size_t len = 0;
    const char *where = text_of(e, f, CM_FIELD_DETAIL, sp, &len, &res->error_truncated);
    const char *after = e->late ? aftermath[res->state] : "";
    bool known = where && len > 0 && len <= WHERE_MAX;

    if (!known && !*after)
        return;
    struct cm_buf *b = next_space(sp, res->error_len + 2 + WHERE_MAX + strlen(after));
    if (cm_buf_append(b, res->error, res->error_len) < 0 ||
        (known && (cm_buf_append(b, ", ", 2) < 0 || cm_buf_append(b, where, len) < 0)) || cm_buf_puts(b, after) < 0)
        return;
    res->error = cm_buf_data(b);
    res->error_len = b->len;
}

static void count(struct cm_exec *e, enum cm_label_outcome outcome, double seconds)
{
    static const char *const names[] = {"ok", "error", "timeout", "rolled_back", "lost", "cancelled"};

    cm_log(CM_LOG_INFO, "execution_finished", CM_LOG_STR("session", e->session_id), CM_LOG_STR("exec", e->id),
           CM_LOG_STR("correlation_id", e->correlation_id), CM_LOG_STR("outcome", names[outcome]),
           CM_LOG_REAL("seconds", seconds));
    cm_metrics_add(e->m->metrics, CM_M_EXECUTIONS_FINISHED, outcome, 1);
    if (outcome != CM_L_OUTCOME_OK && outcome != CM_L_OUTCOME_CANCELLED)
        cm_metrics_add(e->m->metrics, CM_M_EXECUTION_ERRORS, 0, 1);
}

static enum cm_label_outcome outcome_of(const struct cm_exec *e, const struct cm_exec_result *res)
{
    if (e->timed_out)
        return CM_L_OUTCOME_TIMEOUT;
    if (res->state == CM_STATE_LOST)
        return CM_L_OUTCOME_LOST;
    if (res->state == CM_STATE_ROLLED_BACK)
        return CM_L_OUTCOME_ROLLED_BACK;
    return res->success ? CM_L_OUTCOME_OK : CM_L_OUTCOME_ERROR;
}

/* `f` or `why`. */
static void answer(struct cm_exec *e, const struct cm_ipc_fields *f, const char *why, enum cm_exec_state state)
{
    struct spaces sp = {.used = 0};
    struct cm_exec_result res = {.state = state};
    char text[600];

    res.duration_ns = cm_clock_ns() - e->start_ns;
    res.cpu_ns = e->cpu_ns;
    cm_metrics_observe_ns(e->m->metrics, CM_M_EXECUTION_DURATION, res.duration_ns);
    if (e->abandoned) {
        count(e, CM_L_OUTCOME_CANCELLED, (double)res.duration_ns / 1e9);
        cm_exec_free(e);
        return;
    }
    res.success = f && cm_ipc_get_uint(f, CM_FIELD_SUCCESS, 0) == 1;
    res.memory_bytes = f ? cm_ipc_get_uint(f, CM_FIELD_PEAK_MEMORY, 0) : 0;
    fill_texts(e, f, &sp, &res);
    bool came = e->put && res.success; /* in the last moment: the variable is there, and has to be known */
    if (e->timed_out && !came)
        say_timeout(e, &res, text, sizeof text);
    else if (!f)
        say_killed(e, &res, why, text, sizeof text);
    if (e->timed_out && !came)
        say_where(e, f, &sp, &res);
    count(e, outcome_of(e, &res), (double)res.duration_ns / 1e9);
    e->ops.done(e->arg, &res, NULL);
    free_spaces(&sp);
    cm_exec_free(e);
}

void cm_exec_answer(struct cm_exec *e, const struct cm_ipc_fields *f, enum cm_exec_state state)
{
    answer(e, f, NULL, state);
}

void cm_exec_answer_killed(struct cm_exec *e, const char *why, enum cm_exec_state state)
{
    answer(e, e->late, why, state);
}

int cm_exec_keep(struct cm_exec *e, const struct cm_ipc_fields *f)
{
    size_t size = sizeof *f;
    uint8_t *to;

    for (unsigned i = 0; i < CM_FIELD_END; i++)
        size += f->at[i].data ? f->at[i].len : 0;
    e->late = malloc(size);
    if (!e->late)
        return CM_ERR_NO_MEMORY;
    *e->late = *f;
    to = (uint8_t *)(e->late + 1);
    for (unsigned i = 0; i < CM_FIELD_END; i++) {
        if (!f->at[i].data)
            continue;
        e->late->at[i].data = memcpy(to, f->at[i].data, f->at[i].len);
        to += f->at[i].len;
    }
    return 0;
}

/* answering with an error */

void cm_exec_fail_now(struct cm_exec *e)
{
    cm_task_cancel(e->m->loop, &e->task);
    DL_DELETE(e->m->answering, e);
    if (!e->abandoned)
        e->ops.done(e->arg, NULL, &e->err);
    cm_exec_free(e);
}

static void on_fail_task(void *arg)
{
    cm_exec_fail_now(arg);
}

void cm_exec_fail(struct cm_exec *e, enum cm_label_outcome outcome, int code, const char *text)
{
    e->session = NULL;
    count(e, e->abandoned ? CM_L_OUTCOME_CANCELLED : outcome,
          e->start_ns ? (double)(cm_clock_ns() - e->start_ns) / 1e9 : 0);
    cm_err_set(&e->err, code, "%s", text);
    DL_APPEND(e->m->answering, e);
    cm_task_post(e->m->loop, &e->task, on_fail_task, e);
}

void cm_exec_abandon(struct cm_exec *e)
{
    struct cm_session *s = e->session;

    e->abandoned = true;
    if (!s)
        return; /* the task that holds the answer drops it */
    if (s->oneshot) {
        cm_session_event(s, CM_SE_END, &(struct cm_session_input){.reason = CM_L_END_ONESHOT});
    } else if (s->running == e) {
        cm_session_event(s, CM_SE_ABANDON, NULL);
    } else {
        cm_session_dequeue(s, e);
        cm_exec_fail(e, CM_L_OUTCOME_CANCELLED, CM_ERR_CANCELLED, "the request was withdrawn");
    }
}
