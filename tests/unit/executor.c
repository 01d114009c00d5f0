/* SPDX-License-Identifier: Apache-2.0 */
/* The executor between a made-up session room and a made-up tool service: which tools, which calls, and that nothing
 * runs twice. */
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

static void copy_text(char *to, size_t size, const char *text, size_t len)
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
static void finish(struct cm_exec *e, const char *result, const char *error)
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

static void fail_exec(struct cm_exec *e, int code)
{
    struct cm_err err;

    cm_err_set(&err, code, "it went wrong");
    e->ops.done(e->arg, NULL, &err);
}

/* The code calls a tool. */
static void call(struct cm_exec *e, struct cm_call *c, const char *name, const char *arguments, const char *context,
                 uint64_t number)
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
    unsigned times;
    char heard[3000]; /* "result", "!type error" or "!!code" */
    struct cm_exec_result res;
    char id[40];
    struct cm_run *run;
    char output[100];
};

static void on_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
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

static void on_output(void *arg, int stream, const char *data, size_t len)
{
    struct client *c = arg;

    sprintf(c->output + strlen(c->output), "%d:%.*s;", stream, (int)len, data);
}

static struct cm_executor *executor;
static struct cm_conf conf;

static void open_executor(const char *target)
{
    struct cm_err err;

    snprintf(conf.main_app_target, sizeof conf.main_app_target, "%s", target);
    conf.kept_answers = 10;
    conf.kept_answer_bytes = 100000;
    assert_int_equal(cm_executor_open(NULL, &conf, NULL, NULL, NULL, &executor, &err), 0);
}

static int set_up(void **state)
{
    (void)state;
    open_executor("app:50051");
    return 0;
}

static int tear_down(void **state)
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

static int ask_all(struct client *c, const struct cm_run_request *rq)
{
    static const struct cm_exec_ops ops = {.done = on_done, .output = on_output};
    struct cm_err err = {0};

    *c = (struct client){0};
    int rc = cm_executor_run(executor, rq, &ops, c, &c->run, &err);
    assert_int_equal(c->times, 0);
    assert_int_equal(rc, err.code);
    return rc;
}

static struct cm_run_request request(const char *code, const char *tools)
{
    return (struct cm_run_request){
        .exec = {.code = code, .code_len = strlen(code), .correlation_id = "cm-1", .mode = CM_EXEC_ONESHOT},
        .available_tools = tools,
        .available_tools_len = tools ? strlen(tools) : 0,
    };
}

static int ask(struct client *c, const char *code, const char *tools)
{
    struct cm_run_request rq = request(code, tools);

    return ask_all(c, &rq);
}

static struct cm_exec *newest(void)
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

/* Which tools */

static void runs_code_without_tools_at_once(void **state)
{
    struct client c;

    (void)state;
    assert_int_equal(ask(&c, "1 + 1", NULL), 0);
    assert_int_equal(executed, 1);
    assert_string_equal(newest()->tools, "[]");
    assert_int_equal(world_waiting(), 1); /* the list is asked for all the same */
    finish(newest(), "2", NULL);
    assert_string_equal(c.heard, "2");
    assert_string_equal(c.id, "exec-0");
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
    ask(&c, "import itertools", NULL); /* no word of ours */
    assert_int_equal(executed, 2);
    assert_int_equal(world_waiting(), 0);
    finish(newest(), NULL, "ValueError: x");
    assert_string_equal(c.heard, "! ValueError: x");
}

static void tells_code_of_the_tools(void **state)
{
    struct client c;

    (void)state;
    ask(&c, "tools['weather']", NULL);
    assert_int_equal(executed, 0);
    world_list(app, 3);
    world_turn();
    assert_int_equal(executed, 1);
    assert_string_equal(newest()->tools, "[[\"weather\",2],[\"query\",1],[\"agents.writer\",0]]");
    finish(newest(), "1", NULL);
    ask(&c, "x", "[]"); /* an empty list is all */
    assert_string_equal(newest()->tools, "[[\"weather\",2],[\"query\",1],[\"agents.writer\",0]]");
    finish(newest(), "1", NULL);
    ask(&c, "x", "[\"qu\\u0065ry\", \"__list__\"]");
    assert_string_equal(newest()->tools, "[[\"query\",1]]");
    finish(newest(), "1", NULL);
    ask(&c, "x", "[\"__list__\"]"); /* ours need no permission, and are none */
    assert_string_equal(newest()->tools, "[[\"weather\",2],[\"query\",1],[\"agents.writer\",0]]");
    finish(newest(), "1", NULL);
    assert_int_equal(world_waiting(), 0);
}

