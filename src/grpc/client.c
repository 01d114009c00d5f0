/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the client: where they wait, when to connect, and their ends.
 *
 * A call that has ended stands in `ended` until its `done` is called, from one place (deliver), so that an owner may do in
 * `done` and `message` what it likes but free the client: cancel this or another call, make new ones, change certificates.
 * Links are closed in go_on only, which runs when no function of a session does.
 */
#include "grpc/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/clock.h"
#include "grpc/dial.h"
#include "net/stream.h"
#include "net/tls.h"

#define BACKOFF_FIRST_MS 1000
#define BACKOFF_MAX_MS   120000
#define GAP_MS           100 /* between two connections, also when the first one worked */
#define HEAD_MAX         16384
#define PAIRS_MAX        20

/* Requests */

void cm_grpc_request_free(struct cm_grpc_request *r)
{
    cm_buf_done(&r->head);
    cm_buf_done(&r->body);
    cm_buf_done(&r->text);
    cm_grpc_reader_done(&r->reader);
    free(r);
}

/* Takes it out of the list that it is in, and out of the sums. */
static void detach(struct cm_grpc_request *r)
{
    struct cm_grpc_client *c = r->client;

    if (r->ended) {
        DL_DELETE(c->ended, r);
        return;
    }
    if (r->link)
        cm_grpc_link_forget(r->link, r);
    else
        DL_DELETE(c->waiting, r);
    c->queued -= r->body.len - r->body_sent;
    if (--c->calls == 0)
        c->idle_since = cm_clock_ns();
}

void cm_grpc_request_end(struct cm_grpc_request *r, enum cm_grpc_status status, const char *text)
{
    detach(r);
    r->ended = true;
    r->status = status;
    if (text) {
        cm_buf_clear(&r->text);
        (void)cm_buf_puts(&r->text, text);
    }
    DL_APPEND(r->client->ended, r);
}

void cm_grpc_request_wait_again(struct cm_grpc_request *r)
{
    struct cm_grpc_client *c = r->client;

    cm_grpc_link_forget(r->link, r);
    c->queued += r->body_sent;
    r->body_sent = 0;
    r->sent = r->has_status = r->is_grpc = false;
    r->http = 0;
    r->header_size = 0;
    cm_buf_clear(&r->text);
    cm_grpc_reader_next(&r->reader);
    DL_PREPEND(c->waiting, r);
}

void cm_grpc_request_cancel(struct cm_grpc_request *r)
{
    struct cm_grpc_client *c = r->client;

    if (r->link)
        cm_grpc_link_reset(r->link, r);
    detach(r);
    if (r->in_callback)
        r->cancelled = true; /* whoever called back frees it */
    else
        cm_grpc_request_free(r);
    cm_grpc_client_go_on_soon(c);
}

static void deliver(struct cm_grpc_client *c)
{
    struct cm_grpc_request *r;

    while ((r = c->ended)) {
        DL_DELETE(c->ended, r);
        r->ops->done(r->arg, r->status, cm_buf_data(&r->text));
        cm_grpc_request_free(r);
    }
}

/* Time */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return !a || (b && b < a) ? b : a;
}

/* What is over already is no longer waited for: it ends with the attempt that is under way. */
static uint64_t first_deadline(const struct cm_grpc_request *list, uint64_t now)
{
    const struct cm_grpc_request *r;
    uint64_t due = 0;

    DL_FOREACH(list, r)
    {
        due = earlier(due, r->deadline);
        due = earlier(due, !r->link && r->patience > now ? r->patience : 0);
    }
    return due;
}

/* No connection is there, and the last attempt has failed. */
static bool is_away(const struct cm_grpc_client *c)
{
    return c->failures && (!c->link || c->link->ready_by);
}

static bool is_idle(const struct cm_grpc_client *c, uint64_t now)
{
    return c->link && c->calls == 0 && c->options.idle_ms && now - c->idle_since >= c->options.idle_ms * CM_NS_PER_MS;
}

