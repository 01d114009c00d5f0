/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "front/http/internal.h"

#define ANSWERS_FACTOR 16 /* answers together take up to this many times the largest one */

#define EVENT_MAX (1u << 20) /* bytes of an event besides what limits bound: names, a piece of output, framing */

static const struct cm_http_route routes[] = {
#define CM_ROUTE(method, path, handler, body, key) {method, path, cm_api_##handler, CM_BODY_##body, CM_KEY_##key},
#include "routes.def"
#undef CM_ROUTE
    {.method = NULL},
};

const char *cm_api_session(const struct cm_request *rq)
{
    const char *id = cm_request_variable(rq, 0);

    return strlen(id) < CM_SESSION_ID_MAX ? id : "";
}

/* A session that was made with another key is none at all. Deleting one that there is not is no error. */
static int admit(struct cm_request *rq, struct cm_err *err)
{
    void (*handle)(struct cm_request *) = cm_request_route(rq)->handle;
    const char *id = cm_api_session(rq);
    int rc = 0;

    if (id[0] && handle != cm_api_delete_session)
        rc = cm_sessions_check_owner(api_of(rq)->config.sessions, id, cm_key_name(cm_request_key(rq)), err);
    return rc || handle != cm_api_put_variable ? rc : cm_api_admit_variable(rq, err);
}

void cm_api_reload(struct cm_api *a)
{
    const struct cm_conf *conf = a->config.conf;
    struct cm_limits defaults;

    cm_conf_limits(conf, &defaults, &a->caps);
    /* Every byte of a text may take six as an escape. */
    a->answer_max = 6 * (2 * conf->max_output + 3 * conf->max_result) + conf->max_locals + 4096;
    a->event_max = EVENT_MAX + (a->answer_max > conf->max_tool_argument ? a->answer_max : conf->max_tool_argument);
    a->limits = (struct cm_http_limits){
        .body_max = conf->max_body,
        .upload_max = conf->max_upload,
        .answers_max = ANSWERS_FACTOR * (conf->stored_output > a->answer_max ? conf->stored_output : a->answer_max),
        .connections_max = conf->max_connections,
        .idle_timeout_s = conf->idle_timeout,
        .head_timeout_s = conf->head_timeout,
        .body_timeout_s = conf->body_timeout,
        .allowed_origins = conf->allowed_origins,
    };
}

int cm_api_open(struct cm_loop *loop, const struct cm_api_config *config, struct cm_api **ret, struct cm_err *err)
{
    struct cm_api *a = calloc(1, sizeof(*a));

    if (!a)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the HTTP server");
    a->config = *config;
    cm_api_reload(a);
    const struct cm_http_config http = {
        .routes = routes,
        .limits = &a->limits,
        .metrics = config->metrics,
        .access = config->access,
        .loopback = config->loopback,
        .app = a,
        .admit = admit,
        .left = config->left,
        .left_arg = config->arg,
    };
    a->loop = loop;
    int rc = cm_http_open(loop, &http, &a->http, err);
    if (rc < 0) {
        cm_api_free(a);
        return rc;
    }
    *ret = a;
    return 0;
}

struct cm_http *cm_api_http(struct cm_api *a)
{
    return a->http;
}

struct cm_api *cm_api_free(struct cm_api *a)
{
    if (a)
        a->http = cm_http_free(a->http);
    free(a);
    return NULL;
}
