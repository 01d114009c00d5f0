/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: one Python interpreter per session, each in a worker process of its own.
 *
 * The manager owns the session table, admission, queues, deadlines and the zygote. It runs on the
 * gateway's loop; every callback comes from that loop, never from inside the call that asked for it.
 */
#ifndef CM_SESSION_H
#define CM_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"

#define CM_STRICT_RULES_MAX  3072 /* with the final NUL */
#define CM_SESSION_ID_MAX    48 /* "session-", 32 hex digits and the final NUL, with room to spare */
#define CM_SESSION_OWNER_MAX 64 /* with the final NUL */

struct cm_cgroup;
struct cm_buf;
struct cm_loop;
struct cm_metrics;
struct cm_sessions; /* the manager */
struct cm_exec;     /* one queued or running execution; owned by the manager until `done` */

struct cm_sessions_config {
    const char *sandbox_path;   /* the codemode-sandbox executable */
    const char *image_path;     /* the memory image that sessions start from */
    const char *const *sandbox_args; /* further arguments of the sandbox, up to a NULL; or NULL */
    const struct cm_cgroup *cgroup; /* where the zygote and with it all workers go; or NULL */
    unsigned max_sessions;      /* live sessions at once, 1 to 100,000 */
    unsigned session_ttl_s;     /* idle seconds after which a session ends; 0 = never */
    unsigned spare_workers;     /* workers kept ready ahead of demand */
    struct cm_limits limits;    /* where nobody asks */
    struct cm_limits caps;      /* the most that one may ask for */
    unsigned max_running;       /* executions that compute at once; 0 = any number */
    unsigned queue_total;       /* executions that wait in all sessions together */
    uint64_t min_free_memory;   /* no new session while less is left; 0 = never looks */
    uint64_t stored_output, total_stored_output; /* bytes of output that was too long, of a session and of all */
    double grace_s;             /* between the interrupt and the kill */
    bool strict;                /* the driver looks at all code before it runs it; else where a request asks for it */
    char strict_rules[CM_STRICT_RULES_MAX]; /* one line, as cm_conf_policy() makes it; ";;": none of one's own */
};

enum cm_exec_mode {
    CM_EXEC_SESSION = 0, /* result = repr of the last expression */
    CM_EXEC_ONESHOT = 1, /* result = str(result) when the code binds `result`, else as above */
    CM_EXEC_STRICT =
        16, /* a bit beside the others, in the frame: CODE begins with a line of rules, by which it is looked
                          * at before it runs. Requests set `strict` instead */
};

enum cm_exec_state { CM_STATE_KEPT, CM_STATE_ROLLED_BACK, CM_STATE_LOST };

/* A call that the code makes to something outside: a tool. It lives from ops->call until cm_call_answer() or
 * cm_call_fail(), or until ops->call_gone, whichever comes first. */
struct cm_call;

struct cm_call_request {
    const char *name; /* of the tool, UTF-8; one that begins with "__" means something about tools */
    size_t name_len;
    const char *arguments; /* a checked JSON object */
    size_t arguments_len;
    const char *context; /* a checked JSON object, of run_with_context(); NULL: the execution's own */
    size_t context_len;
    uint64_t number; /* 1 for the first call of an execution: the same code makes the same calls in the same order */
    uint64_t deadline_ns; /* monotonic: the call's own limit, within the execution's */
};

/* Why a call has failed: the class of the exception that the code sees (all are RuntimeErrors). */
enum cm_call_failure {
    CM_CALL_TOOL_ERROR, /* the tool itself said so */
    CM_CALL_UNKNOWN, /* no such tool, or not one of available_tools */
    CM_CALL_ARGUMENTS, /* they do not fit the schema */
    CM_CALL_LIMIT, /* calls of the execution, or bytes of arguments or result */
    CM_CALL_TIMEOUT,
    CM_CALL_UNAVAILABLE, /* the tool service cannot be reached or refuses us */
    CM_CALL_CANCELLED, /* the execution was interrupted, or nobody wants it any more */
};

/* Pointers stay the caller's and are copied before the call returns. */
struct cm_exec_request {
    const char *code;
    size_t code_len;
    const char *context; /* JSON object text, or NULL */
    size_t context_len;
    enum cm_exec_mode mode;
    double timeout_s; /* 0 = the default; cut to the cap */
    const struct cm_limits_asked *limits; /* within the caps; NULL asks for none */
    const struct cm_limits *caps; /* the most that this caller gets; NULL: the server's */
    const char *correlation_id;
    bool atomic; /* unless it succeeds, the session goes back to the state before it */
    bool strict; /* look at the code first, whatever the server's policy */
    const char *config; /* JSON object text: `config` in the code; or NULL */
    size_t config_len;
    /* What the code is told of tools: a JSON array of [name, flags], flags 1 async, 2 wants a context, or NULL when there
     * is no tool service. Their schemas are asked for by calls of "__schema__", when somebody looks. */
    const char *tools;
    size_t tools_len;
};

