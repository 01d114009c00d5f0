/* SPDX-License-Identifier: Apache-2.0 */
/* Reading an answer: a stream of events, or one JSON object where the service does not stream. Which it is, its first byte
 * says: content types are wrong too often. */
#include "llm/internal.h"

#include <string.h>

#include "base/utf8.h"

#define ERROR_MAX (64u << 10) /* bytes of the body of an error that are looked at */

static uint64_t event_max(uint64_t reply_max)
{
    return 2 * reply_max + (64u << 10); /* escapes, and what stands around the words */
}

void cm_llm_reader_init(struct cm_llm_reader *r, enum cm_llm_api api, uint64_t reply_max)
{
    memset(r, 0, sizeof *r);
    r->api = api;
    r->reply_max = reply_max;
    cm_sse_init(&r->sse, event_max(reply_max));
    cm_buf_init(&r->whole, event_max(reply_max));
    cm_buf_init(&r->mended, 3 * event_max(reply_max));
    cm_buf_init(&r->text, reply_max);
}

void cm_llm_reader_done(struct cm_llm_reader *r)
{
    cm_sse_done(&r->sse);
    cm_buf_done(&r->whole);
    cm_buf_done(&r->mended);
    cm_buf_done(&r->text);
}

static bool wanted(const struct cm_llm_reader *r)
{
    return !r->broken && !r->too_large && !r->no_memory && !r->failed;
}

void cm_llm_reader_words(struct cm_llm_reader *r, struct cm_json_value *string)
{
    size_t len;
    const char *text = cm_llm_text(string, &len);

    if (!text || len == 0 || !wanted(r))
        return;
    size_t take = cm_llm_whole(text, len, r->text.max - r->text.len);
    r->too_large = take < len;
    if (cm_buf_append(&r->text, text, take) < 0)
        r->no_memory = true;
    else if (r->words && take > 0)
        r->words(r->arg, text, take);
}

static bool part(void *arg, struct cm_json_value *value)
{
    struct cm_json_value type = cm_llm_field(value, "type"), text = cm_llm_field(value, "text");

    if (type.kind == CM_JSON_STRING && type.len == 6 && memcmp(type.raw, "\"text\"", 6) == 0)
        cm_llm_reader_words(arg, &text);
    return true;
}

void cm_llm_reader_parts(struct cm_llm_reader *r, const struct cm_json_value *array)
{
    if (array->kind == CM_JSON_ARRAY)
        cm_json_elements(array, part, r);
}

/* One JSON text of the answer. */
static void read_object(struct cm_llm_reader *r, char *data, size_t len)
{
    struct cm_json_value object;

    if (!cm_utf8_valid(data, len)) {
        cm_buf_clear(&r->mended);
        if (cm_utf8_append(&r->mended, data, len) < 0) {
            r->no_memory = true;
            return;
        }
        data = cm_buf_data(&r->mended);
        len = r->mended.len;
    }
    if (cm_json_check(data, len, &object, NULL) < 0 || object.kind != CM_JSON_OBJECT)
        r->broken = true;
    else if (!cm_llm_error_read(r, &object))
        (r->api == CM_LLM_ANTHROPIC ? cm_llm_anthropic_read : cm_llm_openai_read)(r, &object);
}

static int on_event(void *arg, const char *event, char *data, size_t len)
{
    struct cm_llm_reader *r = arg;

    (void)event;
    r->events++;
    if (len == 6 && memcmp(data, "[DONE]", 6) == 0)
        r->answer = r->finished = true;
    else if (len > 0 && strspn(data, " \t") < len)
        read_object(r, data, len);
    return wanted(r) ? 0 : CM_ERR_BAD_JSON;
}

static void guess_shape(struct cm_llm_reader *r, const char *data, size_t len)
{
    for (size_t i = 0; i < len && r->shape == CM_LLM_SHAPE_UNKNOWN; i++)
        if (!strchr(" \t\r\n", data[i]) || data[i] == '\0')
            r->shape = data[i] == '{' || data[i] == '[' || data[i] == '<' ? CM_LLM_SHAPE_WHOLE : CM_LLM_SHAPE_STREAM;
}

static void keep(struct cm_llm_reader *r, const char *data, size_t len)
{
    int rc = cm_buf_append(&r->whole, data, len);

    r->too_large |= rc == CM_ERR_TOO_LARGE;
    r->no_memory |= rc == CM_ERR_NO_MEMORY;
}

bool cm_llm_reader_feed(struct cm_llm_reader *r, bool ok, const char *data, size_t len)
{
    if (!wanted(r))
        return false;
    if (!ok) {
        size_t room = r->whole.len < ERROR_MAX ? ERROR_MAX - r->whole.len : 0;
        keep(r, data, len < room ? len : room);
        return true;
    }
    if (r->shape == CM_LLM_SHAPE_UNKNOWN)
        guess_shape(r, data, len);
    if (r->shape == CM_LLM_SHAPE_WHOLE) {
        keep(r, data, len);
    } else {
        int rc = cm_sse_feed(&r->sse, data, len, on_event, r);
        r->too_large |= rc == CM_ERR_TOO_LARGE;
        r->no_memory |= rc == CM_ERR_NO_MEMORY;
    }
    return wanted(r);
}

/* A stream may lack the empty line behind its last event; half an event is none. */
static void end_stream(struct cm_llm_reader *r)
{
    if (!wanted(r) || r->finished)
        return;
    cm_sse_feed(&r->sse, "\n\n", 2, on_event, r);
    r->broken = false;
}

void cm_llm_reader_end(struct cm_llm_reader *r, bool ok)
{
    if (!ok) {
        cm_llm_error_body(r, cm_buf_data(&r->whole), r->whole.len);
        return;
    }
    if (r->shape == CM_LLM_SHAPE_WHOLE) {
        if (wanted(r))
            read_object(r, cm_buf_data(&r->whole), r->whole.len);
        r->finished |= r->answer;
    } else {
        end_stream(r);
    }
    r->broken |= wanted(r) && !r->answer && r->events > 0;
}
