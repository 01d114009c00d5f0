/* SPDX-License-Identifier: Apache-2.0 */
/* The list's outer message is walked by hand, one tool unpacked after the other: what is held at once is then one tool,
 * and the bound on a message's memory does not count ten thousand small ones together. */
#include "tools/toolset.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/utf8.h"
#include "codemode.pb-c.h"
#include "tools/schema.h"
#include "tools/search.h"
#include "tools/values.h"
#include "wire/json.h"
#include "wire/proto.h"

#define WORDS_MAX 2048 /* bytes of one tool's that are searched */

/* Tools */

static void add_words(void *arg, const char *name, size_t len)
{
    cm_search_fold(arg, name, len);
}

/* A schema that is no JSON object is as good as none. */
static bool is_object(const ProtobufCBinaryData *text)
{
    struct cm_json_value value;

    return text->len > 0 && cm_json_check((const char *)text->data, text->len, &value, NULL) == 0 &&
           value.kind == CM_JSON_OBJECT;
}

static const ProtobufCBinaryData *schema_text(const Codemode__ToolSchema *schema)
{
    return schema && is_object(&schema->json_schema) ? &schema->json_schema : NULL;
}

/* Copies to *at, which moves on, with a NUL behind. */
static const char *place(char **at, const void *data, size_t len)
{
    char *to = *at;

    if (len > 0)
        memcpy(to, data, len);
    to[len] = '\0';
    *at += len + 1;
    return to;
}

struct source {
    const ProtobufCBinaryData *name, *description;
    const Codemode__ToolSchema *input, *output;
    bool is_async, has_context;
};

/* All of one tool is one piece of memory: `ret` with its texts behind it. */
static struct cm_tool *new_tool(const struct source *from)
{
    const ProtobufCBinaryData *in = schema_text(from->input), *out = schema_text(from->output);
    size_t described = from->description->len;
    struct cm_buf words;

    if (described > CM_TOOL_DESCRIPTION_MAX)
        described =
            CM_TOOL_DESCRIPTION_MAX - cm_utf8_cut_end((const char *)from->description->data, CM_TOOL_DESCRIPTION_MAX);
    cm_buf_init(&words, WORDS_MAX);
    cm_search_fold(&words, (const char *)from->name->data, from->name->len);
    size_t name_words = words.len;
    if (described > 0)
        cm_search_fold(&words, (const char *)from->description->data, described);
    if (in)
        cm_schema_names((const char *)in->data, in->len, add_words, &words);
    if (words.len > 0 && cm_buf_data(&words)[words.len - 1] != ' ')
        cm_buf_data(&words)[words.len - 1] = ' '; /* it was full: the last word is cut */
    struct cm_tool *t =
        malloc(sizeof *t + from->name->len + described + (in ? in->len : 0) + (out ? out->len : 0) + words.len + 5);
    if (t) {
        char *at = (char *)(t + 1);
        *t = (struct cm_tool){.is_async = from->is_async, .has_context = from->has_context};
        t->name = place(&at, from->name->data, t->name_len = from->name->len);
        t->description = place(&at, from->description->data, t->description_len = described);
        if (in)
            t->input_schema = place(&at, in->data, t->input_schema_len = in->len);
        if (out)
            t->output_schema = place(&at, out->data, t->output_schema_len = out->len);
        t->words = place(&at, cm_buf_data(&words), t->words_len = words.len);
        t->name_words_len = name_words;
    }
    cm_buf_done(&words);
    return t;
}

static bool is_good_name(const ProtobufCBinaryData *name)
{
    if (name->len == 0 || name->len > CM_TOOL_NAME_MAX)
        return false;
    for (size_t i = 0; i < name->len; i++)
        if (name->data[i] < 0x20 || name->data[i] == 0x7F)
            return false;
    return true;
}

static bool is_hidden(const ProtobufCBinaryData *name)
{
    return name->len >= 2 && memcmp(name->data, "__", 2) == 0;
}

struct cm_tool *cm_tool_read(const uint8_t *message, size_t len, struct cm_err *err)
{
    Codemode__GetToolSchemaResponse *r =
        cm_proto_unpack(&codemode__get_tool_schema_response__descriptor, message, len, err);

    if (!r)
        return NULL;
    struct source from = {&r->tool_name,    &r->description, r->input_schema,
                          r->output_schema, r->is_async,     r->has_context};
    struct cm_tool *t = new_tool(&from);
    cm_proto_free(r);
    if (!t)
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for a tool");
    return t;
}

/* The list */

/* While a list is being read. */
struct reader {
    struct cm_tool **tools;
    size_t count, room, left_out;
};

