/* SPDX-License-Identifier: Apache-2.0 */
/* The schema is read again for every value that it speaks of, which for the schemas that tools have - some hundred bytes
 * - is faster than making anything of them first. What it costs is counted in bytes read; both that count and the depth
 * are bounded, and a check that meets a bound ends with "fits". */
#include "tools/schema.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "tools/schema_words.h"
#include "tools/values.h"

#define DEPTH_MAX    200 /* schemas inside one another; each takes some 3 KiB of the stack */
#define PROBLEMS_MAX 8
#define REQUIRED_MAX 64 /* names of one `required` that are looked at */
#define APPLIED      64 /* what applying a schema costs, besides its bytes */
#define NAME_COST    4 /* what comparing a byte of two names costs, against reading one */
#define GUESSES_MAX  8 /* names that are compared with all known ones */

#define KEYWORDS(K)                                                                                                    \
    K(TYPE, "type")                                                                                                    \
    K(PROPERTIES, "properties")                                                                                        \
    K(REQUIRED, "required")                                                                                            \
    K(ADDITIONAL, "additionalProperties")                                                                              \
    K(PATTERNS, "patternProperties")                                                                                   \
    K(UNEVALUATED, "unevaluatedProperties")                                                                            \
    K(MIN_PROPERTIES, "minProperties")                                                                                 \
    K(MAX_PROPERTIES, "maxProperties")                                                                                 \
    K(ITEMS, "items")                                                                                                  \
    K(PREFIX_ITEMS, "prefixItems")                                                                                     \
    K(MIN_ITEMS, "minItems")                                                                                           \
    K(MAX_ITEMS, "maxItems")                                                                                           \
    K(UNIQUE_ITEMS, "uniqueItems")                                                                                     \
    K(ENUM, "enum")                                                                                                    \
    K(CONST, "const")                                                                                                  \
    K(MINIMUM, "minimum")                                                                                              \
    K(MAXIMUM, "maximum")                                                                                              \
    K(EXCLUSIVE_MINIMUM, "exclusiveMinimum")                                                                           \
    K(EXCLUSIVE_MAXIMUM, "exclusiveMaximum")                                                                           \
    K(MULTIPLE_OF, "multipleOf")                                                                                       \
    K(MIN_LENGTH, "minLength")                                                                                         \
    K(MAX_LENGTH, "maxLength")                                                                                         \
    K(ANY_OF, "anyOf")                                                                                                 \
    K(ONE_OF, "oneOf")                                                                                                 \
    K(ALL_OF, "allOf")                                                                                                 \
    K(NOT, "not")                                                                                                      \
    K(REF, "$ref")                                                                                                     \
    K(NULLABLE, "nullable")

#define K(name, text) K_##name,
enum { KEYWORDS(K) K_COUNT };
#undef K
#define K(name, text) {text, sizeof(text) - 1},
static const struct {
    const char *text;
    size_t len;
} keyword_names[] = {KEYWORDS(K)};
#undef K

struct keywords {
    struct cm_json_value at[K_COUNT];
};

struct check {
    struct cm_json_value root;
    struct cm_buf *why;
    uint64_t work; /* bytes that may still be read */
    uint64_t say_work; /* the same for the words of a refusal */
    unsigned depth, quiet, problems, guesses;
    bool gave_up;
};

/* One schema against one value. */
struct match {
    struct check *c;
    const struct keywords *k;
    const struct cm_json_value *schema, *value;
    const struct cm_place *place;
};

static bool fits(struct check *c, const struct cm_json_value *schema, const struct cm_json_value *value,
                 const struct cm_place *place);

static bool give_up(struct check *c)
{
    c->gave_up = true;
    return true;
}

static bool spend(struct check *c, uint64_t bytes)
{
    if (bytes >= c->work)
        c->gave_up = true;
    c->work -= bytes < c->work ? bytes : c->work;
    return !c->gave_up;
}

/* Begins the line of a problem; false when nobody will read it. */
static bool tell(struct check *c, const struct cm_place *place)
{
    if (c->quiet || c->gave_up || c->problems++ >= PROBLEMS_MAX)
        return false;
    return (c->why->len == 0 || cm_buf_puts(c->why, "\n") == 0) && cm_say_place(c->why, place) == 0;
}

