/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/conf.h"

static const char *const variables[] = {
#define CM_CONFIG(field, type, env, flag, min, max, def, unit, help) env,
#include "config.def"
#undef CM_CONFIG
};

static int clean(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
        unsetenv(variables[i]);
    return 0;
}

static void has_good_defaults(void **state)
{
    struct cm_conf c;

    (void)state;
    assert_int_equal(cm_conf_load(0, NULL, &c, NULL), 0);
    assert_string_equal(c.host, "127.0.0.1");
    assert_int_equal(c.port, 8080);
    assert_int_equal(c.max_sessions, 100);
    assert_int_equal(c.session_ttl, 3600);
    assert_int_equal(c.log_level, 1);
    assert_int_equal(c.memory_limit, 512u << 20);
    assert_true(c.execution_timeout == 30 && c.grace == 0.25);
    assert_int_equal(c.image_path[0], '/');
    assert_non_null(strstr(c.image_path, "/guest/python.img"));
}

static void a_flag_wins_over_the_environment(void **state)
{
    char *argv[] = {"--port=9001", "--max-timeout", "2m", "--memory-limit", "64Mi"};
    struct cm_conf c;

    (void)state;
    setenv("PORT", "9000", 1);
    setenv("MAX_SESSIONS", "7", 1);
    setenv("SESSION_TTL", "", 1);
    setenv("LOG_LEVEL", "debug", 1);
    setenv("GRACE", "100ms", 1);
    assert_int_equal(cm_conf_load(5, argv, &c, NULL), 0);
    assert_int_equal(c.port, 9001);
    assert_int_equal(c.max_sessions, 7);
    assert_int_equal(c.session_ttl, 3600);
    assert_int_equal(c.log_level, 0);
    assert_true(c.max_timeout == 120 && c.grace == 0.1);
    assert_int_equal(c.memory_limit, 64u << 20);
}

static void names_the_bad_setting(void **state)
{
    static const struct {
        char *argv[2];
        int argc;
        const char *text;
    } cases[] = {
        {{"--port", "65536"}, 2, "--port: \"65536\" is not a whole number from 0 to 65535"},
        {{"--port", "-1"}, 2, "--port"},
        {{"--port", "80x"}, 2, "--port"},
        {{"--port", ""}, 2, "--port"},
        {{"--port=1e3", NULL}, 1, "--port"},
        {{"--port", NULL}, 1, "--port: needs a value"},
        {{"--prot", "1"}, 2, "did you mean --port?"},
        {{"--max-session", "1"}, 2, "did you mean --max-sessions?"},
        {{"--zzz", "1"}, 2, "--help lists all flags"},
        {{"--log-level", "loud"}, 2, "is not DEBUG, INFO, WARNING or ERROR"},
        {{"--memory-limit", "1Ti"}, 2, "is not a size such as 512Mi"},
        {{"--execution-timeout", "1d"}, 2, "is not a time such as 30 or 250ms"},
        {{"--execution-timeout", "301"}, 2, "is above MAX_TIMEOUT"},
        {{"--host", ""}, 2, "--host: must have 1 to 255 bytes"},
        {{"serve", NULL}, 1, "unknown flag \"serve\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cm_conf c = {.port = 12345};
        struct cm_err err = {0};
        assert_int_equal(cm_conf_load(cases[i].argc, cases[i].argv, &c, &err), CM_ERR_CONFIG);
        if (!strstr(err.text, cases[i].text))
            fail_msg("\"%s\" lacks \"%s\"", err.text, cases[i].text);
        assert_int_equal(c.port, 12345);
    }
}

static void names_the_bad_variable(void **state)
{
    struct cm_conf c;
    struct cm_err err;

    (void)state;
    setenv("MAX_SESSIONS", "0", 1);
    assert_int_equal(cm_conf_load(0, NULL, &c, &err), CM_ERR_CONFIG);
    assert_non_null(strstr(err.text, "MAX_SESSIONS: \"0\""));
}

static void help_names_every_setting(void **state)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    (void)state;
    cm_conf_help(out);
    fclose(out);
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
        assert_non_null(strstr(text, variables[i]));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(has_good_defaults, clean),
        cmocka_unit_test_setup(a_flag_wins_over_the_environment, clean),
        cmocka_unit_test_setup(names_the_bad_setting, clean),
        cmocka_unit_test_setup(names_the_bad_variable, clean),
        cmocka_unit_test_setup(help_names_every_setting, clean),
    };

    return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
