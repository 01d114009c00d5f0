/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics of this process, declared in tables/metrics.def and rlm_metrics.def, and their Prometheus text.
 *
 * Not for several threads. Every function accepts a NULL registry and then does nothing.
 */
#ifndef CM_OBS_METRICS_H
#define CM_OBS_METRICS_H

#include <stdint.h>

#include "base/buf.h"

#define CM_METRIC(id, type, name, label, labels, help)
#define CM_METRIC_SHARED(id)
#include "metrics.def"
#include "rlm_metrics.def"
#undef CM_METRIC

enum cm_metric {
#define CM_METRIC(id, type, name, label, labels, help) CM_M_##id,
#include "metrics.def"
#include "rlm_metrics.def"
#undef CM_METRIC
#undef CM_METRIC_SHARED
    CM_METRIC_COUNT
};

#define CM_V(set, value, text) CM_L_##set##_##value,
enum cm_label_outcome { CM_LABELS_OUTCOME(CM_V) };
enum cm_label_death { CM_LABELS_DEATH(CM_V) };
enum cm_label_end { CM_LABELS_END(CM_V) };
enum cm_label_status { CM_LABELS_STATUS(CM_V) };
enum cm_label_call { CM_LABELS_CALL(CM_V) };
enum cm_label_grpc { CM_LABELS_GRPC(CM_V) };
enum cm_label_handshake { CM_LABELS_HANDSHAKE(CM_V) };
enum cm_label_layer { CM_LABELS_LAYER(CM_V) };
enum cm_label_run { CM_LABELS_RUN(CM_V) };
enum cm_label_subcall { CM_LABELS_SUBCALL(CM_V) };
enum cm_label_model { CM_LABELS_MODEL(CM_V) };
enum cm_label_tokens { CM_LABELS_TOKENS(CM_V) };
#undef CM_V

struct cm_metrics;

/* Those of the gateway, or of the RLM service: the others are counted and not shown. NULL when there is no memory. */
struct cm_metrics *cm_metrics_new(void);
struct cm_metrics *cm_metrics_new_rlm(void);
struct cm_metrics *cm_metrics_free(struct cm_metrics *m);
/* A label of codemode_build_info: "version", "image", ... Copied; at most 8 keys, 96 bytes each, else ignored. */
void cm_metrics_info(struct cm_metrics *m, const char *key, const char *value);
/* `label` is one of the metric's CM_L_ values, 0 for a metric without label. */
/* Of MICROS: n millionths. */
void cm_metrics_add(struct cm_metrics *m, enum cm_metric id, unsigned label, int64_t n);
void cm_metrics_set(struct cm_metrics *m, enum cm_metric id, unsigned label, int64_t value);
void cm_metrics_observe_ns(struct cm_metrics *m, enum cm_metric id, uint64_t ns);
/* The value of a counter or gauge, the number of observations of a histogram. */
int64_t cm_metrics_get(const struct cm_metrics *m, enum cm_metric id, unsigned label);
/* Appends the text exposition (version 0.0.4). 0 or the buffer's error. */
int cm_metrics_render(const struct cm_metrics *m, struct cm_buf *to);

#endif
