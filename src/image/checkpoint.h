/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a session as it was after its last execution, kept outside of its process.
 *
 * A checkpoint lies in a memfd that the gateway makes and holds, so it outlives the worker, however that ends. The
 * worker maps it and, after each answer, writes to it what has changed; a new worker that is given the same memfd
 * goes on from there. Its bytes may have been written by a worker that was taken over: they are read inside the jail
 * only, every number in them is checked, and what they can do there is what that worker could do already.
 *
 * There is one guest per process, so nothing here takes a handle.
 */
#ifndef CM_IMAGE_CHECKPOINT_H
#define CM_IMAGE_CHECKPOINT_H

#include <stdint.h>

#include "base/err.h"
#include "image/image.h"

/* Maps the memfd `fd`, which it sizes and seals when it is empty. After cm_image_map() of `image`, which must outlive
 * all of this, and before the jail. The calls below expect the memfd on descriptor CM_JAIL_CHECKPOINT, and on
 * CM_JAIL_PAGEMAP the process's own page map, /proc/self/pagemap. */
int cm_checkpoint_map(int fd, const struct cm_image *image, struct cm_err *err);
/* Makes the saved state this process's. *ret_seq is the execution after which it was saved, 0 when none was: then the
 * guest is as the image has it. When that would be execution `undo`, it is the state before that one. */
int cm_checkpoint_restore(uint64_t undo, uint64_t *ret_seq, struct cm_err *err);
/* Saves the guest, which must be between calls, as its state after execution `seq`. A process that dies at any point
 * of it leaves the state before. On failure nothing is saved any more, and a restore says so. */
void cm_checkpoint_save(uint64_t seq);

#endif