static void waits_a_little_for_what_may_be_used(void **state)
{
    struct client c;

    (void)state;
    ask(&c, "x = agents.writer", NULL);
    assert_int_equal(executed, 0);
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
    world_turn();
    assert_int_equal(executed, 1); /* it may have meant something else */
    assert_string_equal(newest()->tools, "[]");
    finish(newest(), "1", NULL);
    assert_string_equal(c.heard, "1");
}

static void refuses_to_run_without_the_named_tools(void **state)
{
    struct client c;

    (void)state;
    ask(&c, "1", "[\"weather\"]");
    for (int i = 0; i < 3; i++) {
        world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
        world_pass(1001);
    }
    assert_int_equal(executed, 0);
    assert_int_equal(
        strncmp(c.heard, "!RuntimeError RuntimeError: the tool service at app:50051 cannot be reached", 70), 0);
    assert_int_equal(strncmp(c.id, "exec-", 5), 0);
    world_pass(1001);
    ask(&c, "1", "[\"weathr\",\"query\"]");
    world_list(app, 3);
    world_turn();
    assert_string_equal(c.heard, "!RuntimeError RuntimeError: the tool service does not list 'weathr'; did you mean "
                                 "'weather'?");
    ask(&c, "1", "[\"nothing\",\"like that\"]"); /* the list is young: it is not asked for again */
    world_turn();
    assert_string_equal(c.heard, "!RuntimeError RuntimeError: the tool service does not list 'nothing', 'like that'; "
                                 "there are 'weather', 'query', 'agents.writer'");
    world_pass(1001);
    ask(&c, "1", "[\"late\"]");
    static const struct world_tool more[] = {{"late", "", NULL, false, false}};
    world_list(more, 1);
    world_turn();
    assert_int_equal(executed, 1);
    assert_string_equal(newest()->tools, "[[\"late\",0]]");
    finish(newest(), "1", NULL);
    cm_executor_free(executor);
    open_executor("none");
    assert_string_equal(cm_executor_target(executor), "");
    ask(&c, "1", "[\"weather\"]");
    world_turn();
    assert_non_null(strstr(c.heard, "no tool service is configured"));
    ask(&c, "tools", NULL);
    assert_string_equal(newest()->tools, "-");
    finish(newest(), "1", NULL);
}

static void checks_the_target(void **state)
{
    struct cm_executor *x = NULL;
    struct cm_err err;

    (void)state;
    snprintf(conf.main_app_target, sizeof conf.main_app_target, "localhost");
    assert_int_equal(cm_executor_open(NULL, &conf, NULL, NULL, NULL, &x, &err), CM_ERR_CONFIG);
    assert_non_null(strstr(err.text, "must be host:port"));
    assert_null(x);
}

/* Calls */

/* An execution whose tools are known. */
static struct cm_exec *running(struct client *c, const char *tools, const char *context)
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

static void passes_calls_on(void **state)
{
    struct client c;
    struct cm_call k[3];
    char asked[1000];

    (void)state;
    struct cm_exec *e = running(&c, NULL, "{\"user\":\"u1\",\"t\\u0065nant\":7,\"x\":[1]}");
    call(e, &k[0], "weather", "{\"city\":\"Rome\"}", NULL, 1);
    assert_string_equal(world_asked(asked, sizeof asked),
                        "weather {\"city\":\"Rome\"} {\"user\":\"u1\",\"tenant\":7,\"x\":[1]} cm-1");
    assert_non_null(strstr(world_call("CallTool")->metadata, "x-codemode-call=cm-1:1;"));
    assert_int_equal(world_call("CallTool")->deadline_ns, world_now + CM_NS_PER_S);
    world_result(true, "", "{\"temp\":72}");
    assert_string_equal(k[0].heard, "{\"temp\":72}");
    call(e, &k[0], "query", "{}", "{\"tenant\":8,\"y\":null}", 2);
    assert_string_equal(world_asked(asked, sizeof asked),
                        "query {} {\"user\":\"u1\",\"x\":[1],\"tenant\":8,\"y\":null} cm-1");
    call(e, &k[1], "agents.writer", "{\"task\":\"t\"}", NULL, 3);
    world_result(false, "no such table", NULL);
    assert_string_equal(k[0].heard, "!0 no such table");
    world_fail("CallTool", CM_GRPC_DEADLINE_EXCEEDED, "");
    assert_int_equal(strncmp(k[1].heard, "!4 ", 3), 0);
    finish(e, "1", NULL);
    e = running(&c, NULL, NULL);
    call(e, &k[0], "weather", "{\"city\":\"Rome\"}", NULL, 1);
    assert_string_equal(world_asked(asked, sizeof asked), "weather {\"city\":\"Rome\"} - cm-1");
    call(e, &k[1], "weather", "{\"city\":\"Bonn\"}", "{}", 2);
    e->ops.call_gone(e->arg, &k[0]);
    assert_string_equal(world_asked(asked, sizeof asked), "weather {\"city\":\"Bonn\"} {} cm-1");
    e->ops.call_gone(e->arg, &k[1]);
    assert_int_equal(world_waiting(), 0); /* both were cancelled */
    finish(e, "1", NULL);
}

