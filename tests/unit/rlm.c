/* SPDX-License-Identifier: Apache-2.0 */
/* What replies hold, what outputs look like, and the prompts: the cases of rlm/cases, which the Python library's tests read, too. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "llm/llm.h"
#include "rlm/gate.h"
#include "rlm/history.h"
#include "rlm/output.h"
#include "rlm/parts.h"
#include "rlm/prompts.h"
#include "rlm/reply.h"
#include "rlm/usage.h"
#include "wire/json.h"

uint64_t cm_llm_estimate(const char *text, size_t len)
{
    return (cm_utf8_count(text, len) + 3) / 4;
}

/* Cases */

static char *read_file(const char *name, size_t *ret_len)
{
    char path[4096];

    snprintf(path, sizeof path, "%s/%s", getenv("CM_RLM"), name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    char *text = calloc(1, 1 << 20);
    ssize_t n = read(fd, text, 1 << 20);
    assert_true(n > 0 && n < 1 << 20);
    close(fd);
    *ret_len = (size_t)n;
    return text;
}

static char *text_of(struct cm_json_value *v)
{
    size_t len;

    assert_int_equal(v->kind, CM_JSON_STRING);
    assert_true(cm_json_decode(v, &len));
    return strndup(v->raw, len);
}

struct expected {
    struct cm_reply *reply;
    const char *name;
    size_t next;
};

static bool check_block(void *arg, struct cm_json_value *value)
{
    struct expected *e = arg;
    char *code = text_of(value);

    if (e->next >= e->reply->count || strcmp(code, e->reply->blocks[e->next].code) != 0)
        fail_msg("%s: block %zu is %s", e->name, e->next,
                 e->next < e->reply->count ? e->reply->blocks[e->next].code : "missing");
    assert_int_equal(strlen(code), e->reply->blocks[e->next].len);
    e->next++;
    free(code);
    return true;
}

static void check_final(struct cm_json_value *v, const struct cm_reply *r, const char *name)
{
    struct cm_json_member members[] = {{.name = "text"}, {.name = "variable"}};

    if (v->kind != CM_JSON_OBJECT) {
        if (r->final != CM_FINAL_NONE)
            fail_msg("%s: an answer that is none: %s", name, r->value);
        return;
    }
    assert_int_equal(cm_json_object(v->raw, v->len, members, 2, NULL), 0);
    bool variable = members[1].value.kind != CM_JSON_ABSENT;
    char *text = text_of(&members[variable].value);
    if (r->final == CM_FINAL_NONE || strcmp(text, r->value) != 0 || strlen(text) != r->value_len)
        fail_msg("%s: the answer is %s", name, r->value ? r->value : "missing");
    assert_int_equal(r->final, variable ? CM_FINAL_VARIABLE : CM_FINAL_TEXT);
    free(text);
}

static size_t cases;

static bool check_reply(void *arg, struct cm_json_value *value)
{
    struct cm_json_member m[] = {
        {.name = "name"}, {.name = "reply"}, {.name = "blocks"}, {.name = "final"}, {.name = "unclosed"}};
    struct cm_reply r = {0};

    (void)arg;
    assert_int_equal(cm_json_object(value->raw, value->len, m, 5, NULL), 0);
    char *name = text_of(&m[0].value), *reply = text_of(&m[1].value);
    size_t len = strlen(reply);
    char *exact = malloc(len ? len : 1); /* so that a read beyond its end is seen */
    memcpy(exact, reply, len);
    assert_int_equal(cm_reply_read(exact, len, &r), 0);
    struct expected e = {&r, name, 0};
    cm_json_elements(&m[2].value, check_block, &e);
    if (e.next != r.count)
        fail_msg("%s: %zu blocks", name, r.count);
    check_final(&m[3].value, &r, name);
    if (r.unclosed != (m[4].value.kind == CM_JSON_BOOL))
        fail_msg("%s: unclosed", name);
    cm_reply_done(&r);
    free(exact);
    free(name);
    free(reply);
    cases++;
    return true;
}

static void reads_replies(void **state)
{
    struct cm_json_value all;
    size_t len;
    char *json = read_file("cases/replies.json", &len);

    (void)state;
    cases = 0;
    assert_int_equal(cm_json_check(json, len, &all, NULL), 0);
    cm_json_elements(&all, check_reply, NULL);
    assert_true(cases >= 60);
    free(json);
}

static void reads_only_so_many_blocks(void **state)
{
    struct cm_reply r = {0};
    struct cm_buf text;

    (void)state;
    cm_buf_init(&text, 1 << 20);
    for (int i = 0; i < 3 * CM_REPLY_BLOCKS_MAX; i++)
        assert_int_equal(cm_buf_printf(&text, "FINAL(\n```repl\nx = %d\n```\n", i), 0);
    assert_int_equal(cm_reply_read(cm_buf_data(&text), text.len, &r), 0);
    assert_int_equal(r.count, CM_REPLY_BLOCKS_MAX);
    assert_string_equal(r.blocks[CM_REPLY_BLOCKS_MAX - 1].code, "x = 99");
    assert_int_equal(r.final, CM_FINAL_NONE);
    cm_reply_done(&r);
    cm_buf_done(&text);
}

/* Outputs */

/* A text, a list of its parts, or a part that repeats. */
static void put_case_text(struct cm_buf *to, struct cm_json_value *v);

static bool put_case_part(void *arg, struct cm_json_value *v)
{
    put_case_text(arg, v);
    return true;
}

static void put_case_text(struct cm_buf *to, struct cm_json_value *v)
{
    struct cm_json_member m[] = {{.name = "repeat"}, {.name = "times"}};

    if (v->kind == CM_JSON_ARRAY) {
        cm_json_elements(v, put_case_part, to);
    } else if (v->kind == CM_JSON_OBJECT) {
        assert_int_equal(cm_json_object(v->raw, v->len, m, 2, NULL), 0);
        int times = (int)cm_json_number(&m[1].value);
        char *text = text_of(&m[0].value);
        for (int i = 0; i < times; i++)
            assert_int_equal(cm_buf_puts(to, text), 0);
        free(text);
    } else if (v->kind == CM_JSON_STRING) {
        char *text = text_of(v);
        assert_int_equal(cm_buf_puts(to, text), 0);
        free(text);
    }
}

static bool put_case_name(void *arg, struct cm_json_value *v)
{
    struct cm_buf *to = arg;
    char *name = text_of(v);

    assert_int_equal(cm_buf_printf(to, "%s%s", to->len ? ", " : "", name), 0);
    free(name);
    return true;
}

struct outputs {
    struct cm_buf *to;
    unsigned number; /* of the next block, 0: it is the only one */
};

static bool put_case_block(void *arg, struct cm_json_value *v)
{
    struct cm_json_member m[] = {
        {.name = "stdout"}, {.name = "value"}, {.name = "stderr"}, {.name = "error"}, {.name = "variables"}};
    struct outputs *o = arg;
    struct cm_buf texts[5];

    assert_int_equal(cm_json_object(v->raw, v->len, m, 5, NULL), 0);
    for (int i = 0; i < 5; i++)
        cm_buf_init(&texts[i], 1 << 20);
    for (int i = 0; i < 4; i++)
        put_case_text(&texts[i], &m[i].value);
    if (m[4].value.kind == CM_JSON_ARRAY)
        cm_json_elements(&m[4].value, put_case_name, &texts[4]);
    struct cm_output out = {
        .out = {cm_buf_data(&texts[0]), texts[0].len},
        .value = {cm_buf_data(&texts[1]), texts[1].len},
        .err = {cm_buf_data(&texts[2]), texts[2].len},
        .error = {cm_buf_data(&texts[3]), texts[3].len},
        .names = {cm_buf_data(&texts[4]), texts[4].len},
    };
    if (o->to->len > 0)
        assert_int_equal(cm_buf_puts(o->to, "\n\n"), 0);
    assert_int_equal(cm_output_put(o->to, o->number, &out), 0);
    o->number += o->number > 0;
    for (int i = 0; i < 5; i++)
        cm_buf_done(&texts[i]);
    return true;
}

static bool count_element(void *arg, struct cm_json_value *v)
{
    (void)v;
    ++*(unsigned *)arg;
    return true;
}

static bool check_output(void *arg, struct cm_json_value *value)
{
    struct cm_json_member m[] = {{.name = "name"}, {.name = "blocks"}, {.name = "message"}};
    struct cm_buf got, expected;
    unsigned blocks = 0;

    (void)arg;
    assert_int_equal(cm_json_object(value->raw, value->len, m, 3, NULL), 0);
    char *name = text_of(&m[0].value);
    cm_buf_init(&got, 1 << 20);
    cm_buf_init(&expected, 1 << 20);
    cm_json_elements(&m[1].value, count_element, &blocks);
    struct outputs o = {&got, blocks > 1};
    cm_json_elements(&m[1].value, put_case_block, &o);
    put_case_text(&expected, &m[2].value);
    if (strcmp(cm_buf_data(&got), cm_buf_data(&expected)) != 0)
        fail_msg("%s: %.300s", name, cm_buf_data(&got));
    cm_buf_done(&got);
    cm_buf_done(&expected);
    free(name);
    cases++;
    return true;
}

static void shows_outputs(void **state)
{
    struct cm_json_value all;
    size_t len;
    char *json = read_file("cases/outputs.json", &len);

    (void)state;
    cases = 0;
    assert_int_equal(cm_json_check(json, len, &all, NULL), 0);
    cm_json_elements(&all, check_output, NULL);
    assert_true(cases >= 10);
    free(json);
}

static void counts_what_the_sidecar_dropped(void **state)
{
    struct cm_buf to;
    char *text = malloc(30000);

    (void)state;
    memset(text, 'x', 30000);
    cm_buf_init(&to, 1 << 20);
    struct cm_output o = {.out = {text, 30000}, .missing = 5};
    assert_int_equal(cm_output_put(&to, 0, &o), 0);
    assert_non_null(strstr(cm_buf_data(&to), "\n... 10005 characters dropped ...\n"));
    cm_buf_done(&to);
    free(text);
}

static void writes_any_text_as_json(void **state)
{
    struct cm_json_value v;
    struct cm_buf to;

    (void)state;
    cm_buf_init(&to, 1 << 20);
    assert_int_equal(cm_output_json(&to, "a\xff\"\0b", 5, 100), 0);
    assert_string_equal(cm_buf_data(&to), "\"a\xef\xbf\xbd\\\"\\u0000b\"");
    cm_buf_clear(&to);
    assert_int_equal(cm_output_json(&to, "\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc", 12, 4), 0);
    assert_int_equal(cm_json_check(cm_buf_data(&to), to.len, &v, NULL), 0);
    assert_string_equal(cm_buf_data(&to), "\"\xc3\xbc\xc3\xbc\\n... 2 characters dropped ...\\n\xc3\xbc\xc3\xbc\"");
    cm_buf_clear(&to);
    assert_int_equal(cm_output_json(&to, NULL, 0, 4), 0);
    assert_string_equal(cm_buf_data(&to), "null");
    cm_buf_done(&to);
}

/* Prompts */

static const char *filled(struct cm_buf *to, const char *text)
{
    const struct cm_var vars[] = {CM_VAR("name", "{value}", 7), CM_VAR_NUMBER("n", 42), {0}};

    cm_buf_clear(to);
    assert_int_equal(cm_prompt_fill(to, text, strlen(text), vars), 0);
    return cm_buf_data(to);
}

static void fills_variables_in(void **state)
{
    struct cm_buf to;

    (void)state;
    cm_buf_init(&to, 1 << 16);
    assert_string_equal(filled(&to, "a {name} b {n}."), "a {value} b 42.");
    assert_string_equal(filled(&to, "{{name}} {{{n}}}"), "{name} {42}");
    assert_string_equal(filled(&to, "{unknown} {} { n } {n"), "{unknown} {} { n } {n");
    assert_string_equal(filled(&to, "} { {\"a\": 1}"), "} { {\"a\": 1}");
    assert_string_equal(filled(&to, ""), "");
    cm_buf_done(&to);
}

/* The table of rlm/prompts/README.md, for the texts of which a part could be forgotten. */
static const struct {
    const char *file;
    const char *variables[8];
} documented[] = {
    {"system", {"output_limit", "recursion", "custom_tools"}},
    {"custom_tools", {"tools"}},
    {"query", {"query"}},
    {"context", {"context_type", "context_length", "capacity"}},
    {"contexts", {"context_type", "context_length", "capacity", "contexts", "newest"}},
    {"old_contexts", {"contexts", "newest", "capacity"}},
    {"histories", {"histories", "newest"}},
    {"turn", {"turn", "max_turns"}},
    {"first_turn", {"max_turns"}},
    {"last_turn", {"turn", "max_turns"}},
};

static const char *name_of(enum cm_prompt p)
{
    static const char *const names[] = {
#define P(ID, name) #name,
        CM_PROMPTS(P)
#undef P
    };
    return names[p];
}

static const char *const *variables_of(const char *file)
{
    static const char *const none[] = {NULL};

    for (size_t i = 0; i < sizeof documented / sizeof documented[0]; i++)
        if (strcmp(documented[i].file, file) == 0)
            return documented[i].variables;
    return none;
}

/* With every documented variable filled in, no brace is left but those that are meant; and each is used. */
static void check_prompt(enum cm_prompt p)
{
    const char *const *names = variables_of(name_of(p));
    struct cm_var vars[CM_VARS_MAX] = {0};
    struct cm_buf to;

    cm_buf_init(&to, 1 << 16);
    for (int i = 0; names[i]; i++)
        vars[i] = CM_VAR(names[i], "VALUE", 5);
    assert_int_equal(cm_prompt_put(&to, p, vars), 0);
    const char *text = cm_buf_data(&to);
    for (const char *at = strchr(text, '{'); at; at = strchr(at + 1, '{')) {
        char word[40] = "";
        if (sscanf(at, "{%39[a-z_]}", word) == 1 && at[strlen(word) + 1] == '}' && strcmp(word, "total") != 0)
            fail_msg("%s: {%s} is not documented", name_of(p), word);
    }
    for (int i = 0; names[i]; i++) {
        struct cm_var without[CM_VARS_MAX] = {0};
        struct cm_buf other;
        for (int j = 0, k = 0; names[j]; j++)
            if (j != i)
                without[k++] = vars[j];
        cm_buf_init(&other, 1 << 16);
        assert_int_equal(cm_prompt_put(&other, p, without), 0);
        if (strcmp(cm_buf_data(&other), text) == 0)
            fail_msg("%s does not use {%s}", name_of(p), names[i]);
        cm_buf_done(&other);
    }
    cm_buf_done(&to);
}

static void prompts_have_their_variables(void **state)
{
    (void)state;
#define P(ID, name) check_prompt(CM_PROMPT_##ID);
    CM_PROMPTS(P)
#undef P
}

static void has_its_texts(void **state)
{
    const struct cm_var vars[] = {CM_VAR("reason", "why", 3), {0}};
    struct cm_buf to;

    (void)state;
    cm_buf_init(&to, 1 << 16);
    assert_int_equal(cm_text_put(&to, CM_TEXT_ERROR, vars), 0);
    assert_string_equal(cm_buf_data(&to), "Error: why");
    for (int i = 0; i < CM_TEXT_COUNT; i++) {
        cm_buf_clear(&to);
        assert_int_equal(cm_text_put(&to, i, NULL), 0);
        assert_true(to.len > 0);
    }
    cm_buf_done(&to);
}

/* History, usage, gate, parts */

static void add(struct cm_history *h, enum cm_llm_role role, const char *text)
{
    assert_int_equal(cm_history_add(h, role, strdup(text), strlen(text)), 0);
}

static void history_is_whole_after_compaction(void **state)
{
    struct cm_history h = {0};
    struct cm_buf to;

    (void)state;
    cm_buf_init(&to, 1 << 16);
    add(&h, CM_LLM_SYSTEM, "s");
    add(&h, CM_LLM_USER, "q, turn 1");
    add(&h, CM_LLM_ASSISTANT, "a1");
    add(&h, CM_LLM_USER, "o1, sum up");
    assert_int_equal(h.tokens, 1 + 3 + 1 + 3);
    assert_int_equal(cm_history_compact(&h), 0);
    assert_int_equal(h.count, 1);
    assert_int_equal(h.tokens, 1);
    add(&h, CM_LLM_USER, "q");
    add(&h, CM_LLM_ASSISTANT, "sum");
    add(&h, CM_LLM_USER, "go on");
    assert_int_equal(cm_history_whole(&h, &to), 0);
    assert_string_equal(cm_buf_data(&to), "[{\"role\":\"user\",\"content\":\"q, turn 1\"},"
                                          "{\"role\":\"assistant\",\"content\":\"a1\"},"
                                          "{\"role\":\"user\",\"content\":\"o1, sum up\"},"
                                          "{\"role\":\"assistant\",\"content\":\"sum\"},"
                                          "{\"role\":\"user\",\"content\":\"go on\"}]");
    assert_int_equal(cm_history_compact(&h), 0);
    add(&h, CM_LLM_USER, "q");
    cm_buf_clear(&to);
    assert_int_equal(cm_history_whole(&h, &to), 0);
    assert_non_null(strstr(cm_buf_data(&to), "\"sum\"},{\"role\":\"user\",\"content\":\"go on\"}]"));
    assert_null(strstr(cm_buf_data(&to), "\"q\""));
    cm_buf_done(&to);
    cm_history_done(&h);
}

static void usage_names_models(void **state)
{
    const struct cm_llm_usage priced = {.input_tokens = 10, .output_tokens = 5, .priced = true, .cost = 0.25};
    const struct cm_llm_usage not = {.input_tokens = 1};
    struct cm_usage u = {0};
    struct cm_buf to;

    (void)state;
    cm_buf_init(&to, 1 << 20);
    assert_int_equal(cm_usage_add(&u, "a", &priced), 0);
    assert_int_equal(cm_usage_add(&u, "a", &priced), 0);
    assert_int_equal(cm_usage_add(&u, "b\"", &not), 0);
    assert_int_equal(cm_usage_json(&u, &to), 0);
    assert_string_equal(cm_buf_data(&to),
                        "{\"model_usage_summaries\":{\"a\":{\"total_calls\":2,\"total_input_tokens\":20,"
                        "\"total_output_tokens\":10,\"total_cost\":0.5},\"b\\\"\":{\"total_calls\":1,"
                        "\"total_input_tokens\":1,\"total_output_tokens\":0}},\"total_cost\":0.5}");
    for (int i = 0; i < 200; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%d", i);
        assert_int_equal(cm_usage_add(&u, name, &not), 0);
    }
    assert_int_equal(u.count, CM_USAGE_ROWS_MAX);
    assert_string_equal(u.rows[CM_USAGE_ROWS_MAX - 1].name, "other");
    cm_usage_done(&u);
    cm_buf_done(&to);
}

static char order[64];

static void went(void *arg)
{
    strcat(order, arg);
}

static void gate_serves_groups_in_turn(void **state)
{
    struct cm_gate g = {.max = 1};
    struct cm_gate_group a = {0}, b = {0};
    struct cm_gate_wait w[6] = {0};
    static char names[6][2] = {"1", "2", "3", "4", "5", "6"};

    (void)state;
    order[0] = '\0';
    for (int i = 0; i < 6; i++) {
        w[i] = (struct cm_gate_wait){.go = went, .arg = names[i]};
        cm_gate_enter(&g, i < 4 ? &a : &b, &w[i]); /* 1 2 3 4 of one group, 5 6 of the other */
    }
    assert_string_equal(order, "1");
    cm_gate_leave(&g, &w[2]); /* one that waits gives up */
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++)
            if (w[j].state == CM_GATE_IN) {
                cm_gate_leave(&g, &w[j]);
                break;
            }
    assert_string_equal(order, "12546");
    assert_int_equal(g.busy, 0);
    assert_null(g.queue);
}

