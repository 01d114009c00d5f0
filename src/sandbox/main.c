/* SPDX-License-Identifier: Apache-2.0 */
/* codemode-sandbox: started by the gateway with its channel at descriptor 3. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles/zygote.h"

static const char usage[] =
    "usage: codemode-sandbox --image PATH [--waive LAYERS] [--require LAYERS] [--uid NUMBER] [--check]\n"
    "Started by codemode; of use alone is only --check, which tells whether this machine will do.\n";

static int wrong(const char *text)
{
    fprintf(stderr, "codemode-sandbox: %s\n%s", text, usage);
    return 2;
}

static bool read_uid(const char *text, uid_t *ret)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || n == 0 || n >= 0xffffffff)
        return false;
    *ret = (uid_t)n;
    return true;
}

int main(int argc, char **argv)
{
    struct cm_sandbox_args args = {.uid = 65534};
    struct cm_err err;
    const char *waive = "", *require = "", *uid = "65534";
    for (int i = 1; i < argc; i++) {
        const char **slot = !strcmp(argv[i], "--image")     ? &args.image
                            : !strcmp(argv[i], "--waive")   ? &waive
                            : !strcmp(argv[i], "--require") ? &require
                            : !strcmp(argv[i], "--uid")     ? &uid
                                                            : NULL;
        if (!strcmp(argv[i], "--check"))
            args.check = true;
        else if (!slot || ++i == argc)
            return wrong("unknown argument, or one without its value");
        else
            *slot = argv[i];
    }
    if (!args.image || !read_uid(uid, &args.uid))
        return wrong("no image, or a user that is no number above 0");
    if (cm_layers_wish(waive, require, &args.layers, &err))
        return wrong(err.text);
    return args.check ? cm_sandbox_check(&args) : cm_zygote_main(&args);
}
