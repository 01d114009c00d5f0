/* SPDX-License-Identifier: Apache-2.0 */
/* Executions as streams, calls that their client answers, and variables that come as files. */
#include "api_world.h"

#define EVENTS CLOSE "Accept: application/json;q=0.5, Text/Event-Stream\r\n"
#define EXECUTE_LIVE(code, length)                                                                                     \
    "POST /session/session-1/execute HTTP/1.1\r\n" EVENTS "Content-Length: " length "\r\n\r\n{\"code\":\"" code        \
    "\",\"caller_tools\":[\"a\"]}"

/* Reads until the text is there; the connection stays open. */
static void hear(int fd, char *heard, size_t size, const char *text)
{
    size_t used = strlen(heard);
    ssize_t n = 1;

    while (!strstr(heard, text) && n > 0 && used < size - 1) {
        n = recv(fd, heard + used, size - 1 - used, 0);
        n = n < 0 && errno == EINTR ? 0 : n;
        used += n > 0 ? (size_t)n : 0;
        heard[used] = '\0';
    }
    if (!strstr(heard, text))
        fail_msg("no \"%s\" in\n%s", text, heard);
}

#define CALL(path, body, length) "POST /session/" path " HTTP/1.1\r\n" CLOSE "Content-Length: " length "\r\n\r\n" body

static void streams_an_execution(void **state)
{
    static const struct exchange refused[] = {
        {CALL("session-1/executions/exec-1/calls/8", "{\"result\":1}", "12"), 404, "\"code\":\"unknown_call\""},
        {CALL("session-1/executions/exec-1/calls/07", "{\"result\":1}", "12"), 404, "unknown_call"},
        {CALL("session-1/executions/exec-2/calls/7", "{\"result\":1}", "12"), 404, "unknown_call"},
        {CALL("session-2/executions/exec-1/calls/7", "{\"result\":1}", "12"), 404, "unknown_session"},
        {CALL("session-1/executions/exec-1/calls/7", "{\"other\":1}", "11"), 422, "either result or error"},
        {CALL("session-1/executions/exec-1/calls/7", "{\"result\":1,\"error\":\"\"}", "23"), 422, "either"},
        {CALL("session-1/executions/exec-1/calls/7", "{\"error\":1}", "11"), 422, "error: must be a string"},
        {CALL("session-1/executions/exec-1/calls/7", "{\"result\":}", "11"), 400, "invalid JSON"},
    };
    static const struct exchange good[] = {
        {CALL("session-1/executions/exec-1/calls/7", "{\"result\":null}", "15"), 200, "{\"status\":\"ok\"}"},
        {CALL("session-1/executions/exec-1/calls/7", "{\"result\":null}", "15"), 404, "unknown_call"},
    };
    static const char request[] = EXECUTE_LIVE("live", "36");
    char heard[16384] = "";
    int fd = dial();

    (void)state;
    say(fd, request, strlen(request));
    hear(fd, heard, sizeof heard, "event: call\n");
    hear(fd, heard, sizeof heard, "\"name\":\"look\\\"up\",\"arguments\":{ \"key\":  [1, \"a\\nb\"]}}\n\n");
    assert_non_null(strstr(heard, "HTTP/1.1 200 OK"));
    assert_non_null(strstr(heard, "Content-Type: text/event-stream\r\n"));
    assert_non_null(strstr(heard, "event: start\ndata: {\"execution_id\":\"exec-1\"}\n\n"));
    assert_non_null(strstr(heard, "event: output\ndata: {\"stream\":\"stdout\",\"text\":\"a\"}\n\n"));
    assert_non_null(strstr(heard, "{\"stream\":\"stdout\",\"text\":\"\xc3\xa9\\n\"}\n\n"));
    assert_non_null(strstr(heard, "{\"stream\":\"stderr\",\"text\":\"\xef\xbf\xbd\"}\n\n"));
    assert_true(strstr(heard, "event: start") < strstr(heard, "event: output"));
    assert_true(strstr(heard, "\xc3\xa9") < strstr(heard, "event: call\ndata: {\"call\":7,"));
    run_exchanges(refused, sizeof refused / sizeof refused[0]);
    assert_null(strstr(heard, "event: result"));
    run_exchanges(good, 1);
    assert_string_equal(answered, "answer null");
    hear(fd, heard, sizeof heard, "\r\n0\r\n\r\n");
    assert_non_null(strstr(heard, "event: result\ndata: {\"stdout\":\"out\\n\\\"\",\"stderr\""));
    /* What was left of a character comes before the result. */
    assert_true(strstr(strstr(heard, "event: call"), "\"stderr\",\"text\":\"\xef") < strstr(heard, "event: result"));
    run_exchanges(good + 1, 1);
    close(fd);
}

