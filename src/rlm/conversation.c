/* SPDX-License-Identifier: Apache-2.0 */
/* Several runs in one session. */
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/random.h"
#include "rlm/internal.h"

int cm_rlm_conversation_open(struct cm_rlm *r, struct cm_rlm_conversation **ret, struct cm_err *err)
{
    struct cm_rlm_conversation *c = calloc(1, sizeof *c);
    static const char prefix[] = "conversation-";

    if (!c)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a conversation");
    memcpy(c->id, prefix, sizeof prefix);
    int rc = cm_random_hex(c->id + sizeof prefix - 1, 16, err);
    if (rc < 0) {
        free(c);
        return rc;
    }
    c->rlm = r;
    DL_APPEND(r->conversations, c);
    *ret = c;
    return 0;
}

const char *cm_rlm_conversation_id(const struct cm_rlm_conversation *c)
{
    return c->id;
}

bool cm_rlm_conversation_busy(const struct cm_rlm_conversation *c)
{
    return c->run != NULL;
}

struct cm_rlm_conversation *cm_rlm_conversation_free(struct cm_rlm_conversation *c)
{
    if (!c)
        return NULL;
    if (c->session[0])
        cm_sidecar_delete(c->rlm->sidecar, c->session);
    DL_DELETE(c->rlm->conversations, c);
    free(c->history);
    free(c);
    return NULL;
}

static void forget_history(struct cm_rlm_conversation *c)
{
    free(c->history);
    c->history = NULL;
    c->history_len = 0;
}

/* The session has what was put there before the run broke off. */
void cm_conversation_leave(struct cm_rlm_conversation *c, struct cm_node *n)
{
    struct cm_buf json;

    if (n->lost || !n->session[0]) {
        if (n->session[0])
            cm_sidecar_delete(c->rlm->sidecar, n->session);
        c->session[0] = '\0';
        c->contexts = c->histories = 0;
        forget_history(c);
        return;
    }
    if (n->histories > c->histories || n->history.count > 1)
        forget_history(c);
    strcpy(c->session, n->session);
    c->contexts = n->contexts;
    c->histories = n->histories;
    if (n->history.count <= 1)
        return;
    cm_buf_init(&json, CM_HISTORY_OLD_MAX + CM_MESSAGE_BYTES_MAX);
    if (cm_history_whole(&n->history, &json) == 0)
        c->history = cm_buf_steal(&json, &c->history_len);
    cm_buf_done(&json);
}
