/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of tools and the search in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "codemode.pb-c.h"
#include "tools/search.h"
#include "tools/toolset.h"
#include "wire/proto.h"

struct row {
    const char *name, *description, *schema;
    bool is_async, has_context;
};

/* One ListToolsResponse, tool after tool, so that a test can add what no honest service would. */
static void add(struct cm_buf *to, const struct row *row)
{
    Codemode__ToolSchema schema = CODEMODE__TOOL_SCHEMA__INIT;
    Codemode__ToolInfo info = CODEMODE__TOOL_INFO__INIT, *list[] = {&info};
    Codemode__ListToolsResponse response = CODEMODE__LIST_TOOLS_RESPONSE__INIT;

    schema.json_schema = cm_proto_text(row->schema);
    info.name = cm_proto_text(row->name);
    info.description = cm_proto_text(row->description);
    info.is_async = row->is_async;
    info.has_context = row->has_context;
    info.input_schema = row->schema ? &schema : NULL;
    response.tools = list;
    response.n_tools = 1;
    assert_int_equal(cm_proto_pack(&response.base, to), 0);
}

static struct cm_toolset *read_rows(const struct row *rows, size_t count)
{
    struct cm_err err = {0};
    struct cm_buf b;

    cm_buf_init(&b, CM_TOOLS_BYTES_MAX);
    for (size_t i = 0; i < count; i++)
        add(&b, &rows[i]);
    uint8_t *exact = malloc(b.len ? b.len : 1);
    memcpy(exact, cm_buf_data(&b), b.len);
    struct cm_toolset *set = cm_toolset_read(exact, b.len, &err);
    free(exact);
    cm_buf_done(&b);
    if (!set)
        print_error("%s\n", err.text);
    assert_non_null(set);
    return set;
}

#define CITY "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"},\"maxDays\":{\"type\":\"integer\"}}}"

static const struct row some[] = {
    {"get_weather", "Current weather of a place", CITY, false, true},
    {"getForecast", "Weather in the coming days. Forecasts come twice a day", CITY, true, false},
    {"query_database", "Runs one SQL query against the customers' database", NULL, false, false},
    {"send_mail", "Sends a message to an address", "{\"properties\":{\"to\":{},\"body\":{}}}", false, false},
    {"agents.researcher", "Looks for \xc3\x9c\x62\x65rsichten of the weather archive", NULL, true, false},
};

static void reads_a_list(void **state)
{
    struct cm_toolset *set = read_rows(some, 5);

    (void)state;
    assert_int_equal(set->count, 5);
    assert_int_equal(set->left_out, 0);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(cm_toolset_find(set, some[i].name, strlen(some[i].name)), i);
        assert_string_equal(set->tools[i]->name, some[i].name);
        assert_string_equal(set->tools[i]->description, some[i].description);
        assert_int_equal(set->tools[i]->is_async, some[i].is_async);
        assert_int_equal(set->tools[i]->has_context, some[i].has_context);
        assert_null(set->tools[i]->output_schema);
    }
    assert_string_equal(set->tools[0]->input_schema, CITY);
    assert_null(set->tools[2]->input_schema);
    assert_int_equal(cm_toolset_find(set, "get_weathe", 10), -1);
    assert_int_equal(cm_toolset_find(set, "get_weatherr", 12), -1);
    assert_int_equal(cm_toolset_find(set, "", 0), -1);
    assert_ptr_equal(cm_toolset_ref(set), set);
    assert_null(cm_toolset_unref(set));
    assert_int_equal(set->count, 5);
    cm_toolset_unref(set);
    set = read_rows(some, 0);
    assert_int_equal(set->count, 0);
    assert_int_equal(cm_toolset_find(set, "a", 1), -1);
    cm_toolset_unref(set);
}

