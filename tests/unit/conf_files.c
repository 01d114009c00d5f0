/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/conf.h"
#include "conf/files.h"
#include "conf/substitute.h"
#include "conf/tree.h"

#define HEAD "project:\n  name: p\n" /* lines 1 and 2 of a unified file */

static int environment(void **state)
{
    (void)state;
    setenv("CONF_SET", "value", 1);
    setenv("CONF_EMPTY", "", 1);
    setenv("CONF_NUMBER", "42", 1);
    setenv("CONF_BYTES", "\xff", 1);
    unsetenv("CONF_UNSET");
    return 0;
}

/* Reads a text; its problems, or NULL when there is none. For free(). */
static char *problems_of(const char *text, enum cm_file_kind kind, struct cm_conf *ret)
{
    struct cm_report r;
    struct cm_conf_file f;
    struct cm_conf conf;

    cm_report_init(&r, "f");
    int rc = cm_conf_file_parse(text, strlen(text), "f.yaml", kind, &f, &r);
    if (rc == 0) {
        assert_int_equal(cm_conf_defaults(&conf, NULL), 0);
        rc = cm_conf_file_apply(&f, &conf, &r);
    }
    assert_true((rc == 0) == (r.error_count == 0));
    char *problems = rc == 0 ? NULL : strdup(cm_buf_data(&r.errors));
    if (rc == 0 && ret)
        *ret = conf;
    cm_conf_file_done(&f);
    cm_report_done(&r);
    return problems;
}

static void good(const char *text, enum cm_file_kind kind, struct cm_conf *ret)
{
    char *problems = problems_of(text, kind, ret);

    if (problems)
        fail_msg("%s", problems);
    free(problems);
}

/* variables */

static void replaces_variables(void **state)
{
    static const struct {
        const char *from, *to; /* NULL: refused */
    } cases[] = {
        {"", ""},
        {"plain", "plain"},
        {"${CONF_SET}", "value"},
        {"a-${CONF_SET}-b", "a-value-b"},
        {"${CONF_SET}${CONF_NUMBER}", "value42"},
        {"${CONF_UNSET:-x}", "x"},
        {"${CONF_UNSET:-}", ""},
        {"${CONF_EMPTY:-x}", "x"},
        {"${CONF_EMPTY}", ""},
        {"${CONF_SET:-x}", "value"},
        {"${CONF_UNSET:-a:-b $$ c}", "a:-b $$ c"},
        {"$$", "$"},
        {"$${CONF_SET}", "${CONF_SET}"},
        {"cost: 5$", "cost: 5$"},
        {"$CONF_SET", "$CONF_SET"},
        {"${CONF_UNSET}", NULL},
        {"${CONF_SET", NULL},
        {"${}", NULL},
        {"${:-x}", NULL},
        {"${1A}", NULL},
        {"${CONF SET}", NULL},
        {"${CONF_SET-x}", NULL},
        {"${CONF_SET:x}", NULL},
        {"${CONF_UNSET:-${CONF_SET}}", NULL},
    };
    struct cm_buf b;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_err err;
        cm_buf_init(&b, 1000);
        int rc = cm_substitute(cases[i].from, &b, &err);
        assert_int_equal(rc, cases[i].to ? 0 : CM_ERR_CONFIG);
        if (cases[i].to)
            assert_string_equal(cm_buf_data(&b), cases[i].to);
        cm_buf_done(&b);
    }
    cm_buf_init(&b, 3);
    assert_int_equal(cm_substitute("${CONF_SET}", &b, NULL), CM_ERR_TOO_LARGE);
    cm_buf_done(&b);
}

/* what is wrong, and where */

