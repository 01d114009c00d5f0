/* SPDX-License-Identifier: Apache-2.0 */
/* Anthropic's messages: an object of type "message", or its parts as events. */
#include "llm/internal.h"

#include <string.h>

#include "base/cleanup.h"

static const struct {
    const char *theirs, *ours;
} reasons[] = {
    {"end_turn", "stop"},
    {"stop_sequence", "stop"},
    {"pause_turn", "stop"},
    {"max_tokens", "length"},
    {"model_context_window_exceeded", "length"},
    {"tool_use", "tool_calls"},
    {"refusal", "content_filter"},
};

static void take_reason(struct cm_llm_reader *r, struct cm_json_value reason)
{
    char theirs[40] = "";

    cm_llm_copy(&reason, theirs, sizeof theirs);
    if (!*theirs)
        return;
    strcpy(r->finish, "stop");
    for (size_t i = 0; i < CM_COUNT_OF(reasons); i++)
        if (strcmp(theirs, reasons[i].theirs) == 0)
            strcpy(r->finish, reasons[i].ours);
    r->refused |= strcmp(theirs, "refusal") == 0;
}

/* Its input tokens leave out those of the cache; ours are all. Each event says what is known by then. */
static void take_usage(struct cm_llm_reader *r, struct cm_json_value usage)
{
    struct cm_json_value in = cm_llm_field(&usage, "input_tokens"), out = cm_llm_field(&usage, "output_tokens");
    struct cm_json_value read = cm_llm_field(&usage, "cache_read_input_tokens");
    struct cm_json_value written = cm_llm_field(&usage, "cache_creation_input_tokens");

    if (in.kind == CM_JSON_NUMBER) {
        r->usage.cached_tokens = cm_llm_count(&read);
        r->usage.input_tokens = cm_llm_count(&in) + cm_llm_count(&written) + r->usage.cached_tokens;
    }
    if (out.kind == CM_JSON_NUMBER)
        r->usage.output_tokens = cm_llm_count(&out);
    r->has_usage |= in.kind == CM_JSON_NUMBER;
}

static void take_message(struct cm_llm_reader *r, const struct cm_json_value *message)
{
    struct cm_json_value content = cm_llm_field(message, "content"), model = cm_llm_field(message, "model");

    r->answer = true;
    take_usage(r, cm_llm_field(message, "usage"));
    take_reason(r, cm_llm_field(message, "stop_reason"));
    cm_llm_copy(&model, r->model, sizeof r->model);
    cm_llm_reader_parts(r, &content);
}

void cm_llm_anthropic_read(struct cm_llm_reader *r, const struct cm_json_value *object)
{
    struct cm_json_value type = cm_llm_field(object, "type"), part;
    char name[32] = "";

    /* Everything is found before the first string is decoded: that one's text is gone afterwards. */
    struct cm_json_value message = cm_llm_field(object, "message"), delta = cm_llm_field(object, "delta");
    struct cm_json_value block = cm_llm_field(object, "content_block"), usage = cm_llm_field(object, "usage");
    struct cm_json_value whole = *object;
    if (type.kind != CM_JSON_STRING || type.len >= sizeof name)
        return;
    memcpy(name, type.raw + 1, type.len - 2);
    if (strcmp(name, "message") == 0) {
        take_message(r, &whole);
    } else if (strcmp(name, "message_start") == 0) {
        take_message(r, &message);
    } else if (strcmp(name, "content_block_start") == 0) {
        part = cm_llm_field(&block, "text");
        cm_llm_reader_words(r, &part);
    } else if (strcmp(name, "content_block_delta") == 0) {
        part = cm_llm_field(&delta, "text");
        cm_llm_reader_words(r, &part);
    } else if (strcmp(name, "message_delta") == 0) {
        take_usage(r, usage);
        take_reason(r, cm_llm_field(&delta, "stop_reason"));
    } else if (strcmp(name, "message_stop") == 0) {
        r->answer = r->finished = true;
    }
}
