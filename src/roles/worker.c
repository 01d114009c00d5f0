/* SPDX-License-Identifier: Apache-2.0 */
/* A worker: one session, one guest, one socket.
 *
 * It says READY and then answers EXECUTE and LOAD frames one at a time; after each answer it saves its state. Waiting is
 * done here, on the host's stack, never below the guest's. The gateway interrupts an execution with SIGUSR1, which
 * may come at any moment and is repeated until the answer is there; SIGALRM gives green threads their turns.
 */
#include "roles/worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "guest/engine.h"
#include "ipc/sync.h"
#include "jail/jail.h"
#include "roles/crash.h"
#include "roles/output.h"

enum { TURN_US = 2000, FD = CM_JAIL_CHANNEL };

static struct cm_worker_life life;
static volatile sig_atomic_t ticking;

/* The timer runs only while somebody needs it. */
static void tick(bool on)
{
    on = on || life.stop_every_us;
    if (ticking == on)
        return;
    ticking = on;
    long us = !on ? 0 : life.stop_every_us ? life.stop_every_us : TURN_US;
    const struct itimerval t = {.it_interval = {.tv_usec = us}, .it_value = {.tv_usec = us}};
    setitimer(ITIMER_REAL, &t, NULL);
}

static void on_signal(int signal)
{
    int saved = errno;
    if (signal == SIGUSR1) {
        cm_guest_interrupt();
        cm_output_push(); /* code that does not react is killed with what waits here */
    } else if (life.stop_every_us) {
        cm_guest_stop();
    } else if (cm_guest_threaded()) {
        cm_guest_nudge();
    } else {
        tick(false);
    }
    errno = saved;
}

static void on_spawn(void)
{
    tick(true);
}

static _Noreturn void leave(int code)
{
    _exit(code);
}

/* ---- the guest's calls of tools, and their answers */

/* The gateway sends nothing but answers while an execution runs. */
static void read_answer(void)
{
    struct cm_ipc_header h;
    struct cm_err err;
    if (cm_ipc_read_header(FD, CM_IPC_GATEWAY, CM_IPC_WORKER, &h, &err) <= 0)
        leave(0); /* the gateway is gone */
    if (h.type != CM_MSG_ANSWER || h.id == 0 || h.id > UINT32_MAX)
        leave(71);
    cm_state.answer_number = (uint32_t)h.id;
    cm_state.answer_len = h.len;
}

static bool answered(void)
{
    struct pollfd p = {.fd = FD, .events = POLLIN};
    const struct timespec now = {0, 0};
    if (ppoll(&p, 1, &now, NULL) <= 0 || !(p.revents & POLLIN))
        return false;
    read_answer();
    return true;
}

/* Output that was printed before a call reaches the gateway before it. Nothing is left in the buffer then, so no
 * handler's push can come between the parts of the frame. */
static int send_call(enum cm_ipc_type type, uint64_t id, struct cm_err *err)
{
    const void *fields = cm_guest_memory(cm_state.ask_at, cm_state.ask_len);
    int rc = fields ? cm_output_flush(err) : cm_err_set(err, CM_ERR_PROTOCOL, "a call outside of the guest's memory");
    return rc ? rc : cm_ipc_write_payload(FD, type, id, fields, cm_state.ask_len, err);
}

static int take_answer(struct cm_err *err)
{
    uint32_t len = cm_state.answer_len;
    void *to = cm_state.ask_at ? cm_guest_memory(cm_state.ask_at, len) : NULL;
    cm_state.answer_number = 0;
    return to ? cm_ipc_read_payload(FD, to, len, err) : cm_ipc_skip_payload(FD, len, err);
}

/* The gate has compared the length with what is left. */
static int read_content(struct cm_err *err)
{
    void *to = cm_guest_memory(cm_state.ask_at, cm_state.ask_len);
    if (!to || cm_state.ask_len > cm_state.content_left)
        return cm_err_set(err, CM_ERR_PROTOCOL, "a read outside of the guest's memory");
    cm_state.content_left -= cm_state.ask_len;
    return cm_ipc_read_payload(FD, to, cm_state.ask_len, err);
}

