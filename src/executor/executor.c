/* SPDX-License-Identifier: Apache-2.0 */
#include "executor/executor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "access/access.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/random.h"
#include "base/utf8.h"
#include "conf/conf.h"
#include "executor/internal.h"
#include "obs/log.h"
#include "obs/metrics.h"

#define TOOLS_TEXT_MAX (CM_TOOLS_MAX * (6 * CM_TOOL_NAME_MAX + 8)) /* every byte escaped */

struct ping {
    struct ping *prev, *next;
    struct cm_executor *x;
    struct cm_registry_wait *wait; /* or, without a service: */
    struct cm_task task;
    void (*done)(void *arg, enum cm_tool_service state);
    void *arg;
};

/* Runs */

static void free_run(struct cm_run *run)
{
    cm_kept_unref(run->kept);
    free(run);
}

static struct cm_run *new_run(struct cm_executor *x, struct job *job, const struct cm_exec_ops *ops, void *arg)
{
    struct cm_run *run = calloc(1, sizeof *run);

    if (!run)
        return NULL;
    run->x = x;
    run->job = job;
    run->ops = *ops;
    run->arg = arg;
    if (job)
        DL_APPEND(job->runs, run);
    return run;
}

const char *cm_run_id(const struct cm_run *run)
{
    if (run->kept)
        return run->kept->id;
    return run->job ? run->job->id : "";
}

bool cm_run_repeated(const struct cm_run *run)
{
    return run->repeated;
}

/* Jobs */

static void free_request(struct job *job, struct cm_run_request *rq)
{
    job->x->waiting -= job->request_bytes;
    job->request_bytes = 0;
    free(rq); /* its texts lie behind it */
}

static struct job *free_job(struct job *job)
{
    if (job->wait)
        cm_registry_wait_cancel(job->wait);
    cm_task_cancel(job->x->loop, &job->task);
    cm_calls_drop(job);
    cm_plan_done(&job->allowance);
    cm_plan_done(&job->own);
    free_request(job, job->request);
    free(job->context);
    free(job->error);
    DL_DELETE(job->x->jobs, job);
    free(job);
    return NULL;
}

/* Its client may send it again and is told the same: unless the answer asks it to, and nothing has happened yet. */
static void remember(struct job *job, const struct cm_exec_result *res, const struct cm_err *err)
{
    struct cm_record *record = cm_steal(job->record);

    if (!record)
        return;
    if (!job->exec || (err && !res && cm_err_info(err->code)->retry && job->called == 0))
        cm_records_drop(job->x->records, record);
    else
        cm_records_finish(job->x->records, record, res, err, job->id);
}

/* Answers everybody. The job is gone afterwards. */
static void finish(struct job *job, const struct cm_exec_result *res, const struct cm_err *err)
{
    cm_calls_drop(job);
    remember(job, res, err);
    while (job->runs) {
        struct cm_run *run = job->runs;
        run->ops.done(run->arg, res, err);
        DL_DELETE(job->runs, run);
        free_run(run);
    }
    free_job(job);
}

static void on_exec_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
{
    finish(arg, res, err);
}

static void on_exec_output(void *arg, int stream, const char *data, size_t len)
{
    struct job *job = arg;

    for (struct cm_run *run = job->runs, *next; run; run = next) {
        next = run->next;
        if (run->ops.output)
            run->ops.output(run->arg, stream, data, len);
    }
}

/* The run did not begin, for a reason that its client has to know as the code's failure. */
static void on_end(void *arg)
{
    struct job *job = arg;
    const struct cm_exec_result res = {
        .state = CM_STATE_KEPT,
        .error = job->error,
        .error_len = strlen(job->error),
        .error_type = "RuntimeError",
        .error_type_len = strlen("RuntimeError"),
    };

    if (!*job->id)
        snprintf(job->id, sizeof job->id, "exec-%016llx", (unsigned long long)cm_clock_ns());
    cm_log(CM_LOG_INFO, "execution_not_started", CM_LOG_STR("correlation_id", job->correlation),
           CM_LOG_STR("reason", job->error));
    finish(job, &res, NULL);
}

