/* SPDX-License-Identifier: Apache-2.0 */
#include "session/keep.h"

#include <string.h>

#include "base/utf8.h"

void cm_keep_init(struct cm_keep *k, size_t max)
{
    *k = (struct cm_keep){0};
    cm_buf_init(&k->buf, max);
}

void cm_keep_done(struct cm_keep *k)
{
    cm_buf_done(&k->buf);
}

static size_t head_size(const struct cm_keep *k)
{
    return k->buf.max / 2;
}

/* The buffer is full: the newest bytes take the place of the oldest in the second half. */
static void overwrite(struct cm_keep *k, const char *text, size_t len)
{
    char *tail = cm_buf_data(&k->buf) + head_size(k);
    size_t size = k->buf.len - head_size(k);

    k->dropped += len;
    if (len > size) {
        k->ring = (k->ring + (len - size)) % size;
        text += len - size;
        len = size;
    }
    while (len > 0) {
        size_t n = len < size - k->ring ? len : size - k->ring;
        memcpy(tail + k->ring, text, n);
        k->ring = (k->ring + n) % size;
        text += n;
        len -= n;
    }
}

void cm_keep_add(struct cm_keep *k, const char *text, size_t len)
{
    size_t room = k->buf.max - k->buf.len, n = len < room ? len : room;

    if (cm_buf_append(&k->buf, text, n) < 0) {
        k->dropped += len;
        return;
    }
    if (n < len)
        overwrite(k, text + n, len - n);
}

uint64_t cm_keep_total(const struct cm_keep *k)
{
    return k->buf.len + k->dropped;
}

static void reverse(char *p, size_t len)
{
    for (size_t i = 0; i < len / 2; i++) {
        char c = p[i];
        p[i] = p[len - 1 - i];
        p[len - 1 - i] = c;
    }
}

/* Turns the ring so that it starts at its start: characters lie in one piece then. */
static void straighten(struct cm_keep *k, char *tail, size_t size)
{
    reverse(tail, k->ring);
    reverse(tail + k->ring, size - k->ring);
    reverse(tail, size);
    k->ring = 0;
}

static int elide(struct cm_keep *k, struct cm_buf *to)
{
    size_t head = head_size(k), size = k->buf.len - head;
    char *data = cm_buf_data(&k->buf), *tail = data + head;

    straighten(k, tail, size);
    /* Characters that the cut has split count as dropped on both sides. */
    size_t cut = cm_utf8_cut_end(data, head), lead = cm_utf8_cut_start(tail, size);
    unsigned long long dropped = k->dropped + cut + lead;
    int r = cm_utf8_append(to, data, head - cut);
    if (r == 0)
        r = cm_buf_printf(to, "\n... %llu bytes dropped ...\n", dropped);
    return r == 0 ? cm_utf8_append(to, tail + lead, size - lead) : r;
}

const char *cm_keep_text(struct cm_keep *k, struct cm_buf *space, size_t *ret_len, bool *ret_truncated)
{
    size_t len = k->buf.len;

    *ret_truncated = k->dropped > 0;
    *ret_len = len;
    if (k->dropped == 0 && cm_utf8_valid(cm_buf_data(&k->buf), len))
        return cm_buf_data(&k->buf);
    cm_buf_init(space, 3 * k->buf.max + 100); /* each bad byte becomes three */
    int r = k->dropped && len == k->buf.max ? elide(k, space) : cm_utf8_append(space, cm_buf_data(&k->buf), len);
    if (r < 0) {
        cm_buf_clear(space);
        *ret_truncated = true;
    }
    *ret_len = space->len;
    return cm_buf_data(space);
}