static void says_how_a_stream_ends(void **state)
{
    static const struct exchange list[] = {
        {EXECUTE_LIVE("forget", "38"), 200, "event: call_gone\ndata: {\"call\":7}\n\n"},
        {EXECUTE_LIVE("die", "35"), 200,
         "event: error\ndata: {\"status\":410,\"detail\":\"the session's process ended: \\\"killed\\\"\",\"code\":"
         "\"session_lost\",\"remediation\":"},
        {EXECUTE_LIVE("full", "36"), 429, "\"code\":\"queue_full\""},
        {"POST /session/session-1/execute HTTP/1.1\r\n" JSON("35") "{\"code\":\"die\",\"caller_tools\":[\"a\"]}", 422,
         "caller_tools: only a stream"},
        {"POST /session/session-1/execute HTTP/1.1\r\n" EVENTS
         "Content-Length: 35\r\n\r\n{\"code\":\"x\",\"caller_tools\":[\"a\",1]}",
         422, "caller_tools: must be a list of names"},
        {"POST /execute HTTP/1.1\r\n" EVENTS "Content-Length: 12\r\n\r\n{\"code\":\"x\"}", 200, "Content-Length: "},
    };

    (void)state;
    run_exchanges(list, sizeof list / sizeof list[0]);
}

static unsigned times(const char *text, const char *word)
{
    unsigned n = 0;

    while ((text = strstr(text, word))) {
        n++;
        text += strlen(word);
    }
    return n;
}

