/* SPDX-License-Identifier: Apache-2.0 */
/* Keys: what is taken, what is refused with which words, who is known, and what a reload changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "access/access.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "obs/metrics.h"

static struct cm_metrics *metrics;
static char path[] = "/tmp/cm-keys-XXXXXX";

static void write_keys(const char *text)
{
    FILE *file = fopen(path, "w");

    if (!file)
        abort();
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static struct cm_access *opened(const char *key, const char *key_file, const char *keys_file)
{
    struct cm_access_config config = {.key = key, .key_file = key_file, .keys_file = keys_file};
    struct cm_access *a = NULL;
    struct cm_err err = {0};

    if (cm_access_open(&config, metrics, &a, &err) < 0)
        fail_msg("%s", err.text);
    return a;
}

/* The name that a header stands for; "?" for nobody's. */
static const char *who(struct cm_access *a, const char *authorization, const char *x_api_key)
{
    const struct cm_key *key = NULL;
    struct cm_err err = {0};
    int rc = cm_access_check(a, authorization, x_api_key, &key, &err);

    assert_true(rc == 0 || (rc == CM_ERR_NO_KEY && strcmp(err.text, "this needs a key that the server knows") == 0));
    return rc == 0 ? cm_key_name(key) : "?";
}

static void no_key_no_question(void **state)
{
    struct cm_access *a = opened("", "", NULL);
    (void)state;

    assert_false(cm_access_on(a));
    assert_false(cm_access_on(NULL));
    assert_false(cm_access_shared(a) || cm_access_shared(NULL));
    assert_string_equal(who(a, NULL, NULL), "");
    assert_string_equal(who(a, "Bearer anything", NULL), "");
    cm_access_free(a);
}

static void one_key(void **state)
{
    struct cm_access *a = opened("correct-horse-battery", NULL, NULL);
    (void)state;

    assert_true(cm_access_on(a));
    assert_string_equal(who(a, "Bearer correct-horse-battery", NULL), "default");
    assert_string_equal(who(a, "bearer   correct-horse-battery", NULL), "default");
    assert_string_equal(who(a, NULL, "correct-horse-battery"), "default");
    assert_string_equal(who(a, NULL, NULL), "?");
    assert_string_equal(who(a, "", "correct-horse-battery"), "?"); /* the first header decides */
    assert_string_equal(who(a, "Bearer wrong", "correct-horse-battery"), "?");
    static const char *const wrong[] = {
        "Bearer",
        "Bearer ",
        "Bearer correct-horse-batter",
        "Bearer correct-horse-batteryy",
        "Bearer correct-horse-battery ",
        "Bearer Correct-horse-battery",
        "Basic correct-horse-battery",
        "correct-horse-battery",
        "Bearercorrect-horse-battery",
        "Bearer\tcorrect-horse-battery",
        "Bearer correct-horse-battery, Bearer x",
        "Bearer sha256:correct",
    };
    for (size_t i = 0; i < CM_COUNT_OF(wrong); i++)
        assert_string_equal(who(a, wrong[i], NULL), "?");
    cm_access_free(a);
}

/* printf %s second-key-of-alice | sha256sum */
static const char good[] = "# comment\n"
                           "\n"
                           "  alice   first-key-of-alice   timeout=250ms memory=64Mi max_sessions=2  # of hers \r\n"
                           "alice\tsha256:66573b4eab2213f8e7d138792d77380b05bccb3a050d1f3fe7d63e4c905237a3\n"
                           "bob.b-2_ key-of-bob";