static void do_what_it_asks(uint64_t id)
{
    struct cm_err err;
    int rc = 0;
    switch (cm_state.ask) {
    case CM_ASK_NOTHING:
        break;
    case CM_ASK_CALL:
        rc = send_call(CM_MSG_CALL, id, &err);
        break;
    case CM_ASK_CANCEL:
        rc = send_call(CM_MSG_CALL_CANCEL, id, &err);
        break;
    case CM_ASK_READ:
        rc = read_content(&err);
        break;
    case CM_ASK_TAKE:
        rc = take_answer(&err);
        break;
    }
    if (rc)
        leave(71);
}

/* The execution has ended with the payload of an answer, or a part of a variable's value, unread. */
static int skip_rest(struct cm_err *err)
{
    uint32_t len = cm_state.content_left + (cm_state.answer_number ? cm_state.answer_len : 0);
    cm_guest_drop_answer();
    return len ? cm_ipc_skip_payload(FD, len, err) : 0;
}

/* ---- waiting and running */

const struct cm_guest_ops cm_worker_ops = {
    .emit = cm_output_emit, .spawned = on_spawn, .answered = answered, .crashed = cm_crash_report};

/* Until the deadline, an answer, an interrupt, or the end of the gateway. */
static uint32_t wait_for_guest(void)
{
    struct cm_err err;
    if (cm_output_pending()) {
        if (cm_output_flush(&err))
            leave(1);
        return CM_WAIT_OUTPUT;
    }
    tick(false);
    while (!cm_guest_interrupted() && !cm_guest_stopping()) {
        int64_t left = cm_state.deadline < 0 ? INT64_MAX : cm_state.deadline - (int64_t)cm_clock_ns();
        if (left <= 0)
            break;
        struct timespec t = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
        struct pollfd p = {.fd = FD, .events = (short)(POLLRDHUP | (cm_guest_calling() ? POLLIN : 0))};
        if (ppoll(&p, 1, &t, NULL) <= 0)
            continue;
        if (p.revents != POLLIN)
            leave(0); /* the gateway is gone */
        read_answer();
        break;
    }
    tick(cm_guest_threaded());
    return cm_guest_interrupted() ? CM_WAIT_INTERRUPT : cm_state.answer_number ? CM_WAIT_ANSWER : CM_WAIT_DEADLINE;
}

/* Until the call that the guest is in has returned. */
static enum cm_guest_event run(uint64_t id, uint32_t *ret)
{
    enum cm_guest_event event;
    while ((event = cm_guest_run(ret)) == CM_GUEST_WAITS || event == CM_GUEST_ASKS) {
        if (event == CM_GUEST_ASKS) {
            do_what_it_asks(id);
            cm_guest_resume(0);
            continue;
        }
        uint32_t answer = wait_for_guest();
        if (life.on_wait && answer == CM_WAIT_DEADLINE)
            life.on_wait(id);
        cm_guest_resume(answer);
    }
    return event;
}

static void send_trap(int channel, uint64_t id, const char *text)
{
    struct cm_err err;
    struct cm_ipc_msg m;
    cm_ipc_msg_begin(&m, CM_MSG_TRAP, id);
    cm_ipc_put_bytes(&m, CM_FIELD_ERROR, text, strlen(text));
    cm_ipc_write(channel, &m, &err);
}

/* The guest broke a rule of the machine: nothing in its memory can be trusted any more. */
static _Noreturn void report_trap(uint64_t id)
{
    struct cm_err err;
    cm_output_flush(&err);
    send_trap(FD, id, cm_guest_trap_text());
    leave(1);
}

static uint32_t call(enum cm_entry entry, uint32_t arg0, uint32_t arg1, uint64_t id)
{
    uint32_t result;
    cm_guest_call(entry, arg0, arg1);
    if (run(id, &result) == CM_GUEST_TRAPPED)
        report_trap(id);
    return result;
}

static int send_result(uint64_t id, uint32_t answer, bool *ret_success, struct cm_err *err)
{
    struct cm_ipc_fields f;
    const uint32_t *where = cm_guest_memory(answer, 8); /* address and length of the fields */
    const void *fields = where ? cm_guest_memory(where[0], where[1]) : NULL;
    if (!fields)
        return cm_err_set(err, CM_ERR_PROTOCOL, "the guest's answer lies outside of its memory");
    int rc = cm_ipc_fields_get(fields, where[1], &f, err);
    *ret_success = !rc && cm_ipc_get_uint(&f, CM_FIELD_SUCCESS, 0) == 1;
    return rc ? rc : cm_ipc_write_payload(FD, CM_MSG_RESULT, id, fields, where[1], err);
}

