/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "obs/log.h"
#include "obs/metrics.h"

static void assert_has(struct cm_buf *b, const char *text)
{
    if (!strstr(cm_buf_data(b), text))
        fail_msg("\"%s\" is missing in:\n%s", text, cm_buf_data(b));
}

static void metrics_text(void **state)
{
    struct cm_metrics *m = cm_metrics_new();
    cm_autobuf struct cm_buf b;
    (void)state;

    cm_buf_init(&b, 1 << 20);
    cm_metrics_info(m, "version", "1.2.3");
    cm_metrics_info(m, "bad", "a\"b");
    cm_metrics_set(m, CM_M_SESSIONS_ACTIVE, 0, 7);
    cm_metrics_add(m, CM_M_EXECUTIONS_FINISHED, CM_L_OUTCOME_TIMEOUT, 2);
    cm_metrics_observe_ns(m, CM_M_EXECUTION_DURATION, 50000);
    cm_metrics_observe_ns(m, CM_M_EXECUTION_DURATION, 70000);
    cm_metrics_observe_ns(m, CM_M_EXECUTION_DURATION, 400000000000);
    assert_int_equal(cm_metrics_render(m, &b), 0);
    assert_has(&b, "codemode_build_info{version=\"1.2.3\"} 1\n");
    assert_has(&b, "# HELP wasm_sessions_active Live sessions\n# TYPE wasm_sessions_active gauge\n"
                   "wasm_sessions_active 7\n");
    assert_has(&b, "codemode_executions_total{outcome=\"timeout\"} 2\n");
    assert_has(&b, "codemode_executions_total{outcome=\"ok\"} 0\n");
    assert_has(&b, "wasm_execution_duration_seconds_bucket{le=\"5e-05\"} 1\n");
    assert_has(&b, "wasm_execution_duration_seconds_bucket{le=\"0.0001\"} 2\n");
    assert_has(&b, "wasm_execution_duration_seconds_bucket{le=\"300\"} 2\n");
    assert_has(&b, "wasm_execution_duration_seconds_bucket{le=\"+Inf\"} 3\n");
    assert_has(&b, "wasm_execution_duration_seconds_sum 400.000120000\n");
    assert_int_equal(cm_metrics_get(m, CM_M_EXECUTION_DURATION, 0), 3);
    cm_metrics_free(m);
}

static void each_program_shows_its_own(void **state)
{
    struct cm_metrics *m = cm_metrics_new_rlm();
    cm_autobuf struct cm_buf b;
    (void)state;

    cm_buf_init(&b, 1 << 20);
    cm_metrics_add(m, CM_M_RLM_COST, 0, 2500001);
    cm_metrics_add(m, CM_M_RLM_MODEL_CALLS, CM_L_MODEL_RATE_LIMITED, 3);
    cm_metrics_add(m, CM_M_HTTP_REQUESTS, CM_L_STATUS_2XX, 4);
    cm_metrics_add(m, CM_M_SESSIONS_CREATED, 0, 5);
    assert_int_equal(cm_metrics_render(m, &b), 0);
    assert_has(&b, "# TYPE rlm_cost_usd_total counter\nrlm_cost_usd_total 2.500001\n");
    assert_has(&b, "rlm_model_calls_total{outcome=\"rate_limited\"} 3\n");
    assert_has(&b, "codemode_http_requests_total{status=\"2xx\"} 4\n");
    assert_has(&b, "rlm_inference_requests_total 0\n");
    assert_null(strstr(cm_buf_data(&b), "codemode_sessions"));
    cm_metrics_free(m);
    m = cm_metrics_new();
    cm_buf_clear(&b);
    assert_int_equal(cm_metrics_render(m, &b), 0);
    assert_null(strstr(cm_buf_data(&b), "rlm_"));
    cm_metrics_free(m);
}

static void metrics_need_no_registry(void **state)
{
    (void)state;
    cm_metrics_add(NULL, CM_M_SPAWN_FAILURES, 0, 1);
    cm_metrics_observe_ns(NULL, CM_M_SPAWN_DURATION, 1);
    assert_int_equal(cm_metrics_get(NULL, CM_M_SPAWN_FAILURES, 0), 0);
}

