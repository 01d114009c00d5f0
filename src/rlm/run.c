/* SPDX-License-Identifier: Apache-2.0 */
#include "rlm/rlm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/random.h"
#include "base/utf8.h"
#include "obs/log.h"
#include "rlm/internal.h"
#include "rlm/prompts.h"
#include "wire/json.h"

#define DEPTH_MAX         64
#define TOOLS_MAX         (4u << 20)
#define PROMPT_MAX        (16u << 20)
#define SUBCALLS_MAX      256
#define LATER_S           1.0 /* that rooms below have beyond a run's time, so that its end has its own reason */
#define FILES_WAITING_MAX ((size_t)256 << 20)
#define FILES_PATIENCE_S  5.0
#define LONGEST_S         (366 * 86400.0)

/* The engine */

int cm_rlm_open(struct cm_loop *loop, const struct cm_rlm_config *config, struct cm_rlm **ret, struct cm_err *err)
{
    int rc = cm_texts_open(err);

    if (rc < 0)
        return rc;
    struct cm_rlm *r = calloc(1, sizeof *r);
    if (!r)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for runs");
    const struct cm_trajectories_config files = {config->log_dir, FILES_WAITING_MAX, config->metrics};
    if (config->log_dir && (rc = cm_trajectories_open(loop, &files, &r->files, err)) < 0) {
        free(r);
        return rc;
    }
    r->loop = loop;
    r->llm = config->llm;
    r->sidecar = config->sidecar;
    r->metrics = config->metrics;
    r->runs_max = config->runs_max;
    r->room = (struct cm_parts_room){.bytes_max = CM_PARTS_BYTES_MAX, .files_max = CM_PARTS_FILES_MAX};
    r->held = (struct cm_parts_room){.bytes_max = CM_PARTS_HELD_MAX};
    r->gate.max = config->model_calls_max ? config->model_calls_max : 1;
    *ret = r;
    return 0;
}

struct cm_rlm *cm_rlm_free(struct cm_rlm *r)
{
    if (!r)
        return NULL;
    while (r->runs)
        cm_run_kill(r->runs);
    while (r->conversations)
        cm_rlm_conversation_free(r->conversations);
    r->files = cm_trajectories_close(r->files, FILES_PATIENCE_S);
    free(r);
    return NULL;
}

unsigned cm_rlm_running(const struct cm_rlm *r)
{
    return r->running;
}

/* What a run is asked */

static int bad(struct cm_err *err, const char *field, const char *why)
{
    return cm_err_set(err, CM_ERR_BAD_FIELD, "%s: %s", field, why);
}

static int check_text(const char *text, const char *field, size_t max, struct cm_err *err)
{
    if (!text)
        return 0;
    size_t len = strlen(text);
    if (len > max)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "%s: longer than %zu bytes", field, max);
    return cm_utf8_valid(text, len) ? 0 : bad(err, field, "not UTF-8");
}

static bool in_range(double value, double least, double most)
{
    return value >= least && value <= most; /* false for what is no number */
}

static int check_limits(const struct cm_rlm_limits *l, struct cm_err *err)
{
    if (l->max_depth < 1 || l->max_depth > DEPTH_MAX)
        return bad(err, "max_depth", "must be from 1 to 64");
    if (l->max_iterations < 1 || l->max_iterations > 10000)
        return bad(err, "max_iterations", "must be from 1 to 10000");
    if (l->max_concurrent_subcalls < 1 || l->max_concurrent_subcalls > SUBCALLS_MAX)
        return bad(err, "max_concurrent_subcalls", "must be from 1 to 256");
    if (!in_range(l->max_budget, 0, 1e12))
        return bad(err, "max_budget", "must be a positive sum");
    if (!in_range(l->max_timeout_s, 0, LONGEST_S))
        return bad(err, "max_timeout", "must be a positive number of seconds");
    if (!in_range(l->execution_timeout_s, 0.001, LONGEST_S))
        return bad(err, "execution_timeout", "must be a positive number of seconds");
    return 0;
}

