/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_BASE_CLOCK_H
#define CM_BASE_CLOCK_H

#include <stdint.h>

#define CM_NS_PER_S          1000000000ull
#define CM_NS_PER_MS         1000000ull
#define CM_CLOCK_ISO8601_MAX 32

/* Monotonic nanoseconds; only differences mean something. */
uint64_t cm_clock_ns(void);
/* The real time as "2026-01-31T12:34:56.123456Z". */
void cm_clock_iso8601(char ret[static CM_CLOCK_ISO8601_MAX]);

#endif
