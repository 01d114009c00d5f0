/* SPDX-License-Identifier: Apache-2.0 */
/* Asks much of libcodemode; tests/e2e/test_libcodemode.py starts it beside a sidecar and reads its TAP.
 *
 *     libcodemode-drive client HOST:PORT      the client against that sidecar
 *     libcodemode-drive tools                 what a tool service refuses; no sidecar
 *     libcodemode-drive serve PORT            serves tools until standard input ends
 */
#include <codemode.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int number, failed;

static void check(bool good, const char *what)
{
    number++;
    failed += !good;
    printf("%sok %d - %s\n", good ? "" : "not ", number, what);
    fflush(stdout);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The client */

struct seen {
    size_t out, err, calls;
    uint64_t omitted;
    double first;
    pthread_t thread;
    size_t stop_after;
    unsigned nap_us;
};

static bool collect(void *arg, int stream, const char *data, size_t len, uint64_t omitted)
{
    struct seen *s = arg;

    (void)data;
    if (s->calls++ == 0)
        s->first = now();
    *(stream == 2 ? &s->err : &s->out) += len;
    s->omitted += omitted;
    s->thread = pthread_self();
    if (s->nap_us)
        usleep(s->nap_us);
    return s->stop_after == 0 || s->calls < s->stop_after;
}

static char *result_of(struct codemode_client *c, const char *session, const char *code)
{
    struct codemode_request r = {.session = session, .code = code};
    struct codemode_result *res = NULL;
    char *text = NULL;

    if (codemode_execute(c, &r, &res, NULL) == 0)
        text = strdup(res->result ? res->result : res->success ? "(none)" : res->error_type);
    codemode_result_free(res);
    return text ? text : strdup("(failed)");
}

static bool gives(struct codemode_client *c, const char *session, const char *code, const char *want)
{
    char *got = result_of(c, session, code);
    bool same = strcmp(got, want) == 0;

    if (!same)
        printf("# %s gave %s\n", code, got);
    free(got);
    return same;
}

static void try_streams(struct codemode_client *c, const char *session)
{
    struct seen seen = {0};
    struct codemode_request r = {.session = session,
                                 .code = "import sys, time\nprint('a', flush=True)\ntime.sleep(0.4)\n"
                                         "print('bb', file=sys.stderr)\n'nul\\0byte'",
                                 .output = collect,
                                 .arg = &seen};
    struct codemode_result *res = NULL;
    struct codemode_error err = {0};

    check(codemode_execute(c, &r, &res, &err) == 0 && res->success, "an execution with its output");
    double end = now();
    check(seen.out == 2 && seen.err == 3 && end - seen.first > 0.3, "output comes while the code runs");
    check(pthread_equal(seen.thread, pthread_self()), "in the thread that called");
    check(res && strcmp(res->out, "a\n") == 0 && strcmp(res->error_out, "bb\n") == 0 && res->seconds > 0.3,
          "the result has both streams as well");
    check(res && strcmp(res->session, session) == 0 && *res->execution && *res->correlation_id, "and its ids");
    codemode_result_free(res);
    seen = (struct seen){.stop_after = 2};
    r.code = "n = 0\nwhile True:\n    n += 1\n    print(n, flush=True)";
    check(codemode_execute(c, &r, &res, &err) == -CODEMODE_CANCELLED && err.status == CODEMODE_CANCELLED,
          "the callback withdraws");
    check(gives(c, session, "n > 1", "True"), "and the session stays");
    seen = (struct seen){.nap_us = 20000};
    r.code = "for i in range(60):\n    print('x' * 999999)";
    check(codemode_execute(c, &r, &res, &err) == 0 && seen.out + seen.omitted == 60000000 && seen.omitted > 0,
          "a slow callback is told what it has missed");
    codemode_result_free(res);
}

static void try_errors(struct codemode_client *c)
{
    struct codemode_request r = {.session = "session-00000000000000000000000000000000", .code = "1"};
    struct codemode_options nobody = {.target = "127.0.0.1:1", .timeout = 5};
    struct codemode_limit wrong = {"memroy", 1};
    struct codemode_result *res;
    struct codemode_error err = {0};
    char id[CODEMODE_ID_SIZE];

    check(codemode_execute(c, &r, &res, &err) == -CODEMODE_NOT_FOUND && *err.text, "an unknown session");
    r.code = NULL;
    check(codemode_execute(c, &r, &res, NULL) == -CODEMODE_INVALID_ARGUMENT, "no code");
    check(codemode_session_create(c, &wrong, 1, id, &err) == -CODEMODE_INVALID_ARGUMENT && strstr(err.text, "memory"),
          "an unknown limit");
    check(codemode_session_delete(c, "session-nobody", NULL) == 0, "deleting what is not there");
    check(!codemode_open(&(struct codemode_options){.ca_file = "/nonexistent"}, &err) &&
              err.status == CODEMODE_INVALID_ARGUMENT,
          "a file that is not there");
    check(!codemode_open(&(struct codemode_options){.target = "a/b"}, &err) && err.status == CODEMODE_INVALID_ARGUMENT,
          "a target that is none");
    struct codemode_client *lonely = codemode_open(&nobody, &err);
    struct codemode_health health;
    check(lonely && codemode_health(lonely, &health, &err) == -CODEMODE_UNAVAILABLE, "nobody answers");
    codemode_close(lonely);
}

static void *run_some(void *arg)
{
    struct codemode_client *c = arg;
    char id[CODEMODE_ID_SIZE], *last = NULL;

    if (codemode_session_create(c, NULL, 0, id, NULL) < 0)
        return NULL;
    free(result_of(c, id, "n = 0"));
    for (int i = 0; i < 20; i++)
        free(result_of(c, id, "n += 1"));
    last = result_of(c, id, "n");
    long good = strcmp(last, "20") == 0;
    free(last);
    codemode_session_delete(c, id, NULL);
    return (void *)good;
}

static void *interrupt_later(void *arg)
{
    void *const *both = arg;
    struct codemode_session info;
    bool stopped = false;

    for (int i = 0; i < 1000 && !stopped; i++) {
        usleep(10000);
        if (codemode_session_info(both[0], both[1], &info, NULL) == 0 && strcmp(info.state, "running") == 0)
            codemode_session_interrupt(both[0], both[1], &stopped, NULL);
    }
    return NULL;
}

static void try_sessions(struct codemode_client *c, char *id)
{
    struct codemode_session info;
    struct codemode_result *res = NULL;
    char **ids = NULL;
    size_t count = 0;

    check(gives(c, id, "x = 42", "(none)") && gives(c, id, "x * 2", "84"), "a session keeps its state");
    check(codemode_session_info(c, id, &info, NULL) == 0 && strcmp(info.id, id) == 0 && info.executions == 2 &&
              info.can_roll_back && strcmp(info.state, "idle") == 0,
          "what there is to know of it");
    check(codemode_session_list(c, &ids, &count, NULL) == 0 && count == 1 && strcmp(ids[0], id) == 0 && !ids[1],
          "the list of sessions");
    free(ids);
    free(result_of(c, id, "x = 1"));
    check(codemode_session_rollback(c, id, NULL) == 0 && gives(c, id, "x", "42"), "rolling back");
    struct codemode_request r = {.session = id, .code = "x = 0\n1/0", .atomic = true};
    check(codemode_execute(c, &r, &res, NULL) == 0 && !res->success && res->state == CODEMODE_ROLLED_BACK &&
              strcmp(res->error_type, "ZeroDivisionError") == 0 && !res->result && gives(c, id, "x", "42"),
          "an atomic execution that fails");
    codemode_result_free(res);
    void *both[] = {c, id};
    pthread_t thread;
    pthread_create(&thread, NULL, interrupt_later, both);
    check(gives(c, id, "import time\ntime.sleep(20)", "KeyboardInterrupt"), "interrupting from another thread");
    pthread_join(thread, NULL);
}

static void try_request(struct codemode_client *c, const char *id)
{
    static const char code[] = "print('y' * 5000)\nn + 1\0and what is behind the NUL";
    struct codemode_limit limit = {"output", 2048};
    struct codemode_request r = {
        .session = id,
        .code = code,
        .code_len = strlen(code),
        .limits = &limit,
        .limit_count = 1,
        .context_json = "{\"n\": 9007199254740993}",
        .correlation_id = "mine",
    };
    struct codemode_result *res = NULL;
    size_t len = 0;
    uint64_t printed = 0;
    char buffer[100];

    check(codemode_execute(c, &r, &res, NULL) == 0 && res->stdout_truncated && res->stdout_stored && res->result &&
              strcmp(res->result, "9007199254740994") == 0 && strcmp(res->correlation_id, "mine") == 0,
          "limits, context, a length, an id");
    check(res &&
              codemode_read_output(c, id, res->execution, 1, 4990, buffer, sizeof buffer, &len, &printed, NULL) == 0 &&
              len == 11 && printed == 5001 && memcmp(buffer, "yyyyyyyyyy\n", 11) == 0,
          "reading what was cut");
    codemode_result_free(res);
}

static void try_once(struct codemode_client *c, const char *id)
{
    struct codemode_request r = {
        .code = "result = (context['n'], 'r')", .context_json = "{\"n\": 7}", .correlation_id = "own"};
    struct codemode_result *res = NULL;
    struct codemode_error err;

    check(codemode_execute_once(c, &r, &res, &err) == 0 && res->success && strcmp(res->result, "(7, 'r')") == 0 &&
              strcmp(res->correlation_id, "own") == 0 && res->seconds > 0,
          "the simple form");
    codemode_result_free(res);
    r = (struct codemode_request){.session = id, .code = "import time\ntime.sleep(9)", .timeout = 0.5};
    check(codemode_execute_once(c, &r, &res, &err) == 0 && !res->success && res->timed_out, "a time limit, rounded up");
    codemode_result_free(res);
    r = (struct codemode_request){.code = "1", .context_json = "[1]"};
    check(codemode_execute_once(c, &r, &res, &err) == -CODEMODE_INVALID_ARGUMENT && strstr(err.text, "context_json"),
          "a context that is no object");
}

static void try_threads(struct codemode_client *c)
{
    pthread_t threads[8];
    long good = 0;

    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, run_some, c);
    for (int i = 0; i < 8; i++) {
        void *one;
        pthread_join(threads[i], &one);
        good += (long)one;
    }
    check(good == 8, "eight threads share a client");
}

