/* SPDX-License-Identifier: Apache-2.0 */
/* The session table: who gets in, who is asked for, and how it all ends. */
#include "session/internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "obs/log.h"

#define HOUSEKEEPING_MS  1000
#define DRAIN_LOOK_MS    20
#define STRAYS_LOOKED_NS (10 * CM_NS_PER_S)
#define STRAYS_END_MS    500

/* tombs: what became of lost sessions */

void cm_tomb_add(struct cm_sessions *m, const struct cm_session *s, const char *reason)
{
    struct cm_tomb *t = calloc(1, sizeof *t);

    if (!t)
        return; /* the session will be unknown instead of lost */
    snprintf(t->id, sizeof t->id, "%s", s->id);
    snprintf(t->owner, sizeof t->owner, "%s", s->owner);
    snprintf(t->reason, sizeof t->reason, "%s", reason);
    t->died_ns = cm_clock_ns();
    HASH_ADD_STR(m->tombs, id, t);
    if (!t->hh.tbl)
        free(t);
    else if (HASH_COUNT(m->tombs) > CM_TOMBS_MAX) {
        t = m->tombs;
        HASH_DEL(m->tombs, t);
        free(t);
    }
}

static void drop_tombs(struct cm_sessions *m, uint64_t died_before_ns)
{
    struct cm_tomb *t, *next;

    HASH_ITER(hh, m->tombs, t, next)
    {
        if (t->died_ns >= died_before_ns)
            return; /* they stand in the order of their death */
        HASH_DEL(m->tombs, t);
        free(t);
    }
}

/* strays */

void cm_strays_expect(struct cm_sessions *m)
{
    m->strays_until_ns = cm_clock_ns() + STRAYS_LOOKED_NS;
}

static bool is_known(const struct cm_sessions *m, int pid)
{
    const struct cm_worker *w;

    DL_SEARCH_SCALAR(m->workers, w, pid, pid);
    return w || pid == m->zygote.pid;
}

void cm_strays_reap(struct cm_sessions *m)
{
    siginfo_t si = {0};

    while (cm_clock_ns() < m->strays_until_ns && waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           si.si_pid != 0 && !is_known(m, si.si_pid))
        waitid(P_PID, (id_t)si.si_pid, &si, WEXITED | WNOHANG);
}

void cm_strays_end(struct cm_sessions *m)
{
    siginfo_t si;

    if (cm_clock_ns() >= m->strays_until_ns)
        return;
    for (int ms = 0; ms < STRAYS_END_MS;) {
        si = (siginfo_t){0};
        if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG) < 0 && errno == ECHILD)
            return;
        if (si.si_pid != 0)
            continue;
        poll(NULL, 0, 5);
        ms += 5;
    }
}

/* open and free */

static int check_config(const struct cm_sessions_config *c, struct cm_err *err)
{
    double longest = c->caps.at[CM_LIMIT_TIMEOUT];

    if (!c->sandbox_path || !c->image_path)
        return cm_err_set(err, CM_ERR_CONFIG, "the sandbox and its image must be named");
    if (c->max_sessions < 1 || c->max_sessions > 100000)
        return cm_err_set(err, CM_ERR_CONFIG, "max_sessions is not between 1 and 100000");
    if (!(c->limits.at[CM_LIMIT_TIMEOUT] > 0) || !(longest > 0) || longest > 1e6 || !(c->grace_s >= 0))
        return cm_err_set(err, CM_ERR_CONFIG, "timeouts must be above 0");
    if (c->limits.at[CM_LIMIT_OUTPUT] < 2 || c->caps.at[CM_LIMIT_OUTPUT] > (1u << 30))
        return cm_err_set(err, CM_ERR_CONFIG, "the output's limit is not between 2 bytes and 1 GiB");
    /* Four texts and the locals share a RESULT frame. */
    if ((uint64_t)c->caps.at[CM_LIMIT_RESULT] > CM_IPC_RESULT_MAX / 8 ||
        (uint64_t)c->caps.at[CM_LIMIT_LOCALS] > CM_IPC_RESULT_MAX / 4 || c->limits.at[CM_LIMIT_LOCALS] < 2)
        return cm_err_set(err, CM_ERR_CONFIG, "the result's limit is above %u or the locals' not from 2 to %u bytes",
                          CM_IPC_RESULT_MAX / 8, CM_IPC_RESULT_MAX / 4);
    if (c->caps.at[CM_LIMIT_TOOL_ARGUMENT] + CM_CALL_NAME_MAX + 64 > CM_IPC_CALL_MAX ||
        c->caps.at[CM_LIMIT_TOOL_RESULT] + 64 > CM_IPC_ANSWER_MAX || c->caps.at[CM_LIMIT_TOOL_CALLS] > UINT32_MAX)
        return cm_err_set(err, CM_ERR_CONFIG, "the limits of calls are above what frames hold");
    for (int i = 0; i < CM_LIMITS; i++)
        if (c->limits.at[i] > c->caps.at[i])
            return cm_err_set(err, CM_ERR_CONFIG, "the default of the limit %s is above its cap",
                              cm_limit_info(i)->name);
    return 0;
}

