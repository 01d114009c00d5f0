/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_EGRESS_INTERNAL_H
#define CM_EGRESS_INTERNAL_H

#include <curl/curl.h>

#include "egress/egress.h"
#include "ev/loop.h"

enum state {
    NEW, /* its task, or its turn in the queue, begins it */
    RUNNING, /* curl has it */
    CANCELLED, /* its caller and the caller's body are gone; its task frees it */
    ENDED, /* `done` is being called */
};

struct cm_fetch {
    struct cm_fetch *prev, *next; /* of all */
    struct cm_fetch *queue_prev, *queue_next; /* of those that wait for a connection */
    struct cm_egress *e;
    enum state state;
    bool queued, running, beside;
    struct cm_task task;
    struct cm_timer *timer; /* NULL: no timeout but that of connecting */

    struct cm_fetch_ops ops;
    void *arg;

    CURL *easy;
    struct curl_slist *headers;
    const char *body;
    int body_fd;
    uint64_t body_offset, body_len, sent;
    uint64_t idle_ns, total_ns; /* 0: none */
    uint64_t answer_max;

    uint64_t start_ns, moved_ns; /* moved_ns 0: there is no connection yet */
    size_t head_bytes;
    bool head_done;
    uint64_t received;
    enum cm_fetch_failure why; /* of a failure that we have found ourselves, */
    const char *reason; /* and its words, or NULL */
    char host[80]; /* and port */
    char text[CURL_ERROR_SIZE + 100];
    char curls_reason[CURL_ERROR_SIZE];
};

struct cm_egress {
    struct cm_loop *loop;
    struct cm_timer *timer;
    CURLM *multi;
    struct cm_fetch *all, *queue;
    unsigned running; /* as curl sees it */
    unsigned counted; /* those for whom there is a limit */
    unsigned connections_max, idle_max;
    char *ca_file;
};

/* fetch.c */
int cm_fetch_set_up(struct cm_fetch *f, const struct cm_fetch_request *req, struct cm_err *err);
/* Says in `text` what has happened. */
void cm_fetch_conclude(struct cm_fetch *f, CURLcode code, struct cm_fetch_end *ret);
void cm_fetch_dispose(struct cm_fetch *f);

#endif
