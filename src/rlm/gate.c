/* SPDX-License-Identifier: Apache-2.0 */
#include "rlm/gate.h"

#include <stddef.h>

#include <utlist.h>

static void go(struct cm_gate *g, struct cm_gate_wait *w)
{
    g->busy++;
    w->state = CM_GATE_IN;
    w->go(w->arg);
}

static void unqueue(struct cm_gate *g, struct cm_gate_wait *w)
{
    struct cm_gate_group *group = w->group;

    DL_DELETE(group->waits, w);
    if (!group->waits)
        DL_DELETE(g->queue, group);
}

void cm_gate_enter(struct cm_gate *g, struct cm_gate_group *group, struct cm_gate_wait *w)
{
    w->group = group;
    if (g->busy < g->max) {
        go(g, w);
        return;
    }
    if (!group->waits)
        DL_APPEND(g->queue, group);
    DL_APPEND(group->waits, w);
    w->state = CM_GATE_WAITS;
}

/* The group that was served goes to the end of the queue. */
static void next(struct cm_gate *g)
{
    struct cm_gate_group *group = g->queue;

    if (!group || g->busy >= g->max)
        return;
    struct cm_gate_wait *w = group->waits;
    DL_DELETE(g->queue, group);
    DL_DELETE(group->waits, w);
    if (group->waits)
        DL_APPEND(g->queue, group);
    go(g, w);
}

void cm_gate_leave(struct cm_gate *g, struct cm_gate_wait *w)
{
    bool in = w->state == CM_GATE_IN;

    if (w->state == CM_GATE_WAITS)
        unqueue(g, w);
    w->state = CM_GATE_OUT;
    if (!in)
        return;
    g->busy--;
    next(g);
}
