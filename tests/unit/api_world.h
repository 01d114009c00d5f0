/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP interface over a session manager that is made up here: it knows the session "session-1", and `code` says what an
 * execution does. The server runs in a thread of its own; the test is a plain blocking client. */
#ifndef CM_TESTS_API_WORLD_H
#define CM_TESTS_API_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conf/conf.h"
#include "ev/loop.h"
#include "front/http/internal.h"
#include "http/internal.h"
#include "net/door.h"
#include "net/listen.h"
#include "obs/metrics.h"
#include "one_session.h"

/* The made-up manager */

struct cm_call {
    void *user;
    struct cm_exec *x;
};

struct cm_exec {
    struct cm_task task;
    struct cm_exec_ops ops;
    void *arg;
    char code[64];
    struct cm_call call;
    unsigned steps;
};

struct cm_sessions {
    struct cm_loop *loop;
    struct cm_task task;
    void (*created)(void *arg, const char *id, const struct cm_err *err);
    void *arg;
};

static struct cm_sessions manager;

static struct cm_sessions *of(struct cm_exec *x)
{
    (void)x;
    return &manager;
}

static atomic_int abandoned, running, ready = 1;

static void finish(void *arg)
{
    struct cm_exec *x = arg;
    struct cm_exec_result res = {.success = true,
                                 .out = "out\n\"",
                                 .out_len = 5,
                                 .out_bytes = 5,
                                 .out_stored = true,
                                 .result = "84",
                                 .result_len = 2,
                                 .locals = "{\"x\":42}",
                                 .locals_len = 8,
                                 .duration_ns = 1500000000,
                                 .cpu_ns = 250000000};
    struct cm_err err;

    cm_err_set(&err, CM_ERR_SESSION_LOST, "the session's process ended: \"killed\"");
    x->ops.done(x->arg, strcmp(x->code, "die") == 0 ? NULL : &res, &err);
    free(x);
}

/* Streams: what an execution does step by step, one in each turn of the loop. */

static void step(void *arg);

static void next_step(struct cm_exec *x)
{
    cm_task_post(of(x)->loop, &x->task, step, x);
}

static void call(struct cm_exec *x)
{
    static const char arguments[] = "{\n\"key\":\r\n[1, \"a\\nb\"]}";
    const struct cm_call_request request = {
        .name = "look\"up", .name_len = 7, .arguments = arguments, .arguments_len = sizeof arguments - 1, .number = 7};

    x->call = (struct cm_call){.x = x};
    x->ops.call(x->arg, &x->call, &request);
}

static void step(void *arg)
{
    static char flood[1 << 20];
    struct cm_exec *x = arg;

    x->steps++;
    if (strcmp(x->code, "flood") == 0) {
        memset(flood, 'f', sizeof flood);
        next_step(x);
        x->ops.output(x->arg, 1, flood, sizeof flood);
    } else if (strcmp(x->code, "forget") == 0 && x->steps == 1) {
        call(x);
        next_step(x);
    } else if (strcmp(x->code, "forget") == 0) {
        x->ops.call_gone(x->arg, &x->call);
        finish(x);
    } else if (x->steps == 1) { /* a character in two pieces, and bytes that are none */
        x->ops.output(x->arg, 1, "a\xc3", 2);
        x->ops.output(x->arg, 2, "\xff\xe2\x82", 3);
        x->ops.output(x->arg, 1, "\xa9\n", 2);
        call(x); /* and waits for its answer */
    }
}

static char answered[64];
static atomic_int answers;

static void note_answer(struct cm_call *call, const char *how, const char *text, size_t len)
{
    snprintf(answered, sizeof answered, "%s %.*s", how, (int)len, text);
    atomic_fetch_add(&answers, 1);
    cm_task_post(of(call->x)->loop, &call->x->task, finish, call->x);
}

void cm_call_answer(struct cm_call *call, const char *json, size_t len)
{
    note_answer(call, "answer", json, len);
}

void cm_call_fail(struct cm_call *call, enum cm_call_failure why, const char *text, size_t len)
{
    assert_int_equal(why, CM_CALL_TOOL_ERROR);
    note_answer(call, "error", text, len);
}

void cm_call_set_user(struct cm_call *call, void *user)
{
    call->user = user;
}

void *cm_call_user(const struct cm_call *call)
{
    return call->user;
}

static bool is_script(const char *code)
{
    return strcmp(code, "live") == 0 || strcmp(code, "forget") == 0 || strcmp(code, "flood") == 0;
}

