/* SPDX-License-Identifier: Apache-2.0 */
/* The body of the execute routes: what a client asks. */
#ifndef CM_WIRE_EXECUTE_H
#define CM_WIRE_EXECUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/limits.h"

/* Slices of the body that it was read from. */
struct cm_execute_body {
    const char *code; /* UTF-8 */
    size_t code_len;
    const char *context; /* the text of a JSON object, or NULL */
    size_t context_len;
    double timeout_s; /* 0 when the request names none */
    struct cm_limits_asked limits;
    bool atomic;      /* on_error is "rollback" */
    bool strict;      /* policy is "strict"; "isolate" asks for nothing: what the server's says holds */
    const char *config; /* the text of a JSON object, or NULL */
    size_t config_len;
    const char *available_tools; /* the text of a JSON array of strings, or NULL */
    size_t available_tools_len;
    const char *caller_tools; /* the same */
    size_t caller_tools_len;
    const char *then; /* code that runs behind it, or NULL */
    size_t then_len;
    double then_timeout_s; /* 0 when the request names none */
    const char *correlation_id; /* UTF-8, or NULL */
    size_t correlation_id_len;
};

/* Reads {"code", "context"?, "timeout"?, "limits"?, "on_error"?, "policy"?, "config"?, "available_tools"?,
 * "caller_tools"?, "then"?: {"code", "timeout"?}, "correlation_id"?}; other members are ignored. Decodes in place: the body's text is gone afterwards. Each refusal names
 * the field and the rule: CM_ERR_BAD_JSON, CM_ERR_BAD_FIELD, or CM_ERR_TOO_LARGE
 * for code longer than its cap. */
int cm_execute_read(char *body, size_t len, const struct cm_limits *caps, struct cm_execute_body *ret,
                    struct cm_err *err);

#endif
