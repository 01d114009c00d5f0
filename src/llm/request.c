/* SPDX-License-Identifier: Apache-2.0 */
/* What a service is sent. The end of the body is apart from its beginning, so that an attempt that has to leave something out
 * does not need the messages again. */
#include "llm/internal.h"

#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/utf8.h"

#define ANTHROPIC_TOKENS 32768 /* its API does not go without a number */
#define SAMPLING_MAX     (1u << 20)

/* Members that are ours to write. A name with escapes in it may be any of them. */
static bool is_ours(const struct cm_llm_model *model, const char *name, size_t len)
{
    static const char *const always[] = {"model", "messages", "stream", "stream_options", "system", "n"};
    static const char *const tokens[] = {"max_tokens", "max_completion_tokens"};

    if (memchr(name, '\\', len))
        return true;
    for (size_t i = 0; i < CM_COUNT_OF(always); i++)
        if (strlen(always[i]) == len && strncmp(always[i], name, len) == 0)
            return true;
    for (size_t i = 0; model->max_output_tokens && i < CM_COUNT_OF(tokens); i++)
        if (strlen(tokens[i]) == len && strncmp(tokens[i], name, len) == 0)
            return true;
    return false;
}

static bool has_scheme(const char *url)
{
    return url && (strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0);
}

/* What would end a header and begin another one. */
static bool has_control(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return true;
    return false;
}

int cm_llm_request_check(const struct cm_llm_model *model, struct cm_err *err)
{
    struct cm_json_value sampling;

    if (!model->name || !*model->name || !cm_utf8_valid(model->name, strlen(model->name)))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "model: must be a name");
    if (!has_scheme(model->base_url) || has_control(model->base_url))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "model %.80s: its base URL must begin with http:// or https://",
                          model->name);
    if (model->api_key && has_control(model->api_key))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "model %.80s: its key holds a line break or another control character",
                          model->name);
    if (!model->sampling)
        return 0;
    size_t len = strlen(model->sampling);
    if (len > SAMPLING_MAX || cm_json_check(model->sampling, len, &sampling, err) < 0 ||
        sampling.kind != CM_JSON_OBJECT)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "sampling: must be a JSON object of at most %u bytes", SAMPLING_MAX);
    return 0;
}

static int put_text(struct cm_buf *to, const char *text, size_t len)
{
    cm_autobuf struct cm_buf mended;

    cm_buf_init(&mended, to->max);
    if (cm_utf8_valid(text, len))
        return cm_json_put_string(to, text, len);
    int rc = cm_utf8_append(&mended, text, len);
    return rc < 0 ? rc : cm_json_put_string(to, cm_buf_data(&mended), mended.len);
}

static int put_message(struct cm_buf *to, const struct cm_llm_message *m, const char *role, bool first)
{
    int rc = cm_buf_printf(to, "%s{\"role\":\"%s\",\"content\":", first ? "" : ",", role);

    if (rc == 0)
        rc = put_text(to, m->text, m->len);
    return rc < 0 ? rc : cm_buf_puts(to, "}");
}

static int put_openai(struct cm_buf *to, const struct cm_llm_message *messages, size_t count)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    int rc = cm_buf_puts(to, ",\"messages\":[");

    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = put_message(to, &messages[i], roles[messages[i].role], i == 0);
    return rc < 0 ? rc : cm_buf_puts(to, "]");
}

static int put_system(struct cm_buf *to, const struct cm_llm_message *messages, size_t count)
{
    cm_autobuf struct cm_buf whole;
    int rc = 0;

    cm_buf_init(&whole, to->max);
    for (size_t i = 0; rc == 0 && i < count; i++)
        if (messages[i].role == CM_LLM_SYSTEM && messages[i].len > 0 &&
            (rc = cm_buf_puts(&whole, whole.len > 0 ? "\n\n" : "")) == 0)
            rc = cm_buf_append(&whole, messages[i].text, messages[i].len);
    if (rc == 0 && whole.len > 0 && (rc = cm_buf_puts(to, ",\"system\":")) == 0)
        rc = put_text(to, cm_buf_data(&whole), whole.len);
    return rc;
}

