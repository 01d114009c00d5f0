/* SPDX-License-Identifier: Apache-2.0 */
/* A server, and a loop that waits for what comes of a request to it. */
#ifndef CM_TESTS_EGRESS_WORLD_H
#define CM_TESTS_EGRESS_WORLD_H

#include <dlfcn.h>
#include <netdb.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "egress/egress.h"
#include "egress_server.h"
#include "ev/loop.h"

#define WAIT_MS 20000

struct world {
    struct server server;
    struct cm_loop *loop;
    struct cm_egress *egress;
    struct cm_timer *limit;
    unsigned started, ended; /* fetches */
    unsigned stop_at; /* the loop ends when so many have ended */
    bool late;
};

enum when { NEVER, IN_HEAD, IN_DATA, IN_DONE };

struct fetch {
    struct world *w;
    struct cm_fetch *f;
    struct cm_buf data;
    int head_status;
    unsigned heads, pieces, dones;
    struct cm_fetch_end end;
    char text[400], header[100];
    const char *header_name;
    enum when cancel_when, start_when;
    struct fetch *cancels; /* itself where NULL */
    struct fetch *next; /* is started */
    const char *next_path;
    bool over; /* is cancelled, or done */
};

static void fetch_begin(struct fetch *x, struct world *w, const struct cm_fetch_request *req);

static void world_count(struct world *w)
{
    if (++w->ended >= w->stop_at)
        cm_loop_stop(w->loop);
}

static void act(struct fetch *x, enum when now)
{
    struct fetch *victim = x->cancels ? x->cancels : x;

    if (x->start_when == now) {
        char url[200];
        snprintf(url, sizeof url, "http://127.0.0.1:%u%s", x->w->server.port, x->next_path);
        fetch_begin(x->next, x->w,
                    &(struct cm_fetch_request){.method = "GET", .url = url, .body_fd = -1, .answer_max = 1000});
    }
    if (x->cancel_when == now) {
        cm_fetch_cancel(victim->f);
        if (!victim->over)
            world_count(x->w);
        victim->over = true;
    }
}

static void on_fetch_head(void *arg, int status)
{
    struct fetch *x = arg;

    x->heads++;
    x->head_status = status;
    if (x->header_name) {
        const char *value = cm_fetch_header(x->f, x->header_name);
        snprintf(x->header, sizeof x->header, "%s", value ? value : "none");
    }
    act(x, IN_HEAD);
}

static void on_fetch_data(void *arg, const char *data, size_t len)
{
    struct fetch *x = arg;

    x->pieces++;
    if (cm_buf_append(&x->data, data, len) < 0)
        abort();
    act(x, IN_DATA);
}

static void on_fetch_done(void *arg, const struct cm_fetch_end *end)
{
    struct fetch *x = arg;
    bool over = x->over;

    x->dones++;
    x->end = *end;
    snprintf(x->text, sizeof x->text, "%s", end->text);
    x->over = true;
    act(x, IN_DONE);
    if (!over)
        world_count(x->w);
}

static const struct cm_fetch_ops fetch_ops = {.head = on_fetch_head, .data = on_fetch_data, .done = on_fetch_done};

static void fetch_begin(struct fetch *x, struct world *w, const struct cm_fetch_request *req)
{
    struct cm_err err = {0};

    x->w = w;
    cm_buf_init(&x->data, 64u << 20);
    if (cm_fetch_start(w->egress, req, &fetch_ops, x, &x->f, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    w->started++;
}

static void world_late(void *arg)
{
    struct world *w = arg;

    w->late = true;
    cm_loop_stop(w->loop);
}

static void world_open(struct world *w, unsigned connections_max, unsigned idle_max)
{
    struct cm_egress_config config = {.connections_max = connections_max, .idle_connections_max = idle_max};

    memset(w, 0, sizeof *w);
    server_begin(&w->server, NULL, NULL);
    w->loop = cm_loop_new(NULL);
    w->limit = cm_timer_open(w->loop, world_late, w, NULL);
    if (cm_egress_open(w->loop, &config, &w->egress, NULL) < 0)
        abort();
}

static void world_close(struct world *w)
{
    cm_egress_free(w->egress);
    cm_timer_close(w->limit);
    cm_loop_free(w->loop);
    server_end(&w->server);
}

/* Runs until so many fetches have ended, all together. */
static void await_ended(struct world *w, unsigned count)
{
    w->stop_at = count;
    cm_timer_start(w->limit, WAIT_MS, 0);
    if (w->ended < count)
        cm_loop_run(w->loop);
    cm_timer_stop(w->limit);
    assert_false(w->late);
    assert_true(w->ended >= count);
}

static struct cm_fetch_request request(struct world *w, const char *method, const char *path)
{
    static char url[300];

    snprintf(url, sizeof url, "http://127.0.0.1:%u%s", w->server.port, path);
    return (struct cm_fetch_request){.method = method, .url = url, .body_fd = -1, .answer_max = 1u << 20};
}

/* One request to its end. */
static void run(struct world *w, struct fetch *x, const struct cm_fetch_request *req)
{
    fetch_begin(x, w, req);
    await_ended(w, w->ended + 1);
}

static void run_path(struct world *w, struct fetch *x, const char *path)
{
    struct cm_fetch_request req = request(w, "GET", path);

    run(w, x, &req);
}

static void fetch_end(struct fetch *x)
{
    cm_buf_done(&x->data);
}

/* libcurl's look-ups come here. */
static sem_t look_up_goes_on;
static atomic_uint look_ups_waiting;

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **ret)
{
    static __typeof__(getaddrinfo) *real;

    if (host && strcmp(host, "slow.test") == 0) {
        look_ups_waiting++;
        sem_wait(&look_up_goes_on);
        look_ups_waiting--;
        return EAI_AGAIN;
    }
    if (host && strcmp(host, "unknown.test") == 0)
        return EAI_NONAME;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    return real(host, service, hints, ret);
}

#endif