/* The text may hold words of the tool service, or a part of a character of them. */
static int end_with(struct job *job, const char *text, struct cm_err *err)
{
    cm_autobuf struct cm_buf error;

    cm_buf_init(&error, 8 * ERROR_TEXT_MAX);
    int rc = cm_buf_puts(&error, "RuntimeError: ");
    rc = rc ? rc : cm_utf8_append(&error, text, strlen(text));
    job->error = rc ? NULL : cm_buf_steal(&error, NULL);
    if (!job->error)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for an answer");
    cm_task_post(job->x->loop, &job->task, on_end, job);
    return 0;
}

static int start(struct job *job, const struct cm_run_request *rq, struct cm_err *err)
{
    static const struct cm_exec_ops ops = {
        .output = on_exec_output, .done = on_exec_done, .call = cm_calls_begin, .call_gone = cm_calls_gone};
    struct cm_exec_request exec = rq->exec;
    cm_autobuf struct cm_buf tools;

    cm_buf_init(&tools, TOOLS_TEXT_MAX);
    exec.tools = NULL;
    exec.tools_len = 0;
    if (job->allowance.set || job->own.set) {
        int rc = cm_plan_write(&job->own, &job->allowance, &tools);
        if (rc < 0)
            return cm_err_set(err, rc, "no memory for the list of tools");
        exec.tools = cm_buf_data(&tools);
        exec.tools_len = tools.len;
    }
    if (!exec.tools && job->x->service) { /* there are some, but their list could not be had */
        exec.tools = "[]";
        exec.tools_len = 2;
    }
    int rc = cm_sessions_execute(job->x->sessions, rq->session, &exec, &ops, job, &job->exec, err);
    if (rc == 0)
        snprintf(job->id, sizeof job->id, "%s", cm_exec_id(job->exec));
    return rc;
}

/* Waiting for the list of tools */

static const char *place(char **at, const char *text, size_t len)
{
    char *to = *at;

    if (!text)
        return NULL;
    memcpy(to, text, len);
    to[len] = '\0';
    *at += len + 1;
    return to;
}

static struct cm_run_request *copy_request(const struct cm_run_request *rq, size_t *ret_bytes)
{
    const struct cm_exec_request *e = &rq->exec;
    size_t session = rq->session ? strlen(rq->session) : 0;
    size_t limits = e->limits ? sizeof *e->limits : 0, caps = e->caps ? sizeof *e->caps : 0;
    *ret_bytes = sizeof(struct cm_run_request) + limits + caps + session + e->code_len + e->context_len +
                 e->config_len + rq->available_tools_len + 5;
    struct cm_run_request *c = malloc(*ret_bytes);
    if (!c)
        return NULL;
    char *at = (char *)(c + 1);
    *c = *rq;
    if (limits) {
        c->exec.limits = memcpy(at, e->limits, limits);
        at += limits;
    }
    if (caps) {
        c->exec.caps = memcpy(at, e->caps, caps);
        at += caps;
    }
    c->session = place(&at, rq->session, session);
    c->exec.code = place(&at, e->code, e->code_len);
    c->exec.context = place(&at, e->context, e->context_len);
    c->exec.config = place(&at, e->config, e->config_len);
    c->available_tools = place(&at, rq->available_tools, rq->available_tools_len);
    c->caller_tools = NULL; /* the job has them */
    c->idempotency_key = NULL;
    c->key = NULL;
    return c;
}

