/* SPDX-License-Identifier: Apache-2.0 */
/* A sidecar that does as it is told, and a client of it. Its executions are scripts that stand in the code. */
#ifndef CM_TESTS_SIDECAR_WORLD_H
#define CM_TESTS_SIDECAR_WORLD_H

#include "base/buf.h"
#include "egress/egress.h"
#include "egress_server.h"
#include "ev/loop.h"
#include "sidecar/sidecar.h"

#define WAIT_MS 20000

/* The sidecar; its lock is the server's */

struct fake {
    unsigned busy; /* so many creations are refused */
    const char *busy_answer;
    bool hold; /* creations wait */
    unsigned creating, created, deleted, delete_failures;
    char created_with[300], deleted_id[100];
    const char *put_status, *put_answer;
    char put_line[100], put_type[100], put_sum[64];
    char execute_request[2000], execute_head[1000];
    unsigned answers, answer_failures, interrupts;
    char interrupt_body[100];
    const char *answer_status;
    char answer_line[10][200], answer_body[10][300];
    size_t answer_len[10];
};

static void lock(struct connection *c)
{
    pthread_mutex_lock(&c->s->lock);
}

static void unlock(struct connection *c)
{
    pthread_cond_broadcast(&c->s->moved);
    pthread_mutex_unlock(&c->s->lock);
}

static void json(struct connection *c, const char *status, const char *body)
{
    answer(c->fd, status, "Content-Type: application/json\r\n", body);
}

