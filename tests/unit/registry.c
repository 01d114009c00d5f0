/* SPDX-License-Identifier: Apache-2.0 */
/* The tool service's client and the registry of its tools, against a service that the test plays. */
#include "service_world.h"

#include "tools/registry.h"
#include "tools/service.h"

struct heard {
    unsigned times;
    long tools; /* -1: none came */
    char why[600];
};

static struct cm_tool_client *service;
static struct cm_registry *registry;

static int set_up(void **state)
{
    struct cm_err err;

    (void)state;
    service = cm_tool_service_new(NULL, "app:50051", NULL, "secret", NULL, &err);
    registry = cm_registry_new(NULL, service, NULL, &err);
    return !service || !registry;
}

static int tear_down(void **state)
{
    (void)state;
    registry = cm_registry_free(registry);
    service = cm_tool_service_free(service);
    assert_int_equal(world_clients, 0);
    assert_null(world_timers);
    world_refuses = false;
    world_now += 1000 * CM_NS_PER_S;
    return 0;
}

static const struct world_tool two[] = {{"alpha", "first", "{}", false, false}, {"beta", "second", NULL, true, true}};

static void on_tools(void *arg, struct cm_toolset *set, const char *why)
{
    struct heard *h = arg;

    h->times++;
    h->tools = set ? (long)set->count : -1;
    snprintf(h->why, sizeof h->why, "%s", set ? "" : why);
}

static struct cm_registry_wait *fetch(unsigned attempts, struct heard *h)
{
    struct cm_err err;

    *h = (struct heard){.tools = -2};
    struct cm_registry_wait *w = cm_registry_fetch(registry, attempts, 0, on_tools, h, &err);
    assert_non_null(w);
    assert_int_equal(h->times, 0); /* never from inside */
    return w;
}

static void lists_once_for_everybody(void **state)
{
    struct heard a, b, c;

    (void)state;
    fetch(1, &a);
    fetch(3, &b);
    assert_int_equal(world_waiting(), 1);
    struct cm_grpc_request *r = world_call("ListTools");
    assert_string_equal(r->path, "/codemode.ToolService/ListTools");
    assert_string_equal(r->metadata, "authorization=Bearer secret;");
    assert_true(r->ops.fail_fast); /* nobody waits for a list */
    world_list(two, 2);
    world_turn();
    assert_int_equal(a.times + b.times, 2);
    assert_int_equal(a.tools, 2);
    fetch(1, &c); /* a second has not passed */
    world_turn();
    assert_int_equal(c.tools, 2);
    assert_int_equal(world_called, 1);
    world_pass(1100);
    fetch(1, &c);
    world_list(two, 1);
    world_turn();
    assert_int_equal(c.tools, 1);
}

/* A tool that was registered just now is in no list that was asked for before. */
static void asks_anew(void **state)
{
    struct heard a, b;
    struct cm_err err;

    (void)state;
    fetch(1, &a);
    world_pass(1);
    b = (struct heard){.tools = -2};
    assert_non_null(cm_registry_fetch(registry, 1, cm_clock_ns(), on_tools, &b, &err));
    assert_int_equal(world_waiting(), 1);
    world_list(two, 1);
    world_turn();
    assert_int_equal(a.tools, 1);
    assert_int_equal(b.times, 0);
    world_list(two, 2);
    world_turn();
    assert_int_equal(b.tools, 2);
    world_pass(1);
    b = (struct heard){.tools = -2};
    assert_non_null(cm_registry_fetch(registry, 1, cm_clock_ns(), on_tools, &b, &err)); /* at once after that */
    world_list(two, 1);
    world_turn();
    assert_int_equal(b.tools, 1);
    assert_int_equal(world_called, 3);
}

static void renews_an_old_list_behind_the_scenes(void **state)
{
    struct heard h;

    (void)state;
    assert_null(cm_registry_set(registry));
    assert_int_equal(world_waiting(), 1); /* asking begins it */
    world_list(two, 2);
    struct cm_toolset *first = cm_registry_set(registry);
    assert_int_equal(first->count, 2);
    cm_toolset_ref(first);
    world_pass(29000);
    assert_ptr_equal(cm_registry_set(registry), first);
    assert_int_equal(world_waiting(), 0);
    world_pass(2000);
    assert_ptr_equal(cm_registry_set(registry), first); /* nobody waits */
    assert_ptr_equal(cm_registry_set(registry), first);
    assert_int_equal(world_waiting(), 1);
    world_list(two, 1);
    assert_int_equal(cm_registry_set(registry)->count, 1);
    assert_int_equal(first->count, 2); /* who has it, keeps it */
    cm_toolset_unref(first);
    /* what was known stays known while the service is away */
    world_pass(31000);
    cm_registry_set(registry);
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "connection refused");
    assert_int_equal(cm_registry_set(registry)->count, 1);
    assert_int_equal(world_waiting(), 0);
    fetch(1, &h);
    world_turn();
    assert_int_equal(h.tools, -1);
}

