/* SPDX-License-Identifier: Apache-2.0 */
/* A run of a service, seen from outside: the context goes there first, then the query, then its events are read. A stream
 * that breaks off is taken up again behind the last event that came. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "conf/schema.h"
#include "egress/egress.h"
#include "rlm_cli/cli.h"
#include "rlm_cli/complete.h"
#include "wire/json.h"
#include "wire/sse.h"

#define ANSWER_MAX  (256u << 20)
#define EVENT_MAX   (32u << 20)
#define REQUEST_MAX (8u << 20)
#define IDLE_S      60 /* without a byte: the service keeps its streams alive more often */
#define BRIEF_S     30
#define TRIES_MAX   20 /* of a stream, without an event in between */
#define PAUSE_MS    500

struct there {
    struct completion *c;
    struct cm_egress *egress;
    struct cm_fetch *fetch, *cancel;
    struct cm_timer *again;
    struct cm_buf body, answer;
    struct cm_sse sse;
    char authorization[CM_CONF_TEXT_MAX + 32], context_id[64], id[CM_RLM_ID_MAX], last_event[24];
    unsigned tries;
    bool cancelled;
    void (*then)(struct there *t); /* when there is a whole answer with a good status */
};

static void ask_events(struct there *t);

/* Requests */

static void fail(struct there *t, const char *what, const char *why)
{
    char text[600];

    snprintf(text, sizeof text, "%s: %.500s", what, why);
    complete_fail(t->c, CM_EXIT_UNAVAILABLE, text);
}

/* The reason that the service gives, or its status. */
static void refused(struct there *t, int status)
{
    struct cm_json_member m[] = {{.name = "detail"}};
    char text[600];
    size_t len = 0;
    bool words = cm_json_object(cm_buf_data(&t->answer), t->answer.len, m, 1, NULL) == 0 &&
                 m[0].value.kind == CM_JSON_STRING && cm_json_decode(&m[0].value, &len);

    if (words)
        snprintf(text, sizeof text, "the service answers %d: %.*s", status, len > 480 ? 480 : (int)len, m[0].value.raw);
    else
        snprintf(text, sizeof text, "the service answers %d", status);
    complete_fail(t->c, status == 401 || status == 400 || status == 422 ? CM_EXIT_USAGE : CM_EXIT_UNAVAILABLE, text);
}

static void on_data(void *arg, const char *data, size_t len)
{
    struct there *t = arg;

    cm_buf_append(&t->answer, data, len);
}

static void on_done(void *arg, const struct cm_fetch_end *end)
{
    struct there *t = arg;

    t->fetch = NULL;
    if (end->why != CM_FETCH_OK)
        fail(t, "the service cannot be reached", end->text);
    else if (end->status < 200 || end->status > 299)
        refused(t, end->status);
    else
        t->then(t);
}

static const struct cm_fetch_ops whole = {.data = on_data, .done = on_done};

struct order {
    const char *method, *path, *type;
    bool file; /* the context */
    double timeout_s;
};

static int send(struct there *t, const struct order *o, const struct cm_fetch_ops *ops, struct cm_fetch **ret)
{
    char url[1400], type[80], after[64];
    const char *headers[6] = {0};
    unsigned n = 0;
    struct cm_err err;
    size_t base = strlen(t->c->url);

    while (base > 0 && t->c->url[base - 1] == '/')
        base--;
    snprintf(url, sizeof url, "%.*s%s", (int)base, t->c->url, o->path);
    if (*t->authorization)
        headers[n++] = t->authorization;
    if (o->type) {
        snprintf(type, sizeof type, "Content-Type: %s", o->type);
        headers[n++] = type;
    }
    if (ops != &whole && *t->last_event) {
        snprintf(after, sizeof after, "Last-Event-ID: %s", t->last_event);
        headers[n++] = after;
    }
    const struct cm_fetch_request req = {
        .method = o->method,
        .url = url,
        .headers = headers,
        .body = o->type && !o->file ? cm_buf_data(&t->body) : NULL,
        .body_len = o->type && !o->file ? t->body.len : 0,
        .body_fd = o->file ? t->c->context.fd : -1,
        .body_fd_len = o->file ? t->c->context.len : 0,
        .idle_timeout_s = o->timeout_s > 0 ? 0 : IDLE_S,
        .timeout_s = o->timeout_s,
        .answer_max = ANSWER_MAX,
    };
    cm_buf_clear(&t->answer);
    int rc = cm_fetch_start(t->egress, &req, ops, t, ret, &err);
    if (rc < 0)
        complete_fail(t->c, CM_EXIT_USAGE, err.text);
    return rc;
}

/* A member that is a text: decoded, within the answer. */
static const char *member_text(struct cm_json_value *v, size_t *ret_len)
{
    *ret_len = 0;
    if (v->kind != CM_JSON_STRING || !cm_json_decode(v, ret_len))
        return NULL;
    v->raw[*ret_len] = '\0';
    return v->raw;
}

