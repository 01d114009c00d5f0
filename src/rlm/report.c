/* SPDX-License-Identifier: Apache-2.0 */
/* What a session says after a block: an answer, if there is one, and its variables. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "rlm/internal.h"
#include "rlm/prompts.h"
#include "rlm/subcalls.h"
#include "wire/json.h"

#define VARIABLES_MAX 100

static bool put_name(void *arg, const char *name, size_t len, const struct cm_json_value *value)
{
    struct cm_buf *to = arg;
    size_t before = to->len;

    (void)value;
    if (memchr(name, '\\', len))
        return true;
    if ((before > 0 && cm_buf_append(to, ", ", 2) < 0) || cm_buf_append(to, name, len) < 0) {
        to->len = before;
        return false;
    }
    return true;
}

static void take_variables(struct cm_node *n, const struct cm_json_value *v)
{
    cm_buf_clear(&n->names);
    cm_buf_clear(&n->variables);
    if (v->kind != CM_JSON_OBJECT || cm_buf_append(&n->variables, v->raw, v->len) < 0)
        return;
    cm_json_members(v, put_name, &n->names);
}

/* An answer of any length is one; what is beyond the limit is left out with a note. */
static int take_final(struct cm_node *n, struct cm_parts_text *text)
{
    const struct cm_var vars[] = {CM_VAR_NUMBER("limit", CM_ANSWER_BYTES_MAX), {0}};
    cm_autobuf struct cm_buf answer;
    size_t len = text->len > CM_ANSWER_BYTES_MAX ? CM_ANSWER_BYTES_MAX : (size_t)text->len;

    cm_buf_init(&answer, CM_ANSWER_BYTES_MAX + 4096);
    if (cm_parts_load(text, CM_PARTS_BYTES_MAX) < 0)
        return CM_ERR_NO_MEMORY;
    if (len < text->len)
        len -= cm_utf8_cut_end(text->data, len);
    if (cm_buf_append(&answer, text->data, len) < 0 ||
        (len < text->len && cm_text_put(&answer, CM_TEXT_ANSWER_CUT, vars) < 0))
        return CM_ERR_NO_MEMORY;
    free(n->final);
    n->final = cm_buf_steal(&answer, &n->final_len);
    return n->final ? 0 : CM_ERR_NO_MEMORY;
}

int cm_report_take(struct cm_node *n, char *arguments, size_t len)
{
    struct cm_json_member members[] = {{.name = "final"}, {.name = "variables"}};
    struct cm_parts_text text = {.fd = -1};

    if (cm_json_object(arguments, len, members, 2, NULL) < 0)
        return CM_ERR_BAD_FIELD;
    take_variables(n, &members[1].value);
    if (members[0].value.kind == CM_JSON_NULL || members[0].value.kind == CM_JSON_ABSENT)
        return 0;
    int rc = cm_text_take(n, &members[0].value, &text);
    if (rc == 0)
        rc = take_final(n, &text);
    cm_parts_text_done(&text);
    return rc;
}
