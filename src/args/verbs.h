/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the arrays `flags` and `verbs` of a program of the table that CM_VERBS_TABLE names. For the file with its main(). */
#define CM_VERB(words, function, operands, most, brief, more)
#define CM_VERB_RAW(words, function, operands, settings, brief)
#define CM_FLAG(words, letter, name, value, kind, def, help) {words, letter, name, value, CM_FLAG_##kind, def, help},
static const struct cm_flag flags[] = {
#include CM_VERBS_TABLE
    {.words = NULL},
};
#undef CM_VERB
#undef CM_VERB_RAW
#undef CM_FLAG

#define CM_VERB(words, function, operands, most, brief, more)                                                          \
    {words, function, NULL, operands, most, false, brief, more},
#define CM_VERB_RAW(words, function, operands, settings, brief)                                                        \
    {words, NULL, function, operands, 0, settings, brief, ""},
#define CM_FLAG(words, letter, name, value, kind, def, help)
static const struct cm_verb verbs[] = {
#include CM_VERBS_TABLE
    {.words = NULL},
};
#undef CM_VERB
#undef CM_VERB_RAW
#undef CM_FLAG
