/* SPDX-License-Identifier: Apache-2.0 */
/* What the checker of schemas says: where a value stands, what it is, what is wanted. Only for schema.c. */
#ifndef CM_TOOLS_SCHEMA_WORDS_H
#define CM_TOOLS_SCHEMA_WORDS_H

#include "tools/values.h"

/* The way from the arguments to a value, kept on the stack of the checker. */
struct cm_place {
    const struct cm_place *up; /* NULL: the arguments themselves */
    struct cm_chars name; /* of a member; at NULL: of an element, then */
    size_t index;
};

/* The part of the root schema that a `$ref` names, or kind CM_JSON_ABSENT. What is read for it is taken from *work, bytes;
 * there may be more of that than of the schema, for each step reads what is left of it. */
struct cm_json_value cm_schema_resolve(const struct cm_json_value *root, const struct cm_json_value *ref,
                                       uint64_t *work);
/* "argument 'address.lines[2]'", "arguments". */
int cm_say_place(struct cm_buf *to, const struct cm_place *place);
/* `"abc"`, `7`, "a list", in Python's words. */
int cm_say_value(struct cm_buf *to, const struct cm_json_value *value);
/* "an integer or None", "one of "a", "b"". It says less when *work is spent. */
int cm_say_wanted(struct cm_buf *to, const struct cm_json_value *root, const struct cm_json_value *schema,
                  uint64_t *work);
/* The name among `properties` that is nearly `name`, or false. */
bool cm_near_name(const struct cm_json_value *properties, struct cm_chars name, struct cm_chars *ret);

#endif
