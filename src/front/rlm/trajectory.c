/* SPDX-License-Identifier: Apache-2.0 */
/* The events of a child come before the iteration of its parent in which its call stands. So each node's lines are collected until
 * that iteration comes, and put into it; `node` in a call says whose they are. */
#include "front/rlm/trajectory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "wire/json.h"

#define CHILDREN_MAX 1000 /* a run has no more */
#define NODE_KEY     "\"node\":"
#define METADATA_KEY "\"metadata\":"

static void init_node(struct cm_infer_node *n, unsigned number, size_t max)
{
    *n = (struct cm_infer_node){.number = number};
    cm_buf_init(&n->metadata, max);
    cm_buf_init(&n->prompts, max);
    cm_buf_init(&n->iterations, max);
}

static void done_node(struct cm_infer_node *n)
{
    cm_buf_done(&n->metadata);
    cm_buf_done(&n->prompts);
    cm_buf_done(&n->iterations);
}

static size_t weight(const struct cm_infer_node *n)
{
    return n->metadata.len + n->prompts.len + n->iterations.len;
}

void cm_infer_trajectory_init(struct cm_infer_trajectory *t, size_t max)
{
    *t = (struct cm_infer_trajectory){.max = max};
    init_node(&t->root, 0, max);
}

static void drop(struct cm_infer_trajectory *t, struct cm_infer_node **at)
{
    struct cm_infer_node *n = *at;

    *at = n->next;
    t->count--;
    t->held -= weight(n);
    done_node(n);
    free(n);
}

void cm_infer_trajectory_done(struct cm_infer_trajectory *t)
{
    while (t->children)
        drop(t, &t->children);
    done_node(&t->root);
}

/* False for what is no number of a node. */
static bool read_number(const struct cm_json_value *v, unsigned *ret)
{
    double number = v->kind == CM_JSON_NUMBER ? cm_json_number(v) : -1;

    if (number < 0 || number > 1e9 || number != (double)(unsigned)number)
        return false;
    *ret = (unsigned)number;
    return true;
}

static bool read_node(const char *json, size_t len, unsigned *ret)
{
    struct cm_json_member m = {.name = "node"};

    return cm_json_object((char *)json, len, &m, 1, NULL) == 0 && read_number(&m.value, ret);
}

enum cm_infer_part cm_infer_trajectory_part(const char *type, const char *json, size_t len)
{
    unsigned number;

    if ((strcmp(type, "metadata") != 0 && strcmp(type, "iteration") != 0 && strcmp(type, "compaction") != 0) ||
        !read_node(json, len, &number))
        return CM_PART_NONE;
    return number == 0 ? CM_PART_ROOT : CM_PART_CHILD;
}

/* Where it stands in the list; the list's end where it does not. */
static struct cm_infer_node **find(struct cm_infer_trajectory *t, unsigned number)
{
    struct cm_infer_node **at = &t->children;

    while (*at && (*at)->number != number)
        at = &(*at)->next;
    return at;
}

/* Metadata */

struct members {
    struct cm_buf *to;
    int rc;
};

