/* SPDX-License-Identifier: Apache-2.0 */
/* Settings: each line of the input is one flag of `codemode serve`. What is accepted lies in the table's range, what
 * is refused leaves the settings alone and names the flag. */
#include "fuzz.h"

#include <strings.h>

#include "base/utf8.h"
#include "conf/conf.h"
#include "conf/value.h"

#define ARGS_MAX 16

static void check_number(const char *flag, double value, double min, double max)
{
    if (value >= min && value <= max)
        return;
    fprintf(stderr, "%s: %g\n", flag, value);
    CHECK(!"a value outside of its range");
}

static void check_text(const char *flag, const char *text, double min, double max)
{
    check_number(flag, (double)strnlen(text, CM_CONF_TEXT_MAX), min,
                 max < CM_CONF_TEXT_MAX ? max : CM_CONF_TEXT_MAX - 1);
}

static void check_ports(const char *flag, struct cm_ports ports, double min, double max)
{
    CHECK(ports.count >= 1 && ports.count <= CM_PORTS_MAX);
    for (unsigned i = 0; i < ports.count; i++) {
        check_number(flag, ports.at[i], min, max);
        for (unsigned k = 0; k < i; k++)
            CHECK(ports.at[k] != ports.at[i]);
    }
}

#define CHECK_TEXT    check_text
#define CHECK_SECRET  check_text
#define CHECK_PATH    check_text
#define CHECK_BOOL    check_number
#define CHECK_UINT    check_number
#define CHECK_PORTS   check_ports
#define CHECK_BYTES   check_number
#define CHECK_SECONDS check_number
#define CHECK_LEVEL   check_number

static void check_ranges(const struct cm_conf *c)
{
#define CM_CONFIG(field, type, env, flag, min, max, def, unit, help) CHECK_##type(flag, c->field, min, max);
#include "config.def"
#undef CM_CONFIG
    CHECK(c->execution_timeout <= c->max_timeout);
}

/* A size with a unit, as a person would work it out. */
static bool model_bytes(const char *text, double *ret)
{
    static const char *const units[] = {"", "B", "k", "K", "M", "G", "Ki", "Mi", "Gi", "KiB", "MiB", "GiB"};
    static const double factors[] = {1, 1, 1e3, 1e3, 1e6, 1e9, 1024, 1048576, 1073741824, 1024, 1048576, 1073741824};
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 15)
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(units[i], text + digits) == 0) {
            *ret = (double)strtoull(text, NULL, 10) * factors[i];
            return true;
        }
    return false;
}

static void check_values(const char *text)
{
    double got = -7, want = -7;
    bool ok = cm_conf_parse_bytes(text, &got);

    CHECK(ok == model_bytes(text, &want) && got == want);
    got = -7;
    ok = cm_conf_parse_uint(text, &got);
    CHECK(ok == (strlen(text) > 0 && strlen(text) <= 15 && strspn(text, "0123456789") == strlen(text)));
    CHECK(got == (ok ? (double)strtoull(text, NULL, 10) : -7));
    got = -7;
    ok = cm_conf_parse_seconds(text, &got);
    CHECK(ok ? got >= 0 && got < 1e19 : got == -7);
    got = -7;
    ok = cm_conf_parse_level(text, &got);
    CHECK(ok ? got >= 0 && got <= 3 : got == -7);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, data + size};
    char *argv[ARGS_MAX + 1] = {0};
    struct cm_conf conf;
    struct cm_err err = {0};
    int argc = 0;

    while (in.at < in.end && argc < ARGS_MAX) {
        argv[argc] = fuzz_line(&in);
        check_values(argv[argc++]);
    }
    memset(&conf, 0x5a, sizeof conf);
    int rc = cm_conf_load(argc, argv, &conf, &err);
    if (rc == 0) {
        check_ranges(&conf);
    } else {
        CHECK(rc == CM_ERR_CONFIG && err.code == rc && err.text[0]);
        CHECK(*(char *)&conf == 0x5a && memcmp(&conf, (char *)&conf + 1, sizeof conf - 1) == 0);
    }
    for (int i = 0; i < argc; i++)
        free(argv[i]);
    return 0;
}
