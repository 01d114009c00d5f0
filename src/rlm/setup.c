/* SPDX-License-Identifier: Apache-2.0 */
/* What happens before a node's first turn: a session, the variables in it, the names for its code. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "rlm/internal.h"
#include "rlm/output.h"
#include "rlm/prompts.h"
#include "wire/json.h"

#define SESSION_WAIT_S 60.0

static struct cm_rlm_conversation *conversation_of(const struct cm_node *n)
{
    return n->slot ? NULL : n->run->conversation;
}

static void on_session(void *arg, const char *id, const struct cm_err *err)
{
    struct cm_node *n = arg;

    n->op = NULL;
    if (!err && strlen(id) < sizeof n->session)
        strcpy(n->session, id);
    if (cm_node_over(n))
        return;
    if (err)
        cm_node_fail_sidecar(n, "no session", err);
    else if (!n->session[0])
        cm_node_fail(n, CM_ERR_SIDECAR, "the sidecar has named a session with too long a name");
    else
        cm_setup_next(n);
}

static void on_put(void *arg, const struct cm_err *err)
{
    struct cm_node *n = arg;

    n->op = NULL;
    if (cm_node_over(n))
        return;
    if (err) {
        cm_node_fail_sidecar(n, "a variable could not be sent", err);
        return;
    }
    if (n->putting)
        ++*n->putting;
    if (n->putting == &n->contexts)
        cm_parts_text_done(&n->context);
    cm_setup_next(n);
}

/* `count` is one more when the variable is there. */
static void put(struct cm_node *n, const struct cm_variable *v, unsigned *count)
{
    struct cm_err err = {0};

    n->putting = count;
    if (cm_sidecar_put(n->run->rlm->sidecar, n->session, v, on_put, n, &n->op, &err) < 0) {
        n->op = NULL;
        cm_node_fail_sidecar(n, "a variable could not be sent", &err);
    }
}

static void create(struct cm_node *n)
{
    const struct cm_rlm_request *q = &n->run->request;
    double left = cm_run_left(n->run), wait = left > 0 && left < SESSION_WAIT_S ? left : SESSION_WAIT_S;
    struct cm_rlm_conversation *c = conversation_of(n);
    struct cm_err err = {0};

    if (c && c->session[0]) {
        strcpy(n->session, c->session);
        n->contexts = c->contexts;
        n->histories = c->histories;
        cm_setup_next(n);
        return;
    }
    if (cm_sidecar_create(n->run->rlm->sidecar, q->limits.session_memory, wait, q->correlation, on_session, n, &n->op,
                          &err) < 0) {
        n->op = NULL;
        cm_node_fail_sidecar(n, "no session", &err);
    }
}

static void put_history(struct cm_node *n)
{
    struct cm_rlm_conversation *c = conversation_of(n);
    char name[32];

    if (!c || !c->history) {
        cm_setup_next(n);
        return;
    }
    snprintf(name, sizeof name, "history_%u", n->histories);
    put(n, &(struct cm_variable){name, CM_VARIABLE_JSON, c->history, -1, 0, c->history_len}, &n->histories);
}

/* A first run has a context in any case, if only an empty one, so that code can name it. */
static void put_context(struct cm_node *n)
{
    char name[32];

    if (n->own == CM_OWN_NONE && n->contexts > 0) {
        cm_setup_next(n);
        return;
    }
    snprintf(name, sizeof name, "context_%u", n->contexts);
    enum cm_variable_kind kind = n->own == CM_OWN_JSON ? CM_VARIABLE_JSON : CM_VARIABLE_TEXT;
    const char *data = n->own == CM_OWN_NONE ? "" : n->context.data;
    put(n, &(struct cm_variable){name, kind, data, data ? -1 : n->context.fd, 0, n->context.len}, &n->contexts);
}

static void put_tools(struct cm_node *n)
{
    if (!n->tools) {
        cm_setup_next(n);
        return;
    }
    put(n, &(struct cm_variable){"_rlm_tools", CM_VARIABLE_JSON, n->tools, -1, 0, strlen(n->tools)}, NULL);
}

