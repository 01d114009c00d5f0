/* SPDX-License-Identifier: Apache-2.0 */
/* A client: calls that block in their callers' threads over one connection that lives in the loop's.
 *
 * What a call's thread and the loop's share is under client->mutex. The loop's thread owns the request; the other one
 * waits until `done` is set, always: also a call that is withdrawn is over only when the loop has said so.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "codemode_v1.pb-c.h"
#include "grpc/client.h"
#include "lib.h"
#include "net/tls.h"

#define MESSAGE_MAX    (512u << 20) /* bytes of one answer: more than any server's limits add up to */
#define QUEUE_MAX      (256u << 20)
#define PIECES_MAX     (8u << 20)   /* bytes of a stream that its reader has not taken yet */
#define CALLS_MAX      1000
#define KEEPALIVE_MS   30000
#define ANSWER_MS      20000
#define TIMEOUT        30.0
#define TIMEOUT_MAX    86400.0
#define METADATA_COUNT 4

struct codemode_client {
    struct lib_thread thread;
    struct cm_grpc_client *grpc; /* the loop's; NULL once it is closed */
    struct cm_tls *tls;
    char *target, *bearer;
    double timeout;
    pthread_mutex_t mutex;
    pthread_cond_t idle;
    unsigned calls;
    bool closing;
};

struct piece {
    struct piece *next;
    uint64_t omitted[2]; /* bytes of output that were dropped before it */
    size_t len;
    uint8_t data[];
};

struct op {
    struct lib_job job;
    struct codemode_client *client;
    const struct lib_call *call;
    struct cm_buf request;
    uint64_t deadline_ns;
    struct cm_grpc_request *grpc; /* the loop's */
    pthread_cond_t cond;
    struct piece *first, **last;
    size_t held;         /* bytes of pieces */
    uint64_t omitted[2]; /* bytes of output in messages that were dropped */
    bool done, lack;
    enum cm_grpc_status status;
    char text[CM_ERR_TEXT_MAX];
};

/* In the loop's thread */

static void finish(struct op *op, enum cm_grpc_status status, const char *text)
{
    pthread_mutex_lock(&op->client->mutex);
    op->status = status;
    snprintf(op->text, sizeof op->text, "%s", text);
    op->done = true;
    op->grpc = NULL;
    pthread_cond_signal(&op->cond);
    pthread_mutex_unlock(&op->client->mutex);
}

static void on_done(void *arg, enum cm_grpc_status status, const char *text)
{
    finish(arg, status, text);
}

/* A message that its reader is too slow for. Only output can be dropped, and the next one that is not says so. */
static bool drop(struct op *op, const uint8_t *message, size_t len)
{
    Codemode__V1__ExecuteEvent *event;

    if (!op->call->message || op->held + len <= PIECES_MAX)
        return false;
    event = cm_proto_unpack(&codemode__v1__execute_event__descriptor, message, len, NULL);
    const Codemode__V1__Output *output =
        event && event->event_case == CODEMODE__V1__EXECUTE_EVENT__EVENT_OUTPUT ? event->output : NULL;
    if (output)
        op->omitted[output->stream == CODEMODE__V1__STREAM__STREAM_STDERR] += output->data.len + output->omitted;
    cm_proto_free(event);
    return output;
}

static void on_message(void *arg, const uint8_t *message, size_t len)
{
    struct op *op = arg;
    struct piece *piece = NULL;

    pthread_mutex_lock(&op->client->mutex);
    if (!drop(op, message, len)) {
        piece = malloc(sizeof *piece + len);
        op->lack |= !piece;
    }
    if (piece) {
        *piece = (struct piece){.omitted = {op->omitted[0], op->omitted[1]}, .len = len};
        op->omitted[0] = op->omitted[1] = 0;
        memcpy(piece->data, message, len);
        *op->last = piece;
        op->last = &piece->next;
        op->held += len;
        pthread_cond_signal(&op->cond);
    }
    pthread_mutex_unlock(&op->client->mutex);
}

