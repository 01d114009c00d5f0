/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_SIDECAR_INTERNAL_H
#define CM_SIDECAR_INTERNAL_H

#include "base/buf.h"
#include "egress/egress.h"
#include "ev/loop.h"
#include "sidecar/sidecar.h"
#include "wire/json.h"
#include "wire/sse.h"

#define ID_MAX      64
#define URL_MAX     600 /* of the sidecar, with a path of ours */
#define SMALL_MAX   65536u /* bytes of an answer that is no stream */
#define ANSWER_MAX  (64u << 20) /* bytes of one answer of ours to a call */
#define HEADERS_MAX 6

struct cm_sidecar {
    struct cm_loop *loop;
    struct cm_egress *egress;
    char *url; /* without a slash at its end */
    char *authorization; /* header line, or NULL */
    struct cm_sidecar_op *ops;
    struct cm_sidecar_exec *execs;
};

/* What is sent with one request; the lines point into `text`, and at the sidecar's. */
struct headers {
    const char *line[HEADERS_MAX];
    char text[400];
};
/* `accept`, `type`, `correlation`: NULL for none. */
void cm_sidecar_headers(const struct cm_sidecar *s, const char *accept, const char *type, const char *correlation,
                        struct headers *ret);
/* CM_ERR_TOO_LARGE when the URL does not fit. */
int cm_sidecar_url(const struct cm_sidecar *s, char ret[static URL_MAX], struct cm_err *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

enum kind { PING, CREATE, DELETE, PUT, ANSWER, INTERRUPT };

/* One request with a small answer, and its repetitions. */
struct cm_sidecar_op {
    struct cm_sidecar_op *prev, *next;
    struct cm_sidecar *s;
    enum kind kind;
    bool orphan; /* nobody waits for it any more, but its answer matters */
    bool ended; /* its callback is being called */
    const char *method, *type;
    char url[URL_MAX];
    char correlation[200];
    struct cm_buf body; /* our own; of PUT: */
    struct cm_variable value;
    unsigned attempts, attempts_max; /* attempts_max 0: until the deadline */
    uint64_t deadline_ns;
    struct cm_fetch *fetch;
    struct cm_timer *timer;
    struct cm_buf answer;
    struct cm_sidecar_exec *exec; /* of ANSWER and INTERRUPT; NULL when it has ended */
    unsigned call; /* of ANSWER */
    bool is_failure; /* of ANSWER: it tells the code of an error */
    union {
        void (*ping)(void *arg, bool ready);
        void (*create)(void *arg, const char *id, const struct cm_err *err);
        void (*put)(void *arg, const struct cm_err *err);
    } done;
    void *arg;
};

/* Makes one that is not sent yet. NULL: no memory, or a URL that does not fit. */
struct cm_sidecar_op *cm_sidecar_op_new(struct cm_sidecar *s, enum kind kind, const char *method, struct cm_err *err);
int cm_sidecar_op_send(struct cm_sidecar_op *op, struct cm_err *err);
struct cm_sidecar_op *cm_sidecar_op_free(struct cm_sidecar_op *op);

/* exec.c: what became of requests for an execution. `err`: it failed for good. */
void cm_sidecar_exec_answered(struct cm_sidecar_op *op, const struct cm_err *err);
/* False: there is nothing to interrupt any more. */
bool cm_sidecar_exec_runs(const struct cm_sidecar_exec *x);
void cm_sidecar_exec_end_silently(struct cm_sidecar_exec *x);

/* read.c: what the sidecar says. Texts are read in place. */

bool cm_sidecar_is_id(const char *text);
/* A string member, decoded; "" where it is null or absent. CM_ERR_SIDECAR when it is something else. */
int cm_sidecar_read_text(struct cm_json_value *value, const char **ret, size_t *ret_len, struct cm_err *err);
/* Of an answer that is no success: its own words and code, or what its status says. */
int cm_sidecar_read_error(int status, char *body, size_t len, struct cm_err *err);
int cm_sidecar_read_result(char *json, size_t len, struct cm_sidecar_result *ret, struct cm_err *err);
/* Of a fetch that brought no answer. */
int cm_sidecar_no_answer(const struct cm_fetch_end *end, struct cm_err *err);

#endif
