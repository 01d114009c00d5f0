/* SPDX-License-Identifier: Apache-2.0 */
/* A room that several share. Each may hold half of what the others leave: the first one half of all, the next one a quarter, and
 * so on. So nobody fills it, and there is always something for one more. */
#ifndef CM_BASE_SHARE_H
#define CM_BASE_SHARE_H

#include <stdint.h>

/* The most that one may hold of `room` where the others hold so much. */
static inline uint64_t cm_share(uint64_t room, uint64_t others)
{
    uint64_t left = room > others ? room - others : 0;

    return left - left / 2;
}

#endif
