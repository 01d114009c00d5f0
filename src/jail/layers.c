/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/layers.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

static const struct cm_layer_info table[] = {
#define CM_LAYER(id, name, class, purpose, remedy) {name, CM_LAYER_IS_##class, purpose, remedy},
#include "layers.def"
#undef CM_LAYER
};

_Static_assert(CM_LAYER_COUNT <= 32, "a set of layers is a word of 32 bits");

const struct cm_layer_info *cm_layer_info(enum cm_layer layer)
{
    return &table[layer];
}

int cm_layer_find(const char *name, unsigned long len)
{
    for (int i = 0; i < CM_LAYER_COUNT; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
            return i;
    return -1;
}

static int unknown(const char *setting, const char *name, unsigned long len, struct cm_err *err)
{
    char all[300] = "";
    for (int i = 0; i < CM_LAYER_COUNT; i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "", table[i].name);
    return cm_err_set(err, CM_ERR_CONFIG, "%s: there is no layer \"%.*s\"; there are %s", setting,
                      len < 40 ? (int)len : 40, name, all);
}

static int read_list(const char *setting, const char *list, uint32_t *ret, struct cm_err *err)
{
    uint32_t set = 0;
    while (*list) {
        list += strspn(list, ", ");
        unsigned long len = strcspn(list, ", ");
        int layer = len ? cm_layer_find(list, len) : 0;
        if (layer < 0)
            return unknown(setting, list, len, err);
        if (len)
            set |= 1u << layer;
        list += len;
    }
    *ret = set;
    return 0;
}

int cm_layers_wish(const char *waive, const char *require, struct cm_layers_wish *ret, struct cm_err *err)
{
    struct cm_layers_wish w = {0};
    int rc = read_list("WAIVE_LAYERS", waive, &w.waived, err);
    if (!rc)
        rc = read_list("REQUIRE_LAYERS", require, &w.required, err);
    if (rc)
        return rc;
    for (int i = 0; i < CM_LAYER_COUNT; i++) {
        if ((w.waived & w.required) >> i & 1)
            return cm_err_set(err, CM_ERR_CONFIG, "WAIVE_LAYERS and REQUIRE_LAYERS both name %s", table[i].name);
        if (w.waived >> i & 1 && table[i].class == CM_LAYER_IS_CORE)
            return cm_err_set(err, CM_ERR_CONFIG, "WAIVE_LAYERS: %s is always there and cannot be waived",
                              table[i].name);
    }
    *ret = w;
    return 0;
}

bool cm_layer_may_miss(enum cm_layer layer, const struct cm_layers_wish *w)
{
    if (w->required >> layer & 1)
        return false;
    return table[layer].class >= CM_LAYER_IS_ALLOWED || w->waived >> layer & 1;
}

bool cm_layer_wanted(enum cm_layer layer, const struct cm_layers_wish *w)
{
    return table[layer].class != CM_LAYER_IS_DEMANDED || w->required >> layer & 1;
}

int cm_layer_missing(enum cm_layer layer, const struct cm_layers_wish *w, const char *why, struct cm_err *err)
{
    const struct cm_layer_info *l = &table[layer];
    char waiver[120] = "";
    if (w->required >> layer & 1)
        snprintf(waiver, sizeof waiver, "; to go without it: take it out of REQUIRE_LAYERS");
    else if (l->class == CM_LAYER_IS_REQUIRED)
        snprintf(waiver, sizeof waiver, "; to go without it: WAIVE_LAYERS=%s", l->name);
    return cm_err_set(err, CM_ERR_SANDBOX, "the layer %s (%s) is missing: %s%s%s%s", l->name, l->purpose, why,
                      *l->remedy ? "; to get it: " : "", l->remedy, waiver);
}
