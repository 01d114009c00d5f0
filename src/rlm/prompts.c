/* SPDX-License-Identifier: Apache-2.0 */
#include "rlm/prompts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "wire/json.h"

#define NAME_MAX_LEN 40 /* of a variable */

#define P(ID, name)                                                                                                    \
    extern const unsigned char cm_prompt_##name##_md[];                                                                \
    extern const size_t cm_prompt_##name##_md_size;
CM_PROMPTS(P)
#undef P
extern const unsigned char cm_prompt_texts_json[], cm_prompt_session_py[];
extern const size_t cm_prompt_texts_json_size, cm_prompt_session_py_size;

static const struct {
    const unsigned char *text;
    const size_t *size;
} prompts[] = {
#define P(ID, name) {cm_prompt_##name##_md, &cm_prompt_##name##_md_size},
    CM_PROMPTS(P)
#undef P
};

/* The file is read once; what it says stays for the life of the process. */
static struct {
    const char *text;
    size_t len;
} texts[CM_TEXT_COUNT];
static char texts_memory[8192];

const char *cm_prompt_text(enum cm_prompt prompt, size_t *ret_len)
{
    const char *text = (const char *)prompts[prompt].text;
    size_t len = *prompts[prompt].size;

    *ret_len = len > 0 && text[len - 1] == '\n' ? len - 1 : len;
    return text;
}

const char *cm_prompt_session(size_t *ret_len)
{
    *ret_len = cm_prompt_session_py_size;
    return (const char *)cm_prompt_session_py;
}

int cm_texts_open(struct cm_err *err)
{
    struct cm_json_member members[] = {
#define T(ID, key) {.name = #key},
        CM_TEXTS(T)
#undef T
    };

    if (texts[0].text)
        return 0;
    if (cm_prompt_texts_json_size > sizeof texts_memory)
        return cm_err_set(err, CM_ERR_CONFIG, "texts.json is too long");
    memcpy(texts_memory, cm_prompt_texts_json, cm_prompt_texts_json_size);
    int rc = cm_json_object(texts_memory, cm_prompt_texts_json_size, members, CM_TEXT_COUNT, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < CM_TEXT_COUNT; i++) {
        struct cm_json_value *v = &members[i].value;
        if (v->kind != CM_JSON_STRING || !cm_json_decode(v, &texts[i].len))
            return cm_err_set(err, CM_ERR_CONFIG, "texts.json has no text `%s`", members[i].name);
        texts[i].text = v->raw;
    }
    return 0;
}

static const struct cm_var *find(const struct cm_var *vars, const char *name, size_t len)
{
    for (; vars && vars->name; vars++)
        if (strlen(vars->name) == len && memcmp(vars->name, name, len) == 0)
            return vars;
    return NULL;
}

static int put_var(struct cm_buf *to, const struct cm_var *var)
{
    if (!var->value)
        return cm_buf_printf(to, "%" PRIu64, var->number);
    return cm_buf_append(to, var->value, var->len);
}

/* What begins at `at`, a brace: a variable, a double brace or just itself. Sets how much of the text that was. */
static int put_brace(struct cm_buf *to, const char *at, size_t left, const struct cm_var *vars, size_t *ret_used)
{
    const char *end = memchr(at, '}', left < NAME_MAX_LEN ? left : NAME_MAX_LEN);
    const struct cm_var *var = NULL;

    *ret_used = 1;
    if (left > 1 && at[1] == at[0])
        *ret_used = 2;
    else if (at[0] == '{' && end && (var = find(vars, at + 1, (size_t)(end - at) - 1)))
        *ret_used = (size_t)(end - at) + 1;
    return var ? put_var(to, var) : cm_buf_append(to, at, 1);
}

int cm_prompt_fill(struct cm_buf *to, const char *text, size_t len, const struct cm_var *vars)
{
    const char *end = text + len, *plain = text;
    int rc;

    for (const char *at = text; at < end;) {
        if (*at != '{' && *at != '}') {
            at++;
            continue;
        }
        size_t used;
        if ((rc = cm_buf_append(to, plain, (size_t)(at - plain))) < 0 ||
            (rc = put_brace(to, at, (size_t)(end - at), vars, &used)) < 0)
            return rc;
        plain = at += used;
    }
    return cm_buf_append(to, plain, (size_t)(end - plain));
}

int cm_prompt_put(struct cm_buf *to, enum cm_prompt prompt, const struct cm_var *vars)
{
    size_t len;
    const char *text = cm_prompt_text(prompt, &len);

    return cm_prompt_fill(to, text, len, vars);
}

int cm_text_put(struct cm_buf *to, enum cm_text text, const struct cm_var *vars)
{
    return cm_prompt_fill(to, texts[text].text, texts[text].len, vars);
}
