/* SPDX-License-Identifier: Apache-2.0 */
/* What the callers leave to one another. Each key's name is a party, whatever number of keys it has. */
#include "base/share.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "front/rlm/internal.h"

struct holder *holders_find(const struct cm_infer *f, const char *name)
{
    struct holder *h;

    DL_FOREACH(f->holders, h)
    if (strcmp(h->name, name) == 0)
        return h;
    return NULL;
}

struct holder *holders_take(struct cm_infer *f, const char *name)
{
    struct holder *h = holders_find(f, name);

    if (!h) {
        h = calloc(1, sizeof *h);
        if (!h)
            return NULL;
        strncpy(h->name, name, sizeof h->name - 1);
        DL_APPEND(f->holders, h);
    }
    h->things++;
    return h;
}

void holders_leave(struct cm_infer *f, struct holder *h)
{
    if (--h->things > 0)
        return;
    DL_DELETE(f->holders, h);
    free(h);
}

int shares_check(const struct cm_infer *f, const struct room *room, uint64_t all, uint64_t mine, uint64_t more,
                 struct cm_err *err)
{
    if (all + more > room->max)
        return cm_err_set(err, CM_ERR_OVERLOADED, "%s: %llu of %llu (%s) are taken, %llu more do not fit: %s",
                          room->what, (unsigned long long)all, (unsigned long long)room->max, room->setting,
                          (unsigned long long)more, room->relief);
    if (!cm_access_shared(f->config.access) || mine + more <= cm_share(room->max, all - mine))
        return 0;
    return cm_err_set(err, CM_ERR_KEY_SHARE,
                      "%s: this key has %llu of %llu (%s), and with %llu more it had more than half of what other keys "
                      "leave: %s",
                      room->what, (unsigned long long)mine, (unsigned long long)room->max, room->setting,
                      (unsigned long long)more, room->relief);
}
