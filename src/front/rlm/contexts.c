/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts that were sent ahead of their run. The file is the one that the body went to; what is in it is checked in a thread,
 * through a mapping, for it may be a gigabyte. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <utlist.h>

#include "base/fd.h"
#include "base/random.h"
#include "base/utf8.h"
#include "front/rlm/internal.h"
#include "wire/json.h"

#define ID_DIGITS    16
#define CONTEXTS_MAX 1024 /* at once, however small: each has a descriptor */

/* The check */

struct check {
    struct cm_infer *f;
    struct cm_request *rq; /* NULL: its client has left */
    struct cm_work *work;
    struct context *context; /* not in the list yet */
    uint64_t length;
    int rc;
    struct cm_err err;
};

static bool count_one(void *arg, struct cm_json_value *value)
{
    (void)value;
    ++*(uint64_t *)arg;
    return true;
}

static bool count_member(void *arg, const char *name, size_t len, const struct cm_json_value *value)
{
    (void)name;
    (void)len;
    (void)value;
    ++*(uint64_t *)arg;
    return true;
}

static int check_json(struct check *c, const char *text, size_t len)
{
    struct cm_json_value v;
    int rc = cm_json_check(text, len, &v, &c->err);

    if (rc < 0)
        return rc;
    if (v.kind == CM_JSON_ARRAY)
        cm_json_elements(&v, count_one, &c->length);
    else if (v.kind == CM_JSON_OBJECT)
        cm_json_members(&v, count_member, &c->length);
    else
        c->length = v.len;
    return 0;
}

static int check_text(struct check *c, const char *text, size_t len)
{
    if (!cm_utf8_valid(text, len))
        return cm_err_set(&c->err, CM_ERR_BAD_FIELD, "the context is not UTF-8");
    c->length = cm_utf8_count(text, len);
    return 0;
}

static void run_check(void *arg)
{
    struct check *c = arg;
    size_t len = c->context->len;
    char *text = mmap(NULL, len, PROT_READ, MAP_SHARED, c->context->fd, 0);

    if (text == MAP_FAILED) {
        c->rc = cm_err_sys(&c->err, errno, "context");
        return;
    }
    c->rc = c->context->kind == CM_CONTEXT_JSON ? check_json(c, text, len) : check_text(c, text, len);
    munmap(text, len);
}

/* Room: a context has its place from when its request begins, as long as the client says that it is, and grows where it says
 * nothing. So nobody sends a gigabyte to hear that there is no room, and what is on its way counts as well. */

static void show_bytes(const struct cm_infer *f)
{
    cm_metrics_set(f->config.metrics, CM_M_RLM_CONTEXT_BYTES, 0, (int64_t)f->context_bytes);
}

static void leave_room(struct context *c)
{
    struct cm_infer *f = c->f;

    if (!f)
        return;
    f->context_count--;
    f->context_bytes -= c->len;
    c->holder->contexts--;
    c->holder->context_bytes -= c->len;
    holders_leave(f, c->holder);
    show_bytes(f);
}

static void free_context(struct context *c)
{
    leave_room(c);
    cm_fd_close(c->fd);
    free(c);
}

static void count_bytes(struct context *c, uint64_t len)
{
    c->f->context_bytes += len - c->len;
    c->holder->context_bytes += len - c->len;
    c->len = len;
    show_bytes(c->f);
}

static int grow(struct context *c, uint64_t len, struct cm_err *err)
{
    struct cm_infer *f = c->f;
    const struct room room = {"bytes of contexts", "TOTAL_CONTEXTS",
                              "use or delete contexts, or wait until they end (CONTEXT_TTL)",
                              f->config.conf->total_contexts};
    int rc = len > c->len ? shares_check(f, &room, f->context_bytes, c->holder->context_bytes, len - c->len, err) : 0;

    if (rc == 0 && len > c->len)
        count_bytes(c, len);
    return rc;
}

static struct context *new_context(struct cm_infer *f, const char *owner, struct cm_err *err)
{
    const struct room room = {"contexts", "there may be no more",
                              "use or delete contexts, or wait until they end (CONTEXT_TTL)", CONTEXTS_MAX};
    struct holder *h = holders_take(f, owner);
    struct context *x = h ? calloc(1, sizeof *x) : NULL;
    char id[CM_RLM_ID_MAX] = "context-";

    if (!x)
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a context");
    if (!x || shares_check(f, &room, f->context_count, h->contexts, 1, err) < 0 ||
        cm_random_hex(id + strlen(id), ID_DIGITS, err) < 0) {
        free(x);
        if (h)
            holders_leave(f, h);
        return NULL;
    }
    *x = (struct context){.f = f, .holder = h, .fd = -1};
    memcpy(x->id, id, sizeof x->id);
    f->context_count++;
    h->contexts++;
    return x;
}

