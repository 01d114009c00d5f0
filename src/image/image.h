/* SPDX-License-Identifier: Apache-2.0 */
/* Memory images: a guest at rest, from which sessions start.
 *
 * A file of three parts: a header of 64 KiB with the guest's instance and host state; then the linear memory, byte
 * for byte and page for page, with holes where it is zero. Sessions map it privately, so that all share its pages
 * until they write to them. An image fits only the guest code that made it (cm_guest_id). It holds no native stack:
 * it is taken between calls, when the only frame is the gate's own.
 */
#ifndef CM_IMAGE_H
#define CM_IMAGE_H

#include <stdint.h>

#include "base/err.h"

#define CM_IMAGE_ID_MAX 80
#define CM_IMAGE_ROOM   (16u << 20) /* with less a session cannot even say that its memory is full */

struct cm_image {
    int fd;
    uint64_t memory_size; /* bytes of linear memory in the image */
    char id[CM_IMAGE_ID_MAX];
};

/* Writes the guest of this process, which must be between calls; the file appears when it is whole. */
int cm_image_write(const char *path, struct cm_err *err);
/* Opens and checks the file, which the caller closes by ret->fd. It is mapped as it is, not copied, so that a start
 * costs nothing: whoever may write to it may write to the executables as well. A build replaces it by rename(), which
 * leaves it to those who have it open. */
int cm_image_load(const char *path, struct cm_image *ret, struct cm_err *err);
/* Makes the image this process's guest: after cm_guest_reserve(), usually after a fork. `limit`: bytes to which the
 * session's memory may grow; at least the image's own size and CM_IMAGE_ROOM. */
int cm_image_map(const struct cm_image *image, uint64_t limit, struct cm_err *err);

#endif
