/* SPDX-License-Identifier: Apache-2.0 */
/* `codemode validate`, `codemode config ...`, `codemode init ...` */
#include <stdio.h>
#include <string.h>

#include "cli/assets.h"
#include "cli/cli.h"
#include "conf/conf.h"
#include "conf/files.h"

/* The kind that a word names; CM_FILE_ANY for NULL; -1 after a message. */
static int kind_of(const char *word)
{
    enum cm_file_kind kind = word ? cm_conf_file_kind_of(word) : CM_FILE_ANY;

    if (word && kind == CM_FILE_ANY) {
        cm_args_error(CM_EXIT_USAGE, "\"%s\" is not one of sidecar, client, unified", word);
        return -1;
    }
    return kind;
}

/* validate */

static void say_valid(const char *path, const struct cm_conf_file *f)
{
    printf("✓ Configuration is valid: %s\n\n", path);
    if (f->kind == CM_FILE_UNIFIED)
        printf("  Project: %s\n  Framework: %s\n", cm_conf_file_text(f, "project.name"),
               cm_conf_file_text(f, "framework.type"));
    else if (f->kind == CM_FILE_SIDECAR)
        printf("  Listens on: %s:%s\n  Tools: %s\n", cm_conf_file_text(f, "host"), cm_conf_file_text(f, "port"),
               cm_conf_file_text(f, "main_app_grpc_target"));
    else
        printf("  Executor: %s\n", cm_conf_file_text(f, "executor_url"));
}

/* What the values mean together, for a file that is right by itself. */
static void check_meaning(const struct cm_conf_file *f, struct cm_report *r)
{
    struct cm_conf conf;
    struct cm_err err;

    if (f->kind == CM_FILE_CLIENT)
        return;
    if (cm_conf_defaults(&conf, &err) < 0 || (cm_conf_file_apply(f, &conf, r) == 0 && cm_conf_check(&conf, &err) < 0))
        cm_report_error(r, 0, 0, "%s", err.text);
}

int cm_cli_validate(const struct cm_args *args)
{
    const char *path = cm_args_text(args, "--config");
    int kind = kind_of(cm_args_text(args, "--kind"));
    struct cm_report report;
    struct cm_conf_file file;

    if (kind < 0)
        return CM_EXIT_USAGE;
    cm_report_init(&report, path);
    if (cm_conf_file_read(path, (enum cm_file_kind)kind, &file, &report) == 0)
        check_meaning(&file, &report);
    fputs(cm_buf_data(&report.errors), stderr);
    for (const char *line = cm_buf_data(&report.warnings), *end; *line; line = end + (*end == '\n')) {
        end = line + strcspn(line, "\n");
        fprintf(stderr, "warning: %.*s\n", (int)(end - line), line);
    }
    bool bad = report.error_count > 0;
    if (bad)
        cm_args_error(CM_EXIT_FAILED, "%s has %u problem%s", path, report.error_count,
                      report.error_count == 1 ? "" : "s");
    else
        say_valid(path, &file);
    cm_conf_file_done(&file);
    cm_report_done(&report);
    return bad ? CM_EXIT_FAILED : CM_EXIT_OK;
}

/* config */

int cm_cli_config_print_defaults(const struct cm_args *args)
{
    int kind = kind_of(args->operand ? args->operand : "unified");

    if (kind < 0)
        return CM_EXIT_USAGE;
    cm_conf_file_print_defaults((enum cm_file_kind)kind, stdout);
    return CM_EXIT_OK;
}

int cm_cli_config_show(int argc, char **argv)
{
    struct cm_conf conf;
    struct cm_err err;

    if (cm_args_want_help(argc, argv)) {
        puts("usage: codemode config show [-c FILE] [flags of codemode serve]\n\nPrints every setting as "
             "codemode serve would have it here, and where each comes from. Secrets are\nshown as ***.");
        return CM_EXIT_OK;
    }
    if (cm_conf_load(argc, argv, &conf, &err) < 0)
        return cm_args_unloaded(&err);
    cm_conf_show(&conf, stdout);
    return CM_EXIT_OK;
}

/* init */

static int init(const struct cm_args *args, const char *asset, const char *next)
{
    const char *path = cm_args_text(args, "--output");
    int rc = cm_asset_write(cm_asset_find(asset), path, cm_args_has(args, "--force"));

    if (rc == CM_EXIT_OK)
        printf("✓ Created %s\n\n%s\n", path, next);
    return rc;
}

#define NEXT_KEY "  1. Set the key:  export CODEMODE_API_KEY=$(openssl rand -hex 32)\n"

int cm_cli_init(const struct cm_args *args)
{
    return init(args, "codemode.yaml",
                "Next steps:\n" NEXT_KEY "  2. Check the file:  codemode validate\n"
                "  3. Start the executor:  codemode docker start, or codemode serve");
}

int cm_cli_init_client(const struct cm_args *args)
{
    return init(args, "codemode-client.yaml",
                "Next steps:\n" NEXT_KEY "  2. In the application:  Codemode.from_client_config()");
}

int cm_cli_init_sidecar(const struct cm_args *args)
{
    return init(args, "codemode-sidecar.yaml.template",
                "Next steps:\n" NEXT_KEY "  2. Start the executor:  codemode serve, or codemode docker start");
}
