/* SPDX-License-Identifier: Apache-2.0 */
/* Structs: whatever bytes are taken become JSON that our reader takes and that means the same again; whatever JSON is
 * taken becomes bytes that are taken. What is refused leaves the buffer alone.
 * Input: a byte that says which way, then the Struct or the text. Messages of proto/ are read on the side. */
#include "fuzz.h"

#include "base/buf.h"
#include "codemode.pb-c.h"
#include "codemode_v1.pb-c.h"
#include "wire/json.h"
#include "wire/proto.h"
#include "wire/structs.h"

#define ROOM (1 << 20)

/* From JSON that was taken: to bytes, to JSON, to the same bytes. */
static void check_text(const char *json, size_t len)
{
    struct cm_buf bytes, text, again;

    cm_buf_init(&bytes, ROOM);
    cm_buf_init(&text, ROOM);
    cm_buf_init(&again, ROOM);
    CHECK(cm_struct_from_json(json, len, &bytes, NULL) == 0);
    CHECK(cm_struct_to_json((const uint8_t *)cm_buf_data(&bytes), bytes.len, &text, NULL) == 0);
    CHECK(cm_struct_from_json(cm_buf_data(&text), text.len, &again, NULL) == 0);
    CHECK(again.len == bytes.len && memcmp(cm_buf_data(&again), cm_buf_data(&bytes), bytes.len) == 0);
    cm_buf_done(&bytes);
    cm_buf_done(&text);
    cm_buf_done(&again);
}

static void from_json(const char *json, size_t len)
{
    struct cm_json_value value;
    struct cm_buf bytes;

    cm_buf_init(&bytes, ROOM);
    int rc = cm_struct_from_json(json, len, &bytes, NULL);
    CHECK(rc == 0 || bytes.len == 0);
    CHECK((rc == CM_ERR_BAD_JSON) == (cm_json_check(json, len, &value, NULL) < 0));
    if (rc == 0)
        check_text(json, len);
    cm_buf_done(&bytes);
}

static void to_json(const char *data, size_t len)
{
    struct cm_buf text;

    cm_buf_init(&text, ROOM);
    int rc = cm_struct_to_json((const uint8_t *)data, len, &text, NULL);
    CHECK(rc == 0 || text.len == 0);
    if (rc == 0)
        check_text(cm_buf_data(&text), text.len);
    cm_buf_done(&text);
}

/* Fields that nobody knows are protobuf-c's to keep and to write: without them there is nothing more to promise. */
static void read_message(const ProtobufCMessageDescriptor *type, const char *data, size_t len)
{
    struct cm_buf bytes;
    ProtobufCMessage *message = cm_proto_unpack(type, data, len, NULL);

    if (!message)
        return;
    cm_buf_init(&bytes, ROOM);
    CHECK(cm_proto_pack(message, &bytes) == 0);
    CHECK(bytes.len <= 2 * len + 64);
    cm_proto_free(message);
    cm_buf_done(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ProtobufCMessageDescriptor *const types[] = {
        &codemode__execution_request__descriptor, &codemode__list_tools_response__descriptor,
        &codemode__v1__execute_request__descriptor, &codemode__v1__execute_event__descriptor};

    if (size == 0)
        return 0;
    char *copy = fuzz_copy(data + 1, size - 1);
    if (data[0] % 4 == 0)
        to_json(copy, size - 1);
    else if (data[0] % 4 == 1)
        from_json(copy, size - 1);
    else
        read_message(types[data[0] >> 2 & 3], copy, size - 1);
    free(copy);
    return 0;
}
