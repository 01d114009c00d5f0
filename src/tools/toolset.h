/* SPDX-License-Identifier: Apache-2.0 */
/* The tools of an application as it has listed them once: never changed afterwards, and counted, because an execution
 * keeps the list that it has begun with. */
#ifndef CM_TOOLS_TOOLSET_H
#define CM_TOOLS_TOOLSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct cm_buf;

#define CM_TOOLS_MAX            10000
#define CM_TOOLS_BYTES_MAX      (16u << 20) /* of one list */
#define CM_TOOL_NAME_MAX        200 /* bytes */
#define CM_TOOL_DESCRIPTION_MAX 4096 /* bytes; longer ones are cut */

struct cm_tool {
    const char *name, *description; /* with a NUL behind them that does not count */
    size_t name_len, description_len;
    const char *input_schema, *output_schema; /* checked JSON objects; NULL: the list has none */
    size_t input_schema_len, output_schema_len;
    bool is_async, has_context;
    const char *words; /* what a search looks into; toolset's own */
    size_t words_len, name_words_len; /* those of the name come first */
};

struct cm_toolset {
    unsigned refs;
    size_t count;
    struct cm_tool **tools; /* in the order of the list, without those whose names begin with "__" */
    uint32_t *by_name; /* places in `tools`, sorted */
    size_t left_out; /* of the list: without a usable name, twice there, or too many */
};

/* Reads an encoded ListToolsResponse. NULL with CM_ERR_BAD_FIELD, CM_ERR_TOO_LARGE or CM_ERR_NO_MEMORY. */
struct cm_toolset *cm_toolset_read(const uint8_t *message, size_t len, struct cm_err *err);
/* Tools of which nothing but the names is known: a checked JSON array of up to `most`. NULL with CM_ERR_BAD_FIELD, when one
 * of them is unusable, begins with "__" or is there twice, or CM_ERR_NO_MEMORY. */
struct cm_toolset *cm_toolset_of_names(const char *names, size_t len, size_t most, struct cm_err *err);
struct cm_toolset *cm_toolset_ref(struct cm_toolset *set);
/* Accepts NULL, returns NULL. */
struct cm_toolset *cm_toolset_unref(struct cm_toolset *set);
/* Its place in set->tools, or -1. */
long cm_toolset_find(const struct cm_toolset *set, const char *name, size_t len);

/* Reads an encoded GetToolSchemaResponse into one tool, for free() as a whole. The same errors. */
struct cm_tool *cm_tool_read(const uint8_t *message, size_t len, struct cm_err *err);

#endif
