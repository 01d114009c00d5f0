/* SPDX-License-Identifier: Apache-2.0 */
/* The stage on which the session room plays in fuzz_session.c: a zygote, workers, their processes, and time. */
#ifndef CM_TESTS_STAGE_H
#define CM_TESTS_STAGE_H

#include "ev/loop.h"
#include "fuzz.h"

struct stage_worker {
    int fd;      /* its end of the channel, -1 when closed */
    int process; /* index, -1 before its birth */
    bool raw;    /* has written bytes that nobody vouches for */
    unsigned zygote;        /* the how manieth was asked for it */
    uint64_t spawn_id, seq; /* of the last execution that it was given */
    unsigned calls; /* that it has made in that one */
};

void stage_open(void);
/* Checks that no process of the room's is left, and forgets everything. */
void stage_close(void);
const struct stage_worker *stage_worker(int index);
/* Lets every worker read what it was sent. */
void stage_read_all(void);
void stage_zygote_step(uint8_t what, uint8_t detail, struct fuzz_in *in);
void stage_worker_step(uint8_t what, uint8_t detail, struct fuzz_in *in);
/* A worker's code calls a tool, or cancels a call. */
void stage_call_step(uint8_t what, uint8_t detail, struct fuzz_in *in);
/* All do what they should: hello, births, readiness, answers. `detail` leaves some of it out. */
void stage_behave(uint8_t detail);
/* Of all allocations from now on, this one fails; 0: none. */
void stage_fail_allocation(unsigned nth);
void stage_advance(struct cm_loop *loop, unsigned ms);

/* The fuzzer's: a worker has found this code in an EXECUTE frame. */
void stage_code_was_read(int worker, const char *code, size_t len);
/* And the answer of a call; `failure` -1: none. */
void stage_answer_was_read(int worker, uint64_t call, int failure, const char *text, size_t len);

#endif
