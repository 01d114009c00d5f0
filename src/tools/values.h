/* SPDX-License-Identifier: Apache-2.0 */
/* What checked JSON text means, read where it stands: strings character by character, equality of values. Nothing here
 * changes the text or takes memory. */
#ifndef CM_TOOLS_VALUES_H
#define CM_TOOLS_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/json.h"

struct cm_buf;

/* The inside of a checked string, without its quotes. */
struct cm_chars {
    const char *at, *end;
};

struct cm_chars cm_chars_of(const struct cm_json_value *string);
/* The next character, an escape resolved, or -1 behind the last. Half of a surrogate pair comes as it is. */
int32_t cm_chars_next(struct cm_chars *chars);
bool cm_chars_equal(struct cm_chars a, struct cm_chars b);
/* The same against a plain text without a backslash. */
bool cm_chars_are(struct cm_chars a, const char *text);
size_t cm_chars_count(struct cm_chars chars);
/* Appends it as UTF-8 for a person: controls and halves of pairs become '?', what is beyond `most` characters "...". */
int cm_chars_put(struct cm_buf *to, struct cm_chars chars, size_t most);

/* As JSON Schema sees it: 1 and 1.0 are equal, and so are objects whose members stand in another order. *work goes down
 * by the bytes that were looked at; false when it is used up. */
bool cm_values_equal(const struct cm_json_value *a, const struct cm_json_value *b, uint64_t *work);

/* The members of an object one after the other, without a callback. `object` must be checked. */
struct cm_members {
    const char *at, *end;
};
struct cm_members cm_members_of(const struct cm_json_value *object);
bool cm_members_next(struct cm_members *m, struct cm_chars *ret_name, struct cm_json_value *ret);
/* The same for the elements of an array. */
struct cm_members cm_elements_of(const struct cm_json_value *array);
bool cm_elements_next(struct cm_members *m, struct cm_json_value *ret);
/* The last member of that name, or kind CM_JSON_ABSENT. */
struct cm_json_value cm_member(const struct cm_json_value *object, const char *name);

#endif
