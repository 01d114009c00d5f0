/* SPDX-License-Identifier: Apache-2.0 */
/* A sidecar over HTTP. curl's multi interface, so that Ctrl-C ends a wait at once: the connection closes, and the
 * sidecar interrupts the execution of a client that has left. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "cli/backend.h"
#include "cli/interrupt.h"
#include "session/session.h"
#include "wire/json.h"

#define URL_MAX     1024
#define ANSWER_MAX  (512u << 20) /* a sidecar's largest answer: two outputs of 64 MiB, escaped */
#define BODY_MAX    (256u << 20)
#define INTERRUPTED 1 /* of exchange(): neither answer nor error */

struct remote {
    struct cm_backend base;
    CURLM *multi;
    CURL *easy;
    struct curl_slist *headers;
    char url[URL_MAX];
    char session[CM_SESSION_ID_MAX];
    bool own_session, atomic;
    double timeout_s;
    struct cm_buf answer;
};

static size_t on_data(char *data, size_t size, size_t count, void *arg)
{
    struct remote *r = arg;

    return cm_buf_append(&r->answer, data, size * count) < 0 ? 0 : size * count;
}

static int finish(struct remote *r, struct cm_err *err)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(r->multi, &left)))
        if (message->msg == CURLMSG_DONE && message->data.result != CURLE_OK)
            return cm_err_set(err, CM_ERR_SYSTEM, "%s: %s", r->url, curl_easy_strerror(message->data.result));
    return 0;
}

/* 0, INTERRUPTED, or negative. */
static int transfer(struct remote *r, struct cm_err *err)
{
    struct curl_waitfd extra = {.fd = cm_interrupt_fd(), .events = CURL_WAIT_POLLIN};
    int active;

    do {
        CURLMcode rc = curl_multi_perform(r->multi, &active);
        if (rc == CURLM_OK && active)
            rc = curl_multi_poll(r->multi, &extra, 1, 1000, NULL);
        if (rc != CURLM_OK)
            return cm_err_set(err, CM_ERR_SYSTEM, "%s: %s", r->url, curl_multi_strerror(rc));
        if (active && cm_interrupt_take())
            return INTERRUPTED;
    } while (active);
    return finish(r, err);
}

/* One request; the answer's body is in r->answer, its status in *ret_status. */
static int exchange(struct remote *r, const char *method, const char *path, const struct cm_buf *body, long *ret_status,
                    struct cm_err *err)
{
    char url[URL_MAX + 128];

    snprintf(url, sizeof(url), "%s%s", r->url, path);
    cm_buf_clear(&r->answer);
    curl_easy_setopt(r->easy, CURLOPT_URL, url);
    curl_easy_setopt(r->easy, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(r->easy, CURLOPT_POSTFIELDS, body ? cm_buf_data((struct cm_buf *)body) : "");
    curl_easy_setopt(r->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)(body ? body->len : 0));
    curl_multi_add_handle(r->multi, r->easy);
    int rc = transfer(r, err);
    curl_multi_remove_handle(r->multi, r->easy);
    if (rc == 0)
        curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, ret_status);
    return rc;
}

/* The `detail` of an error body, or the bare status. CM_ERR_BAD_REQUEST, or why there is nothing to run in. */
static int refused(struct remote *r, long status, struct cm_err *err)
{
    int code = status == 404 ? CM_ERR_NO_SESSION : status == 410 ? CM_ERR_SESSION_LOST : CM_ERR_BAD_REQUEST;
    struct cm_json_member m[] = {{.name = "detail"}};
    size_t len;

    if (cm_json_object(cm_buf_data(&r->answer), r->answer.len, m, 1, NULL) == 0 && m[0].value.kind == CM_JSON_STRING &&
        cm_json_decode(&m[0].value, &len))
        return cm_err_set(err, code, "%s: %.*s", r->url, (int)(len < 300 ? len : 300), m[0].value.raw);
    return cm_err_set(err, code, "%s: answered with HTTP status %ld", r->url, status);
}

static int write_body(const struct remote *r, const char *code, size_t len, struct cm_buf *body, struct cm_err *err)
{
    int rc;

    if ((rc = cm_buf_puts(body, r->atomic ? "{\"on_error\":\"rollback\",\"code\":" : "{\"code\":")) < 0 ||
        (rc = cm_json_put_string(body, code, len)) < 0 ||
        (rc = r->timeout_s > 0 ? cm_buf_printf(body, ",\"timeout\":%.3f}", r->timeout_s) : cm_buf_puts(body, "}")) < 0)
        return cm_err_set(err, rc, "the code is too long to be sent");
    return 0;
}

/* A string member's text, decoded in place; NULL when it is null or absent. */
static const char *text_of(struct cm_json_value *value, size_t *ret_len)
{
    return value->kind == CM_JSON_STRING && cm_json_decode(value, ret_len) ? value->raw : NULL;
}

static bool is_true(const struct cm_json_value *value)
{
    return value->kind == CM_JSON_BOOL && value->len == 4;
}