static int keep(struct reader *r, struct cm_tool *tool, struct cm_err *err)
{
    if (r->count == r->room) {
        size_t room = r->room ? 2 * r->room : 16;
        struct cm_tool **more = realloc(r->tools, room * sizeof(struct cm_tool *));
        if (!more)
            tool = (free(tool), NULL);
        else
            r->tools = more, r->room = room;
    }
    if (!tool)
        return cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the list of tools");
    r->tools[r->count++] = tool;
    return 0;
}

static int read_info(struct reader *r, const uint8_t *data, size_t len, struct cm_err *err)
{
    Codemode__ToolInfo *info = cm_proto_unpack(&codemode__tool_info__descriptor, data, len, err);
    int rc = 0;

    if (!info)
        return err->code;
    if (!is_good_name(&info->name) || r->count == CM_TOOLS_MAX) {
        r->left_out++;
    } else if (!is_hidden(&info->name)) {
        struct source from = {&info->name,         &info->description, info->input_schema,
                              info->output_schema, info->is_async,     info->has_context};
        rc = keep(r, new_tool(&from), err);
    }
    cm_proto_free(info);
    return rc;
}

static bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *ret)
{
    *ret = 0;
    for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t b = *(*at)++;
        *ret |= (uint64_t)(b & 0x7F) << shift;
        if (!(b & 0x80))
            return true;
    }
    return false;
}

/* Moves behind a field of a kind that we do not know. */
static bool skip_field(const uint8_t **at, const uint8_t *end, unsigned wire_type)
{
    uint64_t n = wire_type == 1 ? 8 : wire_type == 5 ? 4 : 0;

    if (wire_type == 0)
        return read_varint(at, end, &n);
    if (wire_type == 2 ? !read_varint(at, end, &n) : n == 0)
        return false;
    if (n > (uint64_t)(end - *at))
        return false;
    *at += n;
    return true;
}

static int read_list(struct reader *r, const uint8_t *at, size_t len, struct cm_err *err)
{
    const uint8_t *end = at + len;
    uint64_t tag, size;
    int rc = 0;

    while (rc == 0 && at < end) {
        if (!read_varint(&at, end, &tag) || tag >> 3 == 0)
            return cm_err_set(err, CM_ERR_BAD_FIELD, "not a codemode.ListToolsResponse");
        const uint8_t *field = at;
        if (!skip_field(&at, end, tag & 7))
            return cm_err_set(err, CM_ERR_BAD_FIELD, "not a codemode.ListToolsResponse");
        if (tag >> 3 != 1)
            continue;
        if ((tag & 7) != 2 || !read_varint(&field, end, &size))
            return cm_err_set(err, CM_ERR_BAD_FIELD, "tools: not a codemode.ToolInfo");
        rc = read_info(r, field, (size_t)(at - field), err);
    }
    return rc;
}

static int compare(const char *a, size_t alen, const char *b, size_t blen)
{
    int d = memcmp(a, b, alen < blen ? alen : blen);

    return d ? d : (alen > blen) - (alen < blen);
}

/* Of two places that hold the same name, the earlier in the list comes first. */
static int by_name(const void *a, const void *b, void *arg)
{
    struct cm_tool *const *tools = arg;
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    int d = compare(tools[i]->name, tools[i]->name_len, tools[j]->name, tools[j]->name_len);

    return d ? d : (i > j) - (i < j);
}

static void free_tools(struct reader *r)
{
    while (r->count > 0)
        free(r->tools[--r->count]);
    free(r->tools);
}

/* Drops the later ones of equal names. */
static int drop_doubles(struct reader *r)
{
    uint32_t *order = malloc((r->count + 1) * sizeof *order);
    size_t kept = 0;

    if (!order)
        return CM_ERR_NO_MEMORY;
    for (size_t i = 0; i < r->count; i++)
        order[i] = (uint32_t)i;
    qsort_r(order, r->count, sizeof *order, by_name, r->tools);
    for (size_t i = r->count; i-- > 1;) {
        struct cm_tool *a = r->tools[order[i - 1]], *b = r->tools[order[i]];
        if (compare(a->name, a->name_len, b->name, b->name_len) != 0)
            continue;
        free(b);
        r->tools[order[i]] = NULL;
        r->left_out++;
    }
    for (size_t i = 0; i < r->count; i++)
        if (r->tools[i])
            r->tools[kept++] = r->tools[i];
    r->count = kept;
    free(order);
    return 0;
}

static struct cm_toolset *finish(struct reader *r)
{
    struct cm_toolset *set = calloc(1, sizeof *set);
    uint32_t *order = malloc((r->count + 1) * sizeof *order);

