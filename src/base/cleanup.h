/* SPDX-License-Identifier: Apache-2.0 */
/* Cleanup attributes: an owner is declared with its end beside it, and what survives is stolen.
 *
 *     cm_autofd int fd = open(...);
 *     ...any early return closes it...
 *     *ret_fd = cm_steal_fd(&fd);
 */
#ifndef CM_BASE_CLEANUP_H
#define CM_BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

static inline void cm_cleanup_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cm_cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}

static inline int cm_steal_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

#define cm_autofd   __attribute__((cleanup(cm_cleanup_fd)))
#define cm_autofree __attribute__((cleanup(cm_cleanup_free)))
#define cm_autobuf  __attribute__((cleanup(cm_buf_done))) /* needs base/buf.h */

#define cm_steal(pointer)                                                                                              \
    ({                                                                                                                 \
        __typeof__(pointer) cm_taken = (pointer);                                                                      \
        (pointer) = NULL;                                                                                              \
        cm_taken;                                                                                                      \
    })

#define CM_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#endif
