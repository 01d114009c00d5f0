/* SPDX-License-Identifier: Apache-2.0 */
/* Texts that leave a session: short ones inside a call, long ones in pieces under a key. What is long is kept in a file in
 * memory, which goes to the next session as it is. */
#ifndef CM_RLM_PARTS_H
#define CM_RLM_PARTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define CM_PARTS_BYTES_MAX (1ull << 30) /* of all texts in pieces, of all runs, which share it */
#define CM_PARTS_HEAP_MAX  (256u << 10) /* bytes of a text before it becomes a file */
#define CM_PARTS_KEYS_MAX  10000 /* texts of one session that are not used yet */
#define CM_PARTS_FILES_MAX 1024 /* files at once, of all runs */
#define CM_PARTS_RUN_FILES 256
#define CM_PARTS_HELD_MAX  (1ull << 30) /* bytes of texts inside calls, of all runs, which share it */
#define CM_PARTS_RUN_HELD  (256ull << 20) /* of one run: code may have hundreds open */

struct cm_parts_room {
    uint64_t bytes_max, bytes;
    unsigned files_max, files;
    struct cm_parts_room
        *above; /* what is here counts there, too, and is at most half of what others leave there; or NULL */
};

/* A text: with fd >= 0 it is there, else at data. Zeroed with fd = -1 it is empty. */
struct cm_parts_text {
    char *data; /* with a NUL behind it */
    int fd;
    uint64_t len;
    struct cm_parts_room *room; /* that it counts in; or NULL */
};

struct cm_part;
struct cm_parts {
    struct cm_part *list; /* by key */
    struct cm_parts_room *room;
    unsigned count;
};

/* Fails with CM_ERR_TOO_LARGE when there is no room for it. */
int cm_parts_add(struct cm_parts *p, const char *key, size_t key_len, const char *text, size_t len);
/* Takes the text of a key out. CM_ERR_NO_CALL when there is none. */
int cm_parts_take(struct cm_parts *p, const char *key, size_t key_len, struct cm_parts_text *ret);
void cm_parts_done(struct cm_parts *p);

/* A text inside a call. CM_ERR_TOO_LARGE when the run has too many that are not used yet. */
int cm_parts_hold(struct cm_parts_room *room, const char *text, size_t len, struct cm_parts_text *ret);
int cm_parts_copy(const char *text, size_t len, struct cm_parts_text *ret);
/* Brings a text from its file into memory, unless it is longer than `max`: CM_ERR_TOO_LARGE. */
int cm_parts_load(struct cm_parts_text *text, uint64_t max);
void cm_parts_text_done(struct cm_parts_text *text);

#endif
