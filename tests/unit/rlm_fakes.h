/* SPDX-License-Identifier: Apache-2.0 */
/* Stand-ins for the rooms llm and sidecar, on a real loop.
 *
 * A model's reply is what the test's `reply` makes of the request. A block of code is a list of lines that the sidecar of this
 * file understands; everything it does happens in a later turn of the loop, as with the real one:
 *
 *     print TEXT          error TEXT         final TEXT           variable NAME
 *     llm PROMPT          llms A|B|C         rlm PROMPT           rlms A|B|C      (prints the answer's JSON)
 *     part KEY TEXT       keyed KEY          call NAME JSON       (keyed: rlm_query of a text that was sent before)
 *     flood N             floodr N           (a batch of N prompts: of llm_query, of rlm_query)
 *     hang                until an interrupt stuck                not even then
 *     die  gone  lost  rollback  refuse      ends of all kinds
 */
#ifndef CM_TEST_RLM_FAKES_H
#define CM_TEST_RLM_FAKES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <utlist.h>

#include "base/buf.h"
#include "ev/loop.h"
#include "llm/llm.h"
#include "rlm/rlm.h"
#include "sidecar/sidecar.h"
#include "wire/json.h"

#define TEXT_MAX 4096

/* What a model answers. Zeroed: nothing, until the test says otherwise. */
struct said {
    const char *text;
    enum cm_llm_failure failure;
    struct cm_llm_usage usage;
    bool never; /* the call waits until it is cancelled */
    bool refuse; /* cm_llm_ask() fails */
};

struct cm_llm_call {
    struct cm_llm_call *prev, *next;
    struct cm_task task;
    struct said said;
    const struct cm_llm_ops *ops;
    void *arg;
    char model[128];
    char *last; /* message */
    char *text; /* of the reply */
};

struct cm_sidecar_op {
    struct cm_sidecar_op *prev, *next;
    struct cm_task task;
    enum { OP_CREATE, OP_PUT } kind;
    void (*created)(void *arg, const char *id, const struct cm_err *err);
    void (*put)(void *arg, const struct cm_err *err);
    void *arg;
    struct cm_err err;
    char id[64];
};

struct cm_sidecar_exec {
    struct cm_sidecar_exec *prev, *next;
    struct cm_task task;
    const struct cm_sidecar_ops *ops;
    void *arg;
    struct session *session;
    char *code, *at, *then; /* then: what runs behind it, or NULL */
    struct cm_buf out, err_out;
    unsigned call; /* that it waits for, 0: none */
    unsigned calls;
    bool interrupted, hangs, stuck;
    bool ours; /* code of the engine's */
};

struct session {
    struct session *prev, *next;
    char id[64];
    char final[TEXT_MAX];
    bool has_final;
    char variables[TEXT_MAX]; /* JSON members */
    struct cm_buf puts; /* "NAME=TEXT;" of what was put there */
    char newest[TEXT_MAX]; /* the context that was put last */
    bool gone;
};

static struct world {
    struct cm_loop *loop;
    struct cm_rlm *rlm;
    struct said (*reply)(const char *model, const struct cm_llm_message *messages, size_t count);
    struct cm_llm_call *calls;
    struct cm_sidecar_op *ops;
    struct cm_sidecar_exec *execs;
    struct session *sessions;
    unsigned asked, created, deleted, executed, interrupts, abandoned, cancelled, running_calls, most_calls;
    unsigned window;
    int create_fails, put_fails; /* codes */
    bool create_never, put_never, setup_never, report_never, report_fails, long_reports, setup_fails, reverted_once;
    const char *report; /* in place of a true one */
    struct cm_buf requests; /* every message of every request, roles in front */
    struct cm_buf codes; /* every code that ran */
    struct cm_buf events; /* lines */
    void (*on_event)(const char *type, const char *json);
    /* What came of the run. */
    struct cm_rlm_run *run;
    unsigned done;
    struct cm_rlm_result result;
    char *answer, *partial, *usage;
} world;

/* The model's side */

static void free_call(struct cm_llm_call *c)
{
    DL_DELETE(world.calls, c);
    world.running_calls--;
    free(c->last);
    free(c->text);
    free(c);
}

