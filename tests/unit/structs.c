/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "codemode.pb-c.h"
#include "wire/json.h"
#include "wire/proto.h"
#include "wire/structs.h"

/* JSON to bytes and back; `want` NULL: the same text. */
static void goes_round(const char *json, const char *want)
{
    struct cm_buf bytes, text;
    struct cm_err err = {0};

    cm_buf_init(&bytes, 1 << 20);
    cm_buf_init(&text, 1 << 20);
    if (cm_struct_from_json(json, strlen(json), &bytes, &err) < 0)
        fail_msg("%s: %s", json, err.text);
    if (cm_struct_to_json((const uint8_t *)cm_buf_data(&bytes), bytes.len, &text, &err) < 0)
        fail_msg("%s: %s", json, err.text);
    assert_string_equal(cm_buf_data(&text), want ? want : json);
    cm_buf_done(&bytes);
    cm_buf_done(&text);
}

static void values_go_round(void **state)
{
    (void)state;
    goes_round("{}", NULL);
    goes_round("{\"\":null}", NULL);
    goes_round("{\"a\":true,\"b\":false,\"c\":null,\"d\":[],\"e\":{},\"f\":\"\"}", NULL);
    goes_round("{\"a\":[1,[2,[3,{\"b\":[[]]}]],\"x\"]}", NULL);
    goes_round(" { \"a\" : [ 1 , 2 ] , \"b\" : { } } ", "{\"a\":[1,2],\"b\":{}}");
    goes_round("{\"a\":\"\\u0000\\u00e9\\ud83d\\ude00\\\"\\\\\\/\\b\\f\\n\\r\\t\"}",
               "{\"a\":\"\\u0000\xc3\xa9\xf0\x9f\x98\x80\\\"\\\\/\\b\\f\\n\\r\\t\"}");
    goes_round("{\"\\u0061\\n\":1}", "{\"a\\n\":1}");
}

static void numbers_are_doubles(void **state)
{
    (void)state;
    goes_round("{\"a\":[72,72.0,-5,0,0.0,1e2]}", "{\"a\":[72,72,-5,0,0,100]}");
    goes_round("{\"a\":[-0,-0.0]}", "{\"a\":[-0.0,-0.0]}");
    goes_round("{\"a\":[9007199254740992,-9007199254740992]}", NULL);
    goes_round("{\"a\":[9007199254740993]}", "{\"a\":[9007199254740992]}");
    goes_round("{\"a\":[9007199254740994,18446744073709551616]}",
               "{\"a\":[9007199254740994.0,1.8446744073709552e+19]}");
    goes_round("{\"a\":[0.1,1e-300,1.7976931348623157e308,5e-324,1e-400]}",
               "{\"a\":[0.1,1e-300,1.7976931348623157e+308,4.94065645841247e-324,0]}");
    goes_round("{\"a\":0.100000000000000000000000000000000000000000000000000000000000000000000000000000001}",
               "{\"a\":0.1}");
}

static void refuses_json(const char *json, size_t len, int code)
{
    char *exact = malloc(len ? len : 1); /* so that a sanitizer sees a read behind it */
    struct cm_buf bytes;
    struct cm_err err = {0};

    memcpy(exact, json, len);
    cm_buf_init(&bytes, 4096);
    cm_buf_puts(&bytes, "before");
    assert_int_equal(cm_struct_from_json(exact, len, &bytes, &err), code);
    assert_int_equal(err.code, code);
    assert_string_equal(cm_buf_data(&bytes), "before");
    cm_buf_done(&bytes);
    free(exact);
}

static void some_json_is_no_struct(void **state)
{
    static const char *const not_json[] = {"", "{", "{\"a\":}", "{\"a\":NaN}", "{} x", "{\"a\":\"\xff\"}"};
    static const char *const not_struct[] = {"[]",
                                             "1",
                                             "null",
                                             "\"{}\"",
                                             "{\"a\":1e309}",
                                             "{\"a\":[-1e999]}",
                                             "{\"a\":\"\\ud83d\"}",
                                             "{\"\\udc00\":1}",
                                             "{\"a\":\"\\ud83d\\u0041\"}"};
    (void)state;

    for (size_t i = 0; i < sizeof not_json / sizeof not_json[0]; i++)
        refuses_json(not_json[i], strlen(not_json[i]), CM_ERR_BAD_JSON);
    for (size_t i = 0; i < sizeof not_struct / sizeof not_struct[0]; i++)
        refuses_json(not_struct[i], strlen(not_struct[i]), CM_ERR_BAD_FIELD);
}

