/* SPDX-License-Identifier: Apache-2.0 */
/* The system call filter: rows of tables/syscalls.def, as data and as the program that the kernel runs. */
#ifndef CM_JAIL_FILTER_H
#define CM_JAIL_FILTER_H

#include <stdint.h>

#include "base/err.h"

#define CM_JAIL_PINS_MAX  4
#define CM_JAIL_CALLS_MAX 64

enum cm_jail_who { CM_JAIL_WORKER, CM_JAIL_ZYGOTE };

struct cm_jail_pin {
    unsigned argument; /* 0 to 5 */
    uint64_t value;
    const char *text; /* the value as the table writes it; NULL behind the last pin */
};

struct cm_jail_call {
    enum cm_jail_who who;
    unsigned number;
    const char *name;
    struct cm_jail_pin pins[CM_JAIL_PINS_MAX];
    const char *reason;
};

extern const struct cm_jail_call cm_jail_calls[];
extern const unsigned cm_jail_calls_count;

/* From here on, a call that no row of `who` or of the worker among `calls` allows ends the process with SIGSYS. At
 * most CM_JAIL_CALLS_MAX rows. Needs no_new_privs, or privilege. */
int cm_jail_filter_load(const struct cm_jail_call *calls, unsigned count, enum cm_jail_who who, struct cm_err *err);

#endif
