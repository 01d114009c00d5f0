/* SPDX-License-Identifier: Apache-2.0 */
#include "executor/record.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "base/clock.h"

#define BIGGEST_SHARE 4 /* one answer may take a fourth of the room */

struct entry {
    struct cm_record pub; /* the first member */
    UT_hash_handle hh;
    uint64_t done_ns;
    struct entry *next; /* of those that have ended, the one that did after it */
};

struct cm_records {
    struct entry *table;
    struct entry *first, *last; /* of those that have ended, the oldest first */
    struct entry *first_kept; /* before it there are no answers */
    unsigned answers, answers_max, ended_count;
    uint64_t bytes, bytes_max;
};

struct cm_records *cm_records_new(unsigned answers_max, uint64_t bytes_max)
{
    struct cm_records *r = calloc(1, sizeof *r);

    if (r) {
        r->answers_max = answers_max;
        r->bytes_max = bytes_max;
    }
    return r;
}

/* Kept answers */

struct cm_kept *cm_kept_ref(struct cm_kept *kept)
{
    kept->refs++;
    return kept;
}

void cm_kept_unref(struct cm_kept *kept)
{
    if (kept && --kept->refs == 0)
        free(kept);
}

/* The texts of a result, as places inside it. */
struct text {
    const char **at;
    size_t len;
};

static unsigned texts_of(struct cm_exec_result *res, struct text ret[static 7])
{
    const struct text all[] = {
        {&res->out, res->out_len},
        {&res->err, res->err_len},
        {&res->result, res->result_len},
        {&res->error, res->error_len},
        {&res->error_type, res->error_type_len},
        {&res->traceback, res->traceback_len},
        {&res->locals, res->locals_len},
    };

    memcpy(ret, all, sizeof all);
    return 7;
}

static const char *move(char **at, const char *text, size_t len)
{
    char *to = *at;

    if (!text)
        return NULL;
    memcpy(to, text, len);
    to[len] = '\0';
    *at += len + 1;
    return to;
}

static struct cm_kept *copy(const struct cm_exec_result *res, const struct cm_err *err, const char *id, uint64_t most)
{
    struct cm_exec_result r = res ? *res : (struct cm_exec_result){.state = CM_STATE_KEPT};
    struct text texts[7];
    size_t bytes = sizeof(struct cm_kept) + strlen(id) + 1;
    unsigned n = texts_of(&r, texts);

    for (unsigned i = 0; i < n; i++)
        bytes += *texts[i].at ? texts[i].len + 1 : 0;
    struct cm_kept *k = bytes <= most ? malloc(bytes) : NULL;
    if (!k)
        return NULL;
    char *at = (char *)(k + 1);
    for (unsigned i = 0; i < n; i++)
        *texts[i].at = move(&at, *texts[i].at, texts[i].len);
    *k = (struct cm_kept){.refs = 1, .has_result = res, .res = r, .bytes = bytes};
    if (err)
        k->err = *err;
    k->id = move(&at, id, strlen(id));
    return k;
}

/* The table */

static void lose_answer(struct cm_records *r, struct entry *e)
{
    if (!e->pub.kept)
        return;
    r->answers--;
    r->bytes -= e->pub.kept->bytes;
    cm_kept_unref(e->pub.kept);
    e->pub.kept = NULL;
    e->pub.state = CM_RECORD_GONE;
}

static void forget(struct cm_records *r, struct entry *e)
{
    lose_answer(r, e);
    assert(r->table && e->hh.tbl);
    HASH_DEL(r->table, e);
    free(e);
}

static void forget_first(struct cm_records *r)
{
    struct entry *e = r->first;

    r->first = e->next;
    if (!r->first)
        r->last = NULL;
    if (r->first_kept == e)
        r->first_kept = e->next;
    r->ended_count--;
    forget(r, e);
}

static void tidy(struct cm_records *r)
{
    while (r->first && (cm_clock_ns() - r->first->done_ns >= CM_RECORD_NS || r->ended_count > CM_RECORDS_MAX))
        forget_first(r);
    while (r->first_kept && (r->answers > r->answers_max || r->bytes > r->bytes_max)) {
        lose_answer(r, r->first_kept);
        r->first_kept = r->first_kept->next;
    }
}

struct cm_records *cm_records_free(struct cm_records *r)
{
    struct entry *e, *next;

    if (!r)
        return NULL;
    HASH_ITER(hh, r->table, e, next)
    forget(r, e);
    free(r);
    return NULL;
}

void cm_records_limit(struct cm_records *r, unsigned answers_max, uint64_t bytes_max)
{
    r->answers_max = answers_max;
    r->bytes_max = bytes_max;
    tidy(r);
}

struct cm_record *cm_records_find(struct cm_records *r, const struct cm_hash *hash)
{
    struct entry *e;

    tidy(r);
    HASH_FIND(hh, r->table, hash, sizeof *hash, e);
    return e ? &e->pub : NULL;
}

struct cm_record *cm_records_begin(struct cm_records *r, const struct cm_hash *hash, void *job)
{
    struct entry *e = calloc(1, sizeof *e);

    tidy(r);
    if (!e)
        return NULL;
    e->pub.hash = *hash;
    e->pub.state = CM_RECORD_RUNNING;
    e->pub.job = job;
    HASH_ADD(hh, r->table, pub.hash, sizeof *hash, e);
    if (!e->hh.tbl) {
        free(e);
        return NULL;
    }
    return &e->pub;
}

void cm_records_finish(struct cm_records *r, struct cm_record *rec, const struct cm_exec_result *res,
                       const struct cm_err *err, const char *id)
{
    struct entry *e = (struct entry *)rec;

    rec->job = NULL;
    rec->state = CM_RECORD_GONE;
    rec->kept = copy(res, err, id, r->bytes_max / BIGGEST_SHARE);
    e->done_ns = cm_clock_ns();
    if (r->last)
        r->last->next = e;
    else
        r->first = e;
    r->last = e;
    r->first_kept = r->first_kept ? r->first_kept : e;
    r->ended_count++;
    if (rec->kept) {
        rec->state = CM_RECORD_KEPT;
        r->answers++;
        r->bytes += rec->kept->bytes;
    }
    tidy(r);
}

void cm_records_drop(struct cm_records *r, struct cm_record *rec)
{
    forget(r, (struct entry *)rec);
}

size_t cm_records_count(const struct cm_records *r)
{
    return HASH_COUNT(r->table);
}

uint64_t cm_records_bytes(const struct cm_records *r)
{
    return r->bytes;
}
