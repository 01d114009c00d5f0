/* SPDX-License-Identifier: Apache-2.0 */
/* `codemode doctor`: would the server start here, with these settings, and how well would it be locked down? */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "conf/conf.h"
#include "roles/probe.h"
#include "wire/json.h"

#define REPORT_MAX (64u << 10)

static const char help[] =
    "usage: codemode doctor [--json] [flags of codemode serve]\n\n"
    "Tries on this machine what the server does before it serves: the sandbox, its image, and every layer of\n"
    "isolation. Says of each layer whether it is on, why it is not and how to get it. Settings come from flags and\n"
    "environment, as for codemode serve.\n\n"
    "exit codes: 0 the server would start, 1 it would not, 2 wrong usage or settings\n";

static const char *state_of(const struct cm_probe *p, enum cm_layer layer)
{
    return p->on >> layer & 1                   ? "on"
           : cm_layer_may_miss(layer, &p->wish) ? p->wish.waived >> layer & 1 ? "waived" : "off"
                                                : "missing";
}

static void say(struct cm_buf *b, const struct cm_conf *conf, const struct cm_probe *p)
{
    struct utsname u;
    if (uname(&u) == 0)
        cm_buf_printf(b, "kernel   %s %s %s\n", u.sysname, u.release, u.machine);
    cm_buf_printf(b, "user     %u\n", (unsigned)geteuid());
    cm_buf_printf(b, "sandbox  %s\n", conf->sandbox_path);
    cm_buf_printf(b, "image    %s (%s)\n", conf->image_path, p->image[0] ? p->image : "not usable");
    cm_buf_puts(b, "layers\n");
    for (int i = 0; i < CM_LAYER_COUNT; i++) {
        const struct cm_layer_info *l = cm_layer_info((enum cm_layer)i);
        cm_buf_printf(b, "  %-13s %-8s %s\n", l->name, state_of(p, (enum cm_layer)i), l->purpose);
        if (p->on >> i & 1)
            continue;
        cm_buf_printf(b, "  %-13s %-8s   why:       %s\n", "", "", p->why_off[i]);
        if (*l->remedy)
            cm_buf_printf(b, "  %-13s %-8s   to get it: %s\n", "", "", l->remedy);
    }
    cm_buf_printf(b, p->fit ? "The server would start.\n" : "The server would not start: %s\n", p->problem.text);
}

static void member(struct cm_buf *b, const char *before, const char *key, const char *value)
{
    cm_buf_printf(b, "%s\"%s\":", before, key);
    cm_json_put_string(b, value, strlen(value));
}

static void say_json(struct cm_buf *b, const struct cm_conf *conf, const struct cm_probe *p)
{
    struct utsname u = {.release = ""};
    uname(&u);
    cm_buf_printf(b, "{\"fit\":%s", p->fit ? "true" : "false");
    member(b, ",", "problem", p->fit ? "" : p->problem.text);
    member(b, ",", "kernel", u.release);
    member(b, ",", "sandbox", conf->sandbox_path);
    member(b, ",", "image_path", conf->image_path);
    member(b, ",", "image", p->image);
    cm_buf_puts(b, ",\"layers\":[");
    for (int i = 0; i < CM_LAYER_COUNT; i++) {
        const struct cm_layer_info *l = cm_layer_info((enum cm_layer)i);
        member(b, i ? ",{" : "{", "name", l->name);
        member(b, ",", "state", state_of(p, (enum cm_layer)i));
        member(b, ",", "why", p->on >> i & 1 ? "" : p->why_off[i]);
        member(b, ",", "remedy", p->on >> i & 1 ? "" : l->remedy);
        cm_buf_puts(b, "}");
    }
    cm_buf_puts(b, "]}\n");
}

/* Takes --json and --help out of the arguments; the others are settings. */
static int take_own(int argc, char **argv, bool *ret_json, bool *ret_help)
{
    int left = 0;
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--json") == 0)
            *ret_json = true;
        else if (cm_args_is_help(argv[i]))
            *ret_help = true;
        else
            argv[left++] = argv[i];
    return left;
}

int cm_cli_doctor(int argc, char **argv)
{
    struct cm_conf conf;
    struct cm_probe probe;
    struct cm_cgroup cgroup;
    struct cm_err err;
    struct cm_buf b;
    bool json = false, wants_help = false;

    argc = take_own(argc, argv, &json, &wants_help);
    if (wants_help) {
        fputs(help, stdout);
        return CM_EXIT_OK;
    }
    if (cm_conf_load(argc, argv, &conf, &err) < 0)
        return cm_args_unloaded(&err);
    if (cm_probe_sandbox(&conf, &probe, &err) < 0)
        return cm_args_error(err.code == CM_ERR_CONFIG ? CM_EXIT_USAGE : CM_EXIT_UNFIT, "%s", err.text);
    cm_probe_cgroup(&conf, &cgroup, &probe);
    cm_cgroup_remove(&cgroup);
    cm_buf_init(&b, REPORT_MAX);
    (json ? say_json : say)(&b, &conf, &probe);
    cm_fd_write_all(STDOUT_FILENO, cm_buf_data(&b), b.len);
    cm_buf_done(&b);
    return probe.fit ? CM_EXIT_OK : CM_EXIT_UNFIT;
}
