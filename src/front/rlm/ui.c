/* SPDX-License-Identifier: Apache-2.0 */
/* The page at /ui. Its files tell nobody anything; what they ask the service for, with the reader's key, does. The policy lets
 * nothing become markup or script but these files, whatever a model, a context or a file says. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "front/rlm/internal.h"

#define FILE_MAX (8u << 20)
#define POLICY                                                                                                         \
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "              \
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

#define CM_UI(file, symbol, content_type)                                                                              \
    extern const unsigned char cm_ui_##symbol[];                                                                       \
    extern const size_t cm_ui_##symbol##_size;
#include "front/rlm/ui.def"
#undef CM_UI

static const struct file {
    const char *name, *type;
    const unsigned char *data;
    const size_t *size;
} files[] = {
#define CM_UI(file, symbol, content_type) {file, content_type, cm_ui_##symbol, &cm_ui_##symbol##_size},
#include "front/rlm/ui.def"
#undef CM_UI
};

/* FNV-1a: it tells versions of a file apart, and need not withstand anybody. */
static void tag_of(const struct file *file, char ret[static 24])
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < *file->size; i++)
        hash = (hash ^ file->data[i]) * 0x100000001b3u;
    snprintf(ret, 24, "\"%016llx\"", (unsigned long long)hash);
}

static const struct file *find(const char *name)
{
    for (size_t i = 0; i < CM_COUNT_OF(files); i++)
        if (strcmp(files[i].name, name) == 0)
            return &files[i];
    return NULL;
}

void cm_infer_show_ui(struct cm_request *rq)
{
    const char *name = cm_request_variable(rq, 0), *known = cm_request_header(rq, "if-none-match");
    const struct file *file = find(*name ? name : "index.html");
    char tag[24];
    struct cm_buf b;

    if (!file) {
        infer_fail(rq, CM_ERR_NOT_FOUND, "there is no such file");
        return;
    }
    tag_of(file, tag);
    bool same = known && strstr(known, tag);
    cm_buf_init(&b, FILE_MAX);
    int rc = same ? cm_buf_puts(&b, "") : cm_buf_append(&b, file->data, *file->size);
    cm_request_set_header(rq, "ETag", tag);
    cm_request_set_header(rq, "Cache-Control", "no-cache");
    cm_request_set_header(rq, "Content-Security-Policy", POLICY);
    cm_request_set_header(rq, "Referrer-Policy", "no-referrer");
    cm_request_answer_buf(rq, same ? 304 : 200, file->type, &b, rc);
}
