/* SPDX-License-Identifier: Apache-2.0 */
/* libcodemode: running Python in a Codemode sidecar from C, and serving the tools that its code calls.
 *
 * Calls block, and may be made from any thread, also at the same time on one client. The library has one thread of its
 * own for each client and each tool service, and the workers of the latter. It installs no signal handler, changes no
 * locale, writes to no stream, and a broken connection never raises SIGPIPE.
 *
 * Errors are values. A function that can fail returns 0 or a negative status, -CODEMODE_NOT_FOUND for one, and takes a
 * last `struct codemode_error *`, which may be NULL; success leaves it alone. Code that raises is no error: its result
 * says so. Functions that return a pointer return NULL on failure.
 *
 * Text is UTF-8. A text that comes in may hold NUL bytes where it has a length beside it; texts that go out always end
 * with a NUL that does not count. What a function is given stays the caller's and is copied before it returns, unless it
 * says otherwise. What it hands out is freed with the function that its comment names; all of those accept NULL.
 *
 * A process that forks uses a client or a service in the process that made it, and nowhere else.
 */
#ifndef CODEMODE_H
#define CODEMODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CODEMODE_API __attribute__((visibility("default")))

/* The version of the library, "1.2.3". Static. */
CODEMODE_API const char *codemode_version(void);

/* Errors ------------------------------------------------------------------------------------------------------------ */

/* gRPC's codes. */
enum codemode_status {
    CODEMODE_OK = 0,
    CODEMODE_CANCELLED = 1, /* codemode_close() came while the call ran */
    CODEMODE_UNKNOWN = 2,
    CODEMODE_INVALID_ARGUMENT = 3, /* the text names what is wrong, here or at the server */
    CODEMODE_DEADLINE_EXCEEDED = 4, /* no answer in time; whether the request has run is not known */
    CODEMODE_NOT_FOUND = 5, /* no such session, execution or output */
    CODEMODE_ALREADY_EXISTS = 6, /* a tool of that name; or a request that has run and whose answer was not kept */
    CODEMODE_PERMISSION_DENIED = 7,
    CODEMODE_RESOURCE_EXHAUSTED = 8, /* too many sessions, a full queue, something too large, no memory */
    CODEMODE_FAILED_PRECONDITION = 9, /* a session that is busy, nothing to undo, a service that runs already */
    CODEMODE_ABORTED = 10, /* the session's state went back by one execution */
    CODEMODE_OUT_OF_RANGE = 11,
    CODEMODE_UNIMPLEMENTED = 12,
    CODEMODE_INTERNAL = 13,
    CODEMODE_UNAVAILABLE = 14, /* nobody answers at the address, or the server is stopping */
    CODEMODE_DATA_LOSS = 15, /* the session's state could not be restored */
    CODEMODE_UNAUTHENTICATED = 16, /* a key is missing or wrong, or a certificate */
};

struct codemode_error {
    enum codemode_status status;
    char text[512]; /* one line for a person */
};

/* "NOT_FOUND"; "?" for a number that is none. Static. */
CODEMODE_API const char *codemode_status_name(int status);

/* Client ------------------------------------------------------------------------------------------------------------ */

struct codemode_client;

struct codemode_options {
    /* "host:port", also with http:// or https:// in front (the latter means tls). NULL: CODEMODE_EXECUTOR_URL from the
     * environment, and without that localhost:8001. */
    const char *target;
    /* NULL: CODEMODE_EXECUTOR_API_KEY or CODEMODE_API_KEY from the environment. "": none is sent. */
    const char *api_key;
    bool tls;
    const char *ca_file; /* PEM; NULL: the certificates that the system trusts. Each of these files means tls. */
    const char *cert_file; /* PEM, with key_file: who we are, where the server wants to know */
    const char *key_file;
    double timeout; /* seconds that a call may take besides its execution; 0: 30. At most 86400 */
};

/* Does not connect yet: the first call does, and any later one whose connection is gone. `options` may be NULL. Reads the
 * files, so -CODEMODE_INVALID_ARGUMENT tells of one that cannot be used. For codemode_close(). */
CODEMODE_API struct codemode_client *codemode_open(const struct codemode_options *options, struct codemode_error *err);
/* Calls of other threads return -CODEMODE_CANCELLED; waits for them. Nothing may be called on the client afterwards. */
CODEMODE_API void codemode_close(struct codemode_client *client);

struct codemode_health {
    char status[32]; /* "healthy"; of codemode_ready() "ready", "unreachable": no tool service, or "not_ready" */
    char version[32]; /* of the server */
};
CODEMODE_API int codemode_health(struct codemode_client *client, struct codemode_health *ret,
                                 struct codemode_error *err);
CODEMODE_API int codemode_ready(struct codemode_client *client, struct codemode_health *ret,
                                struct codemode_error *err);

/* Sessions ---------------------------------------------------------------------------------------------------------- */

#define CODEMODE_ID_SIZE 64 /* bytes of a session's or an execution's id with its NUL */