static void parts_become_texts(void **state)
{
    struct cm_parts_room all = {.bytes_max = CM_PARTS_BYTES_MAX, .files_max = 2};
    struct cm_parts_room room = {.bytes_max = CM_PARTS_BYTES_MAX, .files_max = 1, .above = &all};
    struct cm_parts p = {.room = &room};
    struct cm_parts_text text = {.fd = -1};
    char *piece = malloc(CM_PARTS_HEAP_MAX);

    (void)state;
    memset(piece, 'x', CM_PARTS_HEAP_MAX);
    assert_int_equal(cm_parts_add(&p, "p1", 2, "short", 5), 0);
    assert_int_equal(cm_parts_add(&p, "p2", 2, piece, CM_PARTS_HEAP_MAX), 0);
    assert_int_equal(room.files, 0);
    assert_int_equal(cm_parts_add(&p, "p2", 2, "end", 3), 0);
    assert_int_equal(room.files, 1);
    assert_int_equal(all.files, 1);
    assert_int_equal(room.bytes, CM_PARTS_HEAP_MAX + 8);
    assert_int_equal(all.bytes, CM_PARTS_HEAP_MAX + 8);
    assert_int_equal(cm_parts_add(&p, "p4", 2, piece, CM_PARTS_HEAP_MAX), 0);
    assert_int_equal(cm_parts_add(&p, "p4", 2, "end", 3), CM_ERR_TOO_LARGE); /* this run's files are too many */
    assert_int_equal(cm_parts_take(&p, "p3", 2, &text), CM_ERR_NO_CALL);
    assert_int_equal(cm_parts_take(&p, "p2", 2, &text), 0);
    assert_int_equal(cm_parts_take(&p, "p2", 2, &text), CM_ERR_NO_CALL);
    assert_true(text.fd >= 0);
    assert_int_equal(cm_parts_load(&text, 10), CM_ERR_TOO_LARGE);
    assert_int_equal(cm_parts_load(&text, 1 << 20), 0);
    assert_string_equal(text.data + CM_PARTS_HEAP_MAX, "end");
    cm_parts_text_done(&text);
    assert_int_equal(all.files, 0);
    assert_int_equal(room.bytes, 5);
    assert_int_equal(all.bytes, 5);
    all.bytes = CM_PARTS_BYTES_MAX - 2; /* others have them */
    assert_int_equal(cm_parts_add(&p, "p1", 2, "more", 4), CM_ERR_TOO_LARGE);
    assert_int_equal(room.bytes, 0); /* the text that found no room is gone */
    assert_int_equal(cm_parts_take(&p, "p1", 2, &text), CM_ERR_NO_CALL);
    cm_parts_done(&p);
    struct cm_parts_room held = {.bytes_max = 10, .bytes = 8};
    assert_int_equal(cm_parts_hold(&held, "more", 4, &text), CM_ERR_TOO_LARGE);
    assert_int_equal(cm_parts_hold(&held, "no", 2, &text), 0);
    assert_string_equal(text.data, "no");
    assert_int_equal(held.bytes, 10);
    cm_parts_text_done(&text);
    assert_int_equal(held.bytes, 8);
    free(piece);
}