/* Begins "argument 'x': is 5, ". */
static bool tell_value(const struct match *m)
{
    struct cm_buf *why = m->c->why;

    return tell(m->c, m->place) && cm_buf_puts(why, ": is ") == 0 && cm_say_value(why, m->value) == 0 &&
           cm_buf_puts(why, ", ") == 0;
}

/* Always false, as are its likes. */
static bool refuse(const struct match *m, const char *text)
{
    if (tell_value(m))
        cm_buf_puts(m->c->why, text);
    return false;
}

static bool refuse_kind(const struct match *m)
{
    if (tell_value(m) && cm_buf_puts(m->c->why, "wanted ") == 0)
        cm_say_wanted(m->c->why, &m->c->root, m->schema, &m->c->say_work);
    return false;
}

/* The same with a number of the schema behind the text. */
static bool refuse_bound(const struct match *m, const char *text, int keyword)
{
    const struct cm_json_value *bound = &m->k->at[keyword];
    char words[120];

    snprintf(words, sizeof words, "%s %.*s", text, bound->len < 40 ? (int)bound->len : 40, bound->raw);
    return refuse(m, words);
}

/* Quietly: does it fit? */
static bool would_fit(struct check *c, const struct cm_json_value *schema, const struct cm_json_value *value,
                      const struct cm_place *place)
{
    c->quiet++;
    bool ok = fits(c, schema, value, place);
    c->quiet--;
    return ok;
}

/* Kinds */

static bool is_integer(const struct cm_json_value *value)
{
    double v = cm_json_number(value);

    return isinf(v) || floor(v) == v;
}

/* A name that is no type of JSON Schema accepts. */
static bool is_of_type(const struct cm_json_value *value, struct cm_chars type)
{
    static const struct {
        const char *name;
        enum cm_json_kind kind;
    } types[] = {
        {"string", CM_JSON_STRING}, {"number", CM_JSON_NUMBER}, {"boolean", CM_JSON_BOOL},
        {"array", CM_JSON_ARRAY},   {"object", CM_JSON_OBJECT}, {"null", CM_JSON_NULL},
    };

    if (cm_chars_are(type, "integer"))
        return value->kind == CM_JSON_NUMBER && is_integer(value);
    for (size_t i = 0; i < CM_COUNT_OF(types); i++)
        if (cm_chars_are(type, types[i].name))
            return value->kind == types[i].kind;
    return true;
}

static bool is_of_types(const struct cm_json_value *value, const struct cm_json_value *types)
{
    struct cm_json_value type;
    bool any = types->kind != CM_JSON_ARRAY;

    if (types->kind == CM_JSON_STRING)
        return is_of_type(value, cm_chars_of(types));
    if (!any)
        for (struct cm_members m = cm_elements_of(types); !any && cm_elements_next(&m, &type);)
            any = type.kind != CM_JSON_STRING || is_of_type(value, cm_chars_of(&type));
    return any;
}

static bool is_listed(struct check *c, const struct cm_json_value *list, const struct cm_json_value *value)
{
    struct cm_json_value one;

    for (struct cm_members m = cm_elements_of(list); cm_elements_next(&m, &one);) {
        if (cm_values_equal(&one, value, &c->work))
            return true;
        if (c->work == 0)
            return give_up(c);
    }
    return false;
}

static bool fits_kind(const struct match *m)
{
    const struct cm_json_value *k = m->k->at;

    if (k[K_TYPE].kind != CM_JSON_ABSENT && !is_of_types(m->value, &k[K_TYPE]))
        return refuse_kind(m);
    if (k[K_ENUM].kind == CM_JSON_ARRAY && !is_listed(m->c, &k[K_ENUM], m->value))
        return refuse_kind(m);
    if (k[K_CONST].kind == CM_JSON_ABSENT || cm_values_equal(&k[K_CONST], m->value, &m->c->work))
        return true;
    return m->c->work == 0 ? give_up(m->c) : refuse_kind(m);
}

/* Numbers, texts, lists */

/* False where the schema has no such bound. */
static bool bound(const struct match *m, int keyword, double *ret)
{
    const struct cm_json_value *v = &m->k->at[keyword];

    *ret = v->kind == CM_JSON_NUMBER ? cm_json_number(v) : HUGE_VAL;
    return isfinite(*ret);
}