int cm_sessions_reload(struct cm_sessions *m, const struct cm_sessions_config *config, struct cm_err *err)
{
    int rc = check_config(config, err);

    if (rc < 0)
        return rc;
    m->config.max_sessions = config->max_sessions;
    m->config.session_ttl_s = config->session_ttl_s;
    m->config.spare_workers = config->spare_workers;
    m->config.limits = config->limits;
    m->config.caps = config->caps;
    m->config.queue_total = config->queue_total;
    m->config.min_free_memory = config->min_free_memory;
    m->config.grace_s = config->grace_s;
    return 0;
}

static void housekeeping(void *arg)
{
    struct cm_sessions *m = arg;
    uint64_t now = cm_clock_ns();

    cm_workers_check(m);
    cm_strays_reap(m);
    if (now > CM_TOMB_TTL_S * CM_NS_PER_S)
        drop_tombs(m, now - CM_TOMB_TTL_S * CM_NS_PER_S);
    cm_metrics_set(m->metrics, CM_M_LOG_DROPPED, 0, (int64_t)cm_log_dropped());
}

int cm_sessions_open(struct cm_loop *loop, const struct cm_sessions_config *config, struct cm_metrics *metrics,
                     struct cm_sessions **ret, struct cm_err *err)
{
    struct cm_err own = {0};
    struct cm_sessions *m = NULL;

    err = err ? err : &own;
    if (check_config(config, err) < 0)
        return err->code;
    m = calloc(1, sizeof *m);
    if (!m)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the session table");
    m->loop = loop;
    m->config = *config;
    m->metrics = metrics;
    cm_outputs_init(&m->outputs, config->stored_output, config->total_stored_output);
    m->sandbox_path = strdup(config->sandbox_path);
    m->image_path = strdup(config->image_path);
    m->config.sandbox_path = m->sandbox_path;
    m->config.image_path = m->image_path;
    if (!m->sandbox_path || !m->image_path)
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the session table");
    else if ((m->housekeeping = cm_timer_open(loop, housekeeping, m, err)) &&
             (m->look_timer = cm_timer_open(loop, cm_turns_look, m, err)) && cm_zygote_start(m, err) == 0) {
        cm_timer_start(m->housekeeping, HOUSEKEEPING_MS, HOUSEKEEPING_MS);
        *ret = m;
        return 0;
    }
    cm_sessions_free(m);
    return err->code;
}

static void end_all(struct cm_sessions *m)
{
    while (m->sessions)
        cm_session_event(m->sessions, CM_SE_END, &(struct cm_session_input){.reason = CM_L_END_SHUTDOWN});
}

static void answer_creation(void *arg)
{
    struct cm_creation *c = arg;

    cm_task_cancel(c->m->loop, &c->task);
    DL_DELETE(c->m->creations, c);
    c->done(c->arg, c->id[0] ? c->id : NULL, c->id[0] ? NULL : &c->err);
    free(c);
}

void cm_creation_answer(struct cm_creation *c, const char *id, const struct cm_err *err)
{
    if (id)
        snprintf(c->id, sizeof c->id, "%s", id);
    else
        c->err = *err;
    cm_task_post(c->m->loop, &c->task, answer_creation, c);
}

struct cm_sessions *cm_sessions_free(struct cm_sessions *m)
{
    if (!m)
        return NULL;
    m->ending = m->draining = true;
    end_all(m);
    while (m->answering)
        cm_exec_fail_now(m->answering);
    while (m->creations)
        answer_creation(m->creations);
    cm_zygote_end(m);
    cm_workers_end(m);
    cm_strays_end(m);
    drop_tombs(m, UINT64_MAX);
    cm_task_cancel(m->loop, &m->refill);
    cm_task_cancel(m->loop, &m->drained);
    cm_task_cancel(m->loop, &m->grant);
    m->housekeeping = cm_timer_close(m->housekeeping);
    m->drain_timer = cm_timer_close(m->drain_timer);
    m->look_timer = cm_timer_close(m->look_timer);
    free(m->sandbox_path);
    free(m->image_path);
    free(m);
    return NULL;
}

