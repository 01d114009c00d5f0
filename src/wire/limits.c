/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/limits.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "base/words.h"
#include "wire/json.h"

#define NAME_SHOWN 40

struct reading {
    enum cm_limit_scope scope;
    const struct cm_limits *caps;
    struct cm_limits_asked asked;
    struct cm_err *err;
    int rc;
};

static int unknown_name(const char *name, size_t len, struct cm_err *err)
{
    const char *known[CM_LIMITS + 1];
    char word[NAME_SHOWN + 1];

    for (int i = 0; i < CM_LIMITS; i++)
        known[i] = cm_limit_info(i)->name;
    known[CM_LIMITS] = NULL;
    if (len > NAME_SHOWN) {
        len = NAME_SHOWN;
        len -= cm_utf8_cut_end(name, len);
    }
    snprintf(word, sizeof(word), "%.*s", (int)len, name);
    const char *near = cm_word_nearest(word, known);
    if (near)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "limits.%s: there is no such limit; did you mean \"%s\"?", word, near);
    return cm_err_set(err, CM_ERR_BAD_FIELD, "limits.%s: there is no such limit; GET /session/{id} shows them all",
                      word);
}

static int out_of_scope(const struct cm_limit_info *info, struct cm_err *err)
{
    if (info->scope == CM_LIMIT_OF_SERVER)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "limits.%s: only the server's setting %s sets it", info->name,
                          info->cap_key);
    return cm_err_set(err, CM_ERR_BAD_FIELD, "limits.%s: is a limit of the session; name it in POST /session",
                      info->name);
}

static int check_value(enum cm_limit limit, double v, double cap, struct cm_err *err)
{
    const struct cm_limit_info *info = cm_limit_info(limit);
    const char *unit = cm_limit_unit_text(limit);

    if (!isfinite(v) || v < 0 || (info->unit != CM_LIMIT_SECONDS && v != floor(v)))
        return cm_err_set(err, CM_ERR_BAD_FIELD, "limits.%s: must be a %snumber%s%s", info->name,
                          info->unit == CM_LIMIT_SECONDS ? "" : "whole ", *unit ? " of" : "", unit);
    if (v < info->min)
        return cm_err_set(err, CM_ERR_BAD_FIELD, "limits.%s: %.15g is less than the least that works, %.15g%s",
                          info->name, v, info->min, unit);
    if (v > cap)
        return cm_err_set(err, CM_ERR_BAD_FIELD,
                          "limits.%s: %.15g is above the server's cap of %.15g%s; ask for less, or start the server "
                          "with a higher %s",
                          info->name, v, cap, unit, info->cap_key);
    return 0;
}

static int ask(struct reading *r, int limit, double v)
{
    double cap = r->caps->at[limit];

    if ((limit == CM_LIMIT_TIMEOUT || limit == CM_LIMIT_TOOL_TIMEOUT) && v > cap && isfinite(v))
        v = cap;
    int rc = check_value(limit, v, cap, r->err);
    if (rc < 0)
        return rc;
    r->asked.named |= 1u << limit;
    r->asked.value.at[limit] = v;
    return 0;
}

/* The limit of that name, or the reason why it cannot be asked for. */
static int find(const struct reading *r, const char *name, size_t len)
{
    int limit = cm_limit_find(name, len);

    if (limit < 0)
        return unknown_name(name, len, r->err);
    if (cm_limit_info(limit)->scope > r->scope)
        return out_of_scope(cm_limit_info(limit), r->err);
    if (r->asked.named & 1u << limit)
        return cm_err_set(r->err, CM_ERR_BAD_FIELD, "limits.%.*s: appears twice", (int)len, name);
    return limit;
}

static bool read_member(void *arg, const char *name, size_t len, const struct cm_json_value *value)
{
    struct reading *r = arg;
    int limit = find(r, name, len);

    if (limit < 0)
        r->rc = limit;
    else if (value->kind != CM_JSON_NULL)
        r->rc = ask(r, limit, value->kind == CM_JSON_NUMBER ? cm_json_number(value) : -1);
    return r->rc == 0;
}

int cm_limits_ask(const char *name, size_t len, double value, enum cm_limit_scope scope, const struct cm_limits *caps,
                  struct cm_limits_asked *to, struct cm_err *err)
{
    struct reading r = {.scope = scope, .caps = caps, .asked = *to, .err = err};
    int limit = find(&r, name, len);
    int rc = limit < 0 ? limit : ask(&r, limit, value);

    if (rc == 0)
        *to = r.asked;
    return rc;
}

int cm_limits_read(const struct cm_json_value *value, enum cm_limit_scope scope, const struct cm_limits *caps,
                   struct cm_limits_asked *ret, struct cm_err *err)
{
    struct reading r = {.scope = scope, .caps = caps, .err = err};

    if (value->kind == CM_JSON_OBJECT)
        cm_json_members(value, read_member, &r);
    else if (value->kind != CM_JSON_ABSENT && value->kind != CM_JSON_NULL)
        r.rc = cm_err_set(err, CM_ERR_BAD_FIELD, "limits: must be an object or null");
    if (r.rc == 0)
        *ret = r.asked;
    return r.rc;
}

int cm_create_read(char *body, size_t len, const struct cm_limits *caps, struct cm_limits_asked *ret,
                   struct cm_err *err)
{
    struct cm_json_member m[] = {{.name = "limits"}};

    *ret = (struct cm_limits_asked){0};
    if (len == 0)
        return 0;
    int rc = cm_json_object(body, len, m, 1, err);
    return rc < 0 ? rc : cm_limits_read(&m[0].value, CM_LIMIT_OF_SESSION, caps, ret, err);
}

int cm_limits_write(struct cm_buf *buf, const struct cm_limits *limits)
{
    const char *lead = "{";
    int rc = 0;

    for (int i = 0; i < CM_LIMITS && rc == 0; i++) {
        if (cm_limit_info(i)->scope == CM_LIMIT_OF_SERVER)
            continue;
        rc = cm_buf_printf(buf, "%s\"%s\":%.15g", lead, cm_limit_info(i)->name, limits->at[i]);
        lead = ",";
    }
    return rc < 0 ? rc : cm_buf_puts(buf, "}");
}
