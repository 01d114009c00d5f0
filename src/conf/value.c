/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/value.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct unit {
    const char *suffix;
    double factor;
};

static const struct unit byte_units[] = {
    {"", 1},         {"B", 1},           {"k", 1e3},    {"K", 1e3},       {"M", 1e6},          {"G", 1e9}, {"Ki", 1024},
    {"Mi", 1048576}, {"Gi", 1073741824}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}, {NULL, 0},
};

static const struct unit time_units[] = {{"", 1}, {"s", 1}, {"ms", 1e-3}, {"m", 60}, {"h", 3600}, {NULL, 0}};

/* strtod would take "inf", "0x1p3" and leading blanks; settings are plain decimal. */
static bool scan_decimal(const char *text, bool fraction, const char **ret_rest, double *ret)
{
    size_t digits = strspn(text, "0123456789");
    size_t len = digits;

    if (digits == 0 || digits > 15)
        return false;
    if (fraction && text[len] == '.') {
        size_t more = strspn(text + len + 1, "0123456789");
        if (more == 0 || more > 15)
            return false;
        len += 1 + more;
    }
    *ret_rest = text + len;
    *ret = strtod(text, NULL);
    return true;
}

static bool scan_unit(const char *text, bool fraction, const struct unit *units, double *ret)
{
    const char *rest;
    double value;

    if (!scan_decimal(text, fraction, &rest, &value))
        return false;
    for (; units->suffix; units++) {
        if (strcmp(units->suffix, rest) == 0) {
            *ret = value * units->factor;
            return true;
        }
    }
    return false;
}

bool cm_conf_parse_uint(const char *text, double *ret)
{
    static const struct unit none[] = {{"", 1}, {NULL, 0}};

    return scan_unit(text, false, none, ret);
}

bool cm_conf_parse_bytes(const char *text, double *ret)
{
    return scan_unit(text, false, byte_units, ret);
}

bool cm_conf_parse_seconds(const char *text, double *ret)
{
    return scan_unit(text, true, time_units, ret);
}

bool cm_conf_parse_number(const char *text, double *ret)
{
    static const struct unit none[] = {{"", 1}, {NULL, 0}};

    return scan_unit(text, true, none, ret);
}

bool cm_conf_parse_level(const char *text, double *ret)
{
    static const struct unit levels[] = {{"DEBUG", 0}, {"INFO", 1},  {"WARNING", 2},
                                         {"WARN", 2},  {"ERROR", 3}, {"CRITICAL", 3}};

    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        if (strcasecmp(levels[i].suffix, text) == 0) {
            *ret = levels[i].factor;
            return true;
        }
    }
    return false;
}

bool cm_conf_parse_bool(const char *text, bool *ret)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(words[i], text) == 0) {
            *ret = i % 2 == 1;
            return true;
        }
    }
    return false;
}
