/* SPDX-License-Identifier: Apache-2.0 */
/* Messages in and out of bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "codemode.pb-c.h"
#include "codemode_v1.pb-c.h"
#include "wire/proto.h"

static void keeps_every_byte(void **state)
{
    Codemode__ExecutionRequest m;
    struct cm_buf buf;
    struct cm_err err;

    (void)state;
    cm_buf_init(&buf, 1000);
    codemode__execution_request__init(&m);
    m.code = cm_proto_bytes("a\0b", 3);
    m.timeout = -1;
    m.has_config_case = CODEMODE__EXECUTION_REQUEST__HAS_CONFIG_CONFIG;
    assert_int_equal(cm_proto_pack(&m.base, &buf), 0);
    Codemode__ExecutionRequest *back =
        cm_proto_unpack(&codemode__execution_request__descriptor, cm_buf_data(&buf), buf.len, &err);
    assert_non_null(back);
    assert_int_equal(back->code.len, 3);
    assert_memory_equal(back->code.data, "a\0b", 3);
    assert_int_equal(back->timeout, -1);
    assert_int_equal(back->has_config_case, CODEMODE__EXECUTION_REQUEST__HAS_CONFIG_CONFIG);
    assert_int_equal(back->has_context_case, 0);
    assert_null(cm_proto_free(back));
    cm_buf_done(&buf);
}

static int refusal(const ProtobufCMessageDescriptor *type, const char *bytes, size_t len)
{
    struct cm_err err = {0};

    assert_null(cm_proto_unpack(type, bytes, len, &err));
    return err.code;
}

static void refuses(void **state)
{
    const ProtobufCMessageDescriptor *once = &codemode__execution_request__descriptor,
                                     *v1 = &codemode__v1__execute_request__descriptor,
                                     *reply = &codemode__tool_call_response__descriptor;
    static char many[200000];

    (void)state;
    assert_int_equal(refusal(once, "\x0a\x05xy", 4), CM_ERR_BAD_FIELD);
    assert_int_equal(refusal(once, "\x0a\x02\xc3\x28", 4), CM_ERR_BAD_FIELD);
    assert_int_equal(refusal(once, "\x12\x01\xff", 3), CM_ERR_BAD_FIELD);     /* of a repeated one */
    assert_int_equal(refusal(v1, "\x22\x03\x0a\x01\xff", 5), CM_ERR_BAD_FIELD); /* in a message of it */
    for (size_t i = 0; i < sizeof many; i++)
        many[i] = i % 2 ? 0 : 0x12;
    many[0] = many[1] = 0; /* not even a tag */
    assert_int_equal(refusal(once, many, sizeof many), CM_ERR_BAD_FIELD);
    void *message = cm_proto_unpack(reply, "\x1a\x01\xff", 3, NULL); /* a Struct is not text */
    assert_non_null(message);
    cm_proto_free(message);
}

static void bounds_memory(void **state)
{
    static char many[400000];

    (void)state;
    for (size_t i = 0; i < sizeof many; i += 2)
        many[i] = 0x7a; /* a field that nobody knows, empty */
    assert_int_equal(refusal(&codemode__execution_request__descriptor, many, sizeof many), CM_ERR_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_every_byte),
        cmocka_unit_test(refuses),
        cmocka_unit_test(bounds_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
