/* SPDX-License-Identifier: Apache-2.0 */
/* What a request may ask for, and what keys leave to one another. */
#include "infer_world.h"

/* Each cap at its edge: as much is taken, more is refused with all that there is to know, and times are cut. */
static void limits_have_caps(void **state)
{
    static const struct {
        const char *members, *says; /* "": it is taken */
    } cases[] = {
        {"\"max_depth\":3", ""},
        {"\"max_depth\":4", "max_depth: 4 is above the server's cap of 3; ask for less, or start the server with a "
                            "higher MAX_DEPTH_CAP"},
        {"\"max_iterations\":30", ""},
        {"\"max_iterations\":31", "max_iterations: 31 is above the server's cap of 30"},
        {"\"max_errors\":5", ""},
        {"\"max_errors\":6", "higher RLM_MAX_ERRORS_CAP"},
        {"\"max_errors\":0", "max_errors: 0, no limit, is above the server's cap of 5"},
        {"\"max_concurrent_subcalls\":8", ""},
        {"\"max_concurrent_subcalls\":9", "higher MAX_CONCURRENT_SUBCALLS_CAP"},
        {"\"max_tokens\":1000000", ""},
        {"\"max_tokens\":1000001", "max_tokens: 1000001 is above the server's cap of 1000000"},
        {"\"max_tokens\":0", "no limit"},
        {"\"max_budget\":2.5", ""},
        {"\"max_budget\":2.501", "max_budget: 2.501 is above the server's cap of 2.5"},
        {"\"max_budget\":0", "no limit"},
        {"\"max_budget\":null", ""},
        {"\"max_timeout\":0,\"execution_timeout\":60.5", ""},
        {"\"max_timeout\":60.5", ""},
    };
    char *const argv[] = {"--max-depth-cap=3",    "--max-iterations-cap=30",         "--max-errors-cap=5",
                          "--max-budget-cap=2.5", "--max-concurrent-subcalls-cap=8", "--max-tokens-cap=1000000",
                          "--max-timeout-cap=60", "--execution-timeout-cap=50"};
    static const char chat[] = "\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]";
    static struct cm_rlm_conf capped;
    char json[200];

    (void)state;
    assert_int_equal(cm_rlm_conf_load(8, argv, &capped, NULL), 0);
    for (size_t i = 0; i < 2 * CM_COUNT_OF(cases); i++) {
        const char *says = cases[i / 2].says;
        struct cm_ask a;
        struct cm_err err = {0};
        snprintf(json, sizeof json, "{%s,%s}", i % 2 ? "\"query\":\"q\"" : chat, cases[i / 2].members);
        if (i % 2 == 0 && strstr(json, "max_tokens")) /* there it is about the answer */
            says = strstr(json, ":0}") ? "max_tokens: must be" : "";
        cm_ask_init(&a, i % 2 ? CM_ASK_RUN : CM_ASK_CHAT, &capped, strdup(json), strlen(json));
        int rc = cm_ask_read(&a, &err);
        if (rc != (*says ? CM_ERR_BAD_FIELD : 0) || !strstr(err.text, says))
            fail_msg("%s: %d \"%s\"", json, rc, err.text);
        assert_true(a.req.limits.max_timeout_s == 60); /* cut, and where nobody has said a time */
        assert_true(a.req.limits.execution_timeout_s == (strstr(json, "execution_timeout") ? 50 : 30));
        assert_true(a.req.limits.max_budget == 2.5);
        cm_ask_done(&a);
    }
}

/* Shares */

static struct cm_access *keys(const char *text)
{
    char path[] = "/tmp/infer-keys.XXXXXX";
    struct cm_access_config config = {.keys_file = path};
    struct cm_access *a = NULL;
    int fd = mkstemp(path);

    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    assert_int_equal(cm_access_open(&config, NULL, &a, NULL), 0);
    unlink(path);
    return a;
}

#define THREE_KEYS "ann key-of-ann-0001\nbob key-of-bob-0001\ncarl key-of-carl-001\n"

/* Of 4: two, one of the two that are left, and one of one. */
static void keys_share_runs(void **state)
{
    struct cm_infer f = {.config.conf = &conf, .config.access = keys(THREE_KEYS)};
    static const struct {
        const char *owner, *says; /* "": it begins */
    } cases[] = {
        {"ann", ""},
        {"ann", ""},
        {"ann", "runs at once: this key has 2 of 4 (MAX_RUNS)"},
        {"bob", ""},
        {"bob", "this key has 1 of 4"},
        {"carl", ""},
        {"carl", "4 of 4 (MAX_RUNS) are taken"},
    };
    struct cm_err err;

    (void)state;
    conf.max_runs = 4;
    for (size_t i = 0; i < CM_COUNT_OF(cases); i++) {
        err = (struct cm_err){0};
        const struct run *r = start(&f, "{\"query\":\"q\"}", cases[i].owner, &err);
        if (!!r == !!*cases[i].says || (!r && !strstr(err.text, cases[i].says)))
            fail_msg("%zu: %s", i, err.text);
        if (!r)
            assert_int_equal(err.code, strstr(err.text, "this key") ? CM_ERR_KEY_SHARE : CM_ERR_OVERLOADED);
    }
    for (struct run *r = f.runs, *next; r; r = next) {
        next = r->next;
        end(r, "x");
    }
    assert_int_equal(f.running, 0);
    assert_non_null(start(&f, "{\"query\":\"q\"}", "ann", &err)); /* the room is there again */
    runs_free(&f);
    assert_null(f.holders);
    cm_access_free(f.config.access);
    f.config.access = keys("ann key-of-ann-0001\nann key-of-ann-0002\n"); /* one name: nobody to share with */
    for (int i = 0; i < 4; i++)
        if (!start(&f, "{\"query\":\"q\"}", "ann", &err))
            fail_msg("%d: %s", i, err.text);
    runs_free(&f);
    cm_access_free(f.config.access);
    conf.max_runs = 64;
}

/* A key that has many runs drives out its own ones. */
static void keys_keep_their_runs(void **state)
{
    struct cm_infer f = {.config.conf = &conf};
    char answer[1001] = {0};

    (void)state;
    memset(answer, 'y', 1000);
    conf.kept_runs = 4;
    for (int i = 0; i < 12; i++)
        end(start(&f, "{\"query\":\"q\"}", i < 2 ? "bob" : "ann", NULL), answer);
    assert_int_equal(f.run_count, 4);
    assert_string_equal(f.runs->prev->holder->name, "bob");
    assert_int_equal(f.runs->prev->holder->kept, 2);
    conf.total_run_events = 4500; /* and of bytes */
    for (int i = 0; i < 12; i++)
        end(start(&f, "{\"query\":\"q\"}", "ann", NULL), answer);
    assert_in_range(f.run_bytes, 4000, 4500);
    assert_in_range(f.runs->prev->holder->run_bytes, 2000, 2010);
    conf.total_run_events = 1 << 20;
    conf.kept_runs = 0;
    runs_trim(&f);
    assert_null(f.runs);
    assert_null(f.holders);
    conf.kept_runs = 200;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_have_caps),
        cmocka_unit_test(keys_share_runs),
        cmocka_unit_test(keys_keep_their_runs),
    };

    return cmocka_run_group_tests_name("infer_shares", tests, load, NULL);
}