static void begin(void *arg)
{
    static const struct cm_grpc_request_ops ops = {on_message, on_done, .fail_fast = true};
    struct op *op = arg;
    struct codemode_client *c = op->client;
    const struct lib_call *call = op->call;
    struct cm_grpc_metadata metadata[METADATA_COUNT];
    struct cm_err err;
    size_t n = 0;

    if (c->bearer)
        metadata[n++] = (struct cm_grpc_metadata){"authorization", c->bearer};
    if (call->correlation_id)
        metadata[n++] = (struct cm_grpc_metadata){"x-correlation-id", call->correlation_id};
    if (call->session)
        metadata[n++] = (struct cm_grpc_metadata){"x-session-id", call->session};
    if (call->idempotency_key)
        metadata[n++] = (struct cm_grpc_metadata){"idempotency-key", call->idempotency_key};
    if (!c->grpc) {
        finish(op, CM_GRPC_CANCELLED, "the client is closed");
        return;
    }
    op->grpc = cm_grpc_client_call(c->grpc, call->path, metadata, n, cm_buf_data(&op->request), op->request.len,
                                   op->deadline_ns, &ops, op, &err);
    if (!op->grpc)
        finish(op, (enum cm_grpc_status)cm_err_info(err.code)->grpc, err.text);
}

static void withdraw(void *arg)
{
    struct op *op = arg;

    if (!op->grpc)
        return;
    cm_grpc_request_cancel(op->grpc);
    finish(op, CM_GRPC_CANCELLED, "withdrawn");
}

/* In the caller's */

static struct piece *take_piece(struct op *op)
{
    struct piece *piece = op->first;

    if (!piece)
        return NULL;
    op->first = piece->next;
    if (!op->first)
        op->last = &op->first;
    op->held -= piece->len;
    return piece;
}

/* Gives the caller its messages as they come, until the end. The mutex is held. */
static int follow(struct op *op)
{
    bool withdrawn = false;

    while (!op->done || op->first) {
        struct piece *piece = take_piece(op);
        if (!piece) {
            pthread_cond_wait(&op->cond, &op->client->mutex);
            continue;
        }
        pthread_mutex_unlock(&op->client->mutex);
        if (!withdrawn && !op->call->message(op->call->arg, piece->data, piece->len, piece->omitted)) {
            withdrawn = true;
            lib_thread_call(&op->client->thread, withdraw, op);
        }
        free(piece);
        pthread_mutex_lock(&op->client->mutex);
    }
    return withdrawn ? -CODEMODE_CANCELLED : 0;
}

static int read_answer(struct op *op, void **ret, struct codemode_error *err)
{
    struct cm_err why;

    if (!op->first)
        return lib_error(err, CODEMODE_INTERNAL, "the server has answered without a message");
    *ret = cm_proto_unpack(op->call->answer_type, op->first->data, op->first->len, &why);
    return *ret ? 0 : lib_error(err, CODEMODE_INTERNAL, "the server's answer: %s", why.text);
}

/* The mutex is held. */
static int wait_for(struct op *op, void **ret, struct codemode_error *err)
{
    int rc = 0;

    if (op->call->message)
        rc = follow(op);
    while (!op->done)
        pthread_cond_wait(&op->cond, &op->client->mutex);
    if (rc < 0)
        return lib_error(err, CODEMODE_CANCELLED, "withdrawn by the caller");
    if (op->status != CM_GRPC_OK)
        return lib_error(err, (enum codemode_status)op->status, "%s", op->text);
    if (op->lack)
        return lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for the answer");
    return op->call->answer_type ? read_answer(op, ret, err) : 0;
}

static int perform(struct op *op, void **ret, struct codemode_error *err)
{
    struct codemode_client *c = op->client;
    struct piece *piece;

    pthread_mutex_lock(&c->mutex);
    if (c->closing) {
        pthread_mutex_unlock(&c->mutex);
        return lib_error(err, CODEMODE_CANCELLED, "the client is closed");
    }
    c->calls++;
    pthread_mutex_unlock(&c->mutex);
    lib_thread_post(&c->thread, &op->job, begin, op);
    pthread_mutex_lock(&c->mutex);
    int rc = wait_for(op, ret, err);
    while ((piece = take_piece(op)))
        free(piece);
    if (--c->calls == 0)
        pthread_cond_broadcast(&c->idle);
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

int lib_call(struct codemode_client *client, const struct lib_call *call, void **ret, struct codemode_error *err)
{
    struct op op = {.client = client, .call = call, .last = &op.first};

    cm_buf_init(&op.request, QUEUE_MAX);
    if (cm_proto_pack(call->request, &op.request) < 0) {
        cm_buf_done(&op.request);
        return lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "the request is too large, or there is no memory for it");
    }
    pthread_cond_init(&op.cond, NULL);
    op.deadline_ns = cm_clock_ns() + (uint64_t)(call->timeout * 1e9);
    int rc = perform(&op, ret, err);
    pthread_cond_destroy(&op.cond);
    cm_buf_done(&op.request);
    return rc;
}

