/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_CLI_LINES_H
#define CM_CLI_LINES_H

#include <stdbool.h>
#include <stddef.h>

/* Whether the lines typed so far (each ends with a newline) wait for another one: inside brackets or a
 * triple-quoted string, after a backslash, or in a block - what begins with a compound keyword or a decorator,
 * or has a line that ends with a colon - until an empty line. The same as Python's own prompt, without asking it. */
bool cm_cli_needs_more(const char *text, size_t len);

#endif
