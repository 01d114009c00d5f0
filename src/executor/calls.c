/* SPDX-License-Identifier: Apache-2.0 */
/* The way of a call: it is allowed, its arguments fit, it goes out once. What the guest says of itself decides nothing
 * here: names are looked up in what the request has allowed, whatever the code's objects look like. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "executor/internal.h"
#include "tools/schema.h"
#include "tools/values.h"

#define WHY_MAX      8192 /* bytes of what is wrong with the arguments */
#define COMPARED_MAX (16u << 20) /* bytes that are looked through when two contexts are merged */

static void free_call(struct call *c)
{
    DL_DELETE(c->job->calls, c);
    free(c);
}

void cm_calls_answer(struct call *c, const char *json, size_t len)
{
    struct cm_call *call = c->call;

    free_call(c);
    cm_call_answer(call, json, len);
}

void cm_calls_fail(struct call *c, enum cm_call_failure why, const char *text)
{
    struct cm_call *call = c->call;

    free_call(c);
    cm_call_fail(call, why, text, strlen(text));
}

/* What it waits for is told that nobody waits. */
static void withdraw(struct call *c)
{
    if (c->request)
        cm_tool_request_cancel(c->request);
    if (c->wait)
        cm_registry_wait_cancel(c->wait);
    free_call(c);
}

static bool is_own(const struct job *job, const struct cm_call_request *rq)
{
    return cm_plan_find(&job->own, rq->name, rq->name_len) != NULL;
}

/* One that is in no list is the face's, and its user pointer too. */
void cm_calls_gone(void *arg, struct cm_call *call)
{
    struct job *job = arg;
    struct cm_run *run = job->runs;
    struct call *c;

    DL_SEARCH_SCALAR(job->calls, c, call, call);
    if (c)
        withdraw(c);
    else if (run && run->ops.call_gone)
        run->ops.call_gone(run->arg, call);
}

void cm_calls_drop(struct job *job)
{
    while (job->calls) {
        struct cm_call *call = job->calls->call;
        withdraw(job->calls);
        cm_call_fail(call, CM_CALL_CANCELLED, "the execution has ended", 23);
    }
}

/* The context */

static bool has_name(const struct cm_json_value *object, struct cm_chars name)
{
    struct cm_json_value value;
    struct cm_chars at;

    for (struct cm_members m = cm_members_of(object); cm_members_next(&m, &at, &value);)
        if (cm_chars_equal(at, name))
            return true;
    return false;
}

static int put_member(struct cm_buf *to, struct cm_chars name, const struct cm_json_value *value)
{
    int rc = cm_buf_puts(to, to->len > 1 ? ",\"" : "\"");

    rc = rc ? rc : cm_buf_append(to, name.at, (size_t)(name.end - name.at));
    rc = rc ? rc : cm_buf_puts(to, "\":");
    return rc ? rc : cm_buf_append(to, value->raw, value->len);
}

/* The execution's members, but for those that the call brings itself. Both texts are checked objects. For each member of
 * the one all of the other is read: code and its client could make that a minute's work. */
static int merge(struct cm_buf *to, const struct cm_json_value *general, const struct cm_json_value *own)
{
    size_t left = COMPARED_MAX;
    struct cm_json_value value;
    struct cm_members m;
    struct cm_chars name;
    int rc = cm_buf_puts(to, "{");

    for (m = cm_members_of(general); rc == 0 && cm_members_next(&m, &name, &value); left -= own->len) {
        if (own->len > left)
            return CM_ERR_TOO_LARGE;
        if (!has_name(own, name))
            rc = put_member(to, name, &value);
    }
    for (m = cm_members_of(own); rc == 0 && cm_members_next(&m, &name, &value);)
        rc = put_member(to, name, &value);
    return rc ? rc : cm_buf_puts(to, "}");
}

static bool as_object(const char *text, size_t len, struct cm_json_value *ret)
{
    return text && cm_json_check(text, len, ret, NULL) == 0 && ret->kind == CM_JSON_OBJECT;
}

/* What goes with the call, in *ret; `merged` is room for it. Without one, ret->kind is CM_JSON_ABSENT. */
static int context_of(const struct call *c, const struct cm_call_request *rq, struct cm_buf *merged,
                      struct cm_json_value *ret)
{
    struct cm_json_value general, own;
    bool has_own = as_object(rq->context, rq->context_len, &own);
    bool has_general = as_object(c->job->context, c->job->context_len, &general);

    *ret = has_own ? own : has_general ? general : (struct cm_json_value){CM_JSON_ABSENT, NULL, 0};
    int rc = has_own && has_general ? merge(merged, &general, &own) : 0;
    if (rc == 0 && has_own && has_general)
        *ret = (struct cm_json_value){CM_JSON_OBJECT, cm_buf_data(merged), merged->len};
    return rc == CM_ERR_TOO_LARGE ? rc : 0; /* no memory for both: the nearer one */
}

/* Sending */

static void on_result(void *arg, const char *json, size_t len, enum cm_call_failure why, const char *text)
{
    struct call *c = arg;

    c->request = NULL;
    if (json) {
        cm_calls_answer(c, json, len);
        return;
    }
    if (why == CM_CALL_UNKNOWN)
        cm_registry_set(c->job->x->registry);
    cm_calls_fail(c, why, text);
}

static bool arguments_fit(struct call *c, const struct cm_call_request *rq)
{
    const struct cm_tool *t = cm_registry_details(c->job->x->registry, c->tool);
    cm_autobuf struct cm_buf why;

    cm_buf_init(&why, WHY_MAX);
    if (!t->input_schema ||
        cm_schema_accepts(t->input_schema, t->input_schema_len, rq->arguments, rq->arguments_len, &why))
        return true;
    cm_calls_fail(c, CM_CALL_ARGUMENTS, cm_buf_data(&why));
    return false;
}