/* The rest of a body that is larger than our memory for it. */
static void drain(struct connection *c, size_t *ret_len, unsigned long *ret_sum)
{
    char piece[65536];
    size_t got = c->body_got;
    ssize_t n;

    for (*ret_sum = 0, n = 0; (size_t)n < got; n++)
        *ret_sum += (unsigned char)c->body[n];
    while (got < c->body_len && (n = recv(c->fd, piece, sizeof piece, 0)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            *ret_sum += (unsigned char)piece[i];
        got += (size_t)n;
    }
    *ret_len = got;
}

static void copy_line(char *to, size_t room, const char *head)
{
    snprintf(to, room, "%.*s", (int)strcspn(head, "\r"), head);
}

static void create(struct connection *c, struct fake *f)
{
    lock(c);
    f->creating++;
    unlock(c);
    lock(c);
    while (f->hold && !c->s->ending)
        pthread_cond_wait(&c->s->moved, &c->s->lock);
    bool busy = f->busy > 0;
    f->busy -= busy;
    f->created += !busy;
    snprintf(f->created_with, sizeof f->created_with, "%s", c->body);
    unlock(c);
    if (busy)
        answer(c->fd, "429 Too Many Requests", "Retry-After: 1\r\n", f->busy_answer);
    else
        json(c, "200 OK", "{\"session_id\": \"session-1\"}");
}

static void delete(struct connection *c, struct fake *f)
{
    lock(c);
    bool fail = f->delete_failures > 0;
    f->delete_failures -= fail;
    f->deleted += !fail;
    copy_line(f->deleted_id, sizeof f->deleted_id, c->head);
    unlock(c);
    json(c, fail ? "503 Service Unavailable" : "200 OK", "{}");
}

static void put(struct connection *c, struct fake *f)
{
    size_t len;
    unsigned long sum;
    const char *type = strcasestr(c->head, "\r\nContent-Type: ");

    copy_line(f->put_line, sizeof f->put_line, c->head);
    copy_line(f->put_type, sizeof f->put_type, type ? type + 16 : "none");
    drain(c, &len, &sum);
    snprintf(f->put_sum, sizeof f->put_sum, "%zu %lu", len, sum);
    json(c, f->put_status, f->put_answer);
}

static void take_answer(struct connection *c, struct fake *f)
{
    size_t len;
    unsigned long sum;

    drain(c, &len, &sum);
    lock(c);
    bool fail = f->answer_failures > 0;
    const char *status = fail ? "503 Service Unavailable" : f->answer_status ? f->answer_status : "200 OK";
    f->answer_failures -= fail;
    if (!fail) {
        copy_line(f->answer_line[f->answers], sizeof f->answer_line[0], c->head);
        snprintf(f->answer_body[f->answers], sizeof f->answer_body[0], "%.*s", (int)c->body_got, c->body);
        f->answer_len[f->answers++] = len;
    }
    unlock(c);
    json(c, status,
         status[0] == '2' ? "{\"status\": \"ok\"}" : "{\"detail\": \"too long for me\", \"code\": \"too_large\"}");
}

static void interrupt(struct connection *c, struct fake *f)
{
    lock(c);
    unsigned count = ++f->interrupts;
    snprintf(f->interrupt_body, sizeof f->interrupt_body, "%.*s", (int)c->body_got, c->body);
    unlock(c);
    json(c, "200 OK",
         count > 2 ? "{\"status\":\"ok\",\"interrupted\":true}" : "{\"status\":\"ok\",\"interrupted\":false}");
}

static void say_chunk(int fd, const char *data, size_t len)
{
    char head[20];

    snprintf(head, sizeof head, "%zx\r\n", len);
    say(fd, head);
    send_text(fd, data, len);
    say(fd, "\r\n");
}

static void await_count(struct connection *c, const unsigned *count, unsigned want)
{
    lock(c);
    while (*count < want && !c->s->ending)
        pthread_cond_wait(&c->s->moved, &c->s->lock);
    unlock(c);
}

/* A line of the script is an event as it stands, or what to wait for. */
static bool play(struct connection *c, struct fake *f, const char *line, size_t len)
{
    char event[4096];

    if (strncmp(line, "await answers ", 14) == 0)
        await_count(c, &f->answers, (unsigned)strtoul(line + 14, NULL, 10));
    else if (strncmp(line, "await interrupts ", 17) == 0)
        await_count(c, &f->interrupts, (unsigned)strtoul(line + 17, NULL, 10));
    else if (strncmp(line, "await end", 9) == 0)
        await_end(c);
    else if (strncmp(line, "cut", 3) == 0)
        return false;
    else if (strncmp(line, "huge", 4) == 0) {
        char piece[65536];
        memset(piece, 'x', sizeof piece);
        say_chunk(c->fd, "data: ", 6);
        for (unsigned i = 0; i < 1000 && !c->s->ending; i++)
            say_chunk(c->fd, piece, sizeof piece);
    } else {
        snprintf(event, sizeof event, "%s%.*s\n\n", strchr("d:", line[0]) ? "" : "event: ", (int)len, line);
        for (char *at = event; (at = strchr(at, '|')); at++)
            *at = '\n';
        say_chunk(c->fd, event, strlen(event));
    }
    return true;
}

/* The code is the script: `\n` between its lines, as JSON writes it. */
static bool execute(struct connection *c, struct fake *f)
{
    char script[4000];
    size_t len = 0;

    snprintf(f->execute_request, sizeof f->execute_request, "%s", c->body);
    snprintf(f->execute_head, sizeof f->execute_head, "%.*s", (int)(c->body - c->head), c->head);
    for (const char *at = strstr(c->body, "\"code\": \"") + 9; *at != '"' && len < sizeof script - 1; at++) {
        if (*at == '\\')
            script[len++] = *++at == 'n' ? '\n' : *at;
        else
            script[len++] = *at;
    }
    script[len] = '\0';
    if (script[0] == '!') { /* no stream */
        char *body = strchr(script, ' ') + 1;
        script[strcspn(script, " ")] = '\0';
        json(c, script + 1, body);
        return true;
    }
    say(c->fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (char *line = script, *next; line; line = next) {
        next = strchr(line, '\n');
        if (!play(c, f, line, next ? (size_t)(next - line) : strlen(line)))
            return false;
        next = next ? next + 1 : NULL;
    }
    say(c->fd, "0\r\n\r\n");
    return true;
}

static bool handle(struct connection *c)
{
    struct fake *f = c->s->arg;

    if (strncmp(c->head, "GET /ready ", 11) == 0)
        json(c, f->busy ? "503 Service Unavailable" : "200 OK", "{}");
    else if (strncmp(c->head, "POST /session ", 14) == 0)
        create(c, f);
    else if (strncmp(c->head, "DELETE ", 7) == 0)
        delete (c, f);
    else if (strncmp(c->head, "PUT ", 4) == 0)
        put(c, f);
    else if (strstr(c->head, "/calls/"))
        take_answer(c, f);
    else if (strstr(c->head, "/interrupt "))
        interrupt(c, f);
    else
        return execute(c, f);
    return true;
}

/* Our side */

struct world {
    struct server server;
    struct fake fake;
    struct cm_loop *loop;
    struct cm_egress *egress;
    struct cm_sidecar *sidecar;
    struct cm_timer *limit, *look;
    bool done, late;
    bool ready;
    char id[100];
    struct cm_err err;
    struct cm_sidecar_op *op;
    /* of an execution */
    struct cm_sidecar_exec *x;
    char seen[4000]; /* what came, in words */
    bool abandon_in_output, abandon_in_call, abandon_in_done, abandon_in_result, interrupt_in_result, answer_in_call,
        fail_in_call, interrupt_in_output;
    const char *then; /* code behind that which begin() runs */
    const char *result;
    size_t result_len;
    const unsigned *count;
    unsigned want;
};

static void end_wait(void *arg)
{
    struct world *w = arg;

    w->late = true;
    cm_loop_stop(w->loop);
}

static void look(void *arg)
{
    struct world *w = arg;

    pthread_mutex_lock(&w->server.lock);
    bool there = w->count && *w->count >= w->want;
    pthread_mutex_unlock(&w->server.lock);
    if (there)
        cm_loop_stop(w->loop);
}

static void world_open(struct world *w)
{
    struct cm_egress_config egress = {.connections_max = 1, .idle_connections_max = 8};
    char url[60];
    struct cm_sidecar_config config = {.url = url, .api_key = "the key"};

    memset(w, 0, sizeof *w);
    w->fake.put_status = "200 OK";
    w->fake.put_answer = "{\"name\": \"context\"}";
    server_begin(&w->server, handle, &w->fake);
    snprintf(url, sizeof url, "http://127.0.0.1:%u/", w->server.port);
    w->loop = cm_loop_new(NULL);
    w->limit = cm_timer_open(w->loop, end_wait, w, NULL);
    w->look = cm_timer_open(w->loop, look, w, NULL);
    assert_int_equal(cm_egress_open(w->loop, &egress, &w->egress, NULL), 0);
    assert_int_equal(cm_sidecar_open(w->loop, w->egress, &config, &w->sidecar, NULL), 0);
}

static void world_close(struct world *w)
{
    w->sidecar = cm_sidecar_free(w->sidecar);
    cm_egress_free(w->egress);
    cm_timer_close(w->limit);
    cm_timer_close(w->look);
    cm_loop_free(w->loop);
    server_end(&w->server);
}

static void await(struct world *w)
{
    cm_timer_start(w->limit, WAIT_MS, 0);
    if (!w->done)
        cm_loop_run(w->loop);
    cm_timer_stop(w->limit);
    assert_false(w->late);
    w->done = false;
}

/* Until the fake sidecar has counted so far. */
static void await_fake(struct world *w, const unsigned *count, unsigned want)
{
    w->count = count;
    w->want = want;
    cm_timer_start(w->look, 1, 1);
    await(w);
    cm_timer_stop(w->look);
    w->count = NULL;
}

static void finish(struct world *w)
{
    w->done = true;
    cm_loop_stop(w->loop);
}

static void on_ping(void *arg, bool ready)
{
    ((struct world *)arg)->ready = ready;
    finish(arg);
}

static void on_created(void *arg, const char *id, const struct cm_err *err)
{
    struct world *w = arg;

    assert_true((id == NULL) == (err != NULL));
    snprintf(w->id, sizeof w->id, "%s", id ? id : "");
    w->err = err ? *err : (struct cm_err){0};
    finish(w);
}

static void on_put(void *arg, const struct cm_err *err)
{
    struct world *w = arg;

    w->err = err ? *err : (struct cm_err){0};
    finish(w);
}

#endif
