/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

uint64_t cm_clock_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * CM_NS_PER_S + (uint64_t)ts.tv_nsec;
}

void cm_clock_iso8601(char ret[static CM_CLOCK_ISO8601_MAX])
{
    struct timespec ts;
    struct tm tm;

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(ret, CM_CLOCK_ISO8601_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(ret + n, CM_CLOCK_ISO8601_MAX - n, ".%06ldZ", ts.tv_nsec / 1000);
}
