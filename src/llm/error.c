/* SPDX-License-Identifier: Apache-2.0 */
/* Errors as services word them. No two do it alike, and few document it: what is looked for here was seen. */
#include "llm/internal.h"

#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/utf8.h"

#define LOOK_MAX 8192 /* bytes of an error that are searched for words */

static bool holds(const char *text, size_t len, const char *word)
{
    size_t n = strlen(word);

    len = len < LOOK_MAX ? len : LOOK_MAX;
    for (size_t i = 0; i + n <= len; i++)
        if (strncasecmp(text + i, word, n) == 0)
            return true;
    return false;
}

static bool says_too_long(const char *text, size_t len)
{
    static const char *const signs[] = {
        "context_length",  "context length",           "context window",     "context size",
        "context limit",   "exceed_context",           "prompt is too long", "input is too long",
        "too many tokens", "maximum number of tokens", "reduce the length",
    };

    for (size_t i = 0; i < CM_COUNT_OF(signs); i++)
        if (holds(text, len, signs[i]))
            return true;
    return false;
}

static unsigned find_quirk(const char *text, size_t len)
{
    if (holds(text, len, "stream_options") || holds(text, len, "include_usage"))
        return CM_LLM_NO_STREAM_OPTIONS;
    bool unsupported = holds(text, len, "unsupported") || holds(text, len, "not support");
    if (unsupported && holds(text, len, "max_completion_tokens"))
        return CM_LLM_COMPLETION_TOKENS;
    if (holds(text, len, "to stream this model") || (unsupported && holds(text, len, "stream")))
        return CM_LLM_NO_STREAM;
    return 0;
}

/* Names of errors that stand for a status, where an error comes without one. */
static int status_of(const char *name)
{
    static const struct {
        const char *name;
        int status;
    } known[] = {
        {"rate_limit_error", 429},
        {"rate_limit_exceeded", 429},
        {"insufficient_quota", 429},
        {"overloaded_error", 529},
        {"overloaded", 529},
        {"api_error", 500},
        {"server_error", 500},
        {"internal_error", 500},
        {"internal_server_error", 500},
        {"timeout_error", 504},
        {"authentication_error", 401},
        {"permission_error", 403},
        {"billing_error", 402},
        {"invalid_request_error", 400},
        {"not_found_error", 404},
        {"request_too_large", 413},
    };

    for (size_t i = 0; i < CM_COUNT_OF(known); i++)
        if (strcasecmp(name, known[i].name) == 0)
            return known[i].status;
    return 0;
}

/* One line without control characters. */
static void flatten(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = ' ';
}

static void take_text(struct cm_llm_reader *r, struct cm_json_value *message)
{
    if (*r->error)
        return;
    cm_llm_copy(message, r->error, sizeof r->error);
    flatten(r->error);
}

bool cm_llm_error_read(struct cm_llm_reader *r, const struct cm_json_value *object)
{
    struct cm_json_value error = cm_llm_field(object, "error"), kind = cm_llm_field(object, "object");
    struct cm_json_value type = cm_llm_field(object, "type");
    char names[2][64] = {"", ""};

    bool plain = (kind.kind == CM_JSON_STRING && kind.len == 7 && memcmp(kind.raw, "\"error\"", 7) == 0) ||
                 (type.kind == CM_JSON_STRING && type.len == 7 && memcmp(type.raw, "\"error\"", 7) == 0);
    if (error.kind == CM_JSON_STRING && error.len > 2) {
        r->too_long |= says_too_long(error.raw, error.len);
        take_text(r, &error);
        return r->failed = true;
    }
    if (error.kind != CM_JSON_OBJECT && !plain)
        return false;
    if (error.kind != CM_JSON_OBJECT)
        error = *object;
    r->failed = true;
    r->too_long |= says_too_long(error.raw, error.len);
    struct cm_json_value code = cm_llm_field(&error, "code"), message = cm_llm_field(&error, "message");
    type = cm_llm_field(&error, "type");
    uint64_t status = cm_llm_count(&code);
    if (status >= 400 && status < 600)
        r->error_status = (int)status;
    take_text(r, &message);
    cm_llm_copy(&code, names[0], sizeof names[0]);
    cm_llm_copy(&type, names[1], sizeof names[1]);
    strcpy(r->error_code, *names[0] ? names[0] : names[1]);
    for (int i = 0; i < 2 && !r->error_status; i++)
        r->error_status = status_of(names[i]);
    return true;
}

static bool first_of(void *arg, struct cm_json_value *value)
{
    *(struct cm_json_value *)arg = *value;
    return false;
}

/* What is no JSON: the text itself, or what its markup tells to a reader of pages. */
static void take_page(struct cm_llm_reader *r, const char *body, size_t len)
{
    while (len > 0 && strchr(" \t\r\n", *body) && *body)
        body++, len--;
    if (len > 0 && *body == '<') {
        strcpy(r->error, "a page of HTML");
        return;
    }
    len = cm_llm_whole(body, len, sizeof r->error - 1);
    if (!cm_utf8_valid(body, len))
        return;
    memcpy(r->error, body, len);
    r->error[len] = '\0';
    flatten(r->error);
}

void cm_llm_error_body(struct cm_llm_reader *r, char *body, size_t len)
{
    struct cm_json_value value, first;

    r->quirk = find_quirk(body, len);
    r->too_long = says_too_long(body, len);
    if (cm_json_check(body, len, &value, NULL) < 0) {
        take_page(r, body, len);
        return;
    }
    if (value.kind == CM_JSON_ARRAY) { /* Gemini's has one element */
        first = value;
        cm_json_elements(&value, first_of, &first);
        value = first;
    }
    struct cm_json_value message = cm_llm_field(&value, "message"), detail = cm_llm_field(&value, "detail");
    if (!cm_llm_error_read(r, &value)) {
        take_text(r, &message);
        take_text(r, &detail);
    }
}