static void depth_has_an_end(void **state)
{
    char json[2 * CM_JSON_DEPTH_MAX + 16] = "{\"a\":", *at = json + 5;
    (void)state;

    memset(at, '[', CM_JSON_DEPTH_MAX - 1);
    memset(at + CM_JSON_DEPTH_MAX - 1, ']', CM_JSON_DEPTH_MAX - 1);
    strcpy(at + 2 * (CM_JSON_DEPTH_MAX - 1), "}");
    goes_round(json, NULL);
    memset(at, '[', CM_JSON_DEPTH_MAX);
    memset(at + CM_JSON_DEPTH_MAX, ']', CM_JSON_DEPTH_MAX);
    strcpy(at + 2 * CM_JSON_DEPTH_MAX, "}");
    refuses_json(json, strlen(json), CM_ERR_BAD_JSON);
}

static int decode(const void *bytes, size_t len, const char *want)
{
    uint8_t *exact = malloc(len ? len : 1);
    struct cm_buf text;
    struct cm_err err = {0};

    memcpy(exact, bytes, len);
    cm_buf_init(&text, 4096);
    cm_buf_puts(&text, "before");
    int rc = cm_struct_to_json(exact, len, &text, &err);
    assert_int_equal(err.code, rc);
    assert_memory_equal(cm_buf_data(&text), "before", 6);
    assert_string_equal(cm_buf_data(&text) + 6, want);
    cm_buf_done(&text);
    free(exact);
    return rc;
}

#define DECODE(bytes, want) decode(bytes, sizeof(bytes) - 1, want)

static void odd_bytes_are_read(void **state)
{
    (void)state;
    assert_int_equal(DECODE("", "{}"), 0);
    /* an entry without key and value; without value; value before key; the last key counts */
    assert_int_equal(DECODE("\x0a\x00", "{\"\":null}"), 0);
    assert_int_equal(DECODE("\x0a\x03\x0a\x01"
                            "a",
                            "{\"a\":null}"),
                     0);
    assert_int_equal(DECODE("\x0a\x0a\x12\x02\x20\x01\x0a\x01"
                            "a\x0a\x01"
                            "b",
                            "{\"b\":true}"),
                     0);
    /* fields that nobody knows, of every width, are passed over */
    assert_int_equal(DECODE("\x10\x05\x19\x01\x02\x03\x04\x05\x06\x07\x08\x22\x02xx\x2d\x01\x02\x03\x04", "{}"), 0);
    /* known numbers of the wrong width count as unknown; a long varint is a bool */
    assert_int_equal(DECODE("\x0a\x09\x12\x07\x18\x01\x20\x80\x80\x80\x01", "{\"\":true}"), 0);
}

static void bad_bytes_are_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
#define BAD(text) {text, sizeof(text) - 1}
        BAD("\x0a"),                                             /* no length */
        BAD("\x0a\x05"),                                         /* too short */
        BAD("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),     /* a length beyond all memory */
        BAD("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), /* eleven bytes of varint */
        BAD("\x00\x00"),                                         /* field 0 */
        BAD("\x0b"),                                             /* a group */
        BAD("\x0f"),                                             /* type 7 */
        BAD("\x0a\x03\x0a\x01\xff"),                             /* a key that is not UTF-8 */
        BAD("\x0a\x05\x12\x03\x1a\x01\xff"),                     /* a string that is not */
        BAD("\x0a\x0b\x12\x09\x11\x00\x00\x00\x00\x00\x00\xf0\x7f"), /* infinity */
        BAD("\x0a\x0b\x12\x09\x11\x01\x00\x00\x00\x00\x00\xf8\x7f"), /* NaN */
        BAD("\x0a\x06\x12\x04\x20\x01\x20\x00"),                 /* two contents */
        BAD("\x0a\x06\x12\x04\x20\x01\x1a\x00"),                 /* of two kinds */
        BAD("\x0a\x04\x12\x00\x12\x00"),                         /* two values */
#undef BAD
    };
    (void)state;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (decode(bad[i].bytes, bad[i].len, "") != CM_ERR_BAD_FIELD)
            fail_msg("input %zu was not refused", i);
}

/* Lists within lists, each a Value: more of them than the reader recurses into. */
static void deep_bytes_are_refused(void **state)
{
    struct cm_buf b;
    size_t sizes[400], len = 0;
    (void)state;

    for (size_t i = 0; i < 400; i++) {
        sizes[i] = len;
        len += 2 + (len > 127 ? 2 : 1) + (len + 2 > 127 ? 1 : 0);
    }
    cm_buf_init(&b, 1 << 20);
    for (size_t i = 400; i-- > 0;) { /* by hand: head of a Value in a list, head of the list in it */
        cm_buf_append(&b, i % 2 ? "\x0a" : "\x32", 1);
        size_t n = sizes[i];
        if (n > 127)
            cm_buf_append(&b, &(char){(char)(0x80 | (n & 127))}, 1);
        cm_buf_append(&b, &(char){(char)(n > 127 ? n >> 7 : n)}, 1);
    }
    struct cm_buf text;
    cm_buf_init(&text, 1 << 20);
    assert_int_equal(cm_struct_to_json((const uint8_t *)cm_buf_data(&b), b.len, &text, NULL), CM_ERR_BAD_FIELD);
    cm_buf_done(&b);
    cm_buf_done(&text);
}

