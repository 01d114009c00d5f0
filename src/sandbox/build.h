/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs share that start a guest from nothing: the image builder and the profiler. */
#ifndef CM_SANDBOX_BUILD_H
#define CM_SANDBOX_BUILD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "guest/state.h"

/* Starts the guest of this process with the archive as its /usr. `seal`: arrange the heap for an image. */
int cm_build_guest(const char *archive, bool seal, struct cm_err *err);
/* Calls the guest and waits in its place; what it prints goes to stderr. `step` names the call in errors. */
int cm_build_call(const char *step, enum cm_entry entry, uint32_t arg0, uint32_t arg1, uint32_t *ret,
                  struct cm_err *err);

#endif