/* The guest cannot even hold the request. */
static int send_no_memory(uint64_t id, struct cm_err *err)
{
    static const char error[] = "MemoryError: the request does not fit into the session's memory",
                      type[] = "MemoryError";
    struct cm_ipc_msg m;
    cm_ipc_msg_begin(&m, CM_MSG_RESULT, id);
    cm_ipc_put_uint(&m, CM_FIELD_SUCCESS, 0);
    cm_ipc_put_bytes(&m, CM_FIELD_ERROR, error, sizeof error - 1);
    cm_ipc_put_bytes(&m, CM_FIELD_ERROR_TYPE, type, sizeof type - 1);
    cm_ipc_put_bytes(&m, CM_FIELD_LOCALS, "{}", 2);
    cm_ipc_put_uint(&m, CM_FIELD_PEAK_MEMORY, cm_guest_size());
    return cm_ipc_write(FD, &m, err);
}

static int finish(uint64_t id, uint32_t answer, enum cm_save save, struct cm_err *err)
{
    bool success = false;
    tick(false); /* left-over threads rest until the next execution */
    int rc = cm_output_flush(err);
    if (!rc)
        rc = skip_rest(err);
    if (!rc)
        rc = send_result(id, answer, &success, err);
    if (!rc && life.save && (save == CM_SAVE_ALWAYS || (save == CM_SAVE_SUCCESS && success)))
        life.save(id);
    return rc;
}

/* An execution in whose middle this process was started. */
static int go_on(uint64_t id, struct cm_err *err)
{
    uint32_t answer;
    cm_output_begin(FD, id);
    tick(cm_guest_threaded());
    cm_guest_resume(CM_WAIT_DEADLINE);
    if (run(id, &answer) == CM_GUEST_TRAPPED)
        report_trap(id);
    return finish(id, answer, CM_SAVE_NEVER, err);
}

static int execute(const struct cm_ipc_header *h, struct cm_err *err)
{
    cm_output_begin(FD, h->id);
    cm_guest_clear_interrupt();
    cm_guest_lower_limit(0); /* the request itself is bounded by the gateway */
    uint32_t request = call(CM_ENTRY_ALLOC, h->len, 0, h->id);
    void *to = request ? cm_guest_memory(request, h->len) : NULL;
    if (!to) {
        int rc = cm_ipc_skip_payload(FD, h->len, err);
        return rc ? rc : send_no_memory(h->id, err);
    }
    struct cm_ipc_fields f;
    int rc = cm_ipc_read_payload(FD, to, h->len, err);
    if (!rc)
        rc = cm_ipc_fields_get(to, h->len, &f, err);
    if (rc)
        return rc;
    cm_guest_lower_limit(cm_ipc_get_uint(&f, CM_FIELD_MEMORY_LIMIT, 0));
    enum cm_save save = (enum cm_save)cm_ipc_get_uint(&f, CM_FIELD_SAVE, CM_SAVE_ALWAYS);
    tick(cm_guest_threaded());
    return finish(h->id, call(CM_ENTRY_EXECUTE, request, h->len, h->id), save, err);
}

/* The frame behind LOAD, but for its bytes. */
static int begin_content(const struct cm_ipc_header *load, uint64_t length, struct cm_err *err)
{
    struct cm_ipc_header h;
    uint8_t head[CM_IPC_FIELD_SIZE];
    if (cm_ipc_read_header(FD, CM_IPC_GATEWAY, CM_IPC_WORKER, &h, err) <= 0)
        leave(0); /* the gateway is gone */
    if (h.type != CM_MSG_CONTENT || h.id != load->id || h.len != length + sizeof head)
        return cm_err_set(err, CM_ERR_PROTOCOL, "no CONTENT behind its LOAD");
    int rc = cm_ipc_read_payload(FD, head, sizeof head, err);
    if (!rc && !cm_ipc_is_rest(head, CM_FIELD_DATA, (uint32_t)length))
        rc = cm_err_set(err, CM_ERR_PROTOCOL, "a CONTENT frame without its DATA");
    if (!rc)
        cm_state.content_left = (uint32_t)length;
    return rc;
}

