/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "conf/rlm.h"

/* Where all of it happens: no file of the machine is taken for ours. */
static int empty_folder(void **state)
{
    static char folder[] = "/tmp/conf_rlm.XXXXXX";

    (void)state;
    unsetenv("LLM_API_KEY");
    unsetenv("OPENAI_API_KEY");
    unsetenv("LLM_MODEL");
    return mkdtemp(folder) ? chdir(folder) : -1;
}

static int leave_folder(void **state)
{
    char folder[256];

    (void)state;
    return getcwd(folder, sizeof folder) && chdir("/") == 0 ? rmdir(folder) : -1;
}

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");

    assert_non_null(f);
    if (!f)
        return; /* not reached */
    fputs(text, f);
    fclose(f);
}

static void has_good_defaults(void **state)
{
    static struct cm_rlm_conf c;

    (void)state;
    assert_int_equal(cm_rlm_conf_load(0, NULL, &c, NULL), 0);
    assert_string_equal(c.host, "127.0.0.1");
    assert_int_equal(c.port.at[0], 8000);
    assert_string_equal(c.llm_model, "gpt-5");
    assert_string_equal(c.wasm_manager_service_url, "");
    assert_int_equal(c.max_depth, 1);
    assert_int_equal(c.max_iterations, 20);
    assert_true(c.execution_timeout == 30);
    assert_true(c.max_context == 1u << 30);
    assert_non_null(strstr(c.codemode_path, "/codemode"));
}

static void reads_the_config_map(void **state)
{
    static struct cm_rlm_conf c;
    char *const argv[] = {"-c", "config.json", "--max-depth", "3"};

    (void)state;
    write_file("config.json",
               "{\n  \"model\": {\"name\": \"gpt-5-mini\", \"type\": \"openai\"},\n"
               "  \"execution\": {\"mode\": \"sidecar\", \"wasm_service_url\": \"http://localhost:8080\"},\n"
               "  \"logging\": {\"level\": \"DEBUG\", \"format\": \"json\"},\n"
               "  \"settings\": {\"max_run_budget\": 2.5, \"max_runs\": 7}\n}\n");
    assert_int_equal(cm_rlm_conf_load(4, argv, &c, NULL), 0);
    unlink("config.json");
    assert_string_equal(c.llm_model, "gpt-5-mini");
    assert_string_equal(c.llm_api, "openai");
    assert_string_equal(c.wasm_manager_service_url, "http://localhost:8080");
    assert_int_equal(c.log_level, 0);
    assert_int_equal(c.max_depth, 3);
    assert_int_equal(c.max_runs, 7);
    assert_true(c.max_run_budget == 2.5);
    assert_string_equal(c.source.file, "config.json");
}

static void refuses_what_is_wrong(void **state)
{
    static struct cm_rlm_conf c;
    static const struct {
        const char *file;
        const char *flag, *says;
    } cases[] = {
        {NULL, "--max-depth=0", "--max-depth"},
        {NULL, "--max-detph=1", "did you mean --max-depth?"},
        {NULL, "--max-budget=lots", "is not a number such as 2.5"},
        {NULL, "--api=soap", "LLM_API"},
        {NULL, "--base-url=localhost:1234", "LLM_BASE_URL: must be a URL"},
        {NULL, "--sidecar-url=http://", "WASM_MANAGER_SERVICE_URL: must be a URL"},
        {"model: {nam: x}\n", "--max-depth=1", "did you mean name?"},
        {"settings: {max_sessionz: 3}\n", "--max-depth=1", "did you mean max_sessions?"},
        {"logging: {format: text}\n", "--max-depth=1", "not supported"},
        {"executor_url: http://localhost:8001\n", "--max-depth=1", "unknown key of rlm.yaml"},
    };
    struct cm_err err;

    (void)state;
    for (size_t i = 0; i < CM_COUNT_OF(cases); i++) {
        char *const argv[] = {(char *)cases[i].flag};
        if (cases[i].file)
            write_file("rlm.yaml", cases[i].file);
        assert_int_equal(cm_rlm_conf_load(1, argv, &c, &err), CM_ERR_CONFIG);
        if (!strstr(err.text, cases[i].says))
            fail_msg("\"%s\" is missing in: %s", cases[i].says, err.text);
        unlink("rlm.yaml");
    }
}

