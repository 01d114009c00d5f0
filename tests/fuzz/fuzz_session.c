/* SPDX-License-Identifier: Apache-2.0 */
/* The session room with a zygote and workers that have been taken over, and clients that come and go.
 *
 * Everything that the room asks of the system is played here: processes are pipes that become readable when they
 * "die", time is a number, timers fire and allocations fail when the input says so. The sockets are real, and so is every line of the room.
 * Promised: each execution and creation gets one answer; a worker answers for its own session only, whatever it
 * sends; texts are UTF-8 and bounded; at the end no descriptor, no process and no memory is left.
 * Input: pairs of bytes, a step and its detail; some steps take bytes of their own. */
#include "fuzz.h"

#include <sys/mman.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "model_json.h"
#include "obs/metrics.h"
#include "session/session.h"
#include "stage.h"
#include "turn.h"

#define RESULT_MAX   60
#define OUTPUT_MAX   64
#define LOCALS_MAX   64
#define ASKED_MAX    200
#define CALLS_MAX    6
#define ARGUMENT_MAX 40
#define LIMITS                                                                                                         \
    [CM_LIMIT_CPU_TIME] = 9, [CM_LIMIT_MEMORY] = 1 << 20, [CM_LIMIT_OUTPUT] = OUTPUT_MAX,                              \
    [CM_LIMIT_RESULT] = RESULT_MAX, [CM_LIMIT_LOCALS] = LOCALS_MAX, [CM_LIMIT_RECURSION] = 1000,                       \
    [CM_LIMIT_CODE_LENGTH] = 1 << 20, [CM_LIMIT_FILES] = 100, [CM_LIMIT_FILE_BYTES] = 1 << 20, [CM_LIMIT_QUEUE] = 3,   \
    [CM_LIMIT_TOOL_CALLS] = CALLS_MAX, [CM_LIMIT_TOOL_ARGUMENT] = ARGUMENT_MAX, [CM_LIMIT_TOOL_RESULT] = ARGUMENT_MAX, \
    [CM_LIMIT_TOOL_TIMEOUT] = 1
#define STEPS_MAX 400

static struct cm_loop *loop;
static struct cm_metrics *metrics;
static struct cm_sessions *m;

/* What clients have asked for. */
static struct asked {
    struct cm_exec *exec;
    char id[32];
    bool done, abandoned;
    int worker; /* that was given its code; -1 while nobody was */
    struct cm_call *calls[CALLS_MAX]; /* that wait for their answers */
    unsigned called;
} asked[ASKED_MAX];
static uint8_t at_once; /* how the next calls are answered from inside; 0: they are not */
static unsigned asked_count;

static struct created {
    bool done;
    char id[CM_SESSION_ID_MAX];
} created[ASKED_MAX];
static unsigned created_count;

/* clients */

/* The text that a worker sends with whatever it sends names the worker: "w7". */
static void check_origin(const struct asked *a, const char *text, size_t len)
{
    char own[16];

    stage_read_all();
    if (!text || len == 0 || a->worker < 0 || stage_worker(a->worker)->raw)
        return;
    int n = snprintf(own, sizeof own, "w%d;", a->worker);
    CHECK(len >= (size_t)n && memcmp(text, own, (size_t)n) == 0);
}

static void check_text(const char *text, size_t len, size_t max)
{
    CHECK(text || len == 0);
    CHECK(len <= 3 * max + 100 && (!text || cm_utf8_valid(text, len)));
}

static void on_output(void *arg, int stream, const char *data, size_t len)
{
    struct asked *a = arg;

    CHECK(!a->done && !a->abandoned && (stream == 1 || stream == 2));
    check_origin(a, data, len);
}

/* calls of tools */

static void answer_call(struct asked *a, unsigned which, uint8_t detail)
{
    static const char json[] = "\"0123456789012345678901234567890123456789\"", text[] = "it failed\xff";
    struct cm_call *call = a->calls[which];

    CHECK(cm_call_user(call) == a);
    a->calls[which] = NULL;
    if (detail & 1)
        cm_call_fail(call, (enum cm_call_failure)(detail >> 1 & 3), text, detail & 8 ? sizeof text - 1 : 5);
    else if (detail & 2)
        cm_call_answer(call, "null", 4);
    else
        cm_call_answer(call, json, sizeof json - 1); /* too long */
}

