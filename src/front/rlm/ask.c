/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing is copied but what has to be: texts are decoded over themselves, other values end with a NUL that is put over the
 * comma or brace behind them. A large context goes to a file in memory, which the engine reads as it sends it on. */
#include "front/rlm/ask.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/utf8.h"
#include "conf/rlm.h"
#include "wire/json.h"

#define CONTEXT_IN_PLACE (64u << 10) /* bytes of a context that the engine may as well copy */
#define QUERY_MAX        4000 /* characters of a chat's last message that is its query */

enum {
    QUERY,
    CONTEXT,
    CONTEXT_ID,
    CONVERSATION_ID,
    MODEL,
    RECURSIVE_MODELS,
    MAX_DEPTH,
    MAX_ITERATIONS,
    MAX_TIMEOUT,
    MAX_TOKENS,
    MAX_BUDGET,
    MAX_ERRORS,
    MAX_CONCURRENT_SUBCALLS,
    EXECUTION_TIMEOUT,
    SYSTEM_PROMPT,
    USER_PROLOGUE,
    ORCHESTRATOR,
    COMPACTION,
    COMPACTION_THRESHOLD,
    CUSTOM_TOOLS,
    CUSTOM_SUB_TOOLS,
    SAMPLING,
    MESSAGES, /* from here on: of chats */
    STREAM,
    STREAM_OPTIONS,
    TEMPERATURE,
    TOP_P,
    MAX_COMPLETION_TOKENS,
    USER,
    N,
    TOOLS,
    FUNCTIONS,
    MEMBERS
};

static const char *const names[MEMBERS] = {
    [QUERY] = "query",
    [CONTEXT] = "context",
    [CONTEXT_ID] = "context_id",
    [CONVERSATION_ID] = "conversation_id",
    [MODEL] = "model",
    [RECURSIVE_MODELS] = "recursive_models",
    [MAX_DEPTH] = "max_depth",
    [MAX_ITERATIONS] = "max_iterations",
    [MAX_TIMEOUT] = "max_timeout",
    [MAX_TOKENS] = "max_tokens",
    [MAX_BUDGET] = "max_budget",
    [MAX_ERRORS] = "max_errors",
    [MAX_CONCURRENT_SUBCALLS] = "max_concurrent_subcalls",
    [EXECUTION_TIMEOUT] = "execution_timeout",
    [SYSTEM_PROMPT] = "system_prompt",
    [USER_PROLOGUE] = "user_prologue",
    [ORCHESTRATOR] = "orchestrator",
    [COMPACTION] = "compaction",
    [COMPACTION_THRESHOLD] = "compaction_threshold",
    [CUSTOM_TOOLS] = "custom_tools",
    [CUSTOM_SUB_TOOLS] = "custom_sub_tools",
    [SAMPLING] = "sampling",
    [MESSAGES] = "messages",
    [STREAM] = "stream",
    [STREAM_OPTIONS] = "stream_options",
    [TEMPERATURE] = "temperature",
    [TOP_P] = "top_p",
    [MAX_COMPLETION_TOKENS] = "max_completion_tokens",
    [USER] = "user",
    [N] = "n",
    [TOOLS] = "tools",
    [FUNCTIONS] = "functions",
};

struct reader {
    struct cm_ask *ask;
    struct cm_json_member at[MEMBERS];
    struct cm_err *err;
};

static bool is_given(const struct reader *r, int m)
{
    return r->at[m].value.kind != CM_JSON_ABSENT && r->at[m].value.kind != CM_JSON_NULL;
}

static int bad(const struct reader *r, int m, const char *wants)
{
    return cm_err_set(r->err, CM_ERR_BAD_FIELD, "%s: must be %s", names[m], wants);
}

/* Values */

/* Decoded over itself; there is room for a NUL where the closing quote was. */
static int decode(const struct reader *r, int m, struct cm_json_value *v, const char **ret)
{
    size_t len = 0;

    if (v->kind != CM_JSON_STRING)
        return bad(r, m, "a text");
    if (!cm_json_decode(v, &len))
        return bad(r, m, "a text without halves of surrogate pairs");
    if (memchr(v->raw, '\0', len))
        return bad(r, m, "a text without NUL");
    v->raw[len] = '\0';
    *ret = v->raw;
    return 0;
}

