/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors. */
#ifndef CM_BASE_FD_H
#define CM_BASE_FD_H

#include <stddef.h>

/* Closes a descriptor; -1 is accepted. Returns -1, so that `fd = cm_fd_close(fd)` leaves nothing behind. */
int cm_fd_close(int fd);
/* 0 or a negative errno. */
int cm_fd_nonblock(int fd);
/* Writes all of it, also through short writes and interrupted calls. 0 or a negative errno. */
int cm_fd_write_all(int fd, const void *data, size_t len);
/* Opens /dev/null on whichever of 0, 1 and 2 are closed, so that no later descriptor takes their place. */
int cm_fd_fill_standard(void);

#endif
