/* SPDX-License-Identifier: Apache-2.0 */
/* `codemode tls generate-certs` */
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "conf/value.h"
#include "net/certs.h"

#define DAYS_MAX 36500

static void show_file(void *arg, const char *path)
{
    (void)arg;
    printf("%s\n", path);
    fflush(stdout);
}

static bool parse_days(const char *text, unsigned *ret)
{
    double days;

    if (!cm_conf_parse_uint(text, &days) || days < 1 || days > DAYS_MAX)
        return false;
    *ret = (unsigned)days;
    return true;
}

int cm_cli_tls_generate_certs(const struct cm_args *args)
{
    struct cm_certs_options o = {
        .folder = cm_args_text(args, "--output"),
        .force = cm_args_has(args, "--force"),
        .ecdsa = cm_args_has(args, "--ecdsa"),
        .name = cm_args_text(args, "--name"),
        .made = show_file,
    };
    struct cm_err err;

    if (!parse_days(cm_args_text(args, "--days"), &o.days))
        return cm_args_error(CM_EXIT_USAGE, "--days: must be a whole number from 1 to %d", DAYS_MAX);
    if (isatty(STDERR_FILENO) && !o.ecdsa)
        fputs("making three keys of 4096 bits, which takes some seconds\n", stderr);
    if (cm_certs_generate(&o, &err) < 0)
        return cm_args_error(CM_EXIT_FAILED, "%s", err.text);
    return CM_EXIT_OK;
}
