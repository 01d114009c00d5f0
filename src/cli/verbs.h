/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs and flags of tables/verbs.def, and the reader of a verb's arguments. */
#ifndef CM_CLI_VERBS_H
#define CM_CLI_VERBS_H

#include <stdbool.h>
#include <stdio.h>

#define CM_ARGS_MAX 256 /* values of all flags of one command line together */

enum cm_flag_kind { CM_FLAG_SWITCH, CM_FLAG_ONE, CM_FLAG_MANY };

struct cm_flag {
    const char *words; /* of its verb */
    const char *letter, *name, *value;
    enum cm_flag_kind kind;
    const char *def, *help;
};
extern const struct cm_flag cm_flags[]; /* ends with words NULL */

struct cm_args;
struct cm_verb {
    const char *words;
    int (*run)(const struct cm_args *args); /* or NULL, and */
    int (*run_raw)(int argc, char **argv);
    const char *operands;
    unsigned most; /* operands */
    bool settings; /* takes the flags of codemode serve, too */
    const char *brief, *more;
};
extern const struct cm_verb cm_verbs[]; /* ends with words NULL */

/* What stood behind a verb's words. The texts are those of the command line or of the table. */
struct cm_args {
    const struct cm_verb *verb;
    unsigned count;
    struct {
        const struct cm_flag *flag;
        const char *value; /* NULL for a switch */
    } given[CM_ARGS_MAX];
    const char *operand; /* or NULL */
};

/* The last value of a ONE flag, its default where it is not given; NULL when there is neither. The flag must be in the
 * table. */
const char *cm_args_text(const struct cm_args *args, const char *name);
/* Whether the flag stands on the command line. */
bool cm_args_has(const struct cm_args *args, const char *name);

/* Finds the verb of a command line without the program's name, reads what is behind it, runs it. Returns the exit code;
 * answers --help of verbs and groups, and unknown words, itself. */
int cm_cli_run(int argc, char **argv);
/* Reads the arguments of one verb: CM_EXIT_OK, or CM_EXIT_USAGE after an error message. */
int cm_args_read(const struct cm_verb *verb, int argc, char **argv, struct cm_args *ret);
/* The usage line, the meaning and the flags of a verb. */
void cm_verb_help(const struct cm_verb *verb, FILE *out);

#endif
