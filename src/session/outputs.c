/* SPDX-License-Identifier: Apache-2.0 */
#include "session/outputs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct cm_chunk {
    struct cm_chunk *next;
    size_t len;
    char data[16384 - 32]; /* with malloc's own words, four pages */
};

void cm_outputs_init(struct cm_outputs *o, uint64_t shelf_max, uint64_t total_max)
{
    *o = (struct cm_outputs){.shelf_max = shelf_max, .total_max = total_max};
}

void cm_shelf_init(struct cm_shelf *shelf, struct cm_outputs *o)
{
    *shelf = (struct cm_shelf){.outputs = o};
}

static void count(struct cm_shelf *shelf, int64_t bytes)
{
    bool held = shelf->bytes > 0;

    shelf->bytes += (uint64_t)bytes;
    shelf->outputs->total += (uint64_t)bytes;
    if (!held && shelf->bytes > 0)
        DL_APPEND(shelf->outputs->shelves, shelf);
    else if (held && shelf->bytes == 0)
        DL_DELETE(shelf->outputs->shelves, shelf);
}

static void drop(struct cm_stored *s)
{
    struct cm_shelf *shelf = s->shelf;

    for (int i = 0; i < 2; i++) {
        while (s->stream[i].first) {
            struct cm_chunk *c = s->stream[i].first;
            s->stream[i].first = c->next;
            free(c);
            count(shelf, -(int64_t)sizeof *c);
        }
    }
    if (s->owner)
        *s->owner = NULL;
    DL_DELETE(shelf->oldest, s);
    free(s);
    count(shelf, -(int64_t)sizeof *s);
}

void cm_shelf_done(struct cm_shelf *shelf)
{
    while (shelf->oldest)
        drop(shelf->oldest);
}

static struct cm_stored *oldest_finished(const struct cm_shelf *shelf)
{
    struct cm_stored *s;

    DL_SEARCH_SCALAR(shelf->oldest, s, owner, NULL);
    return s;
}

/* Of those that can lose something. */
static struct cm_shelf *fullest(const struct cm_outputs *o)
{
    struct cm_shelf *best = NULL, *s;

    DL_FOREACH(o->shelves, s)
    if ((!best || s->bytes > best->bytes) && oldest_finished(s))
        best = s;
    return best;
}

static bool drop_oldest(struct cm_shelf *shelf)
{
    struct cm_stored *s = shelf ? oldest_finished(shelf) : NULL;

    if (s)
        drop(s);
    return s != NULL;
}

static bool make_room(struct cm_shelf *shelf, uint64_t bytes)
{
    struct cm_outputs *o = shelf->outputs;

    while (shelf->bytes + bytes > o->shelf_max)
        if (!drop_oldest(shelf))
            return false;
    while (o->total + bytes > o->total_max)
        if (!drop_oldest(fullest(o)))
            return false;
    return true;
}

struct cm_stored *cm_stored_new(struct cm_shelf *shelf, const char *id, struct cm_stored **owner)
{
    struct cm_stored *s = make_room(shelf, sizeof *s) ? calloc(1, sizeof *s) : NULL;

    if (!s)
        return NULL;
    s->shelf = shelf;
    s->owner = owner;
    snprintf(s->id, sizeof s->id, "%s", id);
    DL_APPEND(shelf->oldest, s);
    count(shelf, sizeof *s);
    *owner = s;
    return s;
}

static bool add_chunk(struct cm_stored *s, struct cm_stored_stream *t)
{
    struct cm_chunk *c = make_room(s->shelf, sizeof *c) ? malloc(sizeof *c) : NULL;

    if (!c)
        return false;
    c->next = NULL;
    c->len = 0;
    if (t->last)
        t->last->next = c;
    else
        t->first = c;
    t->last = c;
    count(s->shelf, sizeof *c);
    return true;
}

void cm_stored_add(struct cm_stored *s, int stream, const char *data, size_t len)
{
    struct cm_stored_stream *t = &s->stream[stream - 1];

    t->begun = true;
    t->printed += len;
    while (len > 0 && !t->full) {
        size_t room = t->last ? sizeof t->last->data - t->last->len : 0, n = len < room ? len : room;
        if (n > 0) {
            memcpy(t->last->data + t->last->len, data, n);
            t->last->len += n;
            t->stored += n;
            data += n;
            len -= n;
        } else if (!add_chunk(s, t)) {
            t->full = true; /* what comes later would stand in the wrong place */
        }
    }
}

void cm_stored_finish(struct cm_stored *s)
{
    if (s->owner)
        *s->owner = NULL;
    s->owner = NULL;
}

const struct cm_stored *cm_shelf_find(const struct cm_shelf *shelf, const char *id)
{
    const struct cm_stored *s;

    DL_FOREACH(shelf->oldest, s)
    if (strcmp(s->id, id) == 0)
        return s;
    return NULL;
}

int cm_stored_read(const struct cm_stored *s, int stream, uint64_t offset, uint64_t length, struct cm_buf *to)
{
    for (const struct cm_chunk *c = s->stream[stream - 1].first; c && length > 0; c = c->next) {
        if (offset >= c->len) {
            offset -= c->len;
            continue;
        }
        size_t n = c->len - offset < length ? c->len - offset : length;
        int rc = cm_buf_append(to, c->data + offset, n);
        if (rc < 0)
            return rc;
        length -= n;
        offset = 0;
    }
    return 0;
}