static void call_ends(void *arg)
{
    struct cm_llm_call *c = arg;
    const struct cm_llm_ops *ops = c->ops;
    void *to = c->arg;
    struct said said = c->said;
    char model[128];
    struct cm_llm_reply r = {
        .failure = said.failure,
        .text = said.text ? said.text : "",
        .len = said.text ? strlen(said.text) : 0,
        .reason = said.failure ? "the fake says so" : "",
        .finish = "stop",
        .model = model,
        .usage = said.usage,
        .attempts = 1,
    };

    snprintf(model, sizeof model, "%s", c->model);
    if (r.usage.input_tokens == 0)
        r.usage = (struct cm_llm_usage){.input_tokens = 10, .output_tokens = 5, .estimated = true};
    char *text = c->text;
    c->text = NULL;
    free_call(c);
    if (ops->delta && r.len > 0)
        ops->delta(to, r.text, r.len);
    ops->done(to, &r);
    free(text);
}

int cm_llm_ask(struct cm_llm *l, const struct cm_llm_model *model, const struct cm_llm_message *messages, size_t count,
               double deadline_s, const struct cm_llm_ops *ops, void *arg, struct cm_llm_call **ret, struct cm_err *err)
{
    struct cm_llm_call *c = calloc(1, sizeof *c);
    static const char *const roles[] = {"SYSTEM", "USER", "ASSISTANT"};

    (void)l;
    (void)deadline_s;
    world.asked++;
    cm_buf_printf(&world.requests, "REQUEST %u %s\n", world.asked, model->name);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(strlen(messages[i].text), messages[i].len);
        cm_buf_printf(&world.requests, "%s %s\n", roles[messages[i].role], messages[i].text);
    }
    c->said = world.reply(model->name, messages, count);
    if (c->said.refuse) {
        free(c);
        return cm_err_set(err, CM_ERR_BAD_FIELD, "the fake takes no request");
    }
    c->ops = ops;
    c->arg = arg;
    c->last = strdup(messages[count - 1].text);
    c->text = c->said.text ? strdup(c->said.text) : NULL;
    c->said.text = c->text;
    snprintf(c->model, sizeof c->model, "%s", model->name);
    DL_APPEND(world.calls, c);
    if (++world.running_calls > world.most_calls)
        world.most_calls = world.running_calls;
    if (!c->said.never)
        cm_task_post(world.loop, &c->task, call_ends, c);
    *ret = c;
    return 0;
}

void cm_llm_cancel(struct cm_llm_call *c)
{
    if (!c)
        return;
    world.cancelled++;
    cm_task_cancel(world.loop, &c->task);
    free_call(c);
}

const char *cm_llm_failure_name(enum cm_llm_failure failure)
{
    static const char *const names[] = {"ok",          "unreachable", "timeout",    "rate_limited", "refused",
                                        "bad_request", "too_long",    "bad_answer", "empty",        "cut",
                                        "refusal",     "too_large",   "no_memory"};

    return names[failure];
}

unsigned cm_llm_window(const struct cm_llm *l, const char *model)
{
    (void)l;
    (void)model;
    return world.window;
}

uint64_t cm_llm_estimate(const char *text, size_t len)
{
    (void)text;
    return (len + 3) / 4;
}

/* The sidecar's side */

static struct session *session_of(const char *id)
{
    struct session *s;

    DL_FOREACH(world.sessions, s)
    if (strcmp(s->id, id) == 0)
        return s;
    return NULL;
}

static void free_op(struct cm_sidecar_op *op)
{
    DL_DELETE(world.ops, op);
    free(op);
}

static void op_ends(void *arg)
{
    struct cm_sidecar_op op = *(struct cm_sidecar_op *)arg;

    free_op(arg);
    if (op.kind == OP_CREATE)
        op.created(op.arg, op.err.code ? NULL : op.id, op.err.code ? &op.err : NULL);
    else
        op.put(op.arg, op.err.code ? &op.err : NULL);
}

