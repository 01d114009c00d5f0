/* SPDX-License-Identifier: Apache-2.0 */
/* The RLM service's face, with an engine that does what the test says. */
#ifndef INFER_WORLD_H
#define INFER_WORLD_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "front/rlm/internal.h"
#include "front/rlm/trajectory.h"
#include "http/internal.h"

static struct cm_rlm_conf conf;

static int load(void **state)
{
    char *const argv[] = {"--llm-api-key=sk-home"};

    (void)state;
    return cm_rlm_conf_load(1, argv, &conf, NULL);
}

/* The engine */

static struct {
    struct cm_rlm_ops ops;
    void *arg;
    int fd, started, cancelled, refuse;
    char query[64], model[64], sub[64];
} engine;

int cm_rlm_start(struct cm_rlm *r, const struct cm_rlm_request *req, const struct cm_rlm_ops *ops, void *arg,
                 struct cm_rlm_run **ret, struct cm_err *err)
{
    (void)r;
    if (req->context.fd >= 0)
        close(req->context.fd);
    engine.fd = req->context.fd;
    if (engine.refuse)
        return cm_err_set(err, engine.refuse, "not now");
    engine.ops = *ops;
    engine.arg = arg;
    snprintf(engine.query, sizeof engine.query, "%s", req->query ? req->query : "");
    snprintf(engine.model, sizeof engine.model, "%s", req->models[0].name);
    snprintf(engine.sub, sizeof engine.sub, "%s", req->models[req->models_count - 1].name);
    engine.started++;
    *ret = (struct cm_rlm_run *)&engine;
    return 0;
}

void cm_rlm_cancel(struct cm_rlm_run *run)
{
    (void)run;
    engine.cancelled++;
}

const char *cm_rlm_run_id(const struct cm_rlm_run *run)
{
    static char id[32];

    (void)run;
    snprintf(id, sizeof id, "run-%d", engine.started);
    return id;
}

int cm_rlm_conversation_open(struct cm_rlm *r, struct cm_rlm_conversation **ret, struct cm_err *err)
{
    (void)r;
    (void)ret;
    return cm_err_set(err, CM_ERR_SYSTEM, "none");
}

const char *cm_rlm_conversation_id(const struct cm_rlm_conversation *c)
{
    (void)c;
    return "";
}

bool cm_rlm_conversation_busy(const struct cm_rlm_conversation *c)
{
    (void)c;
    return false;
}

struct cm_rlm_conversation *cm_rlm_conversation_free(struct cm_rlm_conversation *c)
{
    (void)c;
    return NULL;
}

/* Requests */

static int read_ask(struct cm_ask *a, enum cm_ask_shape shape, const char *json, struct cm_err *err)
{
    cm_ask_init(a, shape, &conf, strdup(json), strlen(json));
    return cm_ask_read(a, err);
}

static struct run *start(struct cm_infer *f, const char *json, const char *owner, struct cm_err *err)
{
    struct cm_ask a;
    struct run *r = NULL;
    struct run_order order = {.ask = &a, .owner = owner, .correlation = "c"};

    assert_int_equal(read_ask(&a, CM_ASK_RUN, json, err), 0);
    if (runs_start(f, &order, &r, err) < 0)
        r = NULL;
    cm_ask_done(&a);
    return r;
}

static void end(struct run *r, const char *answer)
{
    struct cm_rlm_result res = {.answer = answer, .answer_len = strlen(answer), .partial = "", .usage = "{}"};

    engine.ops.done(r, &res);
}

#endif