static void leaves_out_what_cannot_be_a_tool(void **state)
{
    char longest[CM_TOOL_NAME_MAX + 2], longer[CM_TOOL_NAME_MAX + 2];

    memset(longest, 'a', sizeof longest);
    memset(longer, 'b', sizeof longer);
    longest[CM_TOOL_NAME_MAX] = longer[CM_TOOL_NAME_MAX + 1] = '\0';
    const struct row rows[] = {
        {"first", "1", "[]", false, false},         {"", "", NULL, false, false},
        {"__list__", "ours", NULL, false, false},   {"first", "again", NULL, false, false},
        {"line\nfeed", "", NULL, false, false},     {longest, "", "no json", false, false},
        {longer, "", NULL, false, false},           {"last", "", "{}", false, false},
        {"first", "and again", NULL, false, false},
    };
    (void)state;
    struct cm_toolset *set = read_rows(rows, 9);
    assert_int_equal(set->count, 3);
    assert_int_equal(set->left_out, 5); /* hidden names are not worth a word */
    assert_string_equal(set->tools[0]->description, "1");
    assert_null(set->tools[0]->input_schema); /* "[]" is no schema */
    assert_string_equal(set->tools[1]->name, longest);
    assert_null(set->tools[1]->input_schema);
    assert_string_equal(set->tools[2]->input_schema, "{}");
    cm_toolset_unref(set);
}

static void bounds_a_list(void **state)
{
    static char text[3 * CM_TOOL_DESCRIPTION_MAX];
    struct row *rows = calloc(CM_TOOLS_MAX + 7, sizeof *rows);
    char(*names)[16] = calloc(CM_TOOLS_MAX + 7, sizeof *names);
    struct cm_err err;

    (void)state;
    for (size_t i = 0; i < CM_TOOLS_MAX + 7; i++) {
        sprintf(names[i], "tool_%zu", i);
        rows[i].name = names[i];
        rows[i].description = "";
    }
    struct cm_toolset *set = read_rows(rows, CM_TOOLS_MAX + 7);
    assert_int_equal(set->count, CM_TOOLS_MAX);
    assert_int_equal(set->left_out, 7);
    assert_int_equal(cm_toolset_find(set, "tool_9999", 9), 9999);
    assert_int_equal(cm_toolset_find(set, "tool_10000", 10), -1);
    cm_toolset_unref(set);
    for (size_t i = 0; i + 2 < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa9", 2);
    memcpy(text, "x", 1); /* so that the cut falls into a character */
    memcpy(text + 1, "y", 1);
    memmove(text + 1, text + 2, sizeof text - 3);
    rows[0].description = text;
    set = read_rows(rows, 1);
    assert_int_equal(set->tools[0]->description_len, CM_TOOL_DESCRIPTION_MAX - 1);
    cm_toolset_unref(set);
    assert_null(cm_toolset_read((const uint8_t *)text, CM_TOOLS_BYTES_MAX + 1, &err));
    assert_int_equal(err.code, CM_ERR_TOO_LARGE);
    free(rows);
    free(names);
}

static void refuses_broken_lists(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
        {"\x0a", 1},                 /* no length */
        {"\x0a\x05\x0a\x01", 4},     /* too short */
        {"\x08\x01", 2},             /* tools is no number */
        {"\x0a\x03\x0a\x01\xff", 5}, /* name is no UTF-8 */
        {"\x0a\x02\x0a\x05", 4},     /* name is too short */
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},
        {"\x0b", 1}, /* groups are gone */
        {"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10},
    };
    struct cm_err err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint8_t *exact = malloc(bad[i].len);
        memcpy(exact, bad[i].bytes, bad[i].len);
        err.code = 0;
        assert_null(cm_toolset_read(exact, bad[i].len, &err));
        assert_int_equal(err.code, CM_ERR_BAD_FIELD);
        free(exact);
    }
    /* fields of a later version are passed over */
    struct cm_toolset *set =
        cm_toolset_read((const uint8_t *)"\x12\x01x\x18\x01\x25zzzz\x29zzzzzzzz\x0a\x03\x0a\x01q", 24, &err);
    assert_non_null(set);
    assert_int_equal(set->count, 1);
    cm_toolset_unref(set);
}

static void reads_one_tool(void **state)
{
    Codemode__GetToolSchemaResponse r = CODEMODE__GET_TOOL_SCHEMA_RESPONSE__INIT;
    Codemode__ToolSchema schema = CODEMODE__TOOL_SCHEMA__INIT;
    struct cm_err err;
    struct cm_buf b;

    (void)state;
    cm_buf_init(&b, 1000);
    schema.json_schema = cm_proto_text("{\"type\":\"object\"}");
    r.tool_name = cm_proto_text("a");
    r.output_schema = &schema;
    r.has_context = true;
    assert_int_equal(cm_proto_pack(&r.base, &b), 0);
    struct cm_tool *t = cm_tool_read((const uint8_t *)cm_buf_data(&b), b.len, &err);
    assert_non_null(t);
    assert_string_equal(t->output_schema, "{\"type\":\"object\"}");
    assert_null(t->input_schema);
    assert_true(t->has_context);
    free(t);
    assert_null(cm_tool_read((const uint8_t *)"\x0a\x05", 2, &err));
    cm_buf_done(&b);
}

