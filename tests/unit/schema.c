/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "tools/schema.h"
#include "tools/schema_words.h"
#include "tools/values.h"

/* NULL, or the text of the refusal, for free(). */
static char *refusal(const char *schema, const char *value)
{
    size_t slen = strlen(schema), vlen = strlen(value);
    char *s = malloc(slen), *v = malloc(vlen); /* without a NUL, so that a sanitizer sees a read behind them */
    struct cm_buf why;

    memcpy(s, schema, slen);
    memcpy(v, value, vlen);
    cm_buf_init(&why, 4096);
    bool ok = cm_schema_accepts(s, slen, v, vlen, &why);
    free(s);
    free(v);
    char *text = ok ? NULL : strdup(cm_buf_data(&why));
    assert_true(!ok || why.len == 0);
    cm_buf_done(&why);
    return text;
}

static void expect_ok(const char *schema, const char *value)
{
    char *text = refusal(schema, value);

    if (text)
        print_error("%s against %s: %s\n", value, schema, text);
    assert_null(text);
}

static void expect(const char *schema, const char *value, const char *why)
{
    char *text = refusal(schema, value);

    if (!text)
        print_error("%s fits %s\n", value, schema);
    assert_non_null(text);
    assert_string_equal(text, why);
    free(text);
}

#define OF(x) "{\"type\":\"object\",\"properties\":{\"x\":" x "}}"
#define X(x)  "{\"x\":" x "}"
#define WEATHER                                                                                                        \
    "{\"title\":\"WeatherInput\",\"type\":\"object\",\"properties\":{"                                                 \
    "\"city\":{\"title\":\"City\",\"type\":\"string\",\"description\":\"Name of the city\",\"maxLength\":8},"          \
    "\"days\":{\"title\":\"Days\",\"type\":\"integer\",\"default\":1,\"minimum\":1,\"maximum\":14},"                   \
    "\"unit\":{\"enum\":[\"C\",\"F\"],\"default\":\"C\",\"type\":\"string\"}},\"required\":[\"city\"]}"

static void accepts_what_fits(void **state)
{
    (void)state;
    expect_ok(WEATHER, "{\"city\":\"Rome\"}");
    expect_ok(WEATHER, " { \"unit\" : \"F\" , \"days\" : 14.0 , \"city\" : \"Z\\u00fcrich\" } ");
    expect_ok(WEATHER, "{\"city\":\"Z\\u00fcrich \xc3\xa9\"}"); /* characters count, not bytes */
    expect_ok(WEATHER, "{\"\\u0063ity\":\"Rome\"}");
    expect_ok(WEATHER, "{\"city\":\"Rome\",\"anything_else\":[1]}"); /* neither named nor forbidden */
    expect_ok(OF("{\"type\":[\"string\",\"null\"]}"), X("null"));
    expect_ok(OF("{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"null\"}]}"), X("null"));
    expect_ok(OF("{\"type\":\"string\",\"nullable\":true}"), X("null"));
    expect_ok(OF("{\"type\":\"integer\"}"), X("72.0"));
    expect_ok(OF("{\"type\":\"integer\"}"), X("7.2e1"));
    expect_ok(OF("{\"type\":\"number\",\"multipleOf\":0.1}"), X("0.3"));
    expect_ok(OF("{\"const\":{\"a\":[1,2],\"b\":null}}"), X("{\"b\":null,\"a\":[1.0,2]}"));
    expect_ok(OF("{\"enum\":[\"\\u0041\",2]}"), X("\"A\""));
    expect_ok(OF("{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"}],\"items\":{\"type\":\"integer\"}}"),
              X("[\"a\",1,2]"));
    expect_ok(OF("{\"uniqueItems\":true}"), X("[1,\"1\",[1],{\"a\":1}]"));
    expect_ok(OF("{\"not\":{\"type\":\"string\"}}"), X("1"));
    expect_ok(OF("{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"integer\"}]}"), X("1"));
    expect_ok(OF("{\"allOf\":[{\"minimum\":1},{\"maximum\":3}]}"), X("2"));
    expect_ok(OF("{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}"), X("{\"a\":1,\"b\":2}"));
    expect_ok("true", "{}");
    expect_ok("{}", "{\"a\":1}");
}

