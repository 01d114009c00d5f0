/* SPDX-License-Identifier: Apache-2.0 */
/* A tool service that a test plays itself: its gRPC client, the clock, timers and tasks are ours. Nothing here waits. */
#ifndef CM_TESTS_SERVICE_WORLD_H
#define CM_TESTS_SERVICE_WORLD_H

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
#include "codemode.pb-c.h"
#include "ev/loop.h"
#include "grpc/client.h"
#include "tools/toolset.h"
#include "wire/proto.h"
#include "wire/structs.h"

/* Time and turns */

static uint64_t world_now = 1000 * CM_NS_PER_S;

struct cm_timer {
    struct cm_timer *next;
    void (*cb)(void *arg);
    void *arg;
    uint64_t at; /* 0: stopped */
};

static struct cm_timer *world_timers;
static struct cm_task *world_tasks[1000];
static unsigned world_posted;

uint64_t __wrap_cm_clock_ns(void);
struct cm_timer *__wrap_cm_timer_open(struct cm_loop *loop, void (*cb)(void *arg), void *arg, struct cm_err *err);
void __wrap_cm_timer_start(struct cm_timer *timer, uint64_t after_ms, uint64_t every_ms);
void __wrap_cm_timer_stop(struct cm_timer *timer);
struct cm_timer *__wrap_cm_timer_close(struct cm_timer *timer);
void __wrap_cm_task_post(struct cm_loop *loop, struct cm_task *task, void (*cb)(void *arg), void *arg);
void __wrap_cm_task_cancel(struct cm_loop *loop, struct cm_task *task);

uint64_t __wrap_cm_clock_ns(void)
{
    return world_now;
}

struct cm_timer *__wrap_cm_timer_open(struct cm_loop *loop, void (*cb)(void *arg), void *arg, struct cm_err *err)
{
    struct cm_timer *t = calloc(1, sizeof *t);

    (void)loop;
    (void)err;
    *t = (struct cm_timer){world_timers, cb, arg, 0};
    return world_timers = t;
}

void __wrap_cm_timer_start(struct cm_timer *timer, uint64_t after_ms, uint64_t every_ms)
{
    assert_int_equal(every_ms, 0);
    timer->at = world_now + after_ms * CM_NS_PER_MS;
}

void __wrap_cm_timer_stop(struct cm_timer *timer)
{
    timer->at = 0;
}

struct cm_timer *__wrap_cm_timer_close(struct cm_timer *timer)
{
    struct cm_timer **at = &world_timers;

    if (!timer)
        return NULL;
    while (*at != timer)
        at = &(*at)->next;
    *at = timer->next;
    free(timer);
    return NULL;
}

void __wrap_cm_task_post(struct cm_loop *loop, struct cm_task *task, void (*cb)(void *arg), void *arg)
{
    (void)loop;
    for (unsigned i = 0; i < world_posted; i++)
        if (world_tasks[i] == task)
            return;
    task->cb = cb;
    task->arg = arg;
    assert_true(world_posted < 1000);
    world_tasks[world_posted++] = task;
}

void __wrap_cm_task_cancel(struct cm_loop *loop, struct cm_task *task)
{
    (void)loop;
    for (unsigned i = 0; i < world_posted; i++)
        if (world_tasks[i] == task)
            world_tasks[i] = NULL;
}

/* Runs what was posted, and what that posts. */
static inline void world_turn(void)
{
    for (unsigned i = 0; i < world_posted; i++) {
        struct cm_task *task = world_tasks[i];
        world_tasks[i] = NULL;
        if (task)
            task->cb(task->arg);
    }
    world_posted = 0;
}

static inline void world_pass(uint64_t ms)
{
    world_turn();
    world_now += ms * CM_NS_PER_MS;
    for (struct cm_timer *t = world_timers; t; t = t->next) {
        if (!t->at || t->at > world_now)
            continue;
        t->at = 0;
        t->cb(t->arg);
        t = world_timers; /* the list may have changed */
        if (!t)
            break;
    }
    world_turn();
}

