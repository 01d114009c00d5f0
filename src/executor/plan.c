/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/names.h"
#include "base/words.h"
#include "executor/internal.h"
#include "tools/values.h"

#define LISTED_MAX 20 /* names in a hint */
#define NEAR_MAX   2000 /* names that are compared with a wrong one */

static struct cm_json_value array_of(const char *names, size_t len)
{
    struct cm_json_value value;

    if (!names || len == 0 || cm_json_check(names, len, &value, NULL) < 0 || value.kind != CM_JSON_ARRAY)
        value = (struct cm_json_value){CM_JSON_ABSENT, NULL, 0};
    return value;
}

/* Names of ours need no permission: they tell only of what is allowed. */
static bool is_meta(struct cm_chars name)
{
    return name.end - name.at >= 2 && name.at[0] == '_' && name.at[1] == '_';
}

/* The next name of somebody else's. */
static bool next_name(struct cm_members *m, struct cm_chars *ret)
{
    struct cm_json_value value;

    while (cm_elements_next(m, &value)) {
        if (value.kind != CM_JSON_STRING)
            continue;
        *ret = cm_chars_of(&value);
        if (!is_meta(*ret))
            return true;
    }
    return false;
}

bool cm_plan_restricts(const char *names, size_t len)
{
    struct cm_json_value array = array_of(names, len), value;

    if (array.kind == CM_JSON_ABSENT)
        return false;
    struct cm_members m = cm_elements_of(&array);
    return cm_elements_next(&m, &value);
}

static bool has_word(const char *code, size_t len, const char *word)
{
    size_t n = strlen(word);
    const char *end = code + len, *at = code;

    for (; (at = memmem(at, (size_t)(end - at), word, n)); at += n)
        if ((at == code || !cm_name_has(at[-1])) && (at + n == end || !cm_name_has(at[n])))
            return true;
    return false;
}

bool cm_plan_mentions(const char *code, size_t len)
{
    return has_word(code, len, "tools") || has_word(code, len, "agents") || has_word(code, len, "crews") ||
           has_word(code, len, "flows");
}

/* The name without escapes, or false when it is too long for one. */
static bool plain_name(struct cm_chars name, char ret[static CM_TOOL_NAME_MAX + 1], size_t *ret_len)
{
    struct cm_buf b = {.mem = ret, .cap = CM_TOOL_NAME_MAX, .max = CM_TOOL_NAME_MAX};

    *ret = '\0';
    bool ok = cm_chars_put(&b, name, CM_TOOL_NAME_MAX) == 0;
    *ret_len = b.len;
    return ok;
}

static bool is_own(const struct allowance *own, struct cm_chars name)
{
    char plain[CM_TOOL_NAME_MAX + 1];
    size_t len;

    return own->set && plain_name(name, plain, &len) && cm_plan_find(own, plain, len);
}

bool cm_plan_names_some(const struct allowance *own, const char *names, size_t len)
{
    struct cm_json_value array = array_of(names, len);
    struct cm_chars name;

    if (array.kind == CM_JSON_ABSENT)
        return false;
    for (struct cm_members m = cm_elements_of(&array); next_name(&m, &name);)
        if (!is_own(own, name))
            return true;
    return false;
}

int cm_plan_own(struct allowance *own, const char *names, size_t names_len, struct cm_err *err)
{
    own->set = cm_toolset_of_names(names, names_len, CM_CALLER_TOOLS_MAX, err);
    return own->set ? 0 : cm_err_wrap(err, "caller_tools");
}

/* Of the missing names, at the most a few are said. */
static void say_missing(struct cm_buf *why, struct cm_chars name, unsigned already)
{
    if (already == LISTED_MAX)
        cm_buf_puts(why, ", ...");
    if (already >= LISTED_MAX)
        return;
    cm_buf_puts(why, already ? ", '" : "the tool service does not list '");
    cm_chars_put(why, name, 80);
    cm_buf_puts(why, "'");
}

static int choose_named(struct allowance *a, const struct allowance *own, const struct cm_json_value *names, char *text)
{
    struct cm_buf why = {.mem = text, .cap = ERROR_TEXT_MAX - 1, .max = ERROR_TEXT_MAX - 1};
    char plain[CM_TOOL_NAME_MAX + 1];
    struct cm_chars name, first = {0};
    unsigned missing = 0;
    size_t len;

    a->chosen = calloc(a->set->count + 1, 1);
    if (!a->chosen)
        return CM_ERR_NO_MEMORY;
    for (struct cm_members m = cm_elements_of(names); next_name(&m, &name);) {
        if (is_own(own, name))
            continue;
        long at = plain_name(name, plain, &len) ? cm_toolset_find(a->set, plain, len) : -1;
        if (at >= 0)
            a->chosen[at] = 1;
        if (at >= 0)
            continue;
        first = missing ? first : name;
        say_missing(&why, name, missing++);
    }
    if (missing == 0)
        return 0;
    struct allowance all = {.set = a->set};
    cm_plan_hint(&all, plain, plain_name(first, plain, &len) && missing == 1 ? len : 0, &why);
    return 1;
}

