/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share. Nobody outside includes it.
 *
 *     manager  table, admission, drain        session  the state machine
 *     exec     one execution and its answer   worker   processes and the pool of spare ones
 *     calls    of tools, by the code          put      a variable instead of code
 *     zygote   the process that forks them      slots    who may compute now
 *     keep, outputs   what was printed          pressure the memory that is left
 *
 * Answers: an execution's result is handed out at the very end of the event that brought it; every other answer goes
 * through a task in the next turn. So no caller is called back from within its own call, and whatever a callback
 * does - delete the session, start another execution - meets finished state.
 */
#ifndef CM_SESSION_INTERNAL_H
#define CM_SESSION_INTERNAL_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "base/clock.h"
#include "base/correlation.h"
#include "ev/loop.h"
#include "ipc/channel.h"
#include "obs/metrics.h"
#include "session/keep.h"
#include "session/outputs.h"
#include "session/pressure.h"
#include "session/session.h"

#define CM_SPAWN_DEADLINE_MS  5000 /* from the wish for a worker to its READY */
#define CM_SPAWNS_AT_ONCE     16   /* a burst of creations must not become a burst of forks */
#define CM_INTERRUPT_EVERY_MS 50   /* the guest may have cleared the flag, or not been in Python yet */
#define CM_TOMBS_MAX          1000 /* lost sessions remembered, so that their next call learns why */
#define CM_TOMB_TTL_S         3600
#define CM_REVERTED_TEXT                                                                                               \
    "the session's process ended after its newest execution had been answered and before its state was saved"
#define CM_EXEC_ID_MAX    24
#define CM_IMAGE_NAME_MAX 80

enum cm_session_state {
#define CM_SESSION_STATE(name, text) CM_S_##name,
#include "session-states.def"
#undef CM_SESSION_STATE
    CM_S_COUNT
};

enum cm_session_event {
#define CM_SESSION_EVENT(name) CM_SE_##name,
#include "session-states.def"
#undef CM_SESSION_EVENT
    CM_SE_COUNT
};

/* exec */

struct cm_worker;

struct cm_exec {
    struct cm_exec *prev, *next; /* of the session's queue, or of the answers that wait for their turn */
    struct cm_sessions *m;
    struct cm_session *session; /* NULL once the answer is under way */
    char id[CM_EXEC_ID_MAX], session_id[CM_SESSION_ID_MAX];
    char correlation_id[CM_CORRELATION_MAX + 1];
    uint64_t seq; /* id of its frames */
    char *code, *context, *cfg, *tools; /* one allocation, at `code`; the channel's when sent */
    size_t code_len, context_len, cfg_len, tools_len;
    enum cm_exec_mode mode;
    bool strict; /* its code begins with the rules */
    struct cm_limits limits;
    struct cm_exec_ops ops;
    void *arg;
    struct cm_keep out, err_out;
    struct cm_stored *stored; /* all of the output that became too long; its session's */
    uint64_t start_ns, cpu_start_ns, cpu_ns; /* cpu_ns: of the run, as last read */
    uint64_t looked_ns, looked_cpu_ns;       /* slots: when its clock was last read, and what it said */
    bool resting;                            /* slots: it has hardly used its processor since the look before */
    bool cpu_over;                           /* it is the processor time that ran out */
    bool timed_out, stopped, abandoned;
    bool atomic; /* unless it succeeds, the session goes back to the state before it */
    /* The answer of an atomic execution that failed, until the session is back: a copy of its fields. */
    struct cm_ipc_fields *late;
    struct cm_call *calls; /* that are not answered yet */
    unsigned calls_live, calls_made;
    bool calls_over; /* it was interrupted: what it calls now fails */
    struct cm_timer *calls_timer; /* NULL before the first call */
    struct cm_put *put; /* it is no code that runs */
    uint64_t calls_due_ns; /* when it comes; 0: it does not */
    struct cm_task task; /* for the answer below */
    struct cm_err err;
};

/* Checks the request and copies it. `base` are the limits that hold where it asks for none. NULL and *err on refusal. */
struct cm_exec *cm_exec_new(struct cm_sessions *m, const struct cm_limits *base, const struct cm_exec_request *req,
                            const struct cm_exec_ops *ops, void *arg, struct cm_err *err);
