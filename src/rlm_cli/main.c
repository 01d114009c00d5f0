/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>

#include "base/fd.h"
#include "conf/rlm.h"
#include "conf/schema.h"
#include "rlm_cli/cli.h"
#include "roles/rlm_service.h"

#define CM_VERBS_TABLE "rlm_verbs.def"
#include "args/verbs.h"

const char cm_rlm_cli_exit_help[] =
    "exit codes: 0 success, 1 the run has failed, 2 wrong usage, 3 no sidecar, model or service,\n"
    "124 the run's time is over, 130 interrupted\n";

int cm_rlm_cli_serve(int argc, char **argv)
{
    static struct cm_rlm_conf conf;
    struct cm_err err;

    if (cm_args_want_help(argc, argv)) {
        puts(
            "usage: rlm serve [-c FILE] [flags]\n\nServes runs over HTTP until SIGTERM or Ctrl-C. A flag wins over its "
            "variable of the environment\n(in parentheses), which wins over the configuration file, which wins over "
            "the default.\n\n  -c, --config FILE\n      configuration file; otherwise that of RLM_CONFIG, or "
            "./rlm.yaml, where there is one\n");
        cm_rlm_conf_help(stdout);
        printf("\n%s", cm_rlm_cli_exit_help);
        return CM_EXIT_OK;
    }
    if (cm_rlm_conf_load(argc, argv, &conf, &err) < 0)
        return cm_args_unloaded(&err);
    if (cm_rlm_service_run(&conf, &err) < 0)
        return cm_args_error(err.code == CM_ERR_CONFIG ? CM_EXIT_USAGE : CM_EXIT_UNAVAILABLE, "%s", err.text);
    return CM_EXIT_OK;
}

int cm_rlm_cli_config(int argc, char **argv)
{
    static struct cm_rlm_conf conf;
    struct cm_err err;

    if (cm_args_want_help(argc, argv)) {
        puts(
            "usage: rlm config [-c FILE] [flags of rlm serve]\n\nPrints every setting as rlm serve would have it here, "
            "and where each comes from. Secrets are\nshown as ***.");
        return CM_EXIT_OK;
    }
    if (cm_rlm_conf_load(argc, argv, &conf, &err) < 0)
        return cm_args_unloaded(&err);
    cm_rlm_conf_show(&conf, stdout);
    return CM_EXIT_OK;
}

int cm_rlm_cli_version(const struct cm_args *args)
{
    (void)args;
    puts("rlm version " CM_VERSION);
    return CM_EXIT_OK;
}

int main(int argc, char **argv)
{
    const struct cm_program program = {
        .name = "rlm",
        .about = "Answers queries about contexts of any size: models work on them with code, in sandboxes.",
        .verbs = verbs,
        .flags = flags,
        .settings = &cm_rlm_schema,
        .exit_help = cm_rlm_cli_exit_help,
    };

    cm_fd_fill_standard();
    signal(SIGPIPE, SIG_IGN);
    return cm_args_run(&program, argc - 1, argv + 1);
}
