/* SPDX-License-Identifier: Apache-2.0 */
/* `codemode plan`: the jail as the tables have it, whatever machine this is. tests/e2e/plan.txt holds what it prints,
 * so whoever loosens the jail shows it in a diff. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "jail/steps.h"
#include "wire/json.h"

#define PLAN_MAX (64u << 10)

static const char *const processes[] = {[CM_JAIL_WORKER] = "worker", [CM_JAIL_ZYGOTE] = "zygote"};
static const char *const classes[] = {
    [CM_LAYER_IS_CORE] = "always",
    [CM_LAYER_IS_REQUIRED] = "required",
    [CM_LAYER_IS_ALLOWED] = "where allowed",
    [CM_LAYER_IS_DEMANDED] = "on demand",
};

/* as text */

static void text_steps(struct cm_buf *b, enum cm_jail_who who)
{
    int number = 0;
    cm_buf_printf(b, "\nSteps of the %s, in order; one that fails ends it\n", processes[who]);
    for (const struct cm_jail_step *s = cm_jail_steps; s->name; s++)
        if (s->who == who)
            cm_buf_printf(b, "  %2d  %-35s %-13s %s%s%s\n", ++number, s->name, cm_layer_info(s->layer)->name, s->reason,
                          *s->privilege ? "; needs " : "", s->privilege);
}

static void text_limits(struct cm_buf *b, enum cm_jail_who who)
{
    cm_buf_printf(b, "\nResource limits of the %s\n", processes[who]);
    for (const struct cm_jail_limit *l = cm_jail_limits; l->resource; l++)
        if (l->who == who)
            cm_buf_printf(b, "  %-9s %s: %s\n", l->resource, l->value, l->reason);
}

static void text_calls(struct cm_buf *b, enum cm_jail_who who)
{
    cm_buf_printf(b, "\nSystem calls of the %s%s; any other ends it with SIGSYS\n", processes[who],
                  who == CM_JAIL_ZYGOTE ? " and of a worker's start, beside those of a worker" : "");
    for (unsigned i = 0; i < cm_jail_calls_count; i++) {
        const struct cm_jail_call *c = &cm_jail_calls[i];
        if (c->who != who)
            continue;
        cm_buf_printf(b, "  %-24s %s\n", c->name, c->reason);
        for (const struct cm_jail_pin *p = c->pins; p < c->pins + CM_JAIL_PINS_MAX && p->text; p++)
            cm_buf_printf(b, "      argument %u is %s (%#" PRIx64 ")\n", p->argument, p->text, p->value);
    }
}

static void text_plan(struct cm_buf *b)
{
    cm_buf_puts(b, "Layers\n");
    for (int i = 0; i < CM_LAYER_COUNT; i++) {
        const struct cm_layer_info *l = cm_layer_info((enum cm_layer)i);
        cm_buf_printf(b, "  %-13s %-13s %s\n", l->name, classes[l->class], l->purpose);
    }
    text_steps(b, CM_JAIL_ZYGOTE);
    text_steps(b, CM_JAIL_WORKER);
    text_limits(b, CM_JAIL_ZYGOTE);
    text_limits(b, CM_JAIL_WORKER);
    text_calls(b, CM_JAIL_WORKER);
    text_calls(b, CM_JAIL_ZYGOTE);
}

/* as JSON: objects of texts, one list for each table */

static void member(struct cm_buf *b, const char *before, const char *key, const char *value)
{
    cm_buf_printf(b, "%s\"%s\":", before, key);
    cm_json_put_string(b, value, strlen(value));
}

static void json_layers(struct cm_buf *b)
{
    for (int i = 0; i < CM_LAYER_COUNT; i++) {
        const struct cm_layer_info *l = cm_layer_info((enum cm_layer)i);
        member(b, i ? ",{" : "{", "name", l->name);
        member(b, ",", "class", classes[l->class]);
        member(b, ",", "purpose", l->purpose);
        cm_buf_puts(b, "}");
    }
}

static void json_steps(struct cm_buf *b)
{
    for (const struct cm_jail_step *s = cm_jail_steps; s->name; s++) {
        member(b, s == cm_jail_steps ? "{" : ",{", "process", processes[s->who]);
        member(b, ",", "layer", cm_layer_info(s->layer)->name);
        member(b, ",", "name", s->name);
        member(b, ",", "privilege", s->privilege);
        member(b, ",", "reason", s->reason);
        cm_buf_puts(b, "}");
    }
}

static void json_limits(struct cm_buf *b)
{
    for (const struct cm_jail_limit *l = cm_jail_limits; l->resource; l++) {
        member(b, l == cm_jail_limits ? "{" : ",{", "process", processes[l->who]);
        member(b, ",", "resource", l->resource);
        member(b, ",", "value", l->value);
        member(b, ",", "reason", l->reason);
        cm_buf_puts(b, "}");
    }
}

static void json_calls(struct cm_buf *b)
{
    for (unsigned i = 0; i < cm_jail_calls_count; i++) {
        const struct cm_jail_call *c = &cm_jail_calls[i];
        member(b, i ? ",{" : "{", "process", processes[c->who]);
        member(b, ",", "name", c->name);
        cm_buf_printf(b, ",\"number\":%u,\"arguments\":[", c->number);
        for (const struct cm_jail_pin *p = c->pins; p < c->pins + CM_JAIL_PINS_MAX && p->text; p++) {
            cm_buf_printf(b, "%s{\"index\":%u,\"value\":%" PRIu64, p == c->pins ? "" : ",", p->argument, p->value);
            member(b, ",", "text", p->text);
            cm_buf_puts(b, "}");
        }
        member(b, "],", "reason", c->reason);
        cm_buf_puts(b, "}");
    }
}

static void json_plan(struct cm_buf *b)
{
    cm_buf_puts(b, "{\"layers\":[");
    json_layers(b);
    cm_buf_puts(b, "],\"steps\":[");
    json_steps(b);
    cm_buf_puts(b, "],\"limits\":[");
    json_limits(b);
    cm_buf_puts(b, "],\"calls\":[");
    json_calls(b);
    cm_buf_puts(b, "]}\n");
}

int cm_cli_plan(int argc, char **argv)
{
    struct cm_buf b;
    bool json = argc == 1 && strcmp(argv[0], "--json") == 0;

    if (argc == 1 && cm_args_is_help(argv[0])) {
        puts("usage: codemode plan [--json]\n\nPrints how a worker is locked down: layers, steps, resource limits and "
             "system calls,\neach with its reason. What of it this machine allows is told by codemode doctor.");
        return CM_EXIT_OK;
    }
    if (argc > (json ? 1 : 0))
        return cm_args_error(CM_EXIT_USAGE, "plan takes no argument but --json");
    cm_buf_init(&b, PLAN_MAX);
    (json ? json_plan : text_plan)(&b);
    bool whole = cm_buf_puts(&b, "") == 0 && cm_fd_write_all(STDOUT_FILENO, cm_buf_data(&b), b.len) == 0;
    cm_buf_done(&b);
    return whole ? CM_EXIT_OK : cm_args_error(CM_EXIT_UNAVAILABLE, "the plan could not be written");
}
