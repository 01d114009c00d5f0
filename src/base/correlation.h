/* SPDX-License-Identifier: Apache-2.0 */
/* Ids by which a request is found in the logs of everybody who had to do with it: chosen by the client, or made here. */
#ifndef CM_BASE_CORRELATION_H
#define CM_BASE_CORRELATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define CM_CORRELATION_MAX 128 /* bytes */

/* Makes ids. */
struct cm_correlations {
    char seed[17];
    uint64_t count;
};

int cm_correlations_init(struct cm_correlations *ids, struct cm_err *err);
/* The given id where it can be logged as it is - 1 to CM_CORRELATION_MAX printable characters, no blank, no quote -, else a new one:
 * false then. `given` may be NULL. */
bool cm_correlation_take(struct cm_correlations *ids, const char *given, size_t len,
                         char ret[static CM_CORRELATION_MAX + 1]);

#endif