/* Deadlines are looked through only when the timer has fired: each has been told to it before. */
static uint64_t client_due(const struct cm_grpc_client *c, bool deadlines)
{
    const struct cm_grpc_link *l;
    uint64_t now = deadlines ? cm_clock_ns() : 0;
    uint64_t due = c->link ? cm_grpc_link_due(c->link) : c->waiting ? c->attempt_after : 0;

    if (c->link && c->calls == 0 && c->options.idle_ms)
        due = earlier(due, c->idle_since + c->options.idle_ms * CM_NS_PER_MS);
    if (deadlines) {
        due = earlier(due, first_deadline(c->waiting, now));
        due = earlier(due, c->link ? first_deadline(c->link->requests, now) : 0);
    }
    DL_FOREACH(c->retiring, l)
    {
        due = earlier(due, cm_grpc_link_due(l));
        due = earlier(due, deadlines ? first_deadline(l->requests, now) : 0);
    }
    return due;
}

static void wake_at(struct cm_grpc_client *c, uint64_t at)
{
    uint64_t now;

    if (!at || (c->timer_at && c->timer_at <= at))
        return;
    now = cm_clock_ns();
    c->timer_at = at;
    cm_timer_start(c->timer, at > now ? (at - now + CM_NS_PER_MS - 1) / CM_NS_PER_MS : 0, 0);
}

static void end_impatient(struct cm_grpc_client *c, uint64_t now);

static void end_late(struct cm_grpc_request *list, uint64_t now)
{
    struct cm_grpc_request *r, *next;
    char text[CM_ERR_TEXT_MAX + 200];

    DL_FOREACH_SAFE(list, r, next)
    {
        const struct cm_grpc_client *c = r->client;
        if (now < r->deadline)
            continue;
        if (r->link)
            cm_grpc_link_reset(r->link, r);
        if (r->link || !c->failures)
            snprintf(text, sizeof text, "%s did not answer within the deadline", c->target);
        else
            snprintf(text, sizeof text, "no connection to %s within the deadline: %s", c->target, c->why.text);
        cm_grpc_request_end(r, CM_GRPC_DEADLINE_EXCEEDED, text);
    }
}

static void on_timer(void *arg)
{
    struct cm_grpc_client *c = arg;
    struct cm_grpc_link *l;
    uint64_t now = cm_clock_ns();

    c->timer_at = 0;
    end_late(c->waiting, now);
    if (is_away(c))
        end_impatient(c, now);
    DL_FOREACH(c->retiring, l)
    {
        end_late(l->requests, now);
        cm_grpc_link_tick(l, now);
    }
    if (c->link) {
        end_late(c->link->requests, now);
        cm_grpc_link_tick(c->link, now);
    }
    if (is_idle(c, now))
        c->link->retiring = true;
    cm_grpc_client_go_on(c);
    wake_at(c, client_due(c, true));
}

/* Connections */

/* +-20 % of the pause that is due after so many failures. */
static uint64_t backoff_ns(struct cm_grpc_client *c)
{
    double ms = BACKOFF_FIRST_MS, max = c->options.backoff_max_ms ? c->options.backoff_max_ms : BACKOFF_MAX_MS;

    for (unsigned i = 1; i < c->failures && ms < max; i++)
        ms *= 1.6;
    if (ms > max)
        ms = max;
    c->dice = c->dice * 6364136223846793005u + 1442695040888963407u;
    return (uint64_t)(ms * (0.8 + 0.4 * (double)(c->dice >> 40) / (1 << 24))) * CM_NS_PER_MS;
}

static void not_connected(struct cm_grpc_client *c, uint64_t began, const struct cm_err *why)
{
    c->failures++;
    c->why = *why;
    c->attempted = began;
    c->attempt_after = began + backoff_ns(c);
}

