/* SPDX-License-Identifier: Apache-2.0 */
/* Green threads and the pthread calls that CPython makes of them.
 *
 * All threads of the guest share one native thread. A thread runs until it blocks or is asked to yield, so
 * nothing here needs a lock, and a mutex is never contended: no switch happens between a lock and its unlock.
 * Who is blocked, on what and until when, lies in linear memory: freezing the memory freezes the schedule.
 *
 * A switch swaps the native stack and __stack_pointer (in the host), CPython's current thread state, errno and
 * the thread-specific values (here). When no thread can run the host waits for us; when nothing could ever wake
 * one, that is a deadlock: the main thread is woken with an interrupt that says so instead of hanging.
 */
#define Py_BUILD_CORE 1
#include "Python.h"
#include "pycore_pystate.h"
#include "pycore_runtime.h"
#include "cpython/pthread_stubs.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calls.h"
#include "host.h"
#include "sched.h"

#define THREADS_MAX 256 /* one native stack each is reserved by the host */
#define SHADOW_SIZE (1u << 20)
#define PAGE 4096
#define MARGIN (192u << 10) /* of a shadow stack, for calls that do not nest */

enum state { FREE, RUNNABLE, BLOCKED, DONE };
enum { MAIN = 0 };

struct thread {
    enum state state;
    int why;          /* what the block ended with: 0 woken, ETIMEDOUT, EINTR */
    bool detached;
    unsigned generation;
    uint64_t since;   /* order in which threads began to wait */
    const void *on;   /* what it waits for: a condition, a thread, OUTPUT, or NULL: only the clock */
    int64_t deadline; /* monotonic ns, < 0: none */
    void *(*start)(void *);
    void *arg, *ret;
    char *shadow;     /* kept for the next thread of this slot */
    PyThreadState *tstate;
    int saved_errno;
    void *specific[PTHREAD_KEYS_MAX];
};

static struct thread threads[THREADS_MAX] = {{.state = RUNNABLE, .deadline = -1}};
static int current, top = 1, live = 1;
static int ready[THREADS_MAX + 1], ready_head, ready_tail; /* a ring */
static uint64_t waits;
static bool key_used[PTHREAD_KEYS_MAX];
static bool deadlock;
static const char OUTPUT;

/* Of the running thread (patches/cm_stack.h). The main thread's shadow stack begins at address 0. */
char *cm_stack_low = (char *)MARGIN;

/* What the host writes from its signal handlers, at addresses that it asks for once. */
static struct {
    PyThreadState **tstate;   /* the running thread's state */
    uint32_t breaker_offset;  /* of eval_breaker in a thread state */
    int *live;                /* more than one: the fairness timer is needed */
    PyThreadState *main;
    void *tripped, *sigint_tripped;
    int *calls;               /* more than none: the host looks for answers */
} poll;

CM_EXPORT("guest_poll") void *cm_guest_poll(void)
{
    poll.tstate = &_Py_tss_tstate;
    poll.breaker_offset = offsetof(PyThreadState, eval_breaker);
    poll.live = &live;
    poll.main = _Py_tss_tstate; /* the host asks on the main thread */
    poll.tripped = &_PyRuntime.signals.is_tripped;
    poll.sigint_tripped = &_PyRuntime.signals.handlers[SIGINT].tripped;
    poll.calls = &cm_calls_live;
    return &poll;
}

static void push(int i)
{
    ready[ready_tail] = i;
    ready_tail = (ready_tail + 1) % (THREADS_MAX + 1);
}

static void push_front(int i)
{
    ready_head = (ready_head + THREADS_MAX) % (THREADS_MAX + 1);
    ready[ready_head] = i;
}

static int pop(void)
{
    if (ready_head == ready_tail)
        return -1;
    int i = ready[ready_head];
    ready_head = (ready_head + 1) % (THREADS_MAX + 1);
    return i;
}

int64_t cm_sched_now(void)
{
    return cm_host_clock(1);
}

int cm_sched_threads(void)
{
    return live;
}

bool cm_sched_take_deadlock(void)
{
    bool was = deadlock;
    deadlock = false;
    return was;
}

/* Sleepers and the interrupted go to the front of the queue, so that a busy neighbour does not delay them. */
static void wake(int i, int why, bool front)
{
    struct thread *t = &threads[i];
    t->state = RUNNABLE;
    t->why = why;
    t->on = NULL;
    t->deadline = -1;
    if (front)
        push_front(i);
    else
        push(i);
}

static void wake_all(const void *on)
{
    for (int i = 0; i < top; i++)
        if (threads[i].state == BLOCKED && threads[i].on == on)
            wake(i, 0, false);
}

static void wake_oldest(const void *on)
{
    int best = -1;
    for (int i = 0; i < top; i++)
        if (threads[i].state == BLOCKED && threads[i].on == on && (best < 0 || threads[i].since < threads[best].since))
            best = i;
    if (best >= 0)
        wake(best, 0, false);
}

