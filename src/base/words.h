/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_BASE_WORDS_H
#define CM_BASE_WORDS_H

/* The known word nearest to `word`, or NULL when none is near. The list ends with NULL. */
const char *cm_word_nearest(const char *word, const char *const *known);

#endif