static struct cm_sidecar_op *new_op(int kind, void *arg, int fails, bool never, struct cm_sidecar_op **ret)
{
    struct cm_sidecar_op *op = calloc(1, sizeof *op);

    op->kind = kind;
    op->arg = arg;
    if (fails)
        cm_err_set(&op->err, fails, "the fake fails here");
    DL_APPEND(world.ops, op);
    if (!never)
        cm_task_post(world.loop, &op->task, op_ends, op);
    *ret = op;
    return op;
}

int cm_sidecar_create(struct cm_sidecar *sc, uint64_t memory, double deadline_s, const char *correlation,
                      void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                      struct cm_sidecar_op **ret, struct cm_err *err)
{
    struct session *s = calloc(1, sizeof *s);

    (void)sc;
    (void)memory;
    (void)deadline_s;
    (void)correlation;
    (void)err;
    struct cm_sidecar_op *op = new_op(OP_CREATE, arg, world.create_fails, world.create_never, ret);
    op->created = done;
    if (world.create_fails || world.create_never) {
        free(s);
        return 0;
    }
    snprintf(s->id, sizeof s->id, "session-%u", ++world.created);
    snprintf(op->id, sizeof op->id, "%s", s->id);
    cm_buf_init(&s->puts, 64 << 20);
    DL_APPEND(world.sessions, s);
    return 0;
}

void cm_sidecar_delete(struct cm_sidecar *sc, const char *id)
{
    struct session *s = session_of(id);

    (void)sc;
    assert_non_null(s);
    world.deleted++;
    struct cm_sidecar_exec *x;
    DL_FOREACH(world.execs, x)
    assert_ptr_not_equal(x->session, s);
    DL_DELETE(world.sessions, s);
    cm_buf_done(&s->puts);
    free(s);
}

void cm_sidecar_cancel(struct cm_sidecar_op *op)
{
    struct session *s = op->kind == OP_CREATE ? session_of(op->id) : NULL;

    cm_task_cancel(world.loop, &op->task);
    if (s)
        cm_sidecar_delete(NULL, s->id);
    free_op(op);
}

int cm_sidecar_put(struct cm_sidecar *sc, const char *session, const struct cm_variable *v,
                   void (*done)(void *arg, const struct cm_err *err), void *arg, struct cm_sidecar_op **ret,
                   struct cm_err *err)
{
    struct session *s = session_of(session);
    char *text = calloc(1, v->len + 1);

    (void)sc;
    (void)err;
    assert_non_null(s);
    if (v->data)
        memcpy(text, v->data, v->len);
    else
        assert_int_equal(pread(v->fd, text, v->len, (off_t)v->offset), v->len);
    cm_buf_printf(&s->puts, "%s%s=%s;", v->kind == CM_VARIABLE_JSON ? "json " : "", v->name, text);
    if (strncmp(v->name, "context_", 8) == 0)
        snprintf(s->newest, sizeof s->newest, "%s", text);
    free(text);
    new_op(OP_PUT, arg, world.put_fails, world.put_never, ret)->put = done;
    return 0;
}

static void free_exec(struct cm_sidecar_exec *x)
{
    DL_DELETE(world.execs, x);
    cm_task_cancel(world.loop, &x->task);
    cm_buf_done(&x->out);
    cm_buf_done(&x->err_out);
    free(x->code);
    free(x->then);
    free(x);
}

static void exec_fails(struct cm_sidecar_exec *x, int code)
{
    struct cm_err err;
    const struct cm_sidecar_ops *ops = x->ops;
    void *arg = x->arg;

    cm_err_set(&err, code, "the fake breaks off");
    free_exec(x);
    ops->done(arg, NULL, &err);
}

static void run_code(struct cm_sidecar_exec *x, char *code);

