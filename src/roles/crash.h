/* SPDX-License-Identifier: Apache-2.0 */
/* Where a worker's report of its own crash goes: as a CRASH frame to the gateway, or, before it serves, to stderr. */
#ifndef CM_ROLES_CRASH_H
#define CM_ROLES_CRASH_H

#include <stddef.h>

/* From here on `fd` is the channel, and no other descriptor may be written to. */
void cm_crash_channel(int fd);
/* For struct cm_guest_ops. Async-signal-safe. Writes nothing when a frame is on its way that cannot be completed. */
void cm_crash_report(const char *report, size_t len);

#endif
