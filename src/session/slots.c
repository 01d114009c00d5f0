/* SPDX-License-Identifier: Apache-2.0 */
/* How many executions may compute at once.
 *
 * More of them than processors can serve make each other slow until all of them run out of time, so beyond
 * max_running the next one waits for its turn, in the order of arrival; its own time starts with its run. One that
 * sleeps or waits slows nobody: while somebody wants a turn, the processor clocks of all running ones are read every
 * LOOK_MS, and those that used less than a tenth of that time do not count. One that was given less than it asked for is
 * none of them: where others keep the processors busy, it would be taken for a sleeper just when there are too many.
 *
 * A session that waits for its turn is IDLE, has a queue and no timer. Its turn is the event QUEUED, `granted`. */
#include "session/internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

#include "base/cleanup.h"

#define LOOK_MS 100

static bool slot_is_free(const struct cm_sessions *m)
{
    return m->config.max_running == 0 || m->running - m->resting < m->config.max_running;
}

static void grant(void *arg)
{
    struct cm_sessions *m = arg;

    while (m->turns && slot_is_free(m)) {
        struct cm_session *s = m->turns;
        cm_turn_leave(s);
        if (s->state != CM_S_IDLE)
            continue; /* it comes back by itself, when it is idle again */
        s->granted = true;
        cm_session_event(s, CM_SE_QUEUED, NULL);
    }
    if (!m->turns)
        cm_timer_stop(m->look_timer);
}

/* True for a process that runs, or would if there were a processor for it. */
static bool is_runnable(int pid)
{
    char path[32], text[128] = "";

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    cm_autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        return false;
    const char *name_end = strrchr(text, ')');
    return name_end && strncmp(name_end, ") R", 3) == 0;
}

static void look_at(struct cm_exec *e, int pid)
{
    uint64_t now = cm_clock_ns(), cpu = cm_exec_cpu_clock(pid);
    bool rests = e->looked_ns && (cpu - e->looked_cpu_ns) * 10 < now - e->looked_ns;

    if (rests && !e->resting) /* once: there may be thousands of sleepers */
        rests = !is_runnable(pid);
    e->m->resting += rests;
    e->m->resting -= e->resting;
    e->resting = rests;
    e->looked_ns = now;
    e->looked_cpu_ns = cpu;
}

void cm_turns_look(void *arg)
{
    struct cm_sessions *m = arg;
    struct cm_session *s, *next;

    HASH_ITER(hh, m->sessions, s, next)
    if (s->running && s->worker)
        look_at(s->running, s->worker->pid);
    grant(m);
}

bool cm_turn_take(struct cm_session *s)
{
    struct cm_sessions *m = s->m;

    if (s->granted || (!m->turns && slot_is_free(m))) {
        s->granted = false;
        return true;
    }
    if (s->turn_prev)
        return false;
    if (!m->turns)
        cm_timer_start(m->look_timer, LOOK_MS, LOOK_MS);
    DL_APPEND2(m->turns, s, turn_prev, turn_next);
    return false;
}

void cm_turn_leave(struct cm_session *s)
{
    if (!s->turn_prev)
        return;
    DL_DELETE2(s->m->turns, s, turn_prev, turn_next);
    s->turn_prev = s->turn_next = NULL;
}

void cm_turn_over(struct cm_exec *e)
{
    struct cm_sessions *m = e->m;

    m->resting -= e->resting;
    e->resting = false;
    if (m->turns && !m->ending)
        cm_task_post(m->loop, &m->grant, grant, m);
}

bool cm_turns_full(const struct cm_sessions *m)
{
    return m->turns || !slot_is_free(m);
}