/* What an execution answered. Pointers live until `done` returns. Strings are UTF-8, lengths in
 * bytes, NULL where there is nothing; `locals` is a checked JSON object. */
struct cm_exec_result {
    bool success;
    bool timed_out;
    bool out_truncated, err_truncated; /* the middle of the output was left out */
    bool result_truncated, error_truncated, locals_truncated; /* error: or the traceback */
    enum cm_exec_state state;
    const char *out, *err, *result, *error, *error_type, *traceback, *locals;
    size_t out_len, err_len, result_len, error_len, error_type_len, traceback_len, locals_len;
    bool out_stored, err_stored; /* what was left out can be asked for: cm_sessions_output() */
    uint64_t out_bytes, err_bytes; /* that were printed */
    uint64_t cpu_ns; /* processor time of the run */
    uint64_t duration_ns; /* from the start of the run to its answer, without time in the queue */
    uint64_t memory_bytes; /* linear memory in use afterwards */
};

struct cm_exec_ops {
    /* Output as it happens, before output_max cuts it; may be NULL. stream: 1 stdout, 2 stderr. */
    void (*output)(void *arg, int stream, const char *data, size_t len);
    /* Exactly once. `res` is NULL when the execution could not run or its session died; then `err`
     * says why. After it returns the execution is gone. No call of it is left then. */
    void (*done)(void *arg, const struct cm_exec_result *res, const struct cm_err *err);
    /* The code calls a tool. Pointers of the request live until it returns; the answer may come from inside. NULL: every
     * call fails with CM_CALL_UNKNOWN. */
    void (*call)(void *arg, struct cm_call *call, const struct cm_call_request *request);
    /* Nobody waits for this call any more: the code has cancelled it, its deadline has passed, or its execution was
     * interrupted or has ended; also of an execution that is being abandoned, and then from inside that call. It may
     * answer other calls, but not end an execution. The pointer is dead when it returns. */
    void (*call_gone)(void *arg, struct cm_call *call);
};

/* `json` is one checked JSON value. Longer than the limit `tool_result`: the call fails with CM_CALL_LIMIT. Both end the
 * call. */
void cm_call_answer(struct cm_call *call, const char *json, size_t len);
/* `text` is one line or more of UTF-8 for the code's author; cut to 64 KiB. */
void cm_call_fail(struct cm_call *call, enum cm_call_failure why, const char *text, size_t len);
/* The owner's pointer, NULL at first. */
void cm_call_set_user(struct cm_call *call, void *user);
void *cm_call_user(const struct cm_call *call);

/* A variable whose value comes as a file. */
enum cm_put_kind {
    CM_PUT_TEXT, /* a str; the file is UTF-8 */
    CM_PUT_JSON, /* what json.loads() makes of it */
    CM_PUT_BYTES,
};

#define CM_PUT_NAME_MAX 256 /* bytes */
#define CM_PUT_MAX      (1u << 30)

struct cm_put_request {
    const char *name; /* UTF-8, an identifier; copied */
    size_t name_len;
    enum cm_put_kind kind;
    int fd; /* a file in memory that nobody changes any more; taken in any case, also by a refusal */
    uint64_t length; /* bytes of it from its start, whatever its offset is; up to CM_PUT_MAX */
    const struct cm_limits *caps; /* as of an execution */
    const char *correlation_id;
};

/* Pointers live until `done` returns. */
struct cm_put_result {
    const char *type; /* of the value: "str", "dict", ...; UTF-8 with a final NUL */
    uint64_t length; /* its len() */
    bool has_length; /* it has one: a JSON number has none */
};

struct cm_session_info {
    char id[CM_SESSION_ID_MAX];
    const char *owner; /* name of whom it was made for; "" for nobody in particular */
    const char *state; /* a text of session-states.def, or "queued": it waits for a processor */
    unsigned executions, queued;
    unsigned restores; /* times that a new process went on from its saved state */
    bool can_roll_back; /* cm_sessions_roll_back() would find something */
    double age_s, idle_s, expires_in_s; /* expires_in_s < 0: never */
    uint64_t memory_bytes;
    int pid;
    struct cm_limits limits; /* of executions that ask for none of their own */
};

/* Starts the zygote. Until it says hello, creations wait. 0, or a negative error code with *err filled. */
int cm_sessions_open(struct cm_loop *loop, const struct cm_sessions_config *config, struct cm_metrics *metrics,
                     struct cm_sessions **ret, struct cm_err *err);
/* Takes over numbers and limits; what names the sandbox, its image, output kept and the control group stays. Sessions keep the
 * limits that they were created with. CM_ERR_CONFIG, and nothing changed. */
