/* SPDX-License-Identifier: Apache-2.0 */
/* The executor between a made-up session room and a made-up tool service. */
#ifndef CM_TESTS_EXECUTOR_WORLD_H
#define CM_TESTS_EXECUTOR_WORLD_H

#include "service_world.h"

#include "access/access.h"
#include "conf/conf.h"
#include "executor/error_type.h"
#include "executor/executor.h"
#include "executor/record.h"

/* Sessions */

struct cm_exec {
    struct cm_exec_ops ops;
    void *arg;
    char id[32], session[50], code[100], context[100], config[100], tools[400], correlation[50];
    bool abandoned;
};

struct cm_call {
    void *user;
    char heard[2000]; /* "json" or "!kind text" */
    bool over;
};

static struct cm_exec *execs[100];
static unsigned executed;
static int refuse_with; /* cm_sessions_execute() fails */

static inline void copy_text(char *to, size_t size, const char *text, size_t len)
{
    snprintf(to, size, "%.*s", (int)len, text ? text : "-");
    if (!text)
        snprintf(to, size, "-");
}

int cm_sessions_execute(struct cm_sessions *m, const char *id, const struct cm_exec_request *req,
                        const struct cm_exec_ops *ops, void *arg, struct cm_exec **ret_exec, struct cm_err *err)
{
    (void)m;
    if (refuse_with)
        return cm_err_set(err, refuse_with, "refused");
    struct cm_exec *e = calloc(1, sizeof *e);
    e->ops = *ops;
    e->arg = arg;
    sprintf(e->id, "exec-%u", executed);
    snprintf(e->session, sizeof e->session, "%s", id ? id : "-");
    copy_text(e->code, sizeof e->code, req->code, req->code_len);
    copy_text(e->context, sizeof e->context, req->context, req->context_len);
    copy_text(e->config, sizeof e->config, req->config, req->config_len);
    copy_text(e->tools, sizeof e->tools, req->tools, req->tools_len);
    snprintf(e->correlation, sizeof e->correlation, "%s", req->correlation_id);
    *ret_exec = execs[executed++] = e;
    return 0;
}

void cm_exec_abandon(struct cm_exec *e)
{
    assert_false(e->abandoned);
    e->abandoned = true;
}

const char *cm_exec_id(const struct cm_exec *e)
{
    return e->id;
}

void cm_call_answer(struct cm_call *c, const char *json, size_t len)
{
    assert_false(c->over);
    c->over = true;
    copy_text(c->heard, sizeof c->heard, json, len);
}

void cm_call_fail(struct cm_call *c, enum cm_call_failure why, const char *text, size_t len)
{
    assert_false(c->over);
    c->over = true;
    snprintf(c->heard, sizeof c->heard, "!%d %.*s", why, (int)len, text);
}

void cm_call_set_user(struct cm_call *c, void *user)
{
    c->user = user;
}

void *cm_call_user(const struct cm_call *c)
{
    return c->user;
}

/* The newest execution answers. */
static inline void finish(struct cm_exec *e, const char *result, const char *error)
{
    struct cm_exec_result res = {.success = !error,
                                 .result = result,
                                 .result_len = result ? strlen(result) : 0,
                                 .error = error,
                                 .error_len = error ? strlen(error) : 0,
                                 .locals = "{}",
                                 .locals_len = 2,
                                 .out = "printed",
                                 .out_len = 7,
                                 .out_bytes = 70,
                                 .cpu_ns = 5};

    e->ops.done(e->arg, &res, NULL);
}

static inline void fail_exec(struct cm_exec *e, int code)
{
    struct cm_err err;

    cm_err_set(&err, code, "it went wrong");
    e->ops.done(e->arg, NULL, &err);
}

