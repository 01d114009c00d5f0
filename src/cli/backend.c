/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/backend.h"

#include <stdlib.h>
#include <string.h>

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

static enum cm_run_end end_of(const struct cm_answer *a)
{
    return a->success ? CM_RUN_OK : a->timed_out ? CM_RUN_TIMED_OUT : CM_RUN_RAISED;
}

/* An exception's traceback is part of the code's stderr already; then there is nothing more to say. */
static bool was_shown(const struct cm_answer *a)
{
    return a->err && a->error && memmem(a->err, a->err_len, a->error, a->error_len) != NULL;
}

int cm_outcome_from(const struct cm_answer *a, struct cm_outcome *ret, struct cm_err *err)
{
    const char *why = a->traceback ? a->traceback : a->error;
    size_t why_len = a->traceback ? a->traceback_len : a->error_len;
    struct cm_outcome o = {.end = end_of(a)};

    if (a->result)
        o.result = strndup(a->result, a->result_len);
    if (!a->success && why && !was_shown(a))
        o.error = strndup(why, why_len);
    if ((a->result && !o.result) || (!a->success && why && !was_shown(a) && !o.error)) {
        cm_outcome_done(&o);
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the answer");
    }
    *ret = o;
    return 0;
}
