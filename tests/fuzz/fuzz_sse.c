/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of server-sent events, cut anywhere: the cuts change nothing, nothing passes the bound, and what is read can be
 * written and read again. */
#include "fuzz.h"

#include "base/buf.h"
#include "wire/sse.h"

#define DATA_MAX 200

struct seen {
    struct cm_buf text;
    unsigned events, stop_after;
};

static int see(void *arg, const char *event, char *data, size_t len)
{
    struct seen *seen = arg;
    unsigned length = (unsigned)len;

    CHECK(len <= DATA_MAX && data[len] == '\0' && event[0] && strlen(event) < 64);
    CHECK(cm_buf_append(&seen->text, event, strlen(event) + 1) == 0);
    CHECK(cm_buf_append(&seen->text, &length, sizeof length) == 0);
    CHECK(cm_buf_append(&seen->text, data, len) == 0);
    if (!memchr(data, '\n', len) && !memchr(data, '\r', len)) {
        struct cm_buf again;
        cm_buf_init(&again, DATA_MAX + 200);
        CHECK(cm_sse_put(&again, event, NULL, data, len) == 0);
        CHECK(again.len == strlen(event) + len + strlen("event: \ndata: \n\n"));
        cm_buf_done(&again);
    }
    memset(data, '\n', len);
    return ++seen->events == seen->stop_after ? CM_ERR_CANCELLED : 0;
}

/* Pieces are as long as `cuts` says in turn; no cuts: all at once. */
static int run(struct seen *seen, const uint8_t *data, size_t size, const uint8_t *cuts, size_t count, size_t room)
{
    struct cm_sse s;
    int rc = 0;

    cm_buf_init(&seen->text, room);
    cm_sse_init(&s, DATA_MAX);
    for (size_t at = 0, i = 0; at < size && rc == 0; i++) {
        size_t n = count > 0 ? cuts[i % count] % 32u + 1 : size;
        n = n < size - at ? n : size - at;
        char *piece = fuzz_copy(data + at, n);
        rc = cm_sse_feed(&s, piece, n, see, seen);
        free(piece);
        at += n;
    }
    CHECK(rc == 0 || rc == CM_ERR_TOO_LARGE || (rc == CM_ERR_CANCELLED && seen->events == seen->stop_after));
    cm_sse_done(&s);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, data + size};
    unsigned stop_after = fuzz_byte(&in);
    size_t count, len, room = 80 * size + 1000;
    const uint8_t *cuts = fuzz_bytes(&in, 4, &count), *text = fuzz_bytes(&in, size, &len);
    struct seen whole = {.stop_after = stop_after}, cut = {.stop_after = stop_after};

    CHECK(run(&whole, text, len, NULL, 0, room) == run(&cut, text, len, cuts, count, room));
    CHECK(cut.text.len == whole.text.len &&
          memcmp(cm_buf_data(&whole.text), cm_buf_data(&cut.text), cut.text.len) == 0);
    cm_buf_done(&whole.text);
    cm_buf_done(&cut.text);
    return 0;
}