int cm_executor_run(struct cm_executor *executor, const struct cm_run_request *run, const struct cm_exec_ops *ops,
                    void *arg, struct cm_run **ret, struct cm_err *err)
{
    struct cm_sessions *m = (struct cm_sessions *)executor;
    const struct cm_exec_request *req = &run->exec;
    const char *id = run->session;

    if (id && strcmp(id, "session-1") != 0)
        return cm_err_set(err, CM_ERR_NO_SESSION, "no session \"%s\"", id);
    if (req->code_len == 4 && memcmp(req->code, "full", 4) == 0)
        return cm_err_set(err, CM_ERR_QUEUE_FULL, "the queue is full");
    struct cm_exec *x = calloc(1, sizeof(*x));
    x->ops = *ops;
    x->arg = arg;
    snprintf(x->code, sizeof(x->code), "%.*s", (int)req->code_len, req->code);
    if (run->streamed && is_script(x->code))
        next_step(x);
    else if (strcmp(x->code, "hang") != 0)
        cm_task_post(m->loop, &x->task, finish, x);
    else
        atomic_fetch_add(&running, 1);
    *ret = (struct cm_run *)x;
    return 0;
}

void cm_run_abandon(struct cm_run *run, bool lost)
{
    struct cm_exec *x = (struct cm_exec *)run;

    (void)lost;
    cm_task_cancel(of(x)->loop, &x->task);
    atomic_fetch_add(&abandoned, 1);
    free(x);
}

const char *cm_run_id(const struct cm_run *x)
{
    (void)x;
    return "exec-1";
}

bool cm_run_repeated(const struct cm_run *x)
{
    (void)x;
    return false;
}

static void created(void *arg)
{
    struct cm_sessions *m = arg;

    m->created(m->arg, "session-1", NULL);
}

int cm_sessions_create_for(struct cm_sessions *m, const struct cm_session_owner *owner,
                           const struct cm_limits_asked *limits, const char *correlation_id,
                           void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                           struct cm_err *err)
{
    (void)owner;
    (void)limits;
    if (strcmp(correlation_id, "refuse") == 0)
        return cm_err_set(err, CM_ERR_MAX_SESSIONS, "there are 2 sessions");
    m->created = done;
    m->arg = arg;
    cm_task_post(m->loop, &m->task, created, m);
    return 0;
}

bool cm_sessions_ready(const struct cm_sessions *m)
{
    (void)m;
    return ready;
}

int cm_sessions_info(struct cm_sessions *m, const char *id, struct cm_session_info *ret, struct cm_err *err)
{
    (void)m;
    if (strcmp(id, "session-1") != 0)
        return cm_err_set(err, CM_ERR_NO_SESSION, "no session \"%s\"", id);
    *ret = (struct cm_session_info){.id = "session-1", .state = "idle", .expires_in_s = -1};
    ret->limits.at[CM_LIMIT_MEMORY] = 5000;
    return 0;
}

static uint64_t memory_left = UINT64_MAX;

uint64_t cm_pressure_left(struct cm_pressure *p)
{
    (void)p;
    return memory_left;
}

/* Variables: the file's text says what becomes of it. */

struct put {
    struct cm_task task;
    void (*done)(void *arg, const struct cm_put_result *res, const struct cm_err *err);
    void *arg;
    char text[5000];
};

static char put_name[CM_PUT_NAME_MAX + 1];
static int put_kind;
static atomic_int puts_held;

static void put_done(void *arg)
{
    struct put *p = arg;
    struct cm_err err;
    const struct cm_put_result res = {
        .type = "str", .length = strlen(p->text), .has_length = strcmp(p->text, "number") != 0};

    cm_err_set(&err, CM_ERR_BAD_FIELD, "body: is no UTF-8 at byte 3");
    p->done(p->arg, strcmp(p->text, "bad") == 0 ? NULL : &res, &err);
    free(p);
}

int cm_sessions_put(struct cm_sessions *m, const char *id, const struct cm_put_request *req,
                    void (*done)(void *arg, const struct cm_put_result *res, const struct cm_err *err), void *arg,
                    struct cm_exec **ret_exec, struct cm_err *err)
{
    struct put *p = calloc(1, sizeof *p);

    assert_string_equal(id, "session-1");
    assert_int_equal(write(req->fd, "x", 1), -1); /* sealed */
    assert_int_equal(pread(req->fd, p->text, sizeof p->text, 0), (ssize_t)req->length);
    close(req->fd);
    p->done = done;
    p->arg = arg;
    snprintf(put_name, sizeof put_name, "%.*s", (int)req->name_len, req->name);
    put_kind = req->kind;
    if (strcmp(p->text, "refuse") == 0) {
        free(p);
        return cm_err_set(err, CM_ERR_QUEUE_FULL, "the queue is full");
    }
    *ret_exec = (struct cm_exec *)p;
    if (strcmp(p->text, "hold") == 0)
        atomic_fetch_add(&puts_held, 1);
    else
        cm_task_post(m->loop, &p->task, put_done, p);
    return 0;
}