static void *close_later(void *arg)
{
    usleep(300000);
    codemode_close(arg);
    return NULL;
}

static void drive_client(const char *target)
{
    struct codemode_options options = {.target = target,
                                       .timeout = 20,
                                       .ca_file = getenv("CA_FILE"),
                                       .cert_file = getenv("CERT_FILE"),
                                       .key_file = getenv("KEY_FILE")};
    struct codemode_client *c = codemode_open(&options, NULL);
    struct codemode_health health = {0};
    char id[CODEMODE_ID_SIZE] = "";
    pthread_t closer;

    check(c && codemode_health(c, &health, NULL) == 0 && strcmp(health.status, "healthy") == 0 &&
              strcmp(health.version, codemode_version()) == 0,
          "health");
    check(codemode_ready(c, &health, NULL) == 0 && *health.status, "readiness");
    check(codemode_session_create(c, NULL, 0, id, NULL) == 0 && strncmp(id, "session-", 8) == 0, "a session");
    try_sessions(c, id);
    try_request(c, id);
    try_streams(c, id);
    try_once(c, id);
    try_errors(c);
    check(codemode_session_delete(c, id, NULL) == 0 && gives(c, id, "1", "(failed)"), "deleting");
    try_threads(c);
    pthread_create(&closer, NULL, close_later, c);
    struct codemode_request r = {.code = "import time\ntime.sleep(20)"};
    struct codemode_result *res;
    double begin = now();
    check(codemode_execute(c, &r, &res, NULL) == -CODEMODE_CANCELLED && now() - begin < 10, "closing ends a call");
    pthread_join(closer, NULL);
}

