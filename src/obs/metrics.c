/* SPDX-License-Identifier: Apache-2.0 */
#include "obs/metrics.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

enum type { COUNTER, GAUGE, HISTOGRAM, MICROS };

#define LABELS_MAX 20
#define INFO_MAX   8
#define INFO_TEXT  96

#define CM_V(set, value, text) text,
static const char *const no_labels[] = {NULL};
static const char *const outcome_labels[] = {CM_LABELS_OUTCOME(CM_V) NULL};
static const char *const death_labels[] = {CM_LABELS_DEATH(CM_V) NULL};
static const char *const end_labels[] = {CM_LABELS_END(CM_V) NULL};
static const char *const status_labels[] = {CM_LABELS_STATUS(CM_V) NULL};
static const char *const call_labels[] = {CM_LABELS_CALL(CM_V) NULL};
static const char *const grpc_labels[] = {CM_LABELS_GRPC(CM_V) NULL};
static const char *const handshake_labels[] = {CM_LABELS_HANDSHAKE(CM_V) NULL};
static const char *const layer_labels[] = {CM_LABELS_LAYER(CM_V) NULL};
static const char *const run_labels[] = {CM_LABELS_RUN(CM_V) NULL};
static const char *const subcall_labels[] = {CM_LABELS_SUBCALL(CM_V) NULL};
static const char *const model_labels[] = {CM_LABELS_MODEL(CM_V) NULL};
static const char *const tokens_labels[] = {CM_LABELS_TOKENS(CM_V) NULL};
#undef CM_V

struct desc {
    enum type type;
    const char *name, *label;
    const char *const *labels;
    const char *help;
};

/* Inside the table a list's name stands for its texts. */
#define LIST_CM_LABELS_NONE      no_labels
#define LIST_CM_LABELS_OUTCOME   outcome_labels
#define LIST_CM_LABELS_DEATH     death_labels
#define LIST_CM_LABELS_END       end_labels
#define LIST_CM_LABELS_STATUS    status_labels
#define LIST_CM_LABELS_CALL      call_labels
#define LIST_CM_LABELS_GRPC      grpc_labels
#define LIST_CM_LABELS_HANDSHAKE handshake_labels
#define LIST_CM_LABELS_LAYER     layer_labels
#define LIST_CM_LABELS_RUN       run_labels
#define LIST_CM_LABELS_SUBCALL   subcall_labels
#define LIST_CM_LABELS_MODEL     model_labels
#define LIST_CM_LABELS_TOKENS    tokens_labels

static const struct desc table[] = {
#define CM_METRIC(id, type, name, label, labels, help) {type, name, label, LIST_##labels, help},
#define CM_METRIC_SHARED(id)
#include "metrics.def"
#include "rlm_metrics.def"
#undef CM_METRIC
#undef CM_METRIC_SHARED
};

static const enum cm_metric gateway_set[] = {
#define CM_METRIC(id, type, name, label, labels, help) CM_M_##id,
#include "metrics.def"
};

static const enum cm_metric rlm_set[] = {
#define CM_METRIC_SHARED(id) CM_M_##id,
#include "rlm_metrics.def"
#undef CM_METRIC
#undef CM_METRIC_SHARED
};

/* Bucket bounds: microseconds of a warm execution up to minutes of a long one. */
static const struct {
    uint64_t ns;
    const char *text;
} bounds[] = {
    {50000, "5e-05"},      {100000, "0.0001"},  {250000, "0.00025"}, {500000, "0.0005"},  {1000000, "0.001"},
    {2500000, "0.0025"},   {5000000, "0.005"},  {10000000, "0.01"},  {25000000, "0.025"}, {50000000, "0.05"},
    {100000000, "0.1"},    {250000000, "0.25"}, {500000000, "0.5"},  {1000000000, "1"},   {2500000000, "2.5"},
    {5000000000, "5"},     {10000000000, "10"}, {30000000000, "30"}, {60000000000, "60"}, {120000000000, "120"},
    {300000000000, "300"},
};
#define BUCKETS CM_COUNT_OF(bounds)

struct cm_metrics {
    const enum cm_metric *set; /* what is shown */
    size_t set_count;
    union {
        int64_t by_label[LABELS_MAX];
        struct {
            uint64_t buckets[BUCKETS], count, sum_ns;
        } histogram;
    } values[CM_METRIC_COUNT];
    char info[INFO_MAX][2][INFO_TEXT];
    unsigned infos;
};

static struct cm_metrics *new_set(const enum cm_metric *set, size_t count)
{
    struct cm_metrics *m = calloc(1, sizeof(struct cm_metrics));

    if (m) {
        m->set = set;
        m->set_count = count;
    }
    return m;
}

struct cm_metrics *cm_metrics_new(void)
{
    return new_set(gateway_set, CM_COUNT_OF(gateway_set));
}

