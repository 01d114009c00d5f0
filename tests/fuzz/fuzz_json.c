/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON reader against a slow, obvious one, and its strings and numbers against the C library. */
#include "fuzz.h"

#include <math.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "model_json.h"
#include "wire/json.h"

static void check_number(const struct cm_json_value *v)
{
    char *text = fuzz_copy(v->raw, v->len + 1); /* the byte behind a number belongs to the checked text or its NUL */

    text[v->len] = '\0';
    double mine = strtod(text, NULL), theirs = cm_json_number(v);
    CHECK(mine == theirs || (v->len >= 64 && isinf(theirs)));
    free(text);
}

/* Decoding and encoding again changes nothing but the escapes. */
static void check_string(const struct cm_json_value *v)
{
    char *raw = fuzz_copy(v->raw, v->len);
    struct cm_json_value copy = {v->kind, raw, v->len}, again;
    struct cm_buf buf;
    size_t len, len2;

    if (!cm_json_decode(&copy, &len)) {
        CHECK(memmem(v->raw, v->len, "\\u", 2));
        free(raw);
        return;
    }
    CHECK(len + 2 <= v->len && cm_utf8_valid(raw, len));
    cm_buf_init(&buf, 6 * v->len + 2);
    CHECK(cm_json_put_string(&buf, raw, len) == 0);
    CHECK(cm_json_check(cm_buf_data(&buf), buf.len, &again, NULL) == 0 && again.kind == CM_JSON_STRING);
    CHECK(cm_json_decode(&again, &len2) && len2 == len && memcmp(again.raw, raw, len) == 0);
    cm_buf_done(&buf);
    free(raw);
}

static bool count_element(void *arg, struct cm_json_value *v)
{
    struct cm_json_value again;

    ++*(size_t *)arg;
    CHECK(cm_json_check(v->raw, v->len, &again, NULL) == 0 && again.kind == v->kind && again.len == v->len);
    return true;
}

static void check_object(char *text, size_t size, bool is_json, enum cm_json_kind kind)
{
    struct cm_json_member m[] = {{.name = "a"}, {.name = "code"}, {.name = ""}};
    struct cm_err err = {0};
    struct cm_json_value v;
    int rc = cm_json_object(text, size, m, 3, &err);

    if (rc < 0) {
        CHECK(err.code == rc && err.text[0]);
        CHECK(rc == (is_json && kind != CM_JSON_OBJECT ? CM_ERR_BAD_FIELD : CM_ERR_BAD_JSON));
        CHECK(!is_json || kind != CM_JSON_OBJECT || strstr(err.text, "twice"));
        return;
    }
    CHECK(is_json && kind == CM_JSON_OBJECT);
    for (size_t i = 0; i < 3; i++) {
        if (m[i].value.kind == CM_JSON_ABSENT)
            continue;
        CHECK(m[i].value.raw > text && m[i].value.raw + m[i].value.len < text + size);
        CHECK(cm_json_check(m[i].value.raw, m[i].value.len, &v, NULL) == 0 && v.kind == m[i].value.kind);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_copy(data, size);
    struct cm_json_value v = {0}, again;
    struct cm_err err = {0};
    size_t elements = 0;
    struct model model = model_json(text, size, CM_JSON_DEPTH_MAX);
    bool ok = cm_json_check(text, size, &v, &err) == 0;

    CHECK(ok == model.valid);
    CHECK(ok || (err.code == CM_ERR_BAD_JSON && err.text[0]));
    if (ok) {
        CHECK(v.raw >= text && v.len > 0 && v.raw + v.len <= text + size);
        CHECK(cm_json_check(v.raw, v.len, &again, NULL) == 0 && again.kind == v.kind && again.len == v.len);
    }
    if (ok && v.kind == CM_JSON_NUMBER && v.raw + v.len < text + size)
        check_number(&v);
    if (ok && v.kind == CM_JSON_STRING)
        check_string(&v);
    if (ok && v.kind == CM_JSON_ARRAY) {
        cm_json_elements(&v, count_element, &elements);
        CHECK(elements == model.children);
    }
    check_object(text, size, ok, v.kind);
    free(text);
    return 0;
}