/* Tools */

static atomic_int counted, cancelled;

static void echo(void *arg, struct codemode_call *call)
{
    (void)arg;
    codemode_answer(call, codemode_call_arguments(call));
}

static void slow(void *arg, struct codemode_call *call)
{
    (void)arg;
    puts("begun");
    fflush(stdout);
    for (int i = 0; i < 200 && !codemode_call_cancelled(call); i++)
        usleep(10000);
    cancelled += codemode_call_cancelled(call);
    codemode_answer(call, "\"slept\"");
}

static void about(void *arg, struct codemode_call *call)
{
    char text[1000];
    const char *context = codemode_call_context(call);

    (void)arg;
    snprintf(text, sizeof text, "{\"tool\":\"%s\",\"id\":\"%s\",\"left\":%s,\"context\":%s}", codemode_call_tool(call),
             codemode_call_correlation_id(call), codemode_call_time_left(call) > 0 ? "true" : "false",
             context ? context : "null");
    codemode_answer(call, text);
}

static void fail(void *arg, struct codemode_call *call)
{
    (void)arg;
    codemode_answer_error(call, "it did not work: \xff");
}

static void silent(void *arg, struct codemode_call *call)
{
    (void)arg;
    (void)call;
}

static void broken(void *arg, struct codemode_call *call)
{
    (void)arg;
    codemode_answer(call, "{\"half\":");
}