/* The client */

struct cm_grpc_request {
    struct cm_grpc_request_ops ops;
    void *arg;
    char path[100];
    struct cm_buf message;
    char metadata[1000]; /* "key=value;" */
    uint64_t deadline_ns;
    bool over, cancelled;
};

static struct cm_grpc_request *world_calls[2000];
static unsigned world_called;
static bool world_refuses; /* cm_grpc_client_call() fails */
static unsigned world_clients;

struct cm_grpc_client *__wrap_cm_grpc_client_new(struct cm_loop *loop, const char *target, struct cm_tls *tls,
                                                 const struct cm_grpc_client_options *options, struct cm_err *err);
void __wrap_cm_grpc_client_set_tls(struct cm_grpc_client *c, struct cm_tls *tls);
struct cm_grpc_client *__wrap_cm_grpc_client_free(struct cm_grpc_client *c);
struct cm_grpc_request *__wrap_cm_grpc_client_call(struct cm_grpc_client *c, const char *path,
                                                   const struct cm_grpc_metadata *metadata, size_t count,
                                                   const void *message, size_t len, uint64_t deadline_ns,
                                                   const struct cm_grpc_request_ops *ops, void *arg,
                                                   struct cm_err *err);
void __wrap_cm_grpc_request_cancel(struct cm_grpc_request *r);

struct cm_grpc_client *__wrap_cm_grpc_client_new(struct cm_loop *loop, const char *target, struct cm_tls *tls,
                                                 const struct cm_grpc_client_options *options, struct cm_err *err)
{
    (void)loop;
    (void)target;
    (void)tls;
    (void)options;
    (void)err;
    world_clients++;
    return (struct cm_grpc_client *)&world_clients;
}

void __wrap_cm_grpc_client_set_tls(struct cm_grpc_client *c, struct cm_tls *tls)
{
    (void)c;
    (void)tls;
}

struct cm_grpc_client *__wrap_cm_grpc_client_free(struct cm_grpc_client *c)
{
    if (c)
        world_clients--;
    for (unsigned i = 0; i < world_called; i++) {
        assert_true(world_calls[i]->over || world_calls[i]->cancelled);
        cm_buf_done(&world_calls[i]->message);
        free(world_calls[i]);
    }
    world_called = 0;
    return NULL;
}

struct cm_grpc_request *__wrap_cm_grpc_client_call(struct cm_grpc_client *c, const char *path,
                                                   const struct cm_grpc_metadata *metadata, size_t count,
                                                   const void *message, size_t len, uint64_t deadline_ns,
                                                   const struct cm_grpc_request_ops *ops, void *arg, struct cm_err *err)
{
    struct cm_grpc_request *r = calloc(1, sizeof *r);

    (void)c;
    assert_true(deadline_ns > 0);
    if (world_refuses) {
        free(r);
        cm_err_set(err, CM_ERR_OVERLOADED, "too many calls");
        return NULL;
    }
    r->ops = *ops;
    r->arg = arg;
    r->deadline_ns = deadline_ns;
    snprintf(r->path, sizeof r->path, "%s", path);
    for (size_t i = 0; i < count; i++)
        snprintf(r->metadata + strlen(r->metadata), sizeof r->metadata - strlen(r->metadata), "%s=%s;", metadata[i].key,
                 metadata[i].value);
    cm_buf_init(&r->message, 64u << 20);
    cm_buf_append(&r->message, message, len);
    return world_calls[world_called++] = r;
}

void __wrap_cm_grpc_request_cancel(struct cm_grpc_request *r)
{
    assert_false(r->over);
    r->cancelled = true;
}

/* Calls that wait for the test's answer. */
static inline unsigned world_waiting(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < world_called; i++)
        n += !world_calls[i]->over && !world_calls[i]->cancelled;
    return n;
}

