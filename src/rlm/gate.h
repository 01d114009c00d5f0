/* SPDX-License-Identifier: Apache-2.0 */
/* How many requests to models are under way at once. Those that find no place wait; runs take turns. */
#ifndef CM_RLM_GATE_H
#define CM_RLM_GATE_H

#include <stdbool.h>

struct cm_gate_group;

struct cm_gate_wait {
    struct cm_gate_wait *prev, *next;
    struct cm_gate_group *group;
    enum { CM_GATE_OUT, CM_GATE_WAITS, CM_GATE_IN } state;
    void (*go)(void *arg); /* from cm_gate_enter(), or when another one has left */
    void *arg;
};

struct cm_gate_group {
    struct cm_gate_group *prev, *next; /* in the gate's queue while one of it waits */
    struct cm_gate_wait *waits;
};

struct cm_gate {
    unsigned max, busy;
    struct cm_gate_group *queue;
};

void cm_gate_enter(struct cm_gate *g, struct cm_gate_group *group, struct cm_gate_wait *w);
/* In whichever state it is. */
void cm_gate_leave(struct cm_gate *g, struct cm_gate_wait *w);

#endif