static void send(struct call *c, const struct cm_call_request *rq)
{
    const struct cm_tool *t = c->tool;
    cm_autobuf struct cm_buf merged;
    struct cm_json_value context;
    struct cm_err err;
    char text[200];

    cm_buf_init(&merged, 2 * CONTEXT_MAX + rq->context_len);
    if (!arguments_fit(c, rq))
        return;
    if (c->job->context_given && !c->job->context && t->has_context) {
        snprintf(text, sizeof text, "the execution's context has %zu bytes: more than %u cannot go with a call",
                 c->job->context_given, CONTEXT_MAX);
        cm_calls_fail(c, CM_CALL_LIMIT, text);
        return;
    }
    if (context_of(c, rq, &merged, &context) < 0) {
        cm_calls_fail(c, CM_CALL_LIMIT,
                      "the contexts of the call and of its execution are too large to be put together");
        return;
    }
    const struct cm_tool_call call = {
        .name = t->name,
        .name_len = t->name_len,
        .arguments = rq->arguments,
        .arguments_len = rq->arguments_len,
        .context = context.raw,
        .context_len = context.len,
        .correlation_id = c->job->correlation,
        .execution = c->job->name,
        .run = c->job->id,
        .number = rq->number,
        .deadline_ns = rq->deadline_ns,
    };
    c->request = cm_tool_service_call(c->job->x->service, &call, on_result, c, &err);
    if (!c->request)
        cm_calls_fail(c,
                      err.code == CM_ERR_BAD_FIELD || err.code == CM_ERR_TOO_LARGE ? CM_CALL_ARGUMENTS : CM_CALL_LIMIT,
                      err.text);
}

static void refuse_unknown(struct call *c, const struct cm_call_request *rq)
{
    struct job *job = c->job;
    cm_autobuf struct cm_buf text;

    cm_buf_init(&text, ERROR_TEXT_MAX);
    if (!job->x->service && !job->own.set)
        cm_buf_puts(&text,
                    "no tool service is configured: CODEMODE_MAIN_APP_TARGET must name the application's gRPC port");
    else if (job->allowance.chosen && cm_toolset_find(job->allowance.set, rq->name, rq->name_len) >= 0)
        cm_buf_puts(&text, "it is not one of the execution's available_tools");
    else
        cm_buf_puts(&text, "there is no such tool");
    if (job->allowance.set || job->own.set)
        cm_plan_hint(job->allowance.set ? &job->allowance : &job->own, rq->name, rq->name_len, &text);
    cm_calls_fail(c, CM_CALL_UNKNOWN, cm_buf_data(&text));
}

/* Nothing more is waited for. */
static void go(struct call *c, const struct cm_call_request *rq)
{
    if (rq->name_len >= 2 && memcmp(rq->name, "__", 2) == 0) {
        cm_meta_call(c, rq);
        return;
    }
    c->tool = cm_plan_find(&c->job->allowance, rq->name, rq->name_len);
    if (c->tool)
        send(c, rq);
    else
        refuse_unknown(c, rq);
}

/* Waiting for a list */

static void on_list(void *arg, struct cm_toolset *set, const char *why)
{
    struct call *c = arg;

    c->wait = NULL;
    if (!set) {
        cm_calls_fail(c, CM_CALL_UNAVAILABLE, why);
        return;
    }
    struct allowance *a = &c->job->allowance;
    if (!a->set && cm_plan_choose(a, set, &c->job->own, NULL, 0, NULL) < 0)
        cm_calls_fail(c, CM_CALL_LIMIT, "no memory for the list of tools");
    else
        go(c, &c->what);
}

static const char *place(char **at, const char *text, size_t len)
{
    char *to = *at;

    if (!text)
        return NULL;
    memcpy(to, text, len);
    *at += len;
    return to;
}

static struct call *new_call(struct job *job, struct cm_call *call, const struct cm_call_request *rq, bool copied)
{
    size_t more = copied ? rq->name_len + rq->arguments_len + (rq->context ? rq->context_len : 0) : 0;
    struct call *c = calloc(1, sizeof *c + more);

    if (!c)
        return NULL;
    char *at = (char *)(c + 1);
    c->job = job;
    c->call = call;
    if (copied) {
        c->what = *rq;
        c->what.name = place(&at, rq->name, rq->name_len);
        c->what.arguments = place(&at, rq->arguments, rq->arguments_len);
        c->what.context = place(&at, rq->context, rq->context_len);
    }
    DL_APPEND(job->calls, c);
    cm_call_set_user(call, c);
    return c;
}

void cm_calls_begin(void *arg, struct cm_call *call, const struct cm_call_request *rq)
{
    struct job *job = arg;
    struct cm_executor *x = job->x;
    bool waits = x->service && !job->allowance.set;
    struct cm_err err;

    job->called++;
    if (is_own(job, rq)) {
        job->runs->ops.call(job->runs->arg, call, rq); /* not remembered: there is one run, as long as the job */
        return;
    }
    struct call *c = new_call(job, call, rq, waits);
    if (!c) {
        cm_call_fail(call, CM_CALL_LIMIT, "no memory for the call", 22);
    } else if (!waits) {
        go(c, rq);
    } else {
        c->wait = cm_registry_fetch(x->registry, CM_REGISTRY_ATTEMPTS, 0, on_list, c, &err);
        if (!c->wait)
            cm_calls_fail(c, CM_CALL_LIMIT, err.text);
    }
}
