/* SPDX-License-Identifier: Apache-2.0 */
/* The client against a scripted sidecar. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sys/mman.h>

#include "sidecar_world.h"

static void pings(void **state)
{
    struct world w;

    (void)state;
    world_open(&w);
    assert_int_equal(cm_sidecar_ping(w.sidecar, on_ping, &w, &w.op, NULL), 0);
    await(&w);
    assert_true(w.ready);
    w.fake.busy = 1;
    assert_int_equal(cm_sidecar_ping(w.sidecar, on_ping, &w, &w.op, NULL), 0);
    await(&w);
    assert_false(w.ready);
    world_close(&w);
}

static void knows_when_nobody_is_there(void **state)
{
    struct cm_sidecar_config config = {.url = "http://127.0.0.1:1"};
    struct world w;

    (void)state;
    world_open(&w);
    cm_sidecar_free(w.sidecar);
    assert_int_equal(cm_sidecar_open(w.loop, w.egress, &config, &w.sidecar, NULL), 0);
    w.ready = true;
    assert_int_equal(cm_sidecar_ping(w.sidecar, on_ping, &w, &w.op, NULL), 0);
    await(&w);
    assert_false(w.ready);
    assert_int_equal(cm_sidecar_create(w.sidecar, 0, 10, NULL, on_created, &w, &w.op, NULL), 0);
    await(&w);
    assert_int_equal(w.err.code, CM_ERR_SIDECAR);
    assert_non_null(strstr(w.err.text, "127.0.0.1:1"));
    world_close(&w);
}

static void refuses_what_is_no_url(void **state)
{
    static const char *const urls[] = {NULL, "", "/", "localhost:8080", "ftp://localhost"};
    struct cm_sidecar_config config = {0};
    struct cm_sidecar *s = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        config.url = urls[i];
        assert_int_equal(cm_sidecar_open(NULL, NULL, &config, &s, NULL), CM_ERR_CONFIG);
    }
    config = (struct cm_sidecar_config){.url = "http://localhost", .api_key = "a\nb"};
    assert_int_equal(cm_sidecar_open(NULL, NULL, &config, &s, NULL), CM_ERR_CONFIG);
    assert_null(s);
}

static void creates_sessions(void **state)
{
    struct world w;

    (void)state;
    world_open(&w);
    w.fake.busy = 3;
    w.fake.busy_answer = "{\"detail\": \"no room\", \"code\": \"too_many_sessions\"}";
    assert_int_equal(cm_sidecar_create(w.sidecar, 64u << 20, 60, "run-7", on_created, &w, &w.op, NULL), 0);
    await(&w);
    assert_string_equal(w.id, "session-1");
    assert_int_equal(w.fake.creating, 4);
    assert_string_equal(w.fake.created_with, "{\"limits\": {\"memory\": 67108864}}");

    w.fake.busy = 1000;
    assert_int_equal(cm_sidecar_create(w.sidecar, 0, 0.2, NULL, on_created, &w, &w.op, NULL), 0);
    await(&w);
    assert_int_equal(w.err.code, CM_ERR_MAX_SESSIONS);
    assert_string_equal(w.err.text, "no room");
    assert_int_equal(w.fake.created, 1);
    assert_string_equal(w.fake.created_with, "{}");
    world_close(&w);
}

static void deletes_what_nobody_waits_for(void **state)
{
    struct world w;

    (void)state;
    world_open(&w);
    w.fake.hold = true;
    assert_int_equal(cm_sidecar_create(w.sidecar, 0, 60, NULL, on_created, &w, &w.op, NULL), 0);
    await_fake(&w, &w.fake.creating, 1);
    cm_sidecar_cancel(w.op);
    pthread_mutex_lock(&w.server.lock);
    w.fake.hold = false;
    w.fake.delete_failures = 2; /* it tries again */
    pthread_cond_broadcast(&w.server.moved);
    pthread_mutex_unlock(&w.server.lock);
    await_fake(&w, &w.fake.deleted, 1);
    assert_int_equal(w.fake.created, 1);
    assert_string_equal(w.fake.deleted_id, "DELETE /session/session-1 HTTP/1.1");
    assert_string_equal(w.id, ""); /* nobody was told */
    cm_sidecar_delete(w.sidecar, "../x"); /* no id, no request */

    w.fake.busy = 1000; /* while it waits to try again */
    w.fake.busy_answer = "{}";
    assert_int_equal(cm_sidecar_create(w.sidecar, 0, 60, NULL, on_created, &w, &w.op, NULL), 0);
    await_fake(&w, &w.fake.creating, 3);
    cm_sidecar_cancel(w.op);
    world_close(&w);
    assert_int_equal(w.fake.deleted, 1);
}

