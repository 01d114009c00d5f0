/* SPDX-License-Identifier: Apache-2.0 */
#include "rlm/output.h"

#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/utf8.h"
#include "rlm/prompts.h"
#include "wire/json.h"

static int put_part(struct cm_buf *to, struct cm_output_text part)
{
    int rc = 0;

    while (part.len > 0 && (part.at[part.len - 1] == '\n' || part.at[part.len - 1] == '\r'))
        part.len--;
    if (part.len == 0)
        return 0;
    if (to->len > 0)
        rc = cm_buf_append(to, "\n", 1);
    return rc < 0 ? rc : cm_buf_append(to, part.at, part.len);
}

static bool holds(struct cm_output_text whole, struct cm_output_text part)
{
    return part.len == 0 || (whole.len > 0 && memmem(whole.at, whole.len, part.at, part.len) != NULL);
}

static int put_names(struct cm_buf *to, struct cm_output_text names)
{
    const struct cm_var vars[] = {CM_VAR("names", names.at, names.len), {0}};
    int rc = 0;

    if (names.len == 0)
        return 0;
    if (to->len > 0)
        rc = cm_buf_append(to, "\n", 1);
    return rc < 0 ? rc : cm_text_put(to, CM_TEXT_VARIABLES, vars);
}

static int put_parts(struct cm_buf *to, const struct cm_output *o)
{
    const struct cm_output_text none = {"", 0};
    int rc;

    if ((rc = put_part(to, o->out)) < 0 || (rc = put_part(to, o->value)) < 0 || (rc = put_part(to, o->err)) < 0 ||
        (rc = put_part(to, holds(o->err, o->error) ? none : o->error)) < 0 || (rc = put_names(to, o->names)) < 0)
        return rc;
    return to->len > 0 ? 0 : cm_text_put(to, CM_TEXT_NO_OUTPUT, NULL);
}

/* Appends a text, and of a longer one its first and last characters with a line between. */
static int put_cut(struct cm_buf *to, const char *text, size_t len, size_t max, size_t tail, uint64_t missing)
{
    uint64_t count = len <= max ? 0 : cm_utf8_count(text, len);
    int rc;

    if (count <= max)
        return cm_buf_append(to, text, len);
    size_t end = cm_utf8_offset(text, len, max - tail), from = end + cm_utf8_offset(text + end, len - end, count - max);
    const struct cm_var vars[] = {CM_VAR_NUMBER("dropped", count - max + missing), {0}};
    if ((rc = cm_buf_append(to, text, end)) < 0 || (rc = cm_buf_append(to, "\n", 1)) < 0 ||
        (rc = cm_text_put(to, CM_TEXT_DROPPED, vars)) < 0 || (rc = cm_buf_append(to, "\n", 1)) < 0)
        return rc;
    return cm_buf_append(to, text + from, len - from);
}

int cm_output_put(struct cm_buf *to, unsigned number, const struct cm_output *o)
{
    const struct cm_var vars[] = {CM_VAR_NUMBER("number", number), {0}};
    cm_autobuf struct cm_buf text;
    int rc;

    cm_buf_init(&text, o->out.len + o->value.len + o->err.len + o->error.len + o->names.len + 4096);
    if ((rc = put_parts(&text, o)) < 0 ||
        (rc = cm_text_put(to, number ? CM_TEXT_OUTPUT_OF : CM_TEXT_OUTPUT, vars)) < 0 ||
        (rc = cm_buf_append(to, "\n", 1)) < 0)
        return rc;
    return put_cut(to, cm_buf_data(&text), text.len, CM_OUTPUT_MAX, CM_OUTPUT_TAIL, o->missing);
}

int cm_output_json(struct cm_buf *to, const char *text, size_t len, size_t max)
{
    cm_autobuf struct cm_buf valid, cut;
    int rc;

    cm_buf_init(&valid, len * 3);
    cm_buf_init(&cut, len * 3 + 256);
    if (text && !cm_utf8_valid(text, len)) {
        if ((rc = cm_utf8_append(&valid, text, len)) < 0)
            return rc;
        text = cm_buf_data(&valid);
        len = valid.len;
    }
    if (!text || len <= max)
        return cm_json_put_string(to, text, len);
    if ((rc = put_cut(&cut, text, len, max, max / 2, 0)) < 0)
        return rc;
    return cm_json_put_string(to, cm_buf_data(&cut), cut.len);
}
