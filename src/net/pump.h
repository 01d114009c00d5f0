/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes between a stream and a socket, both ways, with bounded buffers: what one side does not take, the other is not
 * asked for. The end of one direction is passed on; the end of both, or a failure, ends the pump. */
#ifndef CM_NET_PUMP_H
#define CM_NET_PUMP_H

#include "base/err.h"

struct cm_loop;
struct cm_pump;
struct cm_stream;

/* Takes a ready stream and a non-blocking socket in any case. `ended` comes from the loop, once; the pump is gone when it
 * returns. */
struct cm_pump *cm_pump_new(struct cm_loop *loop, struct cm_stream *s, int fd,
                            void (*ended)(void *arg, struct cm_pump *p), void *arg, struct cm_err *err);
/* Ends it without `ended`. Accepts NULL, returns NULL. */
struct cm_pump *cm_pump_free(struct cm_pump *p);

#endif