/* A connection is over. What it may have carried to the server answers UNAVAILABLE, the rest waits for the next one. */
static void bury(struct cm_grpc_client *c, struct cm_grpc_link *l)
{
    struct cm_grpc_request *r, *next;
    char text[CM_ERR_TEXT_MAX + 200];

    snprintf(text, sizeof text, "connection to %s lost: %s", c->target, l->why.text);
    DL_FOREACH_SAFE(l->requests, r, next)
    {
        if (r->sent || r->repeated) {
            cm_grpc_request_end(r, CM_GRPC_UNAVAILABLE, text);
        } else {
            r->repeated = true;
            cm_grpc_request_wait_again(r);
        }
    }
    if (l->gone && l->ready_by) {
        not_connected(c, l->began, &l->why);
    } else if (!l->ready_by) {
        c->failures = 0;
        c->attempt_after = l->began + GAP_MS * CM_NS_PER_MS;
    }
    cm_grpc_link_close(l);
}

/* Sends, and sorts the connections: those that are lost go, those that retire go behind their last call. */
static void step_links(struct cm_grpc_client *c)
{
    struct cm_grpc_link *l, *next;

    DL_FOREACH_SAFE(c->retiring, l, next)
    {
        cm_grpc_link_step(l);
        if (!l->gone && l->requests)
            continue;
        DL_DELETE(c->retiring, l);
        bury(c, l);
    }
    if ((l = c->link)) {
        cm_grpc_link_step(l);
        if (l->gone || (l->retiring && !l->requests)) {
            c->link = NULL;
            bury(c, l);
        } else if (l->retiring) {
            c->link = NULL;
            DL_APPEND(c->retiring, l);
            c->failures = 0;
            c->attempt_after = l->began + GAP_MS * CM_NS_PER_MS;
        }
    }
}

static void end_impatient(struct cm_grpc_client *c, uint64_t now)
{
    struct cm_grpc_request *r, *next;
    char text[CM_ERR_TEXT_MAX + 200];

    snprintf(text, sizeof text, "no connection to %s: %s", c->target, c->why.text);
    DL_FOREACH_SAFE(c->waiting, r, next)
    if (r->ops->fail_fast || (r->patience && r->patience <= now))
        cm_grpc_request_end(r, CM_GRPC_UNAVAILABLE, text);
}

static void connect_if_wanted(struct cm_grpc_client *c)
{
    uint64_t now = cm_clock_ns();
    struct cm_err why;

    if (c->link || !c->waiting)
        return;
    if (now >= c->attempt_after) {
        c->link = cm_grpc_link_new(c);
        if (c->link)
            return;
        cm_err_set(&why, CM_ERR_NO_MEMORY, "no memory for a connection");
        not_connected(c, now, &why);
    }
    if (c->failures)
        end_impatient(c, now);
}

static void dispatch(struct cm_grpc_client *c)
{
    unsigned room = c->link ? cm_grpc_link_room(c->link) : 0;

    for (; c->waiting && room > 0; room--) {
        struct cm_grpc_request *r = c->waiting;
        DL_DELETE(c->waiting, r);
        if (cm_grpc_link_take(c->link, r))
            continue;
        DL_PREPEND(c->waiting, r);
        c->link->retiring = true; /* out of stream numbers, or of memory */
        cm_grpc_client_go_on_soon(c);
        return;
    }
}

void cm_grpc_client_go_on(struct cm_grpc_client *c)
{
    deliver(c); /* first, so that calls made in there go out with this write */
    cm_task_cancel(c->loop, &c->task);
    dispatch(c);
    step_links(c);
    connect_if_wanted(c);
    deliver(c);
    wake_at(c, client_due(c, false));
}

static void on_task(void *arg)
{
    cm_grpc_client_go_on(arg);
}

void cm_grpc_client_go_on_soon(struct cm_grpc_client *c)
{
    cm_task_post(c->loop, &c->task, on_task, c);
}

/* Calls */

