/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes are reference counted: one for each name and one for each open descriptor. A directory keeps its
 * entries in the order of their creation, so that a reader's position stays meaningful while others are
 * removed, beside a hash table over all names of the file system.
 */
#include "fs.h"

#include <stdlib.h>
#include <string.h>

#include "host.h"

#define LINKS_FOLLOWED_MAX 32
#define FILE_SIZE_MAX 0xf0000000u /* what 32 bits of linear memory could ever hold */

struct entry {
    struct entry *chain; /* of the hash bucket */
    struct cm_node *dir, *node;
    uint32_t hash, index; /* index: place in the directory's list */
    char name[];
};

struct cm_node {
    uint64_t ino;
    int64_t atime, mtime, ctime;
    uint32_t refs, links;
    __wasi_filetype_t type;
    bool readonly, random; /* random: of a device */
    uint32_t size, capacity; /* of data, or of entries */
    union {
        char *data;             /* file or link */
        struct entry **entries; /* directory; a removed one leaves NULL until the end is trimmed */
    };
    struct cm_node *parent; /* of a directory */
    uint32_t used;          /* entries that are not NULL */
};

static struct {
    struct entry **buckets;
    uint32_t size, used;
} names;

static uint64_t last_ino;

static struct {
    uint32_t names_before; /* of the image */
    uint64_t names_max, bytes_max, bytes;
} quota = {.names_max = UINT64_MAX, .bytes_max = UINT64_MAX};

void cm_fs_limit(uint64_t names_max, uint64_t bytes_max)
{
    quota.names_max = names_max ? names_max : UINT64_MAX;
    quota.bytes_max = bytes_max ? bytes_max : UINT64_MAX;
}

void cm_fs_count_from_here(void)
{
    quota.names_before = names.used;
}

static bool may_add_name(void)
{
    return names.used < quota.names_before || names.used - quota.names_before < quota.names_max;
}

static struct cm_node *new_node(__wasi_filetype_t type)
{
    struct cm_node *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->type = type;
    n->ino = ++last_ino;
    n->atime = n->mtime = n->ctime = cm_host_clock(0);
    return n;
}

struct cm_node *cm_fs_root(void)
{
    static struct cm_node *root;
    if (!root) {
        root = new_node(__WASI_FILETYPE_DIRECTORY);
        if (!root)
            abort(); /* the first allocation of all */
        root->parent = root;
        root->refs = root->links = 1;
    }
    return root;
}

void cm_fs_ref(struct cm_node *n)
{
    n->refs++;
}

void cm_fs_unref(struct cm_node *n)
{
    if (--n->refs)
        return;
    if (n->type == __WASI_FILETYPE_REGULAR_FILE && !n->readonly)
        quota.bytes -= n->size;
    if (!n->readonly || n->type == __WASI_FILETYPE_DIRECTORY)
        free(n->data);
    free(n);
}

/* ---- names */

static uint32_t hash_name(const struct cm_node *dir, const char *name, size_t len)
{
    uint32_t h = 2166136261u ^ (uint32_t)dir->ino; /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)name[i]) * 16777619u;
    return h;
}

static struct entry *find_entry(const struct cm_node *dir, const char *name, size_t len)
{
    if (!names.size)
        return NULL;
    uint32_t h = hash_name(dir, name, len);
    for (struct entry *e = names.buckets[h & (names.size - 1)]; e; e = e->chain)
        if (e->hash == h && e->dir == dir && !strncmp(e->name, name, len) && !e->name[len])
            return e;
    return NULL;
}

static bool grow_names(void)
{
    uint32_t size = names.size ? names.size * 2 : 1024;
    struct entry **buckets = calloc(size, sizeof *buckets);
    if (!buckets)
        return false;
    for (uint32_t i = 0; i < names.size; i++)
        for (struct entry *e = names.buckets[i], *next; e; e = next) {
            next = e->chain;
            e->chain = buckets[e->hash & (size - 1)];
            buckets[e->hash & (size - 1)] = e;
        }
    free(names.buckets);
    names.buckets = buckets;
    names.size = size;
    return true;
}

static bool grow_entries(struct cm_node *dir)
{
    if (dir->size < dir->capacity)
        return true;
    uint32_t capacity = dir->capacity ? dir->capacity * 2 : 8;
    struct entry **entries = realloc(dir->entries, capacity * sizeof *entries);
    if (!entries)
        return false;
    dir->entries = entries;
    dir->capacity = capacity;
    return true;
}