/* drain */

static bool is_quiet(const struct cm_sessions *m)
{
    return m->running == 0 && m->queued == 0 && m->waiters == 0 && !m->answering && !m->creations;
}

static void drained(void *arg)
{
    struct cm_sessions *m = arg;

    m->drain_done(m->drain_arg);
}

static void look_at_drain(void *arg)
{
    struct cm_sessions *m = arg;

    if (!is_quiet(m) && cm_clock_ns() >= m->drain_at_ns)
        end_all(m);
    if (!is_quiet(m))
        return;
    cm_timer_stop(m->drain_timer);
    cm_task_post(m->loop, &m->drained, drained, m);
}

void cm_sessions_drain(struct cm_sessions *m, double deadline_s, void (*done)(void *arg), void *arg)
{
    if (m->draining)
        return;
    m->draining = true;
    m->drain_done = done;
    m->drain_arg = arg;
    m->drain_at_ns = cm_clock_ns() + (uint64_t)(deadline_s * 1e9);
    cm_log(CM_LOG_INFO, "draining", CM_LOG_INT("running", m->running), CM_LOG_INT("queued", m->queued));
    m->drain_timer = cm_timer_open(m->loop, look_at_drain, m, NULL);
    if (m->drain_timer)
        cm_timer_start(m->drain_timer, 0, DRAIN_LOOK_MS);
    else
        cm_task_post(m->loop, &m->drained, drained, m);
}

bool cm_sessions_ready(const struct cm_sessions *m)
{
    return m->zygote.state == CM_ZYGOTE_UP && !m->draining;
}

const char *cm_sessions_image(const struct cm_sessions *m)
{
    return m->zygote.image;
}

/* operations */

/* Who is refused can come again; who is killed for want of memory may be anybody. */
static int admit_memory(struct cm_sessions *m, struct cm_err *err)
{
    uint64_t reserve = m->config.min_free_memory, left = reserve ? cm_pressure_left(&m->pressure) : UINT64_MAX;

    if (left >= reserve)
        return 0;
    return cm_err_set(err, CM_ERR_LOW_MEMORY,
                      "%llu MiB of memory are left, and new sessions start only with at least %llu (MIN_FREE_MEMORY)",
                      (unsigned long long)(left >> 20), (unsigned long long)(reserve >> 20));
}

static int admit(struct cm_sessions *m, bool new_session, struct cm_err *err)
{
    if (m->draining)
        return cm_err_set(err, CM_ERR_DRAINING, "the server is shutting down");
    if (new_session && m->live >= m->config.max_sessions)
        return cm_err_set(err, CM_ERR_MAX_SESSIONS, "%u sessions are live, as many as may be", m->live);
    return new_session ? admit_memory(m, err) : 0;
}

/* NULL and the reason when there is no such session. */
static const char no_session[] = "there is no such session, or it has expired";

static struct cm_session *find(struct cm_sessions *m, const char *id, struct cm_err *err)
{
    struct cm_session *s;
    struct cm_tomb *t;

    HASH_FIND_STR(m->sessions, id, s);
    if (s)
        return s;
    HASH_FIND_STR(m->tombs, id, t);
    if (t)
        cm_err_set(err, CM_ERR_SESSION_LOST, "%s", t->reason);
    else
        cm_err_set(err, CM_ERR_NO_SESSION, "%s", no_session);
    return NULL;
}

int cm_sessions_check_owner(const struct cm_sessions *m, const char *id, const char *owner, struct cm_err *err)
{
    const struct cm_session *s;
    const struct cm_tomb *t;

    HASH_FIND_STR(m->sessions, id, s);
    HASH_FIND_STR(m->tombs, id, t);
    if ((s && strcmp(s->owner, owner) != 0) || (t && strcmp(t->owner, owner) != 0))
        return cm_err_set(err, CM_ERR_NO_SESSION, "%s", no_session);
    return 0;
}

static int check_share(const struct cm_sessions *m, const struct cm_session_owner *owner, struct cm_err *err)
{
    const struct cm_session *s, *next;
    unsigned count = 0;

    if (owner->max_sessions == 0)
        return 0;
    HASH_ITER(hh, m->sessions, s, next)
    count += strcmp(s->owner, owner->name) == 0;
    if (count < owner->max_sessions)
        return 0;
    return cm_err_set(err, CM_ERR_MAX_SESSIONS, "%u sessions were made with this key, as many as its max_sessions",
                      count);
}

