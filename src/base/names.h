/* SPDX-License-Identifier: Apache-2.0 */
/* Names in Python code. */
#ifndef CM_BASE_NAMES_H
#define CM_BASE_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* Whether a byte can be part of a name. Each one beyond ASCII can. */
bool cm_name_has(char c);

/* Whether a variable can be called this: an identifier, in UTF-8, and no keyword. Which characters beyond ASCII are letters
 * only the interpreter knows, here all of them are: false is certain, true is the interpreter's to confirm. */
bool cm_name_is_variable(const char *text, size_t len);

#endif
