/* SPDX-License-Identifier: Apache-2.0 */
/* codemode-image STDLIB.tar OUT: starts the guest once, and writes its memory for all sessions to start from. */
#include <stdio.h>

#include "image/image.h"
#include "sandbox/build.h"

int main(int argc, char **argv)
{
    struct cm_err err;
    if (argc != 3) {
        fputs("usage: codemode-image STDLIB.tar OUT\n", stderr);
        return 2;
    }
    if (cm_build_guest(argv[1], true, &err) || cm_image_write(argv[2], &err)) {
        fprintf(stderr, "codemode-image: %s\n", err.text);
        return 1;
    }
    return 0;
}
