/* SPDX-License-Identifier: Apache-2.0 */
/* One run for a person: where it works, what it shows, how it ends. */
#ifndef CM_RLM_CLI_COMPLETE_H
#define CM_RLM_CLI_COMPLETE_H

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "conf/rlm.h"
#include "ev/loop.h"
#include "front/rlm/trajectory.h"
#include "rlm/rlm.h"

#define NODES_MAX 1024

/* What a person sees of a run, on `out`. */
struct view {
    FILE *out; /* NULL: nothing */
    bool live; /* a terminal: there is a last line that is written again and again */
    bool colours;
    bool line; /* it stands there */
    char what[160]; /* is done now */
    struct view_node {
        double call; /* the sub-query that it answers */
        unsigned lines; /* that its block has printed */
        unsigned char depth;
    } nodes[NODES_MAX];
    unsigned printing; /* the node that has printed last, and its line as far as it has come */
    bool open;
    size_t piece_len;
    char piece[256];
    uint64_t started_ns;
    unsigned turns, calls, open_calls;
    double input, output, cost;
};

void view_init(struct view *v, FILE *out);
void view_event(struct view *v, const char *type, const char *json, size_t len);
/* Writes the last line again. */
void view_tick(struct view *v);
void view_end(struct view *v);

struct completion {
    struct cm_loop *loop;
    struct cm_rlm_conf conf;
    const char *query, *context_name, *type, *url, *trajectory;
    bool json, quiet;
    struct cm_rlm_context context; /* its descriptor is ours until it is taken; -1: none */
    struct view view;
    FILE *trajectory_file;
    struct cm_infer_trajectory lines;
    struct cm_timer *tick;
    struct cm_signal *interrupt;
    unsigned interrupts;
    int exit_code;
    /* Set by whoever runs it. */
    void *backend;
    void (*cancel)(struct completion *c);
};

/* Where it works. Each sets `backend` and `cancel`, tells events and, once, the end. */
int complete_here(struct completion *c, struct cm_err *err);
void complete_here_end(struct completion *c);
int complete_there(struct completion *c, struct cm_err *err);
void complete_there_end(struct completion *c);

void complete_event(struct completion *c, const char *type, const char *json, size_t len);
void complete_done(struct completion *c, const char *run_id, const struct cm_rlm_result *res);
/* It could not be begun, or what it needs is gone. */
void complete_fail(struct completion *c, int exit_code, const char *text);

#endif
