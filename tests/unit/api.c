/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP interface's plain requests and answers. */
#include "api_world.h"

/* A request of the given content type, with more headers or none. */
static int status_of_body(const char *type, const char *more)
{
    char request[512];
    int fd = dial(), status = 0;

    snprintf(request, sizeof(request),
             "POST /execute HTTP/1.1\r\n" CLOSE "%s%sContent-Length: 12\r\n\r\n{\"code\":\"x\"}", type, more);
    say(fd, request, strlen(request));
    sscanf(hear_all(fd), "HTTP/1.1 %d", &status);
    return status;
}

static void answers_every_route(void **state)
{
    static const struct exchange list[] = {
        {"POST /session HTTP/1.1\r\n" CLOSE "Content-Length: 0\r\n\r\n", 200, "{\"session_id\":\"session-1\"}"},
        {"POST /session HTTP/1.1\r\n" JSON("2") "{}", 200, "session-1"},
        {"POST /session HTTP/1.1\r\n" CLOSE "x-correlation-id: refuse\r\nContent-Length: 0\r\n\r\n", 429,
         "Retry-After: "},
        {"POST /session/session-1/execute HTTP/1.1\r\n" JSON("12") "{\"code\":\"x\"}", 200,
         "{\"stdout\":\"out\\n\\\"\",\"stderr\":\"\",\"result\":\"84\",\"error\":null,\"error_type\":null,"
         "\"traceback\":null,"
         "\"locals\":{\"x\":42},\"execution_time\":1.500000000,\"cpu_time\":0.250000000,\"success\":true,\"timed_out\":"
         "false,\"state\":\"kept\","
         "\"stdout_truncated\":false,\"stderr_truncated\":false,\"result_truncated\":false,"
         "\"error_truncated\":false,\"locals_truncated\":false,\"stdout_bytes\":5,"
         "\"stderr_bytes\":0,\"memory_bytes\":0,\"stdout_ref\":\"/session/session-1/executions/exec-1/stdout\","
         "\"stderr_ref\":null,\"session_id\":\"session-1\","
         "\"execution_id\":\"exec-1\"}"},
        {"POST /execute HTTP/1.1\r\n" JSON("12") "{\"code\":\"x\"}", 200, "\"session_id\":null"},
        {"POST /session/session-1/execute HTTP/1.1\r\n" JSON("14") "{\"code\":\"die\"}", 410,
         "\"code\":\"session_lost\""},
        {"POST /session/session-1/execute HTTP/1.1\r\n" JSON("15") "{\"code\":\"full\"}", 429, "Retry-After: "},
        {"POST /session/none/execute HTTP/1.1\r\n" JSON("12") "{\"code\":\"x\"}", 404, "\"code\":\"unknown_session\""},
        {"DELETE /session/session-1 HTTP/1.1\r\n" CLOSE "\r\n", 200, "{\"status\":\"ok\"}"},
        {"DELETE /session/none HTTP/1.1\r\n" CLOSE "\r\n", 200, "{\"status\":\"ok\"}"},
        {"GET /session/session-1 HTTP/1.1\r\n" CLOSE "\r\n", 200, "\"expires_in_seconds\":null"},
        {"GET /session/none HTTP/1.1\r\n" CLOSE "\r\n", 404, "unknown_session"},
        {"GET /session/session-1/executions/exec-1/stdout HTTP/1.1\r\n" CLOSE "\r\n", 200, "\r\n\r\n0123456789"},
        {"GET /session/session-1/executions/exec-1/stdout?offset=3&length=4 HTTP/1.1\r\n" CLOSE "\r\n", 200,
         "\r\n\r\n3456"},
        {"GET /session/session-1/executions/exec-1/stdout?offset=10 HTTP/1.1\r\n" CLOSE "\r\n", 200,
         "X-Total-Length: 12\r\nX-Stored-Length: 10\r\n"},
        {"GET /session/session-1/executions/exec-1/stdout?offset=-1 HTTP/1.1\r\n" CLOSE "\r\n", 422, "offset: must be"},
        {"GET /session/session-1/executions/exec-1/stdout?length HTTP/1.1\r\n" CLOSE "\r\n", 200, "0123456789"},
        {"GET /session/session-1/executions/exec-1/stderr HTTP/1.1\r\n" CLOSE "\r\n", 404, "unknown_output"},
        {"GET /session/session-1/executions//stdout HTTP/1.1\r\n" CLOSE "\r\n", 404, "not_found"},
        {"DELETE /session/session-1/executions/exec-1/stdout HTTP/1.1\r\n" CLOSE "\r\n", 405, "Allow: GET, HEAD"},
        {"GET /sessions HTTP/1.1\r\n" CLOSE "\r\n", 200, "{\"sessions\":[\"session-1\",\"session-1\"]}"},
        {"GET /health HTTP/1.1\r\n" CLOSE "\r\n", 200, "{\"status\":\"healthy\"}"},
        {"GET /health?x=%00 HTTP/1.1\r\n" CLOSE "\r\n", 200, "healthy"},
        {"GET /ready HTTP/1.1\r\n" CLOSE "\r\n", 200, "{\"status\":\"ready\"}"},
        {"GET /version HTTP/1.1\r\n" CLOSE "\r\n", 200,
         "\"python\":\"" CM_GUEST_PYTHON "\",\"image\":\"image \\\"1\\\"\"}"},
        {"GET /metrics HTTP/1.1\r\n" CLOSE "\r\n", 200, "# TYPE codemode_http_requests_total counter"},
        {"HEAD /health HTTP/1.1\r\n" CLOSE "\r\n", 200, "Content-Length: 20"},
    };

    (void)state;
    run_exchanges(list, sizeof(list) / sizeof(list[0]));
}

