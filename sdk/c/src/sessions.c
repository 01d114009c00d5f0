/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions and probes: one call each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codemode.pb-c.h"
#include "codemode_v1.pb-c.h"
#include "lib.h"

#define SERVICE "/codemode.v1.Sessions/"

/* What fits, with a NUL behind it. */
static void take(char *to, size_t size, const ProtobufCBinaryData *from)
{
    size_t len = from->len < size - 1 ? from->len : size - 1;

    if (len > 0)
        memcpy(to, from->data, len);
    to[len] = '\0';
}

static int probe(struct codemode_client *client, const char *path, struct codemode_health *ret,
                 struct codemode_error *err)
{
    Codemode__HealthResponse *answer = NULL;
    ProtobufCMessage *empty;
    Codemode__V1__ListRequest none;

    codemode__v1__list_request__init(&none); /* has no fields either */
    empty = &none.base;
    const struct lib_call call = {.path = path,
                                  .request = empty,
                                  .answer_type = &codemode__health_response__descriptor,
                                  .timeout = lib_timeout(client)};
    int rc = lib_call(client, &call, (void **)&answer, err);
    if (rc < 0)
        return rc;
    take(ret->status, sizeof ret->status, &answer->status);
    take(ret->version, sizeof ret->version, &answer->version);
    cm_proto_free(answer);
    return 0;
}

int codemode_health(struct codemode_client *client, struct codemode_health *ret, struct codemode_error *err)
{
    return probe(client, "/codemode.ExecutorService/Health", ret, err);
}

int codemode_ready(struct codemode_client *client, struct codemode_health *ret, struct codemode_error *err)
{
    return probe(client, "/codemode.ExecutorService/Ready", ret, err);
}

int codemode_session_create(struct codemode_client *client, const struct codemode_limit *limits, size_t count,
                            char ret_id[CODEMODE_ID_SIZE], struct codemode_error *err)
{
    Codemode__V1__CreateRequest request;
    Codemode__V1__CreateResponse *answer = NULL;
    struct lib_limits list;

    codemode__v1__create_request__init(&request);
    int rc = lib_limits_begin(&list, limits, count, err);
    if (rc < 0)
        return rc;
    request.limits = list.pointers;
    request.n_limits = count;
    const struct lib_call call = {.path = SERVICE "Create",
                                  .request = &request.base,
                                  .answer_type = &codemode__v1__create_response__descriptor,
                                  .timeout = lib_timeout(client)};
    rc = lib_call(client, &call, (void **)&answer, err);
    lib_limits_end(&list);
    if (rc < 0)
        return rc;
    take(ret_id, CODEMODE_ID_SIZE, &answer->session_id);
    cm_proto_free(answer);
    return 0;
}

/* A request that holds nothing but a session's id. */
static int ask(struct codemode_client *client, const char *path, const char *id,
               const ProtobufCMessageDescriptor *answer_type, void **ret, struct codemode_error *err)
{
    Codemode__V1__GetRequest request; /* all of them look the same on the wire */

    if (!id || !*id)
        return lib_error(err, CODEMODE_INVALID_ARGUMENT, "id: names no session");
    codemode__v1__get_request__init(&request);
    request.session_id = cm_proto_text(id);
    const struct lib_call call = {
        .path = path, .request = &request.base, .answer_type = answer_type, .timeout = lib_timeout(client)};
    return lib_call(client, &call, ret, err);
}

int codemode_session_delete(struct codemode_client *client, const char *id, struct codemode_error *err)
{
    void *answer = NULL;
    int rc = ask(client, SERVICE "Delete", id, &codemode__v1__delete_response__descriptor, &answer, err);

    if (rc == 0)
        cm_proto_free(answer);
    return rc;
}

int codemode_session_interrupt(struct codemode_client *client, const char *id, bool *ret_stopped,
                               struct codemode_error *err)
{
    Codemode__V1__InterruptResponse *answer = NULL;
    int rc = ask(client, SERVICE "Interrupt", id, &codemode__v1__interrupt_response__descriptor, (void **)&answer, err);

    if (rc < 0 || !answer)
        return rc;
    if (ret_stopped)
        *ret_stopped = answer->interrupted;
    cm_proto_free(answer);
    return 0;
}

