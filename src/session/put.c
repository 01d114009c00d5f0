/* SPDX-License-Identifier: Apache-2.0 */
/* A variable whose value comes as a file.
 *
 * To everything around it, it is an execution: it waits in the queue, has its time, is interrupted and counted, and what
 * it leaves is saved. Only what is sent differs, and what its answer means. */
#include "session/internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/names.h"
#include "base/utf8.h"

#define BYTES_PER_S (8u << 20) /* that a session takes at the least: JSON is the slowest, at some 20 MiB */
#define TYPE_MAX    64

struct cm_put {
    struct cm_exec *exec;
    enum cm_put_kind kind;
    int fd; /* the channel's when sent */
    uint64_t length;
    void (*done)(void *arg, const struct cm_put_result *res, const struct cm_err *err);
    void *arg;
    size_t name_len;
    char name[];
};

struct cm_put *cm_put_free(struct cm_put *put)
{
    if (put)
        cm_fd_close(put->fd);
    free(put);
    return NULL;
}

int cm_put_send(struct cm_exec *e, struct cm_channel *ch, struct cm_err *err)
{
    struct cm_put *p = e->put;
    struct cm_ipc_msg msg;

    cm_ipc_msg_begin(&msg, CM_MSG_LOAD, e->seq);
    cm_ipc_put_bytes(&msg, CM_FIELD_NAME, p->name, p->name_len);
    cm_ipc_put_uint(&msg, CM_FIELD_KIND, (uint64_t)p->kind);
    cm_ipc_put_uint(&msg, CM_FIELD_LENGTH, p->length);
    cm_ipc_put_uint(&msg, CM_FIELD_RESULT_MAX, cm_exec_limit(e, CM_LIMIT_RESULT));
    cm_ipc_put_uint(&msg, CM_FIELD_FILES_MAX, cm_exec_limit(e, CM_LIMIT_FILES));
    cm_ipc_put_uint(&msg, CM_FIELD_FILE_BYTES_MAX, cm_exec_limit(e, CM_LIMIT_FILE_BYTES));
    cm_ipc_put_uint(&msg, CM_FIELD_MEMORY_LIMIT, cm_exec_limit(e, CM_LIMIT_MEMORY));
    e->start_ns = cm_clock_ns();
    int rc = cm_channel_send(ch, &msg, -1, err);
    if (rc < 0)
        return rc;
    cm_ipc_msg_begin(&msg, CM_MSG_CONTENT, e->seq);
    cm_ipc_put_rest(&msg, CM_FIELD_DATA, p->length);
    return cm_channel_send_file(ch, &msg, cm_steal_fd(&p->fd), p->length, err);
}

/* what became of it */

/* "str 12", or "int": the worker's words, which need not be true. */
static void succeed(const struct cm_put *p, const struct cm_exec_result *res)
{
    char type[TYPE_MAX] = "";
    struct cm_put_result made = {.type = type};

    if (res->result)
        snprintf(type, sizeof type, "%.*s", (int)res->result_len, res->result);
    char *size = strchr(type, ' ');
    if (size) {
        *size = '\0';
        made.has_length = true;
        made.length = strtoull(size + 1, NULL, 10);
    }
    size_t len = strlen(type);
    type[len - cm_utf8_cut_end(type, len)] = '\0';
    p->done(p->arg, &made, NULL);
}

static bool is_type(const struct cm_exec_result *res, const char *type)
{
    return res->error_type && res->error_type_len == strlen(type) && !memcmp(res->error_type, type, strlen(type));
}

static int code_of(const struct cm_exec *e, const struct cm_exec_result *res)
{
    if (res->state == CM_STATE_LOST)
        return CM_ERR_SESSION_LOST;
    if (res->timed_out)
        return CM_ERR_TIMED_OUT;
    if (e->stopped)
        return CM_ERR_CANCELLED;
    if (res->state == CM_STATE_ROLLED_BACK)
        return CM_ERR_REVERTED;
    return is_type(res, "MemoryError") ? CM_ERR_NO_ROOM : CM_ERR_BAD_FIELD;
}

/* The text is for a person who sees the code as well: without the class of the exception. */
static void on_done(void *arg, const struct cm_exec_result *res, const struct cm_err *err)
{
    const struct cm_put *p = arg;
    struct cm_err why;

    if (!res) {
        p->done(p->arg, NULL, err);
        return;
    }
    if (res->success) {
        succeed(p, res);
        return;
    }
    const char *text = res->error ? res->error : "";
    size_t len = res->error ? res->error_len : 0, class = 0;
    while (class < len && isalnum((unsigned char)text[class]))
        class ++;
    if (class > 0 && len > class + 2 && !memcmp(text + class, ": ", 2)) {
        text += class + 2;
        len -= class + 2;
    }
    cm_err_set(&why, code_of(p->exec, res), "%.*s", (int)(len < CM_ERR_TEXT_MAX ? len : CM_ERR_TEXT_MAX), text);
    p->done(p->arg, NULL, &why);
}

/* asking */

static int check_name(const char *name, size_t len, struct cm_err *err)
{
    if (len <= CM_PUT_NAME_MAX && cm_name_is_variable(name, len))
        return 0;
    return cm_err_set(err, CM_ERR_BAD_FIELD, "name: must be an identifier of at most %d bytes, and no keyword",
                      CM_PUT_NAME_MAX);
}

/* A frame cannot end before its time. */
static int check_file(const struct cm_put_request *req, struct cm_err *err)
{
    struct stat st;

    if (req->length > CM_PUT_MAX)
        return cm_err_set(err, CM_ERR_TOO_LARGE, "a value of %llu bytes; the most is %u",
                          (unsigned long long)req->length, CM_PUT_MAX);
    if (req->length > 0 && (fstat(req->fd, &st) < 0 || (uint64_t)st.st_size < req->length))
        return cm_err_set(err, CM_ERR_SYSTEM, "the value's file is shorter than it should be");
    return 0;
}

struct cm_exec *cm_put_new(struct cm_sessions *m, const struct cm_limits *base, const struct cm_put_request *req,
                           void (*done)(void *arg, const struct cm_put_result *res, const struct cm_err *err),
                           void *arg, struct cm_err *err)
{
    const struct cm_exec_request run = {.code = "", .caps = req->caps, .correlation_id = req->correlation_id};
    const struct cm_exec_ops ops = {.done = on_done};
    cm_autofd int file = req->fd;

    if (check_name(req->name, req->name_len, err) < 0 || check_file(req, err) < 0)
        return NULL;
    struct cm_put *p = malloc(sizeof *p + req->name_len);
    struct cm_exec *e = p ? cm_exec_new(m, base, &run, &ops, p, err) : NULL;
    if (!e) {
        if (!p)
            cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a variable");
        free(p);
        return NULL;
    }
    *p = (struct cm_put){.exec = e, .kind = req->kind, .length = req->length, .done = done, .arg = arg};
    p->fd = cm_steal_fd(&file);
    p->name_len = req->name_len;
    memcpy(p->name, req->name, req->name_len);
    e->put = p;
    uint64_t more_s = p->length / BYTES_PER_S;
    e->limits.at[CM_LIMIT_TIMEOUT] += (double)more_s;
    e->limits.at[CM_LIMIT_CPU_TIME] += (double)more_s;
    e->limits.at[CM_LIMIT_TOOL_CALLS] = 0; /* whoever calls one is no honest guest */
    return e;
}