static void says_what_is_wrong(void **state)
{
    (void)state;
    expect(WEATHER, "{}", "argument 'city' is missing, wanted a string");
    expect(WEATHER, "{\"city\":5}", "argument 'city': is 5, wanted a string");
    expect(WEATHER, "{\"city\":null}", "argument 'city': is None, wanted a string");
    expect(WEATHER, "{\"city\":\"Rome\",\"days\":\"two\"}", "argument 'days': is \"two\", wanted an integer");
    expect(WEATHER, "{\"city\":\"Rome\",\"days\":1.5}", "argument 'days': is 1.5, wanted an integer");
    expect(WEATHER, "{\"city\":\"Rome\",\"days\":0}", "argument 'days': is 0, must be at least 1");
    expect(WEATHER, "{\"city\":\"Rome\",\"days\":15}", "argument 'days': is 15, must be at most 14");
    expect(WEATHER, "{\"city\":\"Rome\",\"days\":true}", "argument 'days': is True, wanted an integer");
    expect(WEATHER, "{\"city\":\"Rome\",\"unit\":\"K\"}", "argument 'unit': is \"K\", wanted one of \"C\", \"F\"");
    expect(WEATHER, "{\"city\":\"nine char\"}", "argument 'city': is \"nine char\", its length must be at most 8");
    expect(WEATHER, "[]", "arguments: is a list, wanted a dict");
    expect(OF("{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"null\"}]}"), X("\"a\""),
           "argument 'x': is \"a\", wanted an integer or None");
    expect(OF("{\"type\":[\"string\",\"null\"]}"), X("1"), "argument 'x': is 1, wanted a string or None");
    expect(OF("{\"exclusiveMinimum\":0}"), X("0"), "argument 'x': is 0, must be more than 0");
    expect(OF("{\"exclusiveMaximum\":9}"), X("9"), "argument 'x': is 9, must be less than 9");
    expect(OF("{\"multipleOf\":5}"), X("7"), "argument 'x': is 7, must be a multiple of 5");
    expect(OF("{\"minLength\":1}"), X("\"\""), "argument 'x': is \"\", its length must be at least 1");
    expect(OF("{\"minItems\":1}"), X("[]"), "argument 'x': is a list, its length must be at least 1");
    expect(OF("{\"maxItems\":1}"), X("[1,2]"), "argument 'x': is a list, its length must be at most 1");
    expect(OF("{\"uniqueItems\":true}"), X("[{\"a\":1,\"b\":2},{\"b\":2.0,\"a\":1}]"),
           "argument 'x': is a list, its elements must differ from one another");
    expect(OF("{\"items\":{\"type\":\"string\"}}"), X("[\"a\",2]"), "argument 'x[1]': is 2, wanted a string");
    expect(OF("{\"properties\":{\"y\":{\"items\":{\"required\":[\"z\"]}}}}"), X("{\"y\":[{\"z\":1},{}]}"),
           "argument 'x.y[1].z' is missing");
    expect(OF("{\"not\":{\"type\":\"string\"}}"), X("\"a\""), "argument 'x': is \"a\", which is excluded");
    expect(OF("{\"oneOf\":[{\"type\":\"number\"},{\"type\":\"integer\"}]}"), X("1"),
           "argument 'x': is 1, fits more than one form of which it must fit one");
    expect(OF("false"), X("1"), "argument 'x': is 1, which is not allowed here");
    expect(OF("{\"const\":\"a\\nb\"}"), X("1"), "argument 'x': is 1, wanted \"a?b\"");
    expect(OF("{\"minProperties\":1}"), X("{}"), "argument 'x': is a dict, its length must be at least 1");
    expect(OF("{\"maxProperties\":0}"), X("{\"a\":1}"), "argument 'x': is a dict, its length must be at most 0");
}

