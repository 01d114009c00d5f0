/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of `rlm`. Each gets the arguments behind its own name and returns the exit code. */
#ifndef CM_RLM_CLI_H
#define CM_RLM_CLI_H

#include "args/args.h"

#define CM_VERB(words, function, operands, most, brief, more)   int function(const struct cm_args *args);
#define CM_VERB_RAW(words, function, operands, settings, brief) int function(int argc, char **argv);
#define CM_FLAG(words, letter, name, value, kind, def, help)
#include "rlm_verbs.def"
#undef CM_VERB
#undef CM_VERB_RAW
#undef CM_FLAG

extern const char cm_rlm_cli_exit_help[];

#endif
