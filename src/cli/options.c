/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/words.h"
#include "cli/cli.h"
#include "conf/conf.h"
#include "conf/value.h"

const char cm_cli_exit_help[] =
    "exit codes: 0 success, 1 the code raised, 2 wrong usage, 3 no sidecar, sandbox or session to\n"
    "run in, 124 timeout, 130 interrupted\n";

int cm_cli_show(struct cm_outcome *o)
{
    static const int codes[] = {
        [CM_RUN_OK] = CM_EXIT_OK,
        [CM_RUN_RAISED] = CM_EXIT_RAISED,
        [CM_RUN_TIMED_OUT] = CM_EXIT_TIMEOUT,
        [CM_RUN_INTERRUPTED] = CM_EXIT_INTERRUPTED,
    };
    int code = codes[o->end];

    if (o->result)
        puts(o->result);
    fflush(stdout);
    if (o->end == CM_RUN_INTERRUPTED)
        fputs("KeyboardInterrupt\n", stderr);
    else if (o->error)
        fprintf(stderr, "%s%s", o->error, o->error[0] && o->error[strlen(o->error) - 1] == '\n' ? "" : "\n");
    if (o->rolled_back)
        cm_args_error(code, "rolled back: the variables are as they were before this");
    cm_outcome_done(o);
    return code;
}

/* CODEMODE_URL is ours, WASM_MANAGER_SERVICE_URL is what clients of the sidecar use anyway. */
static const char *url_from_environment(void)
{
    const char *url = getenv("CODEMODE_URL");

    if (!url || !*url)
        url = getenv("WASM_MANAGER_SERVICE_URL");
    return url && *url ? url : NULL;
}

static int unknown(const char *arg, bool with_code)
{
    static const char *const known[] = {"--session", "--url", "--timeout", "--on-error", "--help", NULL};
    const char *near = cm_word_nearest(arg, known);

    if (near)
        return cm_args_error(CM_EXIT_USAGE, "unknown flag \"%s\"; did you mean %s?", arg, near);
    return cm_args_error(CM_EXIT_USAGE, "unknown flag \"%s\"; codemode %s --help lists all", arg,
                         with_code ? "exec" : "repl");
}

static int set_timeout(struct cm_cli_options *o, const char *text)
{
    if (!cm_conf_parse_seconds(text, &o->target.timeout_s) || !(o->target.timeout_s > 0))
        return cm_args_error(CM_EXIT_USAGE, "--timeout: \"%s\" is not a time such as 30 or 250ms", text);
    return CM_EXIT_OK;
}

static int set_on_error(struct cm_cli_options *o, const char *text)
{
    o->target.atomic = strcmp(text, "rollback") == 0;
    if (!o->target.atomic && strcmp(text, "keep") != 0)
        return cm_args_error(CM_EXIT_USAGE, "--on-error: \"%s\" is neither keep nor rollback", text);
    return CM_EXIT_OK;
}

static int set_file(struct cm_cli_options *o, const char *arg, bool with_code)
{
    if (!with_code || o->file || o->code)
        return cm_args_error(CM_EXIT_USAGE, "\"%s\" is one argument too many", arg);
    o->file = arg;
    return CM_EXIT_OK;
}

/* A flag with a value: true when `arg` is it; then *ret_value is the value, or NULL when it is missing. */
static bool takes_value(const char *arg, const char *brief, const char *full, char *next, int *i, char **ret_value)
{
    size_t len = strlen(full);

    if (strncmp(arg, full, len) == 0 && arg[len] == '=') {
        *ret_value = (char *)arg + len + 1;
        return true;
    }
    if (strcmp(arg, brief) != 0 && strcmp(arg, full) != 0)
        return false;
    *ret_value = next;
    *i += next != NULL;
    return true;
}

static int set_flag(struct cm_cli_options *o, char **argv, int *i, bool with_code)
{
    char *arg = argv[*i], *next = argv[*i + 1], *value = NULL;
    const char **slot = takes_value(arg, "-s", "--session", next, i, &value)             ? &o->target.session
                        : takes_value(arg, "--url", "--url", next, i, &value)            ? &o->target.url
                        : with_code && takes_value(arg, "-c", "--code", next, i, &value) ? &o->code
                                                                                         : NULL;
    bool on_error = !slot && takes_value(arg, "--on-error", "--on-error", next, i, &value);
    if (!slot && !on_error && !takes_value(arg, "--timeout", "--timeout", next, i, &value))
        return unknown(arg, with_code);
    if (!value)
        return cm_args_error(CM_EXIT_USAGE, "%s: needs a value", arg);
    if (!slot)
        return on_error ? set_on_error(o, value) : set_timeout(o, value);
    *slot = value;
    return CM_EXIT_OK;
}

int cm_cli_options(int argc, char **argv, bool with_code, struct cm_cli_options *ret)
{
    struct cm_cli_options o = {.target = {.url = url_from_environment()}};

    for (int i = 0; i < argc; i++) {
        bool flag = argv[i][0] == '-' && argv[i][1] != '\0';
        if (cm_args_is_help(argv[i])) {
            o.help = true;
            continue;
        }
        int rc = flag ? set_flag(&o, argv, &i, with_code) : set_file(&o, argv[i], with_code);
        if (rc != CM_EXIT_OK)
            return rc;
    }
    if (o.code && o.file)
        return cm_args_error(CM_EXIT_USAGE, "give either -c or a file");
    *ret = o;
    return CM_EXIT_OK;
}