static void exec_ends(struct cm_sidecar_exec *x, const char *value, const char *error, const char *state)
{
    const struct cm_sidecar_ops *ops = x->ops;
    void *arg = x->arg;
    struct cm_buf out = x->out, err_out = x->err_out;

    cm_buf_init(&x->out, 64 << 20);
    cm_buf_init(&x->err_out, 1 << 20);
    char *then = x->then;
    x->then = NULL;
    if (!then)
        free_exec(x);
    if (error)
        cm_buf_printf(&err_out, "Traceback\n%s\n", error);
    struct cm_sidecar_result r = {
        .success = !error,
        .state = state,
        .out = cm_buf_data(&out),
        .out_len = out.len,
        .err = cm_buf_data(&err_out),
        .err_len = err_out.len,
        .result = value,
        .result_len = strlen(value),
        .error = error ? error : "",
        .error_len = error ? strlen(error) : 0,
        .error_type = "",
        .traceback = "",
        .seconds = 0.001,
    };
    unsigned abandoned = world.abandoned;
    if (!then)
        ops->done(arg, &r, NULL);
    else
        ops->result(arg, &r);
    if (then && world.abandoned == abandoned)
        run_code(x, then);
    else
        free(then);
    cm_buf_done(&out);
    cm_buf_done(&err_out);
}

static void run_line(void *arg);

static void go_on(struct cm_sidecar_exec *x)
{
    cm_task_post(world.loop, &x->task, run_line, x);
}

static void call(struct cm_sidecar_exec *x, const char *name, const struct cm_buf *arguments)
{
    char *exact = malloc(arguments->len + 1); /* so that a write beyond its end is seen */

    memcpy(exact, cm_buf_data((struct cm_buf *)arguments), arguments->len + 1);
    x->call = ++x->calls;
    x->ops->call(x->arg, x->call, name, exact, arguments->len);
    free(exact);
}

static void call_prompts(struct cm_sidecar_exec *x, const char *name, const char *prompts, bool list)
{
    char copy[TEXT_MAX], *model, *save = NULL;
    struct cm_buf b;

    cm_buf_init(&b, 1 << 20);
    snprintf(copy, sizeof copy, "%s", prompts);
    if ((model = strchr(copy, '@')))
        *model++ = '\0';
    cm_buf_puts(&b, list ? "{\"prompts\":[" : "{\"prompt\":");
    bool first = true;
    for (char *p = list ? strtok_r(copy, "|", &save) : copy; p; p = list ? strtok_r(NULL, "|", &save) : NULL) {
        cm_buf_puts(&b, first ? "" : ",");
        cm_json_put_string(&b, p, strlen(p));
        first = false;
    }
    cm_buf_puts(&b, list ? "],\"model\":" : ",\"model\":");
    cm_json_put_string(&b, model, model ? strlen(model) : 0);
    cm_buf_puts(&b, "}");
    call(x, name, &b);
    cm_buf_done(&b);
}

static void call_flood(struct cm_sidecar_exec *x, const char *name, int count)
{
    struct cm_buf b;

    cm_buf_init(&b, 1 << 20);
    cm_buf_puts(&b, "{\"prompts\":[");
    for (int i = 0; i < count; i++)
        cm_buf_puts(&b, i ? ",\"x\"" : "\"x\"");
    cm_buf_puts(&b, "]}");
    call(x, name, &b);
    cm_buf_done(&b);
}

/* As the session's module does it: {"key"} in place of a long one. */
static void report(struct cm_sidecar_exec *x)
{
    struct session *s = x->session;
    struct cm_buf b, part;

    cm_buf_init(&b, 1 << 20);
    cm_buf_init(&part, 1 << 20);
    if (x->calls > 0) {
        exec_ends(x, "{\"key\": \"r\"}", NULL, "kept");
        return;
    }
    cm_buf_puts(&b, "{\"final\":");
    cm_json_put_string(&b, s->has_final ? s->final : NULL, strlen(s->final));
    cm_buf_printf(&b, ",\"variables\":{%s}}", s->variables);
    s->has_final = false;
    if (world.long_reports) {
        cm_buf_puts(&part, "{\"key\":\"r\",\"text\":");
        cm_json_put_string(&part, cm_buf_data(&b), b.len);
        cm_buf_puts(&part, "}");
        call(x, "rlm.part", &part);
    } else {
        exec_ends(x, cm_buf_data(&b), NULL, "kept");
    }
    cm_buf_done(&part);
    cm_buf_done(&b);
}