struct sink {
    int fds[2];
    char text[2 * CM_LOG_LINE_MAX];
};

static int open_sink(void **state)
{
    static struct sink s;
    *state = &s;
    return pipe2(s.fds, O_NONBLOCK);
}

static int close_sink(void **state)
{
    struct sink *s = *state;
    cm_log_open(-1, CM_LOG_OFF);
    close(s->fds[0]);
    close(s->fds[1]);
    return 0;
}

static const char *logged(struct sink *s)
{
    ssize_t n = read(s->fds[0], s->text, sizeof s->text - 1);
    s->text[n > 0 ? n : 0] = '\0';
    return s->text;
}

static void log_line(void **state)
{
    struct sink *s = *state;

    cm_log_open(s->fds[1], CM_LOG_INFO);
    cm_log(CM_LOG_DEBUG, "hidden");
    assert_string_equal(logged(s), "");
    cm_log(CM_LOG_WARNING, "it_broke", CM_LOG_STR("why", "a \"b\"\n\x01\xff\xc3\xa9"), CM_LOG_STR("absent", NULL),
           CM_LOG_INT("pid", -3), CM_LOG_REAL("s", 0.25), CM_LOG_REAL("nan", NAN), CM_LOG_BOOL("ok", true));
    const char *line = logged(s);
    assert_ptr_equal(strstr(line, "{\"ts\":\"20"), line);
    assert_non_null(strstr(line, "Z\",\"level\":\"WARNING\",\"event\":\"it_broke\",\"why\":\"a \\\"b\\\"\\u000a\\u0001"
                                 "\\ufffd\xc3\xa9\",\"pid\":-3,\"s\":0.25,\"nan\":null,\"ok\":true}\n"));
    cm_log(CM_LOG_ERROR, "bare");
    assert_non_null(strstr(logged(s), "\"event\":\"bare\"}\n"));
}

static void log_line_is_capped(void **state)
{
    struct sink *s = *state;
    char big[3 * CM_LOG_LINE_MAX];

    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    cm_log_open(s->fds[1], CM_LOG_INFO);
    cm_log(CM_LOG_INFO, "big", CM_LOG_STR("text", big), CM_LOG_INT("left_out", 1));
    const char *line = logged(s);
    assert_in_range(strlen(line), CM_LOG_LINE_MAX - 60, CM_LOG_LINE_MAX);
    assert_string_equal(line + strlen(line) - 6, "...\"}\n");
}

static void log_drops_and_counts(void **state)
{
    struct sink *s = *state;
    char block[4096] = {0};

    while (write(s->fds[1], block, sizeof block) > 0)
        ;
    cm_log_open(s->fds[1], CM_LOG_INFO);
    cm_log(CM_LOG_INFO, "lost");
    cm_log(CM_LOG_INFO, "lost");
    assert_int_equal(cm_log_dropped(), 2);
    while (read(s->fds[0], block, sizeof block) > 0)
        ;
    cm_log(CM_LOG_INFO, "found");
    assert_non_null(strstr(logged(s), "\"event\":\"found\",\"dropped\":2}\n"));
    cm_log(CM_LOG_INFO, "again");
    assert_null(strstr(logged(s), "dropped"));
}

static void log_levels(void **state)
{
    enum cm_log_level level;
    (void)state;

    assert_true(cm_log_parse_level("warn", &level));
    assert_int_equal(level, CM_LOG_WARNING);
    assert_true(cm_log_parse_level("DEBUG", &level));
    assert_int_equal(level, CM_LOG_DEBUG);
    assert_false(cm_log_parse_level("loud", &level));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_text),
        cmocka_unit_test(each_program_shows_its_own),
        cmocka_unit_test(metrics_need_no_registry),
        cmocka_unit_test_setup_teardown(log_line, open_sink, close_sink),
        cmocka_unit_test_setup_teardown(log_line_is_capped, open_sink, close_sink),
        cmocka_unit_test_setup_teardown(log_drops_and_counts, open_sink, close_sink),
        cmocka_unit_test(log_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