static void asks_again_where_tools_are_needed(void **state)
{
    struct heard once, thrice, later;

    (void)state;
    fetch(1, &once);
    fetch(3, &thrice);
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "connection refused");
    world_turn();
    assert_int_equal(once.tools, -1);
    assert_non_null(strstr(once.why, "app:50051 cannot be reached (connection refused)"));
    assert_non_null(strstr(once.why, "CODEMODE_MAIN_APP_TARGET"));
    assert_int_equal(thrice.times, 0);
    assert_int_equal(world_waiting(), 0);
    fetch(1, &later); /* the failure is remembered */
    world_turn();
    assert_int_equal(later.tools, -1);
    assert_int_equal(world_called, 1);
    world_pass(499);
    assert_int_equal(world_waiting(), 0);
    world_pass(2);
    world_fail("ListTools", CM_GRPC_UNAVAILABLE, "connection refused");
    world_pass(999);
    assert_int_equal(world_waiting(), 0);
    world_pass(2);
    world_list(two, 2);
    world_turn();
    assert_int_equal(thrice.tools, 2);
    world_pass(1100);
    fetch(3, &thrice);
    for (int i = 0; i < 3; i++) {
        world_fail("ListTools", CM_GRPC_UNAUTHENTICATED, "bad key");
        world_pass(1001);
    }
    assert_int_equal(thrice.tools, -1);
    assert_non_null(strstr(thrice.why, "CODEMODE_API_KEY must be the same on both sides"));
    assert_int_equal(world_waiting(), 0);
}

static void refuses_a_list_that_is_none(void **state)
{
    struct heard h;

    (void)state;
    fetch(1, &h);
    world_answer(world_call("ListTools"), CM_GRPC_OK, "", "\x0a\x05zz", 4);
    world_turn();
    assert_int_equal(h.tools, -1);
    assert_non_null(strstr(h.why, "ListToolsResponse"));
    world_pass(1100);
    world_refuses = true;
    fetch(1, &h);
    world_turn();
    assert_int_equal(h.tools, -1);
    assert_string_equal(h.why, "too many calls");
}

static void forgets_who_has_left(void **state)
{
    struct heard a, b;

    (void)state;
    cm_registry_wait_cancel(fetch(3, &a));
    struct cm_registry_wait *w = fetch(3, &b);
    world_list(two, 2);
    cm_registry_wait_cancel(w); /* its answer was on the way */
    world_turn();
    assert_int_equal(a.times + b.times, 0);
    fetch(3, &a);
    world_pass(1100);
    fetch(3, &b); /* under way when the registry goes */
    assert_int_equal(a.times, 1);
    assert_int_equal(world_waiting(), 1);
}

static void remembers_what_it_was_told_of_a_tool(void **state)
{
    struct heard h;

    (void)state;
    fetch(1, &h);
    world_list(two, 2);
    world_turn();
    struct cm_toolset *set = cm_registry_set(registry);
    assert_ptr_equal(cm_registry_details(registry, set->tools[1]), set->tools[1]);
    for (int i = 0; i < 2; i++) {
        struct cm_err err;
        /* GetToolSchemaResponse: tool_name "beta", input_schema {json_schema "{}"} */
        struct cm_tool *t = cm_tool_read((const uint8_t *)"\x0a\x04"
                                                          "beta\x12\x04\x0a\x02{}",
                                         12, &err);
        assert_non_null(t);
        cm_registry_learn(registry, t);
    }
    assert_string_equal(cm_registry_details(registry, set->tools[1])->input_schema, "{}");
    assert_ptr_equal(cm_registry_details(registry, set->tools[0]), set->tools[0]);
    world_pass(1100);
    fetch(1, &h);
    world_list(two, 2);
    world_turn();
    assert_non_null(cm_registry_details(registry, cm_registry_set(registry)->tools[1])->input_schema);
    world_pass(1100);
    fetch(1, &h);
    world_list(two, 1); /* beta is gone, and what was known of it */
    world_turn();
    world_pass(1100);
    fetch(1, &h);
    world_list(two, 2);
    world_turn();
    assert_null(cm_registry_details(registry, cm_registry_set(registry)->tools[1])->input_schema);
}

/* Calls */

static void on_result(void *arg, const char *json, size_t len, enum cm_call_failure why, const char *text)
{
    snprintf(arg, 1000, "%.*s|%d|%s", (int)len, json ? json : "", json ? -1 : (int)why, json ? "" : text);
}

static struct cm_tool_request *call(const char *arguments, const char *context, char *heard, struct cm_err *err)
{
    struct cm_tool_call c = {
        .name = "alpha",
        .name_len = 5,
        .arguments = arguments,
        .arguments_len = strlen(arguments),
        .context = context,
        .context_len = context ? strlen(context) : 0,
        .correlation_id = "cm-1",
        .execution = "key",
        .run = "exec-1",
        .number = 7,
        .deadline_ns = world_now + 5 * CM_NS_PER_S,
    };

    *heard = '\0';
    return cm_tool_service_call(service, &c, on_result, heard, err);
}