/* Anthropic takes no empty text, and wants something that is not the system's. */
static int put_anthropic(struct cm_buf *to, const struct cm_llm_message *messages, size_t count)
{
    bool others = false, first = true;
    int rc = 0;

    for (size_t i = 0; i < count; i++)
        others |= messages[i].role != CM_LLM_SYSTEM && messages[i].len > 0;
    if (others)
        rc = put_system(to, messages, count);
    if (rc == 0)
        rc = cm_buf_puts(to, ",\"messages\":[");
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if ((others && messages[i].role == CM_LLM_SYSTEM) || messages[i].len == 0)
            continue;
        rc = put_message(to, &messages[i], messages[i].role == CM_LLM_ASSISTANT ? "assistant" : "user", first);
        first = false;
    }
    return rc < 0 ? rc : cm_buf_puts(to, "]");
}

struct joining {
    struct cm_buf *to;
    const struct cm_llm_model *model;
    int rc;
};

static bool join(void *arg, const char *name, size_t len, const struct cm_json_value *value)
{
    struct joining *j = arg;

    if (is_ours(j->model, name, len))
        return true;
    if ((j->rc = cm_buf_puts(j->to, ",\"")) == 0 && (j->rc = cm_buf_append(j->to, name, len)) == 0 &&
        (j->rc = cm_buf_puts(j->to, "\":")) == 0)
        j->rc = cm_buf_append(j->to, value->raw, value->len);
    return j->rc == 0;
}

int cm_llm_request_begin(struct cm_buf *to, const struct cm_llm_model *model, const struct cm_llm_message *messages,
                         size_t count, struct cm_err *err)
{
    struct joining j = {to, model, 0};
    struct cm_json_value sampling;
    int rc = cm_buf_puts(to, "{\"model\":");

    if (rc == 0)
        rc = cm_json_put_string(to, model->name, strlen(model->name));
    if (rc == 0)
        rc = model->api == CM_LLM_ANTHROPIC ? put_anthropic(to, messages, count) : put_openai(to, messages, count);
    if (rc == 0 && model->sampling && cm_json_check(model->sampling, strlen(model->sampling), &sampling, NULL) == 0) {
        cm_json_members(&sampling, join, &j);
        rc = j.rc;
    }
    return rc < 0 ? cm_err_set(err, rc, "the request to the model is too large, or there is no memory for it") : 0;
}

static bool samples(const struct cm_llm_model *model, const char *name)
{
    struct cm_json_value sampling;

    return model->sampling && cm_json_check(model->sampling, strlen(model->sampling), &sampling, NULL) == 0 &&
           cm_llm_field(&sampling, name).kind != CM_JSON_ABSENT;
}

static int put_tokens(struct cm_buf *to, const struct cm_llm_model *model, unsigned quirks)
{
    if (model->max_output_tokens)
        return cm_buf_printf(to, ",\"%s\":%u",
                             quirks & CM_LLM_COMPLETION_TOKENS ? "max_completion_tokens" : "max_tokens",
                             model->max_output_tokens);
    if (model->api == CM_LLM_ANTHROPIC && !samples(model, "max_tokens"))
        return cm_buf_printf(to, ",\"max_tokens\":%d", ANTHROPIC_TOKENS);
    return 0;
}

int cm_llm_request_end(struct cm_buf *to, const struct cm_llm_model *model, unsigned quirks)
{
    int rc = put_tokens(to, model, quirks);

    if (rc == 0 && !(quirks & CM_LLM_NO_STREAM))
        rc = cm_buf_puts(to, ",\"stream\":true");
    if (rc == 0 && model->api == CM_LLM_OPENAI && !(quirks & (CM_LLM_NO_STREAM | CM_LLM_NO_STREAM_OPTIONS)))
        rc = cm_buf_puts(to, ",\"stream_options\":{\"include_usage\":true}");
    return rc < 0 ? rc : cm_buf_puts(to, "}");
}

/* A query, as Azure has it, stays behind the path. */
int cm_llm_request_url(struct cm_buf *to, const struct cm_llm_model *model)
{
    const char *base = model->base_url;
    size_t len = strcspn(base, "?#");
    const char *query = base[len] == '?' ? base + len : "";

    while (len > 0 && base[len - 1] == '/')
        len--;
    if (model->api == CM_LLM_ANTHROPIC && len > 3 && strncmp(base + len - 3, "/v1", 3) == 0)
        len -= 3;
    int rc = cm_buf_append(to, base, len);
    if (rc == 0)
        rc = cm_buf_puts(to, model->api == CM_LLM_ANTHROPIC ? "/v1/messages" : "/chat/completions");
    return rc < 0 ? rc : cm_buf_puts(to, query);
}
