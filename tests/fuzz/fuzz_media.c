/* SPDX-License-Identifier: Apache-2.0 */
/* Media types, alone and in lists. */
#include "fuzz.h"

#include "wire/media.h"

/* What was read as one type is one in a list, too, unless its weight is none. */
static void check_one(const char *text, size_t size)
{
    struct cm_media media;
    char *name;

    if (!cm_media_read(text, size, &media))
        return;
    CHECK(media.name >= text && media.len >= 3 && media.name + media.len == media.parameters);
    CHECK(media.end == text + size && media.parameters <= media.end);
    name = strndup(media.name, media.len);
    CHECK(name && cm_media_is(&media, name));
    CHECK(!cm_media_is_json(&media) || strcasecmp(name + media.len - 4, "json") == 0);
    if (!memchr(media.parameters, ';', (size_t)(media.end - media.parameters)))
        CHECK(cm_media_is_utf8(&media) && cm_media_list_names(text, size, name));
    if (!cm_media_is_utf8(&media))
        CHECK(memmem(media.parameters, (size_t)(media.end - media.parameters), "=", 1));
    free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_copy(data, size);

    check_one(text, size);
    cm_media_list_names(text, size, "text/event-stream");
    for (size_t n = cm_token_len(text, size); n > 0; n--)
        CHECK(cm_token_len(text, n) == n);
    free(text);
    return 0;
}