static int check(const struct cm_rlm_request *q, struct cm_err *err)
{
    int rc;

    if ((rc = check_text(q->query, "query", PROMPT_MAX, err)) < 0 ||
        (rc = check_text(q->system_prompt, "system_prompt", PROMPT_MAX, err)) < 0 ||
        (rc = check_text(q->user_prologue, "user_prologue", PROMPT_MAX, err)) < 0 ||
        (rc = check_text(q->custom_tools, "custom_tools", TOOLS_MAX, err)) < 0 ||
        (rc = check_text(q->custom_sub_tools, "custom_sub_tools", TOOLS_MAX, err)) < 0 ||
        (rc = check_limits(&q->limits, err)) < 0 ||
        (rc = cm_preface_check_tools(q->custom_tools, "custom_tools", err)) < 0 ||
        (rc = cm_preface_check_tools(q->custom_sub_tools, "custom_sub_tools", err)) < 0)
        return rc;
    bool context = q->context.fd >= 0 || q->context.data;
    if (!(q->query && *q->query) && !context)
        return bad(err, "query", "is required where there is no context");
    if (q->models_count < 1 || q->models_count > CM_RLM_MODELS_MAX)
        return bad(err, "model", "is required");
    for (unsigned i = 0; i < q->models_count; i++)
        if (!q->models[i].name || !*q->models[i].name)
            return bad(err, "model", "must not be empty");
    if (!in_range(q->compaction_threshold, 0, 1))
        return bad(err, "compaction_threshold", "must be from 0 to 1");
    return 0;
}

static int copy(struct cm_rlm_run *run, const char **text)
{
    if (!*text)
        return 0;
    char *mine = run->strings_count < CM_RUN_STRINGS_MAX ? strdup(*text) : NULL;
    if (!mine)
        return CM_ERR_NO_MEMORY;
    run->strings[run->strings_count++] = mine;
    *text = mine;
    return 0;
}

static int copy_model(struct cm_rlm_run *run, struct cm_llm_model *m)
{
    int rc;

    if ((rc = copy(run, &m->name)) < 0 || (rc = copy(run, &m->base_url)) < 0 || (rc = copy(run, &m->api_key)) < 0)
        return rc;
    return copy(run, &m->sampling);
}

static int copy_request(struct cm_rlm_run *run, const struct cm_rlm_request *req)
{
    struct cm_rlm_request *q = &run->request;
    int rc;

    *q = *req;
    if ((rc = copy(run, &q->query)) < 0 || (rc = copy(run, &q->system_prompt)) < 0 ||
        (rc = copy(run, &q->user_prologue)) < 0 || (rc = copy(run, &q->custom_tools)) < 0 ||
        (rc = copy(run, &q->custom_sub_tools)) < 0 || (rc = copy(run, &q->correlation)) < 0 ||
        (rc = copy_model(run, &q->other)) < 0)
        return rc;
    for (unsigned i = 0; i < q->models_count; i++)
        if ((rc = copy_model(run, &q->models[i])) < 0)
            return rc;
    if (q->query && !*q->query)
        q->query = NULL;
    if (!q->custom_sub_tools)
        q->custom_sub_tools = q->custom_tools;
    if (!(q->compaction_threshold > 0))
        q->compaction_threshold = 0.85;
    return 0;
}

struct cm_llm_model *cm_run_model(struct cm_rlm_run *run, unsigned depth)
{
    unsigned last = run->request.models_count - 1;

    return &run->request.models[depth < last ? depth : last];
}

bool cm_run_logs(const struct cm_rlm_run *run, int what)
{
    return what == CM_LIVE ? run->ops.event != NULL : run->file != NULL;
}

/* A run's life */

static struct cm_rlm_key *find_key(const struct cm_rlm *r, const char *name)
{
    struct cm_rlm_key *k;

    DL_FOREACH(r->keys, k)
    if (strcmp(k->name, name) == 0)
        return k;
    return NULL;
}

static int take_key(struct cm_rlm_run *run, const char *name, struct cm_err *err)
{
    struct cm_rlm *r = run->rlm;
    struct cm_rlm_key *k = find_key(r, name);

    if (!k) {
        k = calloc(1, sizeof *k + strlen(name) + 1);
        if (!k)
            return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a run");
        strcpy(k->name, name);
        k->room =
            (struct cm_parts_room){.bytes_max = CM_PARTS_BYTES_MAX, .files_max = CM_PARTS_FILES_MAX, .above = &r->room};
        k->held = (struct cm_parts_room){.bytes_max = CM_PARTS_HELD_MAX, .above = &r->held};
        DL_APPEND(r->keys, k);
    }
    k->runs++;
    run->key = k;
    run->room.above = &k->room;
    run->held.above = &k->held;
    return 0;
}