static void full_buffers_say_so(void **state)
{
    static const char json[] = "{\"a\":\"0123456789\"}";
    struct cm_buf small, bytes;
    (void)state;

    cm_buf_init(&small, 10);
    cm_buf_init(&bytes, 100);
    assert_int_equal(cm_struct_from_json(json, strlen(json), &small, NULL), CM_ERR_TOO_LARGE);
    assert_int_equal(small.len, 0);
    assert_int_equal(cm_struct_from_json(json, strlen(json), &bytes, NULL), 0);
    assert_int_equal(cm_struct_to_json((uint8_t *)cm_buf_data(&bytes), bytes.len, &small, NULL), CM_ERR_TOO_LARGE);
    assert_int_equal(small.len, 0);
    cm_buf_done(&small);
    cm_buf_done(&bytes);
}

/* Messages of proto/ */

static void messages_keep_their_bytes(void **state)
{
    Codemode__ToolCallRequest call = CODEMODE__TOOL_CALL_REQUEST__INIT, *back;
    struct cm_buf bytes;
    (void)state;

    call.tool_name = cm_proto_bytes("a\0b", 3);
    call.has_arguments_case = CODEMODE__TOOL_CALL_REQUEST__HAS_ARGUMENTS_ARGUMENTS; /* empty, but there */
    call.correlation_id = cm_proto_text(NULL);
    cm_buf_init(&bytes, 4096);
    assert_int_equal(cm_proto_pack(&call.base, &bytes), 0);
    back = cm_proto_unpack(&codemode__tool_call_request__descriptor, cm_buf_data(&bytes), bytes.len, NULL);
    assert_non_null(back);
    assert_int_equal(back->tool_name.len, 3);
    assert_memory_equal(back->tool_name.data, "a\0b", 3);
    assert_true(back->has_arguments_case);
    assert_false(back->has_context_case);
    assert_int_equal(back->correlation_id.len, 0);
    cm_proto_free(back);
    cm_buf_done(&bytes);
}

static int unpack_code(const ProtobufCMessageDescriptor *type, const char *bytes, size_t len)
{
    struct cm_err err = {0};

    cm_proto_free(cm_proto_unpack(type, bytes, len, &err));
    return err.code;
}

static void messages_are_checked(void **state)
{
    static char small[200000];
    const ProtobufCMessageDescriptor *request = &codemode__execution_request__descriptor;
    (void)state;

    assert_int_equal(unpack_code(request, "", 0), 0);
    assert_int_equal(unpack_code(request, "\x0a\x01\xff", 3), CM_ERR_BAD_FIELD);     /* code */
    assert_int_equal(unpack_code(request, "\x12\x01\xff", 3), CM_ERR_BAD_FIELD);     /* one of several */
    assert_int_equal(unpack_code(request, "\x1a\x01\xff", 3), 0); /* a Struct is nobody's text yet */
    assert_int_equal(unpack_code(request, "\x0a\x05x", 3), CM_ERR_BAD_FIELD); /* too short */
    /* a string in a message in a list */
    assert_int_equal(unpack_code(&codemode__list_tools_response__descriptor, "\x0a\x05\x2a\x03\x0a\x01\xff", 7),
                     CM_ERR_BAD_FIELD);
    assert_int_equal(unpack_code(&codemode__list_tools_response__descriptor, "\x0a\x05\x2a\x03\x0a\x01x", 7), 0);
    for (size_t i = 0; i + 1 < sizeof small; i += 2)
        memcpy(small + i, "\x0a\x00", 2); /* tools that are nothing, a hundred bytes of memory each */
    assert_int_equal(unpack_code(&codemode__list_tools_response__descriptor, small, sizeof small), CM_ERR_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_go_round),           cmocka_unit_test(numbers_are_doubles),
        cmocka_unit_test(some_json_is_no_struct),    cmocka_unit_test(depth_has_an_end),
        cmocka_unit_test(odd_bytes_are_read),        cmocka_unit_test(bad_bytes_are_refused),
        cmocka_unit_test(deep_bytes_are_refused),    cmocka_unit_test(full_buffers_say_so),
        cmocka_unit_test(messages_keep_their_bytes), cmocka_unit_test(messages_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