/* What is of the event, and not of the run. */
static bool is_of_event(const char *name, size_t len)
{
    static const char *const names[] = {"type", "timestamp", "node", "run_id", "parent", "call", "depth"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
            return true;
    return false;
}

static bool add_member(void *arg, const char *name, size_t len, const struct cm_json_value *value)
{
    struct members *m = arg;

    if (is_of_event(name, len))
        return true;
    m->rc = cm_buf_printf(m->to, "%s\"%.*s\":", m->to->len > 0 ? "," : "", (int)len, name);
    if (m->rc == 0)
        m->rc = cm_buf_append(m->to, value->raw, value->len);
    return m->rc == 0;
}

static int add_child(struct cm_infer_trajectory *t, unsigned number, const char *json, size_t len)
{
    struct cm_json_value object;

    if (*find(t, number) || t->count == CHILDREN_MAX || len > t->max - t->held ||
        cm_json_check(json, len, &object, NULL) < 0)
        return 0;
    struct cm_infer_node *n = malloc(sizeof *n);
    if (!n)
        return CM_ERR_NO_MEMORY;
    init_node(n, number, t->max);
    struct members m = {.to = &n->metadata};
    cm_json_members(&object, add_member, &m);
    n->next = t->children;
    t->children = n;
    t->count++;
    t->held += weight(n);
    if (m.rc < 0)
        drop(t, &t->children);
    return m.rc;
}

/* Iterations: a copy of the event in which some places are something else */

struct copy {
    struct cm_infer_trajectory *t;
    const char *at, *end; /* what is left of the event */
    struct cm_buf *to;
    int rc;
};

static void put(struct copy *c, const char *text, size_t len)
{
    if (c->rc == 0)
        c->rc = cm_buf_append(c->to, text, len);
}

static void put_words(struct copy *c, const char *words)
{
    put(c, words, strlen(words));
}

/* Up to the place that changes; what comes goes on behind it. */
static void skip(struct copy *c, const char *from, const char *to)
{
    put(c, c->at, (size_t)(from - c->at));
    c->at = to;
}

static void put_prompts(struct copy *c, struct cm_infer_node *n, const struct cm_json_value *prompt)
{
    bool some = prompt->len > 2;

    if (some && n->prompts.len > 0)
        c->rc = c->rc ? c->rc : cm_buf_puts(&n->prompts, ",");
    if (some && c->rc == 0)
        c->rc = cm_buf_append(&n->prompts, prompt->raw + 1, prompt->len - 2);
    skip(c, prompt->raw + 1, prompt->raw + prompt->len - 1);
    put(c, cm_buf_data(&n->prompts), n->prompts.len);
}

static void put_child(struct copy *c, unsigned number)
{
    struct cm_infer_node **at = find(c->t, number), *n = *at;
    size_t left = (size_t)(c->end - c->at), room = c->to->max - c->to->len;

    if (!n || weight(n) + left + 100 > room) {
        put_words(c, "null");
    } else {
        put_words(c, "{\"run_metadata\":{");
        put(c, cm_buf_data(&n->metadata), n->metadata.len);
        put_words(c, "},\"iterations\":[");
        put(c, cm_buf_data(&n->iterations), n->iterations.len);
        put_words(c, "]}");
    }
    if (n)
        drop(c->t, at);
}

/* The two members stand side by side, or it is no call of a run. */
static bool put_call(void *arg, struct cm_json_value *call)
{
    struct copy *c = arg;
    struct cm_json_member m[] = {{.name = "node"}, {.name = "metadata"}};
    const struct cm_json_value *node = &m[0].value, *metadata = &m[1].value;
    unsigned number;

    if (call->kind != CM_JSON_OBJECT || cm_json_object(call->raw, call->len, m, 2, NULL) < 0 ||
        !read_number(node, &number) || metadata->kind != CM_JSON_NULL)
        return true;
    const char *from = node->raw - strlen(NODE_KEY), *behind = node->raw + node->len;
    if (memcmp(from, NODE_KEY, strlen(NODE_KEY)) != 0 || metadata->raw != behind + 1 + strlen(METADATA_KEY) ||
        memcmp(behind, "," METADATA_KEY, 1 + strlen(METADATA_KEY)) != 0)
        return true;
    skip(c, from, metadata->raw + metadata->len);
    put_words(c, METADATA_KEY);
    put_child(c, number);
    return c->rc == 0;
}

static bool put_block(void *arg, struct cm_json_value *block)
{
    struct cm_json_member result = {.name = "result"}, calls = {.name = "rlm_calls"};
    struct cm_json_value *v = &result.value;

    if (block->kind == CM_JSON_OBJECT && cm_json_object(block->raw, block->len, &result, 1, NULL) == 0 &&
        v->kind == CM_JSON_OBJECT && cm_json_object(v->raw, v->len, &calls, 1, NULL) == 0 &&
        calls.value.kind == CM_JSON_ARRAY)
        cm_json_elements(&calls.value, put_call, arg);
    return ((struct copy *)arg)->rc == 0;
}

static int put_iteration(struct cm_infer_trajectory *t, struct cm_infer_node *n, const char *json, size_t len,
                         struct cm_buf *to)
{
    struct cm_json_member m[] = {{.name = "prompt"}, {.name = "code_blocks"}};
    struct copy c = {.t = t, .at = json, .end = json + len, .to = to};

    if (cm_json_object((char *)json, len, m, 2, NULL) < 0)
        return 0;
    if (m[0].value.kind == CM_JSON_ARRAY)
        put_prompts(&c, n, &m[0].value);
    if (m[1].value.kind == CM_JSON_ARRAY && m[1].value.raw > c.at)
        cm_json_elements(&m[1].value, put_block, &c);
    put(&c, c.at, (size_t)(c.end - c.at));
    return c.rc;
}

static int add_iteration(struct cm_infer_trajectory *t, struct cm_infer_node *n, const char *json, size_t len)
{
    cm_autobuf struct cm_buf line;
    size_t before = weight(n);

    if (len > t->max - t->held) /* its prompts alone might be too much */
        return 0;
    cm_buf_init(&line, t->max);
    int rc = put_iteration(t, n, json, len, &line);
    t->held += weight(n) - before;
    before = weight(n);
    if (rc == 0 && line.len + 1 <= t->max - t->held &&
        (n->iterations.len == 0 || (rc = cm_buf_puts(&n->iterations, ",")) == 0))
        rc = cm_buf_append(&n->iterations, cm_buf_data(&line), line.len);
    t->held += weight(n) - before;
    return rc == CM_ERR_TOO_LARGE ? 0 : rc;
}

int cm_infer_trajectory_put(struct cm_infer_trajectory *t, char type, const char *json, size_t len, struct cm_buf *to)
{
    unsigned number;

    if (!read_node(json, len, &number))
        return 0;
    if (type == 'm' && number > 0)
        return add_child(t, number, json, len);
    struct cm_infer_node *n = number > 0 ? *find(t, number) : &t->root;
    if (!n)
        return 0;
    if (type == 'c') { /* a compaction: the history begins anew */
        t->held -= number > 0 ? n->prompts.len : 0;
        cm_buf_clear(&n->prompts);
        return 0;
    }
    if (number > 0)
        return add_iteration(t, n, json, len);
    int rc = type == 'i' ? put_iteration(t, n, json, len, to) : cm_buf_append(to, json, len);
    return rc < 0 ? rc : cm_buf_puts(to, "\n");
}