static void changed(struct cm_node *n)
{
    n->mtime = n->ctime = cm_host_clock(0);
}

static int add_entry(struct cm_node *dir, const char *name, size_t len, struct cm_node *n)
{
    if ((names.used >= names.size && !grow_names()) || !grow_entries(dir))
        return __WASI_ERRNO_NOSPC;
    struct entry *e = malloc(sizeof *e + len + 1);
    if (!e)
        return __WASI_ERRNO_NOSPC;
    memcpy(e->name, name, len);
    e->name[len] = 0;
    e->dir = dir;
    e->node = n;
    e->hash = hash_name(dir, name, len);
    e->index = dir->size;
    struct entry **bucket = &names.buckets[e->hash & (names.size - 1)];
    e->chain = *bucket;
    *bucket = e;
    names.used++;
    dir->entries[dir->size++] = e;
    dir->used++;
    n->refs++;
    n->links++;
    if (n->type == __WASI_FILETYPE_DIRECTORY)
        n->parent = dir;
    changed(dir);
    return 0;
}

static void remove_entry(struct entry *e)
{
    struct entry **link = &names.buckets[e->hash & (names.size - 1)];
    while (*link != e)
        link = &(*link)->chain;
    *link = e->chain;
    names.used--;
    struct cm_node *dir = e->dir;
    dir->entries[e->index] = NULL;
    dir->used--;
    while (dir->size && !dir->entries[dir->size - 1])
        dir->size--;
    changed(dir);
    e->node->links--;
    if (e->node->type == __WASI_FILETYPE_DIRECTORY && !e->node->links)
        e->node->parent = cm_fs_root(); /* the old one may go before the last descriptor does */
    cm_fs_unref(e->node);
    free(e);
}

/* ---- paths */

/* The last part of a path, and the directory that it is, or would be, in. An empty name is the directory itself. */
struct place {
    struct cm_node *dir;
    const char *name;
    size_t len;
    bool slash; /* the path ended in '/': only a directory will do */
};

static int walk(struct cm_node *base, const char *path, size_t len, bool follow, int links, struct place *ret,
                struct cm_node **ret_node);

static int step_into(struct cm_node **dir, const char *name, size_t len, int links)
{
    if ((*dir)->type != __WASI_FILETYPE_DIRECTORY)
        return __WASI_ERRNO_NOTDIR;
    if (len == 1 && name[0] == '.')
        return 0;
    if (len == 2 && name[0] == '.' && name[1] == '.') {
        *dir = (*dir)->parent;
        return 0;
    }
    struct entry *e = find_entry(*dir, name, len);
    if (!e)
        return __WASI_ERRNO_NOENT;
    if (e->node->type != __WASI_FILETYPE_SYMBOLIC_LINK) {
        *dir = e->node;
        return 0;
    }
    struct place place;
    struct cm_node *node;
    int rc = walk(*dir, e->node->data, e->node->size, true, links + 1, &place, &node);
    if (rc)
        return rc;
    if (!node)
        return __WASI_ERRNO_NOENT;
    *dir = node;
    return 0;
}

/* *ret_node is NULL when everything but the last part exists. */
static int walk(struct cm_node *base, const char *path, size_t len, bool follow, int links, struct place *ret,
                struct cm_node **ret_node)
{
    if (links > LINKS_FOLLOWED_MAX)
        return __WASI_ERRNO_LOOP;
    if (len > CM_FS_PATH_MAX)
        return __WASI_ERRNO_NAMETOOLONG;
    if (!len)
        return __WASI_ERRNO_NOENT;
    if (memchr(path, 0, len))
        return __WASI_ERRNO_INVAL;
    struct place at = {.dir = path[0] == '/' ? cm_fs_root() : base};
    size_t i = 0;
    for (;;) {
        while (i < len && path[i] == '/')
            i++;
        if (i == len)
            break;
        if (at.len) {
            int rc = step_into(&at.dir, at.name, at.len, links);
            if (rc)
                return rc;
        }
        at.name = path + i;
        while (i < len && path[i] != '/')
            i++;
        at.len = (size_t)(path + i - at.name);
        if (at.len > CM_FS_NAME_MAX)
            return __WASI_ERRNO_NAMETOOLONG;
    }
    at.slash = path[len - 1] == '/';
    bool dots = at.len <= 2 && (!at.len || !memcmp(at.name, "..", at.len));
    struct entry *e = NULL;
    if (dots) {
        int rc = at.len ? step_into(&at.dir, at.name, at.len, links) : 0;
        if (rc)
            return rc;
        at.len = 0;
    } else if (at.dir->type != __WASI_FILETYPE_DIRECTORY) {
        return __WASI_ERRNO_NOTDIR;
    } else {
        e = find_entry(at.dir, at.name, at.len);
    }
    *ret_node = dots ? at.dir : e ? e->node : NULL;
    if (e && e->node->type == __WASI_FILETYPE_SYMBOLIC_LINK && (follow || at.slash))
        return walk(at.dir, e->node->data, e->node->size, true, links + 1, ret, ret_node);
    if (*ret_node && at.slash && (*ret_node)->type != __WASI_FILETYPE_DIRECTORY)
        return __WASI_ERRNO_NOTDIR;
    *ret = at;
    return 0;
}

