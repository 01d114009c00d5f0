/* SPDX-License-Identifier: Apache-2.0 */
/* Faults of our own in a process that runs a guest: a report, and the end.
 *
 * engine.c decides whether a fault is the guest's; whatever is not comes here and is never resumed.
 */
#ifndef CM_GUEST_FAULT_H
#define CM_GUEST_FAULT_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#include "base/err.h"

#define CM_FAULT_REPORT_MAX 3072 /* fits a CRASH frame, and after escaping a line of the log */

/* Where an address lies; of the stacks and the memory also which and how far in. */
enum cm_place {
    CM_PLACE_UNKNOWN,
    CM_PLACE_NULL,
    CM_PLACE_HOST_CODE,
    CM_PLACE_IMPORTS, /* host code that guest code calls */
    CM_PLACE_GUEST_CODE,
    CM_PLACE_STATE, /* the host's knowledge of the session */
    CM_PLACE_MEMORY,
    CM_PLACE_GUEST_STACK,
    CM_PLACE_SIGNAL_STACK,
    CM_PLACE_HOST_STACK,
};
enum cm_place cm_fault_place(uintptr_t address);

/* Handles SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGTRAP on an alternate stack with a guard page, all signals blocked
 * meanwhile: so a fault within the handler ends the process at once. `write` takes the report (NULL: stderr does); it
 * runs in the handler and may call async-signal-safe functions only. */
int cm_fault_install(void (*handler)(int, siginfo_t *, void *), void (*write)(const char *text, size_t len),
                     struct cm_err *err);
/* From the handler alone. Dies by SIGSEGV, whatever the signal was. */
_Noreturn void cm_fault_die(int signal, const siginfo_t *info, const ucontext_t *uc, bool in_guest);

/* For functions that guest code calls: their section's bounds are known to the handler. */
#define CM_IMPORT __attribute__((section("cm_imports"), noinline))

#endif