/* 0.3 counts as a multiple of 0.1. */
static bool is_multiple(double v, double of)
{
    double times = v / of;

    return !isfinite(times) || fabs(times - round(times)) <= 1e-9 * fmax(1, fabs(times));
}

static bool fits_number(const struct match *m)
{
    double v = cm_json_number(m->value), b;

    if (!isfinite(v))
        return true;
    if (bound(m, K_MINIMUM, &b) && v < b)
        return refuse_bound(m, "must be at least", K_MINIMUM);
    if (bound(m, K_MAXIMUM, &b) && v > b)
        return refuse_bound(m, "must be at most", K_MAXIMUM);
    if (bound(m, K_EXCLUSIVE_MINIMUM, &b) && v <= b)
        return refuse_bound(m, "must be more than", K_EXCLUSIVE_MINIMUM);
    if (bound(m, K_EXCLUSIVE_MAXIMUM, &b) && v >= b)
        return refuse_bound(m, "must be less than", K_EXCLUSIVE_MAXIMUM);
    if (bound(m, K_MULTIPLE_OF, &b) && b > 0 && !is_multiple(v, b))
        return refuse_bound(m, "must be a multiple of", K_MULTIPLE_OF);
    return true;
}

static bool fits_string(const struct match *m)
{
    double least, most;
    bool has_least = bound(m, K_MIN_LENGTH, &least), has_most = bound(m, K_MAX_LENGTH, &most);

    if (!has_least && !has_most)
        return true;
    double n = (double)cm_chars_count(cm_chars_of(m->value));
    if (has_least && n < least)
        return refuse_bound(m, "its length must be at least", K_MIN_LENGTH);
    if (has_most && n > most)
        return refuse_bound(m, "its length must be at most", K_MAX_LENGTH);
    return true;
}

static bool are_unique(struct check *c, const struct cm_json_value *array)
{
    struct cm_json_value a, b;

    for (struct cm_members m = cm_elements_of(array); cm_elements_next(&m, &a);)
        for (struct cm_members rest = m; cm_elements_next(&rest, &b);) {
            if (cm_values_equal(&a, &b, &c->work))
                return false;
            if (!spend(c, APPLIED))
                return true;
        }
    return true;
}

/* The schema of the next element, or false when none speaks of it. `first` walks over `prefixItems`. */
static bool element_schema(const struct match *m, struct cm_members *first, struct cm_json_value *ret)
{
    const struct cm_json_value *items = &m->k->at[K_ITEMS];

    if (first->at && cm_elements_next(first, ret))
        return true;
    *ret = *items;
    return items->kind == CM_JSON_OBJECT || items->kind == CM_JSON_BOOL;
}

static struct cm_members prefix_of(const struct match *m)
{
    const struct cm_json_value *prefix = &m->k->at[K_PREFIX_ITEMS], *items = &m->k->at[K_ITEMS];

    if (prefix->kind == CM_JSON_ARRAY)
        return cm_elements_of(prefix);
    return items->kind == CM_JSON_ARRAY ? cm_elements_of(items) : (struct cm_members){0}; /* draft 7 */
}

static bool fits_array(const struct match *m)
{
    struct cm_members all = cm_elements_of(m->value), prefix = prefix_of(m);
    struct cm_json_value value, schema;
    size_t n = 0;
    double b;
    bool ok = true;

    if (!spend(m->c, m->value->len))
        return true;
    for (; (ok || !m->c->quiet) && !m->c->gave_up && cm_elements_next(&all, &value); n++) {
        struct cm_place place = {m->place, {0}, n};
        if (element_schema(m, &prefix, &schema))
            ok &= fits(m->c, &schema, &value, &place);
    }
    if (!ok)
        return false;
    if (bound(m, K_MIN_ITEMS, &b) && (double)n < b)
        return refuse_bound(m, "its length must be at least", K_MIN_ITEMS);
    if (bound(m, K_MAX_ITEMS, &b) && (double)n > b)
        return refuse_bound(m, "its length must be at most", K_MAX_ITEMS);
    const struct cm_json_value *unique = &m->k->at[K_UNIQUE_ITEMS];
    if (unique->kind == CM_JSON_BOOL && unique->raw[0] == 't' && !are_unique(m->c, m->value))
        return refuse(m, "its elements must differ from one another");
    return true;
}

/* Objects */

