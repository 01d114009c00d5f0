/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>

#include "lib.h"

const char *codemode_version(void)
{
    return CM_VERSION;
}

const char *codemode_status_name(int status)
{
    static const char *const names[] = {
        "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
        "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
        "DATA_LOSS", "UNAUTHENTICATED"};

    status = status < 0 ? -status : status;
    return status < (int)(sizeof names / sizeof names[0]) ? names[status] : "?";
}

int lib_error(struct codemode_error *err, enum codemode_status status, const char *format, ...)
{
    va_list ap;

    if (err) {
        err->status = status;
        va_start(ap, format);
        vsnprintf(err->text, sizeof err->text, format, ap);
        va_end(ap);
    }
    return -(int)status;
}

int lib_error_from(struct codemode_error *err, const struct cm_err *from)
{
    /* What is wrong with a setting is wrong with an argument here. */
    int status = from->code == CM_ERR_CONFIG ? CM_GRPC_INVALID_ARGUMENT : cm_err_info(from->code)->grpc;

    return lib_error(err, (enum codemode_status)status, "%s", from->text);
}
