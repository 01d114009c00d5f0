/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_SESSION_LOCALS_H
#define CM_SESSION_LOCALS_H

#include <stdbool.h>
#include <stddef.h>

#define CM_LOCALS_DEPTH_MAX 1024

/* True when the text is exactly one JSON object by RFC 8259, in valid UTF-8, nested at most CM_LOCALS_DEPTH_MAX deep.
 * The text goes into answers as it is, so nothing is built from it: a number may be of any size, and keys may
 * come twice. Takes time in proportion to the length and no memory. */
bool cm_locals_valid(const char *text, size_t len);

#endif