static void leave_key(struct cm_rlm_run *run)
{
    struct cm_rlm_key *k = run->key;

    if (!k || --k->runs > 0)
        return;
    DL_DELETE(run->rlm->keys, k);
    free(k);
}

static void free_run(struct cm_rlm_run *run)
{
    leave_key(run);
    cm_task_cancel(run->rlm->loop, &run->end);
    cm_timer_close(run->timer);
    cm_trajectory_close(run->file);
    for (size_t i = 0; i < run->strings_count; i++)
        free(run->strings[i]);
    free(run->answer);
    free(run);
}

static void unlink_run(struct cm_rlm_run *run)
{
    DL_DELETE(run->rlm->runs, run);
    run->rlm->running--;
    if (run->conversation)
        run->conversation->run = NULL;
}

void cm_run_kill(struct cm_rlm_run *run)
{
    const struct cm_err cancelled = {.code = CM_ERR_CANCELLED, .text = "the service ends"};

    run->ending = true;
    run->ops.event = NULL;
    if (run->root)
        cm_node_abort(run->root, &cancelled);
    unlink_run(run);
    free_run(run);
}

static void tell(struct cm_rlm_run *run, const char *usage, const struct cm_node *root, char *partial,
                 size_t partial_len)
{
    struct cm_rlm_result res = {
        .answer = run->err.code ? NULL : run->answer,
        .answer_len = run->err.code ? 0 : run->answer_len,
        .err = run->err,
        .partial = partial && run->err.code ? partial : "",
        .partial_len = partial && run->err.code ? partial_len : 0,
        .usage = usage,
        .iterations = root->turn,
        .seconds = (double)(cm_clock_ns() - run->began_ns) / 1e9,
    };

    run->ops.done(run->arg, &res);
}

/* The tree goes first, so that nothing of it is left while the caller hears of the end. */
static void on_end(void *arg)
{
    struct cm_rlm_run *run = arg;
    struct cm_node *root = run->root;
    struct cm_node said = {.turn = root->turn};
    char *partial = root->partial;
    size_t partial_len = root->partial_len;
    struct cm_buf usage;

    cm_buf_init(&usage, 1 << 20);
    if (cm_usage_json(&root->usage, &usage) < 0)
        cm_buf_clear(&usage);
    cm_node_stop(root); /* so that nothing is said of it behind its result */
    cm_event_result(root, run->answer, run->answer_len, &run->err);
    root->partial = NULL;
    cm_node_abort(root, &run->err);
    run->root = NULL;
    unlink_run(run);
    tell(run, usage.len ? cm_buf_data(&usage) : "{\"model_usage_summaries\":{}}", &said, partial, partial_len);
    free(partial);
    cm_buf_done(&usage);
    free_run(run);
}

static void end_soon(struct cm_rlm_run *run)
{
    run->ending = true;
    cm_task_post(run->rlm->loop, &run->end, on_end, run);
}

void cm_run_fail(struct cm_rlm_run *run, int code, const char *format, ...)
{
    va_list ap;

    if (run->ending)
        return;
    run->err.code = code;
    va_start(ap, format);
    vsnprintf(run->err.text, sizeof run->err.text, format, ap);
    va_end(ap);
    run->err.text[strlen(run->err.text) - cm_utf8_cut_end(run->err.text, strlen(run->err.text))] = '\0';
    end_soon(run);
}

void cm_run_answer(struct cm_rlm_run *run, char *answer, size_t len)
{
    if (run->ending) {
        free(answer);
        return;
    }
    run->answer = answer;
    run->answer_len = len;
    end_soon(run);
}

void cm_rlm_cancel(struct cm_rlm_run *run)
{
    cm_run_fail(run, CM_ERR_CANCELLED, "the run was cancelled");
}

const char *cm_rlm_run_id(const struct cm_rlm_run *run)
{
    return run->id;
}

double cm_run_left(const struct cm_rlm_run *run)
{
    uint64_t now = cm_clock_ns();

    if (run->deadline_ns == 0)
        return 0;
    return run->deadline_ns > now ? (double)(run->deadline_ns - now) / 1e9 + LATER_S : LATER_S;
}