static void refuses_calls_before_they_are_sent(void **state)
{
    static char big[(1 << 20) + 100];
    struct client c;
    struct cm_call k;

    (void)state;
    struct cm_exec *e = running(&c, "[\"weather\"]", NULL);
    call(e, &k, "weather", "{\"citty\":\"Rome\",\"city\":1}", NULL, 1);
    assert_string_equal(k.heard, "!2 argument 'city': is 1, wanted a string");
    call(e, &k, "weather", "{\"citi\":\"Rome\"}", NULL, 2);
    assert_string_equal(k.heard, "!2 unknown argument 'citi'; did you mean 'city'?\n"
                                 "argument 'city' is missing, wanted a string");
    call(e, &k, "query", "{}", NULL, 3);
    assert_string_equal(k.heard, "!1 it is not one of the execution's available_tools; there are 'weather'");
    call(e, &k, "wether", "{}", NULL, 4);
    assert_string_equal(k.heard, "!1 there is no such tool; did you mean 'weather'?");
    call(e, &k, "__nothing__", "{}", NULL, 5);
    assert_string_equal(k.heard, "!1 there are '__list__', '__schema__' and '__search__'");
    world_refuses = true;
    call(e, &k, "weather", "{\"city\":\"Rome\"}", NULL, 6);
    assert_string_equal(k.heard, "!3 too many calls");
    world_refuses = false;
    call(e, &k, "weather", "{\"city\":\"Rome\",\"n\":1e999}", NULL, 7);
    assert_int_equal(strncmp(k.heard, "!2 arguments: ", 14), 0);
    finish(e, "1", NULL);
    memset(big, 'x', sizeof big);
    memcpy(big, "{\"a\":\"", 6);
    strcpy(big + sizeof big - 3, "\"}");
    e = running(&c, NULL, big); /* too large a context: only who wants one misses it */
    call(e, &k, "weather", "{\"city\":\"Rome\"}", NULL, 1);
    assert_int_equal(strncmp(k.heard, "!3 the execution's context has", 30), 0);
    call(e, &k, "query", "{}", NULL, 2);
    world_result(true, "", "{}");
    assert_string_equal(k.heard, "{}");
    finish(e, "1", NULL);
}

/* What reading one context for each member of the other would cost, a client and its code choose together. */
static void large_contexts_are_not_put_together(void **state)
{
    static char general[200000], own[300000];
    char *at = general;
    struct client c;
    struct cm_call k;

    (void)state;
    for (int i = 0; i < 100; i++)
        at += sprintf(at, "%c\"m%d\":1", i ? ',' : '{', i);
    strcpy(at, "}");
    memset(own, 'x', sizeof own);
    memcpy(own, "{\"a\":\"", 6);
    strcpy(own + sizeof own - 3, "\"}");
    struct cm_exec *e = running(&c, NULL, general);
    call(e, &k, "query", "{}", own, 1);
    assert_int_equal(strncmp(k.heard, "!3 the contexts of the call", 27), 0);
    call(e, &k, "query", "{}", "{\"a\":1}", 2);
    world_result(true, "", "{}");
    assert_string_equal(k.heard, "{}");
    finish(e, "1", NULL);
}

