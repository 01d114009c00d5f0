/* SPDX-License-Identifier: Apache-2.0 */
/* Where a request's body stays: in memory, or in a file in memory that a handler may pass on. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/share.h"
#include "http/internal.h"

/* Bodies of all requests together take up to this many times what one may have: many clients that each send what one may
 * send would take the memory of everybody. */
#define HELD_FACTOR 4

bool cm_http_takes_file(const struct cm_request *rq)
{
    return rq->route && rq->route->body == CM_BODY_FILE;
}

bool cm_http_body_too_long(const struct cm_request *rq, uint64_t declared)
{
    const struct cm_http_limits *l = rq->http->limits;

    return declared > (cm_http_takes_file(rq) ? l->upload_max : l->body_max);
}

int cm_http_say_too_long(const struct cm_request *rq, struct cm_err *err)
{
    const struct cm_http_limits *l = rq->http->limits;
    bool file = cm_http_takes_file(rq);

    return cm_err_set(err, CM_ERR_TOO_LARGE, "body: has more than the %llu bytes of %s",
                      (unsigned long long)(file ? l->upload_max : l->body_max),
                      !file               ? "MAX_BODY"
                      : l->upload_setting ? l->upload_setting
                                          : "MAX_UPLOAD");
}

static int say_full(struct cm_err *err)
{
    return cm_err_set(err, CM_ERR_NO_MEMORY, "body: too many large requests at once");
}

/* What requests of this one's key hold. */
static uint64_t held_by_key(const struct cm_request *rq, bool files)
{
    const char *name = cm_key_name(rq->key);
    uint64_t held = 0;

    for (const struct conn *c = rq->http->conns; c; c = c->next)
        if (c->request && strcmp(cm_key_name(c->request->key), name) == 0)
            held += files ? c->request->file.len : c->request->body.len + c->request->body_taken;
    return held;
}

/* Whether so many bytes more fit. No share is full while less than half of the room is taken, so that the look at all connections
 * is for rare times. */
static int check_room(const struct cm_request *rq, bool files, size_t len, struct cm_err *err)
{
    const struct cm_http *h = rq->http;
    const struct cm_http_limits *l = h->limits;
    uint64_t held = files ? h->held_files : h->held;
    uint64_t room = files ? l->uploads_max : HELD_FACTOR * l->body_max;

    if (room == 0)
        room = HELD_FACTOR * l->upload_max;
    if (held + len > room)
        return say_full(err);
    if (held + len <= room / 2 || !cm_access_shared(h->config.access))
        return 0;
    uint64_t mine = held_by_key(rq, files), share = cm_share(room, held - mine);
    if (mine + len <= share)
        return 0;
    return cm_err_set(err, CM_ERR_KEY_SHARE,
                      "body: requests of this key hold %llu of the %llu bytes for all bodies, and may hold half of "
                      "what other keys leave; wait until some of them have ended",
                      (unsigned long long)mine, (unsigned long long)room);
}

static int keep_in_memory(struct cm_request *rq, const char *data, size_t len, struct cm_err *err)
{
    int rc = check_room(rq, false, len, err);

    if (rc < 0)
        return rc;
    rc = cm_buf_append(&rq->body, data, len);
    if (rc == CM_ERR_TOO_LARGE)
        return cm_http_say_too_long(rq, err);
    if (rc < 0)
        return say_full(err);
    rq->http->held += len;
    return 0;
}

static int write_piece(struct file *f, const char *data, size_t len, struct cm_err *err)
{
    if (f->fd < 0)
        f->fd = memfd_create("body", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (f->fd < 0)
        return cm_err_sys(err, errno, "body: file in memory");
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(f->fd, data + done, len - done, (off_t)(f->len + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return say_full(err);
        done += (size_t)n;
    }
    return 0;
}

static int keep_in_file(struct cm_request *rq, const char *data, size_t len, struct cm_err *err)
{
    struct cm_http *h = rq->http;
    uint64_t max = h->limits->upload_max;

    if (rq->file.len + len > max)
        return cm_http_say_too_long(rq, err);
    int rc = h->config.grow ? h->config.grow(rq, rq->file.len + len, err) : 0;
    if (rc == 0)
        rc = check_room(rq, true, len, err);
    if (rc == 0)
        rc = write_piece(&rq->file, data, len, err);
    if (rc < 0)
        return rc;
    rq->file.len += len;
    h->held_files += len;
    return 0;
}

int cm_http_keep(struct cm_request *rq, const char *data, size_t len, struct cm_err *err)
{
    return cm_http_takes_file(rq) ? keep_in_file(rq, data, len, err) : keep_in_memory(rq, data, len, err);
}

static void forget_memory(struct cm_request *rq)
{
    rq->http->held -= rq->body.len + rq->body_taken;
    rq->body_taken = 0;
    cm_buf_done(&rq->body);
}

static void forget_file(struct cm_request *rq)
{
    rq->file.fd = cm_fd_close(rq->file.fd);
    rq->http->held_files -= rq->file.len;
    rq->file.len = 0;
}

void cm_http_forget_body(struct cm_request *rq)
{
    forget_memory(rq);
    forget_file(rq);
}

char *cm_request_body(struct cm_request *rq, size_t *ret_len)
{
    *ret_len = rq->body.len;
    return cm_buf_data(&rq->body);
}

char *cm_request_take_body(struct cm_request *rq, size_t *ret_len)
{
    size_t len = rq->body.len;
    char *data = cm_buf_steal(&rq->body, ret_len);

    if (data)
        rq->body_taken += len;
    return data;
}

int cm_request_file(struct cm_request *rq, uint64_t *ret_len)
{
    *ret_len = rq->file.len;
    return rq->file.fd;
}

/* It goes on counting among all files until the request has ended: that is how long it is known. */
int cm_request_take_file(struct cm_request *rq, uint64_t *ret_len)
{
    int fd = cm_request_file(rq, ret_len);

    rq->file.fd = -1;
    return fd;
}

enum cm_upload_kind cm_request_upload_kind(const struct cm_request *rq)
{
    return (enum cm_upload_kind)cm_http_upload_kind(cm_request_header(rq, "content-type"));
}

void cm_request_drop_body(struct cm_request *rq)
{
    forget_memory(rq);
    if (rq->file.fd >= 0)
        forget_file(rq);
}
