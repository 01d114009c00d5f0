/* SPDX-License-Identifier: Apache-2.0 */
/* A request's body as a variable of a session (docs/streaming.md). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fd.h"
#include "base/names.h"
#include "base/url.h"
#include "front/http/internal.h"
#include "wire/json.h"

#define ANSWER_MAX 4096

struct put {
    struct cm_request *rq;
    struct cm_exec *exec;
    uint64_t bytes;
    size_t name_len;
    char name[CM_PUT_NAME_MAX];
};

/* Before a byte of it is kept: what cannot become anything is refused. A length that is not said counts as the longest. */
int cm_api_admit_variable(struct cm_request *rq, struct cm_err *err)
{
    struct cm_api *a = api_of(rq);
    const char *length = cm_request_header(rq, "content-length");
    uint64_t len = length ? strtoull(length, NULL, 10) : a->limits.upload_max, left = cm_pressure_left(&a->pressure);
    struct cm_session_info info;
    int rc = cm_sessions_info(a->config.sessions, cm_api_session(rq), &info, err);

    if (rc < 0)
        return rc;
    if (length && len > info.limits.at[CM_LIMIT_MEMORY])
        return cm_err_set(err, CM_ERR_NO_ROOM, "body: has %llu bytes, the session's memory is %llu",
                          (unsigned long long)len, (unsigned long long)info.limits.at[CM_LIMIT_MEMORY]);
    if (a->config.conf->min_free_memory > 0 && len > 0 && left < len + a->config.conf->min_free_memory)
        return cm_err_set(err, CM_ERR_LOW_MEMORY, "body: up to %llu bytes, and of %llu left MIN_FREE_MEMORY keeps %llu",
                          (unsigned long long)len, (unsigned long long)left,
                          (unsigned long long)a->config.conf->min_free_memory);
    return 0;
}

/* The path keeps its escapes: a name that is not ASCII has some. */
static int read_name(const char *path, struct put *p, struct cm_err *err)
{
    if (!cm_url_decode(path, strlen(path), p->name, sizeof(p->name), &p->name_len) ||
        !cm_name_is_variable(p->name, p->name_len))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "name: must be an identifier of at most %d bytes, and no keyword",
                          CM_PUT_NAME_MAX);
    return 0;
}

/* Nobody changes it any more, whoever it is passed on to. An empty body has none: it becomes an empty one. */
static int take_file(struct cm_request *rq, int *ret, uint64_t *ret_len, struct cm_err *err)
{
    int fd = cm_request_take_file(rq, ret_len);

    if (fd < 0)
        fd = memfd_create("body", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0) {
        int why = errno;
        cm_fd_close(fd);
        return cm_err_sys(err, why, "body: file in memory");
    }
    *ret = fd;
    return 0;
}

static void on_gone(void *arg)
{
    struct put *p = arg;

    cm_exec_abandon(p->exec);
    free(p);
}

static int write_answer(struct cm_buf *buf, const struct put *p, const struct cm_put_result *res)
{
    char length[24] = "null";
    int rc = cm_buf_puts(buf, "{\"name\":");

    if (res->has_length)
        snprintf(length, sizeof(length), "%llu", (unsigned long long)res->length);
    rc = rc ? rc : cm_json_put_string(buf, p->name, p->name_len);
    rc = rc ? rc : cm_buf_puts(buf, ",\"type\":");
    rc = rc ? rc : cm_json_put_string(buf, res->type, strlen(res->type));
    return rc ? rc : cm_buf_printf(buf, ",\"length\":%s,\"bytes\":%llu}", length, (unsigned long long)p->bytes);
}

static void on_done(void *arg, const struct cm_put_result *res, const struct cm_err *err)
{
    struct put *p = arg;
    struct cm_buf buf;

    if (res) {
        cm_buf_init(&buf, ANSWER_MAX);
        int rc = write_answer(&buf, p, res);
        cm_request_answer_buf(p->rq, 200, NULL, &buf, rc);
    } else {
        cm_request_fail(p->rq, err);
    }
    free(p);
}

static int start(struct cm_request *rq, struct put *p, struct cm_err *err)
{
    static const enum cm_put_kind kinds[] = {
        [CM_UPLOAD_TEXT] = CM_PUT_TEXT, [CM_UPLOAD_JSON] = CM_PUT_JSON, [CM_UPLOAD_BYTES] = CM_PUT_BYTES};
    struct cm_api *a = api_of(rq);
    struct cm_put_request req = {
        .name = p->name, .kind = kinds[cm_request_upload_kind(rq)], .correlation_id = cm_request_correlation(rq)};
    struct cm_limits caps;
    int rc = read_name(cm_request_variable(rq, 1), p, err);

    rc = rc ? rc : take_file(rq, &req.fd, &p->bytes, err);
    if (rc < 0)
        return rc;
    cm_key_caps(cm_request_key(rq), &a->caps, &caps);
    req.caps = &caps;
    req.name_len = p->name_len;
    req.length = p->bytes;
    return cm_sessions_put(a->config.sessions, cm_api_session(rq), &req, on_done, p, &p->exec, err);
}

void cm_api_put_variable(struct cm_request *rq)
{
    struct put *p = calloc(1, sizeof(*p));
    struct cm_err err;

    if (!p) {
        cm_err_set(&err, CM_ERR_NO_MEMORY, "no memory for a request");
        cm_request_fail(rq, &err);
        return;
    }
    p->rq = rq;
    if (start(rq, p, &err) < 0) {
        free(p);
        cm_request_fail(rq, &err);
        return;
    }
    cm_request_wait(rq, on_gone, p);
}