struct required {
    struct cm_chars names[REQUIRED_MAX];
    uint64_t missing; /* a bit for each */
    unsigned count;
};

static void read_required(const struct match *m, struct required *r)
{
    const struct cm_json_value *list = &m->k->at[K_REQUIRED];
    struct cm_json_value name;

    r->missing = r->count = 0;
    if (list->kind != CM_JSON_ARRAY)
        return;
    for (struct cm_members e = cm_elements_of(list); r->count < REQUIRED_MAX && cm_elements_next(&e, &name);) {
        if (name.kind != CM_JSON_STRING)
            continue;
        r->missing |= UINT64_C(1) << r->count;
        r->names[r->count++] = cm_chars_of(&name);
    }
}

static void note_present(struct required *r, struct cm_chars name)
{
    for (unsigned i = 0; i < r->count; i++)
        if (r->missing >> i & 1 && cm_chars_equal(r->names[i], name))
            r->missing &= ~(UINT64_C(1) << i);
}

static bool find_property(const struct match *m, struct cm_chars name, struct cm_json_value *ret)
{
    const struct cm_json_value *properties = &m->k->at[K_PROPERTIES];
    struct cm_chars at;

    if (properties->kind != CM_JSON_OBJECT || !spend(m->c, properties->len))
        return false;
    for (struct cm_members p = cm_members_of(properties); cm_members_next(&p, &at, ret);)
        if (cm_chars_equal(at, name))
            return true;
    return false;
}

static bool has_member(const struct cm_json_value *object, struct cm_chars name)
{
    struct cm_json_value value;
    struct cm_chars at;

    for (struct cm_members m = cm_members_of(object); cm_members_next(&m, &at, &value);)
        if (cm_chars_equal(at, name))
            return true;
    return false;
}

/* "unknown argument 'citty'; did you mean 'city'?" */
static bool refuse_unknown(const struct match *m, struct cm_chars name)
{
    struct check *c = m->c;
    struct cm_chars near;

    if (c->quiet || c->gave_up || c->problems++ >= PROBLEMS_MAX)
        return false;
    if (c->why->len > 0)
        cm_buf_puts(c->why, "\n");
    if (m->place->up && cm_say_place(c->why, m->place) == 0)
        cm_buf_puts(c->why, ": ");
    cm_buf_puts(c->why, m->place->up ? "unknown member '" : "unknown argument '");
    cm_chars_put(c->why, name, 60);
    cm_buf_puts(c->why, "'");
    if (cm_near_name(&m->k->at[K_PROPERTIES], name, &near)) {
        cm_buf_puts(c->why, "; did you mean '");
        cm_chars_put(c->why, near, 60);
        cm_buf_puts(c->why, "'?");
    }
    return false;
}

/* The schema says all that there is to say about names: a slip can be told from an argument that it passes over. */
static bool names_are_plain(const struct match *m)
{
    static const int others[] = {K_ADDITIONAL, K_PATTERNS, K_UNEVALUATED, K_ANY_OF, K_ONE_OF, K_ALL_OF, K_REF};

    if (m->place->up)
        return false;
    for (size_t i = 0; i < CM_COUNT_OF(others); i++)
        if (m->k->at[others[i]].kind != CM_JSON_ABSENT)
            return false;
    return true;
}

/* A member that `properties` does not name. */
static bool fits_additional(const struct match *m, struct cm_chars name, const struct cm_json_value *value,
                            const struct cm_place *place)
{
    const struct cm_json_value *additional = &m->k->at[K_ADDITIONAL];
    struct cm_chars near;

    if (m->k->at[K_PATTERNS].kind != CM_JSON_ABSENT)
        return true;
    if (additional->kind == CM_JSON_BOOL && additional->raw[0] == 'f')
        return refuse_unknown(m, name);
    if (additional->kind == CM_JSON_OBJECT)
        return fits(m->c, additional, value, place);
    if (names_are_plain(m) && m->c->guesses++ < GUESSES_MAX && cm_near_name(&m->k->at[K_PROPERTIES], name, &near) &&
        !has_member(m->value, near))
        return refuse_unknown(m, name);
    return true;
}

