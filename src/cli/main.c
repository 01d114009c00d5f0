/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/words.h"
#include "cli/cli.h"
#include "conf/conf.h"

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *brief;
} verbs[] = {
    {"serve", cm_cli_serve, "serve sessions over HTTP until SIGTERM or Ctrl-C"},
    {"exec", cm_cli_exec, "run Python code from a file, an argument or the standard input"},
    {"repl", cm_cli_repl, "an interactive Python session"},
    {"plan", cm_cli_plan, "print how a worker is locked down, with the reasons"},
    {"doctor", cm_cli_doctor, "tell whether the server would start here, and which layers of isolation are on"},
    {"version", cm_cli_version, "print the version"},
};

#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

static int print_help(FILE *out)
{
    fputs("usage: codemode VERB [arguments]\n\nRuns Python in sandboxes: one locked-down process per session.\n\n",
          out);
    for (size_t i = 0; i < VERBS; i++)
        fprintf(out, "  %-9s %s\n", verbs[i].name, verbs[i].brief);
    fprintf(out, "\ncodemode VERB --help tells more.\n%s", cm_cli_exit_help);
    return CM_EXIT_OK;
}

int cm_cli_version(int argc, char **argv)
{
    if (argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
        puts("usage: codemode version\n\nPrints the name and the version. codemode --version does the same.");
        return CM_EXIT_OK;
    }
    if (argc > 0)
        return cm_cli_error(CM_EXIT_USAGE, "version takes no arguments");
    puts("codemode " CM_VERSION);
    return CM_EXIT_OK;
}

static int unknown_verb(const char *word)
{
    const char *known[VERBS + 1] = {0};

    for (size_t i = 0; i < VERBS; i++)
        known[i] = verbs[i].name;
    const char *near = cm_word_nearest(word, known);
    if (near)
        return cm_cli_error(CM_EXIT_USAGE, "unknown verb \"%s\"; did you mean %s?", word, near);
    return cm_cli_error(CM_EXIT_USAGE, "unknown verb \"%s\"; codemode --help lists all", word);
}

int main(int argc, char **argv)
{
    cm_fd_fill_standard();
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_help(stderr);
        return CM_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        return print_help(stdout);
    if (strcmp(argv[1], "--version") == 0)
        return cm_cli_version(0, NULL);
    for (size_t i = 0; i < VERBS; i++)
        if (strcmp(verbs[i].name, argv[1]) == 0)
            return verbs[i].run(argc - 2, argv + 2);
    return unknown_verb(argv[1]);
}