static void puts_variables(void **state)
{
    enum { SIZE = 3000000 };
    char *data = malloc(SIZE), expected[64];
    int fd = memfd_create("value", MFD_CLOEXEC);
    struct cm_variable v = {.name = "context_0", .kind = CM_VARIABLE_TEXT, .data = data, .fd = -1, .len = SIZE};
    struct world w;

    (void)state;
    memset(data, 'a', SIZE);
    assert_int_equal(pwrite(fd, data, SIZE, 7), SIZE);
    snprintf(expected, sizeof expected, "%d %lu", (int)SIZE, (unsigned long)SIZE * 'a');
    world_open(&w);
    assert_int_equal(cm_sidecar_put(w.sidecar, "session-1", &v, on_put, &w, &w.op, NULL), 0);
    await(&w);
    assert_int_equal(w.err.code, 0);
    assert_string_equal(w.fake.put_line, "PUT /session/session-1/variables/context_0 HTTP/1.1");
    assert_string_equal(w.fake.put_type, "text/plain; charset=utf-8");
    assert_string_equal(w.fake.put_sum, expected);

    v = (struct cm_variable){.name = "x", .kind = CM_VARIABLE_JSON, .fd = fd, .offset = 7, .len = SIZE};
    assert_int_equal(cm_sidecar_put(w.sidecar, "session-1", &v, on_put, &w, &w.op, NULL), 0);
    await(&w);
    assert_string_equal(w.fake.put_type, "application/json");
    assert_string_equal(w.fake.put_sum, expected);

    w.fake.put_status = "507 Insufficient Storage";
    w.fake.put_answer = "{\"detail\": \"no room for \\u00fc\", \"code\": \"value_too_large\", \"remediation\": \"\"}";
    assert_int_equal(cm_sidecar_put(w.sidecar, "session-1", &v, on_put, &w, &w.op, NULL), 0);
    await(&w);
    assert_int_equal(w.err.code, CM_ERR_NO_ROOM);
    assert_string_equal(w.err.text, "no room for \xc3\xbc");
    w.fake.put_answer = "<html>";
    assert_int_equal(cm_sidecar_put(w.sidecar, "session-1", &v, on_put, &w, &w.op, NULL), 0);
    await(&w);
    assert_int_equal(w.err.code, CM_ERR_SIDECAR);
    assert_non_null(strstr(w.err.text, "507"));
    v.name = "a/../b";
    assert_int_equal(cm_sidecar_put(w.sidecar, "session-1", &v, on_put, &w, &w.op, NULL), CM_ERR_BAD_FIELD);
    v.name = "1a";
    assert_int_equal(cm_sidecar_put(w.sidecar, "session-1", &v, on_put, &w, &w.op, NULL), CM_ERR_BAD_FIELD);
    world_close(&w);
    close(fd);
    free(data);
}

/* Executions */

static void see(struct world *w, const char *format, ...)
{
    size_t len = strlen(w->seen);
    va_list ap;

    va_start(ap, format);
    vsnprintf(w->seen + len, sizeof w->seen - len, format, ap);
    va_end(ap);
}

static void on_output(void *arg, int stream, const char *text, size_t len)
{
    struct world *w = arg;

    see(w, "%d:%.*s;", stream, (int)len, text);
    if (w->interrupt_in_output)
        cm_sidecar_interrupt(w->x);
    if (w->abandon_in_output) {
        cm_sidecar_abandon(w->x);
        finish(w);
    }
}

