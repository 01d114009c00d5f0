/* SPDX-License-Identifier: Apache-2.0 */
/* OpenAI's shapes: models, chat completions, their streams, their errors. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/url.h"
#include "base/utf8.h"
#include "front/rlm/internal.h"
#include "wire/json.h"

#define PIECE          16384 /* bytes of an answer in one chunk */
#define TOKEN_BYTES    4
#define OWN_MODEL      "rlm"
#define OWN_PREFIX     "rlm/"
#define OWN_PREFIX_LEN 4

/* Errors */

static const char *error_type(unsigned status)
{
    return status == 401   ? "authentication_error"
           : status == 403 ? "permission_error"
           : status == 404 ? "not_found_error"
           : status == 429 ? "rate_limit_error"
           : status < 500  ? "invalid_request_error"
                           : "server_error";
}

int chat_error_body(const struct cm_err *err, unsigned status, struct cm_buf *to)
{
    cm_autobuf struct cm_buf words;
    int rc;

    cm_buf_init(&words, 3 * CM_ERR_TEXT_MAX);
    if ((rc = cm_utf8_append(&words, err->text, strlen(err->text))) < 0 ||
        (rc = cm_buf_puts(to, "{\"error\":{\"message\":")) < 0 ||
        (rc = cm_json_put_string(to, cm_buf_data(&words), words.len)) < 0)
        return rc;
    return cm_buf_printf(to, ",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}", error_type(status),
                         cm_err_info(err->code)->short_name);
}

/* Models */

static int put_model(struct cm_buf *b, const char *id)
{
    int rc = cm_buf_puts(b, "{\"id\":");

    if (rc == 0)
        rc = cm_json_put_string(b, id, strlen(id));
    return rc < 0 ? rc : cm_buf_puts(b, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"codemode\"}");
}

void cm_infer_list_models(struct cm_request *rq)
{
    const struct cm_infer *f = infer_of(rq);
    struct cm_models_local local;
    char named[300];
    struct cm_buf b;

    infer_local_model(f, &local);
    snprintf(named, sizeof named, OWN_PREFIX "%.280s", cm_models_name(f->config.conf, &local));
    cm_buf_init(&b, 8192);
    int rc = cm_buf_puts(&b, "{\"object\":\"list\",\"data\":[");
    if (rc == 0)
        rc = put_model(&b, OWN_MODEL);
    if (rc == 0)
        rc = cm_buf_puts(&b, ",");
    if (rc == 0)
        rc = put_model(&b, named);
    if (rc == 0)
        rc = cm_buf_puts(&b, "]}");
    cm_request_answer_buf(rq, 200, NULL, &b, rc);
}

/* The model's own name behind it, NULL for the configured one. */
static int take_name(const char *id, const char **ret, struct cm_err *err)
{
    *ret = NULL;
    if (strcmp(id, OWN_MODEL) == 0)
        return 0;
    if (strncmp(id, OWN_PREFIX, OWN_PREFIX_LEN) != 0 || !id[OWN_PREFIX_LEN])
        return cm_err_set(err, CM_ERR_NOT_FOUND, "there is no model \"%.100s\": say rlm, or rlm/ and a model's name",
                          id);
    *ret = id + OWN_PREFIX_LEN;
    return 0;
}

/* Whether there is a model of a name is for its service to say, in a run. */
void cm_infer_show_model(struct cm_request *rq)
{
    const char *asked = cm_request_variable(rq, 0), *name;
    char id[300];
    size_t len;
    struct cm_err err;
    struct cm_buf b;

    if (!cm_url_decode(asked, strlen(asked), id, sizeof id - 1, &len) || strnlen(id, len) != len) {
        infer_fail(rq, CM_ERR_NOT_FOUND, "there is no model of such a name");
        return;
    }
    id[len] = '\0';
    if (take_name(id, &name, &err) < 0) {
        cm_request_fail(rq, &err);
        return;
    }
    cm_buf_init(&b, 8192);
    cm_request_answer_buf(rq, 200, NULL, &b, put_model(&b, id));
}

int chat_take_model(struct cm_ask *ask, struct cm_err *err)
{
    if (!ask->model)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "model: is required");
    return take_name(ask->model, &ask->model, err);
}

/* Usage */

struct sums {
    double input, output;
};

static bool add_model(void *arg, const char *name, size_t len, const struct cm_json_value *value)
{
    struct sums *s = arg;
    struct cm_json_member m[] = {{.name = "total_input_tokens"}, {.name = "total_output_tokens"}};

    (void)name;
    (void)len;
    if (cm_json_object(value->raw, value->len, m, 2, NULL) == 0) {
        s->input += m[0].value.kind == CM_JSON_NUMBER ? cm_json_number(&m[0].value) : 0;
        s->output += m[1].value.kind == CM_JSON_NUMBER ? cm_json_number(&m[1].value) : 0;
    }
    return true;
}

static int put_usage(struct cm_buf *b, const struct run *r)
{
    struct cm_json_member m[] = {{.name = "model_usage_summaries"}};
    struct sums s = {0};

    if (r->usage && cm_json_object(r->usage, strlen(r->usage), m, 1, NULL) == 0 && m[0].value.kind == CM_JSON_OBJECT)
        cm_json_members(&m[0].value, add_model, &s);
    return cm_buf_printf(b, "{\"prompt_tokens\":%.0f,\"completion_tokens\":%.0f,\"total_tokens\":%.0f}", s.input,
                         s.output, s.input + s.output);
}

/* Answers */