int contexts_admit(struct cm_request *rq, struct cm_err *err)
{
    if (cm_request_route(rq)->handle != cm_infer_create_context)
        return 0;
    struct context *x = new_context(infer_of(rq), infer_owner(rq), err);
    int rc = x ? grow(x, cm_request_declared(rq), err) : err->code;

    if (rc == 0)
        cm_request_set_user(rq, x);
    else if (x)
        free_context(x);
    return rc;
}

int contexts_grow(struct cm_request *rq, uint64_t len, struct cm_err *err)
{
    return grow(cm_request_user(rq), len, err);
}

void contexts_over(struct cm_request *rq)
{
    const struct cm_http_route *route = cm_request_route(rq);
    struct context *x = cm_request_user(rq);

    if (!x || !route || route->handle != cm_infer_create_context)
        return;
    cm_request_set_user(rq, NULL);
    free_context(x);
}

/* The list */

static void answer_context(struct check *c)
{
    struct cm_infer *f = c->f;
    struct context *x = c->context;
    char json[200];

    x->until_ns = cm_clock_ns() + f->config.conf->context_ttl * CM_NS_PER_S;
    DL_DELETE(f->checking, x);
    DL_APPEND(f->contexts, x);
    c->context = NULL;
    infer_plan(f);
    snprintf(json, sizeof json, "{\"context_id\":\"%s\",\"bytes\":%llu,\"length\":%llu}", x->id,
             (unsigned long long)x->len, (unsigned long long)c->length);
    cm_request_answer(c->rq, 200, json);
}

static void check_done(void *arg)
{
    struct check *c = arg;

    if (!c->rq)
        return;
    if (c->rc < 0)
        cm_request_fail(c->rq, &c->err);
    else
        answer_context(c);
}

static void check_drop(void *arg)
{
    struct check *c = arg;

    if (c->context && c->context->f)
        DL_DELETE(c->context->f->checking, c->context);
    if (c->context)
        free_context(c->context);
    free(c);
}

static void check_gone(void *arg)
{
    struct check *c = arg;

    c->rq = NULL;
    c->work = cm_work_abandon(c->work);
}

void cm_infer_create_context(struct cm_request *rq)
{
    struct cm_infer *f = infer_of(rq);
    struct context *x = cm_request_user(rq);
    struct cm_err err = {.code = CM_ERR_BAD_REQUEST};
    uint64_t len = 0;
    bool some = cm_request_file(rq, &len) >= 0;

    if (!some || cm_request_upload_kind(rq) == CM_UPLOAD_BYTES) {
        infer_fail(rq, some ? CM_ERR_MEDIA_TYPE : CM_ERR_BAD_REQUEST,
                   some ? "Content-Type: neither text/plain nor application/json" : "the context is empty");
        return;
    }
    struct check *c = calloc(1, sizeof *c);
    if (!c) {
        infer_fail(rq, CM_ERR_NO_MEMORY, "no memory for a context");
        return;
    }
    cm_request_set_user(rq, NULL);
    x->kind = cm_request_upload_kind(rq) == CM_UPLOAD_JSON ? CM_CONTEXT_JSON : CM_CONTEXT_TEXT;
    x->fd = cm_request_take_file(rq, &len);
    count_bytes(x, len);
    DL_APPEND(f->checking, x);
    *c = (struct check){.f = f, .rq = rq, .context = x};
    c->work = cm_work_start(f->loop, run_check, check_done, check_drop, c, &err);
    if (c->work) {
        cm_request_wait(rq, check_gone, c);
        return;
    }
    check_drop(c);
    cm_request_fail(rq, &err);
}

struct context *contexts_find(struct cm_infer *f, const char *id, const char *owner)
{
    struct context *c;

    DL_FOREACH(f->contexts, c)
    if (strcmp(c->id, id) == 0 && strcmp(c->holder->name, owner) == 0)
        return c;
    return NULL;
}

void contexts_drop(struct cm_infer *f, struct context *c)
{
    DL_DELETE(f->contexts, c);
    free_context(c);
}

void cm_infer_delete_context(struct cm_request *rq)
{
    struct cm_infer *f = infer_of(rq);
    struct context *c = contexts_find(f, cm_request_variable(rq, 0), infer_owner(rq));

    if (c)
        contexts_drop(f, c);
    cm_request_answer(rq, 200, "{\"status\":\"ok\"}");
}

void contexts_sweep(struct cm_infer *f, uint64_t now)
{
    struct context *c, *next;

    DL_FOREACH_SAFE(f->contexts, c, next)
    if (c->until_ns <= now)
        contexts_drop(f, c);
}

/* Threads may end after us. */
void contexts_free(struct cm_infer *f)
{
    while (f->checking) {
        struct context *c = f->checking;
        DL_DELETE(f->checking, c);
        leave_room(c);
        c->f = NULL;
    }
    while (f->contexts)
        contexts_drop(f, f->contexts);
}