/* The engine's own code. True when it was that. */
static bool run_ours(struct cm_sidecar_exec *x)
{
    char *lookup = strstr(x->code, "FINAL_VAR("), value[64], name[128] = "";

    if (strstr(x->code, ".install(")) {
        snprintf(value, sizeof value, "('str', %zu)", strlen(x->session->newest));
        exec_ends(x, value, world.setup_fails ? "NameError: x" : NULL, "kept");
    } else if (lookup && x->calls == 0 && !world.report) {
        sscanf(lookup, "FINAL_VAR(\"%127[^\"]", name);
        if (strcmp(name, "known") == 0) {
            strcpy(x->session->final, "value of known");
            x->session->has_final = true;
        } else {
            cm_buf_printf(&x->out, "Error: FINAL_VAR: there is no variable '%s'.\n", name);
        }
        report(x);
    } else if (world.report_fails && x->calls == 0) {
        exec_ends(x, "", "ToolError: broken", "kept");
    } else if (world.report && strstr(x->code, ".report()")) {
        exec_ends(x, world.report, NULL, "kept");
    } else if (strstr(x->code, ".report()")) {
        report(x);
    } else {
        exec_ends(x, "", NULL, "kept");
    }
    return true;
}

static bool ends_here(struct cm_sidecar_exec *x, const char *line)
{
    if (strcmp(line, "die") == 0)
        exec_fails(x, CM_ERR_SIDECAR);
    else if (strcmp(line, "gone") == 0)
        exec_fails(x, CM_ERR_NO_SESSION);
    else if (strcmp(line, "refuse") == 0)
        exec_fails(x, CM_ERR_TOO_LARGE);
    else if (strcmp(line, "lost") == 0)
        exec_ends(x, "", "the process has ended", "lost");
    else if (strcmp(line, "rollback") == 0)
        exec_ends(x, "", "MemoryError: too much", "rolled_back");
    else if (strncmp(line, "error ", 6) == 0)
        exec_ends(x, "", line + 6, "kept");
    else if (strncmp(line, "value ", 6) == 0)
        exec_ends(x, line + 6, NULL, "kept");
    else
        return false;
    return true;
}

static bool calls_here(struct cm_sidecar_exec *x, const char *line)
{
    char key[64], text[TEXT_MAX];
    struct cm_buf b;

    if (strncmp(line, "flood ", 6) == 0)
        call_flood(x, "rlm.llm_query_batched", atoi(line + 6));
    else if (strncmp(line, "floodr ", 7) == 0)
        call_flood(x, "rlm.rlm_query_batched", atoi(line + 7));
    else if (strncmp(line, "llm ", 4) == 0)
        call_prompts(x, "rlm.llm_query", line + 4, false);
    else if (strncmp(line, "llms ", 5) == 0)
        call_prompts(x, "rlm.llm_query_batched", line + 5, true);
    else if (strncmp(line, "rlm ", 4) == 0)
        call_prompts(x, "rlm.rlm_query", line + 4, false);
    else if (strncmp(line, "rlms ", 5) == 0)
        call_prompts(x, "rlm.rlm_query_batched", line + 5, true);
    else {
        cm_buf_init(&b, 1 << 20);
        const char *name = "rlm.part";
        if (sscanf(line, "part %63s %4095[^\n]", key, text) == 2) {
            cm_buf_printf(&b, "{\"key\":\"%s\",\"text\":\"%s\"}", key, text);
        } else if (sscanf(line, "keyed %63s", key) == 1) {
            cm_buf_printf(&b, "{\"prompt\":{\"key\":\"%s\"},\"model\":null}", key);
            name = "rlm.rlm_query";
        } else if (sscanf(line, "call %63s %4095[^\n]", key, text) == 2) {
            cm_buf_puts(&b, text);
            name = key;
        }
        if (b.len > 0)
            call(x, name, &b);
        bool called = b.len > 0;
        cm_buf_done(&b);
        return called;
    }
    return true;
}