int cm_sessions_create(struct cm_sessions *m, const struct cm_limits_asked *limits, const char *correlation_id,
                       void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg, struct cm_err *err)
{
    return cm_sessions_create_for(m, NULL, limits, correlation_id, done, arg, err);
}

int cm_sessions_create_for(struct cm_sessions *m, const struct cm_session_owner *owner,
                           const struct cm_limits_asked *limits, const char *correlation_id,
                           void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                           struct cm_err *err)
{
    static const struct cm_session_owner nobody = {.name = ""};
    struct cm_err own = {0};
    struct cm_creation *c;

    err = err ? err : &own;
    owner = owner ? owner : &nobody;
    if (admit(m, true, err) < 0 || check_share(m, owner, err) < 0)
        return err->code;
    c = calloc(1, sizeof *c);
    if (!c)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a session");
    c->m = m;
    c->done = done;
    c->arg = arg;
    DL_APPEND(m->creations, c);
    struct cm_session *s = cm_session_new(m, false, c, err);
    if (!s) {
        DL_DELETE(m->creations, c);
        free(c);
        return err->code;
    }
    cm_limits_merge(&s->limits, limits);
    cm_limits_cap(&s->limits, owner->caps);
    snprintf(s->owner, sizeof s->owner, "%s", owner->name);
    cm_log(CM_LOG_INFO, "session_created", CM_LOG_STR("session", s->id), CM_LOG_STR("key", *s->owner ? s->owner : NULL),
           CM_LOG_STR("correlation_id", correlation_id));
    return 0;
}

/* Whether something more may run in a session, *ret, or with id NULL in a new one. */
static int admit_exec(struct cm_sessions *m, const char *id, struct cm_session **ret, struct cm_err *err)
{
    struct cm_session *s = NULL;

    if (admit(m, !id, err) < 0 || (id && !(s = find(m, id, err))))
        return err->code;
    *ret = s;
    if (s && s->reverted) {
        s->reverted = false; /* told once */
        return cm_err_set(err, CM_ERR_REVERTED, CM_REVERTED_TEXT);
    }
    bool waits = cm_turns_full(m) || (s && (s->running || s->state != CM_S_IDLE));
    if (waits && m->queued >= m->config.queue_total)
        return cm_err_set(err, CM_ERR_OVERLOADED, "%u executions wait for a processor already", m->queued);
    if (s && waits && s->queued >= s->limits.at[CM_LIMIT_QUEUE])
        return cm_err_set(err, CM_ERR_QUEUE_FULL, "%u executions wait in this session already, as many as limits.queue",
                          s->queued);
    return 0;
}

static void run(struct cm_session *s, struct cm_exec *e, struct cm_exec **ret_exec)
{
    cm_session_enqueue(s, e);
    cm_session_event(s, CM_SE_QUEUED, NULL);
    if (ret_exec)
        *ret_exec = e;
}

int cm_sessions_put(struct cm_sessions *m, const char *id, const struct cm_put_request *req,
                    void (*done)(void *arg, const struct cm_put_result *res, const struct cm_err *err), void *arg,
                    struct cm_exec **ret_exec, struct cm_err *err)
{
    cm_autofd int file = req->fd;
    struct cm_put_request own = *req;
    struct cm_session *s = NULL;
    struct cm_err unread = {0};

    err = err ? err : &unread;
    if (admit_exec(m, id, &s, err) < 0 || !s)
        return err->code;
    own.fd = cm_steal_fd(&file);
    struct cm_exec *e = cm_put_new(m, &s->limits, &own, done, arg, err);
    if (!e)
        return err->code;
    run(s, e, ret_exec);
    return 0;
}

int cm_sessions_execute(struct cm_sessions *m, const char *id, const struct cm_exec_request *req,
                        const struct cm_exec_ops *ops, void *arg, struct cm_exec **ret_exec, struct cm_err *err)
{
    struct cm_err own = {0};
    struct cm_session *s = NULL;

    err = err ? err : &own;
    if (admit_exec(m, id, &s, err) < 0)
        return err->code;
    struct cm_exec *e = cm_exec_new(m, s ? &s->limits : &m->config.limits, req, ops, arg, err);
    if (!e)
        return err->code;
    if (!s && !(s = cm_session_new(m, true, NULL, err))) {
        cm_exec_free(e);
        return err->code;
    }
    run(s, e, ret_exec);
    return 0;
}

