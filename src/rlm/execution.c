/* SPDX-License-Identifier: Apache-2.0 */
/* Code of a node in its session: blocks, and the questions behind them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "obs/metrics.h"
#include "rlm/internal.h"
#include "rlm/output.h"
#include "rlm/prompts.h"
#include "wire/json.h"

#define OUR_CODE_S   60.0 /* for code of ours */
#define REPORT_S     1.0 /* at least, for what asks values that a model's code has made: they may answer slowly, or never */
#define LONGEST_S    86400.0 /* for a block: its time is counted here, and waiting for sub-queries is not part of it */
#define INTERRUPT_MS 15000 /* between an interrupt and the end of a sidecar's patience, and ours */

static const char block_tools[] = "[\"rlm.llm_query\",\"rlm.llm_query_batched\",\"rlm.rlm_query\","
                                  "\"rlm.rlm_query_batched\",\"rlm.part\"]";
static const char report_tools[] = "[\"rlm.part\"]";
static const char report_code[] = "__import__('rlm_session').report()";

void cm_node_fail_sidecar(struct cm_node *n, const char *doing, const struct cm_err *err)
{
    bool gone = err->code == CM_ERR_NO_SESSION || err->code == CM_ERR_SESSION_LOST || err->code == CM_ERR_SIDECAR;

    n->lost |= gone;
    cm_node_fail(n, gone ? CM_ERR_SIDECAR : err->code, "%s: %s", doing, err->text);
}

/* The clock of the code's own time */

static void start_clock(struct cm_node *n)
{
    n->clock_since_ns = cm_clock_ns();
    cm_timer_start(n->clock, n->clock_left_ns / CM_NS_PER_MS + 1, 0);
}

void cm_clock_pause(struct cm_node *n)
{
    if (n->clock_since_ns == 0)
        return;
    uint64_t used = cm_clock_ns() - n->clock_since_ns;
    n->clock_left_ns -= used < n->clock_left_ns ? used : n->clock_left_ns;
    n->clock_since_ns = 0;
    cm_timer_stop(n->clock);
}

void cm_clock_resume(struct cm_node *n)
{
    if (n->exec && n->state == CM_NODE_BLOCK && n->clock_since_ns == 0 && !n->timed_out)
        start_clock(n);
}

void cm_clock_ran_out(struct cm_node *n)
{
    if (cm_node_over(n) || !n->exec)
        return;
    if (n->timed_out) {
        n->lost = true;
        cm_node_fail(n, CM_ERR_SIDECAR, "the sidecar did not end a block that was interrupted");
        return;
    }
    n->timed_out = true;
    n->clock_since_ns = 0;
    cm_timer_start(n->clock, INTERRUPT_MS, 0);
    cm_sidecar_interrupt(n->exec);
}

/* What comes out */

static void keep(struct cm_node *n, int what, const char *text, size_t len)
{
    cm_buf_append(&n->texts[what], text, len); /* a text that finds no memory is not shown */
}

static void keep_text(struct cm_node *n, enum cm_text text, const struct cm_var *vars)
{
    cm_buf_clear(&n->texts[CM_BLOCK_ERROR]);
    cm_text_put(&n->texts[CM_BLOCK_ERROR], text, vars);
    n->failed = true;
}

static void keep_result(struct cm_node *n, const struct cm_sidecar_result *res)
{
    char limit[32];
    snprintf(limit, sizeof limit, "%g", n->run->request.limits.execution_timeout_s);
    const struct cm_var seconds[] = {CM_VAR("seconds", limit, strlen(limit)), {0}};
    const struct cm_var reason[] = {CM_VAR("reason", res->error, res->error_len), {0}};

    keep(n, CM_BLOCK_OUT, res->out, res->out_len);
    keep(n, CM_BLOCK_VALUE, res->result, res->result_len);
    keep(n, CM_BLOCK_ERR, res->err, res->err_len);
    keep(n, CM_BLOCK_ERROR, res->error, res->error_len);
    n->failed |= !res->success;
    n->code_s = fmin(fmax(res->seconds, 0), LONGEST_S);
    n->code_ns += (uint64_t)(n->code_s * 1e9);
    if (strcmp(res->state, "rolled_back") == 0)
        keep_text(n, CM_TEXT_ROLLED_BACK, reason);
    else if (n->timed_out)
        keep_text(n, CM_TEXT_TIMEOUT, seconds);
}

static struct cm_output_text text_of(struct cm_buf *b)
{
    return (struct cm_output_text){cm_buf_data(b), b->len};
}

