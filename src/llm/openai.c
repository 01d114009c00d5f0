/* SPDX-License-Identifier: Apache-2.0 */
/* Chat completions in the manner of OpenAI, and what others make of them. */
#include "llm/internal.h"

#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

static const struct {
    const char *theirs, *ours;
} reasons[] = {
    {"stop", "stop"},
    {"eos", "stop"},
    {"eos_token", "stop"},
    {"end_turn", "stop"},
    {"stop_sequence", "stop"},
    {"length", "length"},
    {"max_tokens", "length"},
    {"model_length", "length"},
    {"content_filter", "content_filter"},
    {"safety", "content_filter"},
    {"tool_calls", "tool_calls"},
    {"function_call", "tool_calls"},
};

static void take_finish(struct cm_llm_reader *r, struct cm_json_value *reason)
{
    char theirs[32] = "";

    cm_llm_copy(reason, theirs, sizeof theirs);
    if (!*theirs)
        return;
    r->finished = true;
    strcpy(r->finish, "stop");
    for (size_t i = 0; i < CM_COUNT_OF(reasons); i++)
        if (strcasecmp(theirs, reasons[i].theirs) == 0)
            strcpy(r->finish, reasons[i].ours);
    r->refused |= strcmp(r->finish, "content_filter") == 0;
    if (strcasecmp(theirs, "error") == 0) {
        r->failed = true;
        r->finished = false;
        r->error_status = 502;
        strcpy(r->error, "the service has broken off its answer");
    }
}

static bool take_choice(void *arg, struct cm_json_value *choice)
{
    struct cm_llm_reader *r = arg;
    struct cm_json_value index = cm_llm_field(choice, "index"), reason = cm_llm_field(choice, "finish_reason");
    struct cm_json_value message = cm_llm_field(choice, "delta"), text = cm_llm_field(choice, "text");

    if (cm_llm_count(&index) > 0)
        return true;
    if (message.kind != CM_JSON_OBJECT)
        message = cm_llm_field(choice, "message");
    struct cm_json_value content = cm_llm_field(&message, "content"), refusal = cm_llm_field(&message, "refusal");
    r->answer = true;
    cm_llm_reader_parts(r, &content);
    cm_llm_reader_words(r, &content);
    cm_llm_reader_words(r, &text);
    if (refusal.kind == CM_JSON_STRING && refusal.len > 2) {
        r->refused = true;
        cm_llm_reader_words(r, &refusal);
    }
    take_finish(r, &reason);
    return false;
}

/* DeepSeek names what was cached by a name of its own; OpenRouter says what it costs. */
static void take_usage(struct cm_llm_reader *r, const struct cm_json_value *usage)
{
    struct cm_json_value in = cm_llm_field(usage, "prompt_tokens"), out = cm_llm_field(usage, "completion_tokens");
    struct cm_json_value cached = cm_llm_path(usage, "prompt_tokens_details.cached_tokens");
    struct cm_json_value cost = cm_llm_field(usage, "cost");
    double sum = cost.kind == CM_JSON_NUMBER ? cm_json_number(&cost) : -1;

    if (in.kind != CM_JSON_NUMBER && out.kind != CM_JSON_NUMBER)
        return;
    if (cached.kind != CM_JSON_NUMBER)
        cached = cm_llm_field(usage, "prompt_cache_hit_tokens");
    r->has_usage = true;
    r->usage.input_tokens = cm_llm_count(&in);
    r->usage.output_tokens = cm_llm_count(&out);
    r->usage.cached_tokens = cm_llm_count(&cached);
    if (sum >= 0 && sum <= 1e6) {
        r->has_cost = true;
        r->usage.cost = sum;
    }
}

void cm_llm_openai_read(struct cm_llm_reader *r, const struct cm_json_value *object)
{
    struct cm_json_value choices = cm_llm_field(object, "choices"), usage = cm_llm_field(object, "usage");
    struct cm_json_value model = cm_llm_field(object, "model");

    take_usage(r, &usage);
    if (choices.kind == CM_JSON_ARRAY)
        cm_json_elements(&choices, take_choice, r);
    if (!*r->model)
        cm_llm_copy(&model, r->model, sizeof r->model);
}
