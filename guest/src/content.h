/* SPDX-License-Identifier: Apache-2.0 */
/* The value of a variable that comes to the session as a file: bytes that the host hands out from front to back. */
#ifndef CM_GUEST_CONTENT_H
#define CM_GUEST_CONTENT_H

#include <Python.h>

#include <stdint.h>

/* Before a LOAD is carried out: what the host has. */
void cm_content_begin(uint64_t len);

/* Adds the function of the module _codemode. 0 or -1 with a Python error. */
int cm_content_init(PyObject *module);

#endif
