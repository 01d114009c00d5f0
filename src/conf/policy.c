/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/policy.h"

#include <assert.h>
#include <string.h>

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Letters, digits and dots, with a letter at the start and after each dot. */
static bool is_name(const char *text, size_t len)
{
    char before = '.';

    for (size_t i = 0; i < len; before = text[i++])
        if (!is_letter(text[i]) && (before == '.' || !((text[i] >= '0' && text[i] <= '9') || text[i] == '.')))
            return false;
    return before != '.';
}

/* Appends a list between commas, without its spaces and empty places. There is room. */
static int add_list(const char *key, const char *list, char **to, struct cm_err *err)
{
    const char *lead = "";

    while (*list) {
        list += strspn(list, ", \t\n");
        size_t len = strcspn(list, ", \t\n");
        if (len == 0)
            break;
        if (!is_name(list, len))
            return cm_err_set(err, CM_ERR_CONFIG, "%s: \"%.*s\" is not a name in Python, such as urllib.parse", key,
                              len < 80 ? (int)len : 80, list);
        *to = stpcpy(*to, lead);
        *to = mempcpy(*to, list, len);
        list += len;
        lead = ",";
    }
    return 0;
}

int cm_conf_policy(const struct cm_conf *conf, bool *ret_strict, char ret_rules[CM_CONF_RULES_MAX], struct cm_err *err)
{
    static_assert(CM_CONF_RULES_MAX >= 3 * (size_t)CM_CONF_TEXT_MAX, "room for three lists");
    bool strict = strcmp(conf->security_policy, "strict") == 0;
    char rules[CM_CONF_RULES_MAX], *to = rules;

    if (!strict && strcmp(conf->security_policy, "isolate") != 0)
        return cm_err_set(err, CM_ERR_CONFIG, "CODEMODE_SECURITY_POLICY: \"%.80s\" is neither isolate nor strict",
                          conf->security_policy);
    int rc = add_list("CODEMODE_BLOCKED_IMPORTS", conf->blocked_imports, &to, err);
    *to++ = ';';
    rc = rc ? rc : add_list("CODEMODE_ALLOWED_IMPORTS", conf->allowed_imports, &to, err);
    *to++ = ';';
    rc = rc ? rc : add_list("CODEMODE_SAFE_BUILTINS", conf->safe_builtins, &to, err);
    *to = '\0';
    if (rc < 0)
        return rc;
    if (ret_strict)
        *ret_strict = strict;
    if (ret_rules)
        memcpy(ret_rules, rules, (size_t)(to - rules) + 1);
    return 0;
}