static void many_keys(void **state)
{
    const struct cm_key *key = NULL;
    struct cm_limits server, caps;
    (void)state;

    write_keys(good);
    struct cm_access *a = opened("key-of-the-setting", NULL, path);
    assert_string_equal(who(a, "Bearer first-key-of-alice", NULL), "alice");
    assert_string_equal(who(a, "Bearer second-key-of-alice", NULL), "alice");
    assert_string_equal(who(a, "Bearer key-of-bob", NULL), "bob.b-2_");
    assert_string_equal(who(a, "Bearer key-of-the-setting", NULL), "default");
    assert_true(cm_access_shared(a));
    assert_string_equal(who(a, "Bearer # comment", NULL), "?");
    assert_int_equal(cm_access_check(a, NULL, "first-key-of-alice", &key, NULL), 0);
    assert_int_equal(key->max_sessions, 2);
    for (int i = 0; i < CM_LIMITS; i++)
        server.at[i] = 1e8;
    server.at[CM_LIMIT_MEMORY] = 1e6; /* the server's own is lower */
    cm_key_caps(key, &server, &caps);
    assert_true(caps.at[CM_LIMIT_TIMEOUT] == 0.25 && caps.at[CM_LIMIT_MEMORY] == 1e6 && caps.at[CM_LIMIT_FILES] == 1e8);
    cm_key_caps(NULL, &server, &caps);
    assert_true(caps.at[CM_LIMIT_TIMEOUT] == 1e8);
    cm_access_free(a);
}

static void a_hash_stands_for_its_key(void **state)
{
    (void)state;
    /* printf opensesameplease | sha256sum */
    write_keys("x sha256:0f2860afe01e5e6942ea24794c73a56efc845746c8c257b8e466e16edcff8e5b\n");
    struct cm_access *a = opened(NULL, NULL, path);
    assert_string_equal(who(a, "Bearer opensesameplease", NULL), "x");
    assert_false(cm_access_shared(a)); /* a single name */
    assert_string_equal(who(a, "Bearer sha256:0f2860afe01e5e6942ea24794c73a56efc845746c8c257b8e466e16edcff8e5b", NULL),
                        "?");
    cm_access_free(a);
}

static void lines_of_a_key_file_are_one_name(void **state)
{
    (void)state;
    write_keys("old-key-of-today\nnew-key-of-tomorrow\n");
    struct cm_access *a = opened(NULL, path, NULL);
    assert_string_equal(who(a, "Bearer old-key-of-today", NULL), "default");
    assert_string_equal(who(a, "Bearer new-key-of-tomorrow", NULL), "default");
    cm_access_free(a);
}

static void wrong_files(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "holds no key"},
        {"# nothing\n", "holds no key"},
        {"alice\n", "line 1: a line is: name key [limit=value ...]"},
        {"alice # key\n", "line 1: a line is:"},
        {"\nalice short\n", "line 2: a key has 8 to 512 characters, not 5"},
        {"al/ice first-key-of-alice\n", "a name has letters"},
        {"alice first-key-of-\xc3\xa4lice\n", "printable ASCII"},
        {"alice sha256:abc\n", "sha256: must be followed by 64 hex digits"},
        {"alice first-key-of-alice second-key-of-alice\n", "behind the key stand limits"},
        {"alice first-key-of-alice timeot=3\n", "is it to be \"timeout\"?"},
        {"alice first-key-of-alice timeout=\n", "timeout must be at least 0.01 seconds"},
        {"alice first-key-of-alice timeout=x\n", "timeout must be"},
        {"alice first-key-of-alice memory=1\n", "memory must be at least 33554432 bytes"},
        {"alice first-key-of-alice request_body=1Mi\n", "request_body is a limit of the whole server"},
        {"alice first-key-of-alice max_sessions=0\n", "max_sessions is a whole number"},
        {"alice first-key-of-alice timeout=1\nalice second-key-of-alice timeout=2\n", "limits in more than one line"},
        {"alice first-key-of-alice\nbob first-key-of-alice\n", "\"alice\" and \"bob\" have the same key"},
    };
    struct cm_access *a = NULL;
    struct cm_access_config config = {.keys_file = path};
    struct cm_err err;
    (void)state;

    for (size_t i = 0; i < CM_COUNT_OF(cases); i++) {
        write_keys(cases[i].text);
        assert_int_equal(cm_access_open(&config, metrics, &a, &err), CM_ERR_CONFIG);
        if (!strstr(err.text, cases[i].why))
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].why);
        assert_null(strstr(err.text, "key-of-alice"));
    }
    config = (struct cm_access_config){.key = "short"};
    assert_int_equal(cm_access_open(&config, metrics, &a, &err), CM_ERR_CONFIG);
    assert_string_equal(err.text, "CODEMODE_API_KEY: a key has 8 to 512 characters, not 5");
    config = (struct cm_access_config){.key_file = "/nowhere"};
    assert_int_equal(cm_access_open(&config, metrics, &a, &err), CM_ERR_CONFIG);
    assert_non_null(strstr(err.text, "CODEMODE_API_KEY_FILE: \"/nowhere\": No such file"));
}

