/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/sse.h"

#include <stdbool.h>
#include <string.h>

#define BOM       "\xef\xbb\xbf"
#define KEEP_MAX  65536 /* a buffer that a large event has made larger than this is not kept for the next one */
#define FIELD_MAX 64 /* what a line holds beside the data: the field's name, a mark of byte order */

void cm_sse_init(struct cm_sse *s, size_t max)
{
    *s = (struct cm_sse){0};
    cm_buf_init(&s->line, max + FIELD_MAX);
    cm_buf_init(&s->data, max + 1); /* each line of the data ends with a break, the last one's is taken off */
}

void cm_sse_done(struct cm_sse *s)
{
    cm_buf_done(&s->line);
    cm_buf_done(&s->data);
}

static void keep(char to[static 64], const char *value, size_t len)
{
    if (len > 63)
        len = 63;
    memcpy(to, value, len);
    to[len] = '\0';
}

static void empty(struct cm_buf *b)
{
    if (b->cap > KEEP_MAX)
        cm_buf_done(b);
    else
        cm_buf_clear(b);
}

static bool is(const char *name, size_t len, const char *wanted)
{
    return len == strlen(wanted) && memcmp(name, wanted, len) == 0;
}

static int take_field(struct cm_sse *s, const char *line, size_t len)
{
    const char *colon = memchr(line, ':', len), *value = colon ? colon + 1 : line + len;
    size_t name_len = colon ? (size_t)(colon - line) : len, value_len = (size_t)(line + len - value);

    if (value_len > 0 && *value == ' ') {
        value++;
        value_len--;
    }
    if (is(line, name_len, "event")) {
        keep(s->event, value, value_len);
    } else if (is(line, name_len, "id")) {
        if (!memchr(value, '\0', value_len))
            keep(s->id, value, value_len);
    } else if (is(line, name_len, "data")) {
        char *room;
        int rc = cm_buf_reserve(&s->data, value_len + 1, &room);
        if (rc < 0)
            return rc;
        memcpy(room, value, value_len);
        room[value_len] = '\n';
        cm_buf_commit(&s->data, value_len + 1);
    }
    return 0;
}

static int end_event(struct cm_sse *s, int (*each)(void *arg, const char *event, char *data, size_t len), void *arg)
{
    int rc = 0;

    if (s->data.len > 0) {
        size_t len = s->data.len - 1;
        char *data = cm_buf_data(&s->data);
        data[len] = '\0';
        rc = each(arg, s->event[0] ? s->event : "message", data, len);
    }
    empty(&s->data);
    s->event[0] = '\0';
    return rc;
}

static int take_line(struct cm_sse *s, const char *line, size_t len,
                     int (*each)(void *arg, const char *event, char *data, size_t len), void *arg)
{
    if (len > s->line.max) /* as for one that comes in pieces */
        return CM_ERR_TOO_LARGE;
    if (!s->started && len >= strlen(BOM) && memcmp(line, BOM, strlen(BOM)) == 0) {
        line += strlen(BOM);
        len -= strlen(BOM);
    }
    s->started = 1;
    return len > 0 ? take_field(s, line, len) : end_event(s, each, arg);
}

/* By hand: two searches, one per kind of break, could go over the same bytes for each line anew. */
static const char *find_break(const char *at, const char *end)
{
    while (at < end && *at != '\n' && *at != '\r')
        at++;
    return at;
}

int cm_sse_feed(struct cm_sse *s, const char *bytes, size_t len,
                int (*each)(void *arg, const char *event, char *data, size_t len), void *arg)
{
    const char *end = bytes + len;

    while (bytes < end) {
        if (s->after_cr && *bytes == '\n')
            bytes++;
        s->after_cr = 0;
        if (bytes == end)
            break;
        const char *stop = find_break(bytes, end), *line = bytes;
        size_t line_len = (size_t)(stop - bytes);
        int rc = 0;
        if (stop == end || s->line.len > 0) { /* a line that is cut; a whole one is read where it stands */
            rc = cm_buf_append(&s->line, bytes, line_len);
            line = cm_buf_data(&s->line);
            line_len = s->line.len;
        }
        bytes = stop;
        if (rc == 0 && stop < end) {
            s->after_cr = *bytes++ == '\r';
            rc = take_line(s, line, line_len, each, arg);
            empty(&s->line);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

static char *put(char *at, const char *field, const char *value, size_t len)
{
    at = mempcpy(at, field, strlen(field));
    at = mempcpy(at, ": ", 2);
    at = mempcpy(at, value, len);
    *at++ = '\n';
    return at;
}

int cm_sse_put(struct cm_buf *to, const char *event, const char *id, const char *data, size_t len)
{
    size_t more = len + strlen("data: \n\n");
    char *start, *at;

    if (event)
        more += strlen("event: \n") + strlen(event);
    if (id)
        more += strlen("id: \n") + strlen(id);
    int rc = cm_buf_reserve(to, more, &start);
    if (rc < 0)
        return rc;
    at = start;
    if (event)
        at = put(at, "event", event, strlen(event));
    if (id)
        at = put(at, "id", id, strlen(id));
    at = put(at, "data", data, len);
    *at++ = '\n';
    cm_buf_commit(to, (size_t)(at - start));
    return 0;
}
