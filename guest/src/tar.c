/* SPDX-License-Identifier: Apache-2.0 */
/* The standard library, from an archive that stays where it is. */
#include <string.h>

#include "fs.h"

struct tar_header { /* POSIX ustar */
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, linkname[100];
    char magic[6], version[2], uname[32], gname[32], major[8], minor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct tar_header) == 512, "ustar");

static uint64_t octal(const char *s, size_t len)
{
    uint64_t v = 0;
    for (size_t i = 0; i < len && s[i] >= '0' && s[i] <= '7'; i++)
        v = v * 8 + (uint64_t)(s[i] - '0');
    return v;
}

static size_t full_name(const struct tar_header *h, char *out)
{
    size_t n = strnlen(h->prefix, sizeof h->prefix), m = strnlen(h->name, sizeof h->name);
    memcpy(out, h->prefix, n);
    if (n)
        out[n++] = '/';
    memcpy(out + n, h->name, m);
    return n + m;
}

static int mount_member(const struct tar_header *h, const char *data, size_t size)
{
    char name[sizeof h->prefix + 1 + sizeof h->name];
    size_t len = full_name(h, name);
    struct cm_node *n;
    int rc;
    if (h->type == '5')
        rc = cm_fs_mkdir(cm_fs_root(), name, len);
    else
        rc = cm_fs_create(cm_fs_root(), name, len, false, true, &n);
    if (rc)
        return rc;
    if (h->type != '5')
        cm_fs_share(n, data, (uint32_t)size);
    cm_fs_find(cm_fs_root(), name, len, false, &n);
    cm_fs_date(n, (int64_t)octal(h->mtime, sizeof h->mtime) * 1000000000);
    return 0;
}

int cm_fs_mount(const char *tar, size_t len)
{
    for (size_t at = 0; at + 512 <= len;) {
        const struct tar_header *h = (const struct tar_header *)(tar + at);
        if (!h->name[0])
            break;
        size_t size = h->type == '5' ? 0 : (size_t)octal(h->size, sizeof h->size);
        if (size > len - at - 512)
            return __WASI_ERRNO_INVAL;
        int rc = mount_member(h, tar + at + 512, size);
        if (rc)
            return rc;
        at += 512 + (size + 511) / 512 * 512;
    }
    cm_fs_seal(cm_fs_root()); /* last: until then the directories take their members */
    return 0;
}