static void on_call(void *arg, struct cm_call *call, const struct cm_call_request *r)
{
    struct asked *a = arg;
    unsigned place = 0;

    CHECK(!a->done && !a->abandoned && r->number > a->called && r->number <= CALLS_MAX);
    a->called = (unsigned)r->number; /* for want of memory, one may have failed before it came here */
    CHECK(r->name_len > 0 && r->name_len <= 256 && cm_utf8_valid(r->name, r->name_len));
    CHECK(r->arguments_len + r->context_len <= ARGUMENT_MAX && r->arguments[0] == '{');
    CHECK(model_json(r->arguments, r->arguments_len, 1024).valid);
    CHECK(!r->context || model_json(r->context, r->context_len, 1024).valid);
    CHECK(r->deadline_ns <= cm_clock_ns() + 1000 * CM_NS_PER_MS && !cm_call_user(call));
    while (a->calls[place])
        place++;
    CHECK(place < CALLS_MAX);
    a->calls[place] = call;
    cm_call_set_user(call, a);
    if (at_once)
        answer_call(a, place, at_once);
}

static void on_gone(void *arg, struct cm_call *call)
{
    struct asked *a = arg;
    unsigned place = 0;

    CHECK(!a->done && cm_call_user(call) == a);
    while (place < CALLS_MAX && a->calls[place] != call)
        place++;
    CHECK(place < CALLS_MAX);
    a->calls[place] = NULL;
}

void stage_answer_was_read(int worker, uint64_t call, int failure, const char *text, size_t len)
{
    CHECK(stage_worker(worker)->raw || (call > 0 && call <= CALLS_MAX));
    CHECK(failure >= -1 && failure <= CM_CALL_CANCELLED);
    CHECK(text && len <= 200 && cm_utf8_valid(text, len) && (failure >= 0 || len <= ARGUMENT_MAX));
}

static void call_step(uint8_t what, uint8_t detail)
{
    struct asked *a = asked_count > 0 ? &asked[detail % asked_count] : NULL;

    at_once = what & 8 ? detail : 0;
    for (unsigned i = 0; a && i < CALLS_MAX; i++)
        if (a->calls[i]) {
            answer_call(a, i, what);
            return;
        }
}

static bool has_calls(const struct asked *a)
{
    for (unsigned i = 0; i < CALLS_MAX; i++)
        if (a->calls[i])
            return true;
    return false;
}

static void on_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
{
    struct asked *a = arg;

    CHECK(!a->done && !a->abandoned && !has_calls(a));
    a->done = true;
    if (!res) {
        CHECK(err && err->code < 0 && err->text[0]);
        return;
    }
    check_text(res->out, res->out_len, OUTPUT_MAX);
    check_text(res->err, res->err_len, OUTPUT_MAX);
    check_text(res->result, res->result_len, RESULT_MAX);
    check_text(res->error, res->error_len, RESULT_MAX + 100);
    check_text(res->error_type, res->error_type_len, RESULT_MAX);
    check_text(res->traceback, res->traceback_len, RESULT_MAX);
    check_origin(a, res->result, res->result_len);
    CHECK(!res->locals || (res->locals_len <= LOCALS_MAX && model_json(res->locals, res->locals_len, 1024).valid));
    CHECK(!(res->timed_out && res->success));
    CHECK(res->state != CM_STATE_LOST || !res->success);
}

/* What a worker says of its variable is a word or nothing, and its number anything. */
static void on_put(void *arg, const struct cm_put_result *res, const struct cm_err *err)
{
    struct asked *a = arg;

    CHECK(!a->done && !a->abandoned && !a->called && !has_calls(a));
    a->done = true;
    CHECK(res ? !err && strlen(res->type) < 64 && cm_utf8_valid(res->type, strlen(res->type))
              : err && err->code < 0 && cm_utf8_valid(err->text, strlen(err->text)));
}

static void on_created(void *arg, const char *id, const struct cm_err *err)
{
    struct created *c = arg;

    CHECK(!c->done && (id || (err && err->text[0])));
    c->done = true;
    if (id)
        snprintf(c->id, sizeof c->id, "%s", id);
}

static const char *session_id(uint8_t which)
{
    return created_count > 0 ? created[which % created_count].id : "none";
}