/* A limit by its name: "timeout", "memory", "output", ... The server's documentation lists them with units and caps. */
struct codemode_limit {
    const char *name;
    double value;
};

/* `limits` hold for all executions of the session that name none of their own. */
CODEMODE_API int codemode_session_create(struct codemode_client *client, const struct codemode_limit *limits,
                                         size_t count, char ret_id[CODEMODE_ID_SIZE], struct codemode_error *err);
/* 0 also where there was no such session. */
CODEMODE_API int codemode_session_delete(struct codemode_client *client, const char *id, struct codemode_error *err);
/* Stops what the session runs: that answers with KeyboardInterrupt. *ret_stopped, where wanted: there was something. */
CODEMODE_API int codemode_session_interrupt(struct codemode_client *client, const char *id, bool *ret_stopped,
                                            struct codemode_error *err);
/* Undoes the newest execution of an idle session: one step, once. -CODEMODE_FAILED_PRECONDITION when it cannot. */
CODEMODE_API int codemode_session_rollback(struct codemode_client *client, const char *id, struct codemode_error *err);

struct codemode_session {
    char id[CODEMODE_ID_SIZE];
    char state[16]; /* "idle", "running", "queued", "starting", "restoring" */
    unsigned executions, queued, restores;
    double age, idle, expires_in; /* seconds; expires_in < 0: never */
    uint64_t memory; /* bytes */
    bool can_roll_back;
};
CODEMODE_API int codemode_session_info(struct codemode_client *client, const char *id, struct codemode_session *ret,
                                       struct codemode_error *err);
/* *ret_ids gets an array of ids up to a NULL, oldest first, in one piece of memory for free(). */
CODEMODE_API int codemode_session_list(struct codemode_client *client, char ***ret_ids, size_t *ret_count,
                                       struct codemode_error *err);

/* Executions -------------------------------------------------------------------------------------------------------- */

struct codemode_request {
    const char *session; /* NULL: a fresh one that ends with the execution */
    const char *code;
    size_t code_len; /* 0: up to the NUL */
    double timeout; /* seconds; 0: the session's or the server's default; cut to the server's maximum */
    const struct codemode_limit *limits;
    size_t limit_count;
    bool atomic; /* unless it succeeds, the session goes back to the state before it */
    const char *context_json; /* a JSON object: variables of the session, and `context` of tool calls; or NULL */
    const char *config_json; /* a JSON object: `config` in the code; or NULL */
    const char *const *available_tools; /* names up to a NULL; NULL or none: all that the tool service lists */
    const char *idempotency_key; /* the same key, session and code again within ten minutes: the recorded answer */
    const char *correlation_id; /* 1 to 128 printable characters; NULL: the server makes one */
    /* Output as it is printed, in the thread that called codemode_execute(). stream: 1 stdout, 2 stderr; a character may
     * begin in one piece and end in the next. `omitted`: bytes before `data` that were left out because this was too slow.
     * Returning false withdraws the request: the execution is interrupted, and the call returns -CODEMODE_CANCELLED.
     * It must not call codemode_close(). May be NULL. */
    bool (*output)(void *arg, int stream, const char *data, size_t len, uint64_t omitted);
    void *arg;
};

enum codemode_state { CODEMODE_KEPT = 0, CODEMODE_ROLLED_BACK = 1, CODEMODE_LOST = 2 };

struct codemode_result {
    bool success;
    bool timed_out;
    bool stdout_truncated, stderr_truncated, result_truncated, error_truncated, locals_truncated;
    bool stdout_stored, stderr_stored; /* codemode_read_output() has all of it */
    enum codemode_state state;
    const char *result; /* repr of the last expression; NULL where there is none, or it is None */
    const char *out, *error_out; /* stdout and stderr; never NULL, like all texts below */
    const char *error, *error_type, *traceback; /* "" after success */
    const char *locals_json;
    size_t result_len, out_len, error_out_len;
    uint64_t out_bytes, error_out_bytes; /* that were printed */
    double seconds, cpu_seconds;
    uint64_t memory; /* bytes in use afterwards */
    const char *session, *execution, *correlation_id; /* session: "" for a fresh one */
};

/* Runs code and waits for its end. For codemode_result_free(). -CODEMODE_DEADLINE_EXCEEDED when even the server's own
 * limit has not brought an answer: timeout, or the longest that a server allows, and codemode_options.timeout. */
CODEMODE_API int codemode_execute(struct codemode_client *client, const struct codemode_request *request,
                                  struct codemode_result **ret, struct codemode_error *err);
CODEMODE_API void codemode_result_free(struct codemode_result *result);

/* What an answer has left out, and the server has kept: up to `size` bytes from `offset` of stream 1 or 2. *ret_len:
 * bytes that were read, 0 at the end of what is kept. *ret_printed, where wanted: bytes that there were. */