static int put_output(struct cm_node *n)
{
    struct cm_output o = {
        .out = text_of(&n->texts[CM_BLOCK_OUT]),
        .value = text_of(&n->texts[CM_BLOCK_VALUE]),
        .err = text_of(&n->texts[CM_BLOCK_ERR]),
        .error = text_of(&n->texts[CM_BLOCK_ERROR]),
        .names = text_of(&n->names),
    };
    uint64_t shown = cm_utf8_count(o.out.at, o.out.len) + cm_utf8_count(o.err.at, o.err.len);
    int rc = n->pending.len > 0 ? cm_buf_puts(&n->pending, "\n\n") : 0;

    o.missing = n->streamed > shown ? n->streamed - shown : 0;
    return rc < 0 ? rc : cm_output_put(&n->pending, n->reply.count > 1 ? (unsigned)n->block + 1 : 0, &o);
}

/* Where it could not come behind its block. */
static void report(struct cm_node *n)
{
    n->state = CM_NODE_REPORT;
    cm_execute(n, report_code, sizeof report_code - 1);
}

/* What the session says when the code itself cannot run; the model may write it better. */
static bool is_for_the_model(int code)
{
    return code == CM_ERR_TOO_LARGE || code == CM_ERR_BAD_FIELD || code == CM_ERR_BAD_REQUEST ||
           code == CM_ERR_BAD_JSON || code == CM_ERR_NO_ROOM;
}

static void run_block(struct cm_node *n)
{
    const struct cm_reply_block *b = &n->reply.blocks[n->block];

    n->state = CM_NODE_BLOCK;
    n->timed_out = false;
    n->clock_left_ns = (uint64_t)(n->run->request.limits.execution_timeout_s * 1e9);
    cm_execute(n, b->code, b->len);
}

static void block_failed(struct cm_node *n, const struct cm_err *err)
{
    const struct cm_var vars[] = {CM_VAR("reason", err->text, strlen(err->text)), {0}};

    if (err->code == CM_ERR_REVERTED && !n->reverted) { /* the report of the block before was lost, which is no harm */
        n->reverted = true;
        run_block(n);
    } else if (err->code == CM_ERR_SIDECAR || is_for_the_model(err->code)) {
        keep_text(n, err->code == CM_ERR_SIDECAR ? CM_TEXT_BROKEN : CM_TEXT_ERROR, vars);
        report(n);
    } else {
        cm_node_fail_sidecar(n, "a block could not run", err);
    }
}

static bool is_lost(struct cm_node *n, const struct cm_sidecar_result *res)
{
    if (!res || strcmp(res->state, "lost") != 0)
        return false;
    n->lost = true;
    cm_node_fail(n, CM_ERR_SIDECAR, "the session was lost: %.300s",
                 res->error[0] ? res->error : "its process has ended");
    return true;
}

static void report_done(struct cm_node *n, const struct cm_sidecar_result *res, const struct cm_err *err)
{
    const struct cm_var vars[] = {CM_VAR("reason", err ? err->text : "", err ? strlen(err->text) : 0), {0}};

    if (!res && err->code == CM_ERR_REVERTED && !n->reverted) {
        n->reverted = true;
        keep_text(n, CM_TEXT_ROLLED_BACK, vars);
        report(n);
    } else if (!res) {
        cm_node_fail_sidecar(n, "the session does not answer", err);
    } else {
        cm_event_block(n);
        if (put_output(n) < 0)
            cm_node_fail(n, CM_ERR_NO_MEMORY, "no memory for the output of a block");
        else if (n->final || ++n->block == n->reply.count)
            cm_turn_ran(n);
        else
            cm_block_begin(n);
    }
}

static void lookup_done(struct cm_node *n, const struct cm_sidecar_result *res, const struct cm_err *err)
{
    struct cm_output_text out;

    if (!res) {
        cm_node_fail_sidecar(n, "the session does not answer", err);
        return;
    }
    out = (struct cm_output_text){res->out, res->out_len};
    while (out.len > 0 && out.at[out.len - 1] == '\n')
        out.len--;
    if (!n->final && out.len > 0 &&
        ((n->pending.len > 0 && cm_buf_puts(&n->pending, "\n\n") < 0) ||
         cm_buf_append(&n->pending, out.at, out.len) < 0))
        cm_node_fail(n, CM_ERR_NO_MEMORY, "no memory for the output of a block");
    else
        cm_turn_end(n);
}

/* The callbacks */

static void on_output(void *arg, int stream, const char *text, size_t len)
{
    struct cm_node *n = arg;

    if (cm_node_over(n) || n->state != CM_NODE_BLOCK)
        return;
    n->streamed += cm_utf8_count(text, len);
    cm_event_output(n, stream, text, len);
}

