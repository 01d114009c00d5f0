/* SPDX-License-Identifier: Apache-2.0 */
#include "executor/error_type.h"

#include <string.h>

#include "base/cleanup.h"
#include "session/session.h"

static const struct {
    const char *class, *type;
} rows[] = {
    {"SecurityViolation", "SecurityViolation"},
    {"Timeout", "Timeout"},
    {"SyntaxError", "SyntaxError"},
    {"IndentationError", "SyntaxError"},
    {"TabError", "SyntaxError"},
    {"ImportError", "ImportError"},
    {"ModuleNotFoundError", "ImportError"},
    {"TypeError", "TypeError"},
    {"ValueError", "ValueError"},
    {"UnicodeError", "ValueError"},
    {"UnicodeDecodeError", "ValueError"},
    {"UnicodeEncodeError", "ValueError"},
    {"UnicodeTranslateError", "ValueError"},
    {"JSONDecodeError", "ValueError"},
    {"KeyError", "KeyError"},
    {"AttributeError", "AttributeError"},
    {"NameError", "NameError"},
    {"UnboundLocalError", "NameError"},
    {"IndexError", "IndexError"},
    {"ZeroDivisionError", "ZeroDivisionError"},
    {"RuntimeError", "RuntimeError"},
    {"RecursionError", "RuntimeError"},
    {"NotImplementedError", "RuntimeError"},
    {"ToolError", "RuntimeError"},
    {"ToolTimeout", "RuntimeError"},
    {"ToolArgumentError", "RuntimeError"},
    {"ToolUnavailable", "RuntimeError"},
    {"ToolLimitError", "RuntimeError"},
    {"UnknownTool", "RuntimeError"},
};

const char *cm_error_type(const struct cm_exec_result *res)
{
    if (res->success)
        return NULL;
    if (res->timed_out)
        return "Timeout";
    for (size_t i = 0; res->error_type && i < CM_COUNT_OF(rows); i++)
        if (strlen(rows[i].class) == res->error_type_len &&
            memcmp(rows[i].class, res->error_type, res->error_type_len) == 0)
            return rows[i].type;
    return "Unknown";
}