static int take_text(struct reader *r, int m, const char **ret)
{
    return is_given(r, m) ? decode(r, m, &r->at[m].value, ret) : 0;
}

/* An identifier or a name: not empty. */
static int take_name(struct reader *r, int m, const char **ret)
{
    const char *text = NULL;
    int rc = take_text(r, m, &text);

    if (rc < 0 || !text)
        return rc;
    if (!*text || strlen(text) > 255)
        return bad(r, m, "a text of 1 to 255 bytes");
    *ret = text;
    return 0;
}

static int take_number(struct reader *r, int m, double least, double most, bool whole, double *ret)
{
    char wants[80];

    if (!is_given(r, m))
        return 0;
    double n = r->at[m].value.kind == CM_JSON_NUMBER ? cm_json_number(&r->at[m].value) : NAN;
    if (n >= least && n <= most && (!whole || n == floor(n))) {
        *ret = n;
        return 0;
    }
    snprintf(wants, sizeof wants, "a %snumber from %.12g to %.12g", whole ? "whole " : "", least, most);
    return bad(r, m, wants);
}

static int take_bool(struct reader *r, int m, bool *ret)
{
    if (!is_given(r, m))
        return 0;
    if (r->at[m].value.kind != CM_JSON_BOOL)
        return bad(r, m, "true or false");
    *ret = r->at[m].value.raw[0] == 't';
    return 0;
}

/* Its text, to be ended with a NUL when all has been read. */
static int take_object(struct reader *r, int m, const char **ret)
{
    if (!is_given(r, m))
        return 0;
    if (r->at[m].value.kind != CM_JSON_OBJECT)
        return bad(r, m, "an object");
    *ret = r->at[m].value.raw;
    return 0;
}

struct list {
    const struct reader *r;
    int rc;
};

static bool take_one_model(void *arg, struct cm_json_value *value)
{
    struct list *l = arg;
    struct cm_ask *a = l->r->ask;
    const char *name = NULL;

    if (a->recursive_count == CM_RLM_MODELS_MAX - 1)
        l->rc = bad(l->r, RECURSIVE_MODELS, "a list of up to 7 names");
    else
        l->rc = decode(l->r, RECURSIVE_MODELS, value, &name);
    if (l->rc == 0 && (!name || !*name))
        l->rc = bad(l->r, RECURSIVE_MODELS, "a list of names");
    if (l->rc == 0)
        a->recursive[a->recursive_count++] = name;
    return l->rc == 0;
}

static int take_models(struct reader *r)
{
    struct list l = {r, 0};

    if (!is_given(r, RECURSIVE_MODELS))
        return 0;
    if (r->at[RECURSIVE_MODELS].value.kind != CM_JSON_ARRAY)
        return bad(r, RECURSIVE_MODELS, "a list of names");
    cm_json_elements(&r->at[RECURSIVE_MODELS].value, take_one_model, &l);
    return l.rc;
}

/* The context */

static int to_file(const char *data, size_t len, int *ret, struct cm_err *err)
{
    cm_autofd int fd = memfd_create("context", MFD_CLOEXEC);

    if (fd < 0)
        return cm_err_sys(err, errno, "context: file in memory");
    if (cm_fd_write_all(fd, data, len) < 0)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "context: no memory for it");
    *ret = cm_steal_fd(&fd);
    return 0;
}

static int set_context(struct reader *r, int kind, const char *data, size_t len)
{
    struct cm_rlm_context *c = &r->ask->req.context;

    c->kind = kind;
    c->len = len;
    if (len > CONTEXT_IN_PLACE)
        return to_file(data, len, &c->fd, r->err);
    c->data = data;
    return 0;
}

static int take_context(struct reader *r)
{
    struct cm_json_value *v = &r->at[CONTEXT].value;
    size_t len = v->len;

    if (!is_given(r, CONTEXT))
        return 0;
    if (r->ask->context_id)
        return cm_err_set(r->err, CM_ERR_BAD_FIELD, "context_id: there is a context already");
    if (v->kind != CM_JSON_STRING)
        return set_context(r, CM_CONTEXT_JSON, v->raw, len);
    if (!cm_json_decode(v, &len))
        return bad(r, CONTEXT, "a text without halves of surrogate pairs");
    return set_context(r, CM_CONTEXT_TEXT, v->raw, len);
}

