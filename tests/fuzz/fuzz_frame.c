/* SPDX-License-Identifier: Apache-2.0 */
/* One frame: a header and the fields behind it. What is read can be written again and means the same.
 * Input: sender and receiver, then the frame's bytes. */
#include "fuzz.h"

#include "ipc/frame.h"

static const struct {
    enum cm_ipc_field tag;
    unsigned width; /* 0 for bytes */
} known[] = {
#define U8                        1
#define U32                       4
#define U64                       8
#define BYTES                     0
#define CM_FIELD(name, tag, type) {CM_FIELD_##name, type},
#include "fields.def"
#undef CM_FIELD
};

#define KNOWN (sizeof known / sizeof known[0])

static void check_header(const struct cm_ipc_header *h, enum cm_ipc_role sender, enum cm_ipc_role receiver,
                         const uint8_t *bytes)
{
    const struct cm_ipc_message_info *info = cm_ipc_message(h->type);
    struct cm_ipc_msg m;

    CHECK(info && info->sender == sender && info->receiver == receiver && h->len <= info->max_payload);
    cm_ipc_msg_begin(&m, h->type, h->id);
    CHECK(cm_ipc_msg_finish(&m, NULL) == 0);
    CHECK(memcmp(m.header + 4, bytes + 4, CM_IPC_HEADER_SIZE - 4) == 0);
}

static void check_field(const struct cm_ipc_fields *f, size_t i, const uint8_t *payload, size_t len, size_t *ret_sum)
{
    enum cm_ipc_field tag = known[i].tag;
    size_t size = f->at[tag].len;

    if (!cm_ipc_has(f, tag)) {
        CHECK(size == 0 && (known[i].width == 0 || cm_ipc_get_uint(f, tag, 99) == 99));
        return;
    }
    CHECK(f->at[tag].data >= payload + CM_IPC_FIELD_SIZE && f->at[tag].data + size <= payload + len);
    CHECK(known[i].width == 0 || size == known[i].width);
    *ret_sum += CM_IPC_FIELD_SIZE + size;
}

/* Writes the fields in the table's order, as many as a frame of ours has at the most, and reads them again. */
static void round_trip(const struct cm_ipc_fields *f)
{
    struct cm_ipc_msg m;
    struct cm_ipc_fields again;
    uint8_t flat[8192];
    size_t at = 0, count = 0;

    cm_ipc_msg_begin(&m, CM_MSG_EXECUTE, 1);
    for (size_t i = 0; i < KNOWN && count < CM_IPC_FIELDS_MAX; i++) {
        enum cm_ipc_field tag = known[i].tag;
        if (!cm_ipc_has(f, tag))
            continue;
        count++;
        if (known[i].width)
            cm_ipc_put_uint(&m, tag, cm_ipc_get_uint(f, tag, 0));
        else
            cm_ipc_put_bytes(&m, tag, f->at[tag].data, f->at[tag].len);
    }
    CHECK(cm_ipc_msg_finish(&m, NULL) == 0 && cm_ipc_msg_size(&m) <= sizeof flat);
    for (int i = 0; i < m.iovcnt; at += m.iov[i++].iov_len)
        memcpy(flat + at, m.iov[i].iov_base, m.iov[i].iov_len);
    CHECK(at == cm_ipc_msg_size(&m));
    CHECK(cm_ipc_fields_get(flat + CM_IPC_HEADER_SIZE, at - CM_IPC_HEADER_SIZE, &again, NULL) == 0);
    for (size_t i = 0; i < KNOWN && count > 0; i++) {
        enum cm_ipc_field tag = known[i].tag;
        if (!cm_ipc_has(&again, tag))
            continue;
        count--;
        CHECK(cm_ipc_has(f, tag) && f->at[tag].len == again.at[tag].len);
        CHECK(memcmp(f->at[tag].data, again.at[tag].data, again.at[tag].len) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, data + size};
    enum cm_ipc_role sender = fuzz_byte(&in) % 3, receiver = fuzz_byte(&in) % 3;
    struct cm_ipc_header head;
    struct cm_ipc_fields f;
    size_t len, sum = 0;

    const uint8_t *bytes = fuzz_bytes(&in, CM_IPC_HEADER_SIZE, &len);
    if (len == CM_IPC_HEADER_SIZE && cm_ipc_header_get(bytes, sender, receiver, &head, NULL) == 0)
        check_header(&head, sender, receiver, bytes);
    len = (size_t)(in.end - in.at) < 4096 ? (size_t)(in.end - in.at) : 4096;
    char *payload = fuzz_copy(in.at, len);
    if (cm_ipc_fields_get(payload, len, &f, NULL) == 0) {
        for (size_t i = 0; i < KNOWN; i++)
            check_field(&f, i, (uint8_t *)payload, len, &sum);
        CHECK(sum == len);
        round_trip(&f);
    }
    free(payload);
    return 0;
}
