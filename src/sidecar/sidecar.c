/* SPDX-License-Identifier: Apache-2.0 */
/* Everything but executions: one request with a small answer, sent again where that helps.
 *
 * All requests go beside egress's limit of connections: executions hold theirs while they wait for models, for their
 * children's sessions and for answers of ours. How many there are, the sidecar's own limits say. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/names.h"
#include "base/utf8.h"
#include "sidecar/internal.h"

#define PING_TIMEOUT_S   2.0
#define SMALL_TIMEOUT_S  30.0
#define PUT_IDLE_S       120.0
#define FIRST_BACKOFF_MS 50.0
#define LAST_BACKOFF_MS  5000.0
#define VARIABLE_MAX     200 /* bytes of its name */

/* Requests */

void cm_sidecar_headers(const struct cm_sidecar *s, const char *accept, const char *type, const char *correlation,
                        struct headers *ret)
{
    size_t at = 0, count = 0;
    const struct {
        const char *name, *value;
    } rows[] = {{"Accept", accept}, {"Content-Type", type}, {"X-Correlation-ID", correlation}};

    if (s->authorization)
        ret->line[count++] = s->authorization;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!rows[i].value || !rows[i].value[0])
            continue;
        ret->line[count++] = ret->text + at;
        at += (size_t)snprintf(ret->text + at, sizeof ret->text - at, "%s: %.100s", rows[i].name, rows[i].value) + 1;
    }
    ret->line[count] = NULL;
}

int cm_sidecar_url(const struct cm_sidecar *s, char ret[static URL_MAX], struct cm_err *err, const char *format, ...)
{
    size_t len = strlen(s->url); /* less than URL_MAX / 2: cm_sidecar_open() */
    va_list ap;

    memcpy(ret, s->url, len);
    va_start(ap, format);
    int n = vsnprintf(ret + len, URL_MAX - len, format, ap);
    va_end(ap);
    return n >= 0 && (size_t)n < URL_MAX - len ? 0 : cm_err_set(err, CM_ERR_TOO_LARGE, "a request's path is too long");
}

struct cm_sidecar_op *cm_sidecar_op_new(struct cm_sidecar *s, enum kind kind, const char *method, struct cm_err *err)
{
    struct cm_sidecar_op *op = calloc(1, sizeof *op);

    if (!op) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request to the sidecar");
        return NULL;
    }
    *op = (struct cm_sidecar_op){.s = s, .kind = kind, .method = method, .attempts_max = 1, .value.fd = -1};
    cm_buf_init(&op->body, ANSWER_MAX + SMALL_MAX);
    cm_buf_init(&op->answer, SMALL_MAX);
    DL_APPEND(s->ops, op);
    return op;
}

struct cm_sidecar_op *cm_sidecar_op_free(struct cm_sidecar_op *op)
{
    cm_fetch_cancel(op->fetch);
    cm_timer_close(op->timer);
    cm_buf_done(&op->body);
    cm_buf_done(&op->answer);
    DL_DELETE(op->s->ops, op);
    free(op);
    return NULL;
}

static int created(struct cm_sidecar_op *op, const char **ret_id, struct cm_err *err)
{
    struct cm_json_member m = {.name = "session_id"};
    size_t len;

    if (cm_json_object(cm_buf_data(&op->answer), op->answer.len, &m, 1, NULL) < 0 ||
        cm_sidecar_read_text(&m.value, ret_id, &len, NULL) < 0 || !cm_sidecar_is_id(*ret_id))
        return cm_err_set(err, CM_ERR_SIDECAR, "the sidecar's answer names no session");
    return 0;
}

static void conclude_create(struct cm_sidecar_op *op, const struct cm_err *err)
{
    const char *id = NULL;
    struct cm_err bad;

    if (!err && created(op, &id, &bad) < 0)
        err = &bad;
    if (!op->orphan)
        op->done.create(op->arg, err ? NULL : id, err);
    else if (!err)
        cm_sidecar_delete(op->s, id);
}

/* `err`: NULL when there is a good answer. */
static void conclude(struct cm_sidecar_op *op, const struct cm_err *err)
{
    op->ended = true;
    op->fetch = NULL;
    switch (op->kind) {
    case PING:
        op->done.ping(op->arg, err == NULL);
        break;
    case CREATE:
        conclude_create(op, err);
        break;
    case PUT:
        op->done.put(op->arg, err);
        break;
    case ANSWER:
        cm_sidecar_exec_answered(op, err);
        break;
    case INTERRUPT:
    case DELETE:
        break;
    }
    cm_sidecar_op_free(op);
}

/* What is interrupted has ended meanwhile. */
static bool is_pointless(const struct cm_sidecar_op *op)
{
    return op->kind == INTERRUPT && !(op->exec && cm_sidecar_exec_runs(op->exec));
}

static void on_wait_over(void *arg)
{
    struct cm_sidecar_op *op = arg;
    struct cm_err err;

    if (is_pointless(op))
        conclude(op, NULL);
    else if (cm_sidecar_op_send(op, &err) < 0)
        conclude(op, &err);
}

