/* SPDX-License-Identifier: Apache-2.0 */
/* A call: one request after another until one of them has come to something, or no further one can help. */
#include "llm/llm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "ev/loop.h"
#include "llm/internal.h"

#define BODY_MAX       (256u << 20)
#define URL_LEN_MAX    4096
#define LINGER_MS      5000 /* for what a service still sends when its answer has ended: usage, the end of the stream */
#define DEADLINE_MAX_S 1e9
#define ATTEMPTS_MAX   10
#define QUIRKS_MAX     32
#define STREAM_FACTOR  256 /* bytes of a stream for one of its text: each word is an object of its own */
#define WINDOW_DEFAULT 128000

extern const unsigned char cm_llm_asset_models_json[];
extern const size_t cm_llm_asset_models_json_size;

/* What we have learned of a model at a place. */
struct quirk {
    char where[200];
    unsigned what;
};

struct cm_llm {
    struct cm_loop *loop;
    struct cm_egress *egress;
    struct cm_llm_config config;
    struct cm_llm_table table;
    struct cm_llm_call *calls;
    struct quirk quirks[QUIRKS_MAX];
    unsigned quirk_next;
};

struct cm_llm_call {
    struct cm_llm_call *prev, *next;
    struct cm_llm *llm;
    struct cm_llm_model model;
    struct cm_llm_ops ops;
    void *arg;
    struct cm_timer *timer; /* the wait between two attempts, or the linger behind the last */
    struct cm_fetch *fetch;
    struct cm_llm_reader reader;
    struct cm_buf body, url;
    size_t body_begin; /* bytes that all attempts share */
    char host[100];
    uint64_t began_ns, deadline_ns; /* 0: none */
    uint64_t estimate;
    struct cm_llm_usage usage;
    struct cm_llm_verdict verdict;
    unsigned attempts, empties, quirks, counted;
    int status;
    bool told; /* words of it went to the caller */
    bool lingering;
    bool inside, dead; /* a callback of the caller runs; it has cancelled */
};

static const struct cm_llm_config defaults = {.timeout_s = 300,
                                              .idle_timeout_s = 120,
                                              .attempts = 4,
                                              .backoff_s = 0.5,
                                              .backoff_max_s = 30,
                                              .reply_max = 8u << 20};

int cm_llm_open(struct cm_loop *loop, struct cm_egress *egress, const struct cm_llm_config *config, struct cm_llm **ret,
                struct cm_err *err)
{
    struct cm_llm *l = calloc(1, sizeof *l);
    int rc;

    if (!l)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for requests to models");
    *l = (struct cm_llm){.loop = loop, .egress = egress, .config = *config};
    struct cm_llm_config *to = &l->config;
    to->timeout_s = to->timeout_s > 0 ? to->timeout_s : defaults.timeout_s;
    to->idle_timeout_s = to->idle_timeout_s > 0 ? to->idle_timeout_s : defaults.idle_timeout_s;
    to->attempts = to->attempts == 0 ? defaults.attempts : to->attempts < ATTEMPTS_MAX ? to->attempts : ATTEMPTS_MAX;
    to->backoff_s = to->backoff_s > 0 ? to->backoff_s : defaults.backoff_s;
    to->backoff_max_s = to->backoff_max_s > 0 ? to->backoff_max_s : defaults.backoff_max_s;
    to->reply_max = to->reply_max ? to->reply_max : defaults.reply_max;
    rc = cm_llm_table_add(&l->table, (const char *)cm_llm_asset_models_json, cm_llm_asset_models_json_size, err);
    if (rc == 0 && config->prices)
        rc = cm_llm_table_add(&l->table, config->prices, strlen(config->prices), err);
    if (rc < 0) {
        cm_llm_free(l);
        return rc;
    }
    *ret = l;
    return 0;
}

static void dispose(struct cm_llm_call *c)
{
    cm_fetch_cancel(c->fetch);
    cm_timer_close(c->timer);
    cm_llm_reader_done(&c->reader);
    cm_buf_done(&c->body);
    cm_buf_done(&c->url);
    free(c);
}

static void unlink_call(struct cm_llm_call *c)
{
    if (c->prev)
        c->prev->next = c->next;
    else
        c->llm->calls = c->next;
    if (c->next)
        c->next->prev = c->prev;
}

void cm_llm_cancel(struct cm_llm_call *c)
{
    if (!c || c->dead)
        return;
    c->dead = true;
    unlink_call(c);
    cm_fetch_cancel(cm_steal(c->fetch));
    c->timer = cm_timer_close(c->timer);
    if (!c->inside)
        dispose(c);
}