/* One of its limits as a whole number. */
static inline uint64_t cm_exec_limit(const struct cm_exec *e, enum cm_limit limit)
{
    return (uint64_t)e->limits.at[limit];
}
struct cm_exec *cm_exec_free(struct cm_exec *e);
/* Sends EXECUTE. `once`: the session ends with it, and nothing is saved of it. */
int cm_exec_send(struct cm_exec *e, bool once, struct cm_channel *ch, struct cm_err *err);
/* Nanoseconds of processor time that a process has used; 0 when it is gone. */
uint64_t cm_exec_cpu_clock(int pid);
/* Reads the clock of a running execution's worker into cpu_ns. */
void cm_exec_look(struct cm_exec *e, const struct cm_worker *w);
/* The time until it may be out of time, in ms, or 0 when it is. Then cpu_over says whether of processor time. */
uint64_t cm_exec_time_left(struct cm_exec *e, const struct cm_worker *w);
/* Output of a running execution. stream: 1 or 2 */
void cm_exec_collect(struct cm_exec *e, int stream, const char *data, size_t len);
/* True when the RESULT frame keeps its promises; else *err says which it broke. */
bool cm_exec_check_result(const struct cm_exec *e, const struct cm_ipc_fields *f, struct cm_err *err);
/* Answers with a result and frees. The execution must be out of its session. Calls back: nothing may be touched
 * afterwards. */
void cm_exec_answer(struct cm_exec *e, const struct cm_ipc_fields *f, enum cm_exec_state state);
/* The same for an execution whose worker died, or was ended, in its middle; `why` is one line for a person. */
void cm_exec_answer_killed(struct cm_exec *e, const char *why, enum cm_exec_state state);
/* Copies a result for later: e->late. */
int cm_exec_keep(struct cm_exec *e, const struct cm_ipc_fields *f);
/* Answers with an error in the next turn and frees, also an abandoned one. The execution must be out of its session. */
void cm_exec_fail(struct cm_exec *e, enum cm_label_outcome outcome, int code, const char *text);
/* The same at once, for the end of the manager. */
void cm_exec_fail_now(struct cm_exec *e);

/* put */

/* As cm_exec_new(); takes the file in any case. */
struct cm_exec *cm_put_new(struct cm_sessions *m, const struct cm_limits *base, const struct cm_put_request *req,
                           void (*done)(void *arg, const struct cm_put_result *res, const struct cm_err *err),
                           void *arg, struct cm_err *err);
/* Accepts NULL, returns NULL. */
struct cm_put *cm_put_free(struct cm_put *put);
/* Sends LOAD and CONTENT. */
int cm_put_send(struct cm_exec *e, struct cm_channel *ch, struct cm_err *err);

/* calls */

/* True when a CALL or CALL_CANCEL frame keeps its promises; else *err says which it broke. */
bool cm_calls_check(const struct cm_exec *e, const struct cm_ipc_header *head, const struct cm_ipc_fields *f,
                    struct cm_err *err);
/* A checked frame. Calls back. */
void cm_calls_frame(struct cm_exec *e, const struct cm_ipc_header *head, const struct cm_ipc_fields *f);
/* Its time is over: all calls fail, and those that it still makes. Calls back. */
void cm_calls_cancel(struct cm_exec *e);
/* Forgets its calls; nothing is sent to its worker, which may be gone. Calls back. */
void cm_calls_end(struct cm_exec *e);

/* session */

struct cm_creation { /* a caller that waits for a new session, or for one to be rolled back */
    struct cm_creation *prev, *next;
    struct cm_sessions *m;
    char id[CM_SESSION_ID_MAX]; /* empty: *err is the answer */
    struct cm_err err;
    void (*done)(void *arg, const char *id, const struct cm_err *err);
    void *arg;
    struct cm_task task;
};

struct cm_session {
    UT_hash_handle hh;
    struct cm_session *turn_prev, *turn_next; /* of those that wait for a turn to run */
    bool granted; /* it has its turn */
    struct cm_session *wait_prev, *wait_next; /* in STARTING and RESTORING, the queue for a worker */
    struct cm_sessions *m;
    char id[CM_SESSION_ID_MAX], owner[CM_SESSION_OWNER_MAX];
    enum cm_session_state state;
    bool oneshot;
    struct cm_limits limits; /* of executions that ask for none of their own */
    struct cm_shelf shelf;
    struct cm_worker *worker;
    struct cm_timer *timer; /* start deadline, TTL, execution deadline or interrupt, by state */
    struct cm_creation *creation;
    struct cm_exec *queue, *running;
    unsigned queued, executions, restores;
    uint64_t created_ns, used_ns, kill_at_ns, memory_bytes;