static void run_line(void *arg)
{
    struct cm_sidecar_exec *x = arg;
    char line[TEXT_MAX] = "", name[128];

    if (x->ours) {
        run_ours(x);
        return;
    }
    if (x->interrupted && x->hangs) {
        exec_ends(x, "", "KeyboardInterrupt", "kept");
        return;
    }
    if (!*x->at) {
        exec_ends(x, "", NULL, "kept");
        return;
    }
    size_t len = strcspn(x->at, "\n");
    snprintf(line, sizeof line, "%.*s", (int)len, x->at);
    x->at += len + (x->at[len] == '\n');
    if (ends_here(x, line) || calls_here(x, line))
        return;
    if (strncmp(line, "print ", 6) == 0) {
        cm_buf_printf(&x->out, "%s\n", line + 6);
        x->ops->output(x->arg, 1, line + 6, strlen(line + 6));
        x->ops->output(x->arg, 1, "\n", 1);
    } else if (strncmp(line, "final ", 6) == 0) {
        snprintf(x->session->final, sizeof x->session->final, "%s", line + 6);
        x->session->has_final = true;
    } else if (sscanf(line, "variable %127s", name) == 1) {
        size_t at = strlen(x->session->variables);
        snprintf(x->session->variables + at, TEXT_MAX - at, "%s\"%s\":\"int\"", at ? "," : "", name);
    } else if (strcmp(line, "hang") == 0 || strcmp(line, "stuck") == 0) {
        x->hangs = true;
        x->stuck = line[0] == 's';
        return;
    } else {
        fail_msg("the fake sidecar does not know: %s", line);
    }
    go_on(x);
}

static bool is_ours(const char *code)
{
    return strstr(code, "rlm_session") != NULL;
}

static void run_code(struct cm_sidecar_exec *x, char *code)
{
    free(x->code);
    x->code = x->at = code;
    x->ours = is_ours(code);
    x->call = x->calls = 0;
    x->interrupted = x->hangs = x->stuck = false;
    world.executed++;
    cm_buf_printf(&world.codes, "CODE %s\n", code);
    bool setup = strstr(code, ".install(") != NULL, reports = strstr(code, ".report()") != NULL;
    if (!(setup && world.setup_never) && !(reports && world.report_never))
        go_on(x);
}

int cm_sidecar_execute(struct cm_sidecar *sc, const char *session, const struct cm_sidecar_code *code,
                       const struct cm_sidecar_ops *ops, void *arg, struct cm_sidecar_exec **ret, struct cm_err *err)
{
    struct cm_sidecar_exec *x = calloc(1, sizeof *x);

    (void)sc;
    (void)err;
    x->ops = ops;
    x->arg = arg;
    x->session = session_of(session);
    assert_non_null(x->session);
    x->then = code->then ? strdup(code->then) : NULL;
    cm_buf_init(&x->out, 64 << 20);
    cm_buf_init(&x->err_out, 1 << 20);
    DL_APPEND(world.execs, x);
    *ret = x;
    run_code(x, strndup(code->code, code->len));
    return 0;
}

static void answered(struct cm_sidecar_exec *x, unsigned number, const char *prefix, const char *text, size_t len)
{
    if (x->call != number || number == 0)
        return;
    x->call = 0;
    if (!x->ours && strcmp(text, "null") != 0)
        cm_buf_printf(&x->out, "%s%.*s\n", prefix, (int)len, text);
    go_on(x);
}

void cm_sidecar_answer(struct cm_sidecar_exec *x, unsigned number, const char *json, size_t len)
{
    struct cm_json_value v;

    assert_int_equal(cm_json_check(json, len, &v, NULL), 0);
    answered(x, number, "", json, len);
}

void cm_sidecar_fail(struct cm_sidecar_exec *x, unsigned number, const char *text, size_t len)
{
    assert_true(len > 0);
    answered(x, number, "ToolError: ", text, len);
}

void cm_sidecar_interrupt(struct cm_sidecar_exec *x)
{
    world.interrupts++;
    x->interrupted = true;
    if (x->hangs && !x->stuck)
        go_on(x);
}

void cm_sidecar_abandon(struct cm_sidecar_exec *x)
{
    if (!x)
        return;
    world.abandoned++;
    free_exec(x);
}

#endif
