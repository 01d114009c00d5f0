/* SPDX-License-Identifier: Apache-2.0 */
/* The checker of the texts that a worker sends as its `locals`, which go into answers as they are. */
#include "fuzz.h"

#include "model_json.h"
#include "session/locals.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_copy(data, size);
    struct model model = model_json(text, size, CM_LOCALS_DEPTH_MAX);

    CHECK(cm_locals_valid(text, size) == (model.valid && model.kind == '{'));
    /* The depth that it takes is exact: wrapped as deep as may be, and one deeper. */
    for (size_t depth = CM_LOCALS_DEPTH_MAX - 1; depth <= CM_LOCALS_DEPTH_MAX && size > 0 && data[0] == '7'; depth++) {
        char *deep = malloc(6 * depth + size);
        CHECK(deep);
        for (size_t i = 0; i < depth; i++)
            memcpy(deep + 5 * i, "{\"k\":", 5);
        memcpy(deep + 5 * depth, text, size);
        memset(deep + 5 * depth + size, '}', depth);
        model = model_json(deep, 6 * depth + size, CM_LOCALS_DEPTH_MAX);
        CHECK(cm_locals_valid(deep, 6 * depth + size) == model.valid);
        free(deep);
    }
    free(text);
    return 0;
}
