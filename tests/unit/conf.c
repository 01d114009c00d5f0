/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/conf.h"
#include "conf/policy.h"

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
    assert_int_equal(c.port.count, 2);
    assert_int_equal(c.port.at[0], 8080);
    assert_int_equal(c.port.at[1], 8001);
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
    assert_int_equal(c.port.count, 1);
    assert_int_equal(c.port.at[0], 9001);
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
        {{"--port", "65536"}, 2, "--port: \"65536\" is not a port, or up to four separated by commas, from 0 to 65535"},
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
        {{"--execution-timeout", "301"}, 2, "EXECUTION_TIMEOUT (301) is above MAX_TIMEOUT (300)"},
        {{"--max-memory", "256Mi"}, 2, "MEMORY_LIMIT (536870912) is above MAX_MEMORY (268435456)"},
        {{"--output-limit", "1023"}, 2, "OUTPUT_LIMIT (1023) is less than the least that works, 1024 bytes"},
        {{"--security-policy", "stricT"}, 2, "CODEMODE_SECURITY_POLICY: \"stricT\" is neither isolate nor strict"},
        {{"--security-policy", "strictly"}, 2, "--security-policy: must have 6 to 7 bytes"},
        {{"--blocked-imports", "a,b;c"}, 2, "CODEMODE_BLOCKED_IMPORTS: \"b;c\" is not a name in Python"},
        {{"--allowed-imports", "a..b"}, 2, "CODEMODE_ALLOWED_IMPORTS: \"a..b\""},
        {{"--allowed-imports", "a."}, 2, "CODEMODE_ALLOWED_IMPORTS: \"a.\""},
        {{"--allowed-imports", "a.9"}, 2, "CODEMODE_ALLOWED_IMPORTS: \"a.9\""},
        {{"--safe-builtins", "open()"}, 2, "CODEMODE_SAFE_BUILTINS: \"open()\""},
        {{"--host", ""}, 2, "--host: must have 1 to 255 bytes"},
        {{"serve", NULL}, 1, "unknown flag \"serve\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cm_conf c = {.queue_max = 12345};
        struct cm_err err = {0};
        assert_int_equal(cm_conf_load(cases[i].argc, cases[i].argv, &c, &err), CM_ERR_CONFIG);
        if (!strstr(err.text, cases[i].text))
            fail_msg("\"%s\" lacks \"%s\"", err.text, cases[i].text);
        assert_int_equal(c.queue_max, 12345);
    }
}

static void makes_rules_of_the_policy(void **state)
{
    char *argv[] = {"--security-policy=strict", "--blocked-imports= pandas ,,os.remove, _x9 ", "--safe-builtins",
                    "open"};
    char rules[CM_CONF_RULES_MAX] = "before";
    struct cm_conf c;
    bool strict = true;

    (void)state;
    assert_int_equal(cm_conf_load(0, NULL, &c, NULL), 0);
    assert_int_equal(cm_conf_policy(&c, &strict, rules, NULL), 0);
    assert_false(strict);
    assert_string_equal(rules, ";;");
    assert_int_equal(cm_conf_load(4, argv, &c, NULL), 0);
    assert_int_equal(cm_conf_policy(&c, &strict, rules, NULL), 0);
    assert_true(strict);
    assert_string_equal(rules, "pandas,os.remove,_x9;;open");
    memset(c.blocked_imports, 'x', 1000);
    memset(c.allowed_imports, 'y', 1000);
    memset(c.safe_builtins, 'z', 1000);
    assert_int_equal(cm_conf_policy(&c, NULL, rules, NULL), 0);
    assert_int_equal(strlen(rules), 3002);
}