/* A refusal quotes the header that it is about; its bytes may be anything. */
static void quotes_bad_bytes_as_utf8(void **state)
{
    static const struct exchange list[] = {
        {"GET /health HTTP/1.1\r\nHost: a\xb1.b\r\nConnection: close\r\n\r\n", 403,
         "\"host \\\"a\xef\xbf\xbd.b\\\" is"},
        {"GET /health HTTP/1.1\r\n" CLOSE "Origin: \xc3\r\n\r\n", 403, "\"origin \\\"\xef\xbf\xbd\\\" may"},
    };

    (void)state;
    run_exchanges(list, sizeof(list) / sizeof(list[0]));
}

static void takes_plain_bodies_from_programs_only(void **state)
{
    static const char *const browser[] = {"Origin: http://localhost:3000\r\n", "Referer: http://localhost:8080/\r\n",
                                          "Sec-Fetch-Site: none\r\n", "sec-fetch-mode: no-cors\r\n"};
    static const struct {
        const char *type;
        int program, page; /* status for a program, and for a web page */
    } list[] = {
        {"", 200, 415},
        {"Content-Type: text/plain\r\n", 200, 415},
        {"Content-Type: Text/Plain;charset=UTF-8\r\n", 200, 415},
        {"Content-Type: application/x-www-form-urlencoded\r\n", 200, 415},
        {"Content-Type: application/json\r\n", 200, 200},
        {"Content-Type: application/problem+json; charset=utf-8\r\n", 200, 200},
        {"Content-Type: multipart/form-data; boundary=x\r\n", 415, 415},
        {"Content-Type: text/plainer\r\n", 415, 415},
        {"Content-Type: application/jsonp\r\n", 415, 415},
        {"Content-Type: text/plain;x=application/json\r\n", 200, 415},
        {"Content-Type: +json\r\n", 415, 415},
        {"Content-Type: text/plain,a/b+json\r\n", 415, 415},
        {"Content-Type: \r\n", 415, 415},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        assert_int_equal(status_of_body(list[i].type, ""), list[i].program);
        for (size_t k = 0; k < sizeof(browser) / sizeof(browser[0]); k++)
            assert_int_equal(status_of_body(list[i].type, browser[k]), list[i].page);
    }
}