static void runs_code_behind_code(void **state)
{
#define THEN(code, then, length)                                                                                       \
    "POST /session/session-1/execute HTTP/1.1\r\n" EVENTS "Content-Length: " length "\r\n\r\n{\"code\":\"" code        \
    "\",\"then\":{\"code\":\"" then "\"}}"
    static const struct {
        const char *request;
        unsigned starts, results, errors;
    } rows[] = {
        {THEN("x", "y", "32"), 2, 2, 0},
        {THEN("x", "die", "34"), 2, 1, 1},
        {THEN("x", "full", "35"), 1, 1, 1}, /* it cannot run, and the first one's answer stays what it is */
        {THEN("die", "x", "34"), 1, 0, 1}, /* the session is gone: nothing comes behind */
    };
    static const struct exchange refused[] = {
        {"POST /session/session-1/execute HTTP/1.1\r\n" JSON("32") "{\"code\":\"x\",\"then\":{\"code\":\"y\"}}", 422,
         "then: only a stream"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char heard[16384] = "";
        int fd = dial();
        say(fd, rows[i].request, strlen(rows[i].request));
        hear(fd, heard, sizeof heard, "\r\n0\r\n\r\n");
        assert_int_equal(times(heard, "event: start\n"), rows[i].starts);
        assert_int_equal(times(heard, "event: result\n"), rows[i].results);
        assert_int_equal(times(heard, "event: error\n"), rows[i].errors);
        close(fd);
    }
    run_exchanges(refused, 1);
}

static void forgets_code_of_clients_that_leave(void **state)
{
    static const char request[] = THEN("x", "hang", "35");
    char heard[16384] = "";
    int before = abandoned, fd = dial();

    (void)state;
    say(fd, request, strlen(request));
    hear(fd, heard, sizeof heard, "event: result\n");
    wait_for(&running, 1);
    close(fd);
    wait_for(&abandoned, before + 1);
    atomic_fetch_sub(&running, 1);
}

static void ends_executions_of_clients_that_leave_or_do_not_read(void **state)
{
    static const char live[] = EXECUTE_LIVE("live", "36"), flood[] = EXECUTE_LIVE("flood", "37");
    char heard[4096] = "";
    int before = abandoned, fd = dial();

    (void)state;
    say(fd, live, strlen(live));
    hear(fd, heard, sizeof heard, "event: call\n");
    close(fd);
    wait_for(&abandoned, before + 1);
    fd = dial();
    say(fd, flood, strlen(flood));
    wait_for(&abandoned, before + 2);
    /* And the connection is closed, without the end of a stream. */
    ssize_t n = 1;
    char tail[8] = "";
    static char bytes[65536];
    while (n > 0 || (n < 0 && errno == EINTR)) {
        n = recv(fd, bytes, sizeof bytes, 0);
        if (n >= 7)
            memcpy(tail, bytes + n - 7, 7);
    }
    assert_true(n == 0 || errno == ECONNRESET);
    assert_string_not_equal(tail, "\r\n0\r\n\r\n");
    close(fd);
}

#define PUT(name, type, length)                                                                                        \
    "PUT /session/session-1/variables/" name " HTTP/1.1\r\n" CLOSE type "Content-Length: " length "\r\n\r\n"
#define PLAIN "Content-Type: text/plain; charset=\"UTF-8\"\r\n"

#define EXPECT "Expect: 100-continue\r\n" /* the answer comes before the body */

static void puts_variables(void **state)
{
    static const struct exchange list[] = {
        {PUT("context", PLAIN, "5") "hello", 200, "{\"name\":\"context\",\"type\":\"str\",\"length\":5,\"bytes\":5}"},
        {PUT("n", "Content-Type: application/json\r\n", "6") "number", 200, "\"length\":null,\"bytes\":6}"},
        {PUT("n", "Content-Type: application/octet-stream\r\n", "0"), 200, "\"length\":0,\"bytes\":0}"},
        {PUT("na%C3%AFve", PLAIN, "1") "x", 200, "{\"name\":\"na\xc3\xafve\""},
        {PUT("x", PLAIN, "3") "bad", 422, "is no UTF-8 at byte 3"},
        {PUT("x", PLAIN, "6") "refuse", 429, "queue_full"},
        {PUT("x%00y", PLAIN, "1") "x", 422, "name: must be an identifier"},
        {PUT("x%ff", PLAIN, "1") "x", 422, "name: must be an identifier"},
        {PUT("x", "Content-Type: text/plain; charset=latin-1\r\n", "1") "x", 415,
         "charset=latin-1\\\" is not text/plain in UTF-8"},
        {PUT("x", "Content-Type: text/plain; charset=\"latin-1\"\r\n", "0"), 415, "is not text/plain in UTF-8"},
        {PUT("n", "Content-Type: application/json; charset=latin-1\r\n", "6") "number", 200, "\"bytes\":6}"},
        {PUT("x", "Content-Type: image/png\r\n", "1") "x", 415, "is not text/plain in UTF-8, application/json"},
        {PUT("x", "", "1") "x", 415, "is not text/plain in UTF-8, application/json"},
        {PUT("x", "", "0"), 415, "is not text/plain in UTF-8, application/json"},
        {PUT("x", PLAIN EXPECT, "5001"), 507, "\"code\":\"value_too_large\""},
        {"PUT /session/session-2/variables/x HTTP/1.1\r\n" CLOSE PLAIN "Content-Length: 1\r\n\r\nx", 404,
         "unknown_session"},
        {"PUT /session/session-1/variables/ HTTP/1.1\r\n" CLOSE PLAIN "Content-Length: 1\r\n\r\nx", 404, "not_found"},
        {"GET /session/session-1/variables/x HTTP/1.1\r\n" CLOSE "\r\n", 405, "Allow: PUT\r\n"},
        {"PUT /session/session-1/variables/x HTTP/1.1\r\n" CLOSE PLAIN EXPECT "Content-Length: "
         "8193\r\n\r\n",
         413, "has more than the 8192 bytes of MAX_UPLOAD"},
    };

    (void)state;
    run_exchanges(list, 1);
    assert_string_equal(put_name, "context");
    assert_int_equal(put_kind, CM_PUT_TEXT);
    run_exchanges(list + 1, 1);
    assert_int_equal(put_kind, CM_PUT_JSON);
    run_exchanges(list + 2, 1);
    assert_int_equal(put_kind, CM_PUT_BYTES);
    run_exchanges(list + 3, sizeof list / sizeof list[0] - 3);
}

static void leaves_room_on_the_machine(void **state)
{
    static const struct exchange short_of_it[] = {
        {PUT("x", PLAIN EXPECT, "1001"), 503, "\"code\":\"low_memory\""},
        {"PUT /session/session-1/variables/x HTTP/1.1\r\n" CLOSE PLAIN
         "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
         503, "low_memory"},
    };
    static const char hold[] = PUT("x", PLAIN, "4") "hold";
    int fd = dial();

    (void)state;
    memory_left = conf.min_free_memory + 1000;
    run_exchanges(short_of_it, 2);
    memory_left = UINT64_MAX;
    say(fd, hold, strlen(hold));
    wait_for(&puts_held, 1);
    close(fd); /* its client leaves */
    wait_for(&puts_held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(streams_an_execution, start, stop),
        cmocka_unit_test_setup_teardown(says_how_a_stream_ends, start, stop),
        cmocka_unit_test_setup_teardown(runs_code_behind_code, start, stop),
        cmocka_unit_test_setup_teardown(forgets_code_of_clients_that_leave, start, stop),
        cmocka_unit_test_setup_teardown(ends_executions_of_clients_that_leave_or_do_not_read, start, stop),
        cmocka_unit_test_setup_teardown(puts_variables, start, stop),
        cmocka_unit_test_setup_teardown(leaves_room_on_the_machine, start, stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