int cm_sessions_output(struct cm_sessions *m, const char *id, const char *execution, int stream, uint64_t offset,
                       uint64_t length, struct cm_buf *to, struct cm_output_info *ret, struct cm_err *err)
{
    const struct cm_session *s = find(m, id, err);

    if (!s)
        return err->code;
    const struct cm_stored *stored = cm_shelf_find(&s->shelf, execution);
    if (!stored || !stored->stream[stream - 1].begun)
        return cm_err_set(err, CM_ERR_NO_OUTPUT, "there is no such execution with %s that its answer had to cut",
                          stream == 1 ? "stdout" : "stderr");
    *ret = (struct cm_output_info){stored->stream[stream - 1].printed, stored->stream[stream - 1].stored};
    int rc = cm_stored_read(stored, stream, offset, length, to);
    return rc < 0 ? cm_err_set(err, rc, "no memory for the output") : 0;
}

int cm_sessions_interrupt(struct cm_sessions *m, const char *id, const char *execution, bool *ret_stopped,
                          struct cm_err *err)
{
    struct cm_session *s = find(m, id, err);

    if (!s)
        return err->code;
    *ret_stopped = s->running && (!execution || strcmp(cm_exec_id(s->running), execution) == 0);
    if (*ret_stopped) {
        if (s->state == CM_S_RUNNING) /* else it is decided why it stops */
            s->running->stopped = true;
        cm_session_event(s, CM_SE_STOP, NULL);
    }
    return 0;
}

int cm_sessions_roll_back(struct cm_sessions *m, const char *id,
                          void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                          struct cm_err *err)
{
    struct cm_session *s = find(m, id, err);

    if (!s)
        return err->code;
    if (s->state != CM_S_IDLE || s->queue)
        return cm_err_set(err, CM_ERR_BUSY, "the session is %s", cm_session_state_text(s));
    if (s->reverted || !s->can_undo)
        return cm_err_set(err, CM_ERR_NOTHING_TO_UNDO, "the session has no earlier state to go back to");
    s->undo = calloc(1, sizeof *s->undo);
    if (!s->undo)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory to roll back");
    *s->undo = (struct cm_creation){.m = m, .done = done, .arg = arg};
    DL_APPEND(m->creations, s->undo);
    s->undo_seq = s->saved_seq;
    cm_session_event(s, CM_SE_UNDO, NULL);
    return 0;
}

bool cm_sessions_delete(struct cm_sessions *m, const char *id)
{
    struct cm_session *s;
    struct cm_tomb *t;

    HASH_FIND_STR(m->sessions, id, s);
    HASH_FIND_STR(m->tombs, id, t);
    bool found = s || t;
    if (t) {
        HASH_DEL(m->tombs, t);
        free(t);
    }
    if (s)
        cm_session_event(s, CM_SE_END, &(struct cm_session_input){.reason = CM_L_END_DELETED});
    return found;
}

static void describe(const struct cm_session *s, struct cm_session_info *ret)
{
    uint64_t now = cm_clock_ns();
    bool idle = s->state == CM_S_IDLE;
    unsigned ttl = s->m->config.session_ttl_s;

    *ret = (struct cm_session_info){
        .owner = s->owner,
        .state = cm_session_state_text(s),
        .executions = s->executions,
        .queued = s->queued,
        .restores = s->restores,
        .can_roll_back = s->can_undo && !s->reverted,
        .age_s = (double)(now - s->created_ns) / 1e9,
        .idle_s = idle ? (double)(now - s->used_ns) / 1e9 : 0,
        .memory_bytes = s->memory_bytes,
        .pid = s->worker ? s->worker->pid : 0,
        .limits = s->limits,
    };
    ret->expires_in_s = ttl == 0 ? -1 : ttl - ret->idle_s > 0 ? ttl - ret->idle_s : 0;
    memcpy(ret->id, s->id, sizeof ret->id);
}

int cm_sessions_info(struct cm_sessions *m, const char *id, struct cm_session_info *ret, struct cm_err *err)
{
    struct cm_err own = {0};
    struct cm_session *s;

    err = err ? err : &own;
    s = find(m, id, err);
    if (!s)
        return err->code;
    describe(s, ret);
    return 0;
}

void cm_sessions_each(struct cm_sessions *m, void (*each)(void *arg, const struct cm_session_info *info), void *arg)
{
    struct cm_session_info info;
    struct cm_session *s, *next;

    HASH_ITER(hh, m->sessions, s, next)
    {
        if (s->oneshot)
            continue; /* it has no name that anyone could use */
        describe(s, &info);
        each(arg, &info);
    }
}
