/* SPDX-License-Identifier: Apache-2.0 */
#include "ipc/frame.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

static const struct cm_ipc_message_info messages[] = {
#define CM_MESSAGE(name, number, sender, receiver, max_payload, max_fds)                                               \
    {CM_MSG_##name, #name, CM_IPC_##sender, CM_IPC_##receiver, max_payload, max_fds},
#include "messages.def"
#undef CM_MESSAGE
};

/* Width of a field's number, 0 for bytes. */
enum { U8 = 1, U32 = 4, U64 = 8, BYTES = 0 };

static const struct {
    bool known;
    uint8_t width;
} fields[CM_FIELD_END] = {
#define CM_FIELD(name, tag, type) [tag] = {true, type},
#include "fields.def"
#undef CM_FIELD
};

const struct cm_ipc_message_info *cm_ipc_message(unsigned type)
{
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++)
        if (messages[i].type == type)
            return &messages[i];
    return NULL;
}

static uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return le32toh(v);
}

static void store32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof v);
}

/* header */

int cm_ipc_header_get(const uint8_t bytes[static CM_IPC_HEADER_SIZE], enum cm_ipc_role sender,
                      enum cm_ipc_role receiver, struct cm_ipc_header *ret, struct cm_err *err)
{
    uint16_t type, version;
    uint64_t id;
    uint32_t len = load32(bytes);

    memcpy(&type, bytes + 4, sizeof type);
    memcpy(&version, bytes + 6, sizeof version);
    memcpy(&id, bytes + 8, sizeof id);
    type = le16toh(type);
    version = le16toh(version);
    if (version != CM_IPC_VERSION)
        return cm_err_set(err, CM_ERR_PROTOCOL, "frame of protocol version %u", version);
    const struct cm_ipc_message_info *info = cm_ipc_message(type);
    if (!info)
        return cm_err_set(err, CM_ERR_PROTOCOL, "frame of unknown type %u", type);
    if (info->sender != sender || info->receiver != receiver)
        return cm_err_set(err, CM_ERR_PROTOCOL, "%s frame from a peer that may not send it", info->name);
    if (len > info->max_payload)
        return cm_err_set(err, CM_ERR_PROTOCOL, "%s frame of %u bytes, maximum %u", info->name, len, info->max_payload);
    *ret = (struct cm_ipc_header){.len = len, .type = type, .id = le64toh(id)};
    return 0;
}

/* reading fields */

int cm_ipc_fields_get(const void *payload, size_t len, struct cm_ipc_fields *ret, struct cm_err *err)
{
    const uint8_t *p = payload;
    struct cm_ipc_fields found = {0};

    while (len > 0) {
        if (len < CM_IPC_FIELD_SIZE)
            return cm_err_set(err, CM_ERR_PROTOCOL, "%zu bytes after the last field", len);
        unsigned tag = p[0];
        uint32_t size = load32(p + 1);
        p += CM_IPC_FIELD_SIZE;
        len -= CM_IPC_FIELD_SIZE;
        if (tag >= CM_FIELD_END || !fields[tag].known)
            return cm_err_set(err, CM_ERR_PROTOCOL, "unknown field %u", tag);
        if (size > len)
            return cm_err_set(err, CM_ERR_PROTOCOL, "field %u of %u bytes, %zu left", tag, size, len);
        if (fields[tag].width && size != fields[tag].width)
            return cm_err_set(err, CM_ERR_PROTOCOL, "field %u is a number of %u bytes", tag, size);
        if (found.at[tag].data)
            return cm_err_set(err, CM_ERR_PROTOCOL, "field %u twice", tag);
        found.at[tag].data = p;
        found.at[tag].len = size;
        p += size;
        len -= size;
    }
    *ret = found;
    return 0;
}

bool cm_ipc_has(const struct cm_ipc_fields *f, enum cm_ipc_field tag)
{
    return f->at[tag].data != NULL;
}

uint64_t cm_ipc_get_uint(const struct cm_ipc_fields *f, enum cm_ipc_field tag, uint64_t absent)
{
    uint64_t value = 0;

    assert(fields[tag].width);
    if (!f->at[tag].data)
        return absent;
    for (unsigned i = fields[tag].width; i-- > 0;)
        value = value << 8 | f->at[tag].data[i];
    return value;
}

const char *cm_ipc_get_bytes(const struct cm_ipc_fields *f, enum cm_ipc_field tag, size_t *ret_len)
{
    *ret_len = f->at[tag].len;
    return (const char *)f->at[tag].data;
}

/* writing */

void cm_ipc_msg_begin(struct cm_ipc_msg *m, enum cm_ipc_type type, uint64_t id)
{
    m->info = cm_ipc_message(type);
    m->id = id;
    m->len = 0;
    m->broken = false;
    m->fields = 0;
    m->iovcnt = 1; /* the header's place */
}

static uint8_t *put_head(struct cm_ipc_msg *m, enum cm_ipc_field tag, size_t len, size_t beside)
{
    if (m->fields == CM_IPC_FIELDS_MAX || len > UINT32_MAX) {
        m->broken = true;
        return NULL;
    }
    uint8_t *head = m->small[m->fields++];
    head[0] = (uint8_t)tag;
    store32(head + 1, (uint32_t)len);
    m->iov[m->iovcnt++] = (struct iovec){head, CM_IPC_FIELD_SIZE + beside};
    m->len += CM_IPC_FIELD_SIZE + len;
    return head;
}

void cm_ipc_put_uint(struct cm_ipc_msg *m, enum cm_ipc_field tag, uint64_t value)
{
    unsigned width = fields[tag].width;
    uint8_t *head = put_head(m, tag, width, width);

    assert(width);
    for (unsigned i = 0; head && i < width; i++)
        head[CM_IPC_FIELD_SIZE + i] = (uint8_t)(value >> (8 * i));
}

void cm_ipc_put_bytes(struct cm_ipc_msg *m, enum cm_ipc_field tag, const void *data, size_t len)
{
    assert(fields[tag].width == BYTES);
    if (put_head(m, tag, len, 0) && len > 0)
        m->iov[m->iovcnt++] = (struct iovec){(void *)data, len};
}

void cm_ipc_put_rest(struct cm_ipc_msg *m, enum cm_ipc_field tag, size_t len)
{
    assert(fields[tag].width == BYTES);
    put_head(m, tag, len, 0);
}

bool cm_ipc_is_rest(const uint8_t head[static CM_IPC_FIELD_SIZE], enum cm_ipc_field tag, uint32_t len)
{
    return head[0] == tag && load32(head + 1) == len;
}

int cm_ipc_msg_finish(struct cm_ipc_msg *m, struct cm_err *err)
{
    if (m->broken || m->len > m->info->max_payload)
        return cm_err_set(err, CM_ERR_TOO_LARGE, "%s frame of %llu bytes, maximum %u", m->info->name,
                          (unsigned long long)m->len, m->info->max_payload);
    uint16_t type = htole16((uint16_t)m->info->type), version = htole16(CM_IPC_VERSION);
    uint64_t id = htole64(m->id);
    store32(m->header, (uint32_t)m->len);
    memcpy(m->header + 4, &type, sizeof type);
    memcpy(m->header + 6, &version, sizeof version);
    memcpy(m->header + 8, &id, sizeof id);
    m->iov[0] = (struct iovec){m->header, CM_IPC_HEADER_SIZE};
    return 0;
}

size_t cm_ipc_msg_size(const struct cm_ipc_msg *m)
{
    return CM_IPC_HEADER_SIZE + (size_t)m->len;
}
