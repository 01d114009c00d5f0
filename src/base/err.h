/* SPDX-License-Identifier: Apache-2.0 */
/* One error value for the whole tree.
 *
 * A function that can fail returns 0 or a negative code from tables/errors.def (CM_ERR_*) and takes a last
 * `struct cm_err *err`. Success never touches it. A caller that passes the error on may put its own words
 * in front: "mount proc: EPERM" becomes "worker 7: jail step 4: mount proc: operation not permitted".
 */
#ifndef CM_BASE_ERR_H
#define CM_BASE_ERR_H

#include <stdarg.h>

enum cm_err_code {
#define CM_ERROR(name, number, http, grpc, short_name, retry, remediation) CM_ERR_##name = (number),
#include "errors.def"
#undef CM_ERROR
};

#define CM_ERR_TEXT_MAX 480

struct cm_err {
    int code; /* 0 or one of enum cm_err_code */
    char text[CM_ERR_TEXT_MAX];
};

/* What the table says of a code; an unknown one counts as CM_ERR_SYSTEM. */
struct cm_err_info {
    int code;
    int http;
    int grpc; /* enum cm_grpc_status */
    unsigned retry; /* seconds for Retry-After, 0 = say nothing */
    const char *short_name;
    const char *remediation;
};
const struct cm_err_info *cm_err_info(int code);
/* The code of a short name, as an error body has it; CM_ERR_SYSTEM for none of ours. */
int cm_err_code_of(const char *short_name);

/* Fill *err (which may be NULL) and return the code, so that `return cm_err_set(...)` reads well. */
int cm_err_set(struct cm_err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same with ": " and the system's text of `errnum` behind it; the code is CM_ERR_SYSTEM, or
 * CM_ERR_NO_MEMORY for ENOMEM. */
int cm_err_sys(struct cm_err *err, int errnum, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Puts "<words>: " in front of the text. Returns err->code. */
int cm_err_wrap(struct cm_err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