    /* What its worker saves, by the executions' frame ids: after the newest one, and after the one before. */
    uint64_t saved_seq, before_seq;
    bool can_undo; /* before_seq counts */
    int checkpoint; /* between two workers, else -1: it is the worker's */
    uint64_t died_ns; /* the former worker */
    uint64_t undo_seq; /* execution that the next worker is to undo, if it finds it saved; 0: none */
    struct cm_creation *undo; /* who asked for it */
    struct cm_err cause; /* why the former worker died */
    bool reverted; /* the newest execution was answered, but not saved: the next call has to learn it */
};

/* What comes with an event. */
struct cm_session_input {
    struct cm_worker *worker; /* WORKER */
    const struct cm_ipc_header *head; /* CALL */
    const struct cm_ipc_fields *fields; /* OUTPUT, RESULT, CALL */
    const struct cm_err *err; /* FAILED, DEATH */
    int *checkpoint; /* DEATH: may be stolen */
    enum cm_label_end reason; /* END */
};

/* A session in the table, IDLE when a spare worker was at hand, else STARTING. `creation`, which may be NULL, is
 * answered when the session has started; it stays the caller's on failure. */
struct cm_session *cm_session_new(struct cm_sessions *m, bool oneshot, struct cm_creation *creation,
                                  struct cm_err *err);
/* The session may be gone afterwards. */
void cm_session_event(struct cm_session *s, enum cm_session_event event, const struct cm_session_input *in);
/* OUTPUT, RESULT, CALL or CALL_CANCEL from the session's worker. 0, or CM_ERR_PROTOCOL when the frame is out of place or broken. After
 * 0 the session and the worker's channel may be gone. */
int cm_session_frame(struct cm_session *s, const struct cm_ipc_header *head, const struct cm_ipc_fields *f,
                     struct cm_err *err);
void cm_session_enqueue(struct cm_session *s, struct cm_exec *e);
void cm_session_dequeue(struct cm_session *s, struct cm_exec *e);
const char *cm_session_state_text(const struct cm_session *s);
void cm_creation_answer(struct cm_creation *c, const char *id, const struct cm_err *err);
/* Out of the queue for a worker. */
void cm_session_stop_waiting(struct cm_session *s);
/* The worker that was to restore it did not come to be: another one will. The descriptor is taken. */
void cm_session_wait_again(struct cm_session *s, int *checkpoint);

/* slots */

/* True when the session may run an execution now; else it has got its place among those that wait. */
bool cm_turn_take(struct cm_session *s);
void cm_turn_leave(struct cm_session *s);
/* An execution does not run any more. */
void cm_turn_over(struct cm_exec *e);
/* Whoever comes now has to wait. */
bool cm_turns_full(const struct cm_sessions *m);
void cm_turns_look(void *manager);

/* worker */

/* SPAWNING with a session: it restores that one, and no other. */
enum cm_worker_state { CM_WORKER_SPAWNING, CM_WORKER_SPARE, CM_WORKER_OWNED, CM_WORKER_DYING };

struct cm_worker {
    struct cm_worker *prev, *next; /* of all workers: those that ever had a session first, the youngest last */
    struct cm_sessions *m;
    enum cm_worker_state state;
    struct cm_session *session;
    uint64_t spawn_id, asked_ns;
    uint64_t seq; /* of the state that it began with */
    bool ready, hung_up; /* has said READY; has closed its channel */
    bool orphan; /* out of sight; its session waits for the end of its channel */
    const char *killed_for; /* why we have killed it; NULL: we have not */
    enum cm_label_death killed_cause;
    int checkpoint; /* where it saves its session */
    int pid, pidfd; /* 0 and -1 until SPAWNED */
    struct cm_watch *exit_watch;
    struct cm_channel *channel;
    char trap[200]; /* text of its TRAP frame, or first line of its CRASH report, printable ASCII */
    bool crashed; /* it was the latter */
};