static bool is_key(const char *key)
{
    return *key && key[strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789-_.")] == '\0';
}

static bool is_value(const char *value)
{
    for (; *value; value++)
        if (*value < 0x20 || *value > 0x7E)
            return false;
    return true;
}

static int put_head(struct cm_grpc_request *r, const char *path, const struct cm_grpc_metadata *metadata, size_t count,
                    struct cm_err *err)
{
    int rc = cm_buf_append(&r->head, path, strlen(path) + 1);

    if (count > PAIRS_MAX)
        return cm_err_set(err, CM_ERR_TOO_LARGE, "%zu entries of metadata, at most %d may be", count, PAIRS_MAX);
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (!is_key(metadata[i].key) || !is_value(metadata[i].value))
            return cm_err_set(err, CM_ERR_BAD_FIELD, "metadata %.60s: not printable ASCII", metadata[i].key);
        rc = cm_buf_append(&r->head, metadata[i].key, strlen(metadata[i].key) + 1);
        if (rc == 0)
            rc = cm_buf_append(&r->head, metadata[i].value, strlen(metadata[i].value) + 1);
    }
    return rc < 0 ? cm_err_set(err, rc, "metadata has more than %d bytes", HEAD_MAX) : 0;
}

static int check_room(const struct cm_grpc_client *c, size_t len, struct cm_err *err)
{
    if (c->calls >= c->options.calls_max)
        return cm_err_set(err, CM_ERR_OVERLOADED, "%u calls to %s are running, that is the maximum", c->calls,
                          c->target);
    if (len > c->options.queue_max || c->queued > c->options.queue_max - len)
        return cm_err_set(err, CM_ERR_OVERLOADED, "%zu bytes of calls wait for %s, at most %zu may", c->queued + len,
                          c->target, c->options.queue_max);
    return 0;
}

/* How long it waits for a connection, and whether the next attempt is due because of it. */
static void hurry(struct cm_grpc_client *c, struct cm_grpc_request *r)
{
    const struct cm_grpc_client_options *o = &c->options;
    uint64_t now = cm_clock_ns();

    if (o->connect_ms)
        r->patience = now + o->connect_ms * CM_NS_PER_MS;
    if (o->eager_ms && c->failures && now >= c->attempted + o->eager_ms * CM_NS_PER_MS && c->attempt_after > now)
        c->attempt_after = now;
}

struct cm_grpc_request *cm_grpc_client_call(struct cm_grpc_client *c, const char *path,
                                            const struct cm_grpc_metadata *metadata, size_t count, const void *message,
                                            size_t len, uint64_t deadline_ns, const struct cm_grpc_request_ops *ops,
                                            void *arg, struct cm_err *err)
{
    struct cm_grpc_request *r;

    if (check_room(c, len, err) < 0)
        return NULL;
    if (!(r = calloc(1, sizeof *r))) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a call");
        return NULL;
    }
    r->client = c;
    r->ops = ops;
    r->arg = arg;
    r->deadline = deadline_ns;
    hurry(c, r);
    cm_buf_init(&r->head, HEAD_MAX);
    cm_buf_init(&r->body, CM_GRPC_PREFIX + len);
    cm_buf_init(&r->text, 4 * CM_GRPC_TEXT_MAX);
    cm_grpc_reader_init(&r->reader, c->options.message_max);
    int rc = put_head(r, path, metadata, count, err);
    if (rc == 0 && (rc = cm_grpc_put_message(&r->body, message, len)) < 0)
        cm_err_set(err, rc, "no memory for a call of %zu bytes", len);
    if (rc < 0) {
        cm_grpc_request_free(r);
        return NULL;
    }
    DL_APPEND(c->waiting, r);
    c->calls++;
    c->queued += r->body.len;
    wake_at(c, earlier(deadline_ns, r->patience));
    cm_grpc_client_go_on_soon(c);
    return r;
}

/* Clients */