static void answers_questions_about_tools(void **state)
{
    struct client c;
    struct cm_call k;

    (void)state;
    struct cm_exec *e = running(&c, "[\"weather\",\"query\"]", NULL);
    call(e, &k, "__list__", "{}", NULL, 1);
    assert_string_equal(
        k.heard, "{\"tools\":[{\"name\":\"weather\",\"description\":\"The weather of a city\",\"is_async\":false,"
                 "\"has_context\":true,\"has_input_schema\":true,\"has_output_schema\":false},"
                 "{\"name\":\"query\",\"description\":\"Asks the database\",\"is_async\":true,\"has_context\":false,"
                 "\"has_input_schema\":false,\"has_output_schema\":false}],\"count\":2}");
    call(e, &k, "__schema__", "{\"name\":\"weather\"}", NULL, 2);
    assert_string_equal(k.heard, "{\"tool_name\":\"weather\",\"input_schema\":" CITY ",\"output_schema\":null,"
                                 "\"description\":\"The weather of a city\",\"is_async\":false,\"has_context\":true}");
    call(e, &k, "__schema__", "{\"tool_name\":\"agents.writer\"}", NULL, 3);
    assert_string_equal(k.heard, "!1 there is no tool 'agents.writer'; there are 'weather', 'query'");
    call(e, &k, "__schema__", "{}", NULL, 4);
    assert_string_equal(k.heard, "!1 name= must name a tool; there are 'weather', 'query'");
    call(e, &k, "__search__", "{\"query\":\"DATABASE\",\"limit\":5}", NULL, 5);
    assert_non_null(strstr(k.heard,
                           "{\"tools\":[{\"name\":\"query\",\"description\":\"Asks the database\",\"is_async\":true,"
                           "\"score\":"));
    assert_non_null(strstr(k.heard, "\"input_schema\":null}],\"count\":1}"));
    call(e, &k, "__search__", "{\"query\":\"writer\"}", NULL, 6);
    assert_string_equal(k.heard, "{\"tools\":[],\"count\":0}");
    call(e, &k, "__search__", "{}", NULL, 7);
    assert_non_null(strstr(k.heard, "\"count\":2}"));
    call(e, &k, "__search__", "{\"limit\":0}", NULL, 8);
    assert_string_equal(k.heard, "{\"tools\":[],\"count\":0}");
    finish(e, "1", NULL);
}

static void asks_for_a_schema_that_the_list_lacks(void **state)
{
    /* tool_name "query", input_schema {"required":["sql"]} */
    static const char told[] = "\x0a\x05query\x12\x16\x0a\x14{\"required\":[\"sql\"]}";
    struct client c;
    struct cm_call k;

    (void)state;
    struct cm_exec *e = running(&c, NULL, NULL);
    call(e, &k, "__schema__", "{\"name\":\"query\"}", NULL, 1);
    world_fail("GetToolSchema", CM_GRPC_NOT_FOUND, "none");
    assert_non_null(strstr(k.heard, "\"input_schema\":null"));
    call(e, &k, "__schema__", "{\"name\":\"query\"}", NULL, 2);
    world_answer(world_call("GetToolSchema"), CM_GRPC_OK, "", told, sizeof told - 1);
    assert_non_null(strstr(k.heard, "\"input_schema\":{\"required\":[\"sql\"]}"));
    call(e, &k, "__schema__", "{\"name\":\"query\"}", NULL, 3); /* once is enough */
    assert_non_null(strstr(k.heard, "\"input_schema\":{\"required\":[\"sql\"]}"));
    call(e, &k, "query", "{}", NULL, 4); /* and it counts */
    assert_int_equal(strncmp(k.heard, "!2 argument 'sql' is missing", 28), 0);
    call(e, &k, "__schema__", "{\"name\":\"agents.writer\"}", NULL, 5);
    world_answer(world_call("GetToolSchema"), CM_GRPC_OK, "", told, sizeof told - 1); /* of somebody else */
    assert_non_null(strstr(k.heard, "\"input_schema\":null"));
    call(e, &k, "__schema__", "{\"name\":\"agents.writer\"}", NULL, 6);
    e->ops.call_gone(e->arg, &k);
    assert_int_equal(world_waiting(), 0);
    finish(e, "1", NULL);
}

