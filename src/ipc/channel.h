/* SPDX-License-Identifier: Apache-2.0 */
/* A buffered, non-blocking channel of frames on the loop: the gateway's side.
 *
 * Reading takes at most 64 KiB per turn, so that a flooding peer shares the loop with the others; an idle channel
 * holds no buffer. Frames are checked by header and fields before anyone sees them. Writing tries at once and
 * queues the rest, up to the maximum given at opening.
 */
#ifndef CM_IPC_CHANNEL_H
#define CM_IPC_CHANNEL_H

#include "ev/loop.h"
#include "ipc/frame.h"

struct cm_channel;

struct cm_channel_ops {
    /* A whole, well-formed frame. Pointers live until it returns. `fd` is the descriptor that the table demands, or
     * -1; what is not stolen with *fd = -1 is closed. The channel may be closed from here. */
    void (*frame)(void *arg, const struct cm_ipc_header *head, const struct cm_ipc_fields *fields, int *fd);
    /* Once, and nothing after it: the peer has closed (err NULL), broken the protocol (CM_ERR_PROTOCOL), or the
     * socket has failed. Never from inside a call of the owner, but for cm_channel_drain(). */
    void (*closed)(void *arg, const struct cm_err *err);
};

/* Takes the socket in any case. `ops` must outlive the channel. out_max: bytes queued for writing at the most. */
struct cm_channel *cm_channel_open(struct cm_loop *loop, int fd, enum cm_ipc_role self, enum cm_ipc_role peer,
                                   size_t out_max, const struct cm_channel_ops *ops, void *arg, struct cm_err *err);
/* Final: no callback comes after it. Returns NULL, accepts NULL. */
struct cm_channel *cm_channel_close(struct cm_channel *ch);
/* Sends a message whose fields need not live longer than the call. `fd` travels along, -1 for none; it is taken in
 * any case. A peer that is gone is no error here: `closed` tells. 0; CM_ERR_TOO_LARGE when the queue is full;
 * CM_ERR_SYSTEM when the kernel does not take it, as for want of buffers; or CM_ERR_NO_MEMORY, which may end the
 * channel. */
int cm_channel_send(struct cm_channel *ch, struct cm_ipc_msg *m, int fd, struct cm_err *err);
/* The same for large fields that lie in `owner`, which is from malloc and taken in any case: they are not copied. */
int cm_channel_send_owned(struct cm_channel *ch, struct cm_ipc_msg *m, void *owner, struct cm_err *err);
/* The same for a message that ends with cm_ipc_put_rest(): the first `len` bytes of a file, which nobody changes, are the
 * rest. It is taken in any case, and read piece by piece as the peer takes them. */
int cm_channel_send_file(struct cm_channel *ch, struct cm_ipc_msg *m, int file, uint64_t len, struct cm_err *err);
/* Tells the peer that nothing more will come; its own end is still heard of by `closed`. */
void cm_channel_finish(struct cm_channel *ch);
/* Reads what a dead peer has left, so that its last words come before the news of its death. */
void cm_channel_drain(struct cm_channel *ch);

#endif