int cm_sessions_reload(struct cm_sessions *m, const struct cm_sessions_config *config, struct cm_err *err);
/* Ends every worker and the zygote. Accepts NULL. */
struct cm_sessions *cm_sessions_free(struct cm_sessions *m);
/* Refuses new work, lets running executions finish until the deadline, then calls `done`. */
void cm_sessions_drain(struct cm_sessions *m, double deadline_s, void (*done)(void *arg), void *arg);
bool cm_sessions_ready(const struct cm_sessions *m);
/* What the zygote calls its memory image: printable ASCII, empty until it has first said hello. The manager's. */
const char *cm_sessions_image(const struct cm_sessions *m);

/* `done` gets the new id, or NULL and the reason. `limits`, NULL or within the caps, hold for all its executions. */
int cm_sessions_create(struct cm_sessions *m, const struct cm_limits_asked *limits, const char *correlation_id,
                       void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                       struct cm_err *err);
/* Whom sessions are made for. */
struct cm_session_owner {
    const char *name; /* shorter than CM_SESSION_OWNER_MAX */
    const struct cm_limits *caps; /* no limit of the session is above; NULL: the server's */
    unsigned max_sessions; /* that he may have at once; 0: as many as there may be */
};
/* The same for somebody; NULL is nobody in particular, whose name is "". */
int cm_sessions_create_for(struct cm_sessions *m, const struct cm_session_owner *owner,
                           const struct cm_limits_asked *limits, const char *correlation_id,
                           void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                           struct cm_err *err);
/* 0 unless the session is, or was, somebody else's: then what would be said if there were none (CM_ERR_NO_SESSION). */
int cm_sessions_check_owner(const struct cm_sessions *m, const char *id, const char *owner, struct cm_err *err);
/* Queues an execution. With id NULL it runs in a fresh session that ends with it. *ret_exec, where wanted,
 * stays valid until ops->done. */
int cm_sessions_execute(struct cm_sessions *m, const char *id, const struct cm_exec_request *req,
                        const struct cm_exec_ops *ops, void *arg, struct cm_exec **ret_exec, struct cm_err *err);
/* The client is gone: drops the execution from the queue or interrupts it. `done` is not called any more. */
void cm_exec_abandon(struct cm_exec *exec);
const char *cm_exec_id(const struct cm_exec *exec);

/* Makes the file a variable of the session, in its turn like an execution, and like one it can be interrupted, abandoned
 * (cm_exec_abandon()) and rolled back. It may take the session's timeout and a second more for each 8 MiB. `done` comes
 * exactly once unless it was abandoned; `res` is NULL when the session is as it was before, and `err` says why:
 * CM_ERR_BAD_FIELD (the name is no identifier; the text is no UTF-8, with the offset; it is no JSON), CM_ERR_NO_ROOM (the
 * session's memory), CM_ERR_TIMED_OUT, CM_ERR_CANCELLED (interrupted), CM_ERR_REVERTED (its process died, and another one goes
 * on), or what is said of a session that is gone. */
int cm_sessions_put(struct cm_sessions *m, const char *id, const struct cm_put_request *req,
                    void (*done)(void *arg, const struct cm_put_result *res, const struct cm_err *err), void *arg,
                    struct cm_exec **ret_exec, struct cm_err *err);

struct cm_output_info {
    uint64_t printed, stored; /* bytes that there were, bytes that are kept: the first of them */
};
/* Appends what is kept of `length` bytes from `offset` of an execution's stream, 1 or 2, that its answer had to cut.
 * CM_ERR_NO_OUTPUT when there is none, the errors of an unknown session, or the buffer's. */
int cm_sessions_output(struct cm_sessions *m, const char *id, const char *execution, int stream, uint64_t offset,
                       uint64_t length, struct cm_buf *to, struct cm_output_info *ret, struct cm_err *err);

/* Stops the running execution as a timeout would: it answers with KeyboardInterrupt, its state is kept, unless it does
 * not stop within the grace. With `execution` not NULL only the one of that id: whoever asks late does not stop the next one.
 * *ret_stopped: there was one. */
int cm_sessions_interrupt(struct cm_sessions *m, const char *id, const char *execution, bool *ret_stopped,
                          struct cm_err *err);
/* Undoes the newest execution of an idle session: `done` gets the session's id, or NULL and the reason. */
int cm_sessions_roll_back(struct cm_sessions *m, const char *id,
                          void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                          struct cm_err *err);

/* True when there was such a session. A running execution answers CM_ERR_NO_SESSION. */
bool cm_sessions_delete(struct cm_sessions *m, const char *id);
int cm_sessions_info(struct cm_sessions *m, const char *id, struct cm_session_info *ret, struct cm_err *err);
/* Calls `each` for every live session in the order of creation. */
void cm_sessions_each(struct cm_sessions *m, void (*each)(void *arg, const struct cm_session_info *info), void *arg);

#endif
