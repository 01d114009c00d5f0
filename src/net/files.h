/* SPDX-License-Identifier: Apache-2.0 */
/* Small files that are read again when they change: certificates, keys. */
#ifndef CM_NET_FILES_H
#define CM_NET_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "base/err.h"

/* What tells one state of a file from another: also when a symbolic link on the way now leads elsewhere. */
struct cm_file_mark {
    bool there;
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime;
};

/* A path of "" has the mark of a file that is not there. */
struct cm_file_mark cm_file_mark(const char *path);
bool cm_file_mark_same(const struct cm_file_mark *a, const struct cm_file_mark *b);
/* The whole file as malloc'd text with a NUL behind it, and its mark; CM_ERR_CONFIG when it is no regular file, cannot be
 * read, or has more than `max` bytes. `name` is the setting's, for the reason. Free with cm_file_wipe(). */
int cm_file_read(const char *name, const char *path, size_t max, char **ret, size_t *ret_len,
                 struct cm_file_mark *ret_mark, struct cm_err *err);
/* Overwrites and frees. Accepts NULL. */
void cm_file_wipe(char *text, size_t len);
/* Whether everybody on the machine may read it. */
bool cm_file_is_public(const char *path);

#endif