int codemode_session_rollback(struct codemode_client *client, const char *id, struct codemode_error *err)
{
    void *answer = NULL;
    int rc = ask(client, SERVICE "Rollback", id, &codemode__v1__rollback_response__descriptor, &answer, err);

    if (rc == 0)
        cm_proto_free(answer);
    return rc;
}

int codemode_session_info(struct codemode_client *client, const char *id, struct codemode_session *ret,
                          struct codemode_error *err)
{
    Codemode__V1__Session *answer = NULL;
    int rc = ask(client, SERVICE "Get", id, &codemode__v1__session__descriptor, (void **)&answer, err);

    if (rc < 0 || !answer)
        return rc;
    *ret = (struct codemode_session){
        .executions = answer->executions,
        .queued = answer->queued,
        .restores = answer->restores,
        .age = answer->age_seconds,
        .idle = answer->idle_seconds,
        .expires_in = answer->has_expires_in_seconds_case ? answer->expires_in_seconds : -1,
        .memory = answer->memory_bytes,
        .can_roll_back = answer->can_roll_back,
    };
    take(ret->id, sizeof ret->id, &answer->session_id);
    take(ret->state, sizeof ret->state, &answer->state);
    cm_proto_free(answer);
    return 0;
}

/* Pointers first, then the texts. */
static char **copy_ids(const Codemode__V1__ListResponse *answer)
{
    size_t size = (answer->n_session_ids + 1) * sizeof(char *), room = size;

    for (size_t i = 0; i < answer->n_session_ids; i++)
        room += answer->session_ids[i].len + 1;
    char **ids = malloc(room);
    if (!ids)
        return NULL;
    char *text = (char *)ids + size;
    for (size_t i = 0; i < answer->n_session_ids; i++) {
        ids[i] = text;
        take(text, answer->session_ids[i].len + 1, &answer->session_ids[i]);
        text += answer->session_ids[i].len + 1;
    }
    ids[answer->n_session_ids] = NULL;
    return ids;
}

int codemode_session_list(struct codemode_client *client, char ***ret_ids, size_t *ret_count,
                          struct codemode_error *err)
{
    Codemode__V1__ListRequest request;
    Codemode__V1__ListResponse *answer = NULL;

    codemode__v1__list_request__init(&request);
    const struct lib_call call = {.path = SERVICE "List",
                                  .request = &request.base,
                                  .answer_type = &codemode__v1__list_response__descriptor,
                                  .timeout = lib_timeout(client)};
    int rc = lib_call(client, &call, (void **)&answer, err);
    if (rc < 0)
        return rc;
    char **ids = copy_ids(answer);
    if (ids) {
        *ret_ids = ids;
        *ret_count = answer->n_session_ids;
    }
    cm_proto_free(answer);
    return ids ? 0 : lib_error(err, CODEMODE_RESOURCE_EXHAUSTED, "no memory for a list of sessions");
}

int codemode_read_output(struct codemode_client *client, const char *session, const char *execution, int stream,
                         uint64_t offset, void *buffer, size_t size, size_t *ret_len, uint64_t *ret_printed,
                         struct codemode_error *err)
{
    Codemode__V1__ReadOutputRequest request;
    Codemode__V1__ReadOutputResponse *answer = NULL;

    if (stream != 1 && stream != 2)
        return lib_error(err, CODEMODE_INVALID_ARGUMENT, "stream: must be 1 or 2");
    codemode__v1__read_output_request__init(&request);
    request.session_id = cm_proto_text(session);
    request.execution_id = cm_proto_text(execution);
    request.stream = (Codemode__V1__Stream)stream;
    request.offset = offset;
    request.length = size;
    const struct lib_call call = {.path = SERVICE "ReadOutput",
                                  .request = &request.base,
                                  .answer_type = &codemode__v1__read_output_response__descriptor,
                                  .timeout = lib_timeout(client)};
    int rc = lib_call(client, &call, (void **)&answer, err);
    if (rc < 0)
        return rc;
    size_t len = answer->data.len < size ? answer->data.len : size;
    if (len > 0)
        memcpy(buffer, answer->data.data, len);
    *ret_len = len;
    if (ret_printed)
        *ret_printed = answer->printed;
    cm_proto_free(answer);
    return 0;
}
