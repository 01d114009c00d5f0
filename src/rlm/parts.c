/* SPDX-License-Identifier: Apache-2.0 */
#include "rlm/parts.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "base/fd.h"
#include "base/share.h"

#define KEY_MAX 64

struct cm_part {
    UT_hash_handle hh;
    struct cm_parts_text text;
    char key[KEY_MAX];
};

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The most that may be in it: no more than its share of the room above, as that one has its share itself. */
static void most(const struct cm_parts_room *room, uint64_t *ret_bytes, uint64_t *ret_files)
{
    const struct cm_parts_room *above = room->above;

    *ret_bytes = room->bytes_max;
    *ret_files = room->files_max;
    if (!above)
        return;
    uint64_t bytes, files;
    most(above, &bytes, &files);
    *ret_bytes = least(*ret_bytes, cm_share(bytes, above->bytes - room->bytes));
    *ret_files = least(*ret_files, cm_share(files, above->files - room->files));
}

static bool fits(const struct cm_parts_room *room, uint64_t bytes, unsigned files)
{
    uint64_t bytes_most, files_most;

    if (!room)
        return true;
    most(room, &bytes_most, &files_most);
    return room->bytes + bytes <= bytes_most && room->files + files <= files_most;
}

static void take_room(struct cm_parts_room *room, uint64_t bytes, unsigned files)
{
    for (; room; room = room->above) {
        room->bytes += bytes;
        room->files += files;
    }
}

static void give_room(struct cm_parts_room *room, uint64_t bytes, unsigned files)
{
    for (; room; room = room->above) {
        room->bytes -= bytes;
        room->files -= files;
    }
}

void cm_parts_text_done(struct cm_parts_text *t)
{
    give_room(t->room, t->len, t->fd >= 0);
    free(t->data);
    cm_fd_close(t->fd);
    *t = (struct cm_parts_text){.fd = -1};
}

int cm_parts_copy(const char *text, size_t len, struct cm_parts_text *ret)
{
    char *data = malloc(len + 1);

    if (!data)
        return CM_ERR_NO_MEMORY;
    memcpy(data, text, len);
    data[len] = '\0';
    *ret = (struct cm_parts_text){.data = data, .fd = -1, .len = len};
    return 0;
}

int cm_parts_hold(struct cm_parts_room *room, const char *text, size_t len, struct cm_parts_text *ret)
{
    if (!fits(room, len, 0))
        return CM_ERR_TOO_LARGE;
    int rc = cm_parts_copy(text, len, ret);
    if (rc < 0)
        return rc;
    ret->room = room;
    take_room(room, len, 0);
    return 0;
}

static int to_file(struct cm_parts_text *t)
{
    if (!fits(t->room, 0, 1))
        return CM_ERR_TOO_LARGE;
    int fd = memfd_create("rlm-text", MFD_CLOEXEC);
    if (fd < 0)
        return CM_ERR_NO_MEMORY;
    if (t->len > 0 && cm_fd_write_all(fd, t->data, (size_t)t->len) < 0) {
        cm_fd_close(fd);
        return CM_ERR_NO_MEMORY;
    }
    free(t->data);
    t->data = NULL;
    t->fd = fd;
    take_room(t->room, 0, 1);
    return 0;
}

static int to_heap(struct cm_parts_text *t, const char *text, size_t len)
{
    char *data = realloc(t->data, (size_t)t->len + len + 1);

    if (!data)
        return CM_ERR_NO_MEMORY;
    memcpy(data + t->len, text, len);
    data[t->len + len] = '\0';
    t->data = data;
    return 0;
}

static int append(struct cm_parts_text *t, const char *text, size_t len)
{
    int rc = 0;

    if (!fits(t->room, len, 0))
        return CM_ERR_TOO_LARGE;
    if (t->fd < 0 && t->len + len > CM_PARTS_HEAP_MAX)
        rc = to_file(t);
    if (rc == 0)
        rc = t->fd < 0 ? to_heap(t, text, len) : cm_fd_write_all(t->fd, text, len) < 0 ? CM_ERR_NO_MEMORY : 0;
    if (rc < 0)
        return rc;
    t->len += len;
    take_room(t->room, len, 0);
    return 0;
}

static struct cm_part *find(struct cm_parts *p, const char *key, size_t len)
{
    struct cm_part *part = NULL;

    if (len > 0 && len < KEY_MAX)
        HASH_FIND(hh, p->list, key, len, part);
    return part;
}

static void drop(struct cm_parts *p, struct cm_part *part)
{
    HASH_DEL(p->list, part);
    p->count--;
    cm_parts_text_done(&part->text);
    free(part);
}

static struct cm_part *add(struct cm_parts *p, const char *key, size_t len)
{
    struct cm_part *part;

    if (len == 0 || len >= KEY_MAX || p->count == CM_PARTS_KEYS_MAX || !(part = calloc(1, sizeof *part)))
        return NULL;
    memcpy(part->key, key, len);
    part->text = (struct cm_parts_text){.fd = -1, .room = p->room};
    HASH_ADD_KEYPTR(hh, p->list, part->key, len, part);
    if (!part->hh.tbl) {
        free(part);
        return NULL;
    }
    p->count++;
    return part;
}

int cm_parts_add(struct cm_parts *p, const char *key, size_t key_len, const char *text, size_t len)
{
    struct cm_part *part = find(p, key, key_len);

    if (!part && !(part = add(p, key, key_len)))
        return CM_ERR_TOO_LARGE;
    int rc = append(&part->text, text, len);
    if (rc < 0)
        drop(p, part);
    return rc;
}

int cm_parts_take(struct cm_parts *p, const char *key, size_t key_len, struct cm_parts_text *ret)
{
    struct cm_part *part = find(p, key, key_len);

    if (!part)
        return CM_ERR_NO_CALL;
    *ret = part->text;
    part->text = (struct cm_parts_text){.fd = -1};
    drop(p, part);
    return 0;
}

void cm_parts_done(struct cm_parts *p)
{
    struct cm_part *part, *next;

    HASH_ITER(hh, p->list, part, next) drop(p, part);
}

int cm_parts_load(struct cm_parts_text *t, uint64_t max)
{
    if (t->len > max)
        return CM_ERR_TOO_LARGE;
    if (t->data)
        return 0;
    char *data = malloc((size_t)t->len + 1);
    if (!data)
        return CM_ERR_NO_MEMORY;
    for (uint64_t at = 0; at < t->len;) {
        ssize_t n = pread(t->fd, data + at, (size_t)(t->len - at), (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            free(data);
            return CM_ERR_NO_MEMORY;
        }
        at += (uint64_t)n;
    }
    data[t->len] = '\0';
    t->data = data;
    return 0;
}
