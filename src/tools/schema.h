/* SPDX-License-Identifier: Apache-2.0 */
/* Does a JSON value fit a JSON Schema? For the arguments of tools, before they are sent: so the answer to a wrong call
 * says at once what is wrong, to a model that can then do better.
 *
 * The keywords are those of draft 2020-12 (and 7) that say something about arguments: type, properties, required,
 * additionalProperties, items, prefixItems, enum, const, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf,
 * minLength, maxLength, minItems, maxItems, uniqueItems, minProperties, maxProperties, anyOf, oneOf, allOf, not, $ref into
 * the same schema, nullable. Others say nothing here: `format` by its definition, `pattern` because a regular expression
 * may take for ever, and the checker stands in a process that serves everybody.
 *
 * Refusing too much is worse than refusing too little: the tool looks at its arguments itself. So whatever is not
 * understood accepts, and so does a check that would take longer than a few milliseconds or nest too deeply.
 *
 * One rule of its own: an argument that the schema neither names nor forbids is refused when its name is nearly that of
 * one which the schema names and the call lacks.
 */
#ifndef CM_TOOLS_SCHEMA_H
#define CM_TOOLS_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>

struct cm_buf;

#define CM_SCHEMA_WORK_MAX (8u << 20) /* bytes of schema and value that one check may read, some of them many times */

/* Both texts are checked JSON. On refusal one line for each problem, at most eight, is appended to `why`: "argument
 * 'days': is \"two\", wanted an integer". Less when `why` is full. */
bool cm_schema_accepts(const char *schema, size_t schema_len, const char *value, size_t value_len, struct cm_buf *why);

/* Calls `each` for the names of the arguments that a checked schema describes at its top, in their order. */
void cm_schema_names(const char *schema, size_t len, void (*each)(void *arg, const char *name, size_t len), void *arg);

#endif
