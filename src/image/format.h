/* SPDX-License-Identifier: Apache-2.0 */
/* The header of an image file; see image.h. */
#ifndef CM_IMAGE_FORMAT_H
#define CM_IMAGE_FORMAT_H

#include <stdint.h>

#include "guest.h"
#include "guest/state.h"
#include "image/image.h"

#define CM_IMAGE_MAGIC     "codemode"
#define CM_IMAGE_FORMAT    1
#define CM_IMAGE_MEMORY_AT 65536 /* offset of the linear memory: aligned for any page size */

struct cm_image_header {
    char magic[8];
    uint32_t format, header_size;
    uint64_t memory_size;
    uint64_t checksum; /* FNV-1a over the 64-bit words of the memory */
    char guest_id[65]; /* hash of the guest's machine code and gate */
    Z_guest_instance_t instance;
    struct cm_guest_state state;
};
_Static_assert(sizeof(struct cm_image_header) <= CM_IMAGE_MEMORY_AT, "the header has its room");

extern const char cm_guest_id[65];

#endif