static void answers_errors(void **state)
{
    static const struct exchange list[] = {
        {"GET /nothing HTTP/1.1\r\n" CLOSE "\r\n", 404, "\"code\":\"not_found\",\"remediation\":"},
        {"GET /health%00 HTTP/1.1\r\n" CLOSE "\r\n", 404, "not_found"},
        {"GET /session/a/b HTTP/1.1\r\n" CLOSE "\r\n", 404, "not_found"},
        {"GET /session/ HTTP/1.1\r\n" CLOSE "\r\n", 404, "not_found"},
        {"GET /session/0123456789012345678901234567890123456789012345678901 HTTP/1.1\r\n" CLOSE "\r\n", 404,
         "unknown_session"},
        {"PUT /session/x HTTP/1.1\r\n" CLOSE "\r\n", 405, "Allow: DELETE, GET, HEAD"},
        {"GET /session HTTP/1.1\r\n" CLOSE "\r\n", 405, "Allow: POST\r\n"},
        {"POST /execute HTTP/1.1\r\n" CLOSE "Content-Length: 0\r\n\r\n", 400, "body: is empty"},
        {"POST /execute HTTP/1.1\r\n" JSON("3") "{a}", 400, "invalid JSON at byte 1"},
        {"POST /execute HTTP/1.1\r\n" JSON("2") "{}", 422, "code: field required"},
        {"POST /execute HTTP/1.1\r\n" JSON("2") "[]", 422, "body: must be a JSON object"},
        {"POST /session HTTP/1.1\r\n" JSON("1") "7", 422, "body: must be a JSON object"},
        {"POST /session HTTP/1.1\r\n" CLOSE
         "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n\r\n",
         200, ""},
        {"POST /session HTTP/1.1\r\n" CLOSE "Origin: https://evil.example\r\nContent-Length: 0\r\n\r\n", 403,
         "forbidden"},
        {"POST /session HTTP/1.1\r\n" CLOSE "Origin: null\r\nContent-Length: 0\r\n\r\n", 403, "forbidden"},
        {"POST /session HTTP/1.1\r\n" CLOSE "Origin: http://localhost:3000\r\nContent-Length: 0\r\n\r\n", 200, ""},
        {"GET /sessions HTTP/1.1\r\nHost: evil.example:8080\r\nConnection: close\r\n\r\n", 403,
         "not a name of this machine"},
        {"GET /sessions HTTP/1.1\r\nConnection: close\r\n\r\n", 400, ""},
        {"POST /execute HTTP/1.1\r\n" CLOSE "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, ""},
        {"POST /execute HTTP/1.1\r\n" CLOSE
         "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
         400, ""},
        {"POST /execute HTTP/1.1\r\n" CLOSE "Transfer-Encoding: gzip\r\n\r\n", 400, ""},
        {"POST /execute HTTP/1.1\r\n" CLOSE "Content-Length: -1\r\n\r\n", 400, ""},
        {"POST /execute HTTP/1.1\r\n" CLOSE "Expect: 100-continue\r\nContent-Length: 9999\r\n\r\n", 413, "MAX_BODY"},
        {"POST /execute HTTP/1.1\r\n" CLOSE "Content-Length: 99999999999\r\n\r\n{}", 413, "MAX_BODY"},
        {"POST /execute HTTP/1.1\r\n" CLOSE "Transfer-Encoding: chunked\r\n\r\nc\r\n{\"code\":\"x\"}\r\n0\r\n\r\n", 200,
         "84"},
        {"GET /health HTTP/1.1\r\n" CLOSE "Bad(Name: x\r\n\r\n", 400, "a header is malformed"},
        {"GET /health HTTP/1.1\r\n" CLOSE "Bad Name: x\r\n\r\n", 400, ""}, /* newer daemons refuse it themselves */
        {"GET /health HTTP/1.1\r\n" CLOSE "no colon\r\n\r\n", 400, ""},
    };

    (void)state;
    run_exchanges(list, sizeof(list) / sizeof(list[0]));
}

static void large_body(const char *framing, size_t total, bool chunked)
{
    char *text = malloc(total + 512);
    int n = sprintf(text, "POST /execute HTTP/1.1\r\n" CLOSE "%s\r\n", framing);
    size_t used = (size_t)n;

    if (chunked)
        used += (size_t)sprintf(text + used, "%zx\r\n", total);
    memset(text + used, 'x', total);
    used += total;
    if (chunked)
        used += (size_t)sprintf(text + used, "\r\n0\r\n\r\n");
    int fd = dial();
    say(fd, text, used);
    const char *answer = hear_all(fd);
    assert_memory_equal(answer, "HTTP/1.1 413 ", 13);
    assert_non_null(strstr(answer, "\"code\":\"too_large\""));
    free(text);
}

static void answers_large_bodies(void **state)
{
    (void)state;
    large_body("Content-Length: 5000\r\n", 5000, false);
    large_body("Content-Length: 16000\r\n", 16000, false);
    large_body("Transfer-Encoding: chunked\r\n", 5000, true);
    large_body("Transfer-Encoding: chunked\r\n", 18000, true);
}

static void echoes_the_correlation_id(void **state)
{
    static const struct exchange list[] = {
        {"GET /health HTTP/1.1\r\n" CLOSE "x-correlation-id: abc-1.2:3\r\n\r\n", 200,
         "x-correlation-id: abc-1.2:3\r\n"},
        {"GET /nothing HTTP/1.1\r\n" CLOSE "X-Correlation-ID: abc\r\n\r\n", 404, "x-correlation-id: abc\r\n"},
    };
    const char *quoted = "GET /health HTTP/1.1\r\n" CLOSE "x-correlation-id: a\"b\r\n\r\n";
    int fd;

    (void)state;
    run_exchanges(list, 2);
    say(fd = dial(), quoted, strlen(quoted));
    const char *answer = hear_all(fd);
    assert_null(strstr(answer, "a\"b"));
    assert_non_null(strstr(answer, "x-correlation-id: "));
}

/* Several requests in one connection, also sent before the answers. */
static void keeps_connections(void **state)
{
    const char *one =
        "POST /execute HTTP/1.1\r\n" H "Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"code\":\"x\"}";
    const char *last = "GET /health HTTP/1.1\r\n" CLOSE "\r\n";
    int fd = dial(), seen = 0;

    (void)state;
    for (int i = 0; i < 5; i++)
        say(fd, one, strlen(one));
    say(fd, last, strlen(last));
    for (const char *at = hear_all(fd); (at = strstr(at, "HTTP/1.1 200 OK")); at++)
        seen++;
    assert_int_equal(seen, 6);
}

static void abandons_when_the_client_leaves(void **state)
{
    const char *hang = "POST /execute HTTP/1.1\r\n" H "Content-Length: 15\r\n\r\n{\"code\":\"hang\"}";
    int before = abandoned, fd = dial();

    (void)state;
    say(fd, hang, strlen(hang));
    wait_for(&running, 1);
    close(fd);
    wait_for(&abandoned, before + 1);
    /* One more hangs until the server ends: closing it then must leak nothing. */
    fd = dial();
    say(fd, hang, strlen(hang));
    wait_for(&running, 2);
}

static void says_when_it_is_not_ready(void **state)
{
    static const struct exchange list[] = {{"GET /ready HTTP/1.1\r\n" CLOSE "\r\n", 503, "{\"status\":\"not_ready\"}"}};

    (void)state;
    ready = 0;
    run_exchanges(list, 1);
    ready = 1;
}

static void judges_hosts_and_origins(void **state)
{
    (void)state;
    assert_true(cm_http_host_is_local("127.0.0.1:8080"));
    assert_true(cm_http_host_is_local("[::1]:8080"));
    assert_true(cm_http_host_is_local("LOCALHOST"));
    assert_true(cm_http_host_is_local("10.0.0.1"));
    assert_false(cm_http_host_is_local("127.0.0.1.evil.example"));
    assert_false(cm_http_host_is_local("localhost.evil.example"));
    assert_false(cm_http_host_is_local("[::1"));
    assert_false(cm_http_host_is_local(""));
    assert_true(cm_http_origin_allowed("http://app.localhost:1", ""));
    assert_true(cm_http_origin_allowed("https://a.example", "https://b.example, https://a.example"));
    assert_false(cm_http_origin_allowed("https://a.example", "https://a.example.org"));
    assert_false(cm_http_origin_allowed("http://localhost@evil.example", ""));
    assert_false(cm_http_origin_allowed("http://127.0.0.1.evil.example", ""));
    assert_false(cm_http_origin_allowed("", ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judges_hosts_and_origins),
        cmocka_unit_test_setup_teardown(answers_every_route, start, stop),
        cmocka_unit_test_setup_teardown(answers_errors, start, stop),
        cmocka_unit_test_setup_teardown(quotes_bad_bytes_as_utf8, start, stop),
        cmocka_unit_test_setup_teardown(takes_plain_bodies_from_programs_only, start, stop),
        cmocka_unit_test_setup_teardown(answers_large_bodies, start, stop),
        cmocka_unit_test_setup_teardown(echoes_the_correlation_id, start, stop),
        cmocka_unit_test_setup_teardown(keeps_connections, start, stop),
        cmocka_unit_test_setup_teardown(says_when_it_is_not_ready, start, stop),
        cmocka_unit_test_setup_teardown(abandons_when_the_client_leaves, start, stop),
    };

    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