static void a_switch_may_stand_alone(void **state)
{
    char *argv[] = {"--tls", "--allow-keyless", "no", "--callback-tls"};
    char *last[] = {"--tls-require-client-auth=false", "--tls"};
    struct cm_conf c;

    (void)state;
    assert_int_equal(cm_conf_load(4, argv, &c, NULL), 0);
    assert_true(c.tls && c.callback_tls && !c.allow_keyless);
    assert_int_equal(cm_conf_load(2, last, &c, NULL), 0);
    assert_true(c.tls && !c.tls_require_client_auth);
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

static void completes_limits(void **state)
{
    struct cm_limits defaults, caps;
    struct cm_conf c;

    (void)state;
    assert_int_equal(cm_conf_load(0, NULL, &c, NULL), 0);
    cm_conf_limits(&c, &defaults, &caps);
    assert_true(defaults.at[CM_LIMIT_MEMORY] == 536870912 && caps.at[CM_LIMIT_MEMORY] == 536870912);
    assert_true(defaults.at[CM_LIMIT_OUTPUT] == 1048576 && caps.at[CM_LIMIT_OUTPUT] == 1048576);
    assert_true(defaults.at[CM_LIMIT_CPU_TIME] == 300 && caps.at[CM_LIMIT_CPU_TIME] == 300);
    assert_true(defaults.at[CM_LIMIT_TIMEOUT] == 30 && caps.at[CM_LIMIT_TIMEOUT] == 300);
    for (int i = 0; i < CM_LIMITS; i++)
        assert_true(defaults.at[i] >= cm_limit_info(i)->min && defaults.at[i] <= caps.at[i]);
    assert_true(defaults.at[CM_LIMIT_TOOL_CALLS] == 1000 && caps.at[CM_LIMIT_TOOL_CALLS] == 100000);
    assert_true(defaults.at[CM_LIMIT_TOOL_ARGUMENT] == 1 << 20 && caps.at[CM_LIMIT_TOOL_ARGUMENT] == 16 << 20);
    assert_true(defaults.at[CM_LIMIT_TOOL_RESULT] == 4 << 20 && caps.at[CM_LIMIT_TOOL_RESULT] == 16 << 20);
    assert_true(defaults.at[CM_LIMIT_TOOL_TIMEOUT] == 30 && caps.at[CM_LIMIT_TOOL_TIMEOUT] == 300);
    c.max_timeout = 20;
    c.tool_calls_limit = 0;
    c.max_memory = 1u << 30;
    c.output_limit = 2000;
    c.queue_max = 0;
    c.cpu_time_limit = 5;
    cm_conf_limits(&c, &defaults, &caps);
    assert_true(defaults.at[CM_LIMIT_MEMORY] == 536870912 && caps.at[CM_LIMIT_MEMORY] == 1u << 30);
    assert_true(defaults.at[CM_LIMIT_OUTPUT] == 2000 && caps.at[CM_LIMIT_OUTPUT] == 1048576);
    assert_true(defaults.at[CM_LIMIT_QUEUE] == 0 && caps.at[CM_LIMIT_QUEUE] == 0);
    assert_true(defaults.at[CM_LIMIT_CPU_TIME] == 5 && caps.at[CM_LIMIT_CPU_TIME] == 5);
    assert_true(defaults.at[CM_LIMIT_TOOL_TIMEOUT] == 20 && caps.at[CM_LIMIT_TOOL_TIMEOUT] == 20);
    assert_true(defaults.at[CM_LIMIT_TOOL_CALLS] == 0 && caps.at[CM_LIMIT_TOOL_CALLS] == 100000);
}

/* The texts of limits.def and config.def name the same settings. */
static void limits_name_their_settings(void **state)
{
    (void)state;
    for (int i = 0; i < CM_LIMITS; i++) {
        unsigned found = 0;
        for (size_t v = 0; v < sizeof(variables) / sizeof(variables[0]); v++)
            found +=
                !strcmp(variables[v], cm_limit_info(i)->def_key) + !strcmp(variables[v], cm_limit_info(i)->cap_key);
        assert_int_equal(found, 2);
        assert_int_equal(cm_limit_find(cm_limit_info(i)->name, strlen(cm_limit_info(i)->name)), i);
    }
    assert_int_equal(cm_limit_find("memory", 5), -1);
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
        cmocka_unit_test_setup(makes_rules_of_the_policy, clean),
        cmocka_unit_test_setup(names_the_bad_setting, clean),
        cmocka_unit_test(a_switch_may_stand_alone),
        cmocka_unit_test_setup(names_the_bad_variable, clean),
        cmocka_unit_test_setup(completes_limits, clean),
        cmocka_unit_test_setup(limits_name_their_settings, clean),
        cmocka_unit_test_setup(help_names_every_setting, clean),
    };

    return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
