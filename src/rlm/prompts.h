/* SPDX-License-Identifier: Apache-2.0 */
/* The texts that models read (rlm/prompts), built in, and their variables. */
#ifndef CM_RLM_PROMPTS_H
#define CM_RLM_PROMPTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct cm_buf;

#define CM_PROMPTS(P)                                                                                                  \
    P(SYSTEM, system)                                                                                                  \
    P(RECURSION, recursion)                                                                                            \
    P(NO_RECURSION, no_recursion)                                                                                      \
    P(CUSTOM_TOOLS, custom_tools)                                                                                      \
    P(ORCHESTRATOR, orchestrator)                                                                                      \
    P(QUERY, query)                                                                                                    \
    P(NO_QUERY, no_query)                                                                                              \
    P(CONTEXT, context)                                                                                                \
    P(NO_CONTEXT, no_context)                                                                                          \
    P(CONTEXTS, contexts)                                                                                              \
    P(OLD_CONTEXTS, old_contexts)                                                                                      \
    P(HISTORIES, histories)                                                                                            \
    P(FIRST_TURN, first_turn)                                                                                          \
    P(TURN, turn)                                                                                                      \
    P(LAST_TURN, last_turn)                                                                                            \
    P(NO_CODE, no_code)                                                                                                \
    P(UNCLOSED, unclosed)                                                                                              \
    P(FINAL, final)                                                                                                    \
    P(COMPACTION, compaction)                                                                                          \
    P(CONTINUE, continue)

/* Members of texts.json. */
#define CM_TEXTS(T)                                                                                                    \
    T(OUTPUT, output)                                                                                                  \
    T(OUTPUT_OF, output_of)                                                                                            \
    T(NO_OUTPUT, no_output)                                                                                            \
    T(VARIABLES, variables)                                                                                            \
    T(DROPPED, dropped)                                                                                                \
    T(TIMEOUT, timeout)                                                                                                \
    T(ROLLED_BACK, rolled_back)                                                                                        \
    T(BROKEN, broken)                                                                                                  \
    T(ERROR, error)                                                                                                    \
    T(REPLY_CUT, reply_cut)                                                                                            \
    T(ANSWER_CUT, answer_cut)                                                                                          \
    T(TOO_MANY_SUBCALLS, too_many_subcalls)                                                                            \
    T(TOO_MANY_RUNS, too_many_runs)                                                                                    \
    T(PROMPT_TOO_LONG, prompt_too_long)                                                                                \
    T(TOO_MANY_TEXTS, too_many_texts)                                                                                  \
    T(UNKNOWN_TEXT, unknown_text)                                                                                      \
    T(BAD_CALL, bad_call)

enum cm_prompt {
#define P(ID, name) CM_PROMPT_##ID,
    CM_PROMPTS(P)
#undef P
};

enum cm_text {
#define T(ID, name) CM_TEXT_##ID,
    CM_TEXTS(T)
#undef T
        CM_TEXT_COUNT
};

/* A variable's name and value; a value of NULL stands for `number`. */
struct cm_var {
    const char *name, *value;
    size_t len;
    uint64_t number;
};
#define CM_VAR(n, text, size) ((struct cm_var){.name = (n), .value = (text), .len = (size)})
#define CM_VAR_NUMBER(n, v)   ((struct cm_var){.name = (n), .number = (v)})
#define CM_VARS_MAX           8

/* Appends a text with its variables, of which the last one has no name. 0 or the buffer's error. */
int cm_prompt_fill(struct cm_buf *to, const char *text, size_t len, const struct cm_var *vars);
/* The same for one of ours. Without variables `vars` is NULL. */
int cm_prompt_put(struct cm_buf *to, enum cm_prompt prompt, const struct cm_var *vars);
int cm_text_put(struct cm_buf *to, enum cm_text text, const struct cm_var *vars);
/* A prompt as it stands in its file, without the last line break. */
const char *cm_prompt_text(enum cm_prompt prompt, size_t *ret_len);
/* rlm/session.py. */
const char *cm_prompt_session(size_t *ret_len);
/* Reads texts.json, once for the process; CM_ERR_CONFIG names what is missing. */
int cm_texts_open(struct cm_err *err);

#endif