/* Chats */

struct last {
    struct cm_json_value content; /* of the last message of the user */
    unsigned count;
    bool bad;
};

static bool see_message(void *arg, struct cm_json_value *value)
{
    struct last *l = arg;
    struct cm_json_member m[] = {{.name = "role"}, {.name = "content"}};

    if (cm_json_object(value->raw, value->len, m, 2, NULL) < 0 || m[0].value.kind != CM_JSON_STRING) {
        l->bad = true;
        return false;
    }
    l->count++;
    if (m[0].value.len == 6 && memcmp(m[0].value.raw, "\"user\"", 6) == 0)
        l->content = m[1].value;
    return true;
}

/* Appends a copy, decoded. */
static int append_text(struct reader *r, const struct cm_json_value *text, struct cm_buf *to)
{
    char *at;
    size_t len;

    if (cm_buf_reserve(to, text->len, &at) < 0)
        return CM_ERR_TOO_LARGE;
    memcpy(at, text->raw, text->len);
    struct cm_json_value copy = {.kind = CM_JSON_STRING, .raw = at, .len = text->len};
    if (!cm_json_decode(&copy, &len))
        return bad(r, MESSAGES, "texts without halves of surrogate pairs");
    cm_buf_commit(to, len);
    return 0;
}

struct parts {
    struct reader *r;
    struct cm_buf *to;
    int rc;
};

static bool see_part(void *arg, struct cm_json_value *value)
{
    struct parts *p = arg;
    struct cm_json_member m[] = {{.name = "type"}, {.name = "text"}};

    if (cm_json_object(value->raw, value->len, m, 2, NULL) < 0 || m[0].value.kind != CM_JSON_STRING ||
        m[0].value.len != 6 || memcmp(m[0].value.raw, "\"text\"", 6) != 0 || m[1].value.kind != CM_JSON_STRING)
        p->rc = bad(p->r, MESSAGES, "texts: parts of other types cannot be read");
    else
        p->rc = append_text(p->r, &m[1].value, p->to);
    return p->rc == 0;
}

/* A longer one stays where it is, in the context. */
static int take_chat_query(struct reader *r, const struct cm_json_value *content)
{
    struct cm_buf b;
    struct parts p = {.r = r, .to = &b};

    cm_buf_init(&b, 6 * QUERY_MAX + 2);
    if (content->kind == CM_JSON_ARRAY)
        cm_json_elements(content, see_part, &p);
    else if (content->kind == CM_JSON_STRING)
        p.rc = append_text(r, content, &b);
    else
        p.rc = bad(r, MESSAGES, "texts");
    bool brief = p.rc == 0 && cm_utf8_count(cm_buf_data(&b), b.len) <= QUERY_MAX &&
                 !memchr(cm_buf_data(&b), '\0', b.len) && b.len > 0;
    if (brief)
        r->ask->req.query = r->ask->chat_query = cm_buf_steal(&b, NULL);
    cm_buf_done(&b);
    return p.rc == CM_ERR_TOO_LARGE ? 0 : p.rc;
}

static int take_messages(struct reader *r)
{
    struct cm_json_value *v = &r->at[MESSAGES].value;
    struct last last = {0};

    if (v->kind != CM_JSON_ARRAY)
        return bad(r, MESSAGES, "a list of messages");
    cm_json_elements(v, see_message, &last);
    if (last.bad || last.count == 0)
        return bad(r, MESSAGES, "a list of messages with \"role\" and \"content\"");
    int rc = last.content.kind == CM_JSON_ABSENT ? 0 : take_chat_query(r, &last.content);
    return rc < 0 ? rc : set_context(r, CM_CONTEXT_JSON, v->raw, v->len);
}

static int take_stream(struct reader *r)
{
    struct cm_json_member m[] = {{.name = "include_usage"}};
    struct cm_json_value *v = &r->at[STREAM_OPTIONS].value;
    int rc = take_bool(r, STREAM, &r->ask->stream);

    if (rc < 0 || !is_given(r, STREAM_OPTIONS))
        return rc;
    if (v->kind != CM_JSON_OBJECT || cm_json_object(v->raw, v->len, m, 1, r->err) < 0)
        return bad(r, STREAM_OPTIONS, "an object");
    r->ask->include_usage = m[0].value.kind == CM_JSON_BOOL && m[0].value.raw[0] == 't';
    return 0;
}