static int choose(struct job *job, struct cm_toolset *set, const struct cm_run_request *rq, struct cm_err *err)
{
    char why[ERROR_TEXT_MAX] = "";
    int rc = cm_plan_choose(&job->allowance, set, &job->own, rq->available_tools, rq->available_tools_len, why);

    if (rc < 0)
        return cm_err_set(err, rc, "no memory for the list of tools");
    return rc == 0 ? 0 : cm_err_set(err, CM_ERR_NOT_FOUND, "%s", why);
}

static void on_listed(void *arg, struct cm_toolset *set, const char *why)
{
    struct job *job = arg;
    struct cm_run_request *rq = cm_steal(job->request);
    bool named = cm_plan_restricts(rq->available_tools, rq->available_tools_len);
    struct cm_err err = {0};

    job->wait = NULL;
    rq->exec.correlation_id = job->correlation;
    int rc = set ? choose(job, set, rq, &err) : 0;
    if (rc == CM_ERR_NOT_FOUND || (named && !set))
        rc = end_with(job, set ? err.text : why, &err);
    else if (rc == 0)
        rc = start(job, rq, &err);
    free_request(job, rq);
    if (rc < 0)
        finish(job, NULL, &err);
}

/* No session has room for it yet, and it stays when its client goes away: so there is an end to what waits here. */
static int wait_for_list(struct job *job, const struct cm_run_request *rq, unsigned attempts, uint64_t since_ns,
                         struct cm_err *err)
{
    struct cm_executor *x = job->x;

    job->request = copy_request(rq, &job->request_bytes);
    if (!job->request) {
        job->request_bytes = 0;
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request that waits");
    }
    x->waiting += job->request_bytes;
    if (x->waiting > WAITING_MAX) /* the copy goes with its job */
        return cm_err_set(err, CM_ERR_OVERLOADED, "too many requests wait for the list of tools; try again later");
    job->wait = cm_registry_fetch(x->registry, attempts, since_ns, on_listed, job, err);
    return job->wait ? 0 : err->code;
}

/* Who names tools waits until it is known whether they are there; who only may use some waits for one answer, and that
 * not long; who shows no sign of it does not wait at all. */
static int begin(struct job *job, const struct cm_run_request *rq, struct cm_err *err)
{
    bool named = cm_plan_restricts(rq->available_tools, rq->available_tools_len);
    struct cm_executor *x = job->x;
    uint64_t now = cm_clock_ns();

    if (!x->service && cm_plan_names_some(&job->own, rq->available_tools, rq->available_tools_len))
        return end_with(
            job,
            "available_tools are named, but no tool service is configured: CODEMODE_MAIN_APP_TARGET must name "
            "the application's gRPC port",
            err);
    struct cm_toolset *set = x->service ? cm_registry_set(x->registry) : NULL;
    if (set) {
        struct cm_err missing;
        int rc = choose(job, set, rq, &missing);
        if (rc == 0)
            return start(job, rq, err);
        if (rc != CM_ERR_NOT_FOUND)
            return cm_err_set(err, rc, "%s", missing.text);
    }
    if (named && x->service)
        return wait_for_list(job, rq, CM_REGISTRY_ATTEMPTS, now, err);
    if (x->service && cm_plan_mentions(rq->exec.code, rq->exec.code_len))
        return wait_for_list(job, rq, 1, 0, err);
    return start(job, rq, err);
}

/* Requests that come again */

static void add_text(struct cm_hasher *h, const char *text, size_t len)
{
    unsigned char there = text != NULL;

    cm_hash_add(h, &there, 1);
    cm_hash_add(h, text ? text : "", text ? len : 0);
}

static void add_string(struct cm_hasher *h, const char *text)
{
    add_text(h, text, text ? strlen(text) : 0);
}

static const char *id_of(const struct cm_run_request *rq)
{
    if (rq->idempotency_key && *rq->idempotency_key)
        return rq->idempotency_key;
    return rq->correlation_is_clients && rq->exec.correlation_id ? rq->exec.correlation_id : "";
}

