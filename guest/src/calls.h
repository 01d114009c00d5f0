/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of tools: out to the host, and answers back to whoever waits for them. */
#ifndef CM_GUEST_CALLS_H
#define CM_GUEST_CALLS_H

#include <Python.h>

#include <stdint.h>

/* Calls whose answers are to come. The host reads it (guest_poll). */
extern int cm_calls_live;

/* For the scheduler: the host has an answer. */
void cm_calls_arrived(void);

/* Around an execution: how many calls it may make, with how many bytes each. At its end, calls that threads which are
 * left over have made answer that it is over. */
void cm_calls_begin(uint64_t calls_max, uint64_t argument_max);
void cm_calls_end(void);

/* Adds the functions of the module _codemode. 0 or -1 with a Python error. */
int cm_calls_init(PyObject *module);

#endif
