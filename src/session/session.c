/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine of tables/session-states.def: one short function per action.
 *
 * cm_session_event() sets the next state before it calls the action, and an action is the last thing that touches
 * the session: several of them end it. */
#include "session/internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/random.h"
#include "obs/log.h"

static const char *const state_texts[] = {
#define CM_SESSION_STATE(name, text) text,
#include "session-states.def"
#undef CM_SESSION_STATE
};

const char *cm_session_state_text(const struct cm_session *s)
{
    return s->state == CM_S_IDLE && s->turn_prev ? "queued" : state_texts[s->state];
}

/* bookkeeping */

static void set_running(struct cm_session *s, struct cm_exec *e)
{
    if (s->running) {
        cm_exec_look(s->running, s->worker);
        s->m->running--;
        cm_turn_over(s->running);
    }
    if (e)
        s->m->running++;
    s->running = e;
    cm_metrics_set(s->m->metrics, CM_M_EXECUTIONS_RUNNING, 0, s->m->running);
}

static void count_queued(struct cm_session *s, int n)
{
    s->queued += (unsigned)n;
    s->m->queued += (unsigned)n;
    cm_metrics_set(s->m->metrics, CM_M_EXECUTIONS_QUEUED, 0, s->m->queued);
}

void cm_session_enqueue(struct cm_session *s, struct cm_exec *e)
{
    e->session = s;
    memcpy(e->session_id, s->id, sizeof e->session_id);
    DL_APPEND(s->queue, e);
    count_queued(s, 1);
}

void cm_session_dequeue(struct cm_session *s, struct cm_exec *e)
{
    DL_DELETE(s->queue, e);
    count_queued(s, -1);
    e->session = NULL;
}

static struct cm_exec *take_running(struct cm_session *s)
{
    struct cm_exec *e = s->running;

    cm_calls_end(e);
    set_running(s, NULL);
    e->session = NULL;
    return e;
}

void cm_session_stop_waiting(struct cm_session *s)
{
    if (!s->wait_prev)
        return;
    if (s->checkpoint >= 0) {
        DL_DELETE2(s->m->restoring, s, wait_prev, wait_next);
    } else {
        DL_DELETE2(s->m->waiting, s, wait_prev, wait_next);
        s->m->waiters--;
    }
    s->wait_prev = s->wait_next = NULL;
}

void cm_session_wait_again(struct cm_session *s, int *checkpoint)
{
    s->worker = NULL;
    if (&s->checkpoint != checkpoint)
        s->checkpoint = cm_steal_fd(checkpoint);
    DL_APPEND2(s->m->restoring, s, wait_prev, wait_next);
    cm_workers_want(s->m);
}

static void arm_ttl(struct cm_session *s)
{
    if (s->m->config.session_ttl_s > 0)
        cm_timer_start(s->timer, s->m->config.session_ttl_s * 1000ull, 0);
    else
        cm_timer_stop(s->timer);
}

/* Out of the table, every execution answered with the error, the worker - if it lives - ended. */
static void close_session(struct cm_session *s, enum cm_label_end reason, enum cm_label_outcome outcome, int code,
                          const char *text)
{
    static const char *const reasons[] = {"deleted", "expired", "oneshot", "lost", "not_started", "shutdown"};
    struct cm_sessions *m = s->m;

    cm_log(s->oneshot ? CM_LOG_DEBUG : CM_LOG_INFO, "session_ended", CM_LOG_STR("session", s->id),
           CM_LOG_STR("reason", reasons[reason]), CM_LOG_STR("detail", text), CM_LOG_INT("executions", s->executions));
    HASH_DEL(m->sessions, s);
    cm_session_stop_waiting(s);
    cm_turn_leave(s);
    if (s->running)
        cm_exec_fail(take_running(s), outcome, code, text); /* first: it still reads the worker's clock */
    if (s->worker)
        cm_worker_discard(s->worker);
    while (s->queue) {
        struct cm_exec *e = s->queue;
        cm_session_dequeue(s, e);
        cm_exec_fail(e, outcome, code, text);
    }
    if (s->creation)
        cm_creation_answer(s->creation, NULL, &(struct cm_err){.code = code, .text = "the session ended at once"});
    if (s->undo)
        cm_creation_answer(s->undo, NULL, &(struct cm_err){.code = code, .text = "the session ended meanwhile"});
    s->checkpoint = cm_fd_close(s->checkpoint);
    s->timer = cm_timer_close(s->timer);
    cm_shelf_done(&s->shelf);
    free(s);
    cm_metrics_set(m->metrics, CM_M_SESSIONS_ACTIVE, 0, --m->live);
    cm_metrics_add(m->metrics, CM_M_SESSIONS_ENDED, reason, 1);
}