static void add_content(struct cm_hasher *h, const struct cm_run_request *rq)
{
    const unsigned char modes[] = {(unsigned char)rq->exec.mode, rq->exec.atomic, rq->exec.strict};

    add_text(h, rq->exec.code, rq->exec.code_len);
    add_text(h, rq->exec.context, rq->exec.context_len);
    add_text(h, rq->exec.config, rq->exec.config_len);
    add_text(h, rq->available_tools_len ? rq->available_tools : NULL, rq->available_tools_len);
    if (rq->caller_tools) /* others keep the names that they have had */
        add_text(h, rq->caller_tools, rq->caller_tools_len);
    cm_hash_add(h, modes, sizeof modes);
}

/* False when the request cannot be told from a new one. */
static bool identify(const struct cm_executor *x, const struct cm_run_request *rq, struct cm_hash *ret)
{
    unsigned char kind = rq->idempotency_key != NULL;
    struct cm_hasher h;

    if (!*id_of(rq) || rq->streamed || rq->caller_tools)
        return false;
    cm_hash_begin(&h, &x->hash_key);
    cm_hash_add(&h, &kind, 1);
    add_string(&h, id_of(rq));
    add_string(&h, cm_key_name(rq->key)); /* it may have got another key meanwhile */
    add_string(&h, rq->session);
    add_content(&h, rq);
    *ret = cm_hash_end(&h);
    return true;
}

/* What names this execution to the application. Many executions may have one correlation id, so the content belongs to
 * it; and every server must find the same name, so this hash has no secret. */
static void name_job(struct job *job, const struct cm_run_request *rq)
{
    static const struct cm_hash_key open;
    struct cm_hasher h;

    snprintf(job->name, sizeof job->name, "%s", job->correlation);
    if (!*id_of(rq))
        return;
    cm_hash_begin(&h, &open);
    add_content(&h, rq);
    snprintf(job->name, sizeof job->name, "%.255s.%016llx", id_of(rq), (unsigned long long)cm_hash_end(&h).at[0]);
}

static void on_repeat(void *arg)
{
    struct cm_run *run = arg;
    const struct cm_kept *k = run->kept;

    DL_DELETE(run->x->answered, run);
    run->ops.done(run->arg, k->has_result ? &k->res : NULL, k->has_result ? NULL : &k->err);
    free_run(run);
}

static int repeat(struct cm_executor *x, struct cm_record *record, const struct cm_exec_ops *ops, void *arg,
                  struct cm_run **ret, struct cm_err *err)
{
    if (record->state == CM_RECORD_GONE)
        return cm_err_set(err, CM_ERR_NOT_KEPT, "the request has been sent before, and its answer was not kept");
    struct cm_run *run = new_run(x, record->job, ops, arg);
    if (!run)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request");
    run->repeated = true;
    if (record->state == CM_RECORD_KEPT) {
        run->kept = cm_kept_ref(record->kept);
        DL_APPEND(x->answered, run);
        cm_task_post(x->loop, &run->task, on_repeat, run);
    }
    *ret = run;
    return 0;
}

/* What its calls will need of it. */
static int keep_texts(struct job *job, const struct cm_exec_request *e, struct cm_err *err)
{
    snprintf(job->correlation, sizeof job->correlation, "%s", e->correlation_id ? e->correlation_id : "");
    job->context_given = e->context_len;
    if (!job->x->service || !e->context || e->context_len > CONTEXT_MAX)
        return 0;
    job->context = malloc(e->context_len + 1);
    if (!job->context)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the context");
    memcpy(job->context, e->context, e->context_len);
    job->context[e->context_len] = '\0';
    job->context_len = e->context_len;
    return 0;
}

