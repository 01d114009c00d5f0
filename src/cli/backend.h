/* SPDX-License-Identifier: Apache-2.0 */
/* Where `exec` and `repl` run their code: a sidecar over HTTP, or a private sandbox of this process. */
#ifndef CM_CLI_BACKEND_H
#define CM_CLI_BACKEND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct cm_target {
    const char *url;     /* of the sidecar; NULL for a private sandbox */
    const char *session; /* run in this session of the sidecar, and leave it; or NULL */
    bool keep_state;     /* with no session given: one session for all runs, ended with the backend */
    bool atomic;         /* code that fails leaves no trace in the session */
    double timeout_s;    /* 0 = the default */
};

enum cm_run_end {
    CM_RUN_OK,
    CM_RUN_RAISED,
    CM_RUN_TIMED_OUT,
    CM_RUN_INTERRUPTED, /* by Ctrl-C */
};

/* Texts for the person, ready to print; owned, or NULL. */
struct cm_outcome {
    enum cm_run_end end;
    bool rolled_back; /* the session is in the state before this run */
    char *result; /* of the last expression */
    char *error;  /* traceback or reason, unless the code's stderr has shown it */
};

struct cm_backend {
    /* Runs the code; its output has gone to our stdout and stderr when this returns, or while it runs. Negative
     * with *err filled when it could not run; cm_backend_is_lost() says whether another run may be tried. */
    int (*run)(struct cm_backend *b, const char *code, size_t len, struct cm_outcome *ret, struct cm_err *err);
    void (*close)(struct cm_backend *b);
};

int cm_backend_open(const struct cm_target *target, struct cm_backend **ret, struct cm_err *err);
/* Accepts NULL. */
struct cm_backend *cm_backend_close(struct cm_backend *b);
void cm_outcome_done(struct cm_outcome *o);
/* Of an error of run(): no further run can succeed. */
bool cm_backend_is_lost(const struct cm_err *err);

/* The two kinds; cm_backend_open() chooses. */
int cm_backend_open_remote(const struct cm_target *target, struct cm_backend **ret, struct cm_err *err);
int cm_backend_open_local(const struct cm_target *target, struct cm_backend **ret, struct cm_err *err);

/* What both make of an answer. Lengths in bytes; a NULL text is absent. */
struct cm_answer {
    bool success, timed_out, rolled_back;
    const char *err, *result, *error, *traceback;
    size_t err_len, result_len, error_len, traceback_len;
};
int cm_outcome_from(const struct cm_answer *a, struct cm_outcome *ret, struct cm_err *err);

#endif
