/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the tool service share. */
#ifndef CODEMODE_TOOLS_H
#define CODEMODE_TOOLS_H

#include <stdatomic.h>

#include "base/buf.h"
#include "codemode.pb-c.h"
#include "grpc/server.h"
#include "lib.h"
#include "net/door.h"
#include "net/tls.h"

#define TOOLS_MESSAGE_MAX (64u << 20) /* bytes of one request, and of one answer */

struct tool {
    struct codemode_tool public; /* its texts are ours */
    struct tool *next;
};

struct codemode_tools {
    struct lib_thread thread;
    struct lib_pool *pool;
    struct cm_grpc_server *grpc; /* the loop's, like the door */
    struct cm_door *door;
    struct cm_tls *tls;
    struct tool *first, **last;
    char *host, *bearer;
    struct codemode_tools_options options; /* its texts are not ours */
    unsigned port;
    enum { TOOLS_NEW, TOOLS_RUNNING, TOOLS_STOPPED } state;
    pthread_mutex_t mutex;
    pthread_cond_t idle;
    unsigned calls; /* under the mutex */
};

/* One call of a tool: the loop's until it is given to a worker, and again when that gives it back. */
struct codemode_call {
    struct lib_job job;
    struct codemode_tools *service;
    const struct tool *tool;
    struct cm_grpc_call *wire; /* NULL once nobody waits */
    struct cm_buf arguments, context, result;
    char *correlation, *error;
    uint64_t deadline_ns; /* 0: none */
    bool has_context, answered;
    atomic_bool cancelled;
};

/* tools_serve.c */
int lib_tools_open(struct codemode_tools *tools, struct codemode_error *err);
/* On the loop. */
void lib_tools_drain(void *tools);
void lib_tools_close(void *tools);

#endif