static void reload(void **state)
{
    const struct cm_key *before = NULL, *after = NULL;
    struct cm_err err;
    (void)state;

    write_keys("alice first-key-of-alice timeout=5\nbob key-of-bob-the-first\n");
    struct cm_access *a = opened(NULL, NULL, path);
    assert_int_equal(cm_access_check(a, NULL, "first-key-of-alice", &before, NULL), 0);
    assert_false(cm_access_changed(a));
    write_keys("alice second-key-of-alice timeout=5\n");
    assert_true(cm_access_changed(a));
    assert_string_equal(who(a, "Bearer first-key-of-alice", NULL), "alice"); /* not yet */
    assert_int_equal(cm_access_reload(a, NULL, NULL), 0);
    assert_false(cm_access_changed(a));
    assert_string_equal(who(a, "Bearer first-key-of-alice", NULL), "?");
    assert_string_equal(who(a, "Bearer key-of-bob-the-first", NULL), "?");
    assert_int_equal(cm_access_check(a, NULL, "second-key-of-alice", &after, NULL), 0);
    assert_ptr_equal(before, after); /* same name, same limits */
    write_keys("nonsense\n");
    assert_int_equal(cm_access_reload(a, NULL, &err), CM_ERR_CONFIG);
    assert_false(cm_access_changed(a)); /* one report is enough */
    assert_string_equal(who(a, "Bearer second-key-of-alice", NULL), "alice");
    struct cm_access_config none = {.key = ""};
    assert_int_equal(cm_access_reload(a, &none, &err), CM_ERR_CONFIG);
    assert_string_equal(err.text, "no key would be left");
    assert_true(cm_access_on(a));
    struct cm_access_config other = {.key = "a-key-of-its-own"};
    assert_int_equal(cm_access_reload(a, &other, NULL), 0);
    assert_string_equal(who(a, "Bearer a-key-of-its-own", NULL), "default");
    assert_string_equal(who(a, "Bearer second-key-of-alice", NULL), "?");
    cm_access_free(a);
}

static void counts(void **state)
{
    cm_autobuf struct cm_buf buf;
    (void)state;

    cm_buf_init(&buf, 4096);
    write_keys("alice first-key-of-alice timeout=5\nbob key-of-bob-the-first\n");
    struct cm_access *a = opened(NULL, NULL, path);
    int64_t failures = cm_metrics_get(metrics, CM_M_AUTH_FAILURES, 0);
    who(a, "Bearer first-key-of-alice", NULL);
    who(a, "Bearer nobodys-key", NULL);
    write_keys("alice first-key-of-alice timeout=6\n");
    assert_int_equal(cm_access_reload(a, NULL, NULL), 0);
    who(a, "Bearer first-key-of-alice", NULL);
    assert_int_equal(cm_access_render(a, &buf), 0);
    assert_non_null(strstr(cm_buf_data(&buf), "codemode_key_requests_total{key=\"alice\"} 2\n"));
    assert_non_null(strstr(cm_buf_data(&buf), "codemode_key_requests_total{key=\"bob\"} 0\n"));
    assert_int_equal(cm_metrics_get(metrics, CM_M_AUTH_FAILURES, 0), failures + 1);
    cm_access_free(a);
}

static int set_up(void **state)
{
    int fd = mkstemp(path);
    (void)state;

    metrics = cm_metrics_new();
    return fd < 0 || close(fd) < 0 || !metrics ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    cm_metrics_free(metrics);
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_key_no_question),
        cmocka_unit_test(one_key),
        cmocka_unit_test(many_keys),
        cmocka_unit_test(a_hash_stands_for_its_key),
        cmocka_unit_test(lines_of_a_key_file_are_one_name),
        cmocka_unit_test(wrong_files),
        cmocka_unit_test(reload),
        cmocka_unit_test(counts),
    };
    return cmocka_run_group_tests_name("access", tests, set_up, tear_down);
}
