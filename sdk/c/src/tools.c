/* SPDX-License-Identifier: Apache-2.0 */
/* A tool service: what its owner asks of it. Serving is in tools_serve.c. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools.h"
#include "wire/json.h"

#define NAME_MAX_BYTES 256
#define WORKERS        16
#define WORKERS_MAX    1024
#define QUEUE          1024

/* "" for NULL, for free(); *lack when there is no memory. */
static const char *copy(const char *text, bool *lack)
{
    char *own = strdup(text ? text : "");

    *lack |= !own;
    return own;
}

static void free_tool(struct tool *t)
{
    free((char *)t->public.name);
    free((char *)t->public.description);
    free((char *)t->public.input_schema);
    free((char *)t->public.output_schema);
    free(t);
}

static void free_service(struct codemode_tools *t)
{
    struct tool *tool, *next;

    for (tool = t->first; tool; tool = next) {
        next = tool->next;
        free_tool(tool);
    }
    cm_tls_unref(t->tls);
    free(t->host);
    free(t->bearer);
    pthread_cond_destroy(&t->idle);
    pthread_mutex_destroy(&t->mutex);
    free(t);
}

static int read_tls(struct codemode_tools *t, const struct codemode_tools_options *o, struct codemode_error *err)
{
    struct cm_tls_config config = {
        .prefix = "options",
        .server = true,
        .mode = CM_TLS_CUSTOM,
        .cert_file = o->cert_file ? o->cert_file : "",
        .key_file = o->key_file ? o->key_file : "",
        .ca_file = o->ca_file ? o->ca_file : "",
        .require_client_auth = o->ca_file,
    };
    struct cm_err why;

    if (!o->cert_file && !o->key_file && !o->ca_file)
        return 0;
    t->tls = cm_tls_new(&config, &why);
    return t->tls ? 0 : lib_error_from(err, &why);
}

static int read_options(struct codemode_tools *t, struct codemode_error *err)
{
    static const char *const variables[] = {"CODEMODE_API_KEY", NULL};
    struct codemode_tools_options *o = &t->options;

    if (o->port > 65535)
        return lib_error(err, CODEMODE_INVALID_ARGUMENT, "port: must be from 0 to 65535");
    if (o->workers > WORKERS_MAX)
        return lib_error(err, CODEMODE_INVALID_ARGUMENT, "workers: must be from 0 to %d", WORKERS_MAX);
    if (o->queue > INT_MAX / 2)
        return lib_error(err, CODEMODE_INVALID_ARGUMENT, "queue: must be from 0 to %d", INT_MAX / 2);
    o->workers = o->workers ? o->workers : WORKERS;
    o->queue = o->queue ? o->queue : QUEUE;
    t->host = strdup(o->host ? o->host : "127.0.0.1");
    if (!t->host)
        return lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for a tool service");
    int rc = lib_bearer(o->api_key, variables, &t->bearer, err);
    return rc ? rc : read_tls(t, o, err);
}

struct codemode_tools *codemode_tools_new(const struct codemode_tools_options *options, struct codemode_error *err)
{
    struct codemode_tools *t = calloc(1, sizeof *t);

    if (!t) {
        lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for a tool service");
        return NULL;
    }
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->idle, NULL);
    t->last = &t->first;
    if (options)
        t->options = *options;
    if (read_options(t, err) == 0)
        return t;
    free_service(t);
    return NULL;
}

static int check_schema(const char *name, const char *schema, struct codemode_error *err)
{
    struct cm_err why;

    if (!schema)
        return 0;
    char *text = strdup(schema);
    if (!text)
        return lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for a schema");
    int rc = cm_json_object(text, strlen(text), NULL, 0, &why);
    free(text);
    return rc < 0 ? lib_error(err, CODEMODE_INVALID_ARGUMENT, "%s: %s", name, why.text) : 0;
}

static int check_tool(const struct codemode_tools *t, const struct codemode_tool *tool, struct codemode_error *err)
{
    if (t->state != TOOLS_NEW)
        return lib_error(err, CODEMODE_FAILED_PRECONDITION, "tools are added before the start");
    if (!tool->name || !*tool->name || strlen(tool->name) > NAME_MAX_BYTES || strncmp(tool->name, "__", 2) == 0)
        return lib_error(err, CODEMODE_INVALID_ARGUMENT, "name: must have 1 to %d bytes and not begin with \"__\"",
                         NAME_MAX_BYTES);
    if (!tool->run)
        return lib_error(err, CODEMODE_INVALID_ARGUMENT, "%s: has no callback", tool->name);
    for (const struct tool *other = t->first; other; other = other->next)
        if (strcmp(other->public.name, tool->name) == 0)
            return lib_error(err, CODEMODE_ALREADY_EXISTS, "%s: there is a tool of that name", tool->name);
    int rc = check_schema("input_schema", tool->input_schema, err);
    return rc ? rc : check_schema("output_schema", tool->output_schema, err);
}

int codemode_tools_add(struct codemode_tools *tools, const struct codemode_tool *tool, struct codemode_error *err)
{
    int rc = check_tool(tools, tool, err);
    bool lack = false;

    if (rc < 0)
        return rc;
    struct tool *own = calloc(1, sizeof *own);
    if (!own)
        return lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for a tool");
    own->public = *tool;
    own->public.name = copy(tool->name, &lack);
    own->public.description = copy(tool->description, &lack);
    own->public.input_schema = copy(tool->input_schema, &lack);
    own->public.output_schema = copy(tool->output_schema, &lack);
    if (lack) {
        free_tool(own);
        return lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for a tool");
    }
    *tools->last = own;
    tools->last = &own->next;
    return 0;
}

int codemode_tools_start(struct codemode_tools *tools, struct codemode_error *err)
{
    if (tools->state != TOOLS_NEW)
        return lib_error(err, CODEMODE_FAILED_PRECONDITION, "a tool service starts once");
    tools->pool = lib_pool_new(tools->options.workers, tools->options.queue, err);
    if (!tools->pool)
        return -CODEMODE_RESOURCE_EXHAUSTED;
    int rc = lib_thread_start(&tools->thread, err);
    rc = rc ? rc : lib_tools_open(tools, err);
    if (rc == 0) {
        tools->state = TOOLS_RUNNING;
        return 0;
    }
    if (tools->thread.running)
        lib_thread_call(&tools->thread, lib_tools_close, tools);
    lib_thread_stop(&tools->thread);
    lib_pool_free(tools->pool);
    tools->pool = NULL;
    return rc;
}

unsigned codemode_tools_port(const struct codemode_tools *tools)
{
    return tools->port;
}

static void wait_idle(struct codemode_tools *t, double seconds)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    seconds = seconds > 0 ? fmin(seconds, 86400) : 0;
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)((seconds - floor(seconds)) * 1e9);
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&t->mutex);
    while (t->calls > 0 && pthread_cond_timedwait(&t->idle, &t->mutex, &until) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&t->mutex);
}

void codemode_tools_stop(struct codemode_tools *tools, double seconds)
{
    if (tools->state != TOOLS_RUNNING)
        return;
    lib_thread_call(&tools->thread, lib_tools_drain, tools);
    wait_idle(tools, seconds);
    lib_thread_call(&tools->thread, lib_tools_close, tools);
    lib_pool_free(tools->pool); /* what the workers have finished is on its way to the loop before its last job */
    tools->pool = NULL;
    lib_thread_stop(&tools->thread);
    tools->state = TOOLS_STOPPED;
}

void codemode_tools_free(struct codemode_tools *tools)
{
    if (!tools)
        return;
    codemode_tools_stop(tools, 0);
    free_service(tools);
}