/* Whatever others take, something is left for one more; of those of one key, too. */
static void parts_leave_room_to_others(void **state)
{
    struct cm_parts_room all = {.bytes_max = 1600, .files_max = 100};
    struct cm_parts_room keys[2], runs[10];

    (void)state;
    for (int i = 0; i < 2; i++)
        keys[i] = (struct cm_parts_room){.bytes_max = 1600, .files_max = 100, .above = &all};
    for (int i = 0; i < 10; i++)
        runs[i] = (struct cm_parts_room){.bytes_max = 1600, .files_max = 100, .above = &keys[i / 5]};
    static const unsigned get[] = {400, 200, 100, 50, 25,
                                   207, 103, 52,  26, 13}; /* of 1600 - 775 the second key has 413 */
    for (int i = 0; i < 10; i++) {
        struct cm_parts p = {.room = &runs[i]};
        struct cm_parts_text text;
        unsigned took = 0;
        while (took < 1601 && cm_parts_hold(&runs[i], "x", 1, &text) == 0) {
            cm_parts_text_done(&text);
            assert_int_equal(cm_parts_add(&p, "k", 1, "x", 1), 0);
            took++;
        }
        assert_int_equal(took, get[i]);
        assert_int_equal(cm_parts_take(&p, "k", 1, &text), 0);
        free(text.data); /* and it stays counted */
    }
    assert_int_equal(keys[0].bytes, 775);
    assert_int_equal(all.bytes, keys[0].bytes + keys[1].bytes);
}

static int open_texts(void **state)
{
    struct cm_err err = {0};

    (void)state;
    if (cm_texts_open(&err) < 0)
        print_error("%s\n", err.text);
    return err.code;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_replies),
        cmocka_unit_test(reads_only_so_many_blocks),
        cmocka_unit_test(shows_outputs),
        cmocka_unit_test(counts_what_the_sidecar_dropped),
        cmocka_unit_test(writes_any_text_as_json),
        cmocka_unit_test(fills_variables_in),
        cmocka_unit_test(prompts_have_their_variables),
        cmocka_unit_test(has_its_texts),
        cmocka_unit_test(history_is_whole_after_compaction),
        cmocka_unit_test(usage_names_models),
        cmocka_unit_test(gate_serves_groups_in_turn),
        cmocka_unit_test(parts_become_texts),
        cmocka_unit_test(parts_leave_room_to_others),
    };

    return cmocka_run_group_tests(tests, open_texts, NULL);
}