static void reads_keys_from_files(void **state)
{
    static struct cm_rlm_conf c;
    char *const argv[] = {"--llm-api-key-file=key"};
    struct cm_err err;

    (void)state;
    assert_int_equal(cm_rlm_conf_load(1, argv, &c, &err), CM_ERR_CONFIG);
    assert_non_null(strstr(err.text, "LLM_API_KEY_FILE: key: No such file"));
    write_file("key", "two words\n");
    assert_int_equal(cm_rlm_conf_load(1, argv, &c, &err), CM_ERR_CONFIG);
    assert_null(strstr(err.text, "two"));
    write_file("key", " sk-from-a-file\n");
    assert_int_equal(cm_rlm_conf_load(1, argv, &c, &err), 0);
    assert_string_equal(c.llm_api_key, "sk-from-a-file");
    setenv("OPENAI_API_KEY", "sk-from-a-variable", 1); /* another name of LLM_API_KEY */
    assert_int_equal(cm_rlm_conf_load(1, argv, &c, &err), 0);
    assert_string_equal(c.llm_api_key, "sk-from-a-variable");
    unsetenv("OPENAI_API_KEY");
    unlink("key");
}

static void shows_no_secret(void **state)
{
    static struct cm_rlm_conf c;
    char *const argv[] = {"--llm-api-key=sk-hidden", "--api-key=also-hidden",
                          "--base-url=https://me:hidden@h.example/v1?key=hidden"};
    char *text = NULL;
    size_t len = 0;

    (void)state;
    assert_int_equal(cm_rlm_conf_load(3, argv, &c, NULL), 0);
    FILE *f = open_memstream(&text, &len);
    cm_rlm_conf_show(&c, f);
    fclose(f);
    assert_non_null(strstr(text, "llm_api_key: \"***\"  # flag --llm-api-key\n"));
    assert_non_null(strstr(text, "llm_base_url: \"https://h.example/v1\"  # "));
    assert_null(strstr(text, "hidden"));
    free(text);
}

/* What holds where nobody asks cannot be more than anybody may ask for. */
static void a_default_is_within_its_cap(void **state)
{
    static struct cm_rlm_conf c;
    char *const above[] = {"--max-concurrent-subcalls-cap=3"}, *const at[] = {"--max-concurrent-subcalls-cap=4"};
    char *const sum[] = {"--max-budget=2.5", "--max-budget-cap=2.4"};
    struct cm_err err;

    (void)state;
    assert_int_equal(cm_rlm_conf_load(1, at, &c, &err), 0);
    assert_int_equal(cm_rlm_conf_load(1, above, &c, &err), CM_ERR_CONFIG);
    assert_string_equal(err.text, "MAX_CONCURRENT_SUBCALLS: 4 is above MAX_CONCURRENT_SUBCALLS_CAP, which is 3");
    assert_int_equal(cm_rlm_conf_load(2, sum, &c, &err), CM_ERR_CONFIG);
    assert_string_equal(err.text, "RLM_MAX_BUDGET: 2.5 is above RLM_MAX_BUDGET_CAP, which is 2.4");
}

static void reload_takes_what_it_can(void **state)
{
    static struct cm_rlm_conf c;
    char *const argv[] = {"-c", "r.yaml"};
    char changed[CM_CONF_NAMES_MAX], kept[CM_CONF_NAMES_MAX];
    struct cm_err err;

    (void)state;
    write_file("r.yaml", "settings: {max_iterations: 5, max_runs: 3}\n");
    assert_int_equal(cm_rlm_conf_load(2, argv, &c, &err), 0);
    write_file("r.yaml", "settings: {max_iterations: 6, max_runs: 4}\n");
    assert_int_equal(cm_rlm_conf_reload(&c, changed, kept, &err), 0);
    assert_string_equal(changed, "max_iterations");
    assert_string_equal(kept, "max_runs");
    assert_int_equal(c.max_iterations, 6);
    assert_int_equal(c.max_runs, 3);
    write_file("r.yaml", "settings: {max_iterations: none}\n");
    assert_int_equal(cm_rlm_conf_reload(&c, changed, kept, &err), CM_ERR_CONFIG);
    assert_int_equal(c.max_iterations, 6);
    unlink("r.yaml");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_good_defaults),
        cmocka_unit_test(reads_the_config_map),
        cmocka_unit_test(refuses_what_is_wrong),
        cmocka_unit_test(reads_keys_from_files),
        cmocka_unit_test(shows_no_secret),
        cmocka_unit_test(reload_takes_what_it_can),
        cmocka_unit_test(a_default_is_within_its_cap),
    };

    return cmocka_run_group_tests_name("conf_rlm", tests, empty_folder, leave_folder);
}
