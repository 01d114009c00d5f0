/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/execute.h"

#include <math.h>
#include <string.h>

#include "wire/json.h"
#include "wire/limits.h"

static int read_code(struct cm_json_value *value, const char *name, size_t code_max, const char **ret, size_t *ret_len,
                     struct cm_err *err)
{
    size_t len;

    if (value->kind == CM_JSON_ABSENT)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "%s: field required", name);
    if (value->kind != CM_JSON_STRING)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "%s: must be a string", name);
    if (!cm_json_decode(value, &len))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "%s: holds half of a surrogate pair", name);
    if (len > code_max)
        return cm_err_set(err, CM_ERR_TOO_LARGE, "%s: has %zu bytes, MAX_CODE_LENGTH is %zu", name, len, code_max);
    *ret = value->raw;
    *ret_len = len;
    return 0;
}

static int read_object(const struct cm_json_member *member, const char **ret, size_t *ret_len, struct cm_err *err)
{
    const struct cm_json_value *value = &member->value;

    if (value->kind == CM_JSON_ABSENT || value->kind == CM_JSON_NULL)
        return 0;
    if (value->kind != CM_JSON_OBJECT)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "%s: must be an object or null", member->name);
    *ret = value->raw;
    *ret_len = value->len;
    return 0;
}

static bool is_name(void *arg, struct cm_json_value *value)
{
    bool *all = arg;

    return *all = value->kind == CM_JSON_STRING;
}

static int read_names(const struct cm_json_member *member, const char **ret, size_t *ret_len, struct cm_err *err)
{
    const struct cm_json_value *value = &member->value;
    bool names = value->kind == CM_JSON_ARRAY;

    if (value->kind == CM_JSON_ABSENT || value->kind == CM_JSON_NULL)
        return 0;
    if (names)
        cm_json_elements(value, is_name, &names);
    if (!names)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "%s: must be a list of names or null", member->name);
    *ret = value->raw;
    *ret_len = value->len;
    return 0;
}

static int read_correlation(struct cm_json_value *value, struct cm_execute_body *ret, struct cm_err *err)
{
    if (value->kind == CM_JSON_ABSENT || value->kind == CM_JSON_NULL)
        return 0;
    if (value->kind != CM_JSON_STRING || !cm_json_decode(value, &ret->correlation_id_len))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "correlation_id: must be a string or null");
    ret->correlation_id = value->raw;
    return 0;
}

static int read_timeout(const struct cm_json_value *value, const char *name, double *ret, struct cm_err *err)
{
    if (value->kind == CM_JSON_ABSENT || value->kind == CM_JSON_NULL)
        return 0;
    double seconds = value->kind == CM_JSON_NUMBER ? cm_json_number(value) : -1;
    if (!(seconds >= 0) || !isfinite(seconds))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "%s: must be a number of seconds from 0 (the default) to MAX_TIMEOUT",
                          name);
    *ret = seconds;
    return 0;
}

static int read_then(const struct cm_json_value *value, size_t code_max, struct cm_execute_body *ret,
                     struct cm_err *err)
{
    struct cm_json_member m[] = {{.name = "code"}, {.name = "timeout"}};
    int rc;

    if (value->kind == CM_JSON_ABSENT || value->kind == CM_JSON_NULL)
        return 0;
    if (value->kind != CM_JSON_OBJECT)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "then: must be an object or null");
    if ((rc = cm_json_object(value->raw, value->len, m, 2, err)) < 0 ||
        (rc = read_timeout(&m[1].value, "then.timeout", &ret->then_timeout_s, err)) < 0)
        return rc;
    return read_code(&m[0].value, "then.code", code_max, &ret->then, &ret->then_len, err);
}

static bool is_word(const struct cm_json_value *value, const char *quoted)
{
    return value->len == strlen(quoted) && memcmp(value->raw, quoted, value->len) == 0;
}

static int read_on_error(const struct cm_json_value *value, struct cm_execute_body *ret, struct cm_err *err)
{
    if (value->kind == CM_JSON_ABSENT || value->kind == CM_JSON_NULL || is_word(value, "\"keep\""))
        return 0;
    if (!is_word(value, "\"rollback\""))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "on_error: must be \"keep\" or \"rollback\"");
    ret->atomic = true;
    return 0;
}

static int read_policy(const struct cm_json_value *value, struct cm_execute_body *ret, struct cm_err *err)
{
    ret->strict = is_word(value, "\"strict\"");
    if (ret->strict || value->kind == CM_JSON_ABSENT || value->kind == CM_JSON_NULL || is_word(value, "\"isolate\""))
        return 0;
    return cm_err_set(err, CM_ERR_BAD_FIELD, "policy: must be \"strict\" or \"isolate\"");
}

int cm_execute_read(char *body, size_t len, const struct cm_limits *caps, struct cm_execute_body *ret,
                    struct cm_err *err)
{
    struct cm_json_member m[] = {
        {.name = "code"},           {.name = "context"},      {.name = "timeout"}, {.name = "limits"},
        {.name = "on_error"},       {.name = "policy"},       {.name = "config"},  {.name = "available_tools"},
        {.name = "correlation_id"}, {.name = "caller_tools"}, {.name = "then"}};
    const size_t code_max = (size_t)caps->at[CM_LIMIT_CODE_LENGTH];
    struct cm_execute_body b = {0};
    int rc;

    if ((rc = cm_json_object(body, len, m, sizeof m / sizeof m[0], err)) < 0 ||
        (rc = read_code(&m[0].value, "code", code_max, &b.code, &b.code_len, err)) < 0 ||
        (rc = read_object(&m[1], &b.context, &b.context_len, err)) < 0 ||
        (rc = read_timeout(&m[2].value, "timeout", &b.timeout_s, err)) < 0 ||
        (rc = cm_limits_read(&m[3].value, CM_LIMIT_OF_EXECUTION, caps, &b.limits, err)) < 0 ||
        (rc = read_on_error(&m[4].value, &b, err)) < 0 || (rc = read_policy(&m[5].value, &b, err)) < 0 ||
        (rc = read_object(&m[6], &b.config, &b.config_len, err)) < 0 ||
        (rc = read_names(&m[7], &b.available_tools, &b.available_tools_len, err)) < 0 ||
        (rc = read_names(&m[9], &b.caller_tools, &b.caller_tools_len, err)) < 0 ||
        (rc = read_then(&m[10].value, code_max, &b, err)) < 0 || (rc = read_correlation(&m[8].value, &b, err)) < 0)
        return rc;
    if (b.timeout_s > 0 && b.limits.named & 1u << CM_LIMIT_TIMEOUT)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "limits.timeout: is the same as timeout; send one of them");
    *ret = b;
    return 0;
}
