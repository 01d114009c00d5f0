/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "sidecar/internal.h"

bool cm_sidecar_is_id(const char *text)
{
    size_t len = strlen(text);

    return len > 0 && len <= ID_MAX &&
           strspn(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz-") == len;
}

int cm_sidecar_read_text(struct cm_json_value *value, const char **ret, size_t *ret_len, struct cm_err *err)
{
    size_t len = 0;

    *ret = "";
    *ret_len = 0;
    if (value->kind == CM_JSON_NULL || value->kind == CM_JSON_ABSENT)
        return 0;
    if (value->kind != CM_JSON_STRING || !cm_json_decode(value, &len))
        return cm_err_set(err, CM_ERR_SIDECAR, "the sidecar sent something else than a text");
    value->raw[len] = '\0'; /* the closing quote stood there at the least */
    *ret = value->raw;
    *ret_len = len;
    return 0;
}

static int code_of(const char *name)
{
    static const struct {
        const char *name;
        int code;
    } codes[] = {
#define CM_ERROR(id, number, http, grpc, short_name, retry, remediation) {short_name, CM_ERR_##id},
#include "errors.def"
#undef CM_ERROR
    };

    for (size_t i = 0; i < CM_COUNT_OF(codes); i++)
        if (strcmp(codes[i].name, name) == 0)
            return codes[i].code;
    return CM_ERR_SIDECAR;
}

int cm_sidecar_read_error(int status, char *body, size_t len, struct cm_err *err)
{
    struct cm_json_member m[] = {{.name = "detail"}, {.name = "code"}};
    const char *detail, *code;
    size_t detail_len, code_len;

    if (cm_json_object(body, len, m, CM_COUNT_OF(m), NULL) < 0 ||
        cm_sidecar_read_text(&m[0].value, &detail, &detail_len, NULL) < 0 ||
        cm_sidecar_read_text(&m[1].value, &code, &code_len, NULL) < 0 || !detail[0])
        return cm_err_set(err, CM_ERR_SIDECAR, "the sidecar answered with HTTP status %d", status);
    if (detail_len > CM_ERR_TEXT_MAX - 1)
        detail_len = CM_ERR_TEXT_MAX - 1;
    detail_len -= cm_utf8_cut_end(detail, detail_len);
    return cm_err_set(err, code_of(code), "%.*s", (int)detail_len, detail);
}

int cm_sidecar_no_answer(const struct cm_fetch_end *end, struct cm_err *err)
{
    if (end->why == CM_FETCH_MEMORY)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request to the sidecar");
    return cm_err_set(err, CM_ERR_SIDECAR, "the sidecar: %s", end->text);
}

enum member { OUT, ERR, RESULT, ERROR, TYPE, TRACEBACK, STATE, SUCCESS, TIMED_OUT, TIME, MEMBERS };

static int wrong(const char *name, struct cm_err *err)
{
    return cm_err_set(err, CM_ERR_SIDECAR, "the sidecar's result has no good member \"%s\"", name);
}

int cm_sidecar_read_result(char *json, size_t len, struct cm_sidecar_result *ret, struct cm_err *err)
{
    struct cm_json_member m[MEMBERS] = {
        [OUT] = {.name = "stdout"},         [ERR] = {.name = "stderr"},      [RESULT] = {.name = "result"},
        [ERROR] = {.name = "error"},        [TYPE] = {.name = "error_type"}, [TRACEBACK] = {.name = "traceback"},
        [STATE] = {.name = "state"},        [SUCCESS] = {.name = "success"}, [TIMED_OUT] = {.name = "timed_out"},
        [TIME] = {.name = "execution_time"}};
    struct cm_sidecar_result r = {0};
    size_t unused;
    int rc;

    if (cm_json_object(json, len, m, MEMBERS, err) < 0)
        return cm_err_set(err, CM_ERR_SIDECAR, "the sidecar's result is no JSON object");
    if (m[SUCCESS].value.kind != CM_JSON_BOOL)
        return wrong("success", err);
    if ((rc = cm_sidecar_read_text(&m[OUT].value, &r.out, &r.out_len, err)) < 0 ||
        (rc = cm_sidecar_read_text(&m[ERR].value, &r.err, &r.err_len, err)) < 0 ||
        (rc = cm_sidecar_read_text(&m[RESULT].value, &r.result, &r.result_len, err)) < 0 ||
        (rc = cm_sidecar_read_text(&m[ERROR].value, &r.error, &r.error_len, err)) < 0 ||
        (rc = cm_sidecar_read_text(&m[TYPE].value, &r.error_type, &unused, err)) < 0 ||
        (rc = cm_sidecar_read_text(&m[TRACEBACK].value, &r.traceback, &r.traceback_len, err)) < 0 ||
        (rc = cm_sidecar_read_text(&m[STATE].value, &r.state, &unused, err)) < 0)
        return rc;
    r.success = m[SUCCESS].value.raw[0] == 't';
    r.timed_out = m[TIMED_OUT].value.kind == CM_JSON_BOOL && m[TIMED_OUT].value.raw[0] == 't';
    if (m[TIME].value.kind == CM_JSON_NUMBER)
        r.seconds = cm_json_number(&m[TIME].value);
    *ret = r;
    return 0;
}
