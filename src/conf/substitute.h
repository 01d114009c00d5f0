/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_CONF_SUBSTITUTE_H
#define CM_CONF_SUBSTITUTE_H

#include "base/err.h"

struct cm_buf;

/* Appends `text` with ${VAR}, ${VAR:-default} and $$ replaced. A variable that is empty counts as unset for `:-` only.
 * CM_ERR_CONFIG with the reason, or the buffer's error. */
int cm_substitute(const char *text, struct cm_buf *to, struct cm_err *err);

#endif