static bool take_id(struct there *t, const char *name, char *ret, size_t max)
{
    struct cm_json_member m[] = {{.name = name}};
    size_t len;
    const char *id =
        cm_json_object(cm_buf_data(&t->answer), t->answer.len, m, 1, NULL) == 0 ? member_text(&m[0].value, &len) : NULL;

    if (!id || len == 0 || len >= max || strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != len) {
        complete_fail(t->c, CM_EXIT_UNAVAILABLE, "the service's answer cannot be understood: is it an RLM service?");
        return false;
    }
    memcpy(ret, id, len + 1);
    return true;
}

/* The end */

static void on_result(struct there *t)
{
    enum { ANSWER, PARTIAL, ERROR, USAGE, ITERATIONS, SECONDS, COUNT };
    struct cm_json_member m[COUNT] = {
        [ANSWER] = {.name = "answer"}, [PARTIAL] = {.name = "partial_answer"}, [ERROR] = {.name = "error"},
        [USAGE] = {.name = "usage"},   [ITERATIONS] = {.name = "iterations"},  [SECONDS] = {.name = "execution_time"}};
    struct cm_json_member e[] = {{.name = "code"}, {.name = "detail"}};
    struct cm_rlm_result res = {.usage = "{}", .partial = ""};
    size_t len;

    if (cm_json_object(cm_buf_data(&t->answer), t->answer.len, m, COUNT, NULL) < 0) {
        complete_fail(t->c, CM_EXIT_UNAVAILABLE, "the service's answer cannot be understood");
        return;
    }
    if (m[ERROR].value.kind == CM_JSON_OBJECT &&
        cm_json_object(m[ERROR].value.raw, m[ERROR].value.len, e, 2, NULL) == 0) {
        const char *code = member_text(&e[0].value, &len), *detail = member_text(&e[1].value, &len);
        cm_err_set(&res.err, code ? cm_err_code_of(code) : CM_ERR_SYSTEM, "%.400s", detail ? detail : "");
    }
    res.iterations = (unsigned)(m[ITERATIONS].value.kind == CM_JSON_NUMBER ? cm_json_number(&m[ITERATIONS].value) : 0);
    res.seconds = m[SECONDS].value.kind == CM_JSON_NUMBER ? cm_json_number(&m[SECONDS].value) : 0;
    if (m[USAGE].value.kind == CM_JSON_OBJECT) {
        res.usage = m[USAGE].value.raw;
        m[USAGE].value.raw[m[USAGE].value.len] = '\0'; /* over what stands behind it, which has been read */
    }
    res.answer = member_text(&m[ANSWER].value, &res.answer_len);
    const char *partial = member_text(&m[PARTIAL].value, &res.partial_len);
    res.partial = partial ? partial : "";
    if (!res.answer && !res.err.code)
        cm_err_set(&res.err, CM_ERR_SYSTEM, "the run has no answer");
    complete_done(t->c, t->id, &res);
}

static void ask_result(struct there *t)
{
    char path[100];

    snprintf(path, sizeof path, "/runs/%s", t->id);
    t->then = on_result;
    send(t, &(struct order){.method = "GET", .path = path, .timeout_s = BRIEF_S}, &whole, &t->fetch);
}

/* Events */

static int on_event(void *arg, const char *event, char *data, size_t len)
{
    struct there *t = arg;

    snprintf(t->last_event, sizeof t->last_event, "%.20s", t->sse.id);
    t->tries = 0;
    complete_event(t->c, event, data, len);
    return 0;
}

static void on_event_data(void *arg, const char *data, size_t len)
{
    struct there *t = arg;

    if (cm_sse_feed(&t->sse, data, len, on_event, t) <
        0) { /* one that is too large: what comes behind it still counts */
        cm_sse_done(&t->sse);
        cm_sse_init(&t->sse, EVENT_MAX);
    }
}

static void on_events_done(void *arg, const struct cm_fetch_end *end)
{
    struct there *t = arg;

    t->fetch = NULL;
    cm_sse_done(&t->sse);
    if (end->why == CM_FETCH_OK && end->status == 200)
        ask_result(t);
    else if (end->why == CM_FETCH_OK && end->status == 404) /* what it runs does not survive it */
        fail(t, "the service does not know the run any more", "has it been started again?");
    else if (end->why == CM_FETCH_OK)
        refused(t, end->status);
    else if (++t->tries > TRIES_MAX)
        fail(t, "the service cannot be reached", end->text);
    else
        cm_timer_start(t->again, PAUSE_MS, 0);
}

static void ask_events(struct there *t)
{
    static const struct cm_fetch_ops ops = {.data = on_event_data, .done = on_events_done};
    char path[100];

    snprintf(path, sizeof path, "/runs/%s/events", t->id);
    cm_sse_init(&t->sse, EVENT_MAX);
    send(t, &(struct order){.method = "GET", .path = path}, &ops, &t->fetch);
}

static void on_again(void *arg)
{
    ask_events(arg);
}

/* The run */

static void on_cancelled(void *arg, const struct cm_fetch_end *end)
{
    struct there *t = arg;

    (void)end;
    t->cancel = NULL;
}

