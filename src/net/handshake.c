/* SPDX-License-Identifier: Apache-2.0 */
/* A step of a handshake may sign with a long key, which takes milliseconds. A hundred clients that come at once must not
 * take the loop away from everybody else for a second: all handshakes of a loop stand in one line, and in each turn as many
 * get a step as fit into a few milliseconds, at least one. */
#include <utlist.h>

#include "base/clock.h"
#include "net/internal.h"
#include "net/tls_internal.h"

#define TURN_NS (3 * CM_NS_PER_MS)

static _Thread_local struct {
    struct cm_stream *first;
    struct cm_task task;
} line;

static void step(struct cm_stream *s)
{
    struct cm_err err;
    int rc = cm_tls_session_step(s, &err);
    int errnum = cm_stream_flush(s); /* a failure's alert, too */

    if (errnum != 0) {
        s->failed = true;
        if (rc >= 0)
            rc = cm_err_sys(&err, errnum, "%s: write", s->peer);
    }
    if (rc < 0)
        cm_stream_end(s, &err);
    else if (rc == 0)
        cm_stream_ready(s);
    else
        cm_stream_rewatch(s);
}

static void run_line(void *arg)
{
    struct cm_loop *loop = arg;
    uint64_t until_ns = cm_clock_ns() + TURN_NS;

    do {
        struct cm_stream *s = line.first;
        cm_stream_handshake_stop(s);
        step(s);
    } while (line.first && cm_clock_ns() < until_ns);
    if (line.first)
        cm_task_post(loop, &line.task, run_line, loop);
}

void cm_stream_handshake(struct cm_stream *s)
{
    if (s->turn)
        return;
    s->turn = true;
    DL_APPEND2(line.first, s, turn_prev, turn_next);
    cm_task_post(s->loop, &line.task, run_line, s->loop);
    cm_stream_rewatch(s);
}

void cm_stream_handshake_stop(struct cm_stream *s)
{
    if (!s->turn)
        return;
    s->turn = false;
    DL_DELETE2(line.first, s, turn_prev, turn_next);
    if (!line.first)
        cm_task_cancel(s->loop, &line.task);
}