static void on_call(void *arg, unsigned number, const char *name, char *arguments, size_t len)
{
    struct world *w = arg;

    see(w, "call %u %s %.*s;", number, name, (int)len, arguments);
    memset(arguments, 'x', len);
    if (w->answer_in_call)
        cm_sidecar_answer(w->x, number, w->result, w->result_len);
    if (w->fail_in_call)
        cm_sidecar_fail(w->x, number, w->result, w->result_len);
    if (w->abandon_in_call) {
        cm_sidecar_abandon(w->x);
        finish(w);
    }
}

static void on_call_gone(void *arg, unsigned number)
{
    see(arg, "gone %u;", number);
}

static void on_exec_done(void *arg, const struct cm_sidecar_result *res, const struct cm_err *err)
{
    struct world *w = arg;

    assert_true((res == NULL) == (err != NULL));
    w->err = err ? *err : (struct cm_err){0};
    if (res)
        see(w, "done %s %s out=%.*s err=%.*s result=%s error=%s %s %.3f", res->success ? "well" : "badly", res->state,
            (int)res->out_len, res->out, (int)res->err_len, res->err, res->result, res->error, res->error_type,
            res->seconds);
    else
        see(w, "failed");
    if (w->abandon_in_done)
        cm_sidecar_abandon(w->x);
    finish(w);
}

static void on_result(void *arg, const struct cm_sidecar_result *res)
{
    struct world *w = arg;

    see(w, "first %s %s out=%.*s;", res->success ? "well" : "badly", res->state, (int)res->out_len, res->out);
    if (w->interrupt_in_result)
        cm_sidecar_interrupt(w->x);
    if (w->abandon_in_result) {
        cm_sidecar_abandon(w->x);
        finish(w);
    }
}

static const struct cm_sidecar_ops exec_ops = {
    .output = on_output, .call = on_call, .call_gone = on_call_gone, .result = on_result, .done = on_exec_done};

static void begin(struct world *w, const char *script)
{
    struct cm_sidecar_code code = {.then = w->then,
                                   .then_timeout_s = 2,
                                   .code = script,
                                   .len = strlen(script),
                                   .timeout_s = 30,
                                   .caller_tools = "[\"rlm.x\"]",
                                   .correlation = "run-1"};

    w->seen[0] = '\0';
    assert_int_equal(cm_sidecar_execute(w->sidecar, "session-1", &code, &exec_ops, w, &w->x, &w->err), 0);
}

static void run(struct world *w, const char *script)
{
    begin(w, script);
    await(w);
}

#define START "start|data: {\"execution_id\": \"exec-1\"}\n"
#define RESULT                                                                                                         \
    "result|data: "                                                                                                    \
    "{\"stdout\":\"a\",\"stderr\":\"\",\"result\":null,\"success\":true,\"state\":\"kept\",\"execution_time\":0.5}"
#define WELL "done well kept out=a err= result= error=  0.500"
#define CALL "call|data: {\"call\": 3, \"name\": \"rlm.x\", \"arguments\": {\"a\": [1]}}\n"

