/* SPDX-License-Identifier: Apache-2.0 */
#include "front/rlm/trajectory.h"

#include <string.h>

#include "wire/json.h"

void cm_infer_trajectory_init(struct cm_infer_trajectory *t, size_t max)
{
    cm_buf_init(&t->prompts, max);
}

void cm_infer_trajectory_done(struct cm_infer_trajectory *t)
{
    cm_buf_done(&t->prompts);
}

bool cm_infer_trajectory_wants(const char *type, const char *json, size_t len)
{
    struct cm_json_member m[] = {{.name = "node"}};

    if (strcmp(type, "metadata") != 0 && strcmp(type, "iteration") != 0 && strcmp(type, "compaction") != 0)
        return false;
    return cm_json_object((char *)json, len, m, 1, NULL) == 0 && m[0].value.len == 1 && m[0].value.raw[0] == '0';
}

/* Those that are new in this turn: what the model has said, and what it was told then. */
static int add_messages(struct cm_buf *to, const struct cm_json_value *prompt)
{
    int rc = prompt->len > 2 && to->len > 0 ? cm_buf_puts(to, ",") : 0;

    return rc < 0 ? rc : cm_buf_append(to, prompt->raw + 1, prompt->len - 2);
}

static int put_iteration(struct cm_infer_trajectory *t, const char *json, size_t len, struct cm_buf *to)
{
    struct cm_json_member m[] = {{.name = "prompt"}};
    const struct cm_json_value *v = &m[0].value;
    int rc;

    if (cm_json_object((char *)json, len, m, 1, NULL) < 0 || v->kind != CM_JSON_ARRAY || v->len < 2)
        return cm_buf_append(to, json, len);
    size_t before = (size_t)(v->raw - json), behind = before + v->len;
    if ((rc = add_messages(&t->prompts, v)) < 0 || (rc = cm_buf_append(to, json, before)) < 0 ||
        (rc = cm_buf_puts(to, "[")) < 0 || (rc = cm_buf_append(to, cm_buf_data(&t->prompts), t->prompts.len)) < 0 ||
        (rc = cm_buf_puts(to, "]")) < 0)
        return rc;
    return cm_buf_append(to, json + behind, len - behind);
}

int cm_infer_trajectory_put(struct cm_infer_trajectory *t, char type, const char *json, size_t len, struct cm_buf *to)
{
    if (type == 'c') { /* a compaction: the history begins anew */
        cm_buf_clear(&t->prompts);
        return 0;
    }
    int rc = type == 'i' ? put_iteration(t, json, len, to) : cm_buf_append(to, json, len);
    return rc < 0 ? rc : cm_buf_puts(to, "\n");
}