static int show(struct remote *r, struct cm_outcome *ret, struct cm_err *err)
{
    enum { OUT, ERR, RESULT, ERROR, TRACEBACK, SUCCESS, TIMED_OUT, STATE, COUNT };
    struct cm_json_member m[COUNT] = {{.name = "stdout"},    {.name = "stderr"},    {.name = "result"},
                                      {.name = "error"},     {.name = "traceback"}, {.name = "success"},
                                      {.name = "timed_out"}, {.name = "state"}};
    struct cm_answer a;
    size_t out_len = 0, state_len = 0;
    int rc = cm_json_object(cm_buf_data(&r->answer), r->answer.len, m, COUNT, err);

    if (rc < 0)
        return cm_err_wrap(err, "%s: is this a sidecar?", r->url);
    memset(&a, 0, sizeof(a));
    a.success = is_true(&m[SUCCESS].value);
    a.timed_out = is_true(&m[TIMED_OUT].value);
    const char *out = text_of(&m[OUT].value, &out_len), *state = text_of(&m[STATE].value, &state_len);
    a.rolled_back = state && state_len == 11 && memcmp(state, "rolled_back", 11) == 0;
    a.err = text_of(&m[ERR].value, &a.err_len);
    a.result = text_of(&m[RESULT].value, &a.result_len);
    a.error = text_of(&m[ERROR].value, &a.error_len);
    a.traceback = text_of(&m[TRACEBACK].value, &a.traceback_len);
    if (out)
        cm_fd_write_all(STDOUT_FILENO, out, out_len);
    if (a.err)
        cm_fd_write_all(STDERR_FILENO, a.err, a.err_len);
    return cm_outcome_from(&a, ret, err);
}

static int run(struct cm_backend *b, const char *code, size_t len, struct cm_outcome *ret, struct cm_err *err)
{
    struct remote *r = (struct remote *)b;
    char path[CM_SESSION_ID_MAX + 32];
    cm_autobuf struct cm_buf body;
    long status = 0;

    cm_buf_init(&body, BODY_MAX);
    int rc = write_body(r, code, len, &body, err);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof(path), r->session[0] ? "/session/%s/execute" : "/execute", r->session);
    rc = exchange(r, "POST", path, &body, &status, err);
    if (rc == INTERRUPTED) {
        *ret = (struct cm_outcome){.end = CM_RUN_INTERRUPTED};
        return 0;
    }
    if (rc == 0)
        rc = status == 200 ? show(r, ret, err) : refused(r, status, err);
    return rc;
}

static int create_session(struct remote *r, struct cm_err *err)
{
    struct cm_json_member m[] = {{.name = "session_id"}};
    long status = 0;
    size_t len;
    int rc = exchange(r, "POST", "/session", NULL, &status, err);

    if (rc == INTERRUPTED)
        return cm_err_set(err, CM_ERR_CANCELLED, "interrupted");
    if (rc < 0 || status != 200)
        return rc < 0 ? rc : refused(r, status, err);
    rc = cm_json_object(cm_buf_data(&r->answer), r->answer.len, m, 1, err);
    if (rc < 0)
        return cm_err_wrap(err, "%s: is this a sidecar?", r->url);
    const char *id = text_of(&m[0].value, &len);
    if (!id || len == 0 || len >= sizeof(r->session))
        return cm_err_set(err, CM_ERR_BAD_REQUEST, "%s: answered without a session", r->url);
    memcpy(r->session, id, len);
    r->session[len] = '\0';
    r->own_session = true;
    return 0;
}

static void delete_session(struct remote *r)
{
    char path[CM_SESSION_ID_MAX + 16];
    struct cm_err err;
    long status;

    snprintf(path, sizeof(path), "/session/%s", r->session);
    exchange(r, "DELETE", path, NULL, &status, &err); /* one that stays ends by its own time limit */
}

static void close_remote(struct cm_backend *b)
{
    struct remote *r = (struct remote *)b;

    if (r->own_session)
        delete_session(r);
    curl_easy_cleanup(r->easy);
    curl_multi_cleanup(r->multi);
    curl_slist_free_all(r->headers);
    cm_buf_done(&r->answer);
    free(r);
}

static int set_up(struct remote *r, const struct cm_target *target, struct cm_err *err)
{
    r->headers = curl_slist_append(NULL, "Content-Type: application/json");
    r->easy = curl_easy_init();
    r->multi = curl_multi_init();
    if (!r->easy || !r->multi || !r->headers)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the HTTP client");
    curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers);
    curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(r->easy, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
    curl_easy_setopt(r->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(r->easy, CURLOPT_NOPROXY, "localhost,127.0.0.1,::1");
    return target->keep_state && !target->session ? create_session(r, err) : 0;
}

int cm_backend_open_remote(const struct cm_target *target, struct cm_backend **ret, struct cm_err *err)
{
    struct remote *r = NULL;
    size_t len = strlen(target->url);

    while (len > 0 && target->url[len - 1] == '/')
        len--;
    if (len == 0 || len >= URL_MAX)
        return cm_err_set(err, CM_ERR_CONFIG, "the sidecar's URL is empty or too long");
    if (target->session && strspn(target->session, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(target->session))
        return cm_err_set(err, CM_ERR_CONFIG, "\"%.60s\" is not the id of a session", target->session);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0 || !(r = calloc(1, sizeof(*r))))
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the HTTP client");
    r->base = (struct cm_backend){run, close_remote};
    r->timeout_s = target->timeout_s;
    r->atomic = target->atomic;
    snprintf(r->url, sizeof(r->url), "%.*s", (int)len, target->url);
    snprintf(r->session, sizeof(r->session), "%s", target->session ? target->session : "");
    cm_buf_init(&r->answer, ANSWER_MAX);
    int rc = set_up(r, target, err);
    if (rc < 0) {
        close_remote(&r->base);
        return rc;
    }
    *ret = &r->base;
    return 0;
}
