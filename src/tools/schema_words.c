/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/schema_words.h"

#include <string.h>

#include "base/buf.h"
#include "base/words.h"

#define QUOTED_MAX  40 /* characters of a text that is quoted */
#define LISTED_MAX  12 /* values of an enum, forms of an anyOf */
#define FORMS_MAX   24 /* of schemas that one line names */
#define LOOKS       6  /* times that a schema is read to say what it wants */
#define NEAR_MAX    128 /* names that are compared */
#define NEAR_LENGTH 64

/* References */

static bool spend(uint64_t *work, size_t bytes)
{
    *work -= bytes < *work ? bytes : *work;
    return *work > 0;
}

/* One step of a JSON pointer: "~1" is a slash, "~0" a tilde. */
static int32_t next_of_step(struct cm_chars *s)
{
    int32_t c = cm_chars_next(s);

    return c == '~' ? (cm_chars_next(s) == '1' ? '/' : '~') : c;
}

static bool is_step(struct cm_chars name, struct cm_chars step)
{
    int32_t c;

    while ((c = cm_chars_next(&name)) == next_of_step(&step))
        if (c < 0)
            return true;
    return false;
}

static struct cm_json_value follow(const struct cm_json_value *at, struct cm_chars step)
{
    struct cm_json_value value, found = {CM_JSON_ABSENT, NULL, 0};
    struct cm_chars name;

    if (at->kind != CM_JSON_OBJECT)
        return found;
    for (struct cm_members m = cm_members_of(at); cm_members_next(&m, &name, &value);)
        if (is_step(name, step))
            found = value;
    return found;
}

struct cm_json_value cm_schema_resolve(const struct cm_json_value *root, const struct cm_json_value *ref,
                                       uint64_t *work)
{
    const struct cm_json_value none = {CM_JSON_ABSENT, NULL, 0};
    struct cm_json_value at = *root;

    if (ref->kind != CM_JSON_STRING)
        return none;
    struct cm_chars path = cm_chars_of(ref);
    if (cm_chars_next(&path) != '#')
        return none;
    while (path.at < path.end && at.kind != CM_JSON_ABSENT) {
        if (cm_chars_next(&path) != '/' || !spend(work, at.len))
            return none;
        const char *slash = memchr(path.at, '/', (size_t)(path.end - path.at));
        struct cm_chars step = {path.at, slash ? slash : path.end};
        at = follow(&at, step);
        path.at = step.end;
    }
    return at;
}

/* Saying */

static int put_place(struct cm_buf *to, const struct cm_place *place)
{
    if (!place->up)
        return 0;
    int rc = put_place(to, place->up);
    if (rc < 0)
        return rc;
    if (!place->name.at)
        return cm_buf_printf(to, "[%zu]", place->index);
    if (place->up->up && (rc = cm_buf_puts(to, ".")) < 0)
        return rc;
    return cm_chars_put(to, place->name, QUOTED_MAX);
}

int cm_say_place(struct cm_buf *to, const struct cm_place *place)
{
    int rc;

    if (!place->up)
        return cm_buf_puts(to, "arguments");
    if ((rc = cm_buf_puts(to, "argument '")) < 0 || (rc = put_place(to, place)) < 0)
        return rc;
    return cm_buf_puts(to, "'");
}

int cm_say_value(struct cm_buf *to, const struct cm_json_value *value)
{
    int rc;

    switch (value->kind) {
    case CM_JSON_NULL:
        return cm_buf_puts(to, "None");
    case CM_JSON_BOOL:
        return cm_buf_puts(to, value->raw[0] == 't' ? "True" : "False");
    case CM_JSON_NUMBER:
        return cm_buf_append(to, value->raw, value->len < QUOTED_MAX ? value->len : QUOTED_MAX);
    case CM_JSON_STRING:
        if ((rc = cm_buf_puts(to, "\"")) < 0 || (rc = cm_chars_put(to, cm_chars_of(value), QUOTED_MAX)) < 0)
            return rc;
        return cm_buf_puts(to, "\"");
    case CM_JSON_ARRAY:
        return cm_buf_puts(to, "a list");
    case CM_JSON_OBJECT:
        return cm_buf_puts(to, "a dict");
    default:
        return 0;
    }
}

static int say_type(struct cm_buf *to, struct cm_chars type)
{
    static const char *const words[][2] = {
        {"string", "a string"}, {"integer", "an integer"}, {"number", "a number"}, {"boolean", "True or False"},
        {"array", "a list"},    {"object", "a dict"},      {"null", "None"},
    };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (cm_chars_are(type, words[i][0]))
            return cm_buf_puts(to, words[i][1]);
    return cm_chars_put(to, type, QUOTED_MAX);
}

