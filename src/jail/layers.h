/* SPDX-License-Identifier: Apache-2.0 */
/* The layers of isolation by name (tables/layers.def): what they are for, and which of them have to be there. */
#ifndef CM_JAIL_LAYERS_H
#define CM_JAIL_LAYERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum cm_layer {
#define CM_LAYER(id, name, class, purpose, remedy) CM_LAYER_##id,
#include "layers.def"
#undef CM_LAYER
    CM_LAYER_COUNT
};

enum cm_layer_class { CM_LAYER_IS_CORE, CM_LAYER_IS_REQUIRED, CM_LAYER_IS_ALLOWED, CM_LAYER_IS_DEMANDED };

struct cm_layer_info {
    const char *name;
    enum cm_layer_class class;
    const char *purpose, *remedy;
};

struct cm_layers_wish { /* bits 1 << enum cm_layer */
    uint32_t waived, required;
};

/* `layer` below CM_LAYER_COUNT. */
const struct cm_layer_info *cm_layer_info(enum cm_layer layer);
/* By name of `len` bytes; -1 when there is none. */
int cm_layer_find(const char *name, unsigned long len);
/* Reads the two comma-separated lists. CM_ERR_CONFIG for a name that is unknown, in both lists, or of a CORE layer
 * that cannot be waived; the text names the setting. */
int cm_layers_wish(const char *waive, const char *require, struct cm_layers_wish *ret, struct cm_err *err);
/* Whether the server may start without the layer. */
bool cm_layer_may_miss(enum cm_layer layer, const struct cm_layers_wish *w);
/* Whether the layer is put on where the machine has it. */
bool cm_layer_wanted(enum cm_layer layer, const struct cm_layers_wish *w);
/* Fills *err with what is missing, why, how to get it and how to go without it; returns the code CM_ERR_SANDBOX. */
int cm_layer_missing(enum cm_layer layer, const struct cm_layers_wish *w, const char *why, struct cm_err *err);

#endif