/* actions */

static void stay(struct cm_session *s, const struct cm_session_input *in)
{
    (void)s;
    (void)in;
}

static void run_next(struct cm_session *s, const struct cm_session_input *in)
{
    struct cm_err err = {0};

    (void)in;
    if (!cm_turn_take(s)) {
        s->state = CM_S_IDLE;
        cm_timer_stop(s->timer);
        return;
    }
    while (s->queue) {
        struct cm_exec *e = s->queue;
        cm_session_dequeue(s, e);
        e->cpu_start_ns = cm_exec_cpu_clock(s->worker->pid); /* the worker may be done before we are on again */
        if (cm_exec_send(e, s->oneshot, s->worker->channel, &err) < 0) {
            cm_exec_fail(e, CM_L_OUTCOME_ERROR, err.code, err.text);
            continue;
        }
        e->session = s;
        s->executions++;
        set_running(s, e);
        cm_timer_start(s->timer, cm_exec_time_left(e, s->worker), 0);
        return;
    }
    s->state = CM_S_IDLE; /* nothing could be sent */
    if (s->oneshot)
        close_session(s, CM_L_END_ONESHOT, CM_L_OUTCOME_CANCELLED, CM_ERR_NO_SESSION, "the session ended");
    else
        arm_ttl(s);
}

static void attach(struct cm_session *s, const struct cm_session_input *in)
{
    cm_session_stop_waiting(s);
    s->worker = in->worker;
    s->used_ns = cm_clock_ns();
    cm_log(CM_LOG_DEBUG, "session_started", CM_LOG_STR("session", s->id), CM_LOG_INT("pid", s->worker->pid));
    if (s->creation) {
        cm_creation_answer(s->creation, s->id, NULL);
        s->creation = NULL;
    }
    arm_ttl(s);
    if (s->queue)
        cm_session_event(s, CM_SE_QUEUED, NULL);
}

static void not_started(struct cm_session *s, const struct cm_session_input *in)
{
    struct cm_err err = {0};

    if (in && in->err)
        err = *in->err;
    else
        cm_err_set(&err, CM_ERR_SANDBOX, "no sandbox process was ready within %d s", CM_SPAWN_DEADLINE_MS / 1000);
    if (s->creation) {
        cm_creation_answer(s->creation, NULL, &err);
        s->creation = NULL;
    }
    close_session(s, CM_L_END_NOT_STARTED, CM_L_OUTCOME_LOST, err.code, err.text);
}

static void collect(struct cm_session *s, const struct cm_session_input *in)
{
    struct cm_exec *e = s->running;
    size_t len;
    const char *data = cm_ipc_get_bytes(in->fields, CM_FIELD_DATA, &len);
    int stream = (int)cm_ipc_get_uint(in->fields, CM_FIELD_STREAM, 1);

    cm_exec_collect(e, stream, data, len);
    if (e->ops.output && !e->abandoned)
        e->ops.output(e->arg, stream, data, len);
}

static void call(struct cm_session *s, const struct cm_session_input *in)
{
    cm_calls_frame(s->running, in->head, in->fields);
}

/* The time after which a process that was killed should be gone. */
#define KILL_DEADLINE_MS 2000

static void kill_worker(struct cm_session *s, const struct cm_session_input *in)
{
    (void)in;
    cm_worker_kill(s->worker, CM_L_DEATH_ROLLBACK, "the session is rolled back");
    cm_timer_start(s->timer, KILL_DEADLINE_MS, 0);
}

