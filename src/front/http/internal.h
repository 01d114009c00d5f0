/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share. */
#ifndef CM_API_INTERNAL_H
#define CM_API_INTERNAL_H

#include "access/access.h"
#include "base/buf.h"
#include "conf/conf.h"
#include "executor/executor.h"
#include "front/http/api.h"
#include "ev/loop.h"
#include "http/http.h"
#include "session/pressure.h"
#include "session/session.h"

struct live; /* an execution whose answer is a stream */

struct cm_api {
    struct cm_loop *loop;
    struct cm_api_config config;
    struct cm_http *http;
    struct cm_http_limits limits;
    struct cm_limits caps; /* the most that a request may ask for */
    size_t answer_max;     /* bytes of one answer */
    size_t event_max;      /* bytes of one event of a stream */
    struct live *live;     /* list */
    struct cm_pressure pressure;
};

static inline struct cm_api *api_of(const struct cm_request *rq)
{
    return cm_request_app(rq);
}

/* The session that the path names; an id that is too long is nobody's. */
const char *cm_api_session(const struct cm_request *rq);

/* live.c: whether the client asks for a stream, and the execution as one, or two: `then`, NULL for none, is code that runs behind
 * it with the same limits, policy and tools of the caller's. */
bool cm_api_wants_stream(const struct cm_request *rq);
int cm_api_run_live(struct cm_request *rq, struct cm_run_request *req, const char *then, size_t then_len,
                    double then_timeout_s, struct cm_err *err);

/* variables.c: before the value is sent. */
int cm_api_admit_variable(struct cm_request *rq, struct cm_err *err);

/* result.c. `correlation`, not NULL, makes it the answer of POST /execute. */
int cm_api_write_result(struct cm_buf *buf, const struct cm_exec_result *res, const char *session_id,
                        const char *execution_id, const char *correlation);

#define CM_ROUTE(method, path, handler, body, key) void cm_api_##handler(struct cm_request *rq);
#include "routes.def"
#undef CM_ROUTE

#endif