/* True when it is sent again after a while. */
static bool again(struct cm_sidecar_op *op, double wait_ms)
{
    uint64_t until = cm_clock_ns() + (uint64_t)(wait_ms * 1e6);

    if (op->orphan || is_pointless(op) || (op->attempts_max > 0 && op->attempts >= op->attempts_max) ||
        (op->deadline_ns > 0 && until >= op->deadline_ns))
        return false;
    if (!op->timer)
        op->timer = cm_timer_open(op->s->loop, on_wait_over, op, NULL);
    if (!op->timer)
        return false;
    cm_timer_start(op->timer, (uint64_t)wait_ms + 1, 0);
    return true;
}

static bool is_worth_it(const struct cm_sidecar_op *op, const struct cm_fetch_end *end)
{
    if (end->why == CM_FETCH_OK)
        return end->status == 429 || end->status == 503;
    return op->kind != CREATE && op->kind != PUT && (end->why == CM_FETCH_CONNECT || end->why == CM_FETCH_CUT);
}

/* Sooner than Retry-After says, at first: a sidecar beside us has a free session after milliseconds. */
static double backoff_ms(const struct cm_sidecar_op *op, const struct cm_fetch_end *end)
{
    double wait = FIRST_BACKOFF_MS * (double)(1u << (op->attempts < 8 ? op->attempts - 1 : 7));

    if (wait > LAST_BACKOFF_MS)
        wait = LAST_BACKOFF_MS;
    return end->retry_after_s >= 0 ? fmin(wait, fmax(end->retry_after_s * 1000, FIRST_BACKOFF_MS)) : wait;
}

static bool was_nothing_to_interrupt(struct cm_sidecar_op *op)
{
    struct cm_json_member m = {.name = "interrupted"};

    return op->kind == INTERRUPT && cm_json_object(cm_buf_data(&op->answer), op->answer.len, &m, 1, NULL) == 0 &&
           m.value.kind == CM_JSON_BOOL && m.value.raw[0] == 'f';
}

static void on_done(void *arg, const struct cm_fetch_end *end)
{
    struct cm_sidecar_op *op = arg;
    struct cm_err err;

    op->fetch = NULL;
    if (end->why == CM_FETCH_OK && end->status >= 200 && end->status < 300) {
        if (!was_nothing_to_interrupt(op) || !again(op, FIRST_BACKOFF_MS)) /* it may still be in its queue */
            conclude(op, NULL);
        return;
    }
    if (is_worth_it(op, end) && again(op, backoff_ms(op, end)))
        return;
    if (end->why == CM_FETCH_OK)
        cm_sidecar_read_error(end->status, cm_buf_data(&op->answer), op->answer.len, &err);
    else
        cm_sidecar_no_answer(end, &err);
    conclude(op, &err);
}

static void on_data(void *arg, const char *data, size_t len)
{
    struct cm_sidecar_op *op = arg;

    cm_buf_append(&op->answer, data, len); /* answer_max bounds it; what memory fails is no JSON then */
}

int cm_sidecar_op_send(struct cm_sidecar_op *op, struct cm_err *err)
{
    static const struct cm_fetch_ops ops = {.data = on_data, .done = on_done};
    struct headers headers;
    struct cm_fetch_request req = {.method = op->method,
                                   .url = op->url,
                                   .headers = headers.line,
                                   .body_fd = -1,
                                   .idle_timeout_s = op->kind == PUT ? PUT_IDLE_S : 0,
                                   .timeout_s = op->kind == PING  ? PING_TIMEOUT_S
                                                : op->kind == PUT ? 0
                                                                  : SMALL_TIMEOUT_S,
                                   .answer_max = SMALL_MAX,
                                   .beside = true};

    if (op->kind == PUT) {
        req.body = op->value.data;
        req.body_len = op->value.data ? op->value.len : 0;
        req.body_fd = op->value.data ? -1 : op->value.fd;
        req.body_offset = op->value.offset;
        req.body_fd_len = op->value.len;
    } else if (op->body.len > 0) {
        req.body = cm_buf_data(&op->body);
        req.body_len = op->body.len;
    }
    cm_sidecar_headers(op->s, NULL, op->type, op->correlation, &headers);
    cm_buf_clear(&op->answer);
    op->attempts++;
    return cm_fetch_start(op->s->egress, &req, &ops, op, &op->fetch, err);
}

/* Sends a new one; takes it back where that fails. */
static int begin(struct cm_sidecar_op *op, struct cm_sidecar_op **ret, struct cm_err *err)
{
    int rc = cm_sidecar_op_send(op, err);

    if (rc < 0)
        cm_sidecar_op_free(op);
    else
        *ret = op;
    return rc;
}

/* Operations */

int cm_sidecar_ping(struct cm_sidecar *s, void (*done)(void *arg, bool ready), void *arg, struct cm_sidecar_op **ret,
                    struct cm_err *err)
{
    struct cm_sidecar_op *op = cm_sidecar_op_new(s, PING, "GET", err);

