/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/interrupt.h"

#define SOURCE_MAX (64u << 20)

static const char help[] =
    "usage: codemode exec [-s SESSION [--on-error keep|rollback]] [--url URL] [--timeout SECONDS] [FILE | -c CODE | "
    "-]\n\n"
    "Runs Python code in a sandbox: from FILE, from -c, or from the standard input (-, or nothing given).\n"
    "Its output goes to stdout and stderr; the value of a last expression is printed, or, without -s, what the\n"
    "code has bound to `result`.\n\n"
    "  -s, --session ID     run in this session of the sidecar, and leave it as it is then\n"
    "  --url URL            the sidecar; default CODEMODE_URL, then WASM_MANAGER_SERVICE_URL; with neither, a\n"
    "                       private sandbox is started and shows output as it comes\n"
    "  --timeout SECONDS    limit of the execution, e.g. 2.5 or 250ms; default: the sidecar's, or\n"
    "                       EXECUTION_TIMEOUT (30)\n"
    "  --on-error WHAT      keep (the default) or rollback: code that fails leaves no trace in the session's "
    "variables\n\n";

static int read_all(FILE *file, struct cm_buf *to)
{
    char *at;

    for (;;) {
        int rc = cm_buf_reserve(to, 65536, &at);
        if (rc < 0)
            return rc;
        size_t n = fread(at, 1, 65536, file);
        cm_buf_commit(to, n);
        if (n < 65536)
            return ferror(file) ? CM_ERR_SYSTEM : 0;
    }
}

static int read_source(const struct cm_cli_options *o, struct cm_buf *to)
{
    bool standard = !o->file || strcmp(o->file, "-") == 0;
    const char *name = standard ? "standard input" : o->file;

    if (o->code)
        return cm_buf_puts(to, o->code) < 0 ? cm_args_error(CM_EXIT_USAGE, "the code is too long") : CM_EXIT_OK;
    FILE *file = standard ? stdin : fopen(o->file, "re");
    if (!file)
        return cm_args_error(CM_EXIT_USAGE, "%s: %s", name, strerror(errno));
    int rc = read_all(file, to);
    int saved = errno;
    if (!standard)
        fclose(file);
    if (rc == CM_ERR_SYSTEM)
        return cm_args_error(CM_EXIT_USAGE, "%s: %s", name, strerror(saved));
    return rc < 0 ? cm_args_error(CM_EXIT_USAGE, "%s: is too long", name) : CM_EXIT_OK;
}

static int run(const struct cm_target *target, const char *code, size_t len)
{
    struct cm_backend *b = NULL;
    struct cm_outcome o;
    struct cm_err err;
    int rc = cm_interrupt_open(&err);

    if (rc == 0)
        rc = cm_backend_open(target, &b, &err);
    if (rc == 0)
        rc = b->run(b, code, len, &o, &err);
    cm_backend_close(b);
    if (rc < 0)
        return cm_args_error(err.code == CM_ERR_CONFIG ? CM_EXIT_USAGE : CM_EXIT_UNAVAILABLE, "%s", err.text);
    return cm_cli_show(&o);
}

int cm_cli_exec(int argc, char **argv)
{
    cm_autobuf struct cm_buf source;
    struct cm_cli_options o;

    cm_buf_init(&source, SOURCE_MAX);
    int rc = cm_cli_options(argc, argv, true, &o);
    if (rc != CM_EXIT_OK)
        return rc;
    if (o.help) {
        printf("%s%s", help, cm_cli_exit_help);
        return CM_EXIT_OK;
    }
    if (o.target.atomic && !o.target.session)
        return cm_args_error(CM_EXIT_USAGE, "--on-error: only a session has a state to go back to; name one with -s");
    rc = read_source(&o, &source);
    return rc != CM_EXIT_OK ? rc : run(&o.target, cm_buf_data(&source), source.len);
}
