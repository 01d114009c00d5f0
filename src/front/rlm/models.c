/* SPDX-License-Identifier: Apache-2.0 */
/* A key goes to the place that it was given for, and to no other: callers choose names of models, and with "auto" a name can
 * choose the place. */
#include "front/rlm/models.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "conf/rlm.h"
#include "conf/schema.h"

#define OPENAI_URL    "https://api.openai.com/v1"
#define ANTHROPIC_URL "https://api.anthropic.com"

bool cm_models_configured(const struct cm_rlm_conf *c)
{
    return *c->llm_base_url || *c->llm_api_key || *c->anthropic_api_key;
}

const char *cm_models_name(const struct cm_rlm_conf *c, const struct cm_models_local *local)
{
    const struct cm_row *row = cm_row_by_field(&cm_rlm_schema, "llm_model", strlen("llm_model"));
    bool is_set = c->source.origins[row - cm_rlm_schema.rows].from != CM_CONF_DEFAULT;

    return is_set || cm_models_configured(c) || !local->name ? c->llm_model : local->name;
}

static enum cm_llm_api api_of(const struct cm_rlm_conf *c, const char *base_url, const char *name)
{
    if (strcmp(c->llm_api, "auto") != 0)
        return strcmp(c->llm_api, "anthropic") == 0 ? CM_LLM_ANTHROPIC : CM_LLM_OPENAI;
    if (*base_url)
        return strcasestr(base_url, "anthropic.com") ? CM_LLM_ANTHROPIC : CM_LLM_OPENAI;
    return strncasecmp(name, "claude", 6) == 0 ? CM_LLM_ANTHROPIC : CM_LLM_OPENAI;
}

/* Where a model stands by the settings of the root. */
static struct cm_llm_model place(const struct cm_rlm_conf *c, const struct cm_models_local *local, const char *name)
{
    struct cm_llm_model m = {.name = name, .max_output_tokens = c->llm_max_output_tokens};

    if (local->url && !cm_models_configured(c)) {
        m.api = CM_LLM_OPENAI;
        m.base_url = local->url;
        return m;
    }
    m.api = api_of(c, c->llm_base_url, name);
    m.base_url = *c->llm_base_url ? c->llm_base_url : m.api == CM_LLM_ANTHROPIC ? ANTHROPIC_URL : OPENAI_URL;
    return m;
}

/* Where LLM_MODEL stands, and LLM_API_KEY is the key of. */
static bool is_home(const struct cm_rlm_conf *c, const struct cm_models_local *local, const struct cm_llm_model *m)
{
    return strcmp(m->base_url, place(c, local, cm_models_name(c, local)).base_url) == 0;
}

static const char *key_for(const struct cm_rlm_conf *c, const struct cm_models_local *local,
                           const struct cm_llm_model *m)
{
    if (m->api == CM_LLM_ANTHROPIC && *c->anthropic_api_key &&
        (strcmp(m->base_url, ANTHROPIC_URL) == 0 || strcmp(m->base_url, c->llm_base_url) == 0))
        return c->anthropic_api_key;
    return is_home(c, local, m) ? c->llm_api_key : "";
}

static struct cm_llm_model root_model(const struct cm_rlm_conf *c, const struct cm_models_local *local,
                                      const char *name)
{
    struct cm_llm_model m = place(c, local, name);

    m.api_key = key_for(c, local, &m);
    return m;
}

static struct cm_llm_model recursive_model(const struct cm_rlm_conf *c, const struct cm_models_local *local,
                                           const char *name)
{
    struct cm_llm_model m = root_model(c, local, name);

    if (*c->llm_recursive_base_url) {
        m.base_url = c->llm_recursive_base_url;
        m.api = api_of(c, m.base_url, name);
        m.api_key = key_for(c, local, &m);
    }
    if (*c->llm_recursive_api_key && (*c->llm_recursive_base_url || is_home(c, local, &m)))
        m.api_key = c->llm_recursive_api_key;
    return m;
}

/* Cuts a list by commas in its own memory. */
static unsigned split(char *text, const char **ret, unsigned most)
{
    unsigned n = 0;

    for (char *word; n < most && (word = strsep(&text, ",")) != NULL;) {
        word += strspn(word, " \t");
        word[strcspn(word, " \t")] = '\0';
        if (*word)
            ret[n++] = word;
    }
    return n;
}

void cm_models_fill(const struct cm_rlm_conf *conf, const struct cm_models_local *local, const char *model,
                    const char *const *names, unsigned count, char space[static CM_MODELS_SPACE],
                    struct cm_rlm_request *to)
{
    const char *own[CM_RLM_MODELS_MAX - 1];

    to->models[0] = root_model(conf, local, model ? model : cm_models_name(conf, local));
    to->models_count = 1;
    if (count == 0 && *conf->llm_recursive_model) {
        snprintf(space, CM_MODELS_SPACE, "%s", conf->llm_recursive_model);
        count = split(space, own, CM_RLM_MODELS_MAX - 1);
        names = own;
    }
    for (unsigned i = 0; i < count && to->models_count < CM_RLM_MODELS_MAX; i++)
        to->models[to->models_count++] = recursive_model(conf, local, names[i]);
    /* Where only the place differs, the same model is asked there. */
    if (count == 0 && (*conf->llm_recursive_base_url || *conf->llm_recursive_api_key))
        to->models[to->models_count++] = recursive_model(conf, local, to->models[0].name);
}