/* A spare worker, or NULL; the caller owns it from here on. */
struct cm_worker *cm_worker_take_spare(struct cm_sessions *m, struct cm_session *s);
/* Ends a worker on purpose. It is forgotten by its session and reaped later. */
void cm_worker_discard(struct cm_worker *w);
/* Kills it and leaves it to its session, whose DEATH event comes when it is gone: until then it may still write to what
 * it has saved. `why` must live as long as the worker. */
void cm_worker_kill(struct cm_worker *w, enum cm_label_death cause, const char *why);
void cm_worker_interrupt(struct cm_worker *w);
/* From the zygote. `pidfd` is taken. */
void cm_worker_spawned(struct cm_sessions *m, uint64_t spawn_id, int pid, int pidfd);
void cm_worker_spawn_failed(struct cm_sessions *m, uint64_t spawn_id, const char *why);
/* Workers that the zygote was asked for and died without naming. */
void cm_workers_lost_with_zygote(struct cm_sessions *m);
/* Starts workers until there are enough for whoever waits and for the pool. Posts; never starts from inside. */
void cm_workers_want(struct cm_sessions *m);
/* Once a second: whatever has not come to life in time goes. */
void cm_workers_check(struct cm_sessions *m);
/* Kills and reaps all of them, waiting for at most two seconds. */
void cm_workers_end(struct cm_sessions *m);

/* zygote */

struct cm_zygote {
    enum { CM_ZYGOTE_DOWN, CM_ZYGOTE_STARTING, CM_ZYGOTE_UP } state;
    int pid, pidfd;
    struct cm_watch *exit_watch;
    struct cm_channel *channel;
    struct cm_timer *timer; /* STARTING: until HELLO is due; DOWN: until the next start */
    uint64_t started_ns;
    unsigned backoff_ms;
    uint32_t layers; /* that its newest HELLO named: the next one must not have less */
    char image[CM_IMAGE_NAME_MAX]; /* as its newest HELLO named it, printable ASCII; empty before the first */
};

int cm_zygote_start(struct cm_sessions *m, struct cm_err *err);
/* Asks for a worker that gets `fd`, which is taken in any case. */
int cm_zygote_spawn(struct cm_sessions *m, uint64_t spawn_id, int fd, struct cm_err *err);
/* Kills it; its death brings the next one. */
void cm_zygote_kill(struct cm_sessions *m, const char *why);
/* Kills it for good and reads what it has left to say. */
void cm_zygote_end(struct cm_sessions *m);

/* manager */

struct cm_tomb {
    UT_hash_handle hh;
    char id[CM_SESSION_ID_MAX], owner[CM_SESSION_OWNER_MAX];
    uint64_t died_ns;
    char reason[200];
};

struct cm_sessions {
    struct cm_loop *loop;
    struct cm_sessions_config config;
    char *sandbox_path, *image_path; /* what config points at */
    struct cm_metrics *metrics;
    struct cm_outputs outputs;
    struct cm_pressure pressure;
    struct cm_zygote zygote;
    struct cm_session *sessions; /* by id, in the order of creation */
    struct cm_session *waiting; /* for a worker, first come first served */
    struct cm_session *restoring; /* for a worker of their own */
    struct cm_tomb *tombs; /* by id, oldest first */
    struct cm_worker *workers;
    struct cm_exec *answering;
    struct cm_creation *creations;
    unsigned live, waiters, spares, spawning, running, queued;
    uint64_t next_seq, next_spawn;
    uint64_t spawn_pause_ns; /* no spares before this time */
    uint64_t strays_until_ns; /* there may be children whose pid we never learned */
    bool draining, ending;
    struct cm_session *turns; /* that wait for a processor, first come first served */
    unsigned resting; /* of `running`: executions that sleep or wait */
    struct cm_timer *housekeeping, *drain_timer, *look_timer;
    struct cm_task refill, drained, grant;
    uint64_t drain_at_ns;
    void (*drain_done)(void *arg);
    void *drain_arg;
};

void cm_tomb_add(struct cm_sessions *m, const struct cm_session *s, const char *reason);
/* Children whose pid got lost with a zygote: looked for during the next ten seconds. */
void cm_strays_expect(struct cm_sessions *m);
void cm_strays_reap(struct cm_sessions *m);
/* The same at the end, when every child that is left must be one: waits for them for half a second. */
void cm_strays_end(struct cm_sessions *m);
/* Copies text that came from a process of ours as printable ASCII, cut to the size. */
void cm_printable(char *to, size_t size, const char *text, size_t len);

#endif