/* As execute(): the value itself is read when the guest asks for it. */
static int load(const struct cm_ipc_header *h, struct cm_err *err)
{
    uint8_t payload[CM_IPC_LOAD_MAX];
    struct cm_ipc_fields f;
    int rc = cm_ipc_read_payload(FD, payload, h->len, err);
    if (!rc)
        rc = cm_ipc_fields_get(payload, h->len, &f, err);
    if (!rc)
        rc = begin_content(h, cm_ipc_get_uint(&f, CM_FIELD_LENGTH, 0), err);
    if (rc)
        return rc;
    cm_output_begin(FD, h->id);
    cm_guest_clear_interrupt();
    cm_guest_lower_limit(0);
    uint32_t request = call(CM_ENTRY_ALLOC, h->len, 0, h->id);
    void *to = request ? cm_guest_memory(request, h->len) : NULL;
    if (!to) {
        rc = skip_rest(err);
        return rc ? rc : send_no_memory(h->id, err);
    }
    memcpy(to, payload, h->len);
    cm_guest_lower_limit(cm_ipc_get_uint(&f, CM_FIELD_MEMORY_LIMIT, 0));
    tick(cm_guest_threaded());
    return finish(h->id, call(CM_ENTRY_EXECUTE, request, h->len, h->id), CM_SAVE_ALWAYS, err);
}

/* 0, or what ends the worker. */
static int serve_frame(const struct cm_ipc_header *h, struct cm_err *err)
{
    switch (h->type) {
    case CM_MSG_ANSWER: /* to a call of the execution before */
        return cm_ipc_skip_payload(FD, h->len, err);
    case CM_MSG_EXECUTE:
        return execute(h, err);
    case CM_MSG_LOAD:
        return load(h, err);
    default:
        return cm_err_set(err, CM_ERR_PROTOCOL, "a frame out of place");
    }
}

int cm_worker_signals(struct cm_err *err)
{
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_RESTART};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    if (sigaction(SIGUSR1, &act, NULL) || sigaction(SIGALRM, &act, NULL) || sigaction(SIGPIPE, &ignore, NULL))
        return cm_err_sys(err, errno, "install signal handlers");
    return 0;
}

int cm_worker_begin(int channel, struct cm_worker_orders *ret, struct cm_err *err)
{
    struct cm_ipc_header h;
    struct cm_ipc_fields f;
    uint8_t payload[256]; /* what messages.def allows for BEGIN */
    int rc = cm_ipc_recv_header_fd(channel, CM_IPC_GATEWAY, CM_IPC_WORKER, &h, &ret->checkpoint, err);
    if (rc <= 0)
        return rc ? rc : cm_err_set(err, CM_ERR_PROTOCOL, "the gateway is gone");
    if (h.type != CM_MSG_BEGIN || h.len > sizeof payload)
        return cm_err_set(err, CM_ERR_PROTOCOL, "the first frame is no BEGIN");
    rc = cm_ipc_read_payload(channel, payload, h.len, err);
    if (!rc)
        rc = cm_ipc_fields_get(payload, h.len, &f, err);
    if (rc)
        return rc;
    ret->memory_limit = cm_ipc_get_uint(&f, CM_FIELD_MEMORY_LIMIT, 0);
    ret->undo = cm_ipc_get_uint(&f, CM_FIELD_SEQ, 0);
    return 0;
}

_Noreturn void cm_worker_fail(int channel, const struct cm_err *why)
{
    send_trap(channel, 0, why->text);
    leave(70);
}

static int greet(struct cm_err *err)
{
    struct cm_ipc_msg m;
    cm_output_begin(FD, 0);
    if (life.seq == 0 && call(CM_ENTRY_START, 0, 0, 0))
        return cm_err_set(err, CM_ERR_SANDBOX, "the guest did not start");
    cm_ipc_msg_begin(&m, CM_MSG_READY, 0);
    cm_ipc_put_uint(&m, CM_FIELD_SEQ, life.seq);
    return cm_ipc_write(FD, &m, err);
}

_Noreturn void cm_worker_serve(const struct cm_worker_life *how)
{
    struct cm_err err;
    struct cm_ipc_header h;
    life = *how;
    cm_crash_channel(FD);
    if (!life.thawed)
        cm_guest_drop_answer(); /* whatever a restored state says */
    if (life.thawed ? go_on(life.id, &err) : greet(&err))
        leave(70);
    while (cm_ipc_read_header(FD, CM_IPC_GATEWAY, CM_IPC_WORKER, &h, &err) > 0)
        if (serve_frame(&h, &err))
            leave(71);
    leave(0);
}