static void executes(void **state)
{
    struct world w;

    (void)state;
    world_open(&w);
    run(&w, START "output|data: {\"stream\":\"stdout\",\"text\":\"a\\n\"}\noutput|data: "
                  "{\"stream\":\"stderr\",\"text\":\"b\"}\n"
                  "other|data: 1\n" RESULT);
    assert_string_equal(w.seen, "1:a\n;2:b;" WELL);
    assert_non_null(strstr(w.fake.execute_head, "\r\nAuthorization: Bearer the key\r\n"));
    assert_non_null(strstr(w.fake.execute_head, "\r\nAccept: text/event-stream\r\n"));
    assert_non_null(strstr(w.fake.execute_head, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(w.fake.execute_head, "\r\nX-Correlation-ID: run-1\r\n"));
    assert_non_null(
        strstr(w.fake.execute_request, "\"limits\": {\"locals\": 2, \"timeout\": 30.000, \"tool_calls\": 100000, "));
    assert_non_null(strstr(w.fake.execute_request, "}, \"caller_tools\": [\"rlm.x\"]}"));
    w.abandon_in_done = true;
    run(&w, START "result|data: {\"success\":false,\"state\":\"lost\",\"timed_out\":true,\"error\":\"E: "
                  "\\u00fc\",\"error_type\":\"E\"}");
    assert_string_equal(w.seen, "done badly lost out= err= result= error=E: \xc3\xbc E 0.000");
    run(&w,
        START "error|data: {\"status\":410,\"detail\":\"it is gone\",\"code\":\"session_lost\",\"remediation\":\"\"}");
    assert_int_equal(w.err.code, CM_ERR_SESSION_LOST);
    assert_string_equal(w.err.text, "it is gone");
    run(&w, "!404 {\"detail\": \"no such session\", \"code\": \"unknown_session\"}");
    assert_int_equal(w.err.code, CM_ERR_NO_SESSION);
    assert_true(w.server.connections <=
                2); /* they are used again; the next one may begin before the newest has ended */
    world_close(&w);
}

static void refuses_what_is_no_stream(void **state)
{
    static const struct {
        const char *script, *words;
    } rows[] = {
        {START "cut", "127.0.0.1"},
        {START, "without its result"},
        {"", "without its result"},
        {"cut", "127.0.0.1"},
        {"!200 {}", "does not answer with events"},
        {"!500 oops", "HTTP status 500"},
        {START "result|data: {}", "success"},
        {START "result|data: [", "no JSON"},
        {START "result|data: {\"success\":true,\"stdout\":1}", "text"},
        {"start|data: {\"execution_id\": \"../x\"}\n" RESULT, "start"},
        {START START RESULT, "start"},
        {CALL RESULT, "call"},
        {START "call|data: {\"call\": -1, \"name\": \"x\", \"arguments\": {}}\n" RESULT, "call"},
        {START "call|data: {\"call\": 1, \"name\": \"x\", \"arguments\": []}\n" RESULT, "call"},
        {START "output|data: 1\n" RESULT, "output"},
        {START "huge\n" RESULT, "more than 32 MiB"},
    };
    struct world w;

    (void)state;
    world_open(&w);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        run(&w, rows[i].script);
        assert_string_equal(w.seen, "failed");
        assert_int_equal(w.err.code, CM_ERR_SIDECAR);
        assert_non_null(strstr(w.err.text, rows[i].words));
    }
    world_close(&w);
}

static void answers_calls(void **state)
{
    struct world w;

    (void)state;
    world_open(&w);
    w.answer_in_call = true;
    w.result = "{\"b\": 2}";
    w.result_len = strlen(w.result);
    run(&w, START CALL "await answers 1\n" RESULT);
    assert_string_equal(w.seen, "call 3 rlm.x {\"a\": [1]};" WELL);
    assert_string_equal(w.fake.answer_line[0], "POST /session/session-1/executions/exec-1/calls/3 HTTP/1.1");
    assert_string_equal(w.fake.answer_body[0], "{\"result\": {\"b\": 2}}");

    w.answer_in_call = false;
    w.fail_in_call = true;
    w.result = "no \"luck\" \xff";
    w.result_len = strlen(w.result);
    w.fake.answer_failures = 2; /* it is sent until it is there */
    run(&w, START CALL "await answers 2\n" RESULT);
    assert_string_equal(w.fake.answer_body[1], "{\"error\": \"no \\\"luck\\\" \xef\xbf\xbd\"}");

    w.fail_in_call = false;
    begin(&w, START CALL "await answers 3\n" RESULT);
    cm_sidecar_answer(w.x, 3, "1", 1); /* before it has come: nobody waits */
    while (!strstr(w.seen, "call 3")) {
        cm_timer_start(w.look, 1, 0);
        w.count = &w.server.connections;
        w.want = 1;
        cm_loop_run(w.loop);
    }
    w.count = NULL;
    cm_sidecar_answer(w.x, 4, "1", 1);
    cm_sidecar_answer(w.x, 3, "3", 1);
    cm_sidecar_answer(w.x, 3, "4", 1);
    cm_sidecar_fail(w.x, 3, "4", 1);
    await(&w);
    assert_string_equal(w.fake.answer_body[2], "{\"result\": 3}");
    assert_int_equal(w.fake.answers, 3);
    world_close(&w);
}