/* The code calls a tool. */
static inline void call(struct cm_exec *e, struct cm_call *c, const char *name, const char *arguments,
                        const char *context, uint64_t number)
{
    const struct cm_call_request rq = {
        .name = name,
        .name_len = strlen(name),
        .arguments = arguments,
        .arguments_len = strlen(arguments),
        .context = context,
        .context_len = context ? strlen(context) : 0,
        .number = number,
        .deadline_ns = world_now + CM_NS_PER_S,
    };

    *c = (struct cm_call){0};
    e->ops.call(e->arg, c, &rq);
}

/* Clients */

struct client {
    struct cm_run *run;
    struct cm_exec_result res;
    unsigned times;
    char id[40], output[100];
    char heard[3000]; /* "result", "!type error" or "!!code" */
};

static inline void on_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
{
    struct client *c = arg;

    c->times++;
    snprintf(c->id, sizeof c->id, "%s", cm_run_id(c->run));
    if (!res)
        snprintf(c->heard, sizeof c->heard, "!!%d", err->code);
    else if (res->success)
        copy_text(c->heard, sizeof c->heard, res->result, res->result_len);
    else
        snprintf(c->heard, sizeof c->heard, "!%.*s %.*s", (int)res->error_type_len,
                 res->error_type ? res->error_type : "", (int)res->error_len, res->error);
    if (res)
        c->res = *res;
}

static inline void on_output(void *arg, int stream, const char *data, size_t len)
{
    struct client *c = arg;

    sprintf(c->output + strlen(c->output), "%d:%.*s;", stream, (int)len, data);
}

static struct cm_executor *executor;
static struct cm_conf conf;

static inline void open_executor(const char *target)
{
    struct cm_err err;

    snprintf(conf.main_app_target, sizeof conf.main_app_target, "%s", target);
    conf.kept_answers = 10;
    conf.kept_answer_bytes = 100000;
    assert_int_equal(cm_executor_open(NULL, &conf, NULL, NULL, NULL, &executor, &err), 0);
}

static inline int set_up(void **state)
{
    (void)state;
    open_executor("app:50051");
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    executor = cm_executor_free(executor);
    world_turn();
    while (executed > 0)
        free(execs[--executed]);
    refuse_with = 0;
    assert_null(world_timers);
    assert_int_equal(world_clients, 0);
    world_now += 10000 * CM_NS_PER_S;
    return 0;
}

static inline int ask_all(struct client *c, const struct cm_run_request *rq)
{
    static const struct cm_exec_ops ops = {.done = on_done, .output = on_output};
    struct cm_err err = {0};

    *c = (struct client){0};
    int rc = cm_executor_run(executor, rq, &ops, c, &c->run, &err);
    assert_int_equal(c->times, 0);
    assert_int_equal(rc, err.code);
    return rc;
}

static inline struct cm_run_request request(const char *code, const char *tools)
{
    return (struct cm_run_request){
        .exec = {.code = code, .code_len = strlen(code), .correlation_id = "cm-1", .mode = CM_EXEC_ONESHOT},
        .available_tools = tools,
        .available_tools_len = tools ? strlen(tools) : 0,
    };
}

static inline int ask(struct client *c, const char *code, const char *tools)
{
    struct cm_run_request rq = request(code, tools);

    return ask_all(c, &rq);
}

static inline struct cm_exec *newest(void)
{
    assert_true(executed > 0);
    return execs[executed - 1];
}

#define CITY "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":[\"city\"]}"
static const struct world_tool app[] = {
    {"weather", "The weather of a city", CITY, false, true},
    {"query", "Asks the database", NULL, true, false},
    {"agents.writer", "Writes", NULL, false, false},
};

/* An execution whose tools are known. */
static inline struct cm_exec *running(struct client *c, const char *tools, const char *context)
{
    struct cm_run_request rq = request("tools", tools);

    rq.exec.context = context;
    rq.exec.context_len = context ? strlen(context) : 0;
    ask_all(c, &rq);
    if (world_waiting())
        world_list(app, 3);
    world_turn();
    return newest();
}

#endif