int cm_fs_find(struct cm_node *base, const char *path, size_t len, bool follow, struct cm_node **ret)
{
    struct place place;
    struct cm_node *n;
    int rc = walk(base, path, len, follow, 0, &place, &n);
    if (rc)
        return rc;
    if (!n)
        return __WASI_ERRNO_NOENT;
    *ret = n;
    return 0;
}

/* A removed directory that is still open takes no new names: nothing would ever free them. */
static int writable(const struct cm_node *dir)
{
    return dir->readonly ? __WASI_ERRNO_ROFS : !dir->links ? __WASI_ERRNO_NOENT : 0;
}

/* Where a new name would go; EXIST when there is something already, ROFS in the archive. */
static int new_place(struct cm_node *base, const char *path, size_t len, struct place *ret)
{
    struct cm_node *n;
    int rc = walk(base, path, len, false, 0, ret, &n);
    if (rc)
        return rc;
    return n ? __WASI_ERRNO_EXIST : writable(ret->dir);
}

static int add_new(const struct place *at, struct cm_node *n, struct cm_node **ret)
{
    if (!n)
        return __WASI_ERRNO_NOSPC;
    int rc = may_add_name() ? add_entry(at->dir, at->name, at->len, n) : __WASI_ERRNO_NOSPC;
    if (rc) {
        n->refs = 1;
        cm_fs_unref(n);
        return rc;
    }
    if (ret)
        *ret = n;
    return 0;
}

int cm_fs_create(struct cm_node *base, const char *path, size_t len, bool follow, bool excl, struct cm_node **ret)
{
    struct place at;
    struct cm_node *n;
    int rc = walk(base, path, len, follow && !excl, 0, &at, &n);
    if (rc)
        return rc;
    if (n) {
        if (excl)
            return __WASI_ERRNO_EXIST;
        *ret = n;
        return 0;
    }
    if (at.slash)
        return __WASI_ERRNO_ISDIR;
    rc = writable(at.dir);
    return rc ? rc : add_new(&at, new_node(__WASI_FILETYPE_REGULAR_FILE), ret);
}

int cm_fs_mkdir(struct cm_node *base, const char *path, size_t len)
{
    struct place at;
    int rc = new_place(base, path, len, &at);
    return rc ? rc : add_new(&at, new_node(__WASI_FILETYPE_DIRECTORY), NULL);
}

int cm_fs_mkdevice(const char *path, bool random)
{
    struct place at;
    struct cm_node *n;
    int rc = new_place(cm_fs_root(), path, strlen(path), &at);
    if (!rc)
        rc = add_new(&at, new_node(__WASI_FILETYPE_CHARACTER_DEVICE), &n);
    if (!rc)
        n->random = random;
    return rc;
}

int cm_fs_symlink(struct cm_node *base, const char *path, size_t len, const char *target, size_t target_len)
{
    struct place at;
    int rc = new_place(base, path, len, &at);
    if (rc)
        return rc;
    if (at.slash || target_len > CM_FS_PATH_MAX)
        return at.slash ? __WASI_ERRNO_NOENT : __WASI_ERRNO_NAMETOOLONG;
    struct cm_node *n = new_node(__WASI_FILETYPE_SYMBOLIC_LINK);
    if (n && !(n->data = malloc(target_len + 1))) {
        free(n);
        n = NULL;
    }
    if (n) {
        memcpy(n->data, target, target_len);
        n->size = (uint32_t)target_len;
    }
    return add_new(&at, n, NULL);
}