static void names_line_and_column(void **state)
{
    static const struct {
        enum cm_file_kind kind;
        const char *text, *problem;
    } cases[] = {
        {CM_FILE_SIDECAR, "port: 0\n", "f:1:7: port: \"0\" is not a whole number from 1 to 65535\n"},
        {CM_FILE_SIDECAR, "\nport: many\n", "f:2:7: port: \"many\" is not a whole number"},
        {CM_FILE_SIDECAR, "port: [1]\n", "f:1:7: port: wants a whole number, not a list\n"},
        {CM_FILE_SIDECAR, "limits: 5\n", "f:1:9: limits: wants a mapping, not this text\n"},
        {CM_FILE_SIDECAR, "limits:\n  code_timeout: 301\n", "f:2:17: limits.code_timeout: \"301\" is not a time"},
        {CM_FILE_SIDECAR, "limits:\n  code_tiemout: 3\n",
         "f:2:3: limits.code_tiemout: unknown key of codemode-sidecar.yaml; did you mean code_timeout?\n"},
        {CM_FILE_SIDECAR, "limits.code_timeout: 3\n", "f:1:1: limits.code_timeout: unknown key"},
        {CM_FILE_SIDECAR, "zzzzzzzzz: 3\n", "f:1:1: zzzzzzzzz: unknown key of codemode-sidecar.yaml\n"},
        {CM_FILE_SIDECAR, "port: 1\nport: 2\n", "f:2:1: port: this key is there twice\n"},
        {CM_FILE_SIDECAR, "tls: {enabled: maybe}\n", "f:1:16: tls.enabled: \"maybe\" is not true or false\n"},
        {CM_FILE_SIDECAR, "main_app_grpc_target: localhost\n", "f:1:23: main_app_grpc_target: \"localhost\" is not"},
        {CM_FILE_SIDECAR, "log_level: LOUD\n", "f:1:12: log_level: \"LOUD\" is not DEBUG, INFO"},
        {CM_FILE_SIDECAR, "security:\n  allow_direct_execution: true\n",
         "f:2:27: security.allow_direct_execution: not supported: only false is"},
        {CM_FILE_SIDECAR, "security:\n  policy: none\n",
         "f:2:11: security.policy: \"none\" is not one of isolate|strict"},
        {CM_FILE_SIDECAR, "security:\n  blocked_imports: os\n", "f:2:20: security.blocked_imports: wants a list"},
        {CM_FILE_SIDECAR, "security:\n  allowed_commands: [ls]\n", "f:2:21: security.allowed_commands: not supported"},
        {CM_FILE_SIDECAR, "tls:\n  require_client_auth: on\n", "needs tls.ca_file as well"},
        {CM_FILE_SIDECAR, "tls:\n  cert_file: a\n", "needs tls.key_file as well"},
        {CM_FILE_SIDECAR, "callback_tls:\n  client_key: a\n", "needs callback_tls.client_cert as well"},
        {CM_FILE_SIDECAR, "settings:\n  max_sesions: 5\n",
         "f:2:3: settings.max_sesions: unknown setting; did you mean max_sessions?\n"},
        {CM_FILE_SIDECAR, "settings:\n  max_sessions: none\n", "f:2:17: max_sessions: \"none\" is not a whole number"},
        {CM_FILE_SIDECAR, "port: 9000\nsettings:\n  port: 9001\n", "f:3:3: settings.port: port has set it in line 1\n"},
        {CM_FILE_SIDECAR, "host: ${CONF_UNSET}\n", "f:1:7: the variable CONF_UNSET is not set"},
        {CM_FILE_SIDECAR, "host: \"${CONF_BYTES}\"\n", "f:1:7: a variable's value is not UTF-8\n"},
        {CM_FILE_SIDECAR, "host: \"a\\0b\"\n", "f:1:7: a text must not hold the character NUL\n"},
        {CM_FILE_SIDECAR, "host: &a x\n", "f:1:7: anchors are not supported\n"},
        {CM_FILE_SIDECAR, "host: *a\n", "f:1:7: aliases are not supported"},
        {CM_FILE_SIDECAR, "host: !!str x\n", "f:1:7: tags are not supported\n"},
        {CM_FILE_SIDECAR, "tls:\n  <<: {}\n", "f:2:3: <<: merge keys are not supported\n"},
        {CM_FILE_SIDECAR, "[1]: 2\n", "f:1:1: a key must be a text\n"},
        {CM_FILE_SIDECAR, "- a\n", "f:1:1: the file: wants a mapping, not a list\n"},
        {CM_FILE_SIDECAR, "port: 1\n---\nport: 2\n", "f:2:1: more than one document\n"},
        {CM_FILE_SIDECAR, "port: 1\n host: x\n", "f:2:6: not YAML: "},
        {CM_FILE_SIDECAR, "host: \"x\n", "not YAML: "},
        {CM_FILE_SIDECAR, "host: \xff\n", "f: byte 6: "},
        {CM_FILE_CLIENT, "", "f:1:1: executor_url: is required, e.g. http://localhost:8001\n"},
        {CM_FILE_CLIENT, "executor_url: http://\n", "f:1:15: executor_url: not a URL such as"},
        {CM_FILE_CLIENT, "retry:\n  backoff_base_ms: 200\n  backoff_max_ms: 100\n",
         "f:2:20: retry.backoff_base_ms: is above"},
        {CM_FILE_CLIENT, "observability:\n  correlation_id_prefix: far-too-long\n", "must have 1 to 8 bytes"},
        {CM_FILE_UNIFIED, HEAD, "executor.url: is required"},
        {CM_FILE_UNIFIED, HEAD "executor:\n  url: http://x\n", "f:3:1: executor.api_key: is required"},
        {CM_FILE_UNIFIED, HEAD "executor:\n  network:\n    mode: all\n",
         "f:5:11: executor.network.mode: not supported: only none is; code reaches no network but through tools\n"},
        {CM_FILE_UNIFIED, HEAD "executor:\n  network:\n    mode: some\n", "is not one of none|restricted|all\n"},
        {CM_FILE_UNIFIED, HEAD "executor:\n  filesystem:\n    workspace:\n      mount: /home\n",
         "f:6:14: executor.filesystem.workspace.mount: not supported: only /workspace is"},
        {CM_FILE_UNIFIED, HEAD "executor:\n  filesystem:\n    outputs:\n      max_size: 1Gi\n",
         "executor.filesystem.outputs.max_size: not supported: only an empty value is"},
        {CM_FILE_UNIFIED, HEAD "logging:\n  format: text\n", "logging.format: not supported: only json is"},
        {CM_FILE_UNIFIED, HEAD "config: 5\n", "f:3:9: config: wants a mapping, not this text\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *problems = problems_of(cases[i].text, cases[i].kind, NULL);
        if (!problems || !strstr(problems, cases[i].problem))
            fail_msg("case %zu: \"%s\" lacks \"%s\"", i, problems ? problems : "no problem", cases[i].problem);
        free(problems);
    }
}

static void reports_all_problems(void **state)
{
    char *problems = problems_of("port: 0\nhots: x\nlimits:\n  code_timeout: x\n", CM_FILE_SIDECAR, NULL);

    (void)state;
    assert_non_null(strstr(problems, "f:1:7: port"));
    assert_non_null(strstr(problems, "f:2:1: hots: unknown key"));
    assert_non_null(strstr(problems, "f:4:17: limits.code_timeout"));
    free(problems);
}

static void bounds_documents(void **state)
{
    char *text = malloc(CM_YAML_SIZE_MAX + 2), *problems;
    size_t n = 0;

    (void)state;
    memset(text, '#', CM_YAML_SIZE_MAX + 1);
    text[CM_YAML_SIZE_MAX] = '\0';
    good(text, CM_FILE_SIDECAR, NULL);
    text[CM_YAML_SIZE_MAX] = '#';
    text[CM_YAML_SIZE_MAX + 1] = '\0';
    problems = problems_of(text, CM_FILE_SIDECAR, NULL);
    assert_string_equal(problems, "f: longer than 1 MiB\n");
    free(problems);
    n = (size_t)sprintf(text, "settings: ");
    for (int i = 0; i < 16; i++)
        n += (size_t)sprintf(text + n, "{a: ");
    problems = problems_of(text, CM_FILE_SIDECAR, NULL);
    assert_non_null(strstr(problems, "more than 16 levels"));
    free(problems);
    n = (size_t)sprintf(text, "settings:\n");
    for (int i = 0; i <= CM_YAML_KEYS_MAX; i++)
        n += (size_t)sprintf(text + n, "  k%d: 1\n", i);
    problems = problems_of(text, CM_FILE_SIDECAR, NULL);
    assert_non_null(strstr(problems, "too many keys in one mapping"));
    free(problems);
    n = (size_t)sprintf(text, "settings: [");
    for (int i = 0; i <= CM_YAML_NODES_MAX; i++)
        n += (size_t)sprintf(text + n, "1,");
    problems = problems_of(text, CM_FILE_SIDECAR, NULL);
    assert_non_null(strstr(problems, "too many values"));
    free(problems);
    free(text);
}

/* Reference after reference to a long variable. */
static void bounds_variables(void **state)
{
    char *value = malloc(60001), *text = malloc(100000), *problems;
    size_t n = (size_t)sprintf(text, "security:\n  allowed_commands:\n");

    (void)state;
    memset(value, 'x', 60000);
    value[60000] = '\0';
    setenv("CONF_LONG", value, 1);
    for (int i = 0; i < 100; i++)
        n += (size_t)sprintf(text + n, "  - ${CONF_LONG}\n");
    problems = problems_of(text, CM_FILE_SIDECAR, NULL);
    assert_non_null(strstr(problems, "too much text"));
    free(problems);
    problems = problems_of("host: ${CONF_LONG}${CONF_LONG}\n", CM_FILE_SIDECAR, NULL);
    assert_non_null(strstr(problems, "f:1:7: the value with its variables is too long"));
    free(problems);
    unsetenv("CONF_LONG");
    free(value);
    free(text);
}

/* what a file means */

static void a_file_has_defaults_of_its_own(void **state)
{
    struct cm_conf c = {0};

    (void)state;
    good("", CM_FILE_SIDECAR, &c);
    assert_string_equal(c.host, "0.0.0.0");
    assert_int_equal(c.max_code_length, 10000);
    assert_true(c.execution_timeout == 30);
    assert_int_equal(c.source.origins[CM_CONF_ROW_host].from, CM_CONF_FILE_DEFAULT);
    assert_int_equal(c.source.origins[CM_CONF_ROW_max_sessions].from, CM_CONF_DEFAULT);
}

static void a_sidecar_file_sets(void **state)
{
    struct cm_conf c = {0};

    (void)state;
    good("host: 127.0.0.1\nlimits: {code_timeout: 10s, max_code_length: \"${CONF_NUMBER}00\"}\nlog_level: critical\n"
         "security:\n  allow_direct_execution: No\n  allowed_commands:\napi_key:\n"
         "settings:\n  max_sessions: ${CONF_NUMBER}\n  session_ttl: \"7\"\n",
         CM_FILE_SIDECAR, &c);
    assert_string_equal(c.host, "127.0.0.1");
    assert_true(c.execution_timeout == 10 && c.max_code_length == 4200);
    assert_int_equal(c.log_level, 3);
    assert_int_equal(c.max_sessions, 42);
    assert_int_equal(c.session_ttl, 7);
    assert_int_equal(c.source.origins[CM_CONF_ROW_max_sessions].from, CM_CONF_FILE);
    assert_int_equal(c.source.origins[CM_CONF_ROW_max_sessions].line, 9);
    assert_string_equal(c.source.origins[CM_CONF_ROW_execution_timeout].name, "limits.code_timeout");
}

static void lists_of_the_policy(void **state)
{
    struct cm_conf c = {0};

    (void)state;
    good("security:\n  policy: strict\n  blocked_imports: [pandas, os.remove]\n  allowed_imports:\n  - ${CONF_SET}\n"
         "  safe_builtins: []\n",
         CM_FILE_SIDECAR, &c);
    assert_string_equal(c.security_policy, "strict");
    assert_string_equal(c.blocked_imports, "pandas,os.remove");
    assert_string_equal(c.allowed_imports, "value");
    assert_string_equal(c.safe_builtins, "");
}

static void json_of_config(void **state)
{
    static const char text[] = "a: 1\nb: [1.5, -2, true, null, ~, '1', 0x10, 1e3, 007, yes]\nc: {d: \"x\\ny\"}\n"
                               "e: ${CONF_NUMBER}\nf: '${CONF_NUMBER}'\ng: {}\nh: []\ni:\n";
    struct cm_report r;
    struct cm_buf b;

    (void)state;
    cm_report_init(&r, "f");
    cm_buf_init(&b, 1000);
    struct cm_yaml *root = cm_yaml_read(text, sizeof text - 1, &r);
    assert_int_equal(r.error_count, 0);
    assert_int_equal(cm_yaml_json(root, &b), 0);
    assert_string_equal(cm_buf_data(&b), "{\"a\":1,\"b\":[1.5,-2,true,null,null,\"1\",\"0x10\",1e3,\"007\",\"yes\"],"
                                         "\"c\":{\"d\":\"x\\ny\"},\"e\":42,\"f\":\"42\",\"g\":{},\"h\":[],\"i\":null}");
    cm_yaml_free(root);
    cm_buf_done(&b);
    cm_report_done(&r);
}

static void tells_kinds_apart(void **state)
{
    static const struct {
        const char *text, *name;
        enum cm_file_kind kind;
    } cases[] = {
        {"port: 1\n", "x.yaml", CM_FILE_SIDECAR},
        {"executor_url: http://x\n", "x.yaml", CM_FILE_CLIENT},
        {"executor: {}\n", "sidecar.yaml", CM_FILE_UNIFIED},
        {"tls: {}\n", "my-client.yaml", CM_FILE_CLIENT},
        {"tls: {}\n", "codemode-sidecar.yaml", CM_FILE_SIDECAR},
        {"", "codemode.yaml", CM_FILE_UNIFIED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_report r;
        struct cm_conf_file f;
        cm_report_init(&r, "f");
        cm_conf_file_parse(cases[i].text, strlen(cases[i].text), cases[i].name, CM_FILE_ANY, &f, &r);
        assert_int_equal(f.kind, cases[i].kind);
        cm_conf_file_done(&f);
        cm_report_done(&r);
    }
}

#define UNIFIED(url, rest) HEAD "executor:\n  url: " url "\n  api_key: 12345678\n" rest

static void a_unified_file_sets(void **state)
{
    struct cm_conf c = {0};

    (void)state;
    good(UNIFIED("http://localhost:8001", "config:\n  tool_service_grpc: app:5\n  n: ${CONF_NUMBER}\n"
                                          "grpc:\n  tls:\n    enabled: true\n    ca_file: a\n"
                                          "security:\n  policy: strict\n"),
         CM_FILE_UNIFIED, &c);
    assert_string_equal(c.api_key, "12345678");
    assert_string_equal(c.main_app_target, "app:5");
    assert_string_equal(c.config_json, "{\"tool_service_grpc\":\"app:5\",\"n\":42}");
    assert_string_equal(c.security_policy, "strict");
    assert_true(c.tls && c.callback_tls);
    assert_string_equal(c.tls_ca_file, "a");
    assert_string_equal(c.callback_tls_ca_file, "a");
    assert_string_equal(c.host, "127.0.0.1");
    assert_true(c.port.count == 1 && c.port.at[0] == 8001);
    good(UNIFIED("http://127.0.0.1:9005/x", ""), CM_FILE_UNIFIED, &c);
    assert_int_equal(c.port.at[0], 9005);
    assert_string_equal(c.main_app_target, "localhost:50051");
    assert_string_equal(c.config_json, "");
    good(UNIFIED("http://executor:9005", ""), CM_FILE_UNIFIED, &c);
    assert_int_equal(c.port.at[0], 8001);
    good(UNIFIED("http://localhost:9005", "settings:\n  port: 9006,9007\n"), CM_FILE_UNIFIED, &c);
    assert_true(c.port.count == 2 && c.port.at[0] == 9006);
    char *problems = problems_of(UNIFIED("http://x", "config: {tool_service_grpc: nowhere}\n"), CM_FILE_UNIFIED, NULL);
    assert_string_equal(problems, "f:6:29: config.tool_service_grpc: is not HOST:PORT\n");
    free(problems);
}

/* the tables */

static void every_default_is_right(void **state)
{
    (void)state;
    setenv("CODEMODE_API_KEY", "k", 1);
    for (int kind = 0; kind < CM_FILE_ANY; kind++) {
        char *text = NULL;
        size_t len;
        FILE *out = open_memstream(&text, &len);
        cm_conf_file_print_defaults((enum cm_file_kind)kind, out);
        fclose(out);
        good(text, (enum cm_file_kind)kind, NULL);
        for (size_t i = 0; i < CM_FILE_KEYS; i++) {
            const char *last = strrchr(cm_file_keys[i].path, '.');
            if (cm_file_keys[i].kind == (enum cm_file_kind)kind)
                assert_non_null(strstr(text, last ? last + 1 : cm_file_keys[i].path));
        }
        free(text);
    }
    unsetenv("CODEMODE_API_KEY");
}

static void every_field_is_a_setting(void **state)
{
    (void)state;
    for (size_t i = 0; i < CM_FILE_KEYS; i++) {
        const struct cm_file_key *k = &cm_file_keys[i];
        bool server = k->use == CM_USE_SERVER || k->use == CM_USE_NEEDED;
        assert_true(server == (*k->fields != '\0'));
        for (const char *at = k->fields; *at; at += strcspn(at, ","), at += *at == ',')
            if (!cm_row_by_field(cm_conf_file_schema(cm_file_keys[i].kind), at, strcspn(at, ",")))
                fail_msg("%s: no setting %s", k->path, at);
    }
}

static bool sets(const struct cm_schema *s, const char *env, const char *field, size_t len)
{
    const struct cm_row *row = cm_row_by_field(s, field, len);
    bool known = row && strcmp(row->env, env) == 0;

    for (size_t i = 0; row && i < s->aliases_count; i++)
        known |= &s->rows[s->aliases[i].row] == row && strcmp(s->aliases[i].env, env) == 0;
    return known;
}

static bool is_refused(const struct cm_schema *s, const char *env)
{
    for (size_t i = 0; i < s->refused_count; i++)
        if (strcmp(s->refused[i].env, env) == 0)
            return true;
    return false;
}

/* The variables of a server's keys are main names or aliases of the same fields. */
static void every_variable_is_known(void **state)
{
    (void)state;
    for (size_t i = 0; i < CM_FILE_KEYS; i++) {
        const struct cm_file_key *k = &cm_file_keys[i];
        const struct cm_schema *s = cm_conf_file_schema(k->kind);
        unsigned fields = 0;
        if (!*k->env || k->use == CM_USE_CLIENT || k->use == CM_USE_REQUIRED)
            continue;
        for (const char *at = k->fields; *at; at += strcspn(at, ","), at += *at == ',') {
            if (!sets(s, k->env, at, strcspn(at, ",")) && !is_refused(s, k->env))
                fail_msg("%s: %s does not set %s", k->path, k->env, at);
            fields++;
        }
        assert_true(fields > 0 || k->use == CM_USE_ONLY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(replaces_variables, environment),
        cmocka_unit_test_setup(names_line_and_column, environment),
        cmocka_unit_test(reports_all_problems),
        cmocka_unit_test(bounds_documents),
        cmocka_unit_test(bounds_variables),
        cmocka_unit_test(a_file_has_defaults_of_its_own),
        cmocka_unit_test_setup(a_sidecar_file_sets, environment),
        cmocka_unit_test_setup(lists_of_the_policy, environment),
        cmocka_unit_test_setup(json_of_config, environment),
        cmocka_unit_test(tells_kinds_apart),
        cmocka_unit_test(every_default_is_right),
        cmocka_unit_test(every_field_is_a_setting),
        cmocka_unit_test_setup(a_unified_file_sets, environment),
        cmocka_unit_test(every_variable_is_known),
    };

    return cmocka_run_group_tests_name("conf_files", tests, NULL, NULL);
}