static void names_every_problem_and_near_names(void **state)
{
    char many[2000] = "{\"city\":\"Rome\"";

    (void)state;
    expect(WEATHER, "{\"citty\":\"Rome\",\"days\":99}",
           "unknown argument 'citty'; did you mean 'city'?\nargument 'days': is 99, must be at most 14\n"
           "argument 'city' is missing, wanted a string");
    expect_ok(WEATHER, "{\"city\":\"Rome\",\"citty\":\"Rome\"}"); /* the near one is there: it is no slip */
    expect("{\"additionalProperties\":false,\"properties\":{\"city\":{}}}", "{\"city\":1,\"country\":2}",
           "unknown argument 'country'");
    expect(OF("{\"additionalProperties\":false,\"properties\":{\"zip\":{}}}"), X("{\"zipp\":2}"),
           "argument 'x': unknown member 'zipp'; did you mean 'zip'?");
    /* names may come from elsewhere: no guess */
    expect_ok("{\"properties\":{\"city\":{}},\"anyOf\":[{\"properties\":{\"citty\":{}}}]}", "{\"citty\":2}");
    for (int i = 0; i < 20; i++)
        sprintf(many + strlen(many), ",\"k%d\":\"x\"", i);
    strcat(many, "}");
    char *text = refusal("{\"additionalProperties\":{\"type\":\"integer\"}}", many);
    assert_non_null(text);
    int lines = 1;
    for (const char *p = text; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 8);
    free(text);
}

/* As Pydantic writes nested models. */
static void follows_references(void **state)
{
    static const char tree[] =
        "{\"$defs\":{\"Node\":{\"properties\":{\"name\":{\"type\":\"string\"},\"children\":{\"items\":{\"$ref\":"
        "\"#/$defs/Node\"},\"type\":\"array\"}},\"required\":[\"name\"],\"type\":\"object\"}},"
        "\"properties\":{\"root\":{\"$ref\":\"#/$defs/Node\"}},\"required\":[\"root\"],\"type\":\"object\"}";
    static const char pet[] =
        "{\"definitions\":{\"a/b~c\":{\"type\":\"object\",\"required\":[\"meow\"]},\"Dog\":{\"type\":\"string\"}},"
        "\"properties\":{\"pet\":{\"anyOf\":[{\"$ref\":\"#/definitions/a~1b~0c\"},{\"$ref\":\"#/definitions/Dog\"}]}}}";

    (void)state;
    expect_ok(tree, "{\"root\":{\"name\":\"a\",\"children\":[{\"name\":\"b\",\"children\":[]}]}}");
    expect(tree, "{\"root\":{\"name\":\"a\",\"children\":[{\"name\":\"b\"},{\"name\":3}]}}",
           "argument 'root.children[1].name': is 3, wanted a string");
    expect_ok(pet, "{\"pet\":\"Rex\"}");
    expect(pet, "{\"pet\":{}}", "argument 'pet.meow' is missing");
    expect(pet, "{\"pet\":1}", "argument 'pet': is 1, wanted a dict or a string");
    expect("{\"properties\":{\"x\":{\"$ref\":\"#\"}},\"required\":[\"x\"]}", "{\"x\":{}}",
           "argument 'x.x' is missing, wanted a fitting value");
}