int cm_fs_link(struct cm_node *old, struct cm_node *base, const char *path, size_t len)
{
    if (old->type == __WASI_FILETYPE_DIRECTORY || old->readonly)
        return old->readonly ? __WASI_ERRNO_ROFS : __WASI_ERRNO_PERM;
    struct place at;
    int rc = new_place(base, path, len, &at);
    if (!rc && !may_add_name())
        rc = __WASI_ERRNO_NOSPC;
    return rc ? rc : add_entry(at.dir, at.name, at.len, old);
}

/* What stands in the way of taking this entry out of its directory. */
static int removable(const struct entry *e, bool directory)
{
    bool is_dir = e->node->type == __WASI_FILETYPE_DIRECTORY;
    if (e->dir->readonly || (e->node->readonly && is_dir))
        return __WASI_ERRNO_ROFS;
    if (is_dir != directory)
        return is_dir ? __WASI_ERRNO_ISDIR : __WASI_ERRNO_NOTDIR;
    return is_dir && e->node->used ? __WASI_ERRNO_NOTEMPTY : 0;
}

int cm_fs_remove(struct cm_node *base, const char *path, size_t len, bool directory)
{
    struct place at;
    struct cm_node *n;
    int rc = walk(base, path, len, false, 0, &at, &n);
    if (rc)
        return rc;
    if (!n)
        return __WASI_ERRNO_NOENT;
    if (!at.len)
        return directory ? __WASI_ERRNO_INVAL : __WASI_ERRNO_ISDIR;
    struct entry *e = find_entry(at.dir, at.name, at.len);
    rc = removable(e, directory);
    if (!rc)
        remove_entry(e);
    return rc;
}

static bool inside(const struct cm_node *dir, const struct cm_node *of)
{
    for (; dir != cm_fs_root(); dir = dir->parent)
        if (dir == of)
            return true;
    return dir == of;
}

int cm_fs_rename(struct cm_node *base, const char *path, size_t len, struct cm_node *to_base, const char *to,
                 size_t to_len)
{
    struct place from, dest;
    struct cm_node *n, *old;
    int rc = walk(base, path, len, false, 0, &from, &n);
    if (!rc)
        rc = walk(to_base, to, to_len, false, 0, &dest, &old);
    if (rc)
        return rc;
    if (!n)
        return __WASI_ERRNO_NOENT;
    if (!from.len || !dest.len)
        return __WASI_ERRNO_BUSY;
    if (n == old)
        return 0;
    bool is_dir = n->type == __WASI_FILETYPE_DIRECTORY;
    struct entry *e = find_entry(from.dir, from.name, from.len);
    if (from.dir->readonly || (n->readonly && is_dir))
        return __WASI_ERRNO_ROFS;
    if ((rc = writable(dest.dir)))
        return rc;
    if (is_dir && inside(dest.dir, n))
        return __WASI_ERRNO_INVAL;
    if (dest.slash && !is_dir)
        return __WASI_ERRNO_NOTDIR;
    struct entry *over = old ? find_entry(dest.dir, dest.name, dest.len) : NULL;
    if (over && (rc = removable(over, is_dir)))
        return rc;
    if ((rc = add_entry(dest.dir, dest.name, dest.len, n)))
        return rc;
    if (over) {
        /* Both entries had the same name for a moment; the hash chain finds the newer one first. */
        remove_entry(over);
    }
    remove_entry(e);
    return 0;
}

int cm_fs_readlink(const struct cm_node *n, const char **ret, size_t *ret_len)
{
    if (n->type != __WASI_FILETYPE_SYMBOLIC_LINK)
        return __WASI_ERRNO_INVAL;
    *ret = n->data;
    *ret_len = n->size;
    return 0;
}

/* ---- contents */

__wasi_filetype_t cm_fs_type(const struct cm_node *n)
{
    return n->type;
}

bool cm_fs_readonly(const struct cm_node *n)
{
    return n->readonly;
}

void cm_fs_stat(const struct cm_node *n, struct cm_stat *ret)
{
    bool dir = n->type == __WASI_FILETYPE_DIRECTORY;
    *ret = (struct cm_stat){.ino = n->ino,
                            .size = dir ? 4096 : n->size,
                            .links = n->links,
                            .type = n->type,
                            .atime = n->atime,
                            .mtime = n->mtime,
                            .ctime = n->ctime};
}