/* Back to the state before `seq`, whether its worker has saved the one after it or not. */
static void roll_back(struct cm_session *s, uint64_t seq)
{
    s->undo_seq = seq;
    s->state = CM_S_KILLING;
    kill_worker(s, NULL);
}

static bool has_failed(const struct cm_exec *e, const struct cm_ipc_fields *f)
{
    return e->timed_out || e->stopped || e->abandoned || cm_ipc_get_uint(f, CM_FIELD_SUCCESS, 0) != 1;
}

static void finish(struct cm_session *s, const struct cm_session_input *in)
{
    struct cm_exec *e = s->running;

    s->used_ns = cm_clock_ns();
    s->memory_bytes = cm_ipc_get_uint(in->fields, CM_FIELD_PEAK_MEMORY, 0);
    cm_calls_end(e);
    if (e->atomic && !s->oneshot && has_failed(e, in->fields)) {
        cm_exec_look(e, s->worker);  /* which is about to go, and its clock with it */
        cm_exec_keep(e, in->fields); /* without memory for it, its reason is what gets lost */
        roll_back(s, e->seq);
        return;
    }
    take_running(s);
    s->before_seq = s->saved_seq;
    s->saved_seq = e->seq;
    s->can_undo = true;
    if (s->oneshot)
        close_session(s, CM_L_END_ONESHOT, CM_L_OUTCOME_CANCELLED, CM_ERR_NO_SESSION, "the session ended");
    else if (s->queue)
        cm_session_event(s, CM_SE_QUEUED, NULL);
    else
        arm_ttl(s);
    cm_exec_answer(e, in->fields, CM_STATE_KEPT);
}

static void interrupt(struct cm_session *s, const struct cm_session_input *in)
{
    (void)in;
    s->running->timed_out = !s->running->abandoned && !s->running->stopped;
    s->kill_at_ns = cm_clock_ns() + (uint64_t)(s->m->config.grace_s * 1e9);
    cm_worker_interrupt(s->worker); /* first: its main thread shall hear of this, and not of a call that failed */
    cm_calls_cancel(s->running);
    cm_timer_start(s->timer, CM_INTERRUPT_EVERY_MS, CM_INTERRUPT_EVERY_MS);
}

static void interrupt_again(struct cm_session *s, const struct cm_session_input *in)
{
    (void)in;
    cm_exec_look(s->running, s->worker);
    cm_worker_interrupt(s->worker);
}

static void give_up(struct cm_session *s, const struct cm_session_input *in)
{
    (void)in;
    cm_worker_kill(s->worker, CM_L_DEATH_TIMEOUT, "the execution did not react to its interrupt and was ended");
    cm_timer_start(s->timer, KILL_DEADLINE_MS, 0);
}

static void drop(struct cm_session *s, const struct cm_session_input *in)
{
    (void)s;
    (void)in;
}

/* Gone for good. The tomb tells whoever comes later. */
static void lose(struct cm_session *s, const struct cm_session_input *in)
{
    /* Of a timeout there is more to tell than that the session is gone. */
    struct cm_exec *e = s->running && s->running->timed_out ? take_running(s) : NULL;
    struct cm_err why = s->cause;

    if (!why.code)
        cm_err_set(&why, CM_ERR_SESSION_LOST, "the session's process could not be ended");
    if (!s->oneshot) {
        const char *reason = in && in->err ? in->err->text : "no process had its saved state in time";
        cm_err_wrap(&why, "not restored (%s), after this", reason);
        cm_tomb_add(s->m, s, why.text);
    }
    close_session(s, CM_L_END_LOST, CM_L_OUTCOME_LOST, CM_ERR_SESSION_LOST, why.text);
    if (e)
        cm_exec_answer_killed(e, why.text, CM_STATE_LOST);
}