/* "argument 'city' is missing, wanted a string" */
static bool refuse_missing(const struct match *m, struct cm_chars name)
{
    struct cm_place place = {m->place, name, 0};
    struct cm_json_value schema;
    struct check *c = m->c;

    if (!tell(c, &place))
        return false;
    cm_buf_puts(c->why, " is missing");
    if (find_property(m, name, &schema) && cm_buf_puts(c->why, ", wanted ") == 0)
        cm_say_wanted(c->why, &c->root, &schema, &c->say_work);
    return false;
}

static bool fits_object(const struct match *m)
{
    struct cm_members all = cm_members_of(m->value);
    struct cm_json_value value, schema;
    struct required required;
    struct cm_chars name;
    size_t n = 0;
    double b;
    bool ok = true;

    if (!spend(m->c, m->value->len))
        return true;
    read_required(m, &required);
    for (; (ok || !m->c->quiet) && !m->c->gave_up && cm_members_next(&all, &name, &value); n++) {
        struct cm_place place = {m->place, name, 0};
        if (!spend(m->c, required.count * NAME_COST * ((size_t)(name.end - name.at) + 1)))
            return true;
        note_present(&required, name);
        ok &= find_property(m, name, &schema) ? fits(m->c, &schema, &value, &place)
                                              : fits_additional(m, name, &value, &place);
    }
    if (m->c->gave_up)
        return true;
    for (unsigned i = 0; i < required.count; i++)
        if (required.missing >> i & 1)
            ok = refuse_missing(m, required.names[i]);
    if (!ok)
        return false;
    if (bound(m, K_MIN_PROPERTIES, &b) && (double)n < b)
        return refuse_bound(m, "its length must be at least", K_MIN_PROPERTIES);
    if (bound(m, K_MAX_PROPERTIES, &b) && (double)n > b)
        return refuse_bound(m, "its length must be at most", K_MAX_PROPERTIES);
    return true;
}

/* Forms */

static bool type_fits(struct check *c, const struct cm_json_value *schema, const struct cm_json_value *value)
{
    struct cm_json_value type, ref = cm_member(schema, "$ref");

    if (!spend(c, schema->len))
        return false;
    struct cm_json_value at = ref.kind == CM_JSON_STRING ? cm_schema_resolve(&c->root, &ref, &c->work) : *schema;
    type = cm_member(&at, "type");
    return type.kind == CM_JSON_ABSENT || is_of_types(value, &type);
}

/* When one form alone is of the value's kind, it is the one that was meant. */
static bool refuse_forms(const struct match *m, const struct cm_json_value *list)
{
    struct cm_json_value form, meant = {CM_JSON_ABSENT, NULL, 0};
    unsigned n = 0;

    if (m->c->quiet)
        return false;
    for (struct cm_members e = cm_elements_of(list); cm_elements_next(&e, &form);)
        if (type_fits(m->c, &form, m->value)) {
            meant = form;
            n++;
        }
    return n == 1 ? fits(m->c, &meant, m->value, m->place) : refuse_kind(m);
}

static bool fits_forms(const struct match *m, int keyword)
{
    const struct cm_json_value *list = &m->k->at[keyword];
    struct cm_json_value form;
    unsigned n = 0;

    if (list->kind != CM_JSON_ARRAY)
        return true;
    for (struct cm_members e = cm_elements_of(list); cm_elements_next(&e, &form) && !m->c->gave_up;) {
        n += would_fit(m->c, &form, m->value, m->place);
        if (n > 0 && keyword == K_ANY_OF)
            return true;
    }
    if (n == 1 || m->c->gave_up)
        return true;
    return n == 0 ? refuse_forms(m, list) : refuse(m, "fits more than one form of which it must fit one");
}

static bool fits_all(const struct match *m)
{
    const struct cm_json_value *list = &m->k->at[K_ALL_OF];
    struct cm_json_value form;
    bool ok = true;

    if (list->kind != CM_JSON_ARRAY)
        return true;
    for (struct cm_members e = cm_elements_of(list); (ok || !m->c->quiet) && cm_elements_next(&e, &form);)
        ok &= fits(m->c, &form, m->value, m->place);
    return ok;
}

static bool fits_not(const struct match *m)
{
    const struct cm_json_value *not = &m->k->at[K_NOT];

    if (not->kind == CM_JSON_ABSENT || !would_fit(m->c, not, m->value, m->place) || m->c->gave_up)
        return true;
    return refuse(m, "which is excluded");
}