struct cm_llm *cm_llm_free(struct cm_llm *l)
{
    if (!l)
        return NULL;
    while (l->calls)
        cm_llm_cancel(l->calls);
    cm_llm_table_done(&l->table);
    free(l);
    return NULL;
}

/* ---- what a service does not understand */

static void where(const struct cm_llm_call *c, char ret[static 200])
{
    snprintf(ret, 200, "%s %s", c->model.base_url, c->model.name);
}

static unsigned known_quirks(const struct cm_llm_call *c)
{
    char name[200];

    where(c, name);
    for (unsigned i = 0; i < QUIRKS_MAX; i++)
        if (strcmp(c->llm->quirks[i].where, name) == 0)
            return c->llm->quirks[i].what;
    return 0;
}

static void learn_quirks(struct cm_llm_call *c)
{
    struct cm_llm *l = c->llm;
    char name[200];

    where(c, name);
    for (unsigned i = 0; i < QUIRKS_MAX; i++)
        if (strcmp(l->quirks[i].where, name) == 0)
            l->quirks[i].what |= c->quirks;
    if (known_quirks(c) == c->quirks)
        return;
    struct quirk *q = &l->quirks[l->quirk_next++ % QUIRKS_MAX];
    memcpy(q->where, name, sizeof name);
    q->what = c->quirks;
}

/* ---- the end of a call */

/* A service may answer with what it was sent. */
static void hide_key(const struct cm_llm_call *c, char *text)
{
    size_t len = c->model.api_key ? strlen(c->model.api_key) : 0;

    for (char *at = text; len >= 6 && (at = strstr(at, c->model.api_key)); at += len)
        memset(at, '*', len);
}

/* It is cleared away by leave(). */
static void finish(struct cm_llm_call *c)
{
    unlink_call(c);
    c->dead = true;
    c->usage.priced = c->counted > 0 && c->usage.priced;
    hide_key(c, c->verdict.reason);
    const struct cm_llm_reply reply = {
        .failure = c->verdict.failure,
        .text = cm_buf_data(&c->reader.text),
        .len = c->reader.text.len,
        .reason = c->verdict.reason,
        .finish = c->reader.finish,
        .model = *c->reader.model ? c->reader.model : c->model.name,
        .usage = c->usage,
        .attempts = c->attempts,
        .seconds = (double)(cm_clock_ns() - c->began_ns) / CM_NS_PER_S,
    };
    c->ops.done(c->arg, &reply);
}

static double left(const struct cm_llm_call *c)
{
    uint64_t now = cm_clock_ns();

    if (!c->deadline_ns)
        return HUGE_VAL;
    return now < c->deadline_ns ? (double)(c->deadline_ns - now) / CM_NS_PER_S : 0;
}

/* What an answer has cost, also one that was of no use. */
static void count(struct cm_llm_call *c)
{
    struct cm_llm_reader *r = &c->reader;
    struct cm_llm_usage u = r->usage;

    if (c->status < 200 || c->status > 299 || !(r->has_usage || r->answer))
        return;
    if (!r->has_usage || (u.input_tokens == 0 && u.output_tokens == 0)) {
        u.estimated = true;
        u.input_tokens = c->estimate;
        u.output_tokens = cm_llm_estimate(cm_buf_data(&r->text), r->text.len);
    }
    u.priced = r->has_cost;
    if (!u.priced)
        cm_llm_table_price(&c->llm->table, c->model.name, &u);
    if (!u.priced)
        cm_llm_table_price(&c->llm->table, r->model, &u);
    c->usage.input_tokens += u.input_tokens;
    c->usage.output_tokens += u.output_tokens;
    c->usage.cached_tokens += u.cached_tokens;
    c->usage.estimated |= u.estimated;
    c->usage.priced = (c->counted++ == 0 || c->usage.priced) && u.priced;
    c->usage.cost += u.cost;
}

static double chance(void)
{
    uint32_t n = 0;

    if (getrandom(&n, sizeof n, GRND_NONBLOCK) != sizeof n)
        return 0.5;
    return n / 4294967295.0;
}