static void ask(const char *id, uint8_t detail)
{
    static const struct cm_exec_ops with_output = {.output = on_output,
                                                   .done = on_done,
                                                   .call = on_call,
                                                   .call_gone = on_gone},
                                    without_output = {.done = on_done};
    struct asked *a = &asked[asked_count];
    struct cm_err err = {0};
    char code[16];

    if (asked_count == ASKED_MAX)
        return;
    *a = (struct asked){.worker = -1};
    int n = snprintf(code, sizeof code, "e%u", asked_count);
    struct cm_exec_request req = {.code = code,
                                  .code_len = (size_t)n,
                                  .context = detail & 16 ? "{}" : NULL,
                                  .context_len = detail & 16 ? 2 : 0,
                                  .mode = id ? CM_EXEC_SESSION : CM_EXEC_ONESHOT,
                                  .timeout_s = detail & 32 ? 0.05 : 0,
                                  .tools = detail & 64 ? "[[\"tool\",0]]" : NULL,
                                  .tools_len = detail & 64 ? 12 : 0};
    asked_count++;
    int rc = cm_sessions_execute(m, id, &req, detail & 64 ? &with_output : &without_output, a, &a->exec, &err);
    CHECK(rc == 0 ? !a->done && strncmp(cm_exec_id(a->exec), "exec-", 5) == 0 : err.code == rc && err.text[0]);
    if (rc < 0)
        asked_count--;
    else
        snprintf(a->id, sizeof a->id, "%s", cm_exec_id(a->exec));
}

/* A variable with the name that code would have. */
static void put(const char *id, uint8_t detail)
{
    static uint8_t value[3000];
    struct asked *a = &asked[asked_count];
    struct cm_err err = {0};
    char name[16];

    if (asked_count == ASKED_MAX)
        return;
    *a = (struct asked){.worker = -1};
    int n = snprintf(name, sizeof name, detail & 64 ? "1" : "e%u", asked_count);
    struct cm_put_request r = {.name = name,
                               .name_len = (size_t)n,
                               .kind = (enum cm_put_kind)(detail & 3) % 3,
                               .fd = memfd_create("value", MFD_CLOEXEC),
                               .length = detail & 32 ? sizeof value : detail & 16};
    CHECK(r.fd >= 0 && write(r.fd, value, r.length) == (ssize_t)r.length);
    r.length += detail == 255; /* a file that is too short */
    asked_count++;
    int rc = cm_sessions_put(m, id, &r, on_put, a, &a->exec, &err);
    CHECK(rc == 0 ? !a->done && strncmp(cm_exec_id(a->exec), "exec-", 5) == 0 : err.code == rc && err.text[0]);
    if (rc < 0)
        asked_count--;
    else
        snprintf(a->id, sizeof a->id, "%s", cm_exec_id(a->exec));
}

static void make(void)
{
    struct cm_err err = {0};

    if (created_count == ASKED_MAX)
        return;
    created[created_count] = (struct created){0};
    int rc = cm_sessions_create(m, NULL, "c", on_created, &created[created_count], &err);
    CHECK(rc == 0 ? !created[created_count].done : err.code == rc && err.text[0]);
    created_count += rc == 0;
}

static void abandon(uint8_t which)
{
    struct asked *a = asked_count > 0 ? &asked[which % asked_count] : NULL;

    if (!a || a->done || a->abandoned)
        return;
    a->abandoned = true;
    cm_exec_abandon(a->exec);
}

static void look_at_one(void *arg, const struct cm_session_info *info)
{
    CHECK(cm_utf8_valid(info->state, strlen(info->state)) && strlen(info->id) < CM_SESSION_ID_MAX);
    ++*(unsigned *)arg;
}

/* Output that was too long for its answer, of any execution: a part of what was printed, from its start. */
static void look_at_output(const char *id, uint8_t which)
{
    const struct asked *a = asked_count > 0 ? &asked[which % asked_count] : NULL;
    struct cm_output_info info;
    struct cm_err err = {0};
    struct cm_buf text;

    if (!a)
        return;
    cm_buf_init(&text, 100000);
    int rc = cm_sessions_output(m, id, a->id, 1 + which % 2, which % 7, 50, &text, &info, &err);
    CHECK(rc < 0 ? err.text[0] : info.stored <= info.printed && text.len <= 50 && text.len <= info.stored);
    cm_buf_done(&text);
}

static void look(const char *id)
{
    struct cm_session_info info;
    struct cm_err err = {0};
    unsigned count = 0;

    CHECK(cm_sessions_info(m, id, &info, &err) == 0 ? strcmp(info.id, id) == 0 : err.code < 0 && err.text[0]);
    cm_sessions_each(m, look_at_one, &count);
    CHECK(count <= 4);
}

