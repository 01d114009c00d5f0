/* SPDX-License-Identifier: Apache-2.0 */
#include "net/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

static struct cm_file_mark mark_of(const struct stat *st)
{
    return (struct cm_file_mark){
        .there = true, .dev = st->st_dev, .ino = st->st_ino, .size = st->st_size, .mtime = st->st_mtim};
}

struct cm_file_mark cm_file_mark(const char *path)
{
    struct stat st;

    if (!*path || stat(path, &st) < 0)
        return (struct cm_file_mark){0};
    return mark_of(&st);
}

bool cm_file_mark_same(const struct cm_file_mark *a, const struct cm_file_mark *b)
{
    if (!a->there || !b->there)
        return a->there == b->there;
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime.tv_sec == b->mtime.tv_sec &&
           a->mtime.tv_nsec == b->mtime.tv_nsec;
}

void cm_file_wipe(char *text, size_t len)
{
    if (text)
        explicit_bzero(text, len);
    free(text);
}

/* All of it, or a positive errno. A file that grows meanwhile counts as too large. */
static int read_all(int fd, char *to, size_t size, size_t *ret_len)
{
    size_t len = 0;

    while (len < size) {
        ssize_t n = read(fd, to + len, size - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    *ret_len = len;
    return 0;
}

int cm_file_read(const char *name, const char *path, size_t max, char **ret, size_t *ret_len,
                 struct cm_file_mark *ret_mark, struct cm_err *err)
{
    struct stat st;
    size_t len = 0;
    cm_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO must not hold us up */

    if (fd < 0 || fstat(fd, &st) < 0)
        return cm_err_set(err, CM_ERR_CONFIG, "%s: \"%.200s\": %s", name, path, strerrordesc_np(errno));
    if (!S_ISREG(st.st_mode))
        return cm_err_set(err, CM_ERR_CONFIG, "%s: \"%.200s\" is not a regular file", name, path);
    size_t size = (size_t)st.st_size + 1;
    if (size > max + 1)
        return cm_err_set(err, CM_ERR_CONFIG, "%s: \"%.200s\" has more than %zu bytes", name, path, max);
    char *text = malloc(size);
    if (!text)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "%s: no memory for the file", name);
    int rc = read_all(fd, text, size, &len);
    if (rc != 0 || len == size) {
        cm_file_wipe(text, size);
        return cm_err_set(err, CM_ERR_CONFIG, "%s: \"%.200s\": %s", name, path,
                          rc ? strerrordesc_np(rc) : "it was changed while it was read");
    }
    text[len] = '\0';
    *ret = text;
    *ret_len = len;
    *ret_mark = mark_of(&st);
    return 0;
}

bool cm_file_is_public(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && (st.st_mode & S_IROTH) != 0;
}
