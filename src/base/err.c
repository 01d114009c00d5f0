/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

static const struct cm_err_info table[] = {
#define CM_ERROR(name, number, http, grpc, short_name, retry, remediation)                                             \
    {CM_ERR_##name, http, CM_GRPC_##grpc, retry, short_name, remediation},
#include "errors.def"
#undef CM_ERROR
};

const struct cm_err_info *cm_err_info(int code)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].code == code)
            return &table[i];
    return &table[0]; /* CM_ERR_SYSTEM is the first row */
}

int cm_err_code_of(const char *short_name)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].short_name, short_name) == 0)
            return table[i].code;
    return CM_ERR_SYSTEM;
}

int cm_err_set(struct cm_err *err, int code, const char *format, ...)
{
    va_list ap;

    if (!err)
        return code;
    err->code = code;
    va_start(ap, format);
    vsnprintf(err->text, sizeof err->text, format, ap);
    va_end(ap);
    return code;
}

int cm_err_sys(struct cm_err *err, int errnum, const char *format, ...)
{
    int code = errnum == ENOMEM ? CM_ERR_NO_MEMORY : CM_ERR_SYSTEM;
    char words[CM_ERR_TEXT_MAX];
    va_list ap;

    if (!err)
        return code;
    va_start(ap, format);
    vsnprintf(words, sizeof words, format, ap);
    va_end(ap);
    err->code = code;
    /* strerrordesc_np needs no buffer and no locale, which keeps a static program small. */
    const char *reason = strerrordesc_np(errnum);
    snprintf(err->text, sizeof err->text, "%.*s: %s", CM_ERR_TEXT_MAX - 80, words, reason ? reason : "unknown error");
    return code;
}

int cm_err_wrap(struct cm_err *err, const char *format, ...)
{
    char words[CM_ERR_TEXT_MAX / 2], old[CM_ERR_TEXT_MAX];
    va_list ap;

    if (!err)
        return CM_ERR_SYSTEM;
    va_start(ap, format);
    vsnprintf(words, sizeof words, format, ap);
    va_end(ap);
    memcpy(old, err->text, sizeof old);
    int n = snprintf(err->text, sizeof err->text, "%s: ", words);
    size_t room = sizeof err->text - (size_t)n - 1, len = strnlen(old, sizeof old);
    if (len > room)
        len = room;
    memcpy(err->text + n, old, len);
    err->text[(size_t)n + len] = '\0';
    return err->code;
}
