/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the library share. */
#ifndef CODEMODE_LIB_H
#define CODEMODE_LIB_H

#include <pthread.h>

#include "base/err.h"
#include "base/status.h"
#include "codemode.h"
#include "codemode_v1.pb-c.h"
#include "wire/proto.h"

struct cm_loop;
struct cm_tls;
struct cm_watch;

/* error.c */

/* Fills *err, which may be NULL, and returns the negative status. */
int lib_error(struct codemode_error *err, enum codemode_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same from an error of the rooms below. */
int lib_error_from(struct codemode_error *err, const struct cm_err *from);

/* thread.c: a loop in a thread of its own. */

struct lib_job {
    struct lib_job *next;
    void (*run)(void *arg);
    void *arg;
};

struct lib_thread {
    pthread_t thread;
    pthread_mutex_t mutex;
    struct cm_loop *loop;
    struct cm_watch *watch;
    struct lib_job *first, **last; /* under the mutex */
    int wake_fd;
    bool running;
};

/* 0 with the loop running, or a negative status with nothing left behind. */
int lib_thread_start(struct lib_thread *t, struct codemode_error *err);
/* Runs the job in the loop's thread. It must live until it has run. */
void lib_thread_post(struct lib_thread *t, struct lib_job *job, void (*run)(void *arg), void *arg);
/* The same and waits for it. Not from the loop's thread. */
void lib_thread_call(struct lib_thread *t, void (*run)(void *arg), void *arg);
/* Nothing may be left on the loop. Accepts one that has not started. */
void lib_thread_stop(struct lib_thread *t);

/* options.c */

/* "host:port" for free(), and whether the text demands TLS. */
char *lib_target(const char *given, bool *ret_tls, struct codemode_error *err);
/* "Bearer KEY" for free(), with *ret NULL for none. 0 or a negative status. */
int lib_bearer(const char *given, const char *const *variables, char **ret, struct codemode_error *err);

/* pool.c: threads that run jobs in order. */

struct lib_pool;
struct lib_pool *lib_pool_new(unsigned threads, unsigned queue_max, struct codemode_error *err);
/* False when too many wait already. */
bool lib_pool_post(struct lib_pool *p, struct lib_job *job, void (*run)(void *arg), void *arg);
/* Runs what waits, waits for all, ends the threads. Accepts NULL. */
void lib_pool_free(struct lib_pool *p);

/* client.c */

struct lib_call {
    const char *path;
    const ProtobufCMessage *request;
    const ProtobufCMessageDescriptor *answer_type; /* of a call with one answer */
    const char *correlation_id, *session; /* metadata, or NULL */
    const char *idempotency_key;
    double timeout; /* seconds */
    /* Of a call with many: each message in the caller's thread, until it returns false. `omitted`: bytes of stdout and of
     * stderr in messages before it that were dropped, because the caller was slow. */
    bool (*message)(void *arg, const uint8_t *message, size_t len, const uint64_t omitted[2]);
    void *arg;
};
/* Sends it and waits. The answer, where there is a type, comes as *ret for cm_proto_free(). */
int lib_call(struct codemode_client *client, const struct lib_call *call, void **ret, struct codemode_error *err);
double lib_timeout(const struct codemode_client *client);

/* execute.c */

/* Limits as a message wants them. */
struct lib_limits {
    Codemode__V1__Pair *pairs, **pointers;
};
int lib_limits_begin(struct lib_limits *l, const struct codemode_limit *limits, size_t count,
                     struct codemode_error *err);
void lib_limits_end(struct lib_limits *l);

#endif