void cm_exec_abandon(struct cm_exec *exec)
{
    atomic_fetch_sub(&puts_held, 1);
    free(exec);
}

void cm_sessions_each(struct cm_sessions *m, void (*each)(void *arg, const struct cm_session_info *info), void *arg)
{
    struct cm_session_info info = {.id = "session-1", .owner = ""};

    (void)m;
    each(arg, &info);
    each(arg, &info);
}

/* The server */

static struct cm_conf conf;
static struct cm_api *api;
static struct cm_door *door;
static int stop_pipe[2];
static pthread_t thread;

static void on_stop(void *arg, int events)
{
    (void)events;
    cm_loop_stop(arg);
}

static void *serve(void *arg)
{
    cm_loop_run(arg);
    return NULL;
}

static struct cm_watch *stop_watch;
static struct cm_metrics *metrics;

static void on_http(void *arg, int fd, const struct sockaddr *peer, socklen_t len)
{
    (void)arg;
    cm_http_adopt(cm_api_http(api), fd, peer, len);
}

static unsigned connections(void *arg)
{
    (void)arg;
    return cm_http_connections(cm_api_http(api));
}

static void open_door(void)
{
    static const struct cm_door_ops ops = {.http = on_http, .connections = connections};
    static const unsigned any = 0;
    struct cm_door_config config = {
        .ports = &any, .ports_count = 1, .connections_max = 1000, .head_ms = 10000, .metrics = metrics};

    assert_int_equal(cm_listen_address("127.0.0.1", &config.address, NULL), 0);
    assert_int_equal(cm_door_open(manager.loop, &config, &ops, NULL, &door, NULL), 0);
}

static int start(void **state)
{
    (void)state;
    assert_int_equal(cm_conf_defaults(&conf, NULL), 0);
    conf.max_body = 4096;
    conf.max_code_length = 100;
    conf.max_upload = 8192;
    manager.loop = cm_loop_new(NULL);
    metrics = cm_metrics_new();
    struct cm_api_config config = {.conf = &conf,
                                   .sessions = &manager,
                                   .executor = (struct cm_executor *)&manager,
                                   .metrics = metrics,
                                   .loopback = true};
    assert_int_equal(cm_api_open(manager.loop, &config, &api, NULL), 0);
    open_door();
    assert_int_equal(pipe(stop_pipe), 0);
    stop_watch = cm_watch_open(manager.loop, stop_pipe[0], CM_EV_READ, on_stop, manager.loop, NULL);
    return pthread_create(&thread, NULL, serve, manager.loop);
}

static int stop(void **state)
{
    (void)state;
    assert_int_equal(write(stop_pipe[1], "", 1), 1);
    pthread_join(thread, NULL);
    cm_watch_close(stop_watch);
    door = cm_door_free(door);
    api = cm_api_free(api);
    cm_loop_free(manager.loop);
    cm_metrics_free(metrics);
    close(stop_pipe[0]);
    close(stop_pipe[1]);
    return 0;
}

/* The client */

static int dial(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)cm_door_port(door, 0)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 10};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) ||
        connect(fd, (struct sockaddr *)&to, sizeof(to)))
        abort();
    return fd;
}

static void say(int fd, const char *text, size_t len)
{
    assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* Reads until the server closes. A newer libuv's loop has an io_uring, whose end interrupts its maker once, a while
 * after the loop is gone; a socket with a timeout is not restarted by the kernel. */
static char *hear_all(int fd)
{
    static char text[65536];
    size_t used = 0;
    ssize_t n = 1;

    while (used < sizeof(text) - 1 && n != 0) {
        n = recv(fd, text + used, sizeof(text) - 1 - used, 0);
        if (n < 0 && errno != EINTR)
            break;
        used += n > 0 ? (size_t)n : 0;
    }
    text[used] = '\0';
    close(fd);
    return text;
}

#define H            "Host: localhost\r\n"
#define CLOSE        H "Connection: close\r\n"
#define JSON(length) CLOSE "Content-Type: application/json\r\nContent-Length: " length "\r\n\r\n"

struct exchange {
    const char *request;
    int status;
    const char *contains;
};

static void run_exchanges(const struct exchange *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int fd = dial(), status = 0;
        say(fd, list[i].request, strlen(list[i].request));
        const char *answer = hear_all(fd);
        sscanf(answer, "HTTP/1.1 %d", &status);
        if (status != list[i].status || !strstr(answer, list[i].contains))
            fail_msg("%s\n--- expected %d with \"%s\", got\n%s", list[i].request, list[i].status, list[i].contains,
                     answer);
    }
}

static void wait_for(atomic_int *value, int wanted)
{
    for (int i = 0; i < 500 && atomic_load(value) != wanted; i++)
        usleep(10000);
    assert_int_equal(atomic_load(value), wanted);
}

#endif