#define SECOND "start|data: {\"execution_id\": \"exec-2\"}\n"
#define FIRST  "first well kept out=a;"
#define PRINTS "output|data: {\"stream\":\"stdout\",\"text\":\"a\"}\n"

static void runs_code_behind_code(void **state)
{
    struct world w;

    (void)state;
    world_open(&w);
    w.then = "\"after\"";
    w.answer_in_call = true;
    w.result = "1";
    w.result_len = 1;
    run(&w, START RESULT "\n" SECOND CALL "await answers 1\n" RESULT);
    assert_string_equal(w.seen, FIRST "call 3 rlm.x {\"a\": [1]};" WELL);
    assert_string_equal(w.fake.answer_line[0], "POST /session/session-1/executions/exec-2/calls/3 HTTP/1.1");
    assert_non_null(strstr(w.fake.execute_request, "], \"then\": {\"code\": \"\\\"after\\\"\", \"timeout\": 2.000}}"));
    w.answer_in_call = false;
    run(&w, START CALL RESULT "\n" SECOND RESULT); /* the first one's call is nobody's any more */
    assert_string_equal(w.seen, "call 3 rlm.x {\"a\": [1]};" FIRST WELL);
    run(&w, START RESULT);
    assert_string_equal(w.seen, FIRST "failed");
    assert_non_null(strstr(w.err.text, "without its result"));
    run(&w, START RESULT "\nerror|data: {\"status\":410,\"detail\":\"it is gone\",\"code\":\"session_lost\"}");
    assert_string_equal(w.seen, FIRST "failed");
    assert_int_equal(w.err.code, CM_ERR_SESSION_LOST);
    run(&w, START "error|data: {\"status\":410,\"detail\":\"it is gone\",\"code\":\"session_lost\"}");
    assert_string_equal(w.seen, "failed");
    w.abandon_in_result = true;
    run(&w, START RESULT "\n" SECOND RESULT);
    assert_string_equal(w.seen, FIRST);
    world_close(&w);
}

static void interrupts_the_one_that_runs(void **state)
{
    struct world w;

    (void)state;
    world_open(&w);
    w.then = "after";
    w.interrupt_in_output = true; /* it has ended before there is anything to interrupt */
    run(&w, START PRINTS "await interrupts 1\n" RESULT "\n" SECOND RESULT);
    assert_string_equal(w.seen, "1:a;" FIRST WELL);
    assert_string_equal(w.fake.interrupt_body, "{\"execution_id\": \"exec-1\"}");
    w.interrupt_in_output = false;
    w.interrupt_in_result = true;
    run(&w, START RESULT "\n" SECOND "await interrupts 3\n" RESULT);
    assert_string_equal(w.seen, FIRST WELL);
    assert_string_equal(w.fake.interrupt_body, "{\"execution_id\": \"exec-2\"}");
    world_close(&w);
}

static void sends_large_answers(void **state)
{
    enum { SIZE = 9000000 };
    char *text = malloc(SIZE);
    struct world w;

    (void)state;
    memset(text, '7', SIZE);
    world_open(&w);
    w.answer_in_call = true;
    w.result = text;
    w.result_len = SIZE;
    run(&w, START CALL "await answers 1\n" RESULT);
    assert_int_equal(w.fake.answer_len[0], SIZE + strlen("{\"result\": }"));

    w.fake.answer_status =
        "413 Payload Too Large"; /* then the code hears that, and when that does not go either, nobody waits */
    run(&w, START CALL "await end\n");
    assert_int_equal(w.fake.answers, 3);
    assert_string_equal(w.fake.answer_body[2], "{\"error\": \"too long for me\"}");
    assert_string_equal(w.seen, "call 3 rlm.x {\"a\": [1]};failed");
    world_close(&w);
    free(text);
}

