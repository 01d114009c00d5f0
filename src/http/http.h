/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP/1.1 server on our loop: connections, framing, keys, bodies, answers and streams. It knows no route.
 *
 * Whoever opens one brings a table of routes. A handler is called once, when the body has arrived whole, and does one of
 * three things before it returns: it answers, it waits (and answers later, from the loop), or it begins a stream.
 */
#ifndef CM_HTTP_H
#define CM_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"

struct cm_access;
struct cm_buf;
struct cm_http;
struct cm_key;
struct cm_loop;
struct cm_metrics;
struct cm_request;

enum cm_http_body {
    CM_BODY_NONE, /* read and dropped */
    CM_BODY_OPTIONAL, /* empty, or JSON */
    CM_BODY_JSON,
    CM_BODY_FILE, /* a file of some kind; it goes to memory of its own as it arrives, up to upload_max bytes */
};

/* What the content type of a file says that it is. */
enum cm_upload_kind {
    CM_UPLOAD_TEXT, /* text/plain, whose charset, if there is one, is UTF-8 or ASCII. Nobody has looked */
    CM_UPLOAD_JSON, /* which is UTF-8 whatever charset it says (RFC 8259, section 11) */
    CM_UPLOAD_BYTES,
};

enum cm_http_key { CM_KEY_OPEN, CM_KEY_NEEDED };

struct cm_http_route {
    const char *method, *path; /* "/session/{id}/execute": each {...} stands for one segment */
    void (*handle)(struct cm_request *rq);
    enum cm_http_body body;
    enum cm_http_key key;
};

/* Read when a request comes, so that a reload of the settings is seen. Of what all bodies and files may have together, the
 * requests of one key take at most half of what those of other keys leave, where there are keys of several names. */
struct cm_http_limits {
    uint64_t body_max; /* bytes of a JSON body; four times as many of all together */
    uint64_t upload_max; /* bytes of a file */
    uint64_t uploads_max; /* of all files together; 0: four times upload_max */
    const char *upload_setting; /* that upload_max is, for refusals; NULL: MAX_UPLOAD */
    uint64_t answers_max; /* bytes of all answers and streams that are under way; 0: four times body_max */
    unsigned connections_max;
    double idle_timeout_s, head_timeout_s, body_timeout_s;
    const char *allowed_origins;
};

struct cm_http_config {
    const struct cm_http_route *routes; /* up to one whose method is NULL */
    const struct cm_http_limits *limits;
    struct cm_metrics *metrics;
    struct cm_access *access; /* NULL: everybody may call */
    /* Writes an error in the owner's own shape; NULL: {"detail", "code", "remediation"}. 0 or the buffer's error. */
    int (*error_body)(const struct cm_request *rq, const struct cm_err *err, struct cm_buf *to);
    bool loopback; /* nobody from outside can connect: names of this machine are the only good ones */
    void *app; /* of the routes' owner: cm_request_app() */
    /* Before the handler, when the body is there, or before it where it is a file; may be NULL. Negative refuses the
     * request. */
    int (*admit)(struct cm_request *rq, struct cm_err *err);
    /* Before a file has so many bytes, again and again as it comes; may be NULL. Negative refuses the request. */
    int (*grow)(struct cm_request *rq, uint64_t len, struct cm_err *err);
    /* The request has ended, or was refused: what admit() has made for it goes. Perhaps more than once; may be NULL. */
    void (*over)(struct cm_request *rq);
    void (*left)(void *arg); /* a connection has ended; may be NULL */
    void *left_arg;
};

/* What it is given must outlive it. 0, or a negative code with *err filled. */
int cm_http_open(struct cm_loop *loop, const struct cm_http_config *config, struct cm_http **ret, struct cm_err *err);
/* Serves a connection: takes the non-blocking socket in any case. */
void cm_http_adopt(struct cm_http *h, int fd, const struct sockaddr *peer, socklen_t len);
unsigned cm_http_connections(const struct cm_http *h);
/* Closes each connection with its next answer. */
void cm_http_drain(struct cm_http *h);
bool cm_http_draining(const struct cm_http *h);
/* Ends what still waits (its `gone` is called) and closes every connection. Accepts NULL. */
struct cm_http *cm_http_free(struct cm_http *h);