struct sayer {
    struct cm_buf *to;
    const struct cm_json_value *root;
    unsigned left; /* forms that may still be said: references make short schemas endless */
    uint64_t *work;
};

static int say(struct sayer *s, const struct cm_json_value *schema);

static int say_element(struct sayer *s, const struct cm_json_value *value, char what)
{
    if (what == 'v')
        return cm_say_value(s->to, value);
    if (what == 's')
        return say(s, value);
    return value->kind == CM_JSON_STRING ? say_type(s->to, cm_chars_of(value)) : 0;
}

/* `what` the elements are: v values, s schemas, t types. */
static int say_list(struct sayer *s, const struct cm_json_value *list, const char *between, char what)
{
    struct cm_members m = cm_elements_of(list);
    struct cm_json_value value;
    int rc = 0;

    for (unsigned n = 0; rc == 0 && cm_elements_next(&m, &value); n++) {
        if (n > 0 && (rc = cm_buf_puts(s->to, between)) < 0)
            return rc;
        if (n == LISTED_MAX)
            return cm_buf_puts(s->to, "...");
        rc = say_element(s, &value, what);
    }
    return rc;
}

static int say_type_or_title(struct sayer *s, const struct cm_json_value *schema)
{
    struct cm_json_value type = cm_member(schema, "type");
    struct cm_json_value title = cm_member(schema, "title");

    if (type.kind == CM_JSON_STRING)
        return say_type(s->to, cm_chars_of(&type));
    if (type.kind == CM_JSON_ARRAY)
        return say_list(s, &type, " or ", 't');
    if (title.kind == CM_JSON_STRING)
        return cm_chars_put(s->to, cm_chars_of(&title), QUOTED_MAX);
    return cm_buf_puts(s->to, "a fitting value");
}

static int say(struct sayer *s, const struct cm_json_value *schema)
{
    struct cm_json_value v;
    int rc;

    if (s->left == 0 || schema->kind != CM_JSON_OBJECT || !spend(s->work, LOOKS * schema->len))
        return cm_buf_puts(s->to, "a fitting value");
    s->left--;
    if ((v = cm_member(schema, "const")).kind != CM_JSON_ABSENT)
        return cm_say_value(s->to, &v);
    if ((v = cm_member(schema, "enum")).kind == CM_JSON_ARRAY)
        return (rc = cm_buf_puts(s->to, "one of ")) < 0 ? rc : say_list(s, &v, ", ", 'v');
    if ((v = cm_member(schema, "anyOf")).kind == CM_JSON_ARRAY ||
        (v = cm_member(schema, "oneOf")).kind == CM_JSON_ARRAY)
        return say_list(s, &v, " or ", 's');
    if ((v = cm_member(schema, "$ref")).kind == CM_JSON_STRING) {
        v = cm_schema_resolve(s->root, &v, s->work);
        return say(s, &v);
    }
    return say_type_or_title(s, schema);
}

int cm_say_wanted(struct cm_buf *to, const struct cm_json_value *root, const struct cm_json_value *schema,
                  uint64_t *work)
{
    struct sayer s = {to, root, FORMS_MAX, work};

    return say(&s, schema);
}

/* Near names */

static bool put_word(char *to, struct cm_chars name)
{
    struct cm_buf b = {.mem = to, .cap = NEAR_LENGTH, .max = NEAR_LENGTH};

    *to = '\0';
    return cm_chars_put(&b, name, NEAR_LENGTH) == 0;
}

bool cm_near_name(const struct cm_json_value *properties, struct cm_chars name, struct cm_chars *ret)
{
    char words[NEAR_MAX + 1][NEAR_LENGTH + 1];
    struct cm_chars at, names[NEAR_MAX];
    const char *list[NEAR_MAX + 1];
    struct cm_json_value value;
    size_t n = 0;

    if (properties->kind != CM_JSON_OBJECT || !put_word(words[NEAR_MAX], name))
        return false;
    for (struct cm_members m = cm_members_of(properties); n < NEAR_MAX && cm_members_next(&m, &at, &value);) {
        names[n] = at;
        list[n] = words[n];
        n += put_word(words[n], at);
    }
    list[n] = NULL;
    const char *near = cm_word_nearest(words[NEAR_MAX], list);
    for (size_t i = 0; near && i < n; i++)
        if (list[i] == near)
            *ret = names[i];
    return near != NULL;
}