static struct job *new_job(struct cm_executor *x, const struct cm_run_request *rq, const struct cm_exec_ops *ops,
                           void *arg, struct cm_err *err)
{
    struct job *job = calloc(1, sizeof *job);

    if (!job) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request");
        return NULL;
    }
    job->x = x;
    DL_APPEND(x->jobs, job);
    if (keep_texts(job, &rq->exec, err) < 0)
        return free_job(job);
    if (rq->caller_tools && cm_plan_own(&job->own, rq->caller_tools, rq->caller_tools_len, err) < 0)
        return free_job(job);
    name_job(job, rq);
    if (!new_run(x, job, ops, arg)) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a request");
        return free_job(job);
    }
    return job;
}

/* Before it has answered anybody. */
static void take_back(struct job *job)
{
    if (job->record)
        cm_records_drop(job->x->records, job->record);
    free_run(job->runs);
    free_job(job);
}

int cm_executor_run(struct cm_executor *x, const struct cm_run_request *rq, const struct cm_exec_ops *ops, void *arg,
                    struct cm_run **ret, struct cm_err *err)
{
    struct cm_hash hash;
    bool remembered = identify(x, rq, &hash);
    struct cm_record *record = remembered ? cm_records_find(x->records, &hash) : NULL;

    if (record)
        return repeat(x, record, ops, arg, ret, err);
    struct cm_run_request own = *rq;
    if (!own.exec.config && *x->conf->config_json) { /* after the look at the record: a reload makes no new request */
        own.exec.config = x->conf->config_json;
        own.exec.config_len = strlen(own.exec.config);
    }
    rq = &own;
    struct job *job = new_job(x, rq, ops, arg, err);
    if (!job)
        return err->code;
    if (remembered && !(job->record = cm_records_begin(x->records, &hash, job)))
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory to remember a request");
    if ((remembered && !job->record) || begin(job, rq, err) < 0) {
        take_back(job);
        return err->code;
    }
    *ret = job->runs;
    return 0;
}

/* Ends a job that nobody wants any more. */
static void end(struct job *job)
{
    struct cm_err err;

    if (job->record) {
        cm_err_set(&err, CM_ERR_CANCELLED, "the request was withdrawn by its client");
        remember(job, NULL, &err);
    }
    cm_calls_drop(job);
    if (job->exec)
        cm_exec_abandon(job->exec);
    free_job(job);
}

void cm_run_abandon(struct cm_run *run, bool lost)
{
    struct job *job = run->job;

    if (!job) {
        cm_task_cancel(run->x->loop, &run->task);
        DL_DELETE(run->x->answered, run);
    } else {
        DL_DELETE(job->runs, run);
        if (!job->runs && !(job->record && lost))
            end(job);
    }
    free_run(run);
}

/* Is it there? */

static void on_ping(struct ping *p, enum cm_tool_service state)
{
    DL_DELETE(p->x->pings, p);
    p->done(p->arg, state);
    free(p);
}

static void on_ping_task(void *arg)
{
    on_ping(arg, CM_TOOLS_NONE);
}

static void on_ping_list(void *arg, struct cm_toolset *set, const char *why)
{
    (void)why;
    on_ping(arg, set ? CM_TOOLS_REACHABLE : CM_TOOLS_UNREACHABLE);
}

void cm_executor_ping(struct cm_executor *x, void (*done)(void *arg, enum cm_tool_service state), void *arg)
{
    struct ping *p = calloc(1, sizeof *p);
    struct cm_err err;

    if (!p) {
        done(arg, CM_TOOLS_UNREACHABLE);
        return;
    }
    *p = (struct ping){.x = x, .done = done, .arg = arg};
    DL_APPEND(x->pings, p);
    if (x->service)
        p->wait = cm_registry_fetch(x->registry, 1, 0, on_ping_list, p, &err);
    if (!p->wait)
        cm_task_post(x->loop, &p->task, on_ping_task, p);
}

const char *cm_executor_target(const struct cm_executor *x)
{
    return x->service ? cm_tool_service_target(x->service) : "";
}

/* Open and close */