/* What cannot be had is refused, so that nobody waits for it. */
static int refuse_others(struct reader *r)
{
    double n = 1;
    int rc = take_number(r, N, 1, 1, true, &n);

    for (int m = TOOLS; rc == 0 && m <= FUNCTIONS; m++)
        if (is_given(r, m) && !(r->at[m].value.kind == CM_JSON_ARRAY && r->at[m].value.len == 2))
            rc = cm_err_set(r->err, CM_ERR_BAD_FIELD, "%s: not supported; the model works with code of its own",
                            names[m]);
    return rc;
}

/* Temperature and such become a sampling object. */
static int take_sampling(struct reader *r)
{
    static const int members[] = {TEMPERATURE, TOP_P};
    struct cm_buf b;
    int rc = 0;

    cm_buf_init(&b, 256);
    for (size_t i = 0; i < CM_COUNT_OF(members) && rc == 0; i++) {
        const struct cm_json_value *v = &r->at[members[i]].value;
        double n = 0;
        rc = take_number(r, members[i], 0, 2, false, &n);
        if (rc == 0 && is_given(r, members[i]))
            rc = cm_buf_printf(&b, "%s\"%s\":%.*s", b.len > 0 ? "," : "{", names[members[i]],
                               v->len > 40 ? 40 : (int)v->len, v->raw);
    }
    if (rc == 0 && b.len > 0 && (rc = cm_buf_puts(&b, "}")) == 0)
        r->ask->sampling = r->ask->chat_sampling = cm_buf_steal(&b, NULL);
    cm_buf_done(&b);
    return rc;
}

static int read_chat(struct reader *r)
{
    struct cm_ask *a = r->ask;
    double tokens = 0;
    int rc;

    if ((rc = take_messages(r)) < 0 || (rc = take_stream(r)) < 0 || (rc = refuse_others(r)) < 0 ||
        (rc = take_sampling(r)) < 0 || (rc = take_name(r, USER, &a->user)) < 0 ||
        (rc = take_number(r, MAX_TOKENS, 1, 1e12, true, &tokens)) < 0 ||
        (rc = take_number(r, MAX_COMPLETION_TOKENS, 1, 1e12, true, &tokens)) < 0)
        return rc;
    a->answer_tokens = (uint64_t)tokens;
    return 0;
}

/* The whole */

static int read_run(struct reader *r)
{
    struct cm_ask *a = r->ask;
    int rc;

    if ((rc = take_text(r, QUERY, &a->req.query)) < 0)
        return rc;
    if (!a->req.query || !*a->req.query)
        return cm_err_set(r->err, CM_ERR_BAD_REQUEST, "Query is required");
    if ((rc = take_name(r, CONTEXT_ID, &a->context_id)) < 0 ||
        (rc = take_name(r, CONVERSATION_ID, &a->conversation_id)) < 0 || (rc = take_context(r)) < 0)
        return rc;
    return take_object(r, SAMPLING, &a->sampling);
}

struct bound {
    int member; /* of the request */
    bool whole, cut;
    double least, most;
    const char *cap_key;
};

static int check_cap(const struct reader *r, const struct bound *b, double cap, double *n)
{
    bool any = *n == 0 && b->least == 0;

    if (cap == 0 || (*n <= cap && !any))
        return 0;
    if (b->cut) {
        *n = cap;
        return 0;
    }
    return cm_err_set(r->err, CM_ERR_BAD_FIELD,
                      "%s: %.12g%s is above the server's cap of %.12g; ask for less, or start "
                      "the server with a higher %s",
                      names[b->member], *n, any ? ", no limit," : "", cap, b->cap_key);
}

static int take_limit(struct reader *r, const struct bound *b, double cap, double *ret)
{
    double n = *ret;
    int rc = take_number(r, b->member, b->least, b->most, b->whole, &n);

    if (rc == 0 && is_given(r, b->member))
        rc = check_cap(r, b, cap, &n);
    if (rc == 0)
        *ret = n;
    return rc;
}

#define REFUSED false
#define CUT     true

