/* SPDX-License-Identifier: Apache-2.0 */
/* What a sidecar says: results and errors, read in place. Texts stay inside what came, and end with a NUL. */
#include "fuzz.h"

#include "base/utf8.h"
#include "sidecar/internal.h"

static void check_text(const char *text, size_t len, const char *json, size_t size)
{
    CHECK(text[len] == '\0');
    CHECK(len == 0 || (text >= json && text + len < json + size));
    CHECK(cm_utf8_valid(text, len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *json = fuzz_copy(data, size);
    struct cm_sidecar_result r;
    struct cm_err err = {0};

    int rc = cm_sidecar_read_result(json, size, &r, &err);
    CHECK(rc == err.code && (rc == 0 || rc == CM_ERR_SIDECAR));
    if (rc == 0) {
        check_text(r.out, r.out_len, json, size);
        check_text(r.err, r.err_len, json, size);
        check_text(r.result, r.result_len, json, size);
        check_text(r.error, r.error_len, json, size);
        check_text(r.traceback, r.traceback_len, json, size);
        check_text(r.state, strlen(r.state), json, size);
        check_text(r.error_type, strlen(r.error_type), json, size);
    }
    free(json);

    json = fuzz_copy(data, size);
    rc = cm_sidecar_read_error(500, json, size, &err);
    CHECK(rc < 0 && rc == err.code && err.text[0] && strlen(err.text) < CM_ERR_TEXT_MAX);
    CHECK(cm_utf8_valid(err.text, strlen(err.text)));
    free(json);
    return 0;
}
