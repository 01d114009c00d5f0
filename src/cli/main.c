/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>

#include "base/fd.h"
#include "cli/cli.h"
#include "conf/schema.h"

#define CM_VERBS_TABLE "verbs.def"
#include "args/verbs.h"

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
