/* SPDX-License-Identifier: Apache-2.0 */
/* The short list of kinds of failure that clients of Execute and POST /execute know, and which classes of Python's
 * exceptions belong to which. */
#ifndef CM_EXECUTOR_ERROR_TYPE_H
#define CM_EXECUTOR_ERROR_TYPE_H

struct cm_exec_result;

/* NULL for a success, else "Timeout", "SyntaxError", ..., "Unknown". */
const char *cm_error_type(const struct cm_exec_result *res);

#endif
