/* SPDX-License-Identifier: Apache-2.0 */
/* Questions about tools: the names that begin with "__". They tell of the execution's own tools only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "executor/internal.h"
#include "tools/search.h"
#include "tools/values.h"

#define ANSWER_MAX                                                                                                     \
    (8u << 20) /* some 10 ms of the loop; ten thousand tools, each with a description of 500 bytes, fit */
#define QUERY_MAX 1000 /* bytes */

static const char *boolean(bool b)
{
    return b ? "true" : "false";
}

static int put_text(struct cm_buf *to, const char *lead, const char *text, size_t len)
{
    int rc = cm_buf_puts(to, lead);

    return rc ? rc : cm_json_put_string(to, text, len);
}

static int put_schema(struct cm_buf *to, const char *lead, const char *schema, size_t len)
{
    int rc = cm_buf_puts(to, lead);

    return rc ? rc : schema ? cm_buf_append(to, schema, len) : cm_buf_puts(to, "null");
}

static void finish(struct call *c, struct cm_buf *json, int rc)
{
    if (rc < 0)
        cm_calls_fail(c, CM_CALL_LIMIT, "the answer is too large");
    else
        cm_calls_answer(c, cm_buf_data(json), json->len);
}

/* __list__ */

static int put_row(struct cm_buf *to, const struct cm_tool *t, const struct cm_tool *details)
{
    int rc = put_text(to, "{\"name\":", t->name, t->name_len);

    rc = rc ? rc : put_text(to, ",\"description\":", t->description, t->description_len);
    return rc ? rc
              : cm_buf_printf(to,
                              ",\"is_async\":%s,\"has_context\":%s,\"has_input_schema\":%s,\"has_output_schema\":%s}",
                              boolean(t->is_async), boolean(t->has_context), boolean(details->input_schema),
                              boolean(details->output_schema));
}

/* Of the caller's own tools nothing is known but what they are called. */
static const struct cm_tool *details_of(const struct job *job, const struct cm_tool *t)
{
    bool own = cm_plan_find(&job->own, t->name, t->name_len) == t;

    return own ? t : cm_registry_details(job->x->registry, t);
}

static int put_rows(struct cm_buf *to, const struct job *job, const struct allowance *a, size_t *count)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && a->set && i < a->set->count; i++) {
        if (a->chosen && !a->chosen[i])
            continue;
        rc = (*count)++ ? cm_buf_puts(to, ",") : 0;
        rc = rc ? rc : put_row(to, a->set->tools[i], details_of(job, a->set->tools[i]));
    }
    return rc;
}

static void answer_list(struct call *c)
{
    cm_autobuf struct cm_buf json;
    size_t count = 0;

    cm_buf_init(&json, ANSWER_MAX);
    int rc = cm_buf_puts(&json, "{\"tools\":[");
    rc = rc ? rc : put_rows(&json, c->job, &c->job->own, &count);
    rc = rc ? rc : put_rows(&json, c->job, &c->job->allowance, &count);
    rc = rc ? rc : cm_buf_printf(&json, "],\"count\":%zu}", count);
    finish(c, &json, rc);
}

/* __search__ */

static int put_found(struct cm_buf *to, const struct cm_tool *t, const struct cm_tool *details, double score)
{
    int rc = put_text(to, "{\"name\":", t->name, t->name_len);

    rc = rc ? rc : put_text(to, ",\"description\":", t->description, t->description_len);
    rc = rc ? rc : cm_buf_printf(to, ",\"is_async\":%s,\"score\":%.4f", boolean(t->is_async), score);
    rc = rc ? rc : put_schema(to, ",\"input_schema\":", details->input_schema, details->input_schema_len);
    return rc ? rc : cm_buf_puts(to, "}");
}

/* A text argument without its escapes; empty when there is none. */
static size_t text_argument(const struct cm_call_request *rq, const char *name, char *ret, size_t size)
{
    struct cm_buf b = {.mem = ret, .cap = size - 1, .max = size - 1};
    struct cm_json_value args, v;

    *ret = '\0';
    if (cm_json_check(rq->arguments, rq->arguments_len, &args, NULL) < 0)
        return 0;
    v = cm_member(&args, name);
    if (v.kind == CM_JSON_STRING)
        cm_chars_put(&b, cm_chars_of(&v), size - 1);
    return b.len;
}

static size_t limit_argument(const struct cm_call_request *rq)
{
    struct cm_json_value args, v = {0};

    if (cm_json_check(rq->arguments, rq->arguments_len, &args, NULL) == 0)
        v = cm_member(&args, "limit");
    double n = v.kind == CM_JSON_NUMBER ? cm_json_number(&v) : CM_SEARCH_DEFAULT;
    return n < 1 ? 0 : n > CM_SEARCH_MAX ? CM_SEARCH_MAX : (size_t)n;
}

