/* SPDX-License-Identifier: Apache-2.0 */
/* What the application's service answers: lists of tools, one tool's schemas, results of calls. Lists keep their bounds,
 * are found by name and searched; a result is a JSON object or a failure with a text. */
#include "fuzz.h"

#include "base/utf8.h"
#include "grpc/client.h"
#include "tools/search.h"
#include "tools/service.h"
#include "tools/toolset.h"
#include "wire/json.h"

/* The client of the service, which answers at once with the input. */

static const struct cm_grpc_request_ops *asked_ops;
static void *asked_arg;

struct cm_grpc_client *cm_grpc_client_new(struct cm_loop *loop, const char *target, struct cm_tls *tls,
                                          const struct cm_grpc_client_options *options, struct cm_err *err)
{
    (void)loop;
    (void)target;
    (void)tls;
    (void)options;
    (void)err;
    return (struct cm_grpc_client *)&asked_ops;
}

void cm_grpc_client_set_tls(struct cm_grpc_client *c, struct cm_tls *tls)
{
    (void)c;
    (void)tls;
}

struct cm_grpc_client *cm_grpc_client_free(struct cm_grpc_client *c)
{
    (void)c;
    return NULL;
}

struct cm_grpc_request *cm_grpc_client_call(struct cm_grpc_client *c, const char *path,
                                            const struct cm_grpc_metadata *metadata, size_t count, const void *message,
                                            size_t len, uint64_t deadline_ns, const struct cm_grpc_request_ops *ops,
                                            void *arg, struct cm_err *err)
{
    (void)c;
    (void)err;
    CHECK(path && metadata && count == 3 && message && len > 0 && deadline_ns == 1);
    asked_ops = ops;
    asked_arg = arg;
    return (struct cm_grpc_request *)&asked_arg;
}

void cm_grpc_request_cancel(struct cm_grpc_request *r)
{
    (void)r;
}

/* Lists */

static bool is_object(const char *text, size_t len)
{
    struct cm_json_value v;

    return cm_json_check(text, len, &v, NULL) == 0 && v.kind == CM_JSON_OBJECT;
}

static void check_tool(const struct cm_tool *t)
{
    CHECK(cm_utf8_valid(t->name, t->name_len) && cm_utf8_valid(t->description, t->description_len));
    CHECK(t->description_len <= CM_TOOL_DESCRIPTION_MAX && t->description[t->description_len] == '\0');
    CHECK(!t->input_schema || is_object(t->input_schema, t->input_schema_len));
    CHECK(!t->output_schema || is_object(t->output_schema, t->output_schema_len));
    CHECK(t->name_words_len <= t->words_len && (t->words_len == 0 || t->words[t->words_len - 1] == ' '));
}

static void check_search(const struct cm_toolset *set, const char *query, size_t len)
{
    struct cm_found found[5];
    long n = cm_search(set, NULL, query, len, found, 5);

    CHECK(n >= 0 && n <= 5);
    for (long i = 0; i < n; i++)
        CHECK(found[i].tool < set->count && (i == 0 || found[i].score <= found[i - 1].score));
}

static void read_list(const uint8_t *bytes, size_t len)
{
    struct cm_err err = {0};
    struct cm_toolset *set = cm_toolset_read(bytes, len, &err);

    if (!set) {
        CHECK(err.code == CM_ERR_BAD_FIELD && err.text[0]);
        return;
    }
    for (size_t i = 0; i < set->count; i++) {
        const struct cm_tool *t = set->tools[i];
        check_tool(t);
        CHECK(t->name_len > 0 && t->name_len <= CM_TOOL_NAME_MAX && strncmp(t->name, "__", 2) != 0);
        CHECK(cm_toolset_find(set, t->name, t->name_len) == (long)i);
        check_search(set, t->name, t->name_len);
        check_search(set, t->description, t->description_len);
    }
    check_search(set, (const char *)bytes, len);
    cm_toolset_unref(set);
}

static void read_tool(const uint8_t *bytes, size_t len)
{
    struct cm_err err = {0};
    struct cm_tool *t = cm_tool_read(bytes, len, &err);

    if (t)
        check_tool(t);
    else
        CHECK(err.code == CM_ERR_BAD_FIELD || err.code == CM_ERR_TOO_LARGE);
    free(t);
}

/* Results */

static void on_result(void *arg, const char *json, size_t len, enum cm_call_failure why, const char *text)
{
    ++*(int *)arg;
    if (json)
        CHECK(is_object(json, len));
    else
        CHECK(text && *text && why <= CM_CALL_UNAVAILABLE && strlen(text) < 1 << 16);
}

static void read_result(const uint8_t *bytes, size_t len, enum cm_grpc_status status)
{
    const struct cm_tool_call call = {
        .name = "x",
        .name_len = 1,
        .arguments = "{}",
        .arguments_len = 2,
        .correlation_id = "c",
        .execution = "c",
        .number = 1,
        .deadline_ns = 1,
    };
    struct cm_err err;
    int times = 0;

    struct cm_tool_client *s = cm_tool_service_new(NULL, "app:1", NULL, NULL, NULL, &err);
    CHECK(s && cm_tool_service_call(s, &call, on_result, &times, &err));
    asked_ops->message(asked_arg, bytes, len);
    CHECK(times == 0);
    asked_ops->done(asked_arg, status, "words");
    CHECK(times == 1);
    cm_tool_service_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, data + size};
    uint8_t what = fuzz_byte(&in);
    size_t len = (size_t)(in.end - in.at);
    uint8_t *bytes = (uint8_t *)fuzz_copy(in.at, len);

    if (what % 4 == 0)
        read_list(bytes, len);
    else if (what % 4 == 1)
        read_tool(bytes, len);
    else
        read_result(bytes, len, what % 4 == 2 ? CM_GRPC_OK : (enum cm_grpc_status)(what / 4 % 20));
    free(bytes);
    return 0;
}
