/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/report.h"

#include <stdarg.h>
#include <stdio.h>

#define LINES_MAX (64u << 10)

void cm_report_init(struct cm_report *r, const char *file)
{
    *r = (struct cm_report){.file = file};
    cm_buf_init(&r->errors, LINES_MAX);
    cm_buf_init(&r->warnings, LINES_MAX);
}

void cm_report_done(struct cm_report *r)
{
    cm_buf_done(&r->errors);
    cm_buf_done(&r->warnings);
}

/* A value of the file may hold anything; a line stays a line, and a terminal unharmed. */
static void tame(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

static void add(struct cm_buf *to, const char *file, unsigned line, unsigned col, const char *format, va_list ap)
{
    char text[600];

    vsnprintf(text, sizeof text, format, ap);
    tame(text);
    if (line > 0)
        cm_buf_printf(to, "%.400s:%u:%u: %s\n", file, line, col, text);
    else
        cm_buf_printf(to, "%.400s: %s\n", file, text);
}

void cm_report_error(struct cm_report *r, unsigned line, unsigned col, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    if (r->error_count++ < CM_REPORT_PROBLEMS_MAX)
        add(&r->errors, r->file, line, col, format, ap);
    va_end(ap);
}

void cm_report_warning(struct cm_report *r, unsigned line, unsigned col, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    if (r->warning_count++ < CM_REPORT_PROBLEMS_MAX)
        add(&r->warnings, r->file, line, col, format, ap);
    va_end(ap);
}
