/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_BASE_RANDOM_H
#define CM_BASE_RANDOM_H

#include <stddef.h>

#include "base/err.h"

/* Writes `digits` (even, at most 64) lower-case hex digits of the system's random source and a NUL. */
int cm_random_hex(char *ret, size_t digits, struct cm_err *err);

#endif