/* A JSON string of UTF-8 is a literal of Python, too. */
static int write_code(const struct cm_node *n, struct cm_buf *to)
{
    size_t len;
    const char *session = cm_prompt_session(&len);
    int rc;

    /* No name of ours is left among those of the code, and none of its own is lost. */
    if ((rc = cm_buf_puts(to,
                          "__import__('sys').modules['rlm_session'] = __import__('types').ModuleType('rlm_session')\n"
                          "exec(compile(")) < 0 ||
        (rc = cm_json_put_string(to, session, len)) < 0 ||
        (rc = cm_buf_printf(to,
                            ", 'rlm_session.py', 'exec'), __import__('rlm_session').__dict__)\n"
                            "__import__('rlm_session').install(globals(), contexts=%u, histories=%u)\n",
                            n->contexts, n->histories)) < 0 ||
        (n->tools && (rc = cm_buf_puts(to, "__import__('rlm_session').add(_rlm_tools)\ndel _rlm_tools\n")) < 0))
        return rc;
    return cm_buf_printf(to, "__import__('rlm_session').about('context_%u')\n", n->contexts - 1);
}

static void run_code(struct cm_node *n)
{
    cm_autobuf struct cm_buf code;

    cm_buf_init(&code, 1 << 20);
    if (write_code(n, &code) < 0) {
        cm_node_fail(n, CM_ERR_NO_MEMORY, "no memory for the session's code");
        return;
    }
    n->state = CM_NODE_SETUP;
    cm_execute(n, cm_buf_data(&code), code.len);
}

void cm_setup_next(struct cm_node *n)
{
    static void (*const steps[])(struct cm_node *) = {
        [CM_SETUP_SESSION] = create,  [CM_SETUP_HISTORY] = put_history, [CM_SETUP_CONTEXT] = put_context,
        [CM_SETUP_TOOLS] = put_tools, [CM_SETUP_CODE] = run_code,
    };

    if (n->setup < CM_SETUP_DONE)
        steps[n->setup++](n);
}

/* "('str', 1024)": type and length of the newest context. */
static void read_about(struct cm_node *n, const char *text)
{
    unsigned long long length;
    char type[32];

    if (sscanf(text, "('%31[A-Za-z0-9_]', %llu)", type, &length) != 2)
        return;
    snprintf(n->context_type, sizeof n->context_type, "%s", type);
    n->context_length = length;
}

void cm_setup_coded(struct cm_node *n, const struct cm_sidecar_result *res, const struct cm_err *err)
{
    if (err) {
        cm_node_fail_sidecar(n, "the session could not be prepared", err);
        return;
    }
    if (!res->success) {
        cm_node_fail(n, n->tools ? CM_ERR_BAD_FIELD : CM_ERR_SIDECAR, "%sthe session could not be prepared: %.300s",
                     n->tools ? "custom_tools: " : "", res->error);
        return;
    }
    read_about(n, res->result);
    cm_event_metadata(n);
    if (cm_preface_write(n) < 0) {
        cm_node_fail(n, CM_ERR_NO_MEMORY, "no memory for the first messages");
        return;
    }
    cm_turn_begin(n);
}

static void on_history(void *arg, const struct cm_err *err)
{
    static const char code[] = "__import__('rlm_session').keep('history')";
    struct cm_node *n = arg;

    n->op = NULL;
    if (cm_node_over(n))
        return;
    if (err) {
        cm_node_fail_sidecar(n, "the messages could not be sent", err);
        return;
    }
    n->state = CM_NODE_KEEP;
    cm_execute(n, code, sizeof code - 1);
}

void cm_setup_history(struct cm_node *n)
{
    struct cm_err err = {0};
    cm_autobuf struct cm_buf json;

    cm_buf_init(&json, CM_HISTORY_OLD_MAX + CM_MESSAGE_BYTES_MAX);
    if (cm_history_whole(&n->history, &json) < 0) {
        cm_turn_begin(n);
        return;
    }
    if (cm_parts_copy(cm_buf_data(&json), json.len, &n->context) < 0)
        return cm_node_fail(n, CM_ERR_NO_MEMORY, "no memory for the messages");
    const struct cm_variable v = {"history", CM_VARIABLE_JSON, n->context.data, -1, 0, n->context.len};
    if (cm_sidecar_put(n->run->rlm->sidecar, n->session, &v, on_history, n, &n->op, &err) < 0) {
        n->op = NULL;
        cm_node_fail_sidecar(n, "the messages could not be sent", &err);
    }
}
