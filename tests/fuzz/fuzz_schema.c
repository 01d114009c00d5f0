/* SPDX-License-Identifier: Apache-2.0 */
/* The checker of schemas, schema and value both hostile: it ends, says something when it refuses and only then, says it in
 * UTF-8 and in the room that it has, and gives the same verdict whatever that room is. Where the schema is one that a
 * short and obvious judge understands, the verdict is that judge's.
 */
#include "fuzz.h"

#include "base/buf.h"
#include "base/utf8.h"
#include "tools/schema.h"
#include "wire/json.h"

#define WHY_MAX 4096

static bool accepts(const char *schema, size_t slen, const char *value, size_t vlen, size_t room)
{
    struct cm_buf why;

    cm_buf_init(&why, room);
    bool ok = cm_schema_accepts(schema, slen, value, vlen, &why);
    CHECK(why.len <= room && (!ok || why.len == 0) && (ok || room < WHY_MAX || why.len > 0));
    CHECK(room < WHY_MAX || cm_utf8_valid(cm_buf_data(&why), why.len));
    cm_buf_done(&why);
    return ok;
}

/* {"type":"T"} alone. -1: no opinion. */
static int obvious(const char *schema, size_t slen, const struct cm_json_value *value)
{
    static const struct {
        const char *text;
        enum cm_json_kind kind;
    } known[] = {
        {"{\"type\":\"string\"}", CM_JSON_STRING}, {"{\"type\":\"number\"}", CM_JSON_NUMBER},
        {"{\"type\":\"boolean\"}", CM_JSON_BOOL},  {"{\"type\":\"array\"}", CM_JSON_ARRAY},
        {"{\"type\":\"object\"}", CM_JSON_OBJECT}, {"{\"type\":\"null\"}", CM_JSON_NULL},
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (slen == strlen(known[i].text) && memcmp(schema, known[i].text, slen) == 0)
            return value->kind == known[i].kind;
    return -1;
}

/* What a schema refuses, its "not" accepts, unless a check was too long. */
static void check_negation(const char *schema, size_t slen, const char *value, size_t vlen)
{
    char *not = malloc(slen + 16), *twice = malloc(slen + 32);

    CHECK(not&&twice);
    int n = sprintf(not, "{\"not\":%.*s}", (int)slen, schema);
    int m = sprintf(twice, "{\"not\":{\"not\":%.*s}}", (int)slen, schema);
    /* references would mean something else, and guesses at names are made at the top only */
    if (slen < 150 && !memmem(schema, slen, "\\", 1) && !memmem(schema, slen, "$ref", 4) &&
        !memmem(schema, slen, "properties", 10)) {
        bool plain = accepts(schema, slen, value, vlen, WHY_MAX);
        CHECK(plain == accepts(twice, (size_t)m, value, vlen, WHY_MAX));
        CHECK(plain || accepts(not, (size_t)n, value, vlen, WHY_MAX));
    }
    free(not);
    free(twice);
}

static void count_name(void *arg, const char *name, size_t len)
{
    ++*(size_t *)arg;
    CHECK(name && len < 1u << 20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nl = memchr(data, '\n', size);
    size_t slen = nl ? (size_t)(nl - data) : size, vlen = nl ? size - slen - 1 : 0, names = 0;
    char *schema = fuzz_copy(data, slen), *value = fuzz_copy(nl ? nl + 1 : data, vlen);
    struct cm_json_value s, v;

    bool good = cm_json_check(schema, slen, &s, NULL) == 0 && cm_json_check(value, vlen, &v, NULL) == 0;
    bool ok = accepts(schema, slen, value, vlen, WHY_MAX);
    CHECK(ok == accepts(schema, slen, value, vlen, 7));
    CHECK(ok || good);
    if (good) {
        int expected = obvious(s.raw, s.len, &v);
        CHECK(expected < 0 || expected == ok);
        check_negation(s.raw, s.len, value, vlen);
    }
    cm_schema_names(schema, slen, count_name, &names);
    CHECK(names <= slen);
    free(schema);
    free(value);
    return 0;
}