static int search_in(struct cm_buf *to, const struct job *job, const struct allowance *a, const char *query, size_t len,
                     size_t limit, size_t *count)
{
    struct cm_found found[CM_SEARCH_MAX];
    long n = a->set && limit > *count ? cm_search(a->set, a->chosen, query, len, found, limit - *count) : 0;
    int rc = n < 0 ? CM_ERR_NO_MEMORY : 0;

    for (long i = 0; rc == 0 && i < n; i++) {
        const struct cm_tool *t = a->set->tools[found[i].tool];
        rc = (*count)++ ? cm_buf_puts(to, ",") : 0;
        rc = rc ? rc : put_found(to, t, details_of(job, t), found[i].score);
    }
    return rc;
}

static void answer_search(struct call *c, const struct cm_call_request *rq)
{
    const struct job *job = c->job;
    cm_autobuf struct cm_buf json;
    char query[QUERY_MAX];
    size_t len = text_argument(rq, "query", query, sizeof query), limit = limit_argument(rq), count = 0;

    cm_buf_init(&json, ANSWER_MAX);
    int rc = cm_buf_puts(&json, "{\"tools\":[");
    rc = rc ? rc : search_in(&json, job, &job->own, query, len, limit, &count);
    rc = rc ? rc : search_in(&json, job, &job->allowance, query, len, limit, &count);
    rc = rc ? rc : cm_buf_printf(&json, "],\"count\":%zu}", count);
    finish(c, &json, rc);
}

/* __schema__ */

static void answer_schema(struct call *c)
{
    const struct cm_tool *t = c->tool, *d = details_of(c->job, t);
    cm_autobuf struct cm_buf json;

    cm_buf_init(&json, ANSWER_MAX);
    int rc = put_text(&json, "{\"tool_name\":", t->name, t->name_len);
    rc = rc ? rc : put_schema(&json, ",\"input_schema\":", d->input_schema, d->input_schema_len);
    rc = rc ? rc : put_schema(&json, ",\"output_schema\":", d->output_schema, d->output_schema_len);
    rc = rc ? rc
            : put_text(&json, ",\"description\":", t->description_len ? t->description : d->description,
                       t->description_len ? t->description_len : d->description_len);
    rc = rc ? rc
            : cm_buf_printf(&json, ",\"is_async\":%s,\"has_context\":%s}", boolean(t->is_async),
                            boolean(t->has_context));
    finish(c, &json, rc);
}

/* Whatever the service says, there is an answer: without schemas when it has none. */
static void on_schema(void *arg, const uint8_t *message, size_t len, enum cm_grpc_status status, const char *text)
{
    struct call *c = arg;
    const struct cm_tool *t = c->tool;
    struct cm_err err;

    (void)status;
    (void)text;
    c->request = NULL;
    struct cm_tool *told = message ? cm_tool_read(message, len, &err) : NULL;
    if (told && told->name_len == t->name_len && memcmp(told->name, t->name, t->name_len) == 0)
        cm_registry_learn(c->job->x->registry, told);
    else
        free(told);
    answer_schema(c);
}

static void find_schema(struct call *c, const struct cm_call_request *rq)
{
    struct job *job = c->job;
    char name[CM_TOOL_NAME_MAX + 1];
    size_t len = text_argument(rq, "name", name, sizeof name);
    struct cm_err err;

    len = len ? len : text_argument(rq, "tool_name", name, sizeof name);
    const struct cm_tool *own = cm_plan_find(&job->own, name, len);
    const struct cm_tool *t = own ? own : cm_plan_find(&job->allowance, name, len);
    if (!t) {
        cm_autobuf struct cm_buf text;
        cm_buf_init(&text, ERROR_TEXT_MAX);
        cm_buf_printf(&text, len ? "there is no tool '%s'" : "name= must name a tool%s", name);
        cm_plan_hint(job->allowance.set ? &job->allowance : &job->own, "", 0, &text);
        cm_calls_fail(c, CM_CALL_UNKNOWN, cm_buf_data(&text));
        return;
    }
    c->tool = t;
    if (!own && cm_registry_details(job->x->registry, t) == t && !t->input_schema)
        c->request = cm_tool_service_schema(job->x->service, name, len, rq->deadline_ns, on_schema, c, &err);
    if (!c->request)
        answer_schema(c);
}

void cm_meta_call(struct call *c, const struct cm_call_request *rq)
{
    static const struct {
        const char *name;
        void (*answer)(struct call *c, const struct cm_call_request *rq);
    } *row, rows[] = {{"__search__", answer_search}, {"__schema__", find_schema}};

    for (row = rows; row < rows + CM_COUNT_OF(rows); row++)
        if (rq->name_len == strlen(row->name) && memcmp(rq->name, row->name, rq->name_len) == 0) {
            row->answer(c, rq);
            return;
        }
    if (rq->name_len == 8 && memcmp(rq->name, "__list__", 8) == 0)
        answer_list(c);
    else
        cm_calls_fail(c, CM_CALL_UNKNOWN, "there are '__list__', '__schema__' and '__search__'");
}