static void count(void *arg, struct codemode_call *call)
{
    char text[20];

    (void)arg;
    snprintf(text, sizeof text, "%d", ++counted);
    codemode_answer(call, text);
}

static const struct codemode_tool list[] = {
    {.name = "echo", .description = "Gives back what it was given.", .is_async = true, .run = echo},
    {.name = "slow", .is_async = true, .run = slow},
    {.name = "about", .input_schema = "{\"type\":\"object\"}", .has_context = true, .run = about},
    {.name = "fail", .run = fail},
    {.name = "silent", .run = silent},
    {.name = "broken", .run = broken},
    {.name = "count", .run = count},
};

static struct codemode_tools *make_tools(const struct codemode_tools_options *options)
{
    struct codemode_tools *tools = codemode_tools_new(options, NULL);

    for (size_t i = 0; tools && i < sizeof list / sizeof list[0]; i++)
        if (codemode_tools_add(tools, &list[i], NULL) < 0)
            return NULL;
    return tools;
}

static void drive_tools(void)
{
    struct codemode_tools_options options = {.workers = 4};
    struct codemode_error err;
    struct codemode_tools *tools = make_tools(&options);
    struct codemode_tool bad = list[0];

    check(tools, "a tool service");
    check(codemode_tools_add(tools, &bad, &err) == -CODEMODE_ALREADY_EXISTS, "a name twice");
    bad.name = "__list__";
    check(codemode_tools_add(tools, &bad, &err) == -CODEMODE_INVALID_ARGUMENT, "a reserved name");
    bad.name = "schema";
    bad.input_schema = "{";
    check(codemode_tools_add(tools, &bad, &err) == -CODEMODE_INVALID_ARGUMENT, "a schema that is no JSON");
    check(codemode_tools_port(tools) == 0 && codemode_tools_start(tools, &err) == 0 && codemode_tools_port(tools) > 0,
          "it starts");
    check(codemode_tools_start(tools, &err) == -CODEMODE_FAILED_PRECONDITION, "once");
    struct codemode_tools_options same = {.port = codemode_tools_port(tools)};
    struct codemode_tools *second = codemode_tools_new(&same, NULL);
    check(second && codemode_tools_start(second, &err) < 0 && *err.text, "a port that is taken");
    codemode_tools_free(second);
    struct codemode_tools_options open = {.host = "0.0.0.0", .api_key = ""};
    second = codemode_tools_new(&open, NULL);
    check(second && codemode_tools_start(second, &err) == -CODEMODE_INVALID_ARGUMENT, "no open door without a key");
    codemode_tools_free(second);
    codemode_tools_stop(tools, 1);
    check(codemode_tools_start(tools, &err) == -CODEMODE_FAILED_PRECONDITION, "stopped is stopped");
    codemode_tools_free(tools);
    codemode_tools_free(NULL);
    codemode_close(NULL);
}

static int serve(unsigned port)
{
    struct codemode_tools_options options = {.port = port,
                                             .workers = 64,
                                             .cert_file = getenv("CERT_FILE"),
                                             .key_file = getenv("KEY_FILE"),
                                             .ca_file = getenv("CA_FILE")};
    struct codemode_tools *tools = make_tools(&options);
    struct codemode_error err;

    if (!tools || codemode_tools_start(tools, &err) < 0)
        return 1;
    printf("%u\n", codemode_tools_port(tools));
    fflush(stdout);
    while (getchar() != EOF)
        ;
    codemode_tools_stop(tools, 5);
    codemode_tools_free(tools);
    printf("counted %d, cancelled %d\n", counted, cancelled);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve((unsigned)atoi(argv[2]));
    if (argc == 3 && strcmp(argv[1], "client") == 0)
        drive_client(argv[2]);
    else if (argc == 2 && strcmp(argv[1], "tools") == 0)
        drive_tools();
    else
        return 2;
    printf("1..%d\n", number);
    return failed ? 1 : 0;
}
