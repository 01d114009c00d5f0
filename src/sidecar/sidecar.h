/* SPDX-License-Identifier: Apache-2.0 */
/* A sidecar from its client's side: sessions over its HTTP interface (docs/streaming.md), on our loop. */
#ifndef CM_SIDECAR_H
#define CM_SIDECAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct cm_egress;
struct cm_loop;
struct cm_sidecar;
struct cm_sidecar_exec; /* one execution */
struct cm_sidecar_op; /* anything else that is under way */

struct cm_sidecar_config {
    const char *url; /* "http://localhost:8080" */
    const char *api_key; /* NULL or "": none */
};

int cm_sidecar_open(struct cm_loop *loop, struct cm_egress *egress, const struct cm_sidecar_config *config,
                    struct cm_sidecar **ret, struct cm_err *err);
/* Cancels what is under way; call it before cm_egress_free(). Accepts NULL. */
struct cm_sidecar *cm_sidecar_free(struct cm_sidecar *s);

/* `done` of the operations: exactly once, from the loop, not after a cancel; `err` is NULL when all went well. The codes of
 * errors.def are those that the sidecar has answered; CM_ERR_SIDECAR when it could not be reached or broke off. */

/* Whether GET /ready answers 200, within two seconds. */
int cm_sidecar_ping(struct cm_sidecar *s, void (*done)(void *arg, bool ready), void *arg, struct cm_sidecar_op **ret,
                    struct cm_err *err);
/* Waits and tries again while the sidecar says 429 or 503 and the deadline lasts. `memory` in bytes, 0: the server's default. */
int cm_sidecar_create(struct cm_sidecar *s, uint64_t memory, double deadline_s, const char *correlation,
                      void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                      struct cm_sidecar_op **ret, struct cm_err *err);
/* Nobody waits for it; tried again twice. A creation that is cancelled is followed by this when its answer comes. */
void cm_sidecar_delete(struct cm_sidecar *s, const char *id);
void cm_sidecar_cancel(struct cm_sidecar_op *op);

enum cm_variable_kind { CM_VARIABLE_TEXT, CM_VARIABLE_JSON, CM_VARIABLE_BYTES };

struct cm_variable {
    const char *name; /* an identifier of ASCII */
    enum cm_variable_kind kind;
    const char *data; /* or NULL, and: */
    int fd; /* read from `offset` as it is sent; the caller's until `done` */
    uint64_t offset, len;
};

int cm_sidecar_put(struct cm_sidecar *s, const char *session, const struct cm_variable *v,
                   void (*done)(void *arg, const struct cm_err *err), void *arg, struct cm_sidecar_op **ret,
                   struct cm_err *err);

struct cm_sidecar_code {
    const char *code; /* UTF-8 */
    size_t len;
    double timeout_s;
    const char *caller_tools; /* JSON array of names that `call` answers, or NULL */
    uint64_t output_max; /* bytes of each of stdout and stderr; 0: the server's */
    const char *correlation;
    const char *then; /* code of its own that runs behind it, whatever has become of it; or NULL */
    double then_timeout_s;
};

/* Texts are UTF-8; "" where there is nothing. They live until `done` returns. */
struct cm_sidecar_result {
    bool success, timed_out;
    const char *state; /* "kept", "rolled_back", "lost" */
    const char *out, *err, *result, *error, *error_type, *traceback;
    size_t out_len, err_len, result_len, error_len, traceback_len;
    double seconds;
};

struct cm_sidecar_ops {
    void (*output)(void *arg, int stream, const char *text, size_t len); /* may be NULL; 1 stdout, 2 stderr */
    /* The code calls a tool of ours. `arguments` is a checked JSON object that may be changed in place until it returns. */
    void (*call)(void *arg, unsigned number, const char *name, char *arguments, size_t len);
    void (*call_gone)(void *arg, unsigned number); /* nobody waits for it any more; may be NULL */
    void (*result)(void *arg, const struct cm_sidecar_result *res); /* where something runs behind: `done` is of that */
    /* `res` is NULL when the execution could not run or its answer did not come; then `err` says why. */
    void (*done)(void *arg, const struct cm_sidecar_result *res, const struct cm_err *err);
};

int cm_sidecar_execute(struct cm_sidecar *s, const char *session, const struct cm_sidecar_code *code,
                       const struct cm_sidecar_ops *ops, void *arg, struct cm_sidecar_exec **ret, struct cm_err *err);
/* `json`: one JSON value. Both end the call; of one that nobody waits for they do nothing. Copied. */
void cm_sidecar_answer(struct cm_sidecar_exec *x, unsigned call, const char *json, size_t len);
void cm_sidecar_fail(struct cm_sidecar_exec *x, unsigned call, const char *text, size_t len);
/* The code that runs sees KeyboardInterrupt; `done` still comes. */
void cm_sidecar_interrupt(struct cm_sidecar_exec *x);
/* Hangs up: the sidecar interrupts the code; `done` does not come. Accepts NULL. */
void cm_sidecar_abandon(struct cm_sidecar_exec *x);

#endif
