/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's outlet for stdout and stderr: OUTPUT frames, gathered so that a thousand prints are not a thousand
 * system calls, and sent at once when the last ones are some milliseconds old, so that a reader can follow.
 */
#ifndef CM_ROLES_OUTPUT_H
#define CM_ROLES_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Frames from here on belong to execution `id` and go to `fd`. */
void cm_output_begin(int fd, uint64_t id);
/* Takes all or, when the buffer is full, nothing. Never blocks. */
bool cm_output_emit(int stream, const void *data, size_t len);
bool cm_output_pending(void);
/* Async-signal-safe: sends what the socket takes at once. A worker that may be killed soon keeps nothing back. */
void cm_output_push(void);
/* Sends everything; blocks until the gateway has room. */
int cm_output_flush(struct cm_err *err);
/* Async-signal-safe: completes a frame of which a part was sent, so that another may follow; drops what waits behind
 * it. False when that is not possible, because the buffer was being changed. */
bool cm_output_end_frame(void);

#endif
