/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions that count as guest code: guest.ld takes objects with "part" in their names for the guest's own. */
#include <stddef.h>
#include <string.h>

void part_touch(volatile char *at);
void part_fill_stack(volatile char *above, int levels);
char *part_memset(char *at, size_t len);

void part_touch(volatile char *at)
{
    *at = 1;
}

void part_fill_stack(volatile char *above, int levels)
{
    volatile char frame[1024];
    frame[0] = above[0];
    if (levels)
        part_fill_stack(frame, levels - 1);
    frame[1] = 1; /* no tail call */
}

/* As memory.fill is compiled: straight into libc. */
char *part_memset(char *at, size_t len)
{
    memset(at, 1, len);
    __asm__ volatile("" : "+r"(at) : : "memory");
    return at;
}
