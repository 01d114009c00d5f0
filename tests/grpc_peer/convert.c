/* SPDX-License-Identifier: Apache-2.0 */
/* wire/structs for tests. A line on stdin, a line on stdout, all in hex: "j TEXT" gives the Struct that JSON means,
 * "s BYTES" the JSON of a Struct; "refused REASON" instead (not in hex). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "hex.h"
#include "wire/structs.h"

#define LINE_SIZE (1 << 22)

int main(void)
{
    char *line = malloc(LINE_SIZE);
    struct cm_err err;
    struct cm_buf out;

    if (!line)
        return 1;
    cm_buf_init(&out, LINE_SIZE);
    while (fgets(line, LINE_SIZE, stdin)) {
        size_t len = unhex(line + 2);
        int rc = line[0] == 'j' ? cm_struct_from_json(line + 2, len, &out, &err)
                                : cm_struct_to_json((const uint8_t *)line + 2, len, &out, &err);
        if (rc < 0)
            printf("refused %s", err.text);
        for (size_t i = 0; i < out.len; i++)
            printf("%02x", (unsigned char)cm_buf_data(&out)[i]);
        printf("\n");
        fflush(stdout);
        cm_buf_clear(&out);
    }
    cm_buf_done(&out);
    free(line);
    return 0;
}
