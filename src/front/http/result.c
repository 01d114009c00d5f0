/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/clock.h"
#include "executor/error_type.h"
#include "front/http/internal.h"
#include "wire/json.h"

static const char *const states[] = {
    [CM_STATE_KEPT] = "kept", [CM_STATE_ROLLED_BACK] = "rolled_back", [CM_STATE_LOST] = "lost"};

/* `lead` is everything between the value before and this one. */
static int put(struct cm_buf *buf, const char *lead, const char *text, size_t len)
{
    int rc = cm_buf_puts(buf, lead);

    return rc < 0 ? rc : cm_json_put_string(buf, text, len);
}

/* `type`: of the error, in place of the class of its exception. */
static int put_texts(struct cm_buf *buf, const struct cm_exec_result *r, const char *type)
{
    const struct {
        const char *lead, *text;
        size_t len;
    } texts[] = {
        {"{\"stdout\":", r->out ? r->out : "", r->out_len},
        {",\"stderr\":", r->err ? r->err : "", r->err_len},
        {",\"result\":", r->result, r->result_len},
        {",\"error\":", r->error, r->error_len},
        {",\"error_type\":", type ? type : r->error_type, type ? strlen(type) : r->error_type_len},
        {",\"traceback\":", r->traceback, r->traceback_len},
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        int rc = put(buf, texts[i].lead, texts[i].text, texts[i].len);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static const char *boolean(bool b)
{
    return b ? "true" : "false";
}

static int put_figures(struct cm_buf *buf, const struct cm_exec_result *r)
{
    return cm_buf_printf(
        buf,
        ",\"execution_time\":%llu.%09llu,\"cpu_time\":%llu.%09llu,\"success\":%s,\"timed_out\":%s,\"state\":\"%s\","
        "\"stdout_truncated\":%s,\"stderr_truncated\":%s,\"result_truncated\":%s,"
        "\"error_truncated\":%s,\"locals_truncated\":%s,\"stdout_bytes\":%llu,\"stderr_bytes\":%llu,"
        "\"memory_bytes\":%llu",
        (unsigned long long)(r->duration_ns / CM_NS_PER_S), (unsigned long long)(r->duration_ns % CM_NS_PER_S),
        (unsigned long long)(r->cpu_ns / CM_NS_PER_S), (unsigned long long)(r->cpu_ns % CM_NS_PER_S),
        boolean(r->success), boolean(r->timed_out), states[r->state], boolean(r->out_truncated),
        boolean(r->err_truncated), boolean(r->result_truncated), boolean(r->error_truncated),
        boolean(r->locals_truncated), (unsigned long long)r->out_bytes, (unsigned long long)r->err_bytes,
        (unsigned long long)r->memory_bytes);
}

/* Where all of a stream can be read that was cut. Ids are ours: they need no escapes. */
static int put_refs(struct cm_buf *buf, const struct cm_exec_result *r, const char *session_id,
                    const char *execution_id)
{
    static const char *const names[] = {"stdout", "stderr"};
    const bool stored[] = {r->out_stored, r->err_stored};
    int rc = 0;

    for (int i = 0; i < 2 && rc == 0; i++)
        rc = stored[i] && session_id ? cm_buf_printf(buf, ",\"%s_ref\":\"/session/%s/executions/%s/%s\"", names[i],
                                                     session_id, execution_id, names[i])
                                     : cm_buf_printf(buf, ",\"%s_ref\":null", names[i]);
    return rc;
}

int cm_api_write_result(struct cm_buf *buf, const struct cm_exec_result *r, const char *session_id,
                        const char *execution_id, const char *correlation)
{
    int rc;

    if ((rc = put_texts(buf, r, correlation ? cm_error_type(r) : NULL)) < 0 ||
        (rc = cm_buf_puts(buf, ",\"locals\":")) < 0 ||
        (rc = r->locals ? cm_buf_append(buf, r->locals, r->locals_len) : cm_buf_puts(buf, "{}")) < 0 ||
        (rc = put_figures(buf, r)) < 0 || (rc = put_refs(buf, r, session_id, execution_id)) < 0 ||
        (rc = put(buf, ",\"session_id\":", session_id, session_id ? strlen(session_id) : 0)) < 0 ||
        (rc = put(buf, ",\"execution_id\":", execution_id, strlen(execution_id))) < 0)
        return rc;
    if (correlation && ((rc = cm_buf_printf(buf, ",\"duration_ms\":%.3f", (double)r->duration_ns / 1e6)) < 0 ||
                        (rc = put(buf, ",\"correlation_id\":", correlation, strlen(correlation))) < 0))
        return rc;
    return cm_buf_append(buf, "}", 1);
}
