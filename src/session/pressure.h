/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory is left before the kernel starts to kill. */
#ifndef CM_SESSION_PRESSURE_H
#define CM_SESSION_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

#define CM_PRESSURE_EVERY_NS (100 * 1000000ull) /* reading costs some 50 us */

/* What was read last, and when; zeroed before first use. */
struct cm_pressure {
    uint64_t read_ns, left;
};

/* Bytes that can still be used: the least of what the machine has available and of what each control group above this
 * process leaves, version 1 or 2; pages of files that can be dropped count as left. `root` is put in front of /proc
 * and /sys: "" but for tests. False when nothing could be read. */
bool cm_pressure_read(const char *root, uint64_t *ret);
/* The same, at most CM_PRESSURE_EVERY_NS old; UINT64_MAX when nothing can be read. */
uint64_t cm_pressure_left(struct cm_pressure *p);

#endif
