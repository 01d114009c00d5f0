/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 against the slow reader of model_json.h. */
#include "fuzz.h"

#include "base/utf8.h"
#include "model_json.h"

static bool model_utf8(const char *text, size_t size)
{
    struct model_text t = {(const unsigned char *)text, (const unsigned char *)text + size, 0, 0};

    while (t.p < t.end)
        if (!model_character(&t))
            return false;
    return true;
}

/* A valid text cut anywhere: what begins and does not end is what the two cutters name. */
static void check_cuts(const char *text, size_t size, size_t at)
{
    size_t end = cm_utf8_cut_end(text, at), start = cm_utf8_cut_start(text + at, size - at);

    CHECK(cm_utf8_valid(text, at - end));
    CHECK(cm_utf8_valid(text + at + start, size - at - start));
    CHECK((end == 0) == (start == 0) && end + start <= 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_copy(data, size);
    bool valid = model_utf8(text, size);
    struct cm_buf mended, again;

    CHECK(cm_utf8_valid(text, size) == valid);
    cm_buf_init(&mended, 3 * size + 1);
    cm_buf_init(&again, 9 * size + 1);
    CHECK(cm_utf8_append(&mended, text, size) == 0);
    CHECK(model_utf8(cm_buf_data(&mended), mended.len));
    CHECK(!valid || (mended.len == size && memcmp(cm_buf_data(&mended), text, size) == 0));
    CHECK(cm_utf8_append(&again, cm_buf_data(&mended), mended.len) == 0);
    CHECK(again.len == mended.len && memcmp(cm_buf_data(&again), cm_buf_data(&mended), again.len) == 0);
    for (size_t at = 0; valid && at <= size; at++)
        check_cuts(text, size, at);
    cm_buf_done(&mended);
    cm_buf_done(&again);
    free(text);
    return 0;
}
