/* SPDX-License-Identifier: Apache-2.0 */
/* Image files. A whole one is damaged - bytes of its header, its length - and must then be refused, unless the damage
 * lies in what the guest itself would read; what is accepted can be mapped and read to its last byte.
 * Input: the file's length, then pairs of an offset and a byte. */
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "guest/engine.h"
#include "image/format.h"
#include "turn.h"

#define PAGES 3 /* of 64 KiB, of the whole image's memory */

const char cm_guest_id[65] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
Z_guest_instance_t cm_guest;
struct cm_guest_state cm_state;
static uint64_t limit_set;

void cm_guest_set_limit(uint64_t limit)
{
    limit_set = limit;
}

int cm_guest_guard(bool on, struct cm_err *err)
{
    (void)err;
    CHECK(on);
    return 0;
}

static struct cm_image_header whole_header(void)
{
    struct cm_image_header h = {.format = CM_IMAGE_FORMAT, .header_size = sizeof h, .memory_size = PAGES * 65536};

    memcpy(h.magic, CM_IMAGE_MAGIC, sizeof h.magic);
    memcpy(h.guest_id, cm_guest_id, sizeof h.guest_id);
    h.instance.w2c_memory.size = PAGES * 65536;
    h.state.max_pages = 77;
    return h;
}

/* What a reader must look at before it believes the rest. */
static bool is_sound(const struct cm_image_header *h, off_t size)
{
    const struct cm_image_header whole = whole_header();

    return size >= (off_t)sizeof *h && memcmp(h->magic, whole.magic, sizeof h->magic) == 0 &&
           h->format == whole.format && h->header_size == sizeof *h && strcmp(h->guest_id, cm_guest_id) == 0 &&
           h->memory_size <= CM_MEMORY_MAX && h->memory_size % 65536 == 0 &&
           h->memory_size == h->instance.w2c_memory.size && size == (off_t)(CM_IMAGE_MEMORY_AT + h->memory_size);
}

static void check_map(const struct cm_image *image, const struct cm_image_header *h)
{
    const uint64_t limit = image->memory_size + CM_IMAGE_ROOM;
    volatile unsigned char sum = 0;

    CHECK(image->memory_size == h->memory_size);
    CHECK(strncmp(image->id, cm_guest_id, 16) == 0);
    CHECK(cm_image_map(image, 0, NULL) == 0);
    CHECK(limit_set == limit);
    CHECK(memcmp(&cm_state, &h->state, sizeof cm_state) == 0 && memcmp(&cm_guest, &h->instance, sizeof cm_guest) == 0);
    for (uint64_t at = 0; at < limit; at += 4096)
        sum += CM_MEMORY[at];
    CM_MEMORY[0] = 1;
    CM_MEMORY[limit - 1] = 1;
    CHECK(munmap(CM_MEMORY, limit) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, data + size};
    struct cm_image_header h = whole_header();
    struct cm_err err = {0};
    struct cm_image image;
    char path[40];

    int lowest = fuzz_lowest_fd(), fd = memfd_create("image", MFD_CLOEXEC);
    CHECK(fd >= 0);
    /* 0: as long as it should be; else cut, or longer. */
    uint8_t length = fuzz_byte(&in);
    off_t bytes = CM_IMAGE_MEMORY_AT + PAGES * 65536;
    bytes = length == 0 ? bytes : length < 128 ? bytes - 65536 * (length % 6) - length : bytes + (length - 127) * 4096;
    while (in.at < in.end) {
        size_t at = fuzz_byte(&in) | (size_t)fuzz_byte(&in) << 8;
        ((uint8_t *)&h)[at % sizeof h] = fuzz_byte(&in);
    }
    bytes = bytes > 0 ? bytes : 0;
    CHECK(pwrite(fd, &h, sizeof h, 0) == (ssize_t)sizeof h && ftruncate(fd, bytes) == 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rc = cm_image_load(path, &image, &err);
    CHECK((rc == 0) == is_sound(&h, bytes));
    CHECK(rc == 0 || (err.code == rc && err.text[0]));
    if (rc == 0) {
        check_map(&image, &h);
        close(image.fd);
    }
    close(fd);
    CHECK(fuzz_lowest_fd() == lowest);
    return 0;
}
