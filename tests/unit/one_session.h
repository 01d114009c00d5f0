/* SPDX-License-Identifier: Apache-2.0 */
/* The plain part of a made-up session manager that knows the session "session-1" and its execution "exec-1": what the test of the
 * HTTP interface and its fuzzer both link in place of the room. */
#ifndef CM_TESTS_ONE_SESSION_H
#define CM_TESTS_ONE_SESSION_H

#include <string.h>

#include "base/buf.h"
#include "session/session.h"

int cm_sessions_check_owner(const struct cm_sessions *m, const char *id, const char *owner, struct cm_err *err)
{
    (void)m;
    (void)id;
    (void)owner;
    (void)err;
    return 0;
}

const char *cm_sessions_image(const struct cm_sessions *m)
{
    (void)m;
    return "image \"1\"";
}

int cm_sessions_output(struct cm_sessions *m, const char *id, const char *execution, int stream, uint64_t offset,
                       uint64_t length, struct cm_buf *to, struct cm_output_info *ret, struct cm_err *err)
{
    static const char text[] = "0123456789";

    (void)m;
    if (strcmp(id, "session-1") != 0 || strcmp(execution, "exec-1") != 0 || stream != 1)
        return cm_err_set(err, CM_ERR_NO_OUTPUT, "there is no such output");
    *ret = (struct cm_output_info){12, 10};
    size_t from = offset < 10 ? (size_t)offset : 10, n = length < 10 - from ? (size_t)length : 10 - from;
    return cm_buf_append(to, text + from, n);
}

int cm_sessions_interrupt(struct cm_sessions *m, const char *id, const char *execution, bool *ret_stopped,
                          struct cm_err *err)
{
    (void)m;
    if (strcmp(id, "session-1") != 0)
        return cm_err_set(err, CM_ERR_NO_SESSION, "no session \"%s\"", id);
    *ret_stopped = !execution || strcmp(execution, "exec-1") == 0;
    return 0;
}

int cm_sessions_roll_back(struct cm_sessions *m, const char *id,
                          void (*done)(void *arg, const char *id, const struct cm_err *err), void *arg,
                          struct cm_err *err)
{
    (void)m;
    (void)id;
    (void)done;
    (void)arg;
    return cm_err_set(err, CM_ERR_NOTHING_TO_UNDO, "nothing was done yet");
}

bool cm_sessions_delete(struct cm_sessions *m, const char *id)
{
    (void)m;
    return strcmp(id, "session-1") == 0;
}

#endif