static void looks_again_for_tools_when_they_are_called(void **state)
{
    struct client c;
    struct cm_call k, gone;

    (void)state;
    ask(&c, "f()", NULL);
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
    struct cm_exec *e = newest();
    world_pass(1100);
    call(e, &k, "weather", "{\"city\":\"Rome\"}", NULL, 1);
    call(e, &gone, "query", "{}", NULL, 2);
    e->ops.call_gone(e->arg, &gone);
    world_list(app, 3);
    world_turn();
    world_result(true, "", "{}");
    assert_string_equal(k.heard, "{}");
    finish(e, "1", NULL);
    cm_executor_free(executor);
    open_executor("app:1");
    ask(&c, "f()", NULL);
    e = newest();
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
    world_pass(1100);
    call(e, &k, "__list__", "{}", NULL, 1);
    for (int i = 0; i < 3; i++) {
        world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
        world_pass(1001);
    }
    assert_int_equal(strncmp(k.heard, "!5 the tool service at app:1 cannot be reached", 46), 0);
    finish(e, "1", NULL);
}

/* Requests that come again */

static struct cm_run_request known(const char *code, const char *id)
{
    struct cm_run_request rq = request(code, NULL);

    rq.exec.correlation_id = id;
    rq.correlation_is_clients = true;
    return rq;
}

static void answers_a_repeated_request_from_the_record(void **state)
{
    struct client first, second, third;
    struct cm_run_request rq = known("n += 1", "id-1"), other;
    const struct cm_key alice = {.name = "alice"}, again = {.name = "alice", .max_sessions = 5}, bob = {.name = "bob"};

    (void)state;
    rq.key = &alice;
    ask_all(&first, &rq);
    rq.key = &again; /* her keys were read again */
    ask_all(&second, &rq); /* while it runs */
    assert_int_equal(executed, 1);
    assert_false(cm_run_repeated(first.run));
    assert_true(cm_run_repeated(second.run));
    newest()->ops.output(newest()->arg, 1, "hi", 2);
    assert_string_equal(first.output, "1:hi;");
    assert_string_equal(second.output, "1:hi;");
    finish(newest(), "41", NULL);
    assert_string_equal(first.heard, "41");
    assert_string_equal(second.heard, "41");
    assert_string_equal(second.id, "exec-0");
    world_pass(599000);
    ask_all(&third, &rq);
    assert_true(cm_run_repeated(third.run));
    world_turn();
    assert_int_equal(executed, 1);
    assert_string_equal(third.heard, "41");
    assert_string_equal(third.id, "exec-0");
    assert_int_equal(third.res.out_bytes, 70);
    assert_int_equal(third.res.cpu_ns, 5);
    assert_true(third.res.success);
    /* everything that makes it another request */
    other = known("n += 2", "id-1");
    other.key = &alice;
    ask_all(&third, &other);
    other = known("n += 1", "id-2");
    other.key = &alice;
    ask_all(&third, &other);
    other = rq;
    other.session = "session-1";
    ask_all(&third, &other);
    other = rq;
    other.exec.context = "{}";
    other.exec.context_len = 2;
    ask_all(&third, &other);
    other = rq;
    other.exec.config = "{}";
    other.exec.config_len = 2;
    ask_all(&third, &other);
    other = rq;
    other.key = &bob;
    ask_all(&third, &other);
    other = rq;
    other.idempotency_key = "id-1";
    ask_all(&third, &other);
    other = rq;
    other.correlation_is_clients = false; /* we made it up */
    ask_all(&third, &other);
    assert_int_equal(executed, 9);
    for (unsigned i = 1; i < executed; i++)
        finish(execs[i], "0", NULL);
    world_pass(2000);
    ask_all(&third, &rq); /* ten minutes are over */
    assert_int_equal(executed, 10);
    finish(newest(), "42", NULL);
}

/* What the application may know a call by; for free(). */
static char *call_id(const struct cm_run_request *rq)
{
    struct client c;
    struct cm_call k;

    ask_all(&c, rq);
    if (world_waiting())
        world_list(app, 3);
    world_turn();
    call(newest(), &k, "query", "{}", NULL, 3);
    world_turn();
    const char *at = strstr(world_call("CallTool")->metadata, "x-codemode-call=");
    assert_non_null(at);
    char *id = strndup(at + 16, strcspn(at + 16, ";"));
    world_result(true, "", "{}");
    finish(newest(), "1", NULL);
    return id;
}

