/* SPDX-License-Identifier: Apache-2.0 */
/* The table of keys, and the file that it makes. */
#include <string.h>

#include "conf/files.h"

#define KEY_TEXT    CM_KEY_ROW, CM_ROW_TEXT
#define KEY_SECRET  CM_KEY_ROW, CM_ROW_SECRET
#define KEY_PATH    CM_KEY_ROW, CM_ROW_PATH
#define KEY_UINT    CM_KEY_ROW, CM_ROW_UINT
#define KEY_BYTES   CM_KEY_ROW, CM_ROW_BYTES
#define KEY_SECONDS CM_KEY_ROW, CM_ROW_SECONDS
#define KEY_LEVEL   CM_KEY_ROW, CM_ROW_LEVEL
#define KEY_BOOL    CM_KEY_ROW, CM_ROW_BOOL
#define KEY_TARGET  CM_KEY_TARGET, CM_ROW_TEXT
#define KEY_URL     CM_KEY_URL, CM_ROW_TEXT
#define KEY_CHOICE  CM_KEY_CHOICE, CM_ROW_TEXT
#define KEY_LIST    CM_KEY_LIST, CM_ROW_TEXT
#define KEY_MAP     CM_KEY_MAP, CM_ROW_TEXT

#define KEY(kind, path, key_type, row_type, least, most, choices, def, use, fields, env, help)                         \
    {path,           choices,  def,         fields, env, help, {.type = (row_type), .min = (least), .max = (most)},    \
     CM_FILE_##kind, key_type, CM_USE_##use},
#define EXPAND(...) KEY(__VA_ARGS__)

const struct cm_file_key cm_file_keys[CM_FILE_KEYS] = {
#define CM_FILE_KEY(kind, path, type, min, max, choices, def, use, fields, env, help)                                  \
    EXPAND(kind, path, KEY_##type, min, max, choices, def, use, fields, env, help)
#include "config_files.def"
#undef CM_FILE_KEY
};

static const struct {
    const char *name, *file, *owner;
} kinds[] = {
    [CM_FILE_SIDECAR] = {"sidecar", "codemode-sidecar.yaml", "the executor"},
    [CM_FILE_CLIENT] = {"client", "codemode-client.yaml", "clients of the executor"},
    [CM_FILE_UNIFIED] = {"unified", "codemode.yaml", "the executor"},
    [CM_FILE_RLM] = {"rlm", "rlm.yaml", "the RLM service"},
};

const char *cm_conf_file_kind_owner(enum cm_file_kind kind)
{
    return kinds[kind].owner;
}

const struct cm_schema *cm_conf_file_schema(enum cm_file_kind kind)
{
    return kind == CM_FILE_RLM ? &cm_rlm_schema : &cm_conf_schema;
}

const char *cm_conf_file_kind_name(enum cm_file_kind kind)
{
    return kinds[kind].name;
}

const char *cm_conf_file_kind_file(enum cm_file_kind kind)
{
    return kinds[kind].file;
}

enum cm_file_kind cm_conf_file_kind_of(const char *word)
{
    int kind = 0;

    while (kind < CM_FILE_RLM && strcmp(kinds[kind].name, word) != 0)
        kind++;
    return kind < CM_FILE_RLM ? (enum cm_file_kind)kind : CM_FILE_ANY;
}

/* print-defaults */

/* The parents of a path that the one before it did not have; returns the depth of its last word. */
static unsigned print_parents(const char *path, const char *before, FILE *out)
{
    unsigned depth = 0;
    bool same = true;

    for (const char *word = path, *dot; (dot = strchr(word, '.')); word = dot + 1, depth++) {
        same = same && strncmp(path, before, (size_t)(dot + 1 - path)) == 0;
        if (!same)
            fprintf(out, "%s%*s%.*s:\n", depth == 0 && *before ? "\n" : "", (int)depth * 2, "", (int)(dot - word),
                    word);
    }
    return depth;
}

/* Whether YAML would take the text for something else without quotes. */
static bool needs_quotes(const struct cm_file_key *key)
{
    return *key->def == '\0' || (key->row.type == CM_ROW_BYTES);
}

static void print_key(const struct cm_file_key *key, const char *before, FILE *out)
{
    if (!strchr(key->path, '.') && strchr(before, '.'))
        fputc('\n', out);
    unsigned depth = print_parents(key->path, before, out);
    const char *last = strrchr(key->path, '.'), *quote = needs_quotes(key) ? "\"" : "";

    if (*key->help)
        fprintf(out, "%*s# %s\n", (int)depth * 2, "", key->help);
    fprintf(out, "%*s%s: %s%s%s", (int)depth * 2, "", last ? last + 1 : key->path, quote, key->def, quote);
    if (key->type == CM_KEY_CHOICE)
        fprintf(out, "  # %s", key->choices);
    else if (key->type == CM_KEY_ROW && (key->row.type == CM_ROW_UINT || key->row.type == CM_ROW_SECONDS))
        fprintf(out, "  # %.12g to %.12g", key->row.min, key->row.max);
    fputc('\n', out);
}

void cm_conf_file_print_defaults(enum cm_file_kind kind, FILE *out)
{
    const char *before = "";

    fprintf(out, "# %s with every key at its default. ${VAR} and ${VAR:-default} are replaced from the environment.\n",
            kinds[kind].file);
    for (size_t i = 0; i < CM_FILE_KEYS; i++) {
        if (cm_file_keys[i].kind != kind)
            continue;
        print_key(&cm_file_keys[i], before, out);
        before = cm_file_keys[i].path;
    }
}