double lib_timeout(const struct codemode_client *client)
{
    return client->timeout;
}

/* Opening and closing */

static int read_tls(struct codemode_client *c, const struct codemode_options *o, bool https, struct codemode_error *err)
{
    struct cm_tls_config config = {
        .prefix = "options",
        .mode = o->ca_file ? CM_TLS_CUSTOM : CM_TLS_SYSTEM,
        .ca_file = o->ca_file ? o->ca_file : "",
        .cert_file = o->cert_file ? o->cert_file : "",
        .key_file = o->key_file ? o->key_file : "",
    };
    struct cm_err why;

    if (!https && !o->tls && !o->ca_file && !o->cert_file && !o->key_file)
        return 0;
    c->tls = cm_tls_new(&config, &why);
    return c->tls ? 0 : lib_error_from(err, &why);
}

static int read_options(struct codemode_client *c, const struct codemode_options *o, struct codemode_error *err)
{
    static const char *const variables[] = {"CODEMODE_EXECUTOR_API_KEY", "CODEMODE_API_KEY", NULL};
    bool https = false;

    if (!(o->timeout >= 0 && o->timeout <= TIMEOUT_MAX))
        return lib_error(err, CODEMODE_INVALID_ARGUMENT, "timeout: must be from 0 to %g seconds", TIMEOUT_MAX);
    c->timeout = o->timeout > 0 ? o->timeout : TIMEOUT;
    c->target = lib_target(o->target, &https, err);
    if (!c->target)
        return -1;
    int rc = lib_bearer(o->api_key, variables, &c->bearer, err);
    return rc ? rc : read_tls(c, o, https, err);
}

struct opening {
    struct codemode_client *client;
    struct cm_err err;
};

static void open_grpc(void *arg)
{
    static const struct cm_grpc_client_options options = {
        .message_max = MESSAGE_MAX,
        .queue_max = QUEUE_MAX,
        .calls_max = CALLS_MAX,
        .keepalive_ms = KEEPALIVE_MS,
        .keepalive_timeout_ms = ANSWER_MS,
        .user_agent = "libcodemode/" CM_VERSION,
    };
    struct opening *o = arg;

    o->client->grpc = cm_grpc_client_new(o->client->thread.loop, o->client->target, o->client->tls, &options, &o->err);
}

static void free_client(struct codemode_client *c)
{
    lib_thread_stop(&c->thread);
    cm_tls_unref(c->tls);
    free(c->target);
    free(c->bearer);
    pthread_cond_destroy(&c->idle);
    pthread_mutex_destroy(&c->mutex);
    free(c);
}

struct codemode_client *codemode_open(const struct codemode_options *options, struct codemode_error *err)
{
    static const struct codemode_options none;
    struct codemode_client *c = calloc(1, sizeof *c);
    struct opening opening = {.client = c};

    if (!c) {
        lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for a client");
        return NULL;
    }
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->idle, NULL);
    if (read_options(c, options ? options : &none, err) == 0 && lib_thread_start(&c->thread, err) == 0) {
        lib_thread_call(&c->thread, open_grpc, &opening);
        if (c->grpc)
            return c;
        lib_error_from(err, &opening.err);
    }
    free_client(c);
    return NULL;
}

static void close_grpc(void *arg)
{
    struct codemode_client *c = arg;

    c->grpc = cm_grpc_client_free(c->grpc);
}

void codemode_close(struct codemode_client *client)
{
    if (!client)
        return;
    pthread_mutex_lock(&client->mutex);
    client->closing = true;
    pthread_mutex_unlock(&client->mutex);
    lib_thread_call(&client->thread, close_grpc, client);
    pthread_mutex_lock(&client->mutex);
    while (client->calls > 0)
        pthread_cond_wait(&client->idle, &client->mutex);
    pthread_mutex_unlock(&client->mutex);
    free_client(client);
}
