/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>

#include "base/fd.h"
#include "cli/cli.h"
#include "conf/schema.h"

#define CM_VERB(words, function, operands, most, brief, more)
#define CM_VERB_RAW(words, function, operands, settings, brief)
#define CM_FLAG(words, letter, name, value, kind, def, help) {words, letter, name, value, CM_FLAG_##kind, def, help},
static const struct cm_flag flags[] = {
#include "verbs.def"
    {.words = NULL},
};
#undef CM_VERB
#undef CM_VERB_RAW
#undef CM_FLAG

#define CM_VERB(words, function, operands, most, brief, more)                                                          \
    {words, function, NULL, operands, most, false, brief, more},
#define CM_VERB_RAW(words, function, operands, settings, brief)                                                        \
    {words, NULL, function, operands, 0, settings, brief, ""},
#define CM_FLAG(words, letter, name, value, kind, def, help)
static const struct cm_verb verbs[] = {
#include "verbs.def"
    {.words = NULL},
};
#undef CM_VERB
#undef CM_VERB_RAW
#undef CM_FLAG

int cm_cli_version(const struct cm_args *args)
{
    (void)args;
    puts("codemode version " CM_VERSION);
    return CM_EXIT_OK;
}

int main(int argc, char **argv)
{
    const struct cm_program program = {
        .name = "codemode",
        .about = "Runs Python in sandboxes: one locked-down process per session.",
        .verbs = verbs,
        .flags = flags,
        .settings = &cm_conf_schema,
        .exit_help = cm_cli_exit_help,
    };

    cm_fd_fill_standard();
    signal(SIGPIPE, SIG_IGN);
    return cm_args_run(&program, argc - 1, argv + 1);
}