static void accepts_what_it_does_not_understand(void **state)
{
    (void)state;
    expect_ok(OF("{\"type\":\"file\"}"), X("1"));
    expect_ok(OF("{\"type\":[\"file\",\"string\"]}"), X("1"));
    expect_ok(OF("{\"type\":7,\"minimum\":\"a\",\"required\":3,\"enum\":5,\"anyOf\":{},\"properties\":[]}"),
              X("{\"a\":1}"));
    expect_ok(OF("{\"$ref\":\"http://example.com/schema\"}"), X("1"));
    expect_ok(OF("{\"$ref\":\"#/$defs/Missing\"}"), X("1"));
    expect_ok(OF("{\"pattern\":\"^(a+)+$\",\"format\":\"date\"}"), X("\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab\""));
    expect_ok("[1,2]", "{}");
    expect_ok("\"text\"", "{}");
    expect_ok("not json", "{}");
}

/* Neither a cycle nor a tree of forms that doubles with each step takes time or stack. */
static void gives_up_in_time(void **state)
{
    uint64_t start = cm_clock_ns();
    size_t n = 300000;

    (void)state;
    expect_ok("{\"$ref\":\"#\"}", "{}");
    expect_ok("{\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}},\"$ref\":\"#/$defs/a\"}",
              "1");
    expect_ok("{\"anyOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"}],\"type\":\"string\"}", "\"a\"");
    expect_ok("{\"not\":{\"anyOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"}]}}", "1");
    char *list = malloc(2 * n + 2), *at = list;
    for (size_t i = 0; i < n; i++)
        at += sprintf(at, "%c%zu", i ? ',' : '[', i % 7);
    strcpy(at, "]");
    char *text = refusal("{\"uniqueItems\":true}", list);
    assert_non_null(text); /* found at once */
    free(text);
    free(list);
    list = malloc(8 * n);
    at = list;
    for (size_t i = 0; i < n; i++)
        at += sprintf(at, "%c%zu", i ? ',' : '[', i);
    strcpy(at, "]");
    expect_ok("{\"uniqueItems\":true}", list);
    free(list);
    assert_true(cm_clock_ns() - start < 5 * CM_NS_PER_S); /* endless is what it must not be */
}

/* Each step of a reference reads what the one before has left: short references into deep schemas are dear. */
static void counts_the_steps_of_references(void **state)
{
    char schema[] = "{\"a\":{\"a\":{\"a\":{\"type\":\"string\"}}}}", pointer[] = "\"#/a/a/a\"";
    struct cm_json_value root, ref, found;
    uint64_t work = 3 * sizeof schema;

    (void)state;
    assert_int_equal(cm_json_check(schema, strlen(schema), &root, NULL), 0);
    assert_int_equal(cm_json_check(pointer, strlen(pointer), &ref, NULL), 0);
    found = cm_schema_resolve(&root, &ref, &work);
    assert_int_equal(found.kind, CM_JSON_OBJECT);
    assert_int_equal(work, 3 * sizeof schema - (strlen(schema) + 29 + 23));
    work = strlen(schema) + 10;
    found = cm_schema_resolve(&root, &ref, &work);
    assert_int_equal(found.kind, CM_JSON_ABSENT);
    assert_int_equal(work, 0);
}

struct names {
    char text[200];
};

static void add_name(void *arg, const char *name, size_t len)
{
    struct names *n = arg;

    sprintf(n->text + strlen(n->text), "%.*s;", (int)len, name);
}

static void lists_the_names_of_arguments(void **state)
{
    struct names n = {{0}};

    (void)state;
    cm_schema_names(WEATHER, strlen(WEATHER), add_name, &n);
    assert_string_equal(n.text, "city;days;unit;");
    cm_schema_names("[]", 2, add_name, &n);
    cm_schema_names("{\"properties\":[]}", 17, add_name, &n);
    assert_string_equal(n.text, "city;days;unit;");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_what_fits),
        cmocka_unit_test(says_what_is_wrong),
        cmocka_unit_test(names_every_problem_and_near_names),
        cmocka_unit_test(follows_references),
        cmocka_unit_test(accepts_what_it_does_not_understand),
        cmocka_unit_test(gives_up_in_time),
        cmocka_unit_test(counts_the_steps_of_references),
        cmocka_unit_test(lists_the_names_of_arguments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