static void ask_cancel(struct there *t)
{
    static const struct cm_fetch_ops ops = {.done = on_cancelled};
    char path[100];

    if (t->cancel)
        return;
    snprintf(path, sizeof path, "/runs/%s", t->id);
    send(t, &(struct order){.method = "DELETE", .path = path, .timeout_s = BRIEF_S}, &ops, &t->cancel);
}

static void on_started(struct there *t)
{
    if (!take_id(t, "run_id", t->id, sizeof t->id))
        return;
    if (t->cancelled)
        ask_cancel(t);
    ask_events(t);
}

/* What a flag or a variable says; else the service's own settings hold. */
static int put_settings(struct cm_buf *b, const struct cm_rlm_conf *s)
{
    static const struct {
        const char *field, *member;
    } sent[] = {
        {"llm_model", "model"},
        {"max_depth", "max_depth"},
        {"max_iterations", "max_iterations"},
        {"max_run_time", "max_timeout"},
        {"max_run_tokens", "max_tokens"},
        {"max_run_budget", "max_budget"},
        {"max_run_errors", "max_errors"},
        {"execution_timeout", "execution_timeout"},
        {"max_concurrent_subcalls", "max_concurrent_subcalls"},
    };
    struct cm_buf value;
    int rc = 0;

    cm_buf_init(&value, CM_CONF_TEXT_MAX);
    for (size_t i = 0; i < sizeof sent / sizeof sent[0] && rc == 0; i++) {
        const struct cm_row *row = cm_row_by_field(&cm_rlm_schema, sent[i].field, strlen(sent[i].field));
        if (s->source.origins[row - cm_rlm_schema.rows].from == CM_CONF_DEFAULT)
            continue;
        cm_buf_clear(&value);
        cm_row_print(row, s, &value);
        rc = cm_buf_printf(b, ",\"%s\":", sent[i].member);
        if (rc == 0)
            rc = row->type == CM_ROW_TEXT ? cm_json_put_string(b, cm_buf_data(&value), value.len)
                                          : cm_buf_puts(b, cm_buf_data(&value));
    }
    cm_buf_done(&value);
    return rc;
}

static void ask_run(struct there *t)
{
    cm_buf_clear(&t->body);
    if (cm_buf_puts(&t->body, "{\"query\":") < 0 ||
        cm_json_put_string(&t->body, t->c->query, strlen(t->c->query)) < 0 ||
        (*t->context_id && cm_buf_printf(&t->body, ",\"context_id\":\"%s\"", t->context_id) < 0) ||
        put_settings(&t->body, &t->c->conf) < 0 || cm_buf_puts(&t->body, "}") < 0) {
        complete_fail(t->c, CM_EXIT_USAGE, "--query: is too long");
        return;
    }
    t->then = on_started;
    send(t, &(struct order){.method = "POST", .path = "/runs", .type = "application/json", .timeout_s = BRIEF_S},
         &whole, &t->fetch);
}

static void on_context(struct there *t)
{
    if (take_id(t, "context_id", t->context_id, sizeof t->context_id))
        ask_run(t);
}

static void begin(struct there *t)
{
    bool json = t->c->context.kind == CM_CONTEXT_JSON;

    if (t->c->context.fd < 0 || t->c->context.len == 0) {
        ask_run(t);
        return;
    }
    snprintf(t->c->view.what, sizeof t->c->view.what, "the context is sent");
    t->then = on_context;
    send(t,
         &(struct order){.method = "POST",
                         .path = "/contexts",
                         .type = json ? "application/json" : "text/plain; charset=utf-8",
                         .file = true},
         &whole, &t->fetch);
}

static void cancel(struct completion *c)
{
    struct there *t = c->backend;

    t->cancelled = true;
    if (*t->id)
        ask_cancel(t);
}

int complete_there(struct completion *c, struct cm_err *err)
{
    const struct cm_egress_config config = {.connections_max = 4,
                                            .ca_file = *c->conf.llm_ca_file ? c->conf.llm_ca_file : NULL};
    struct there *t = calloc(1, sizeof *t);

    if (!t)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory");
    c->backend = t;
    t->c = c;
    cm_buf_init(&t->body, REQUEST_MAX);
    cm_buf_init(&t->answer, ANSWER_MAX);
    if (*c->conf.api_key)
        snprintf(t->authorization, sizeof t->authorization, "Authorization: Bearer %s", c->conf.api_key);
    int rc = cm_egress_open(c->loop, &config, &t->egress, err);
    if (rc == 0 && !(t->again = cm_timer_open(c->loop, on_again, t, err)))
        rc = CM_ERR_NO_MEMORY;
    if (rc < 0)
        return rc;
    c->cancel = cancel;
    begin(t);
    return 0;
}

void complete_there_end(struct completion *c)
{
    struct there *t = c->backend;

    if (!t)
        return;
    cm_fetch_cancel(t->fetch);
    cm_fetch_cancel(t->cancel);
    cm_timer_close(t->again);
    cm_egress_free(t->egress);
    cm_buf_done(&t->body);
    cm_buf_done(&t->answer);
    free(t);
}
