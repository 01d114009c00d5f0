/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/proto.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"

/* Bytes fields that are no text. */
static const struct {
    const char *message;
    uint32_t field;
} opaque[] = {
#define CM_OPAQUE(message, field) {message, field},
#include "opaque.def"
#undef CM_OPAQUE
};

#define MALLOC_COST 32 /* what malloc keeps for itself counts too */

/* malloc with an end. Memory is given back with plain free(), so that the bound need not outlive the unpacking. */
struct budget {
    size_t left;
    bool short_of_memory, spent;
};

static void *take(void *arg, size_t size)
{
    struct budget *b = arg;

    if (b->left < MALLOC_COST || size > b->left - MALLOC_COST) {
        b->spent = true;
        return NULL;
    }
    b->left -= size + MALLOC_COST;
    void *memory = malloc(size ? size : 1);
    b->short_of_memory |= !memory;
    return memory;
}

static void give(void *arg, void *memory)
{
    (void)arg;
    free(memory);
}

static bool is_text(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field)
{
    if (field->type != PROTOBUF_C_TYPE_BYTES)
        return false;
    for (size_t i = 0; i < sizeof opaque / sizeof opaque[0]; i++)
        if (opaque[i].field == field->id && strcmp(opaque[i].message, type->name) == 0)
            return false;
    return true;
}

/* How many there are of a field; *ret_at is moved to the first. A member of a oneof counts while it is the chosen one. */
static size_t elements(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, const char **ret_at)
{
    const char *base = (const char *)message;

    *ret_at = base + field->offset;
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return *(const uint32_t *)(base + field->quantifier_offset) == field->id;
    if (field->label != PROTOBUF_C_LABEL_REPEATED)
        return 1;
    *ret_at = *(const char *const *)*ret_at;
    return *(const size_t *)(base + field->quantifier_offset);
}

/* The name of the first string that is not UTF-8, or NULL. No type of ours contains itself, so this ends. */
static const char *bad_text(const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;

    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        bool nested = field->type == PROTOBUF_C_TYPE_MESSAGE;
        if (!nested && !is_text(type, field))
            continue;
        const char *at;
        size_t count = elements(message, field, &at);
        for (size_t k = 0; k < count; k++) {
            const ProtobufCMessage *part = nested ? ((ProtobufCMessage *const *)at)[k] : NULL;
            const ProtobufCBinaryData *text = nested ? NULL : &((const ProtobufCBinaryData *)at)[k];
            const char *bad = part ? bad_text(part) : NULL;
            if (bad || (text && !cm_utf8_valid((const char *)text->data, text->len)))
                return bad ? bad : field->name;
        }
    }
    return NULL;
}

void *cm_proto_unpack(const ProtobufCMessageDescriptor *type, const void *bytes, size_t len, struct cm_err *err)
{
    struct budget budget = {.left = CM_PROTO_MEMORY_FLOOR + CM_PROTO_MEMORY_FACTOR * len};
    ProtobufCAllocator allocator = {take, give, &budget};

    ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, len, bytes);
    if (!message) {
        if (budget.short_of_memory)
            cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a %s of %zu bytes", type->name, len);
        else if (budget.spent)
            cm_err_set(err, CM_ERR_TOO_LARGE, "%s: too many small fields in %zu bytes", type->name, len);
        else
            cm_err_set(err, CM_ERR_BAD_FIELD, "not a %s", type->name);
        return NULL;
    }
    const char *bad = bad_text(message);
    if (!bad)
        return message;
    cm_err_set(err, CM_ERR_BAD_FIELD, "%s: not UTF-8", bad);
    return cm_proto_free(message);
}

void *cm_proto_free(void *message)
{
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
    return NULL;
}

int cm_proto_pack(const ProtobufCMessage *message, struct cm_buf *to)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    char *at;

    int rc = cm_buf_reserve(to, len, &at);
    if (rc < 0)
        return rc;
    protobuf_c_message_pack(message, (uint8_t *)at);
    cm_buf_commit(to, len);
    return 0;
}

ProtobufCBinaryData cm_proto_bytes(const void *data, size_t len)
{
    return (ProtobufCBinaryData){len, (uint8_t *)data};
}

ProtobufCBinaryData cm_proto_text(const char *text)
{
    return cm_proto_bytes(text, text ? strlen(text) : 0);
}
