/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/backend.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define REASON_MAX (4u << 20) /* a traceback and an error, each at most MAX_RESULT */

int cm_backend_open(const struct cm_target *target, struct cm_backend **ret, struct cm_err *err)
{
    if (target->session && !target->url)
        return cm_err_set(err, CM_ERR_CONFIG, "a session belongs to a sidecar: give --url or set CODEMODE_URL");
    return target->url ? cm_backend_open_remote(target, ret, err) : cm_backend_open_local(target, ret, err);
}

struct cm_backend *cm_backend_close(struct cm_backend *b)
{
    if (b)
        b->close(b);
    return NULL;
}

void cm_outcome_done(struct cm_outcome *o)
{
    free(o->result);
    free(o->error);
    *o = (struct cm_outcome){0};
}

bool cm_backend_is_lost(const struct cm_err *err)
{
    switch (err->code) {
    case CM_ERR_BAD_REQUEST: /* what the sidecar refused, for whatever reason that passes */
    case CM_ERR_QUEUE_FULL:
    case CM_ERR_REVERTED:
    case CM_ERR_TOO_LARGE:
        return false;
    default:
        return true;
    }
}

static enum cm_run_end end_of(const struct cm_answer *a)
{
    return a->success ? CM_RUN_OK : a->timed_out ? CM_RUN_TIMED_OUT : CM_RUN_RAISED;
}

static bool holds(const char *text, size_t len, const char *part, size_t part_len)
{
    return text && part && memmem(text, len, part, part_len) != NULL;
}

/* What the code's stderr has not shown of the reason: an exception's traceback is there already, the words of a
 * timeout are not. Empty when there is nothing left to say. */
static int write_reason(const struct cm_answer *a, struct cm_buf *to)
{
    bool traceback = a->traceback && !holds(a->err, a->err_len, a->traceback, a->traceback_len);
    bool error = a->error && !holds(a->err, a->err_len, a->error, a->error_len) &&
                 !(traceback && holds(a->traceback, a->traceback_len, a->error, a->error_len));
    int rc = traceback ? cm_buf_append(to, a->traceback, a->traceback_len) : 0;

    if (rc == 0 && traceback && error && a->traceback_len > 0 && a->traceback[a->traceback_len - 1] != '\n')
        rc = cm_buf_puts(to, "\n");
    return rc == 0 && error ? cm_buf_append(to, a->error, a->error_len) : rc;
}

int cm_outcome_from(const struct cm_answer *a, struct cm_outcome *ret, struct cm_err *err)
{
    cm_autobuf struct cm_buf reason;
    struct cm_outcome o = {.end = end_of(a), .rolled_back = a->rolled_back};

    cm_buf_init(&reason, REASON_MAX);
    int rc = a->success ? 0 : write_reason(a, &reason);
    if (a->result)
        o.result = strndup(a->result, a->result_len);
    if (reason.len > 0)
        o.error = cm_buf_steal(&reason, NULL);
    if (rc < 0 || (a->result && !o.result)) {
        cm_outcome_done(&o);
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the answer");
    }
    *ret = o;
    return 0;
}
