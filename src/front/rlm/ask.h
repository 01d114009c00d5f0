/* SPDX-License-Identifier: Apache-2.0 */
/* The body of a request for a run, read in place. */
#ifndef CM_INFER_ASK_H
#define CM_INFER_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "rlm/rlm.h"

struct cm_rlm_conf;

enum cm_ask_limit {
#define CM_RLM_LIMIT(id, name, member, min, max, whole, above, def, def_key, cap, cap_key) CM_ASK_##id,
#include "rlm_limits.def"
#undef CM_RLM_LIMIT
    CM_ASK_LIMITS
};

enum cm_ask_shape {
    CM_ASK_RUN, /* of /infer and /runs */
    CM_ASK_CHAT, /* of /v1/chat/completions */
};

#define CM_ASK_BIG (256u << 10) /* bytes of a body from where reading it is a thread's work */

struct cm_ask {
    enum cm_ask_shape shape;
    char *body; /* owned; all texts are in it */
    size_t len;
    struct cm_rlm_request req; /* without models; its context's descriptor is ours until it is taken */
    double caps[CM_ASK_LIMITS]; /* the most that it may name; 0: any number */
    const char *model; /* NULL: the settings' */
    const char *recursive[CM_RLM_MODELS_MAX - 1];
    unsigned recursive_count;
    const char *sampling; /* a JSON object, or NULL */
    const char *context_id, *conversation_id; /* or NULL */
    /* of CM_ASK_CHAT */
    char *chat_query, *chat_sampling; /* owned; or NULL */
    const char *user;
    bool stream, include_usage;
    uint64_t answer_tokens; /* 0: any number */
};

/* The limits of a run that names none. */
void cm_ask_limits(const struct cm_rlm_conf *conf, struct cm_rlm_limits *ret);
/* Takes the body, from malloc(), in any case. */
void cm_ask_init(struct cm_ask *a, enum cm_ask_shape shape, const struct cm_rlm_conf *conf, char *body, size_t len);
/* Reads it. Touches nothing else, so that a thread may do it. CM_ERR_BAD_JSON, CM_ERR_BAD_REQUEST, CM_ERR_BAD_FIELD with the
 * field, ... */
int cm_ask_read(struct cm_ask *a, struct cm_err *err);
void cm_ask_done(struct cm_ask *a);

#endif