/* {"detail", "code", "remediation"}; `lead` is what stands in front of them, with its comma, or "". 0 or the buffer's error. */
int cm_http_put_error(struct cm_buf *to, const struct cm_err *err, const char *lead);

/* A request. Pointers live as long as it does: until the handler has answered, and while it waits or streams. */

void *cm_request_app(const struct cm_request *rq);
const struct cm_http_route *cm_request_route(const struct cm_request *rq); /* NULL: there is none */
const char *cm_request_path(const struct cm_request *rq);
/* What the i-th {...} of the path stands for, 0 the first; "" where there is none. */
const char *cm_request_variable(const struct cm_request *rq, unsigned i);
/* NULL where there is none. */
const char *cm_request_header(const struct cm_request *rq, const char *name);
const char *cm_request_query(const struct cm_request *rq, const char *name);
/* Who asks; NULL where no key is needed. */
const struct cm_key *cm_request_key(const struct cm_request *rq);
const char *cm_request_correlation(const struct cm_request *rq);
bool cm_request_correlation_is_clients(const struct cm_request *rq);
/* The header wins: takes `id` only where there was no header, and only one that can be logged. */
void cm_request_offer_correlation(struct cm_request *rq, const char *id, size_t len);
/* Bytes of body that the client has announced; 0 where it has not. */
uint64_t cm_request_declared(const struct cm_request *rq);
/* The body, to be read in place; NUL-terminated. */
char *cm_request_body(struct cm_request *rq, size_t *ret_len);
/* Of CM_BODY_FILE: the file, whose offset is 0. The request's until it is taken; -1 for an empty body or none. */
int cm_request_file(struct cm_request *rq, uint64_t *ret_len);
int cm_request_take_file(struct cm_request *rq, uint64_t *ret_len);
/* Others are not let in. */
enum cm_upload_kind cm_request_upload_kind(const struct cm_request *rq);
/* The same memory, for free(); NULL without memory. It counts among all bodies until the request has ended. */
char *cm_request_take_body(struct cm_request *rq, size_t *ret_len);
/* Frees the body's memory early. */
void cm_request_drop_body(struct cm_request *rq);
/* Of the handler; NULL at first. */
void cm_request_set_user(struct cm_request *rq, void *user);
void *cm_request_user(const struct cm_request *rq);

/* Answers. The first one counts. */

void cm_request_fail(struct cm_request *rq,
                     const struct cm_err *err); /* the shape of error_body, what errors.def says */
void cm_request_answer(struct cm_request *rq, unsigned status, const char *json);
/* Takes the buffer's contents; JSON where content_type is NULL. `rc`, the result of writing them: negative answers that
 * error instead. */
void cm_request_answer_buf(struct cm_request *rq, unsigned status, const char *content_type, struct cm_buf *body,
                           int rc);
/* Before the answer: a header more, up to eight. Both texts are copied. An error in its place has none. */
void cm_request_set_header(struct cm_request *rq, const char *name, const char *value);

/* The answer comes later: from the handler only. `gone`, at most once and never after the answer: the client has left, or the
 * server ends; the request is dead when it returns. */
void cm_request_wait(struct cm_request *rq, void (*gone)(void *arg), void *arg);

/* A body that comes piece by piece (chunked), status 200: from the handler, or while it waits. `gone` as above; it replaces
 * that of cm_request_wait(). A stream that is begun is ended by cm_request_end(). */
void cm_request_stream(struct cm_request *rq, const char *content_type, size_t backlog_max, void (*gone)(void *arg),
                       void *arg);
/* CM_ERR_TOO_LARGE when the client reads so slowly that backlog_max bytes or more wait already, or all clients so slowly
 * that answers_max do; nothing was taken then. Not called from
 * inside: `gone`. */
int cm_request_write(struct cm_request *rq, const void *data, size_t len);
size_t cm_request_backlog(const struct cm_request *rq);
/* What was written still goes out; the request is dead to its owner. `cut`: close the connection so that the client sees
 * that something is missing; at once where a piece found no room. */
void cm_request_end(struct cm_request *rq, bool cut);

#endif
