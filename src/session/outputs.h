/* SPDX-License-Identifier: Apache-2.0 */
/* Output that was too long for its answer, kept to be asked for.
 *
 * Each session has a shelf with what its newest executions have printed; a shelf and all shelves together have a
 * maximum. What is full loses its oldest finished output first: a shelf its own, and all together that of the
 * fullest shelf, so that a session that prints much costs no neighbour anything. Output that does not fit even then
 * is kept from its start to where the room ended, and its total is counted on.
 */
#ifndef CM_SESSION_OUTPUTS_H
#define CM_SESSION_OUTPUTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

#define CM_STORED_ID_MAX 24

struct cm_chunk;
struct cm_shelf;

struct cm_outputs {
    uint64_t shelf_max, total_max, total; /* bytes of memory */
    struct cm_shelf *shelves;             /* those that hold something */
};

struct cm_stored { /* of one execution */
    struct cm_stored *prev, *next;
    struct cm_shelf *shelf;
    struct cm_stored **owner; /* who still adds to it; NULL when it is finished */
    char id[CM_STORED_ID_MAX];
    struct cm_stored_stream {
        struct cm_chunk *first, *last;
        bool begun, full;
        uint64_t stored, printed; /* bytes: the first of them are here; all that there were */
    } stream[2];
};

struct cm_shelf {
    struct cm_shelf *prev, *next;
    struct cm_outputs *outputs;
    struct cm_stored *oldest;
    uint64_t bytes;
};

void cm_outputs_init(struct cm_outputs *o, uint64_t shelf_max, uint64_t total_max);
void cm_shelf_init(struct cm_shelf *shelf, struct cm_outputs *o);
/* Everything goes; owners' pointers become NULL. */
void cm_shelf_done(struct cm_shelf *shelf);
/* *owner is set, and becomes NULL again when the output goes before cm_stored_finish(). NULL without memory. */
struct cm_stored *cm_stored_new(struct cm_shelf *shelf, const char *id, struct cm_stored **owner);
/* stream: 1 or 2 */
void cm_stored_add(struct cm_stored *s, int stream, const char *data, size_t len);
/* Nothing will be added; from here on it may go when room is needed. */
void cm_stored_finish(struct cm_stored *s);
/* NULL when it was never kept, or had to go. */
const struct cm_stored *cm_shelf_find(const struct cm_shelf *shelf, const char *id);
/* Appends what is there of the `length` bytes from `offset`. 0 or the buffer's error. */
int cm_stored_read(const struct cm_stored *s, int stream, uint64_t offset, uint64_t length, struct cm_buf *to);

#endif
