/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of the execute routes: what is accepted keeps the rules, what is refused names the field. */
#include "fuzz.h"

#include <math.h>

#include "base/utf8.h"
#include "model_json.h"
#include "wire/execute.h"
#include "wire/json.h"

#define CODE_MAX 40

static const struct cm_limits caps = {.at = {[CM_LIMIT_TIMEOUT] = 9,
                                             [CM_LIMIT_MEMORY] = 99999999,
                                             [CM_LIMIT_OUTPUT] = 9999,
                                             [CM_LIMIT_CODE_LENGTH] = CODE_MAX,
                                             [CM_LIMIT_FILES] = 9}};

static bool within(const char *part, size_t len, const char *whole, size_t size)
{
    return part >= whole && len <= size && part <= whole + size - len;
}

/* Decoding other members in place has left it alone. */
static void check_part(const char *part, size_t len, int kind, const char *body, size_t size)
{
    struct model m = part ? model_json(part, len, CM_JSON_DEPTH_MAX) : (struct model){0};

    CHECK(part ? within(part, len, body, size) && m.valid && m.kind == kind : len == 0);
}

static void check_accepted(const struct cm_execute_body *b, const char *body, size_t size)
{
    CHECK(within(b->code, b->code_len, body, size) && b->code_len <= CODE_MAX && cm_utf8_valid(b->code, b->code_len));
    CHECK(b->timeout_s >= 0 && isfinite(b->timeout_s));
    for (int i = 0; i < CM_LIMITS; i++)
        if (b->limits.named & 1u << i)
            CHECK(b->limits.value.at[i] >= cm_limit_info(i)->min && b->limits.value.at[i] <= caps.at[i]);
    CHECK(!b->then ||
          (within(b->then, b->then_len, body, size) && b->then_len <= CODE_MAX && cm_utf8_valid(b->then, b->then_len)));
    CHECK(b->then_timeout_s >= 0 && isfinite(b->then_timeout_s));
    check_part(b->config, b->config_len, '{', body, size);
    check_part(b->available_tools, b->available_tools_len, '[', body, size);
    check_part(b->caller_tools, b->caller_tools_len, '[', body, size);
    CHECK(!b->correlation_id || (within(b->correlation_id, b->correlation_id_len, body, size) &&
                                 cm_utf8_valid(b->correlation_id, b->correlation_id_len)));
    if (!b->context) {
        CHECK(b->context_len == 0);
        return;
    }
    /* Decoding the code in place has left the context alone. */
    struct model m = model_json(b->context, b->context_len, CM_JSON_DEPTH_MAX);
    CHECK(within(b->context, b->context_len, body, size) && m.valid && m.kind == '{');
    CHECK(b->code + b->code_len <= b->context || b->context + b->context_len <= b->code);
}

static bool names_a_field(const char *text)
{
    static const char *const fields[] = {
        "code: ",           "context: ", "timeout: ", "limits: ",          "limits.",
        "on_error: ",       "policy: ",  "config: ",  "available_tools: ", "caller_tools: ",
        "correlation_id: ", "body: ",    "then: ",    "then.code: ",       "then.timeout: "};

    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strncmp(text, fields[i], strlen(fields[i])) == 0)
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *body = fuzz_copy(data, size);
    struct model model = model_json(body, size, CM_JSON_DEPTH_MAX);
    struct cm_execute_body b = {.code = "untouched"};
    struct cm_err err = {0};
    int rc = cm_execute_read(body, size, &caps, &b, &err);

    if (rc == 0) {
        CHECK(model.valid && model.kind == '{');
        check_accepted(&b, body, size);
    } else {
        CHECK(err.code == rc && strcmp(b.code, "untouched") == 0);
        CHECK(rc == CM_ERR_BAD_JSON || names_a_field(err.text));
        CHECK(model.valid || rc == CM_ERR_BAD_JSON);
        CHECK(rc == CM_ERR_BAD_JSON || rc == CM_ERR_BAD_FIELD || rc == CM_ERR_TOO_LARGE);
    }
    free(body);
    return 0;
}