static void wake_expired(void)
{
    int64_t now = cm_sched_now();
    for (int i = 0; i < top; i++) {
        struct thread *t = &threads[i];
        if (t->state == BLOCKED && t->deadline >= 0 && t->deadline <= now)
            wake(i, ETIMEDOUT, t->on == NULL);
    }
}

/* Signals belong to the main thread: whatever it waits for, it comes back to look at them. Output is the
 * exception, since half of what a thread wrote must not be lost. */
static void wake_main(void)
{
    if (threads[MAIN].state == BLOCKED && threads[MAIN].on != &OUTPUT)
        wake(MAIN, EINTR, true);
}

static void know_stack(void)
{
    cm_stack_low = threads[current].shadow + MARGIN; /* the main thread has none of its own: NULL */
}

static void run(int to)
{
    if (to == current)
        return;
    int from = current;
    threads[from].tstate = _Py_tss_tstate;
    threads[from].saved_errno = errno;
    current = to;
    cm_host_switch(from, to);
    know_stack();
    _Py_tss_tstate = threads[from].tstate;
    errno = threads[from].saved_errno;
}

static int64_t next_deadline(bool *ret_pending)
{
    int64_t next = -1;
    *ret_pending = false;
    for (int i = 0; i < top; i++) {
        if (threads[i].state != BLOCKED)
            continue;
        if (threads[i].on == &OUTPUT)
            *ret_pending = true;
        if (threads[i].deadline >= 0 && (next < 0 || threads[i].deadline < next))
            next = threads[i].deadline;
    }
    return next;
}

static void look(int64_t deadline)
{
    int what = cm_host_wait(deadline);
    while (what == CM_WAIT_ANSWER) { /* all that are there: who looks for them next may be busy for a while */
        cm_calls_arrived();
        what = cm_host_wait(0);
    }
    switch (what) {
    case CM_WAIT_INTERRUPT:
        wake_main();
        break;
    case CM_WAIT_OUTPUT:
        wake_all(&OUTPUT);
        break;
    }
    wake_expired();
}

/* Runs the next thread that can run; the caller's own state says whether it is to run again. */
static void reschedule(void)
{
    for (;;) {
        int next = pop();
        if (next >= 0) {
            run(next);
            return;
        }
        bool pending;
        int64_t deadline = next_deadline(&pending);
        if (deadline < 0 && !pending && !cm_calls_live) {
            deadlock = true;
            PyErr_SetInterruptEx(SIGINT);
            wake_main();
        } else {
            look(deadline);
        }
    }
}

static int block(const void *on, int64_t deadline)
{
    struct thread *t = &threads[current];
    t->state = BLOCKED;
    t->on = on;
    t->deadline = deadline;
    t->since = ++waits;
    t->why = 0;
    reschedule();
    return t->why;
}

int cm_sched_block(const void *on, int64_t deadline)
{
    return block(on, deadline);
}

void cm_sched_wake(const void *on)
{
    for (int i = 0; i < top; i++)
        if (threads[i].state == BLOCKED && threads[i].on == on)
            wake(i, 0, true);
}

void cm_sched_look(void)
{
    look(0);
}

int cm_sched_sleep(int64_t deadline)
{
    int why = block(NULL, deadline);
    return why == EINTR ? EINTR : 0;
}

void cm_sched_wait_output(void)
{
    block(&OUTPUT, -1);
}

void cm_sched_yield(void)
{
    look(0);
    if (live > 1 && ready_head != ready_tail) {
        push(current);
        reschedule();
    }
}

/* ---- threads */

static pthread_t ident(int i)
{
    return (pthread_t)(uintptr_t)((threads[i].generation << 8 | (unsigned)i) + 1); /* never 0 */
}

static struct thread *by_ident(pthread_t id)
{
    return &threads[((unsigned)(uintptr_t)id - 1) & (THREADS_MAX - 1)];
}

static _Noreturn void finish(void *ret)
{
    struct thread *t = &threads[current];
    t->ret = ret;
    t->state = t->detached ? FREE : DONE;
    live--;
    wake_all(t);
    reschedule();
    abort(); /* a finished thread never runs again */
}

CM_EXPORT("guest_thread") void cm_guest_thread(int slot)
{
    struct thread *t = &threads[slot];
    errno = 0;
    _Py_tss_tstate = NULL;
    know_stack();
    finish(t->start(t->arg));
}

static int free_slot(void)
{
    for (int i = 1; i < THREADS_MAX; i++)
        if (threads[i].state == FREE)
            return i;
    return -1;
}

/* A protected page below the shadow stack turns its overflow into a trap instead of a silent overwrite. */
static char *new_shadow(void)
{
    char *shadow = aligned_alloc(PAGE, SHADOW_SIZE);
    if (shadow)
        cm_host_guard(shadow);
    return shadow;
}

int pthread_create(pthread_t *restrict ret, const pthread_attr_t *restrict attr, void *(*start)(void *),
                   void *restrict arg)
{
    (void)attr;
    int i = free_slot();
    if (i < 0)
        return EAGAIN;
    struct thread *t = &threads[i];
    if (!t->shadow && !(t->shadow = new_shadow()))
        return EAGAIN;
    *t = (struct thread){.state = RUNNABLE,
                         .deadline = -1,
                         .generation = (t->generation + 1) & 0x3fffff,
                         .start = start,
                         .arg = arg,
                         .shadow = t->shadow};
    if (i >= top)
        top = i + 1;
    live++;
    cm_host_spawn(i, t->shadow + SHADOW_SIZE);
    push(i);
    *ret = ident(i);
    return 0;
}

