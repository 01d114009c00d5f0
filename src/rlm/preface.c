/* SPDX-License-Identifier: Apache-2.0 */
/* The system message, and the first one of the user: what is asked, about what. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/names.h"
#include "base/utf8.h"
#include "rlm/internal.h"
#include "rlm/output.h"
#include "rlm/prompts.h"
#include "wire/json.h"

#define CHARACTERS_OF_TOKEN 3
#define TOOLS_SHOWN_MAX     (256u << 10) /* bytes of the section about custom tools */
#define NAME_LEN_MAX        100

/* Custom tools */

static const char *const reserved[] = {"llm_query", "llm_query_batched", "rlm_query", "rlm_query_batched", "SHOW_VARS",
                                       "FINAL",     "FINAL_VAR",         "answer",    "context",           "history",
                                       NULL};

/* "context_7" */
static bool is_numbered(const char *name, size_t len, const char *label)
{
    size_t n = strlen(label);

    if (len <= n + 1 || memcmp(name, label, n) != 0 || name[n] != '_')
        return false;
    for (n++; n < len; n++)
        if (name[n] < '0' || name[n] > '9')
            return false;
    return true;
}

static bool is_reserved(const char *name, size_t len)
{
    for (const char *const *r = reserved; *r; r++)
        if (strlen(*r) == len && memcmp(*r, name, len) == 0)
            return true;
    return is_numbered(name, len, "context") || is_numbered(name, len, "history");
}

/* What begins with "_" is not kept, nor shown. */
static bool is_name(const char *name, size_t len)
{
    return len <= NAME_LEN_MAX && cm_name_is_variable(name, len) && name[0] != '_';
}

struct check {
    const char *field;
    struct cm_err *err;
    int rc;
};

static bool check_tool(void *arg, const char *name, size_t len, const struct cm_json_value *value)
{
    struct check *c = arg;
    int shown = len < NAME_LEN_MAX ? (int)len : NAME_LEN_MAX;

    (void)value;
    if (is_reserved(name, len))
        c->rc =
            cm_err_set(c->err, CM_ERR_BAD_FIELD, "%s: `%.*s` is a name of the session's own", c->field, shown, name);
    else if (!is_name(name, len))
        c->rc = cm_err_set(c->err, CM_ERR_BAD_FIELD, "%s: `%.*s` is no name for a tool", c->field, shown, name);
    return c->rc == 0;
}

int cm_preface_check_tools(const char *json, const char *field, struct cm_err *err)
{
    struct check c = {field, err, 0};
    struct cm_json_value value;

    if (!json)
        return 0;
    if (cm_json_check(json, strlen(json), &value, NULL) < 0 || value.kind != CM_JSON_OBJECT)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "%s: must be an object of names and tools", field);
    cm_json_members(&value, check_tool, &c);
    return c.rc;
}

struct lines {
    struct cm_buf *to;
    int rc;
};

static const char *type_of(const struct cm_json_value *v)
{
    static const char *const types[] = {
        [CM_JSON_ABSENT] = "object", [CM_JSON_NULL] = "NoneType", [CM_JSON_BOOL] = "bool",   [CM_JSON_NUMBER] = "int",
        [CM_JSON_STRING] = "str",    [CM_JSON_ARRAY] = "list",    [CM_JSON_OBJECT] = "dict",
    };
    bool is_real = false;

    for (size_t i = 0; v->kind == CM_JSON_NUMBER && i < v->len; i++)
        is_real |= strchr(".eE", v->raw[i]) != NULL;
    return is_real ? "float" : types[v->kind];
}

static bool put_tool(void *arg, const char *name, size_t len, const struct cm_json_value *value)
{
    struct cm_json_member members[] = {{.name = "code"}, {.name = "tool"}, {.name = "description"}};
    struct lines *l = arg;
    struct cm_json_value *description = &members[2].value, shown = *value;
    size_t text_len = 0;

    if (value->kind != CM_JSON_OBJECT || cm_json_object(value->raw, value->len, members, 3, NULL) < 0)
        members[0].value.kind = members[1].value.kind = description->kind = CM_JSON_ABSENT;
    bool code = members[0].value.kind != CM_JSON_ABSENT, wrapped = code || members[1].value.kind != CM_JSON_ABSENT;
    if (wrapped && !code)
        shown = members[1].value;
    l->rc = l->to->len > 0 ? cm_buf_append(l->to, "\n", 1) : 0;
    if (l->rc == 0)
        l->rc = code ? cm_buf_printf(l->to, "- `%.*s(...)`", (int)len, name)
                     : cm_buf_printf(l->to, "- `%.*s` (%s)", (int)len, name, type_of(&shown));
    if (l->rc == 0 && wrapped && description->kind == CM_JSON_STRING && cm_json_decode(description, &text_len) &&
        (l->rc = cm_buf_puts(l->to, ": ")) == 0)
        l->rc = cm_buf_append(l->to, description->raw, text_len);
    return l->rc == 0;
}

static int put_tools(const struct cm_node *n, struct cm_buf *to)
{
    cm_autofree char *json = n->tools ? strdup(n->tools) : NULL;
    cm_autobuf struct cm_buf text;
    struct lines l = {&text, 0};
    struct cm_json_value value;

    cm_buf_init(&text, TOOLS_SHOWN_MAX);
    if (!n->tools)
        return 0;
    if (!json || cm_json_check(json, strlen(json), &value, NULL) < 0)
        return CM_ERR_NO_MEMORY;
    cm_json_members(&value, put_tool, &l);
    if (l.rc < 0 || text.len == 0)
        return l.rc;
    const struct cm_var vars[] = {CM_VAR("tools", cm_buf_data(&text), text.len), {0}};
    return cm_prompt_put(to, CM_PROMPT_CUSTOM_TOOLS, vars);
}