static int read_limits(struct reader *r)
{
    struct cm_rlm_limits *l = &r->ask->req.limits;
    double n;
    int rc = 0;

#define CM_RLM_LIMIT(id, name, member, min, max, whole, above, def, def_key, cap, cap_key)                             \
    if (rc == 0 && !(id == MAX_TOKENS && r->ask->shape == CM_ASK_CHAT)) { /* there it is about the answer */           \
        n = (double)l->member;                                                                                         \
        rc = take_limit(r, &(struct bound){id, whole, above, min, max, cap_key}, r->ask->caps[CM_ASK_##id], &n);       \
        l->member = (__typeof__(l->member))n;                                                                          \
    }
#include "rlm_limits.def"
#undef CM_RLM_LIMIT
    return rc;
}

static int read_options(struct reader *r)
{
    struct cm_rlm_request *q = &r->ask->req;
    bool orchestrator = true;
    int rc;

    if ((rc = take_text(r, SYSTEM_PROMPT, &q->system_prompt)) < 0 ||
        (rc = take_text(r, USER_PROLOGUE, &q->user_prologue)) < 0 ||
        (rc = take_bool(r, ORCHESTRATOR, &orchestrator)) < 0 || (rc = take_bool(r, COMPACTION, &q->compaction)) < 0 ||
        (rc = take_number(r, COMPACTION_THRESHOLD, 0.01, 1, false, &q->compaction_threshold)) < 0 ||
        (rc = take_object(r, CUSTOM_TOOLS, &q->custom_tools)) < 0)
        return rc;
    q->no_orchestrator = !orchestrator;
    return take_object(r, CUSTOM_SUB_TOOLS, &q->custom_sub_tools);
}

/* Behind a value stands a comma, a brace or a blank, and all of them have been read. */
static void end_objects(struct reader *r)
{
    static const int objects[] = {CUSTOM_TOOLS, CUSTOM_SUB_TOOLS, SAMPLING};

    for (size_t i = 0; i < CM_COUNT_OF(objects); i++)
        if (is_given(r, objects[i]))
            r->at[objects[i]].value.raw[r->at[objects[i]].value.len] = '\0';
}

int cm_ask_read(struct cm_ask *a, struct cm_err *err)
{
    struct reader r = {.ask = a, .err = err};
    int rc;

    for (int m = 0; m < MEMBERS; m++)
        r.at[m].name = names[m];
    if ((rc = cm_json_object(a->body, a->len, r.at, MEMBERS, err)) < 0)
        return rc == CM_ERR_BAD_FIELD ? cm_err_set(err, CM_ERR_BAD_JSON, "the body is no JSON object") : rc;
    rc = a->shape == CM_ASK_CHAT ? read_chat(&r) : read_run(&r);
    if (rc < 0 || (rc = take_name(&r, MODEL, &a->model)) < 0 || (rc = take_models(&r)) < 0 ||
        (rc = read_limits(&r)) < 0 || (rc = read_options(&r)) < 0)
        return rc;
    end_objects(&r);
    return 0;
}

void cm_ask_limits(const struct cm_rlm_conf *c, struct cm_rlm_limits *ret)
{
    *ret = (struct cm_rlm_limits){.session_memory = c->session_memory};
#define CM_RLM_LIMIT(id, name, member, min, max, whole, above, def, def_key, cap, cap_key)                             \
    ret->member = (min) == 0 && c->def == 0 ? c->cap : c->def;
#include "rlm_limits.def"
#undef CM_RLM_LIMIT
}

void cm_ask_init(struct cm_ask *a, enum cm_ask_shape shape, const struct cm_rlm_conf *c, char *body, size_t len)
{
    *a = (struct cm_ask){.shape = shape, .body = body, .len = len, .req.context.fd = -1};
    cm_ask_limits(c, &a->req.limits);
#define CM_RLM_LIMIT(id, name, member, min, max, whole, above, def, def_key, cap, cap_key)                             \
    a->caps[CM_ASK_##id] = c->cap;
#include "rlm_limits.def"
#undef CM_RLM_LIMIT
}

void cm_ask_done(struct cm_ask *a)
{
    free(a->chat_query);
    free(a->chat_sampling);
    free(a->body);
    a->req.context.fd = cm_fd_close(a->req.context.fd);
    a->body = a->chat_query = a->chat_sampling = NULL;
}