static void restore(struct cm_session *s, const struct cm_session_input *in)
{
    s->worker = NULL; /* its own room ends it */
    s->cause = *in->err;
    if (s->running)
        cm_calls_end(s->running);
    if (s->oneshot) {
        lose(s, in);
        return;
    }
    if (s->running) /* which may even have been saved, when its answer was not acceptable */
        s->undo_seq = s->running->seq;
    s->died_ns = cm_clock_ns();
    cm_session_wait_again(s, in->checkpoint);
    cm_timer_start(s->timer, CM_SPAWN_DEADLINE_MS, 0);
}

/* What became of the state, by what the new worker says that it has. False: it is none that we know. */
static bool accept_state(struct cm_session *s, uint64_t seq)
{
    bool before = s->can_undo && seq == s->before_seq && seq != s->saved_seq;

    if (seq != s->saved_seq && !before)
        return false;
    if (before && !s->undo)
        s->reverted = true; /* what an earlier death has left untold stays so */
    if (before) {
        s->saved_seq = seq;
        s->can_undo = false;
    }
    return true;
}

static void answer_undo(struct cm_session *s, bool undone)
{
    struct cm_err err;

    if (!undone)
        cm_err_set(&err, CM_ERR_NOTHING_TO_UNDO, "the session has no earlier state to go back to");
    cm_creation_answer(s->undo, undone ? s->id : NULL, undone ? NULL : &err);
    s->undo = NULL;
}

/* Whoever waits for the session learns that it is not in the state that they know; when nobody does, or nobody listens
 * any more, the next call does. */
static void tell_reverted(struct cm_session *s, struct cm_exec *running)
{
    s->reverted = !s->queue && (!running || running->abandoned);
    if (running)
        cm_exec_fail(running, CM_L_OUTCOME_ROLLED_BACK, CM_ERR_REVERTED, CM_REVERTED_TEXT);
    while (s->queue) {
        struct cm_exec *e = s->queue;
        cm_session_dequeue(s, e);
        cm_exec_fail(e, CM_L_OUTCOME_ROLLED_BACK, CM_ERR_REVERTED, CM_REVERTED_TEXT);
    }
}

static void restored(struct cm_session *s, const struct cm_session_input *in)
{
    struct cm_exec *e = s->running ? take_running(s) : NULL;
    uint64_t former = s->saved_seq;
    struct cm_err why = s->cause;

    s->worker = in->worker;
    s->undo_seq = 0;
    if (!accept_state(s, in->worker->seq)) {
        if (e) /* it goes down with the rest */
            set_running(s, e);
        lose(s, NULL);
        return;
    }
    s->restores++;
    s->used_ns = cm_clock_ns();
    cm_metrics_observe_ns(s->m->metrics, CM_M_RESTORE_DURATION, s->used_ns - s->died_ns);
    cm_log(CM_LOG_INFO, "session_restored", CM_LOG_STR("session", s->id), CM_LOG_INT("pid", s->worker->pid),
           CM_LOG_STR("why", why.text), CM_LOG_REAL("seconds", (double)(s->used_ns - s->died_ns) / 1e9));
    s->cause = (struct cm_err){0};
    if (s->undo)
        answer_undo(s, s->saved_seq != former);
    if (s->reverted) {
        tell_reverted(s, e);
        e = NULL;
    }
    if (s->queue)
        cm_session_event(s, CM_SE_QUEUED, NULL);
    else
        arm_ttl(s);
    if (e)
        cm_exec_answer_killed(e, why.text, CM_STATE_ROLLED_BACK);
}

static void expire(struct cm_session *s, const struct cm_session_input *in)
{
    (void)in;
    close_session(s, CM_L_END_EXPIRED, CM_L_OUTCOME_LOST, CM_ERR_NO_SESSION, "the session has expired");
}

static void end(struct cm_session *s, const struct cm_session_input *in)
{
    bool down = in->reason == CM_L_END_SHUTDOWN;

    close_session(s, in->reason, CM_L_OUTCOME_CANCELLED, down ? CM_ERR_DRAINING : CM_ERR_NO_SESSION,
                  down ? "the server is shutting down" : "the session was deleted");
}

/* the table */