void cm_fs_touch(struct cm_node *n, bool atime, int64_t at, bool mtime, int64_t mt)
{
    if (atime)
        n->atime = at;
    if (mtime)
        n->mtime = mt;
    n->ctime = cm_host_clock(0);
}

size_t cm_fs_read(struct cm_node *n, uint64_t offset, void *out, size_t len)
{
    if (n->random) {
        cm_host_random(out, len);
        return len;
    }
    if (offset >= n->size)
        return 0;
    if (len > n->size - offset)
        len = n->size - (size_t)offset;
    memcpy(out, n->data + offset, len);
    return len;
}

/* A file that alone would be over the limit is too big; one that is not finds no space left. */
static int reserve(struct cm_node *n, uint64_t size)
{
    if (size > FILE_SIZE_MAX || size > quota.bytes_max)
        return __WASI_ERRNO_FBIG;
    uint64_t left = quota.bytes < quota.bytes_max ? quota.bytes_max - quota.bytes : 0;
    if (size > n->size && size - n->size > left)
        return __WASI_ERRNO_NOSPC;
    if (size <= n->capacity)
        return 0;
    /* Grow by an eighth, so that appending stays linear and large files do not double. */
    uint64_t want = size + size / 8 + 64;
    char *data = want <= FILE_SIZE_MAX ? realloc(n->data, (size_t)want) : NULL;
    if (!data) {
        want = size;
        data = realloc(n->data, (size_t)want);
    }
    if (!data)
        return __WASI_ERRNO_NOSPC;
    n->data = data;
    n->capacity = (uint32_t)want;
    return 0;
}

static void set_size(struct cm_node *n, uint64_t size)
{
    quota.bytes += size - n->size;
    n->size = (uint32_t)size;
}

int cm_fs_resize(struct cm_node *n, uint64_t size)
{
    if (n->readonly || n->type == __WASI_FILETYPE_CHARACTER_DEVICE)
        return n->readonly ? __WASI_ERRNO_ROFS : 0;
    int rc = size > n->size ? reserve(n, size) : 0;
    if (rc)
        return rc;
    if (size > n->size)
        memset(n->data + n->size, 0, (size_t)(size - n->size));
    set_size(n, size);
    if (!size) {
        free(n->data);
        n->data = NULL;
        n->capacity = 0;
    }
    changed(n);
    return 0;
}

int cm_fs_write(struct cm_node *n, uint64_t offset, const void *data, size_t len)
{
    if (n->readonly)
        return __WASI_ERRNO_ROFS;
    if (!len || n->type == __WASI_FILETYPE_CHARACTER_DEVICE)
        return 0;
    uint64_t end;
    if (__builtin_add_overflow(offset, (uint64_t)len, &end))
        return __WASI_ERRNO_FBIG;
    if (end > n->size) {
        int rc = reserve(n, end);
        if (rc)
            return rc;
        if (offset > n->size)
            memset(n->data + n->size, 0, (size_t)(offset - n->size));
        set_size(n, end);
    }
    memcpy(n->data + offset, data, len);
    changed(n);
    return 0;
}

bool cm_fs_entry(struct cm_node *dir, uint64_t index, struct cm_entry *ret)
{
    if (index < 2) {
        *ret = (struct cm_entry){index ? ".." : ".", index ? dir->parent : dir};
        return true;
    }
    index -= 2;
    if (index >= dir->size)
        return false;
    struct entry *e = dir->entries[index];
    *ret = e ? (struct cm_entry){e->name, e->node} : (struct cm_entry){NULL, NULL};
    return true;
}

/* ---- what is not the session's */

void cm_fs_share(struct cm_node *n, const char *data, uint32_t size)
{
    n->data = (char *)data;
    n->size = n->capacity = size;
    n->readonly = true;
}

void cm_fs_date(struct cm_node *n, int64_t at)
{
    n->atime = n->mtime = n->ctime = at;
}

void cm_fs_seal(struct cm_node *dir)
{
    for (uint32_t i = 0; i < dir->size; i++)
        if (dir->entries[i] && dir->entries[i]->node->type == __WASI_FILETYPE_DIRECTORY)
            cm_fs_seal(dir->entries[i]->node);
    dir->readonly = dir != cm_fs_root();
}