static void calls_a_tool(void **state)
{
    char heard[1000], asked[1000];
    struct cm_err err;

    (void)state;
    assert_non_null(call("{\"n\":[72,1.5,null]}", "{\"user\":\"u\"}", heard, &err));
    assert_string_equal(world_asked(asked, sizeof asked), "alpha {\"n\":[72,1.5,null]} {\"user\":\"u\"} cm-1");
    assert_string_equal(
        world_call("CallTool")->metadata,
        "authorization=Bearer secret;x-correlation-id=cm-1;x-codemode-call=key:7;x-codemode-run=exec-1;");
    assert_int_equal(world_call("CallTool")->deadline_ns, world_now + 5 * CM_NS_PER_S);
    assert_false(world_call("CallTool")->ops.fail_fast); /* it outlasts a restart */
    world_result(true, "", "{\"value\":72}");
    assert_string_equal(heard, "{\"value\":72}|-1|");
    call("{}", NULL, heard, &err);
    assert_string_equal(world_asked(asked, sizeof asked), "alpha {} - cm-1");
    world_result(true, "", NULL);
    assert_string_equal(heard, "{}|-1|");
}

static void tells_failures_apart(void **state)
{
    static const struct {
        enum cm_grpc_status status;
        enum cm_call_failure why;
        const char *text;
    } cases[] = {
        {CM_GRPC_UNAUTHENTICATED, CM_CALL_UNAVAILABLE, "CODEMODE_API_KEY must be the same"},
        {CM_GRPC_UNAVAILABLE, CM_CALL_UNAVAILABLE, "is the application running"},
        {CM_GRPC_UNIMPLEMENTED, CM_CALL_UNAVAILABLE, "is no codemode.ToolService"},
        {CM_GRPC_DEADLINE_EXCEEDED, CM_CALL_TIMEOUT, "in time"},
        {CM_GRPC_RESOURCE_EXHAUSTED, CM_CALL_TOOL_ERROR, "too large"},
        {CM_GRPC_UNKNOWN, CM_CALL_TOOL_ERROR, "status 2 (words)"},
        {CM_GRPC_NOT_FOUND, CM_CALL_UNKNOWN, "words"},
    };
    char heard[1000], number[20];
    struct cm_err err;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        call("{}", NULL, heard, &err);
        world_fail("CallTool", cases[i].status, "words");
        snprintf(number, sizeof number, "|%d|", cases[i].why);
        if (strncmp(heard, number, strlen(number)) != 0 || !strstr(heard, cases[i].text))
            fail_msg("%d: %s", cases[i].status, heard);
    }
    call("{}", NULL, heard, &err);
    world_result(false, "no such city: \xc3\x84", NULL);
    assert_string_equal(heard, "|0|no such city: \xc3\x84");
    call("{}", NULL, heard, &err);
    world_result(false, "", NULL);
    assert_string_equal(heard, "|0|the tool has failed and does not say why");
    call("{}", NULL, heard, &err);
    world_answer(world_call("CallTool"), CM_GRPC_OK, "", "\xff", 1);
    assert_string_equal(heard, "|0|not a codemode.ToolCallResponse");
    call("{}", NULL, heard, &err);
    world_answer(world_call("CallTool"), CM_GRPC_OK, "", "\x08\x01\x1a\x02\x0a\x05",
                 6); /* a Struct that ends too soon */
    assert_non_null(strstr(heard, "|0|the result cannot be read"));
    assert_int_equal(cm_tool_service_breaks(service), 1); /* the one UNAVAILABLE */
}

static void sends_nothing_that_cannot_be_sent(void **state)
{
    char heard[1000];
    struct cm_err err;

    (void)state;
    assert_null(call("{\"a\":1e999}", NULL, heard, &err));
    assert_int_equal(err.code, CM_ERR_BAD_FIELD);
    assert_int_equal(strncmp(err.text, "arguments: ", 11), 0);
    assert_null(call("{}", "{\"a\":1e999}", heard, &err));
    assert_int_equal(strncmp(err.text, "context: ", 9), 0);
    world_refuses = true;
    assert_null(call("{}", NULL, heard, &err));
    assert_int_equal(err.code, CM_ERR_OVERLOADED);
    world_refuses = false;
    assert_int_equal(world_called, 0);
    struct cm_tool_request *r = call("{}", NULL, heard, &err);
    cm_tool_request_cancel(r);
    assert_true(world_calls[0]->cancelled);
    call("{}", NULL, heard, &err); /* under way when the service goes */
    assert_string_equal(heard, "");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(lists_once_for_everybody),
        TEST(asks_anew),
        TEST(renews_an_old_list_behind_the_scenes),
        TEST(asks_again_where_tools_are_needed),
        TEST(refuses_a_list_that_is_none),
        TEST(forgets_who_has_left),
        TEST(remembers_what_it_was_told_of_a_tool),
        TEST(calls_a_tool),
        TEST(tells_failures_apart),
        TEST(sends_nothing_that_cannot_be_sent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