static const struct {
    void (*act)(struct cm_session *s, const struct cm_session_input *in);
    enum cm_session_state next;
} cells[CM_S_COUNT][CM_SE_COUNT] = {
#define CM_TRANSITION(state, event, action, next) [CM_S_##state][CM_SE_##event] = {action, CM_S_##next},
#include "session-states.def"
#undef CM_TRANSITION
};

void cm_session_event(struct cm_session *s, enum cm_session_event event, const struct cm_session_input *in)
{
    assert(cells[s->state][event].act);
    enum cm_session_state before = s->state;
    s->state = cells[before][event].next;
    cells[before][event].act(s, in);
}

static void on_timer(void *arg)
{
    struct cm_session *s = arg;
    bool over = s->state == CM_S_INTERRUPTING && cm_clock_ns() >= s->kill_at_ns;
    uint64_t left = s->state == CM_S_RUNNING ? cm_exec_time_left(s->running, s->worker) : 0;

    if (left > 0) { /* it has slept: there is processor time left */
        cm_timer_start(s->timer, left, 0);
        return;
    }
    cm_session_event(s, over ? CM_SE_GRACE : CM_SE_TIMER, NULL);
}

static bool output_is_sound(const struct cm_ipc_fields *f, struct cm_err *err)
{
    uint64_t stream = cm_ipc_get_uint(f, CM_FIELD_STREAM, 0);

    if ((stream == 1 || stream == 2) && cm_ipc_has(f, CM_FIELD_DATA))
        return true;
    cm_err_set(err, CM_ERR_PROTOCOL, "OUTPUT frame without its stream or its data");
    return false;
}

int cm_session_frame(struct cm_session *s, const struct cm_ipc_header *head, const struct cm_ipc_fields *f,
                     struct cm_err *err)
{
    bool output = head->type == CM_MSG_OUTPUT, result = head->type == CM_MSG_RESULT;
    enum cm_session_event event = output ? CM_SE_OUTPUT : result ? CM_SE_RESULT : CM_SE_CALL;

    if (!cells[s->state][event].act || !s->running || s->running->seq != head->id)
        return cm_err_set(err, CM_ERR_PROTOCOL, "%s frame for no running execution", cm_ipc_message(head->type)->name);
    if (!(output   ? output_is_sound(f, err)
          : result ? cm_exec_check_result(s->running, f, err)
                   : cm_calls_check(s->running, head, f, err)))
        return CM_ERR_PROTOCOL;
    cm_session_event(s, event, &(struct cm_session_input){.head = head, .fields = f});
    return 0;
}

struct cm_session *cm_session_new(struct cm_sessions *m, bool oneshot, struct cm_creation *creation, struct cm_err *err)
{
    struct cm_session *s = calloc(1, sizeof *s);

    if (!s) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a session");
        return NULL;
    }
    s->m = m;
    s->oneshot = oneshot;
    s->limits = m->config.limits;
    cm_shelf_init(&s->shelf, &m->outputs);
    s->checkpoint = -1;
    s->created_ns = s->used_ns = cm_clock_ns();
    strcpy(s->id, "session-");
    s->timer = cm_timer_open(m->loop, on_timer, s, err);
    if (!s->timer || cm_random_hex(s->id + 8, 32, err) < 0)
        goto failed;
    HASH_ADD_STR(m->sessions, id, s);
    if (!s->hh.tbl) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the session table");
        goto failed;
    }
    cm_metrics_set(m->metrics, CM_M_SESSIONS_ACTIVE, 0, ++m->live);
    cm_metrics_add(m->metrics, CM_M_SESSIONS_CREATED, 0, 1);
    s->creation = creation;
    struct cm_worker *w = cm_worker_take_spare(m, s);
    if (w) {
        cm_session_event(s, CM_SE_WORKER, &(struct cm_session_input){.worker = w});
    } else {
        DL_APPEND2(m->waiting, s, wait_prev, wait_next);
        m->waiters++;
        cm_timer_start(s->timer, CM_SPAWN_DEADLINE_MS, 0);
    }
    cm_workers_want(m);
    return s;
failed:
    s->timer = cm_timer_close(s->timer);
    free(s);
    return NULL;
}