/* The system message */

static int put_system(const struct cm_node *n, struct cm_buf *to)
{
    const struct cm_rlm_request *q = &n->run->request;
    cm_autobuf struct cm_buf tools;
    size_t recursion_len, text_len;
    const char *recursion = cm_prompt_text(
        n->depth + 1 < q->limits.max_depth ? CM_PROMPT_RECURSION : CM_PROMPT_NO_RECURSION, &recursion_len);
    const char *text = cm_prompt_text(CM_PROMPT_SYSTEM, &text_len);
    int rc;

    cm_buf_init(&tools, TOOLS_SHOWN_MAX + 1024);
    if ((rc = put_tools(n, &tools)) < 0)
        return rc;
    const struct cm_var vars[] = {
        CM_VAR_NUMBER("output_limit", CM_OUTPUT_MAX),
        CM_VAR("recursion", recursion, recursion_len),
        CM_VAR("custom_tools", cm_buf_data(&tools), tools.len),
        CM_VAR("custom_tools_section", cm_buf_data(&tools), tools.len),
        {0},
    };
    if (q->system_prompt && *q->system_prompt)
        return cm_prompt_fill(to, q->system_prompt, strlen(q->system_prompt), vars);
    if ((rc = cm_prompt_fill(to, text, text_len, vars)) < 0 || q->no_orchestrator)
        return rc;
    rc = cm_buf_puts(to, "\n\n");
    return rc < 0 ? rc : cm_prompt_put(to, CM_PROMPT_ORCHESTRATOR, NULL);
}

/* The first message of the user */

static int put_query(const struct cm_node *n, struct cm_buf *to)
{
    const char *query = n->slot ? NULL : n->run->request.query;

    if (!query)
        return cm_prompt_put(to, CM_PROMPT_NO_QUERY, NULL);
    const struct cm_var vars[] = {CM_VAR("query", query, strlen(query)), {0}};
    return cm_prompt_put(to, CM_PROMPT_QUERY, vars);
}

static int put_context(const struct cm_node *n, struct cm_buf *to)
{
    const struct cm_rlm_request *q = &n->run->request;
    const struct cm_llm_model *sub = q->other.name ? &q->other : cm_run_model(n->run, n->depth + 1);
    const struct cm_var vars[] = {
        CM_VAR("context_type", n->context_type, strlen(n->context_type)),
        CM_VAR_NUMBER("context_length", n->context_length),
        CM_VAR_NUMBER("capacity", (uint64_t)cm_llm_window(n->run->rlm->llm, sub->name) * CHARACTERS_OF_TOKEN),
        CM_VAR_NUMBER("contexts", n->contexts),
        CM_VAR_NUMBER("newest", n->contexts - 1),
        {0},
    };
    enum cm_prompt prompt = n->contexts > 1 ? CM_PROMPT_CONTEXTS : CM_PROMPT_CONTEXT;

    if (n->own == CM_OWN_NONE && n->contexts > (n->histories > 0 ? 0 : 1))
        prompt = CM_PROMPT_OLD_CONTEXTS;
    else if (n->own == CM_OWN_NONE || (n->contexts == 1 && n->own == CM_OWN_TEXT && n->context_length == 0))
        prompt = CM_PROMPT_NO_CONTEXT;
    return cm_prompt_put(to, prompt, vars);
}

static int put_histories(const struct cm_node *n, struct cm_buf *to)
{
    const struct cm_var vars[] = {
        CM_VAR_NUMBER("histories", n->histories), CM_VAR_NUMBER("newest", n->histories - 1), {0}};
    int rc;

    if (n->histories == 0)
        return 0;
    rc = cm_buf_puts(to, "\n\n");
    return rc < 0 ? rc : cm_prompt_put(to, CM_PROMPT_HISTORIES, vars);
}

static int put_user(const struct cm_node *n, struct cm_buf *to)
{
    const char *prologue = n->slot ? NULL : n->run->request.user_prologue;
    int rc;

    if ((rc = put_query(n, to)) < 0 || (rc = cm_buf_puts(to, "\n\n")) < 0 || (rc = put_context(n, to)) < 0 ||
        (rc = put_histories(n, to)) < 0 || !prologue)
        return rc;
    rc = cm_buf_puts(to, "\n\n");
    return rc < 0 ? rc : cm_buf_puts(to, prologue);
}

int cm_preface_write(struct cm_node *n)
{
    struct cm_buf system, user;
    size_t len = 0;
    int rc;

    cm_buf_init(&system, CM_MESSAGE_BYTES_MAX);
    cm_buf_init(&user, CM_MESSAGE_BYTES_MAX);
    if ((rc = put_system(n, &system)) == 0 && (rc = put_user(n, &user)) == 0) {
        char *text = cm_buf_steal(&system, &len);
        rc = cm_history_add(&n->history, CM_LLM_SYSTEM, text, len);
        n->preface = cm_buf_steal(&user, &n->preface_len);
        if (rc == 0 && !n->preface)
            rc = CM_ERR_NO_MEMORY;
        if (rc == 0)
            rc = cm_buf_append(&n->pending, n->preface, n->preface_len);
    }
    cm_buf_done(&system);
    cm_buf_done(&user);
    return rc;
}
