/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong with a configuration: all of it, in the order of the file, one line each. */
#ifndef CM_CONF_REPORT_H
#define CM_CONF_REPORT_H

#include "base/buf.h"

#define CM_REPORT_PROBLEMS_MAX 50 /* of a file that is none; more help nobody */

struct cm_report {
    const char *file; /* its name in every line; the caller's */
    struct cm_buf errors, warnings; /* lines with their newlines */
    unsigned error_count, warning_count;
};

void cm_report_init(struct cm_report *r, const char *file);
void cm_report_done(struct cm_report *r);
/* "FILE:LINE:COLUMN: TEXT". Line 0: "FILE: TEXT". */
void cm_report_error(struct cm_report *r, unsigned line, unsigned col, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void cm_report_warning(struct cm_report *r, unsigned line, unsigned col, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
