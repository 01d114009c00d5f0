/* SPDX-License-Identifier: Apache-2.0 */
/* Ctrl-C as a descriptor: readable once SIGINT has come. */
#ifndef CM_CLI_INTERRUPT_H
#define CM_CLI_INTERRUPT_H

#include <stdbool.h>

#include "base/err.h"

/* Takes SIGINT for the rest of the process. Interrupted system calls return. */
int cm_interrupt_open(struct cm_err *err);
int cm_interrupt_fd(void);
/* True when SIGINT has come since the last call. */
bool cm_interrupt_take(void);

#endif