CODEMODE_API int codemode_read_output(struct codemode_client *client, const char *session, const char *execution,
                                      int stream, uint64_t offset, void *buffer, size_t size, size_t *ret_len,
                                      uint64_t *ret_printed, struct codemode_error *err);

/* The simple form, by codemode.ExecutorService: no output as it happens, and `result` is str(result) when the code binds
 * that name, else the repr of the last expression; "" for none. Of codemode_request it heeds session, code, timeout
 * (whole seconds, rounded up), context_json, config_json, available_tools, idempotency_key and correlation_id. In the
 * result, `success`, the texts, `seconds` and `correlation_id` have a meaning. */
CODEMODE_API int codemode_execute_once(struct codemode_client *client, const struct codemode_request *request,
                                       struct codemode_result **ret, struct codemode_error *err);

/* Tools ------------------------------------------------------------------------------------------------------------- */

struct codemode_tools; /* a tool service */
struct codemode_call; /* one call of a tool, in its callback */

struct codemode_tools_options {
    const char *host; /* address to listen at; NULL: 127.0.0.1. Beyond loopback a key or tls with ca_file is demanded */
    unsigned port; /* 0: any free one; the usual one is 50051 */
    const char *api_key; /* what callers must send; NULL: CODEMODE_API_KEY from the environment; "": nothing */
    const char *cert_file; /* PEM, with key_file: TLS */
    const char *key_file;
    const char *ca_file; /* PEM: callers must have a certificate that one of these has signed */
    unsigned workers; /* threads that run tools: calls at once, 1 to 1024; 0: 16. Further ones wait in order */
    unsigned queue; /* calls that may wait; 0: 1024. One more is answered RESOURCE_EXHAUSTED */
};

struct codemode_tool {
    const char *name; /* 1 to 256 bytes; what begins with "__" is reserved */
    const char *description; /* or NULL */
    const char *input_schema; /* JSON Schema of the arguments, a JSON object, or NULL: anything goes */
    const char *output_schema; /* for people and models; or NULL */
    bool is_async; /* `await tools["name"].run(...)` in the code; else it blocks */
    bool has_context; /* told to callers; the callback can read the context in any case */
    /* Runs in a worker thread, several at once. Answers with one of codemode_answer() and codemode_answer_error(); when
     * it returns without, the call fails. `call` is its own until it returns. */
    void (*run)(void *arg, struct codemode_call *call);
    void *arg;
};

/* For codemode_tools_free(). Nothing listens yet. `options` may be NULL. */
CODEMODE_API struct codemode_tools *codemode_tools_new(const struct codemode_tools_options *options,
                                                       struct codemode_error *err);
/* Before codemode_tools_start(). -CODEMODE_ALREADY_EXISTS, -CODEMODE_INVALID_ARGUMENT (the text says what). */
CODEMODE_API int codemode_tools_add(struct codemode_tools *tools, const struct codemode_tool *tool,
                                    struct codemode_error *err);
/* Listens and returns; calls are answered in the background. */
CODEMODE_API int codemode_tools_start(struct codemode_tools *tools, struct codemode_error *err);
/* The port that it listens on; 0 before the start. */
CODEMODE_API unsigned codemode_tools_port(const struct codemode_tools *tools);
/* Takes no further call, lets those that run finish for up to `seconds`, then closes the connections, and waits for
 * callbacks to return: a tool that never does holds it up. */
CODEMODE_API void codemode_tools_stop(struct codemode_tools *tools, double seconds);
/* Stops it at once where it runs. Not from a callback. */
CODEMODE_API void codemode_tools_free(struct codemode_tools *tools);

/* What a callback may ask. The texts live until it returns. */
CODEMODE_API const char *codemode_call_tool(const struct codemode_call *call);
/* A JSON object. */
CODEMODE_API const char *codemode_call_arguments(const struct codemode_call *call);
/* A JSON object, or NULL: the execution's context. */
CODEMODE_API const char *codemode_call_context(const struct codemode_call *call);
/* Of the execution; "" where there is none. The same id, and "-" and a number, for every attempt of the same call. */
CODEMODE_API const char *codemode_call_correlation_id(const struct codemode_call *call);
/* Seconds that are left for the answer; less than 0 when they are over; a very large number where there is no limit. */
CODEMODE_API double codemode_call_time_left(const struct codemode_call *call);
/* True when nobody waits for the answer any more: the execution was interrupted, or the caller has gone. */
CODEMODE_API bool codemode_call_cancelled(const struct codemode_call *call);
/* A JSON value: an object is the answer as it is, anything else becomes {"value": ...}. The last answer counts. 0, or
 * -CODEMODE_INVALID_ARGUMENT for a text that is no JSON, and then the call fails unless another answer follows. */
CODEMODE_API int codemode_answer(struct codemode_call *call, const char *json);
/* The code sees a RuntimeError with this text. */
CODEMODE_API void codemode_answer_error(struct codemode_call *call, const char *text);

#ifdef __cplusplus
}
#endif

#endif