int pthread_detach(pthread_t id)
{
    struct thread *t = by_ident(id);
    t->detached = true;
    if (t->state == DONE)
        t->state = FREE;
    return 0;
}

int pthread_join(pthread_t id, void **ret)
{
    struct thread *t = by_ident(id);
    while (t->state != DONE)
        block(t, -1);
    if (ret)
        *ret = t->ret;
    t->state = FREE;
    return 0;
}

pthread_t pthread_self(void)
{
    return ident(current);
}

int pthread_exit(void *ret)
{
    finish(ret);
}

int pthread_attr_init(pthread_attr_t *a)
{
    (void)a;
    return 0;
}

int pthread_attr_setstacksize(pthread_attr_t *a, size_t n)
{
    (void)a, (void)n;
    return 0;
}

int pthread_attr_destroy(pthread_attr_t *a)
{
    (void)a;
    return 0;
}

/* ---- mutexes: never contended */

int pthread_mutex_init(pthread_mutex_t *restrict m, const pthread_mutexattr_t *restrict a)
{
    (void)m, (void)a;
    return 0;
}

int pthread_mutex_destroy(pthread_mutex_t *m)
{
    (void)m;
    return 0;
}

int pthread_mutex_trylock(pthread_mutex_t *m)
{
    (void)m;
    return 0;
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
    (void)m;
    return 0;
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    (void)m;
    return 0;
}

/* ---- conditions; the first word holds the clock of timed waits */

int pthread_condattr_init(pthread_condattr_t *a)
{
    *(int *)a = 0;
    return 0;
}

int pthread_condattr_setclock(pthread_condattr_t *a, clockid_t clock)
{
    *(int *)a = clock == CLOCK_MONOTONIC;
    return 0;
}

int pthread_cond_init(pthread_cond_t *restrict c, const pthread_condattr_t *restrict a)
{
    *(int *)c = a ? *(const int *)a : 0;
    return 0;
}

int pthread_cond_destroy(pthread_cond_t *c)
{
    (void)c;
    return 0;
}

int pthread_cond_wait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m)
{
    (void)m;
    block(c, -1);
    return 0;
}

static int64_t to_ns(const struct timespec *t)
{
    int64_t ns;
    if (__builtin_mul_overflow((int64_t)t->tv_sec, 1000000000, &ns) || __builtin_add_overflow(ns, t->tv_nsec, &ns))
        return INT64_MAX;
    return ns;
}

int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict at)
{
    (void)m;
    bool monotonic = *(int *)c;
    int64_t deadline = to_ns(at), now = cm_sched_now();
    if (!monotonic) {
        int64_t left = deadline - cm_host_clock(0);
        deadline = left <= 0 ? now : __builtin_add_overflow(now, left, &deadline) ? INT64_MAX : deadline;
    }
    return block(c, deadline) == ETIMEDOUT ? ETIMEDOUT : 0;
}

int pthread_cond_signal(pthread_cond_t *c)
{
    wake_oldest(c);
    return 0;
}

/* ---- thread-specific values */

int pthread_key_create(pthread_key_t *ret, void (*destructor)(void *))
{
    (void)destructor;
    for (unsigned i = 0; i < PTHREAD_KEYS_MAX; i++)
        if (!key_used[i]) {
            key_used[i] = true;
            *ret = i;
            return 0;
        }
    return EAGAIN;
}

int pthread_key_delete(pthread_key_t key)
{
    key_used[key] = false;
    for (int i = 0; i < THREADS_MAX; i++)
        threads[i].specific[key] = NULL;
    return 0;
}

void *pthread_getspecific(pthread_key_t key)
{
    return threads[current].specific[key];
}

int pthread_setspecific(pthread_key_t key, const void *value)
{
    threads[current].specific[key] = (void *)value;
    return 0;
}

/* ---- libc calls that sleep; libc's own versions lose EINTR */

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *t, struct timespec *rem)
{
    (void)clock;
    if (t->tv_nsec < 0 || t->tv_nsec >= 1000000000 || t->tv_sec < 0)
        return EINVAL;
    int64_t now = cm_sched_now(), deadline = to_ns(t);
    if (!(flags & TIMER_ABSTIME) && __builtin_add_overflow(deadline, now, &deadline))
        deadline = INT64_MAX;
    int why = cm_sched_sleep(deadline);
    if (why && rem && !(flags & TIMER_ABSTIME)) {
        int64_t left = deadline - cm_sched_now();
        *rem = (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    }
    return why;
}

int nanosleep(const struct timespec *t, struct timespec *rem)
{
    int why = clock_nanosleep(CLOCK_MONOTONIC, 0, t, rem);
    if (why)
        errno = why;
    return why ? -1 : 0;
}