static void names_calls_alike_wherever_they_run(void **state)
{
    struct cm_run_request rq = known("tools", "id-1"), other = known("tools ", "id-1");
    char *first = call_id(&rq), *second, *third;

    (void)state;
    cm_executor_free(executor);
    open_executor("app:1");
    second = call_id(&rq);
    third = call_id(&other);
    assert_string_equal(first, second);
    assert_string_not_equal(first, third); /* a correlation id alone does not make it the same */
    assert_int_equal(strncmp(first, "id-1.", 5), 0);
    assert_string_equal(strchr(first, ':'), ":3");
    free(first);
    free(second);
    free(third);
    rq.idempotency_key = "key-1";
    first = call_id(&rq);
    assert_int_equal(strncmp(first, "key-1.", 6), 0);
    free(first);
    rq = request("tools", NULL);
    first = call_id(&rq);
    assert_string_equal(first, "cm-1:3"); /* our own id is of one execution only */
    free(first);
}

/* Their clients may have left, so nothing else counts them. */
static void few_requests_wait_for_a_list(void **state)
{
    static char code[20000000];
    struct client c[4], later;
    struct cm_err err;

    (void)state;
    memset(code, '#', sizeof code - 1);
    for (int i = 0; i < 3; i++) {
        char id[8];
        sprintf(id, "id-%d", i);
        struct cm_run_request rq = known(code, id);
        rq.available_tools = "[\"weather\"]";
        rq.available_tools_len = 11;
        assert_int_equal(ask_all(&c[i], &rq), 0);
        cm_run_abandon(c[i].run, true);
    }
    struct cm_run_request rq = request(code, "[\"weather\"]");
    static const struct cm_exec_ops ops = {.done = on_done};
    assert_int_equal(cm_executor_run(executor, &rq, &ops, &c[3], &c[3].run, &err), CM_ERR_OVERLOADED);
    assert_int_equal(ask(&later, "1", "[\"weather\"]"), 0);
    world_list(app, 3);
    world_turn();
    assert_int_equal(executed, 4);
    while (executed > 0) {
        finish(newest(), "1", NULL);
        free(execs[--executed]);
    }
    ask(&later, code, NULL); /* there is room again */
    finish(newest(), "2", NULL);
    assert_string_equal(later.heard, "2");
}

static void goes_on_for_a_client_that_is_lost(void **state)
{
    struct client first, second;
    struct cm_run_request rq = known("n += 1", "id-1");
    struct cm_call k;

    (void)state;
    ask_all(&first, &rq);
    world_list(app, 3);
    cm_run_abandon(first.run, true);
    assert_false(newest()->abandoned);
    call(newest(), &k, "query", "{}", NULL, 1);
    world_turn(); /* its list has come after its start */
    world_result(true, "", "{}");
    ask_all(&second, &rq);
    cm_run_abandon(second.run, true);
    finish(newest(), "41", NULL);
    ask_all(&second, &rq);
    world_turn();
    assert_string_equal(second.heard, "41");
    assert_int_equal(first.times, 0);
    ask_all(&second, &rq); /* lost while its answer is on the way */
    cm_run_abandon(second.run, true);
    world_turn();
    assert_int_equal(second.times, 0);
    /* without an id nobody could ask again */
    ask(&first, "1", NULL);
    cm_run_abandon(first.run, true);
    assert_true(newest()->abandoned);
}

static void ends_what_its_client_does_not_want(void **state)
{
    struct client first, second;
    struct cm_run_request rq = known("n += 1", "id-1");
    struct cm_call k;

    (void)state;
    ask_all(&first, &rq);
    world_list(app, 3);
    ask_all(&second, &rq);
    call(newest(), &k, "query", "{}", NULL, 1);
    world_turn();
    assert_int_equal(world_waiting(), 1);
    cm_run_abandon(first.run, false);
    assert_false(newest()->abandoned); /* the other one still does */
    cm_run_abandon(second.run, false);
    assert_true(newest()->abandoned);
    assert_true(k.over);
    assert_int_equal(world_waiting(), 0);
    ask_all(&first, &rq); /* it may have had effects */
    world_turn();
    assert_int_equal(executed, 1);
    assert_true(atoi(first.heard + 2) == CM_ERR_CANCELLED);
    rq = request("tools", NULL);
    ask_all(&first, &rq);
    finish(newest(), "1", NULL);
}