/* True when another attempt follows. */
static bool try_again(struct cm_llm_call *c, double retry_after_s)
{
    const struct cm_llm_config *config = &c->llm->config;
    struct cm_llm_verdict *v = &c->verdict;

    if (v->quirk & ~c->quirks) {
        c->quirks |= v->quirk;
        cm_timer_start(c->timer, 0, 0);
        return true;
    }
    if (v->failure == CM_LLM_EMPTY && c->empties++ > 0)
        return false;
    if (!v->again || c->told || c->attempts >= config->attempts)
        return false;
    double wait = v->failure == CM_LLM_EMPTY ? 0 : cm_llm_wait(config, c->attempts, retry_after_s, chance());
    double room = c->deadline_ns ? left(c) : config->timeout_s; /* who has no limit has the patience of an attempt */
    if (wait >= room) {
        size_t n = strlen(v->reason);
        snprintf(v->reason + n, sizeof v->reason - n, "; it wants %.0f s of patience, which is more than is left",
                 wait);
        return false;
    }
    cm_timer_start(c->timer, (uint64_t)(wait * 1000), 0);
    return true;
}

/* The attempt has ended, by itself or because we have seen enough. */
static void conclude(struct cm_llm_call *c, const struct cm_fetch_end *end)
{
    bool ok = end->status >= 200 && end->status < 300;

    cm_timer_stop(c->timer);
    c->lingering = false;
    cm_llm_reader_end(&c->reader, ok);
    if (c->dead) /* the caller has cancelled at the last words */
        return;
    c->status = end->status;
    count(c);
    cm_llm_judge(&c->reader, end, c->host, c->told, &c->verdict);
    if (end->status == 0 && left(c) <= 0)
        c->verdict.failure = CM_LLM_TIMEOUT;
    if (try_again(c, end->retry_after_s))
        return;
    if (c->quirks && ok)
        learn_quirks(c);
    finish(c);
}

static void stop_reading(struct cm_llm_call *c)
{
    const struct cm_fetch_end end = {CM_FETCH_OK, c->status, -1, 1, ""};

    cm_fetch_cancel(cm_steal(c->fetch));
    conclude(c, &end);
}

/* Every callback from below is between these two: callbacks of the caller may cancel, and what they leave is cleared away when
 * nobody looks at it any more. */
static void enter(struct cm_llm_call *c)
{
    c->inside = true;
}

static void leave(struct cm_llm_call *c)
{
    c->inside = false;
    if (c->dead)
        dispose(c);
}

static void on_words(void *arg, const char *text, size_t len)
{
    struct cm_llm_call *c = arg;

    if (c->dead || !c->ops.delta)
        return;
    c->told = true;
    c->ops.delta(c->arg, text, len);
}

static void on_head(void *arg, int status)
{
    struct cm_llm_call *c = arg;

    c->status = status;
}

static void on_data(void *arg, const char *data, size_t len)
{
    struct cm_llm_call *c = arg;
    bool ok = c->status >= 200 && c->status < 300;

    enter(c);
    bool more = cm_llm_reader_feed(&c->reader, ok, data, len);
    if (!c->dead && !more) {
        stop_reading(c);
    } else if (!c->dead && c->reader.finished && !c->lingering) {
        c->lingering = true;
        cm_timer_start(c->timer, LINGER_MS, 0);
    }
    leave(c);
}

static void on_done(void *arg, const struct cm_fetch_end *end)
{
    struct cm_llm_call *c = arg;

    enter(c);
    c->fetch = NULL;
    conclude(c, end);
    leave(c);
}

/* ---- an attempt */

static int start(struct cm_llm_call *c, struct cm_err *err)
{
    static const struct cm_fetch_ops ops = {on_head, on_data, on_done};
    const struct cm_llm_config *config = &c->llm->config;
    const char *key = c->model.api_key ? c->model.api_key : "";
    bool anthropic = c->model.api == CM_LLM_ANTHROPIC;
    char secret[4096];

    int n = snprintf(secret, sizeof secret, "%s%s", anthropic ? "x-api-key: " : "Authorization: Bearer ", key);
    if (n >= (int)sizeof secret)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "model %.80s: its key is too long", c->model.name);
    const char *headers[5] = {"Content-Type: application/json", "Accept: text/event-stream, application/json"};
    unsigned count = 2;
    if (*key)
        headers[count++] = secret;
    if (anthropic)
        headers[count] = "anthropic-version: 2023-06-01";
    double room = left(c);
    const struct cm_fetch_request request = {
        .method = "POST",
        .url = cm_buf_data(&c->url),
        .headers = headers,
        .body = cm_buf_data(&c->body),
        .body_len = c->body.len,
        .body_fd = -1,
        .idle_timeout_s = config->idle_timeout_s,
        .timeout_s = room < config->timeout_s ? room : config->timeout_s,
        .answer_max = config->reply_max * STREAM_FACTOR,
    };
    int rc = cm_fetch_start(c->llm->egress, &request, &ops, c, &c->fetch, err);
    explicit_bzero(secret, sizeof secret);
    return rc;
}