static void on_call(void *arg, unsigned number, const char *name, char *arguments, size_t len)
{
    struct cm_node *n = arg;

    if (!cm_node_over(n))
        cm_subcalls_call(n, number, name, arguments, len);
}

static void on_call_gone(void *arg, unsigned number)
{
    struct cm_node *n = arg;

    if (!cm_node_over(n))
        cm_subcalls_gone(n, number);
}

static void stop_clock(struct cm_node *n)
{
    n->clock_since_ns = 0;
    cm_timer_stop(n->clock);
}

/* Of a block: its report comes next. */
static void on_result(void *arg, const struct cm_sidecar_result *res)
{
    struct cm_node *n = arg;

    stop_clock(n);
    if (cm_node_over(n))
        return;
    cm_subcalls_drop_all(n);
    cm_parts_done(&n->parts);
    if (is_lost(n, res))
        return;
    keep_result(n, res);
    n->state = CM_NODE_REPORT;
}

static void on_done(void *arg, const struct cm_sidecar_result *res, const struct cm_err *err)
{
    struct cm_node *n = arg;

    n->exec = NULL;
    stop_clock(n);
    if (cm_node_over(n))
        return;
    cm_subcalls_drop_all(n);
    if (res && (n->state == CM_NODE_REPORT || n->state == CM_NODE_LOOKUP))
        cm_report_take(n, res->result, res->result_len);
    cm_parts_done(&n->parts);
    if (is_lost(n, res))
        return;
    switch (n->state) {
    case CM_NODE_SETUP:
        return cm_setup_coded(n, res, err);
    case CM_NODE_BLOCK:
        return block_failed(n, err);
    case CM_NODE_REPORT:
        return report_done(n, res, err);
    case CM_NODE_LOOKUP:
        return lookup_done(n, res, err);
    default: /* CM_NODE_KEEP */
        if (err)
            return cm_node_fail_sidecar(n, "the session does not answer", err);
        cm_parts_text_done(&n->context);
        return cm_turn_begin(n);
    }
}

void cm_execute(struct cm_node *n, const char *code, size_t len)
{
    static const struct cm_sidecar_ops ops = {on_output, on_call, on_call_gone, on_result, on_done};
    bool block = n->state == CM_NODE_BLOCK, asks = n->state == CM_NODE_REPORT || n->state == CM_NODE_LOOKUP;
    const double report_s = fmax(n->run->request.limits.execution_timeout_s, REPORT_S);
    const struct cm_sidecar_code c = {
        .code = code,
        .len = len,
        .timeout_s = block  ? LONGEST_S
                     : asks ? report_s
                            : OUR_CODE_S,
        .caller_tools = block  ? block_tools
                        : asks ? report_tools
                               : NULL,
        .correlation = n->run->request.correlation,
        .then = block ? report_code : NULL,
        .then_timeout_s = report_s,
    };
    struct cm_err err = {0};

    if (cm_sidecar_execute(n->run->rlm->sidecar, n->session, &c, &ops, n, &n->exec, &err) < 0) {
        n->exec = NULL;
        cm_node_fail_sidecar(n, "code could not be sent", &err);
        return;
    }
    if (block)
        start_clock(n);
}

void cm_block_begin(struct cm_node *n)
{
    for (int i = 0; i < CM_BLOCK_TEXTS; i++)
        cm_buf_clear(&n->texts[i]);
    for (int i = 0; i < CM_RECORDS; i++)
        cm_buf_clear(&n->calls[i]);
    cm_buf_clear(&n->names);
    cm_buf_clear(&n->variables);
    n->streamed = n->said_output = n->block_calls = 0;
    n->code_s = 0;
    n->reverted = false;
    cm_metrics_add(n->run->rlm->metrics, CM_M_RLM_CODE, 0, 1);
    cm_event_code(n);
    run_block(n);
}

/* Whether characters beyond ASCII make a name, Python says: a text that is none is not an answer. */
void cm_lookup_begin(struct cm_node *n, const char *name)
{
    cm_autobuf struct cm_buf code;

    cm_buf_init(&code, strlen(name) * 12 + 200);
    n->state = CM_NODE_LOOKUP;
    if (cm_buf_puts(&code, "if ") < 0 || cm_json_put_string(&code, name, strlen(name)) < 0 ||
        cm_buf_puts(&code, ".isidentifier(): __import__('rlm_session').FINAL_VAR(") < 0 ||
        cm_json_put_string(&code, name, strlen(name)) < 0 ||
        cm_buf_puts(&code, ")\n__import__('rlm_session').report()") < 0) {
        cm_node_fail(n, CM_ERR_NO_MEMORY, "no memory to look a variable up");
        return;
    }
    cm_execute(n, cm_buf_data(&code), code.len);
}
