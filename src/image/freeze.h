/* SPDX-License-Identifier: Apache-2.0 */
/* A session taken out of its process, and put into another one.
 *
 * What is written: the instance, the host's state, every page of memory that differs from the image, and the used
 * part of each stack. It holds return addresses of native code: whoever can change such a file runs code in the
 * process that thaws it, so it must never come from outside. The guest must be at the gate (CM_GUEST_WAITS) or
 * between calls, and both processes must run the same guest and gate.
 */
#ifndef CM_IMAGE_FREEZE_H
#define CM_IMAGE_FREEZE_H

#include "base/err.h"
#include "image/image.h"

/* Writes this process's guest, which started from `image`, to the start of `fd`. The guest cannot run afterwards. */
int cm_image_freeze(int fd, const struct cm_image *image, struct cm_err *err);
/* Reads it back in a process that has mapped the same image and not run it. */
int cm_image_thaw(int fd, struct cm_err *err);

#endif
