/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdlib.h>

#include "lib.h"

struct lib_pool {
    pthread_mutex_t mutex;
    pthread_cond_t more;
    struct lib_job *first, **last;
    unsigned waiting, waiting_max, count;
    bool ending;
    pthread_t threads[];
};

static void *work(void *arg)
{
    struct lib_pool *p = arg;

    pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (!p->first && !p->ending)
            pthread_cond_wait(&p->more, &p->mutex);
        struct lib_job *job = p->first;
        if (!job)
            break;
        p->first = job->next;
        if (!p->first)
            p->last = &p->first;
        p->waiting--;
        pthread_mutex_unlock(&p->mutex);
        job->run(job->arg);
        pthread_mutex_lock(&p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

struct lib_pool *lib_pool_new(unsigned threads, unsigned queue_max, struct codemode_error *err)
{
    struct lib_pool *p = calloc(1, sizeof *p + threads * sizeof p->threads[0]);
    sigset_t all, before;

    if (!p) {
        lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for workers");
        return NULL;
    }
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->more, NULL);
    p->last = &p->first;
    p->waiting_max = queue_max + threads; /* those that a free thread is about to take wait as well */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (p->count < threads && pthread_create(&p->threads[p->count], NULL, work, p) == 0)
        p->count++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (p->count == threads)
        return p;
    lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "%u of %u threads could be started", p->count, threads);
    lib_pool_free(p);
    return NULL;
}

bool lib_pool_post(struct lib_pool *p, struct lib_job *job, void (*run)(void *arg), void *arg)
{
    job->next = NULL;
    job->run = run;
    job->arg = arg;
    pthread_mutex_lock(&p->mutex);
    bool room = p->waiting < p->waiting_max;
    if (room) {
        *p->last = job;
        p->last = &job->next;
        p->waiting++;
        pthread_cond_signal(&p->more);
    }
    pthread_mutex_unlock(&p->mutex);
    return room;
}

void lib_pool_free(struct lib_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    p->ending = true;
    pthread_cond_broadcast(&p->more);
    pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->count; i++)
        pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->more);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}
