/* SPDX-License-Identifier: Apache-2.0 */
/* JSON without a tree: a strict checker that hands out slices of the text, and a writer into a buffer.
 *
 * A tree costs some thirty times the text's size, so one request with a large `context` could take the
 * server's whole memory. Here a text is checked once, in place, in constant memory, and the one part that
 * another process will parse anyway (`context`, `locals`) travels as the text it is.
 *
 * Strict means RFC 8259: UTF-8 only, no NaN, no trailing comma, one value and nothing behind it.
 */
#ifndef CM_WIRE_JSON_H
#define CM_WIRE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct cm_buf;

#define CM_JSON_DEPTH_MAX 200 /* nested arrays and objects; the checker recurses, so this bounds its stack */

enum cm_json_kind {
    CM_JSON_ABSENT,
    CM_JSON_NULL,
    CM_JSON_BOOL,
    CM_JSON_NUMBER,
    CM_JSON_STRING,
    CM_JSON_ARRAY,
    CM_JSON_OBJECT
};

/* A value inside a checked text: its bytes as they stand there (a string with its quotes). */
struct cm_json_value {
    enum cm_json_kind kind;
    char *raw;
    size_t len;
};

/* A member that the caller wants; `value.kind` is CM_JSON_ABSENT when the object has none. */
struct cm_json_member {
    const char *name;
    struct cm_json_value value;
};

/* Checks that the text is one JSON value. CM_ERR_BAD_JSON with the byte and the reason. */
int cm_json_check(const char *text, size_t len, struct cm_json_value *ret, struct cm_err *err);
/* Checks that the text is one JSON object and finds the wanted members (`count` of them); others are checked
 * and passed over. A wanted member that appears twice is CM_ERR_BAD_JSON; a value that is not an object is
 * CM_ERR_BAD_FIELD. On failure `wanted` holds nothing of use. */
int cm_json_object(char *text, size_t len, struct cm_json_member *wanted, size_t count, struct cm_err *err);
/* Calls `each` for the elements of a checked array until it returns false. */
void cm_json_elements(const struct cm_json_value *array, bool (*each)(void *arg, struct cm_json_value *value),
                      void *arg);
/* Calls `each` for the members of a checked object until it returns false. The name comes as it stands in the text,
 * without its quotes: one that is written with escapes looks like nobody's. */
void cm_json_members(const struct cm_json_value *object,
                     bool (*each)(void *arg, const char *name, size_t len, const struct cm_json_value *value),
                     void *arg);
/* Decodes a checked string in place, over its own raw bytes: afterwards raw[0] to raw[*ret_len - 1] is UTF-8
 * (it may hold NUL bytes) and the JSON text is gone. False for an escape that names half a surrogate pair. */
bool cm_json_decode(struct cm_json_value *string, size_t *ret_len);
/* Of a checked number; HUGE_VAL when it is beyond the range. */
double cm_json_number(const struct cm_json_value *number);

/* Appends a quoted, escaped string; the text is valid UTF-8. NULL writes null. 0 or the buffer's error. */
int cm_json_put_string(struct cm_buf *buf, const char *text, size_t len);

#endif