/* "name name ..." of what is found. */
static const char *found(const struct cm_toolset *set, const uint8_t *allowed, const char *query, size_t limit)
{
    static char text[1000];
    struct cm_found rows[CM_SEARCH_MAX];
    long n = cm_search(set, allowed, query, strlen(query), rows, limit);

    assert_true(n >= 0 && (size_t)n <= limit);
    *text = '\0';
    for (long i = 0; i < n; i++) {
        sprintf(text + strlen(text), "%s%s", i ? " " : "", set->tools[rows[i].tool]->name);
        assert_true(i == 0 || rows[i].score <= rows[i - 1].score);
    }
    return text;
}

static void finds_by_words(void **state)
{
    struct cm_toolset *set = read_rows(some, 5);
    static const uint8_t allowed[] = {0, 1, 1, 1, 0};

    (void)state;
    assert_string_equal(found(set, NULL, "weather", 10), "get_weather agents.researcher getForecast");
    assert_string_equal(found(set, NULL, "WEATHER of the city?", 1), "get_weather");
    assert_string_equal(found(set, NULL, "forecast", 10), "getForecast");
    assert_string_equal(found(set, NULL, "forecasts", 10), "getForecast"); /* also in its name, but for the ending */
    assert_string_equal(found(set, NULL, "datab", 10), "query_database");
    assert_string_equal(found(set, NULL, "sql databases", 10), "query_database");
    assert_string_equal(found(set, NULL, "days max", 10), "getForecast get_weather"); /* maxDays is two words */
    assert_string_equal(found(set, NULL, "\xc3\xbc\x62\x65rsichten", 10), "agents.researcher");
    assert_string_equal(found(set, NULL, "researcher", 10), "agents.researcher");
    assert_string_equal(found(set, NULL, "zebra", 10), "");
    assert_string_equal(found(set, NULL, "x", 10), "");
    assert_string_equal(found(set, allowed, "weather", 10), "getForecast");
    assert_string_equal(found(set, NULL, "", 2), "get_weather getForecast");
    assert_string_equal(found(set, allowed, " ... ", 2), "getForecast query_database");
    assert_string_equal(found(set, NULL, "weather", 0), "");
    cm_toolset_unref(set);
    set = read_rows(some, 0);
    assert_string_equal(found(set, NULL, "weather", 10), "");
    cm_toolset_unref(set);
}

static void ranks_the_rare_and_the_short_higher(void **state)
{
    static const struct row rows[] = {
        {"alpha", "common common common common words about nothing in particular that go on and on", NULL, false,
         false},
        {"beta", "common", NULL, false, false},
        {"gamma", "common rare", NULL, false, false},
        {"common", "", NULL, false, false},
    };
    struct cm_toolset *set = read_rows(rows, 4);
    char many[4000] = "";

    (void)state;
    assert_string_equal(found(set, NULL, "common rare", 2), "gamma common");
    for (int i = 0; i < 500; i++)
        strcat(many, "common ");
    strcat(many, "\xff\xc3");
    assert_string_equal(found(set, NULL, many, 1), "common");
    cm_toolset_unref(set);
}

static void folds_words(void **state)
{
    static const char *const cases[][2] = {
        {"getHTTPResponse_v2", " get http response v2 "},
        {"  ", " "},
        {"\xc3\x84\xc3\x9f\xce\xa9\xd0\x96\xd0\x81", " \xc3\xa4\xc3\x9f\xcf\x89\xd0\xb6\xd1\x91 "},
        {"a-b.C", " a b c "},
    };
    struct cm_buf b;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cm_buf_init(&b, 100);
        assert_int_equal(cm_search_fold(&b, cases[i][0], strlen(cases[i][0])), 0);
        assert_string_equal(cm_buf_data(&b), cases[i][1]);
        cm_buf_done(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_list),
        cmocka_unit_test(leaves_out_what_cannot_be_a_tool),
        cmocka_unit_test(bounds_a_list),
        cmocka_unit_test(refuses_broken_lists),
        cmocka_unit_test(reads_one_tool),
        cmocka_unit_test(finds_by_words),
        cmocka_unit_test(ranks_the_rare_and_the_short_higher),
        cmocka_unit_test(folds_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
