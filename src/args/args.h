/* SPDX-License-Identifier: Apache-2.0 */
/* A program's verbs and flags, which a table declares (tables/verbs.def, rlm_verbs.def), and the reader of their arguments. */
#ifndef CM_ARGS_H
#define CM_ARGS_H

#include <stdbool.h>
#include <stdio.h>

struct cm_err;
struct cm_schema;

enum cm_exit {
    CM_EXIT_OK = 0,
    CM_EXIT_RAISED = 1, /* the code ended with an exception */
    CM_EXIT_UNFIT = 1, /* doctor: the server would not start */
    CM_EXIT_FAILED = 1, /* docker, validate, complete, ...: the thing itself did not work or is not right */
    CM_EXIT_USAGE = 2, /* wrong arguments, or a file that cannot be read */
    CM_EXIT_UNAVAILABLE = 3, /* no sidecar, sandbox, service or session to run in */
    CM_EXIT_TIMEOUT = 124, /* like timeout(1) */
    CM_EXIT_INTERRUPTED = 130, /* Ctrl-C */
};

#define CM_ARGS_MAX 256 /* values of all flags of one command line together */

enum cm_flag_kind { CM_FLAG_SWITCH, CM_FLAG_ONE, CM_FLAG_MANY };

struct cm_flag {
    const char *words; /* of its verb */
    const char *letter, *name, *value;
    enum cm_flag_kind kind;
    const char *def, *help;
};

struct cm_args;
struct cm_verb {
    const char *words;
    int (*run)(const struct cm_args *args); /* or NULL, and */
    int (*run_raw)(int argc, char **argv);
    const char *operands;
    unsigned most; /* operands */
    bool settings; /* takes the flags of the program's settings, too */
    const char *brief, *more;
};

struct cm_program {
    const char *name, *about; /* "codemode"; a paragraph */
    const struct cm_verb *verbs; /* ends with words NULL */
    const struct cm_flag *flags; /* the same */
    const struct cm_schema *settings; /* for completion */
    const char *exit_help;
};

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
 * answers --help of verbs and groups, and unknown words, itself. From here on the other functions are about this program. */
int cm_args_run(const struct cm_program *program, int argc, char **argv);
/* Text that is not ours: control characters would move a terminal's cursor, or worse, and are left out. */
void cm_args_print(FILE *out, const char *text, size_t len);
/* "<program>: <text>" on stderr; returns `exit_code`. */
int cm_args_error(int exit_code, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool cm_args_is_help(const char *arg);
/* One of them is. For verbs that read their arguments themselves. */
bool cm_args_want_help(int argc, char **argv);
/* The same as cm_args_error() for settings that could not be loaded: CM_EXIT_USAGE, unless there was no memory for them. */
int cm_args_unloaded(const struct cm_err *err);
/* A verb that prints a script for a shell: its operand, bash or zsh, completes everything. */
int cm_args_completion(const struct cm_args *args);
/* The one that runs. */
const struct cm_program *cm_args_program(void);
/* Reads the arguments of one verb: CM_EXIT_OK, or CM_EXIT_USAGE after an error message. */
int cm_args_read(const struct cm_verb *verb, int argc, char **argv, struct cm_args *ret);
/* The usage line, the meaning and the flags of a verb. */
void cm_verb_help(const struct cm_verb *verb, FILE *out);

#endif