/* What of the answer goes out: max_tokens is about the answer, not about how it was found. */
static size_t cut(const struct cm_ask *ask, const struct run *r)
{
    uint64_t max = ask->answer_tokens ? ask->answer_tokens * TOKEN_BYTES : r->answer_len;

    return max < r->answer_len ? (size_t)max - cm_utf8_cut_end(r->answer, (size_t)max) : r->answer_len;
}

static const char *finish(const struct cm_ask *ask, const struct run *r)
{
    return cut(ask, r) < r->answer_len ? "length" : "stop";
}

static int put_head(struct cm_buf *b, const struct run *r, const char *object, const struct cm_ask *ask)
{
    int rc = cm_buf_printf(b, "{\"id\":\"chatcmpl-%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", r->id, object,
                           (long long)time(NULL));
    char name[300];

    snprintf(name, sizeof name, "%s%.280s", ask->model ? OWN_PREFIX : "", ask->model ? ask->model : OWN_MODEL);
    return rc < 0 ? rc : cm_json_put_string(b, name, strlen(name));
}

static int put_completion(struct cm_buf *b, const struct cm_ask *ask, const struct run *r)
{
    int rc;

    if ((rc = put_head(b, r, "chat.completion", ask)) < 0 ||
        (rc = cm_buf_puts(b, ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":")) < 0 ||
        (rc = cm_json_put_string(b, r->answer, cut(ask, r))) < 0 ||
        (rc = cm_buf_printf(
             b, ",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"%s\"}],\"usage\":", finish(ask, r))) < 0 ||
        (rc = put_usage(b, r)) < 0)
        return rc;
    return cm_buf_puts(b, "}");
}

void chat_answer(struct cm_request *rq, const struct cm_ask *ask, const struct run *r)
{
    bool ok = r->status == RUN_SUCCEEDED;
    struct cm_buf b;

    cm_buf_init(&b, ANSWER_MAX);
    int rc = ok ? put_completion(&b, ask, r) : chat_error_body(&r->err, run_http_status(r), &b);
    if (!ok)
        cm_request_set_header(rq, "x-should-retry", "false");
    cm_request_answer_buf(rq, run_http_status(r), NULL, &b, rc);
}

/* Streams */

/* One chunk; its delta is {"role"} without text, {"content"} with one, and {} at the end. */
static int put_chunk(struct cm_buf *b, const struct cm_ask *ask, const struct run *r, const char *text, size_t len,
                     const char *finish_reason)
{
    int rc;

    if ((rc = cm_buf_puts(b, "data: ")) < 0 || (rc = put_head(b, r, "chat.completion.chunk", ask)) < 0 ||
        (rc = cm_buf_puts(b, ",\"choices\":[{\"index\":0,\"delta\":")) < 0)
        return rc;
    if (finish_reason)
        rc = cm_buf_printf(b, "{},\"finish_reason\":\"%s\"}]", finish_reason);
    else if (!text)
        rc = cm_buf_puts(b, "{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]");
    else if ((rc = cm_buf_puts(b, "{\"content\":")) == 0 && (rc = cm_json_put_string(b, text, len)) == 0)
        rc = cm_buf_puts(b, "},\"finish_reason\":null}]");
    return rc < 0 ? rc : cm_buf_puts(b, ask->include_usage ? ",\"usage\":null}\n\n" : "}\n\n");
}

void chat_begin_stream(struct cm_request *rq, const struct cm_ask *ask, const struct run *r)
{
    cm_autobuf struct cm_buf b;

    cm_buf_init(&b, 4096);
    if (put_chunk(&b, ask, r, NULL, 0, NULL) == 0)
        cm_request_write(rq, cm_buf_data(&b), b.len);
}

static int put_pieces(struct cm_buf *b, const struct cm_ask *ask, const struct run *r)
{
    size_t len = cut(ask, r), piece;
    int rc = 0;

    for (size_t at = 0; at < len && rc == 0; at += piece) {
        piece = len - at < PIECE ? len - at : PIECE - cm_utf8_cut_end(r->answer + at, PIECE);
        rc = put_chunk(b, ask, r, r->answer + at, piece, NULL);
    }
    return rc;
}

static int put_usage_chunk(struct cm_buf *b, const struct cm_ask *ask, const struct run *r)
{
    int rc;

    if ((rc = cm_buf_puts(b, "data: ")) < 0 || (rc = put_head(b, r, "chat.completion.chunk", ask)) < 0 ||
        (rc = cm_buf_puts(b, ",\"choices\":[],\"usage\":")) < 0 || (rc = put_usage(b, r)) < 0)
        return rc;
    return cm_buf_puts(b, "}\n\n");
}

static int put_rest(struct cm_buf *b, const struct cm_ask *ask, const struct run *r)
{
    int rc;

    if (r->status != RUN_SUCCEEDED) {
        rc = cm_buf_puts(b, "data: ");
        rc = rc < 0 ? rc : chat_error_body(&r->err, run_http_status(r), b);
        return rc < 0 ? rc : cm_buf_puts(b, "\n\n");
    }
    if ((rc = put_pieces(b, ask, r)) < 0 || (rc = put_chunk(b, ask, r, NULL, 0, finish(ask, r))) < 0 ||
        (ask->include_usage && (rc = put_usage_chunk(b, ask, r)) < 0))
        return rc;
    return cm_buf_puts(b, "data: [DONE]\n\n");
}

void chat_end_stream(struct cm_request *rq, const struct cm_ask *ask, const struct run *r)
{
    cm_autobuf struct cm_buf b;

    cm_buf_init(&b, ANSWER_MAX);
    int rc = put_rest(&b, ask, r);
    if (rc == 0)
        rc = cm_request_write(rq, cm_buf_data(&b), b.len);
    cm_request_end(rq, rc < 0);
}