static int prepare(struct cm_llm_call *c, struct cm_err *err)
{
    cm_llm_reader_done(&c->reader);
    cm_llm_reader_init(&c->reader, c->model.api, c->llm->config.reply_max);
    c->reader.words = on_words;
    c->reader.arg = c;
    c->status = 0;
    c->body.len = c->body_begin;
    if (cm_llm_request_end(&c->body, &c->model, c->quirks) < 0)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request to a model");
    c->attempts++;
    return start(c, err);
}

static void on_timer(void *arg)
{
    struct cm_llm_call *c = arg;
    struct cm_err err = {0};

    enter(c);
    if (c->lingering) {
        stop_reading(c);
    } else if (left(c) <= 0) {
        c->verdict.failure = CM_LLM_TIMEOUT;
        finish(c);
    } else if (prepare(c, &err) < 0) {
        c->verdict.failure = err.code == CM_ERR_NO_MEMORY ? CM_LLM_NO_MEMORY : CM_LLM_UNREACHABLE;
        snprintf(c->verdict.reason, sizeof c->verdict.reason, "%s", err.text);
        finish(c);
    }
    leave(c);
}

/* ---- a call begins */

static void take_host(const char *url, char *to, size_t size)
{
    const char *host = strstr(url, "://") + 3;
    const char *user = memchr(host, '@', strcspn(host, "/?#"));

    if (user) /* what stands in front of it may be a secret */
        host = user + 1;
    snprintf(to, size, "%.*s", (int)strcspn(host, "/?#"), host);
}

static int begin(struct cm_llm_call *c, const struct cm_llm_message *messages, size_t count, struct cm_err *err)
{
    int rc = cm_llm_request_begin(&c->body, &c->model, messages, count, err);

    if (rc < 0)
        return rc;
    c->body_begin = c->body.len;
    for (size_t i = 0; i < count; i++)
        c->estimate += cm_llm_estimate(messages[i].text, messages[i].len);
    rc = cm_llm_request_url(&c->url, &c->model);
    if (rc < 0)
        return cm_err_set(err, rc == CM_ERR_TOO_LARGE ? CM_ERR_BAD_FIELD : rc, "model %.80s: its base URL is too long",
                          c->model.name);
    take_host(c->model.base_url, c->host, sizeof c->host);
    c->quirks = known_quirks(c);
    c->timer = cm_timer_open(c->llm->loop, on_timer, c, err);
    return c->timer ? prepare(c, err) : CM_ERR_NO_MEMORY;
}

int cm_llm_ask(struct cm_llm *l, const struct cm_llm_model *model, const struct cm_llm_message *messages, size_t count,
               double deadline_s, const struct cm_llm_ops *ops, void *arg, struct cm_llm_call **ret, struct cm_err *err)
{
    int rc = cm_llm_request_check(model, err);

    if (rc < 0)
        return rc;
    struct cm_llm_call *c = calloc(1, sizeof *c);
    if (!c)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request to a model");
    *c = (struct cm_llm_call){.llm = l, .model = *model, .ops = *ops, .arg = arg, .began_ns = cm_clock_ns()};
    if (deadline_s > 0)
        c->deadline_ns = c->began_ns + (uint64_t)(fmin(deadline_s, DEADLINE_MAX_S) * CM_NS_PER_S);
    cm_buf_init(&c->body, BODY_MAX);
    cm_buf_init(&c->url, URL_LEN_MAX);
    rc = begin(c, messages, count, err);
    if (rc < 0) {
        dispose(c);
        return rc;
    }
    c->next = l->calls;
    if (l->calls)
        l->calls->prev = c;
    l->calls = c;
    *ret = c;
    return 0;
}

unsigned cm_llm_window(const struct cm_llm *l, const char *model)
{
    const struct cm_llm_row *row = cm_llm_table_find(&l->table, model);

    return row && row->window ? row->window : WINDOW_DEFAULT;
}

uint64_t cm_llm_estimate(const char *text, size_t len)
{
    return (cm_utf8_count(text, len) + 3) / 4;
}