/* "host:port", "[::1]:port". */
static int take_target(struct cm_grpc_client *c, struct cm_err *err)
{
    char *colon = strrchr(c->host, ':'), *end = NULL;
    unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
    size_t len = colon ? (size_t)(colon - c->host) : 0;
    bool brackets = len > 2 && c->host[0] == '[' && colon[-1] == ']';

    if (len == 0 || end == colon + 1 || *end || port < 1 || port > 65535 || (!brackets && memchr(c->host, ':', len)) ||
        !is_value(c->host) || strchr(c->host, ' '))
        return cm_err_set(err, CM_ERR_CONFIG, "\"%.100s\" is not host:port", c->target);
    *colon = '\0';
    if (brackets) {
        memmove(c->host, c->host + 1, len - 2);
        c->host[len - 2] = '\0';
    }
    c->port = (unsigned)port;
    return 0;
}

static int set_up(struct cm_grpc_client *c, const char *target, struct cm_err *err)
{
    c->target = strdup(target);
    c->host = strdup(target);
    c->user_agent = strdup(c->options.user_agent ? c->options.user_agent : "codemode");
    if (!c->target || !c->host || !c->user_agent || nghttp2_session_callbacks_new(&c->callbacks) != 0 ||
        nghttp2_option_new(&c->option) != 0)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a gRPC client");
    cm_grpc_link_callbacks(c->callbacks);
    nghttp2_option_set_no_closed_streams(c->option, 1);
    nghttp2_option_set_max_deflate_dynamic_table_size(c->option, 4096);
    nghttp2_option_set_peer_max_concurrent_streams(c->option, 1u << 30); /* cm_grpc_link_room() counts */
    if (!(c->timer = cm_timer_open(c->loop, on_timer, c, err)))
        return CM_ERR_NO_MEMORY;
    return take_target(c, err);
}

struct cm_grpc_client *cm_grpc_client_new(struct cm_loop *loop, const char *target, struct cm_tls *tls,
                                          const struct cm_grpc_client_options *options, struct cm_err *err)
{
    struct cm_grpc_client *c = calloc(1, sizeof *c);

    if (!c) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a gRPC client");
        return NULL;
    }
    c->loop = loop;
    c->options = *options;
    c->idle_since = cm_clock_ns();
    c->dice = c->idle_since ^ (uintptr_t)c;
    c->tls = tls ? cm_tls_ref(tls) : NULL;
    return set_up(c, target, err) < 0 ? cm_grpc_client_free(c) : c;
}

void cm_grpc_client_set_tls(struct cm_grpc_client *c, struct cm_tls *tls)
{
    struct cm_tls *old = c->tls;

    c->tls = tls ? cm_tls_ref(tls) : NULL;
    cm_tls_unref(old);
    if (c->link)
        c->link->retiring = true;
    cm_grpc_client_go_on_soon(c);
}

bool cm_grpc_client_connected(const struct cm_grpc_client *c)
{
    return c->link && c->link->ready_by == 0 && !c->link->gone && !c->link->retiring;
}

static void cancel_all(struct cm_grpc_request *list)
{
    struct cm_grpc_request *r, *next;

    DL_FOREACH_SAFE(list, r, next)
    cm_grpc_request_end(r, CM_GRPC_CANCELLED, "the client is closed");
}

struct cm_grpc_client *cm_grpc_client_free(struct cm_grpc_client *c)
{
    struct cm_grpc_link *l, *next;

    if (!c)
        return NULL;
    c->options.calls_max = 0; /* whoever is told of an end makes no new call */
    cancel_all(c->waiting);
    if (c->link)
        DL_APPEND(c->retiring, c->link);
    c->link = NULL;
    DL_FOREACH_SAFE(c->retiring, l, next)
    {
        cancel_all(l->requests);
        DL_DELETE(c->retiring, l);
        cm_grpc_link_close(l);
    }
    deliver(c);
    cm_task_cancel(c->loop, &c->task);
    c->timer = cm_timer_close(c->timer);
    nghttp2_session_callbacks_del(c->callbacks);
    nghttp2_option_del(c->option);
    cm_tls_unref(c->tls);
    free(c->target);
    free(c->host);
    free(c->user_agent);
    free(c);
    return NULL;
}
