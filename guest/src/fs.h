/* SPDX-License-Identifier: Apache-2.0 */
/* The session's file system: a tree of nodes in linear memory.
 *
 * User files are part of the session's memory, so its limit, its snapshots and its forks cover them. Files of
 * the read-only archive (the standard library) are not copied: their nodes point into it.
 * Every function answers 0 or a WASI errno.
 */
#ifndef CM_GUEST_FS_H
#define CM_GUEST_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <wasi/api.h>

#define CM_FS_NAME_MAX 255
#define CM_FS_PATH_MAX 4096

struct cm_node;

struct cm_stat {
    uint64_t ino, size;
    uint32_t links;
    __wasi_filetype_t type;
    int64_t atime, mtime, ctime; /* ns since 1970 */
};

struct cm_node *cm_fs_root(void);
/* Finds the node of `path`, relative to `base` unless it starts with '/'. With `follow`, a final link is followed. */
int cm_fs_find(struct cm_node *base, const char *path, size_t len, bool follow, struct cm_node **ret);
/* Opens or, with `create`, makes a regular file. `excl` refuses one that exists. */
int cm_fs_create(struct cm_node *base, const char *path, size_t len, bool follow, bool excl, struct cm_node **ret);
/* A file that takes everything and has nothing, as /dev/null, or with `random` endless random bytes, as /dev/urandom. */
int cm_fs_mkdevice(const char *path, bool random);
int cm_fs_mkdir(struct cm_node *base, const char *path, size_t len);
int cm_fs_symlink(struct cm_node *base, const char *path, size_t len, const char *target, size_t target_len);
int cm_fs_link(struct cm_node *old, struct cm_node *base, const char *path, size_t len);
int cm_fs_remove(struct cm_node *base, const char *path, size_t len, bool directory);
int cm_fs_rename(struct cm_node *base, const char *path, size_t len, struct cm_node *to_base, const char *to,
                 size_t to_len);
/* The text of a symbolic link. */
int cm_fs_readlink(const struct cm_node *n, const char **ret, size_t *ret_len);

void cm_fs_stat(const struct cm_node *n, struct cm_stat *ret);
__wasi_filetype_t cm_fs_type(const struct cm_node *n);
bool cm_fs_readonly(const struct cm_node *n);
void cm_fs_touch(struct cm_node *n, bool atime, int64_t at, bool mtime, int64_t mt);
size_t cm_fs_read(struct cm_node *n, uint64_t offset, void *out, size_t len);
/* Writes all of it, or nothing: ENOSPC when a limit is in the way, EFBIG for a file that could never be so large. */
int cm_fs_write(struct cm_node *n, uint64_t offset, const void *data, size_t len);
int cm_fs_resize(struct cm_node *n, uint64_t size);

/* The `index`-th entry of a directory (0 and 1 are "." and ".."); false at the end. *cursor speeds up a walk. */
struct cm_entry {
    const char *name;
    const struct cm_node *node;
};
bool cm_fs_entry(struct cm_node *dir, uint64_t index, struct cm_entry *ret);

/* An open descriptor keeps an unlinked node alive. */
void cm_fs_ref(struct cm_node *n);
void cm_fs_unref(struct cm_node *n);

/* Limits what the session makes: names of files, folders and links, and the bytes of all files together, also of such
 * as have no name any more but are open. 0: no limit but the memory's. What is there beyond a lower limit stays. */
void cm_fs_limit(uint64_t names, uint64_t bytes);
/* What exists now is the image's and does not count. */
void cm_fs_count_from_here(void);

/* Makes it a read-only file of bytes that lie elsewhere, and stay there. */
void cm_fs_share(struct cm_node *n, const char *data, uint32_t size);
/* Sets all of its times, in ns since 1970. */
void cm_fs_date(struct cm_node *n, int64_t at);
/* Makes all directories below this one read-only, and itself, but for the root. */
void cm_fs_seal(struct cm_node *dir);
/* Builds the tree of a ustar archive, which must stay in place: its files are read-only and share its bytes. */
int cm_fs_mount(const char *tar, size_t len);

#endif
