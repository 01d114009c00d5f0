/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of model services, errors, tables of prices. Whatever comes: the words are UTF-8, within their maximum, told in order
 * and once; how the bytes were cut changes nothing; a verdict has a reason; a reply that is good was finished and has words.
 * Input: a byte that says what, one for the size of the pieces, then the bytes. */
#include "fuzz.h"

#include "base/utf8.h"
#include "llm/internal.h"

#define REPLY_MAX 300

struct heard {
    char text[REPLY_MAX];
    size_t len;
};

static void hear(void *arg, const char *text, size_t len)
{
    struct heard *h = arg;

    CHECK(len > 0 && len <= sizeof h->text - h->len);
    CHECK(cm_utf8_valid(text, len));
    memcpy(h->text + h->len, text, len);
    h->len += len;
}

static void take(struct cm_llm_reader *r, struct heard *h, enum cm_llm_api api, bool ok, const uint8_t *data,
                 size_t len, size_t step)
{
    bool more = true;

    h->len = 0;
    cm_llm_reader_init(r, api, REPLY_MAX);
    r->words = hear;
    r->arg = h;
    for (size_t at = 0; more && at < len; at += step) {
        size_t n = len - at < step ? len - at : step;
        char *copy = fuzz_copy(data + at, n);
        more = cm_llm_reader_feed(r, ok, copy, n);
        free(copy);
    }
    cm_llm_reader_end(r, ok);
    CHECK(r->text.len == h->len && memcmp(cm_buf_data(&r->text), h->text, h->len) == 0);
    CHECK(cm_utf8_valid(r->error, strlen(r->error)) && cm_utf8_valid(r->model, strlen(r->model)));
}

static void judge(const struct cm_llm_reader *r, int status, enum cm_fetch_failure why, size_t len)
{
    struct cm_fetch_end end = {why, status, -1, len, "why"};
    struct cm_llm_verdict v;

    cm_llm_judge(r, &end, "host", false, &v);
    CHECK((v.failure == CM_LLM_OK) == !*v.reason);
    CHECK(strcmp(cm_llm_failure_name(v.failure), "unknown") != 0);
    if (v.failure == CM_LLM_OK)
        CHECK(r->finished && r->text.len > 0 && status == 200);
    cm_llm_judge(r, &end, "host", true, &v);
    CHECK(!(v.again && r->text.len > 0 && status == 200));
}

static void answer(enum cm_llm_api api, const uint8_t *data, size_t len, size_t step)
{
    struct cm_llm_reader one, many;
    struct heard first, second;

    take(&one, &first, api, true, data, len, len ? len : 1);
    take(&many, &second, api, true, data, len, step);
    CHECK(first.len == second.len && memcmp(first.text, second.text, first.len) == 0);
    CHECK(one.finished == many.finished && one.refused == many.refused && one.failed == many.failed);
    CHECK(strcmp(one.finish, many.finish) == 0 && one.usage.input_tokens == many.usage.input_tokens);
    for (int why = CM_FETCH_OK; why <= CM_FETCH_MEMORY; why++)
        judge(&one, 200, (enum cm_fetch_failure)why, len);
    cm_llm_reader_done(&one);
    cm_llm_reader_done(&many);
}

static void error(const uint8_t *data, size_t len, size_t step)
{
    static const int statuses[] = {301, 400, 401, 404, 413, 422, 429, 500, 503};
    struct cm_llm_reader r;
    struct heard h;

    take(&r, &h, CM_LLM_OPENAI, false, data, len, step);
    CHECK(h.len == 0);
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        judge(&r, statuses[i], CM_FETCH_OK, len);
    cm_llm_reader_done(&r);
}

static void prices(const uint8_t *data, size_t len)
{
    struct cm_llm_table t = {NULL, 0};
    struct cm_llm_usage u = {.input_tokens = 1000, .output_tokens = 10, .cached_tokens = 2000};
    struct cm_err err = {0};
    char *copy = fuzz_copy(data, len);
    int rc = cm_llm_table_add(&t, copy, len, &err);

    CHECK(rc == err.code);
    for (size_t i = 0; i < t.count; i++) {
        const struct cm_llm_row *row = cm_llm_table_find(&t, t.rows[i].name);
        CHECK(row && strlen(row->name) == strlen(t.rows[i].name));
        cm_llm_table_price(&t, t.rows[i].name, &u);
        CHECK(!u.priced || (u.cost >= 0 && u.cost < 1e7));
    }
    cm_llm_table_done(&t);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t step = data[1] % 64 + 1;
    if (data[0] % 4 < 2)
        answer(data[0] % 4 ? CM_LLM_ANTHROPIC : CM_LLM_OPENAI, data + 2, size - 2, step);
    else if (data[0] % 4 == 2)
        error(data + 2, size - 2, step);
    else
        prices(data + 2, size - 2);
    return 0;
}