static void does_not_remember_what_did_not_run(void **state)
{
    struct client c;
    struct cm_run_request rq = known("n += 1", "id-1");
    struct cm_call k;

    (void)state;
    refuse_with = CM_ERR_QUEUE_FULL;
    assert_int_equal(ask_all(&c, &rq), CM_ERR_QUEUE_FULL);
    refuse_with = 0;
    ask_all(&c, &rq);
    fail_exec(newest(), CM_ERR_MAX_SESSIONS);
    assert_int_equal(atoi(c.heard + 2), CM_ERR_MAX_SESSIONS);
    ask_all(&c, &rq);
    assert_int_equal(executed, 2);
    world_list(app, 3);
    call(newest(), &k, "query", "{}", NULL, 1); /* now something has happened */
    newest()->ops.call_gone(newest()->arg, &k);
    fail_exec(newest(), CM_ERR_SANDBOX);
    ask_all(&c, &rq);
    world_turn();
    assert_int_equal(executed, 2);
    assert_int_equal(atoi(c.heard + 2), CM_ERR_SANDBOX);
    rq = known("n += 1", "id-2");
    ask_all(&c, &rq);
    fail_exec(newest(), CM_ERR_SESSION_LOST);
    ask_all(&c, &rq);
    world_turn();
    assert_int_equal(executed, 3);
    assert_int_equal(atoi(c.heard + 2), CM_ERR_SESSION_LOST);
    /* named tools that were not there: it may go well the next time */
    rq = known("1", "id-3");
    rq.available_tools = "[\"late\"]";
    rq.available_tools_len = 8;
    ask_all(&c, &rq);
    world_pass(1100);
    if (world_waiting())
        world_list(app, 3);
    world_turn();
    assert_int_equal(strncmp(c.heard, "!RuntimeError", 13), 0);
    world_pass(1100);
    ask_all(&c, &rq);
    static const struct world_tool late[] = {{"late", "", NULL, false, false}};
    world_list(late, 1);
    world_turn();
    assert_int_equal(executed, 4);
    finish(newest(), "5", NULL);
}

static void keeps_answers_within_bounds(void **state)
{
    static char big[60000];
    struct client c;
    struct cm_run_request rq;
    char ids[30][10];

    (void)state;
    for (int i = 0; i < 30; i++) {
        sprintf(ids[i], "id-%d", i);
        rq = known("1", ids[i]);
        ask_all(&c, &rq);
        finish(newest(), ids[i], NULL);
    }
    for (int i = 0; i < 30; i++) {
        rq = known("1", ids[i]);
        if (i < 20) { /* ten answers are kept */
            assert_int_equal(ask_all(&c, &rq), CM_ERR_NOT_KEPT);
            continue;
        }
        ask_all(&c, &rq);
        world_turn();
        assert_string_equal(c.heard, ids[i]);
    }
    assert_int_equal(executed, 30);
    memset(big, 'x', sizeof big - 1);
    rq = known("1", "big");
    ask_all(&c, &rq);
    finish(newest(), big, NULL);
    assert_int_equal(ask_all(&c, &rq), CM_ERR_NOT_KEPT);
    conf.kept_answers = 1;
    cm_executor_reload(executor, &conf, NULL);
    rq = known("1", ids[28]);
    assert_int_equal(ask_all(&c, &rq), CM_ERR_NOT_KEPT);
    rq = known("1", ids[29]);
    assert_int_equal(ask_all(&c, &rq), 0);
    world_turn();
    assert_string_equal(c.heard, ids[29]);
}

static void bounds_what_it_remembers(void **state)
{
    struct cm_records *r = cm_records_new(3, 1000000);
    const struct cm_exec_result res = {.success = true, .result = "0123456789", .result_len = 10};

    (void)state;
    for (uint64_t i = 0; i < CM_RECORDS_MAX + 10; i++) {
        struct cm_hash h = {{i, 0}};
        assert_null(cm_records_find(r, &h));
        cm_records_finish(r, cm_records_begin(r, &h, &h), &res, NULL, "exec-1");
    }
    assert_int_equal(cm_records_count(r), CM_RECORDS_MAX);
    struct cm_hash last = {{CM_RECORDS_MAX + 9, 0}}, fourth = {{CM_RECORDS_MAX + 6, 0}}, first = {{0, 0}};
    assert_int_equal(cm_records_find(r, &last)->state, CM_RECORD_KEPT);
    assert_int_equal(cm_records_find(r, &fourth)->state, CM_RECORD_GONE);
    assert_null(cm_records_find(r, &first));
    assert_true(cm_records_bytes(r) < 3 * 1000);
    struct cm_kept *kept = cm_kept_ref(cm_records_find(r, &last)->kept);
    world_pass(600001);
    assert_null(cm_records_find(r, &last));
    assert_int_equal(cm_records_count(r), 0);
    assert_int_equal(cm_records_bytes(r), 0);
    assert_string_equal(kept->res.result, "0123456789"); /* whoever is being answered has it still */
    cm_kept_unref(kept);
    cm_records_free(r);
}

