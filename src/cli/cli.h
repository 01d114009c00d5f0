/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of the command line. Each gets the arguments behind its own name and returns the exit code. */
#ifndef CM_CLI_H
#define CM_CLI_H

#include <stdbool.h>

#include "args/args.h"
#include "base/err.h"
#include "cli/backend.h"

/* The functions that tables/verbs.def names. */
#define CM_VERB(words, function, operands, most, brief, more)   int function(const struct cm_args *args);
#define CM_VERB_RAW(words, function, operands, settings, brief) int function(int argc, char **argv);
#define CM_FLAG(words, letter, name, value, kind, def, help)
#include "verbs.def"
#undef CM_VERB
#undef CM_VERB_RAW
#undef CM_FLAG

/* What `exec` and `repl` have in common: [-s SESSION] [--url URL] [--timeout SECONDS]
 * [--on-error keep|rollback]. */
struct cm_cli_options {
    struct cm_target target;
    const char *code; /* -c */
    const char *file; /* the one argument that is no flag */
    bool help;
};
/* CM_EXIT_OK, or CM_EXIT_USAGE after an error message. `with_code` also takes -c CODE and FILE. */
int cm_cli_options(int argc, char **argv, bool with_code, struct cm_cli_options *ret);
/* Shows what came of a run; returns its exit code and empties the outcome. */
int cm_cli_show(struct cm_outcome *o);
extern const char cm_cli_exit_help[];

#endif