static void on_deadline(void *arg)
{
    struct cm_rlm_run *run = arg;

    cm_run_fail(run, CM_ERR_LIMIT_TIMEOUT, "the run has reached its limit of %g seconds (max_timeout)",
                run->request.limits.max_timeout_s);
}

static int start_clock(struct cm_rlm_run *run, struct cm_err *err)
{
    double limit = run->request.limits.max_timeout_s;

    run->began_ns = cm_clock_ns();
    run->timer = cm_timer_open(run->rlm->loop, on_deadline, run, err);
    if (!run->timer)
        return CM_ERR_NO_MEMORY;
    if (limit > 0) {
        run->deadline_ns = run->began_ns + (uint64_t)(limit * 1e9);
        cm_timer_start(run->timer, (uint64_t)ceil(limit * 1e3), 0);
    }
    return 0;
}

/* The context belongs to the root from here on. */
static int take_context(struct cm_rlm_run *run, const struct cm_rlm_context *c)
{
    struct cm_node *root = run->root;

    if (c->fd < 0 && !c->data)
        return 0;
    root->own = c->kind == CM_CONTEXT_JSON ? CM_OWN_JSON : CM_OWN_TEXT;
    if (c->fd < 0)
        return cm_parts_copy(c->data, (size_t)c->len, &root->context);
    root->context = (struct cm_parts_text){.fd = c->fd, .len = c->len};
    return 0;
}

static int begin(struct cm_rlm_run *run, const struct cm_rlm_request *req, struct cm_err *err)
{
    struct cm_rlm *r = run->rlm;
    int rc;

    memcpy(run->id, "run-", 4);
    if ((rc = cm_random_hex(run->id + 4, 16, err)) < 0)
        return rc;
    if (copy_request(run, req) < 0)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a run");
    if (req->key && (rc = take_key(run, req->key, err)) < 0)
        return rc;
    run->request.key = NULL; /* the caller's */
    if ((rc = start_clock(run, err)) < 0)
        return rc;
    run->root = cm_node_new(run, NULL, 0, err);
    if (!run->root)
        return CM_ERR_NO_MEMORY;
    if (take_context(run, &req->context) < 0)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the context");
    if (r->files)
        run->file = cm_trajectory_open(r->files);
    return 0;
}

static int admit(struct cm_rlm *r, const struct cm_rlm_request *req, struct cm_err *err)
{
    int rc = check(req, err);

    if (rc < 0)
        return rc;
    if (req->conversation && req->conversation->run)
        return cm_err_set(err, CM_ERR_BUSY, "the conversation has a run that has not ended");
    if (r->running >= r->runs_max)
        return cm_err_set(err, CM_ERR_OVERLOADED, "%u runs are under way, no more fit", r->running);
    return 0;
}

int cm_rlm_start(struct cm_rlm *r, const struct cm_rlm_request *req, const struct cm_rlm_ops *ops, void *arg,
                 struct cm_rlm_run **ret, struct cm_err *err)
{
    int rc = admit(r, req, err);
    struct cm_rlm_run *run = rc == 0 ? calloc(1, sizeof *run) : NULL;

    if (!run) {
        cm_fd_close(req->context.fd);
        return rc < 0 ? rc : cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a run");
    }
    run->rlm = r;
    run->room =
        (struct cm_parts_room){.bytes_max = CM_PARTS_BYTES_MAX, .files_max = CM_PARTS_RUN_FILES, .above = &r->room};
    run->held = (struct cm_parts_room){.bytes_max = CM_PARTS_RUN_HELD, .above = &r->held};
    run->ops = *ops;
    run->arg = arg;
    if ((rc = begin(run, req, err)) < 0) {
        if (!run->root || run->root->context.fd != req->context.fd)
            cm_fd_close(req->context.fd);
        run->ending = true;
        run->ops.event = NULL;
        if (run->root)
            cm_node_abort(run->root, err);
        free_run(run);
        return rc;
    }
    run->conversation = req->conversation;
    if (run->conversation)
        run->conversation->run = run;
    DL_APPEND(r->runs, run);
    r->running++;
    cm_setup_next(run->root);
    *ret = run;
    return 0;
}
