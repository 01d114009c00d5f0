/* SPDX-License-Identifier: Apache-2.0 */
/* What the model sees of a block that has run. */
#ifndef CM_RLM_OUTPUT_H
#define CM_RLM_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

#define CM_OUTPUT_MAX  20000 /* characters of one block */
#define CM_OUTPUT_TAIL 4000 /* of them, from the end */

struct cm_buf;

struct cm_output_text {
    const char *at;
    size_t len;
};

struct cm_output {
    struct cm_output_text out, value, err, error, names; /* names of variables, with commas between */
    uint64_t missing; /* characters that the sidecar has dropped from the middle of these texts */
};

/* Appends it with its headline: that of the only block for 0, else that of the block of this number. 0 or the buffer's error. */
int cm_output_put(struct cm_buf *to, unsigned number, const struct cm_output *output);
/* Appends a JSON string of any text: valid UTF-8, and with more than `max` characters cut in the middle. */
int cm_output_json(struct cm_buf *to, const char *text, size_t len, size_t max);

#endif