struct cm_metrics *cm_metrics_new_rlm(void)
{
    return new_set(rlm_set, CM_COUNT_OF(rlm_set));
}

struct cm_metrics *cm_metrics_free(struct cm_metrics *m)
{
    free(m);
    return NULL;
}

void cm_metrics_info(struct cm_metrics *m, const char *key, const char *value)
{
    unsigned i = 0;

    if (!m || strlen(key) >= INFO_TEXT || strlen(value) >= INFO_TEXT || strpbrk(value, "\"\\\n"))
        return;
    while (i < m->infos && strcmp(m->info[i][0], key) != 0)
        i++;
    if (i == INFO_MAX)
        return;
    strcpy(m->info[i][0], key);
    strcpy(m->info[i][1], value);
    if (i == m->infos)
        m->infos++;
}

void cm_metrics_add(struct cm_metrics *m, enum cm_metric id, unsigned label, int64_t n)
{
    assert(id < CM_METRIC_COUNT && table[id].type != HISTOGRAM && label < LABELS_MAX);
    if (m)
        m->values[id].by_label[label] += n;
}

void cm_metrics_set(struct cm_metrics *m, enum cm_metric id, unsigned label, int64_t value)
{
    assert(id < CM_METRIC_COUNT && table[id].type != HISTOGRAM && label < LABELS_MAX);
    if (m)
        m->values[id].by_label[label] = value;
}

void cm_metrics_observe_ns(struct cm_metrics *m, enum cm_metric id, uint64_t ns)
{
    assert(id < CM_METRIC_COUNT && table[id].type == HISTOGRAM);
    if (!m)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        if (ns <= bounds[i].ns) {
            m->values[id].histogram.buckets[i]++;
            break;
        }
    m->values[id].histogram.count++;
    m->values[id].histogram.sum_ns += ns;
}

int64_t cm_metrics_get(const struct cm_metrics *m, enum cm_metric id, unsigned label)
{
    assert(id < CM_METRIC_COUNT && label < LABELS_MAX);
    if (!m)
        return 0;
    if (table[id].type == HISTOGRAM)
        return (int64_t)m->values[id].histogram.count;
    return m->values[id].by_label[label];
}

static int render_simple(const struct cm_metrics *m, size_t id, struct cm_buf *to)
{
    const struct desc *d = &table[id];
    const int64_t *values = m->values[id].by_label;
    int r = 0;

    if (d->type == MICROS)
        return cm_buf_printf(to, "%s %lld.%06lld\n", d->name, (long long)values[0] / 1000000,
                             (long long)values[0] % 1000000);
    if (!d->label)
        return cm_buf_printf(to, "%s %lld\n", d->name, (long long)values[0]);
    for (size_t i = 0; r == 0 && d->labels[i]; i++)
        r = cm_buf_printf(to, "%s{%s=\"%s\"} %lld\n", d->name, d->label, d->labels[i], (long long)values[i]);
    return r;
}

static int render_histogram(const struct cm_metrics *m, size_t id, struct cm_buf *to)
{
    const char *name = table[id].name;
    uint64_t total = 0, sum = m->values[id].histogram.sum_ns;
    unsigned long long count = m->values[id].histogram.count;
    int r = 0;

    for (size_t i = 0; r == 0 && i < BUCKETS; i++) {
        total += m->values[id].histogram.buckets[i];
        r = cm_buf_printf(to, "%s_bucket{le=\"%s\"} %llu\n", name, bounds[i].text, (unsigned long long)total);
    }
    if (r < 0)
        return r;
    return cm_buf_printf(to, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %llu.%09llu\n%s_count %llu\n", name, count, name,
                         (unsigned long long)(sum / 1000000000u), (unsigned long long)(sum % 1000000000u), name, count);
}

static int render_info(const struct cm_metrics *m, struct cm_buf *to)
{
    int r = cm_buf_puts(to, "# HELP codemode_build_info What is running\n# TYPE codemode_build_info gauge\n"
                            "codemode_build_info{");

    for (unsigned i = 0; r == 0 && i < m->infos; i++)
        r = cm_buf_printf(to, "%s%s=\"%s\"", i ? "," : "", m->info[i][0], m->info[i][1]);
    return r < 0 ? r : cm_buf_puts(to, "} 1\n");
}

int cm_metrics_render(const struct cm_metrics *m, struct cm_buf *to)
{
    static const char *const type_names[] = {"counter", "gauge", "histogram", "counter"};

    if (!m)
        return 0;
    int r = render_info(m, to);
    for (size_t i = 0; r == 0 && i < m->set_count; i++) {
        enum cm_metric id = m->set[i];
        const struct desc *d = &table[id];
        r = cm_buf_printf(to, "# HELP %s %s\n# TYPE %s %s\n", d->name, d->help, d->name, type_names[d->type]);
        if (r == 0)
            r = d->type == HISTOGRAM ? render_histogram(m, id, to) : render_simple(m, id, to);
    }
    return r;
}
