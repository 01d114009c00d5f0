/* SPDX-License-Identifier: Apache-2.0 */
#include "rlm/history.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "rlm/output.h"

static const char *const roles[] = {
    [CM_LLM_SYSTEM] = "{\"role\":\"system\",\"content\":",
    [CM_LLM_USER] = "{\"role\":\"user\",\"content\":",
    [CM_LLM_ASSISTANT] = "{\"role\":\"assistant\",\"content\":",
};

static void drop_old(struct cm_history *h)
{
    if (h->old)
        cm_buf_done(h->old);
    free(h->old);
    h->old = NULL;
}

void cm_history_done(struct cm_history *h)
{
    while (h->count > 0)
        cm_history_drop(h);
    free(h->messages);
    drop_old(h);
    *h = (struct cm_history){0};
}

int cm_history_add(struct cm_history *h, enum cm_llm_role role, char *text, size_t len)
{
    if (text && h->count == h->capacity) {
        size_t capacity = h->capacity ? h->capacity * 2 : 16;
        struct cm_llm_message *messages = realloc(h->messages, capacity * sizeof *messages);
        if (!messages) {
            free(text);
            return CM_ERR_NO_MEMORY;
        }
        h->messages = messages;
        h->capacity = capacity;
    }
    if (!text)
        return CM_ERR_NO_MEMORY;
    h->messages[h->count++] = (struct cm_llm_message){role, text, len};
    h->tokens += cm_llm_estimate(text, len);
    return 0;
}

void cm_history_drop(struct cm_history *h)
{
    struct cm_llm_message *m = &h->messages[--h->count];

    h->tokens -= cm_llm_estimate(m->text, m->len);
    free((char *)m->text);
}

static int put_message(struct cm_buf *to, const struct cm_llm_message *m, bool first, size_t max)
{
    int rc;

    if ((!first && (rc = cm_buf_append(to, ",", 1)) < 0) || (rc = cm_buf_puts(to, roles[m->role])) < 0 ||
        (rc = cm_output_json(to, m->text, m->len, max)) < 0)
        return rc;
    return cm_buf_append(to, "}", 1);
}

int cm_history_json(const struct cm_history *h, size_t from, size_t max, struct cm_buf *to)
{
    int rc = 0;

    for (size_t i = from; i < h->count && rc == 0; i++)
        rc = put_message(to, &h->messages[i], i == from, max);
    return rc;
}

static int keep_old(struct cm_history *h, size_t from)
{
    if (!h->old) {
        h->old = malloc(sizeof *h->old);
        if (!h->old)
            return CM_ERR_NO_MEMORY;
        cm_buf_init(h->old, CM_HISTORY_OLD_MAX);
    }
    for (size_t i = from; i < h->count; i++) {
        size_t len = h->old->len;
        if (put_message(h->old, &h->messages[i], len == 0, SIZE_MAX) < 0) {
            h->old->len = len;
            return 0;
        }
    }
    return 0;
}

int cm_history_compact(struct cm_history *h)
{
    /* The first user's message is among the old ones from the first time on. */
    int rc = keep_old(h, h->old ? 2 : 1);

    while (rc == 0 && h->count > 1)
        cm_history_drop(h);
    return rc;
}

int cm_history_whole(const struct cm_history *h, struct cm_buf *to)
{
    size_t from = 1;
    int rc;

    if ((rc = cm_buf_append(to, "[", 1)) < 0)
        return rc;
    if (h->old && h->old->len > 0) {
        from = 2;
        if ((rc = cm_buf_append(to, cm_buf_data(h->old), h->old->len)) < 0 ||
            (h->count > from && (rc = cm_buf_append(to, ",", 1)) < 0))
            return rc;
    }
    if ((rc = cm_history_json(h, from, SIZE_MAX, to)) < 0)
        return rc;
    return cm_buf_append(to, "]", 1);
}