/* The caller's own win over the service's of the same name. */
static int hide(struct allowance *a, const struct allowance *own)
{
    for (size_t i = 0; own->set && i < own->set->count; i++) {
        long at = cm_toolset_find(a->set, own->set->tools[i]->name, own->set->tools[i]->name_len);
        if (at < 0)
            continue;
        if (!a->chosen) {
            a->chosen = malloc(a->set->count);
            if (!a->chosen)
                return CM_ERR_NO_MEMORY;
            memset(a->chosen, 1, a->set->count);
        }
        a->chosen[at] = 0;
    }
    return 0;
}

int cm_plan_choose(struct allowance *a, struct cm_toolset *set, const struct allowance *own, const char *names,
                   size_t names_len, char *why)
{
    struct cm_json_value array = array_of(names, names_len);

    *a = (struct allowance){.set = cm_toolset_ref(set)};
    int rc = cm_plan_restricts(names, names_len) ? choose_named(a, own, &array, why) : hide(a, own);
    if (rc != 0)
        cm_plan_done(a);
    return rc;
}

void cm_plan_done(struct allowance *a)
{
    a->set = cm_toolset_unref(a->set);
    free(a->chosen);
    a->chosen = NULL;
}

static int write_some(const struct allowance *a, const char **lead, struct cm_buf *to)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && a->set && i < a->set->count; i++) {
        const struct cm_tool *t = a->set->tools[i];
        if (a->chosen && !a->chosen[i])
            continue;
        rc = cm_buf_puts(to, *lead);
        rc = rc ? rc : cm_json_put_string(to, t->name, t->name_len);
        rc = rc ? rc : cm_buf_printf(to, ",%d]", (t->is_async ? 1 : 0) | (t->has_context ? 2 : 0));
        *lead = ",[";
    }
    return rc;
}

int cm_plan_write(const struct allowance *own, const struct allowance *a, struct cm_buf *to)
{
    const char *lead = "[[";
    int rc = write_some(own, &lead, to);

    rc = rc ? rc : write_some(a, &lead, to);
    return rc ? rc : cm_buf_puts(to, *lead == '[' ? "[]" : "]");
}

const struct cm_tool *cm_plan_find(const struct allowance *a, const char *name, size_t len)
{
    long at = a->set ? cm_toolset_find(a->set, name, len) : -1;

    return at < 0 || (a->chosen && !a->chosen[at]) ? NULL : a->set->tools[at];
}

/* "did you mean" takes a list that ends with NULL. */
static const char *nearest(const struct allowance *a, const char *name)
{
    const char **list = malloc((NEAR_MAX + 1) * sizeof *list), *near = NULL;
    size_t n = 0;

    if (!list)
        return NULL;
    for (size_t i = 0; i < a->set->count && n < NEAR_MAX; i++)
        if (!a->chosen || a->chosen[i])
            list[n++] = a->set->tools[i]->name;
    list[n] = NULL;
    near = cm_word_nearest(name, list);
    free(list);
    return near;
}

void cm_plan_hint(const struct allowance *a, const char *name, size_t len, struct cm_buf *to)
{
    const char *lead = "; there are ";
    char plain[CM_TOOL_NAME_MAX + 1];
    unsigned said = 0;

    if (!a->set || a->set->count == 0) {
        cm_buf_puts(to, "; there are no tools");
        return;
    }
    snprintf(plain, sizeof plain, "%.*s", (int)(len < CM_TOOL_NAME_MAX ? len : CM_TOOL_NAME_MAX), name);
    const char *near = *plain ? nearest(a, plain) : NULL;
    if (near)
        cm_buf_printf(to, "; did you mean '%s'?", near);
    for (size_t i = 0; !near && i < a->set->count && said <= LISTED_MAX; i++) {
        if (a->chosen && !a->chosen[i])
            continue;
        if (said++ == LISTED_MAX)
            cm_buf_puts(to, ", ...");
        else
            cm_buf_printf(to, "%s'%s'", lead, a->set->tools[i]->name);
        lead = ", ";
    }
}