    if (!op)
        return CM_ERR_NO_MEMORY;
    op->done.ping = done;
    op->arg = arg;
    cm_sidecar_url(s, op->url, NULL, "/ready");
    return begin(op, ret, err);
}

int cm_sidecar_create(struct cm_sidecar *s, uint64_t memory, double deadline_s, const char *correlation,
                      void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                      struct cm_sidecar_op **ret, struct cm_err *err)
{
    struct cm_sidecar_op *op = cm_sidecar_op_new(s, CREATE, "POST", err);
    int rc;

    if (!op)
        return CM_ERR_NO_MEMORY;
    op->done.create = done;
    op->arg = arg;
    op->attempts_max = 0;
    op->deadline_ns = cm_clock_ns() + (uint64_t)(fmin(fmax(deadline_s, 0), 1e8) * (double)CM_NS_PER_S);
    op->type = "application/json";
    snprintf(op->correlation, sizeof op->correlation, "%s", correlation ? correlation : "");
    cm_sidecar_url(s, op->url, NULL, "/session");
    rc = memory > 0 ? cm_buf_printf(&op->body, "{\"limits\": {\"memory\": %llu}}", (unsigned long long)memory)
                    : cm_buf_puts(&op->body, "{}");
    if (rc < 0) {
        cm_sidecar_op_free(op);
        return cm_err_set(err, rc, "no memory for a request to the sidecar");
    }
    return begin(op, ret, err);
}

void cm_sidecar_delete(struct cm_sidecar *s, const char *id)
{
    struct cm_sidecar_op *op = cm_sidecar_is_id(id) ? cm_sidecar_op_new(s, DELETE, "DELETE", NULL) : NULL;

    if (!op)
        return; /* the session ends for want of use */
    op->attempts_max = 3;
    cm_sidecar_url(s, op->url, NULL, "/session/%s", id);
    if (cm_sidecar_op_send(op, NULL) < 0)
        cm_sidecar_op_free(op);
}

/* Of ASCII: it stands in the URL as it is. */
static bool is_name(const char *name)
{
    size_t len = strlen(name);

    return len <= VARIABLE_MAX && cm_name_is_variable(name, len) && cm_utf8_count(name, len) == len;
}

int cm_sidecar_put(struct cm_sidecar *s, const char *session, const struct cm_variable *v,
                   void (*done)(void *arg, const struct cm_err *err), void *arg, struct cm_sidecar_op **ret,
                   struct cm_err *err)
{
    static const char *const types[] = {[CM_VARIABLE_TEXT] = "text/plain; charset=utf-8",
                                        [CM_VARIABLE_JSON] = "application/json",
                                        [CM_VARIABLE_BYTES] = "application/octet-stream"};

    if (!cm_sidecar_is_id(session) || !v->name || !is_name(v->name))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "a variable needs a session and a name of letters, digits and _");
    struct cm_sidecar_op *op = cm_sidecar_op_new(s, PUT, "PUT", err);
    if (!op)
        return CM_ERR_NO_MEMORY;
    op->done.put = done;
    op->arg = arg;
    op->value = *v;
    op->type = types[v->kind];
    cm_sidecar_url(s, op->url, NULL, "/session/%s/variables/%s", session, v->name);
    return begin(op, ret, err);
}

void cm_sidecar_cancel(struct cm_sidecar_op *op)
{
    if (!op || op->ended)
        return;
    if (op->kind == CREATE && op->fetch)
        op->orphan = true; /* the session may be there already, under a name that only its answer tells */
    else
        cm_sidecar_op_free(op);
}

/* The room */

int cm_sidecar_open(struct cm_loop *loop, struct cm_egress *egress, const struct cm_sidecar_config *config,
                    struct cm_sidecar **ret, struct cm_err *err)
{
    const char *url = config->url ? config->url : "";
    size_t len = strlen(url);

    while (len > 0 && url[len - 1] == '/')
        len--;
    if (len >= URL_MAX / 2 || (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0))
        return cm_err_set(err, CM_ERR_CONFIG, "the sidecar's URL must look like http://localhost:8080");
    if (config->api_key && strpbrk(config->api_key, "\r\n"))
        return cm_err_set(err, CM_ERR_CONFIG, "the sidecar's key must not hold a line break");
    struct cm_sidecar *s = calloc(1, sizeof *s);
    if (!s)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the sidecar's client");
    *s = (struct cm_sidecar){.loop = loop, .egress = egress, .url = strndup(url, len)};
    bool keyed = config->api_key && config->api_key[0];
    if (!s->url || (keyed && asprintf(&s->authorization, "Authorization: Bearer %s", config->api_key) < 0)) {
        s->authorization = NULL;
        cm_sidecar_free(s);
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the sidecar's client");
    }
    *ret = s;
    return 0;
}

struct cm_sidecar *cm_sidecar_free(struct cm_sidecar *s)
{
    if (!s)
        return NULL;
    while (s->execs)
        cm_sidecar_exec_end_silently(s->execs);
    while (s->ops)
        cm_sidecar_op_free(s->ops);
    free(s->url);
    free(s->authorization);
    free(s);
    return NULL;
}