static void on_drained(void *arg)
{
    CHECK(!*(bool *)arg);
    *(bool *)arg = true;
}

/* A worker has read this code: it is the one that may answer. */
void stage_code_was_read(int worker, const char *code, size_t len)
{
    char text[16] = {0};

    if (len < 2 || len >= sizeof text || code[0] != 'e')
        return;
    memcpy(text, code, len);
    unsigned which = (unsigned)strtoul(text + 1, NULL, 10);
    CHECK(which < asked_count);
    asked[which].worker = worker;
}

/* steps */

static void client_step(uint8_t what, uint8_t detail)
{
    static bool drained;

    switch (what % 8) {
    case 0:
    case 1:
        make();
        break;
    case 2:
    case 3:
        if (what & 8)
            put(session_id(detail), detail);
        else
            ask(session_id(detail), detail);
        break;
    case 4:
        ask(NULL, detail);
        break;
    case 5:
        abandon(detail);
        break;
    case 6:
        look(session_id(detail));
        cm_sessions_delete(m, session_id(detail));
        break;
    default:
        look(session_id(detail));
        look_at_output(session_id(detail), detail >> 2);
        drained = false;
        if (detail == 255)
            cm_sessions_drain(m, 1, on_drained, &drained);
    }
}

static void step(struct fuzz_in *in)
{
    uint8_t what = fuzz_byte(in), detail = fuzz_byte(in);

    switch (what >> 5) {
    case 1:
        if (what & 16) {
            call_step(what, detail);
            break;
        }
        /* fall through */
    case 0:
        client_step(what & 31, detail);
        break;
    case 2:
        stage_zygote_step(what & 31, detail, in);
        break;
    case 4:
        if (what & 16) {
            stage_call_step(what & 15, detail, in);
            break;
        }
        /* fall through */
    case 3:
        stage_worker_step(what & 31, detail, in);
        break;
    case 5:
        stage_advance(loop, detail & 0x80 ? (detail & 0x7fu) * 100u : detail);
        break;
    case 6:
        stage_fail_allocation(detail % 32);
        break;
    default:
        stage_behave(detail);
    }
    fuzz_turns(loop, 1 + (what >> 4 & 1));
}

static void finish(void)
{
    stage_fail_allocation(0);
    m = cm_sessions_free(m);
    for (unsigned i = 0; i < asked_count; i++)
        CHECK((asked[i].done || asked[i].abandoned) && !has_calls(&asked[i]));
    for (unsigned i = 0; i < created_count; i++)
        CHECK(created[i].done);
    CHECK(cm_metrics_get(metrics, CM_M_SESSIONS_ACTIVE, 0) == 0);
    CHECK(cm_metrics_get(metrics, CM_M_EXECUTIONS_RUNNING, 0) == 0);
    CHECK(cm_metrics_get(metrics, CM_M_EXECUTIONS_QUEUED, 0) == 0);
    CHECK(cm_metrics_get(metrics, CM_M_TOOL_CALLS_RUNNING, 0) == 0);
    stage_close();
    fuzz_turns(loop, 2);
    metrics = cm_metrics_free(metrics);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cm_sessions_config config = {
        .sandbox_path = "sandbox",
        .image_path = "image",
        .max_sessions = 4,
        .session_ttl_s = 5,
        .max_running = 2,
        .queue_total = 3,
        .spare_workers = 1,
        .limits.at = {[CM_LIMIT_TIMEOUT] = 2, LIMITS},
        .caps.at = {[CM_LIMIT_TIMEOUT] = 3, LIMITS},
        .stored_output = 9000,
        .total_stored_output = 20000,
        .grace_s = 0.2,
    };
    struct fuzz_in in = {data, data + size};
    struct cm_err err = {0};

    if (!loop)
        loop = cm_loop_new(NULL);
    fuzz_turns(loop, 1);
    int lowest = fuzz_lowest_fd();
    asked_count = created_count = at_once = 0;
    stage_open();
    metrics = cm_metrics_new();
    CHECK(cm_sessions_open(loop, &config, metrics, &m, &err) == 0);
    for (int i = 0; in.at < in.end && i < STEPS_MAX; i++)
        step(&in);
    finish();
    CHECK(fuzz_lowest_fd() == lowest);
    return 0;
}