/* "none" and an empty text name none. */
static int check_target(const char *target, bool *ret_some, struct cm_err *err)
{
    *ret_some = *target && strcmp(target, "none") != 0;
    if (*ret_some && !strchr(target, ':'))
        return cm_err_set(err, CM_ERR_CONFIG, "CODEMODE_MAIN_APP_TARGET: \"%s\" must be host:port, or none", target);
    return 0;
}

/* What we show to the service: our callers' own key, or the first line of its file that is one. */
static void read_key(const struct cm_conf *conf, char *ret, size_t size)
{
    char line[1100];
    FILE *f;

    snprintf(ret, size, "%s", conf->api_key);
    if (*ret || !*conf->api_key_file || !(f = fopen(conf->api_key_file, "re")))
        return;
    while (!*ret && fgets(line, sizeof line, f)) {
        const char *at = line + strspn(line, " \t");
        if (*at != '#')
            snprintf(ret, size, "%.*s", (int)strcspn(at, " \t\r\n"), at);
    }
    fclose(f);
    explicit_bzero(line, sizeof line);
}

static int open_service(struct cm_executor *x, const struct cm_conf *conf, struct cm_tls *tls, struct cm_err *err)
{
    bool some;
    int rc = check_target(conf->main_app_target, &some, err);

    if (rc < 0 || !some)
        return rc;
    char key[CM_CONF_TEXT_MAX];
    read_key(conf, key, sizeof key);
    x->service = cm_tool_service_new(x->loop, conf->main_app_target, tls, key, x->metrics, err);
    explicit_bzero(key, sizeof key);
    if (!x->service)
        return err->code;
    x->registry = cm_registry_new(x->loop, x->service, x->metrics, err);
    return x->registry ? 0 : err->code;
}

int cm_executor_open(struct cm_loop *loop, const struct cm_conf *conf, struct cm_sessions *sessions,
                     struct cm_metrics *metrics, struct cm_tls *callback_tls, struct cm_executor **ret,
                     struct cm_err *err)
{
    struct cm_executor *x = calloc(1, sizeof *x);
    int rc;

    if (!x)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the executor");
    x->loop = loop;
    x->conf = conf;
    x->sessions = sessions;
    x->metrics = metrics;
    x->records = cm_records_new(conf->kept_answers, conf->kept_answer_bytes);
    rc = x->records ? cm_hash_key_new(&x->hash_key, err)
                    : cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the executor");
    rc = rc ? rc : open_service(x, conf, callback_tls, err);
    if (rc < 0) {
        cm_executor_free(x);
        return rc;
    }
    *ret = x;
    return 0;
}

void cm_executor_reload(struct cm_executor *x, const struct cm_conf *conf, struct cm_tls *callback_tls)
{
    cm_records_limit(x->records, conf->kept_answers, conf->kept_answer_bytes);
    if (!x->service)
        return;
    char key[CM_CONF_TEXT_MAX];
    read_key(conf, key, sizeof key);
    cm_tool_service_set_key(x->service, key);
    cm_tool_service_set_tls(x->service, callback_tls);
    explicit_bzero(key, sizeof key);
}

struct cm_executor *cm_executor_free(struct cm_executor *x)
{
    if (!x)
        return NULL;
    while (x->answered)
        cm_run_abandon(x->answered, false);
    while (x->jobs) {
        struct job *job = x->jobs;
        while (job->runs) {
            struct cm_run *run = job->runs;
            DL_DELETE(job->runs, run);
            free_run(run);
        }
        end(job);
    }
    while (x->pings) {
        struct ping *p = x->pings;
        DL_DELETE(x->pings, p);
        if (p->wait)
            cm_registry_wait_cancel(p->wait);
        cm_task_cancel(x->loop, &p->task);
        free(p);
    }
    x->registry = cm_registry_free(x->registry);
    x->service = cm_tool_service_free(x->service);
    x->records = cm_records_free(x->records);
    free(x);
    return NULL;
}