static void says_which_calls_are_gone(void **state)
{
    struct world w;

    (void)state;
    world_open(&w);
    run(&w, START CALL
        "call_gone|data: {\"call\": 3}\ncall_gone|data: {\"call\": 3}\ncall_gone|data: {\"call\": 9}\n" RESULT);
    assert_string_equal(w.seen, "call 3 rlm.x {\"a\": [1]};gone 3;" WELL);
    world_close(&w);
}

static void interrupts(void **state)
{
    struct world w;

    (void)state;
    world_open(&w);
    w.interrupt_in_output = true;
    run(&w, START "output|data: {\"stream\":\"stdout\",\"text\":\"a\"}\nawait interrupts 3\n" RESULT);
    assert_string_equal(w.seen, "1:a;" WELL);
    assert_int_equal(w.fake.interrupts, 3); /* the first two met nothing */
    assert_string_equal(w.fake.interrupt_body, "{\"execution_id\": \"exec-1\"}");
    world_close(&w);
}

/* Before it has an id there is no telling which one is meant. */
static void interrupts_before_the_start(void **state)
{
    struct world w;

    (void)state;
    world_open(&w);
    w.interrupt_in_output = true;
    run(&w, "output|data: {\"stream\":\"stdout\",\"text\":\"a\"}\n" RESULT);
    assert_int_equal(w.fake.interrupts, 0);
    run(&w, "output|data: {\"stream\":\"stdout\",\"text\":\"a\"}\n" START "await interrupts 3\n" RESULT);
    assert_string_equal(w.seen, "1:a;" WELL);
    assert_string_equal(w.fake.interrupt_body, "{\"execution_id\": \"exec-1\"}");
    world_close(&w);
}

static void abandons_anywhere(void **state)
{
    struct world w;

    (void)state;
    world_open(&w);
    begin(&w, START "await end\n");
    cm_sidecar_abandon(w.x); /* at once */
    cm_sidecar_abandon(NULL);
    w.abandon_in_output = true;
    run(&w, START "output|data: {\"stream\":\"stdout\",\"text\":\"a\"}\noutput|data: "
                  "{\"stream\":\"stdout\",\"text\":\"b\"}\nawait end\n");
    assert_string_equal(w.seen, "1:a;");
    await_fake(&w, &w.server.gone, 1);
    w.abandon_in_output = false;
    w.abandon_in_call = w.answer_in_call = true;
    w.result = "1";
    w.result_len = 1;
    run(&w, START CALL CALL "await end\n");
    assert_string_equal(w.seen, "call 3 rlm.x {\"a\": [1]};");
    await_fake(&w, &w.server.gone, 2);
    begin(&w, START "await end\n"); /* is there when all ends */
    await_fake(&w, &w.server.requests, 4);
    world_close(&w);
    assert_string_equal(w.seen, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pings),
        cmocka_unit_test(knows_when_nobody_is_there),
        cmocka_unit_test(refuses_what_is_no_url),
        cmocka_unit_test(creates_sessions),
        cmocka_unit_test(deletes_what_nobody_waits_for),
        cmocka_unit_test(puts_variables),
        cmocka_unit_test(executes),
        cmocka_unit_test(refuses_what_is_no_stream),
        cmocka_unit_test(answers_calls),
        cmocka_unit_test(runs_code_behind_code),
        cmocka_unit_test(interrupts_the_one_that_runs),
        cmocka_unit_test(sends_large_answers),
        cmocka_unit_test(says_which_calls_are_gone),
        cmocka_unit_test(interrupts),
        cmocka_unit_test(interrupts_before_the_start),
        cmocka_unit_test(abandons_anywhere),
    };

    return cmocka_run_group_tests_name("sidecar", tests, NULL, NULL);
}
