/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random.h"

#include <assert.h>
#include <errno.h>
#include <sys/random.h>

int cm_random_hex(char *ret, size_t digits, struct cm_err *err)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char bytes[32];

    assert(digits % 2 == 0 && digits / 2 <= sizeof bytes);
    /* Up to 256 bytes are never cut short once the source is seeded. */
    if (getrandom(bytes, digits / 2, 0) != (ssize_t)(digits / 2))
        return cm_err_sys(err, errno, "getrandom");
    for (size_t i = 0; i < digits / 2; i++) {
        ret[2 * i] = hex[bytes[i] >> 4];
        ret[2 * i + 1] = hex[bytes[i] & 15];
    }
    ret[digits] = '\0';
    return 0;
}