static bool fits_ref(const struct match *m)
{
    const struct cm_json_value *ref = &m->k->at[K_REF];

    if (ref->kind == CM_JSON_ABSENT)
        return true;
    struct cm_json_value schema = cm_schema_resolve(&m->c->root, ref, &m->c->work);
    if (m->c->work == 0)
        return give_up(m->c);
    return schema.kind == CM_JSON_ABSENT || fits(m->c, &schema, m->value, m->place);
}

static bool fits_content(const struct match *m)
{
    switch (m->value->kind) {
    case CM_JSON_NUMBER:
        return fits_number(m);
    case CM_JSON_STRING:
        return fits_string(m);
    case CM_JSON_ARRAY:
        return fits_array(m);
    case CM_JSON_OBJECT:
        return fits_object(m);
    default:
        return true;
    }
}

/* A keyword that is written with an escape is none that anybody writes. */
static void read_keywords(const struct cm_json_value *schema, struct keywords *k)
{
    struct cm_json_value value;
    struct cm_chars name;

    memset(k, 0, sizeof *k);
    for (struct cm_members m = cm_members_of(schema); cm_members_next(&m, &name, &value);)
        for (size_t i = 0; i < K_COUNT; i++)
            if ((size_t)(name.end - name.at) == keyword_names[i].len &&
                memcmp(name.at, keyword_names[i].text, keyword_names[i].len) == 0)
                k->at[i] = value;
}

static bool fits_keywords(struct check *c, const struct cm_json_value *schema, const struct cm_json_value *value,
                          const struct cm_place *place)
{
    struct keywords k;
    struct match m = {c, &k, schema, value, place};

    read_keywords(schema, &k);
    if (value->kind == CM_JSON_NULL && k.at[K_NULLABLE].kind == CM_JSON_BOOL && k.at[K_NULLABLE].raw[0] == 't')
        return true;
    return fits_ref(&m) && fits_kind(&m) && fits_content(&m) && fits_forms(&m, K_ANY_OF) && fits_forms(&m, K_ONE_OF) &&
           fits_all(&m) && fits_not(&m);
}

static bool fits(struct check *c, const struct cm_json_value *schema, const struct cm_json_value *value,
                 const struct cm_place *place)
{
    struct match m = {c, NULL, schema, value, place};

    if (schema->kind == CM_JSON_BOOL)
        return schema->raw[0] == 't' || refuse(&m, "which is not allowed here");
    if (schema->kind != CM_JSON_OBJECT || c->gave_up || !spend(c, schema->len + APPLIED))
        return true;
    if (c->depth == DEPTH_MAX)
        return give_up(c);
    c->depth++;
    bool ok = fits_keywords(c, schema, value, place);
    c->depth--;
    return ok;
}

/* Checked before: this only finds the kind, and takes the blanks off. */
static struct cm_json_value whole(const char *text, size_t len)
{
    struct cm_json_value value;

    if (cm_json_check(text, len, &value, NULL) < 0)
        value.kind = CM_JSON_ABSENT;
    return value;
}

bool cm_schema_accepts(const char *schema, size_t schema_len, const char *value, size_t value_len, struct cm_buf *why)
{
    struct check c = {
        .root = whole(schema, schema_len), .why = why, .work = CM_SCHEMA_WORK_MAX, .say_work = CM_SCHEMA_WORK_MAX};
    struct cm_json_value v = whole(value, value_len);
    size_t before = why->len;
    struct cm_place top = {0};

    if (c.root.kind == CM_JSON_ABSENT || v.kind == CM_JSON_ABSENT || fits(&c, &c.root, &v, &top) || c.gave_up) {
        if (why->len > before) /* a check that gave up after a problem */
            why->mem[why->off + before] = '\0';
        why->len = before;
        return true;
    }
    return false;
}

void cm_schema_names(const char *schema, size_t len, void (*each)(void *arg, const char *name, size_t len), void *arg)
{
    struct cm_json_value root = whole(schema, len), properties, value;
    struct cm_chars name;

    properties = root.kind == CM_JSON_OBJECT ? cm_member(&root, "properties") : root;
    if (properties.kind != CM_JSON_OBJECT)
        return;
    for (struct cm_members m = cm_members_of(&properties); cm_members_next(&m, &name, &value);)
        each(arg, name.at, (size_t)(name.end - name.at));
}