/* Else */

static enum cm_tool_service seen;

static void on_ping(void *arg, enum cm_tool_service state)
{
    ++*(int *)arg;
    seen = state;
}

static void says_whether_the_service_is_there(void **state)
{
    int times = 0;

    (void)state;
    assert_string_equal(cm_executor_target(executor), "app:50051");
    cm_executor_ping(executor, on_ping, &times);
    assert_int_equal(times, 0);
    world_list(app, 3);
    world_turn();
    assert_int_equal(seen, CM_TOOLS_REACHABLE);
    world_pass(1100);
    cm_executor_ping(executor, on_ping, &times);
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "refused");
    world_turn();
    assert_int_equal(seen, CM_TOOLS_UNREACHABLE);
    assert_int_equal(times, 2);
    cm_executor_ping(executor, on_ping, &times); /* never answered: the executor goes */
    cm_executor_free(executor);
    open_executor("none");
    world_turn();
    assert_int_equal(times, 2);
    cm_executor_ping(executor, on_ping, &times);
    world_turn();
    assert_int_equal(seen, CM_TOOLS_NONE);
    assert_int_equal(times, 3);
    cm_executor_ping(executor, on_ping, &times);
}

/* Everything is under way when the executor goes. */
static void leaves_in_order(void **state)
{
    static struct client c[5]; /* the fixture ends them */
    static struct cm_call k[2];
    struct cm_run_request rq = known("1", "id-1");

    (void)state;
    ask(&c[0], "tools", NULL);
    world_list(app, 3);
    world_turn();
    call(newest(), &k[0], "query", "{}", NULL, 1);
    ask_all(&c[1], &rq);
    finish(newest(), "1", NULL);
    ask_all(&c[2], &rq);
    world_pass(1100);
    ask(&c[3], "x", "[\"unknown\"]");
    rq = known("2", "id-2");
    ask_all(&c[4], &rq);
    cm_run_abandon(c[4].run, true);
}

static void maps_exceptions_to_types(void **state)
{
    static const char *const cases[][2] = {
        {"KeyError", "KeyError"}, {"ModuleNotFoundError", "ImportError"}, {"UnknownTool", "RuntimeError"},
        {"OSError", "Unknown"},   {"IndentationError", "SyntaxError"},    {"KeyErro", "Unknown"},
        {"KeyErrors", "Unknown"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_exec_result res = {.error_type = cases[i][0], .error_type_len = strlen(cases[i][0])};
        assert_string_equal(cm_error_type(&res), cases[i][1]);
        res.timed_out = true;
        assert_string_equal(cm_error_type(&res), "Timeout");
        res.success = true;
        assert_null(cm_error_type(&res));
    }
    struct cm_exec_result res = {0};
    assert_string_equal(cm_error_type(&res), "Unknown");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(runs_code_without_tools_at_once),
        TEST(tells_code_of_the_tools),
        TEST(waits_a_little_for_what_may_be_used),
        TEST(refuses_to_run_without_the_named_tools),
        TEST(checks_the_target),
        TEST(passes_calls_on),
        TEST(refuses_calls_before_they_are_sent),
        TEST(large_contexts_are_not_put_together),
        TEST(few_requests_wait_for_a_list),
        TEST(answers_questions_about_tools),
        TEST(asks_for_a_schema_that_the_list_lacks),
        TEST(looks_again_for_tools_when_they_are_called),
        TEST(answers_a_repeated_request_from_the_record),
        TEST(names_calls_alike_wherever_they_run),
        TEST(goes_on_for_a_client_that_is_lost),
        TEST(ends_what_its_client_does_not_want),
        TEST(does_not_remember_what_did_not_run),
        TEST(keeps_answers_within_bounds),
        cmocka_unit_test(bounds_what_it_remembers),
        TEST(says_whether_the_service_is_there),
        TEST(leaves_in_order),
        cmocka_unit_test(maps_exceptions_to_types),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
