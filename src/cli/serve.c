/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"
#include "conf/conf.h"
#include "roles/gateway.h"

int cm_cli_serve(int argc, char **argv)
{
    struct cm_conf conf;
    struct cm_err err;

    if (cm_args_want_help(argc, argv)) {
        puts("usage: codemode serve [-c FILE] [flags]\n\nServes sessions over HTTP and gRPC until SIGTERM or Ctrl-C. A "
             "flag "
             "wins over its variable of the\nenvironment (in parentheses), which wins over the configuration file, "
             "which "
             "wins over the default.\n\n"
             "  -c, --config FILE\n      configuration file; otherwise that of CODEMODE_SIDECAR_CONFIG, "
             "./codemode-sidecar.yaml or\n      ./codemode.yaml, where there is one\n");
        cm_conf_help(stdout);
        printf("\n%s", cm_cli_exit_help);
        return CM_EXIT_OK;
    }
    if (cm_conf_load(argc, argv, &conf, &err) < 0)
        return cm_args_unloaded(&err);
    if (cm_gateway_run(&conf, &err) < 0)
        return cm_args_error(err.code == CM_ERR_CONFIG ? CM_EXIT_USAGE : CM_EXIT_UNAVAILABLE, "%s", err.text);
    return CM_EXIT_OK;
}