    if (!set || !order) {
        free(set);
        free(order);
        return NULL;
    }
    for (size_t i = 0; i < r->count; i++)
        order[i] = (uint32_t)i;
    qsort_r(order, r->count, sizeof *order, by_name, r->tools);
    *set = (struct cm_toolset){1, r->count, r->tools, order, r->left_out};
    *r = (struct reader){0};
    return set;
}

struct cm_toolset *cm_toolset_read(const uint8_t *message, size_t len, struct cm_err *err)
{
    struct cm_toolset *set = NULL;
    struct reader r = {0};
    struct cm_err own = {0};

    err = err ? err : &own;
    if (len > CM_TOOLS_BYTES_MAX) {
        cm_err_set(err, CM_ERR_TOO_LARGE, "the list of tools has %zu bytes, %u are taken", len, CM_TOOLS_BYTES_MAX);
        return NULL;
    }
    if (read_list(&r, message, len, err) == 0 && (drop_doubles(&r) < 0 || !(set = finish(&r))))
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the list of tools");
    free_tools(&r);
    return set;
}

/* Without its escapes; 0 when it can be no tool's. */
static size_t plain_name(const struct cm_json_value *value, char ret[static CM_TOOL_NAME_MAX + 1])
{
    struct cm_buf b = {.mem = ret, .cap = CM_TOOL_NAME_MAX, .max = CM_TOOL_NAME_MAX};
    int32_t c;

    if (value->kind != CM_JSON_STRING)
        return 0;
    for (struct cm_chars chars = cm_chars_of(value); (c = cm_chars_next(&chars)) >= 0;)
        if (c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0xD800 && c <= 0xDFFF)) /* which would become a '?' */
            return 0;
    if (cm_chars_put(&b, cm_chars_of(value), CM_TOOL_NAME_MAX) < 0)
        return 0;
    const ProtobufCBinaryData name = {b.len, (uint8_t *)ret};
    return is_good_name(&name) && !is_hidden(&name) ? b.len : 0;
}

static int read_names(struct reader *r, const struct cm_json_value *array, size_t most, struct cm_err *err)
{
    static const ProtobufCBinaryData nothing;
    char name[CM_TOOL_NAME_MAX + 1];
    struct cm_json_value value;
    int rc = 0;

    for (struct cm_members m = cm_elements_of(array); rc == 0 && cm_elements_next(&m, &value);) {
        const ProtobufCBinaryData plain = {plain_name(&value, name), (uint8_t *)name};
        const struct source from = {.name = &plain, .description = &nothing};
        if (r->count == most)
            return cm_err_set(err, CM_ERR_BAD_FIELD, "has more than %zu names", most);
        if (plain.len == 0)
            return cm_err_set(err, CM_ERR_BAD_FIELD,
                              "number %zu is no name of a tool: up to %d bytes of text that do not begin with \"__\"",
                              r->count + 1, CM_TOOL_NAME_MAX);
        rc = keep(r, new_tool(&from), err);
    }
    return rc;
}

struct cm_toolset *cm_toolset_of_names(const char *names, size_t len, size_t most, struct cm_err *err)
{
    struct cm_toolset *set = NULL;
    struct cm_json_value array;
    struct reader r = {0};

    if (cm_json_check(names, len, &array, NULL) < 0 || array.kind != CM_JSON_ARRAY) {
        cm_err_set(err, CM_ERR_BAD_FIELD, "must be an array of names");
        return NULL;
    }
    if (read_names(&r, &array, most, err) == 0) {
        if (drop_doubles(&r) < 0 || (r.left_out == 0 && !(set = finish(&r))))
            cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the names of tools");
        else if (!set)
            cm_err_set(err, CM_ERR_BAD_FIELD, "has a name twice");
    }
    free_tools(&r);
    return set;
}

struct cm_toolset *cm_toolset_ref(struct cm_toolset *set)
{
    set->refs++;
    return set;
}

struct cm_toolset *cm_toolset_unref(struct cm_toolset *set)
{
    if (!set || --set->refs > 0)
        return NULL;
    for (size_t i = 0; i < set->count; i++)
        free(set->tools[i]);
    free(set->tools);
    free(set->by_name);
    free(set);
    return NULL;
}

long cm_toolset_find(const struct cm_toolset *set, const char *name, size_t len)
{
    size_t low = 0, high = set->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct cm_tool *t = set->tools[set->by_name[middle]];
        int d = compare(name, len, t->name, t->name_len);
        if (d == 0)
            return (long)set->by_name[middle];
        if (d < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -1;
}
