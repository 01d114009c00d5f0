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

#define REPORT_MAX (1u << 20) /* bytes: a hundred names, and a final answer that is a key when it is long */

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
static void take_final(struct cm_node *n, struct cm_parts_text *text)
{
    const struct cm_var vars[] = {CM_VAR_NUMBER("limit", CM_ANSWER_BYTES_MAX), {0}};
    cm_autobuf struct cm_buf answer;
    size_t len = text->len > CM_ANSWER_BYTES_MAX ? CM_ANSWER_BYTES_MAX : (size_t)text->len;

    cm_buf_init(&answer, CM_ANSWER_BYTES_MAX + 4096);
    if (cm_parts_load(text, CM_PARTS_BYTES_MAX) < 0)
        return;
    if (len < text->len)
        len -= cm_utf8_cut_end(text->data, len);
    if (cm_buf_append(&answer, text->data, len) < 0 ||
        (len < text->len && cm_text_put(&answer, CM_TEXT_ANSWER_CUT, vars) < 0))
        return;
    free(n->final);
    n->final = cm_buf_steal(&answer, &n->final_len);
}

static void take(struct cm_node *n, char *report, size_t len)
{
    struct cm_json_member members[] = {{.name = "final"}, {.name = "variables"}};
    struct cm_parts_text text = {.fd = -1};

    if (cm_json_object(report, len, members, 2, NULL) < 0)
        return;
    take_variables(n, &members[1].value);
    if (cm_text_take(n, &members[0].value, &text) == 0)
        take_final(n, &text);
    cm_parts_text_done(&text);
}

static void take_pieces(struct cm_node *n, struct cm_json_value *key)
{
    struct cm_parts_text pieces = {.fd = -1};

    if (cm_text_take(n, key, &pieces) == 0 && cm_parts_load(&pieces, REPORT_MAX) == 0)
        take(n, pieces.data, (size_t)pieces.len);
    cm_parts_text_done(&pieces);
}

/* A long one has come in pieces, and the result is their key. */
void cm_report_take(struct cm_node *n, const char *result, size_t len)
{
    struct cm_parts_text copy = {.fd = -1};
    struct cm_json_member key = {.name = "key"};

    if (cm_parts_copy(result, len, &copy) == 0 && cm_json_object(copy.data, len, &key, 1, NULL) == 0) {
        struct cm_json_value whole = {CM_JSON_OBJECT, copy.data, len};
        if (key.value.kind == CM_JSON_ABSENT)
            take(n, copy.data, len);
        else
            take_pieces(n, &whole);
    }
    cm_parts_text_done(&copy);
}
