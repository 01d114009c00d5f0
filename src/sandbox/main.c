/* SPDX-License-Identifier: Apache-2.0 */
/* codemode-sandbox --image PATH: started by the gateway with its channel at descriptor 3. */
#include <stdio.h>
#include <string.h>

#include "roles/zygote.h"

int main(int argc, char **argv)
{
    if (argc != 3 || strcmp(argv[1], "--image")) {
        fputs("usage: codemode-sandbox --image PATH\nStarted by codemode; it does nothing of use alone.\n", stderr);
        return 2;
    }
    return cm_zygote_main(argv[2]);
}