/* The oldest of them, which must be of that method. */
static inline struct cm_grpc_request *world_call(const char *method)
{
    for (unsigned i = 0; i < world_called; i++) {
        struct cm_grpc_request *r = world_calls[i];
        if (r->over || r->cancelled)
            continue;
        assert_string_equal(strrchr(r->path, '/') + 1, method);
        return r;
    }
    fail_msg("nobody calls %s", method);
    return NULL;
}

static inline void world_answer(struct cm_grpc_request *r, enum cm_grpc_status status, const char *text,
                                const void *message, size_t len)
{
    r->over = true;
    if (message)
        r->ops.message(r->arg, message, len);
    r->ops.done(r->arg, status, text);
}

static inline void world_fail(const char *method, enum cm_grpc_status status, const char *text)
{
    world_answer(world_call(method), status, text, NULL, 0);
}

/* One tool of a ListToolsResponse, added to it. */
struct world_tool {
    const char *name, *description, *schema;
    bool is_async, has_context;
};

static inline void world_add(struct cm_buf *to, const struct world_tool *row)
{
    Codemode__ToolSchema schema;
    Codemode__ToolInfo info, *list[] = {&info};
    Codemode__ListToolsResponse response;

    codemode__tool_schema__init(&schema);
    codemode__tool_info__init(&info);
    codemode__list_tools_response__init(&response);
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

static inline void world_list(const struct world_tool *rows, size_t count)
{
    struct cm_buf b;

    cm_buf_init(&b, CM_TOOLS_BYTES_MAX);
    for (size_t i = 0; i < count; i++)
        world_add(&b, &rows[i]);
    world_answer(world_call("ListTools"), CM_GRPC_OK, "", cm_buf_data(&b), b.len);
    cm_buf_done(&b);
}

/* Answers the oldest call of a tool. */
static inline void world_result(bool success, const char *error, const char *json)
{
    Codemode__ToolCallResponse m;
    struct cm_buf b, s;

    codemode__tool_call_response__init(&m);
    cm_buf_init(&b, 1 << 20);
    cm_buf_init(&s, 1 << 20);
    m.success = success;
    m.error = cm_proto_text(error);
    if (json) {
        assert_int_equal(cm_struct_from_json(json, strlen(json), &s, NULL), 0);
        m.has_result_case = CODEMODE__TOOL_CALL_RESPONSE__HAS_RESULT_RESULT;
        m.result = cm_proto_bytes(cm_buf_data(&s), s.len);
    }
    assert_int_equal(cm_proto_pack(&m.base, &b), 0);
    world_answer(world_call("CallTool"), CM_GRPC_OK, "", cm_buf_data(&b), b.len);
    cm_buf_done(&b);
    cm_buf_done(&s);
}

/* What the oldest waiting call asks: "tool arguments context correlation". */
static inline const char *world_asked(char *ret, size_t size)
{
    struct cm_grpc_request *r = world_call("CallTool");
    struct cm_buf arguments, context;

    Codemode__ToolCallRequest *m =
        cm_proto_unpack(&codemode__tool_call_request__descriptor, cm_buf_data(&r->message), r->message.len, NULL);
    assert_non_null(m);
    cm_buf_init(&arguments, 1 << 20);
    cm_buf_init(&context, 1 << 20);
    assert_int_equal(m->has_arguments_case, CODEMODE__TOOL_CALL_REQUEST__HAS_ARGUMENTS_ARGUMENTS);
    assert_int_equal(cm_struct_to_json(m->arguments.data, m->arguments.len, &arguments, NULL), 0);
    if (m->has_context_case)
        assert_int_equal(cm_struct_to_json(m->context.data, m->context.len, &context, NULL), 0);
    snprintf(ret, size, "%.*s %s %s %.*s", (int)m->tool_name.len, (const char *)m->tool_name.data,
             cm_buf_data(&arguments), m->has_context_case ? cm_buf_data(&context) : "-", (int)m->correlation_id.len,
             (const char *)m->correlation_id.data);
    cm_buf_done(&arguments);
    cm_buf_done(&context);
    cm_proto_free(m);
    return ret;
}

#endif
