/* SPDX-License-Identifier: Apache-2.0 */
/* From the fields of a request to what the rooms below take. Texts are UTF-8 already: unpacking has seen to it. */
#include <string.h>

#include "front/grpc/internal.h"
#include "wire/json.h"
#include "wire/limits.h"
#include "wire/proto.h"

bool cm_rpc_take_id(const ProtobufCBinaryData *text, char ret[static CM_SESSION_ID_MAX])
{
    const char *data = text->len ? (const char *)text->data : "";

    if (text->len >= CM_SESSION_ID_MAX || memchr(data, '\0', text->len))
        return false;
    memcpy(ret, data, text->len);
    ret[text->len] = '\0';
    return true;
}

int cm_rpc_take_session(struct call *c, const ProtobufCBinaryData *text, struct cm_err *err)
{
    if (!cm_rpc_take_id(text, c->session))
        return cm_err_set(err, CM_ERR_NO_SESSION, "there is no such session, or it has expired");
    return c->session[0] ? cm_sessions_check_owner(c->rpc->parts.sessions, c->session, cm_key_name(c->key), err) : 0;
}

int cm_rpc_take_key(const char *text, size_t len, char ret[static KEY_MAX + 1], struct cm_err *err)
{
    if (len > KEY_MAX)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "idempotency_key: has %zu bytes, %d are allowed", len, KEY_MAX);
    for (size_t i = 0; i < len; i++)
        if (text[i] < ' ' || text[i] > '~')
            return cm_err_set(err, CM_ERR_BAD_FIELD, "idempotency_key: may hold printable ASCII only");
    memcpy(ret, len ? text : "", len);
    ret[len] = '\0';
    return 0;
}

int cm_rpc_take_limits(const struct call *c, Codemode__V1__Pair *const *list, size_t count, enum cm_limit_scope scope,
                       struct cm_limits_asked *ret, struct cm_err *err)
{
    struct cm_limits_asked asked = {0};

    for (size_t i = 0; i < count; i++) {
        const ProtobufCBinaryData *name = &list[i]->key;
        const char *text = name->len ? (const char *)name->data : "";
        int rc = cm_limits_ask(text, name->len, list[i]->value, scope, &c->caps, &asked, err);
        if (rc < 0)
            return rc;
    }
    *ret = asked;
    return 0;
}

int cm_rpc_take_object(const char *name, ProtobufCBinaryData *text, const char **ret, size_t *ret_len,
                       struct cm_err *err)
{
    *ret = NULL;
    *ret_len = 0;
    if (text->len == 0)
        return 0;
    int rc = cm_json_object((char *)text->data, text->len, NULL, 0, err);
    if (rc < 0) {
        cm_err_wrap(err, "%s", name);
        return rc;
    }
    *ret = (const char *)text->data;
    *ret_len = text->len;
    return 0;
}

int cm_rpc_take_names(const ProtobufCBinaryData *names, size_t count, struct cm_buf *to, struct cm_err *err)
{
    int rc = cm_buf_puts(to, "[");

    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = i > 0 ? cm_buf_puts(to, ",") : 0;
        rc = rc ? rc : cm_json_put_string(to, names[i].len ? (const char *)names[i].data : "", names[i].len);
    }
    rc = rc ? rc : cm_buf_puts(to, "]");
    return rc < 0 ? cm_err_set(err, rc, "available_tools: takes more than %zu bytes", to->max) : 0;
}
