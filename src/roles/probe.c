/* SPDX-License-Identifier: Apache-2.0 */
#include "roles/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define DEADLINE_NS     (10 * CM_NS_PER_S)
#define REPORT_MAX      8192
#define SPARE_PROCESSES 64 /* the zygote, and workers that are on their way out */

void cm_sandbox_arguments(const struct cm_conf *conf, struct cm_sandbox_arguments *ret)
{
    snprintf(ret->uid, sizeof ret->uid, "%u", conf->worker_uid);
    const char *const list[] = {"--waive", conf->waive_layers, "--require", conf->require_layers,
                                "--uid",   ret->uid,           NULL};
    memcpy(ret->list, list, sizeof list);
}

static int start(const struct cm_conf *conf, int to, pid_t *ret, struct cm_err *err)
{
    struct cm_sandbox_arguments arguments = {.uid = ""};
    char *argv[16] = {(char *)conf->sandbox_path, "--check", "--image", (char *)conf->image_path};
    char *empty_environment[] = {NULL};
    posix_spawn_file_actions_t files;
    cm_sandbox_arguments(conf, &arguments);
    for (unsigned i = 0; arguments.list[i]; i++)
        argv[4 + i] = (char *)arguments.list[i];
    posix_spawn_file_actions_init(&files);
    int r = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    r = r ? r : posix_spawn_file_actions_adddup2(&files, to, 1);
    r = r ? r : posix_spawn_file_actions_addclosefrom_np(&files, 3);
    r = r ? r : posix_spawn(ret, conf->sandbox_path, &files, NULL, argv, empty_environment);
    posix_spawn_file_actions_destroy(&files);
    if (!r)
        return 0;
    cm_err_sys(err, r, "start %s", conf->sandbox_path);
    return err->code = CM_ERR_SANDBOX;
}

/* All that comes until the end or the deadline. */
static void read_report(int from, char text[static REPORT_MAX])
{
    uint64_t end = cm_clock_ns() + DEADLINE_NS;
    size_t len = 0;
    for (uint64_t now = cm_clock_ns(); now < end && len < REPORT_MAX - 1; now = cm_clock_ns()) {
        struct pollfd p = {.fd = from, .events = POLLIN};
        int ready = poll(&p, 1, (int)((end - now) / CM_NS_PER_MS) + 1);
        ssize_t n = ready > 0 ? read(from, text + len, REPORT_MAX - 1 - len) : ready;
        if (n > 0)
            len += (size_t)n;
        else if (n == 0 || errno != EINTR)
            break;
    }
    text[len] = '\0';
}

static void take_layer(struct cm_probe *p, char *rest)
{
    char *name = strsep(&rest, "\t"), *state = strsep(&rest, "\t");
    int layer = cm_layer_find(name, strlen(name));
    if (layer < 0 || !state)
        return;
    if (strcmp(state, "on") == 0)
        p->on |= 1u << layer;
    else
        snprintf(p->why_off[layer], sizeof p->why_off[layer], "%s", rest ? rest : "");
}

static void take_line(struct cm_probe *p, char *line)
{
    char *word = strsep(&line, "\t");
    if (strcmp(word, "layer") == 0 && line)
        take_layer(p, line);
    else if (strcmp(word, "image") == 0 && line)
        snprintf(p->image, sizeof p->image, "%s", line);
    else if (strcmp(word, "error") == 0 && line)
        cm_err_set(&p->problem, CM_ERR_SANDBOX, "%s", line);
    else if (strcmp(word, "fit") == 0)
        p->fit = true;
}

int cm_probe_sandbox(const struct cm_conf *conf, struct cm_probe *ret, struct cm_err *err)
{
    char report[REPORT_MAX], *rest = report;
    int pair[2], status;
    pid_t child;
    *ret = (struct cm_probe){0};
    int rc = cm_layers_wish(conf->waive_layers, conf->require_layers, &ret->wish, err);
    if (rc)
        return rc;
    if (pipe2(pair, O_CLOEXEC))
        return cm_err_sys(err, errno, "pipe");
    cm_autofd int from = pair[0];
    rc = start(conf, pair[1], &child, err);
    close(pair[1]);
    if (rc)
        return rc;
    read_report(from, report);
    kill(child, SIGKILL); /* it has ended, or it will not */
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    while (rest && *rest)
        take_line(ret, strsep(&rest, "\n"));
    if (!ret->fit && !ret->problem.code)
        cm_err_set(&ret->problem, CM_ERR_SANDBOX, "%s --check has not finished its report (status %#x)",
                   conf->sandbox_path, (unsigned)status);
    return 0;
}

void cm_probe_cgroup(const struct cm_conf *conf, struct cm_cgroup *ret, struct cm_probe *p)
{
    const struct cm_cgroup_limits limits = {.memory = conf->cgroup_memory,
                                            .processes = conf->max_sessions + conf->spare_workers + SPARE_PROCESSES,
                                            .cpus = conf->cgroup_cpus};
    struct cm_err err = {.text = "CGROUP names no folder"};
    *ret = (struct cm_cgroup){0};
    if (conf->cgroup[0] && !cm_cgroup_make(conf->cgroup, &limits, ret, &err)) {
        p->on |= 1u << CM_LAYER_CGROUP;
        return;
    }
    snprintf(p->why_off[CM_LAYER_CGROUP], sizeof p->why_off[0], "%s", err.text);
    /* Whoever names a place wants the group. */
    bool wanted = conf->cgroup[0] && !(p->wish.waived >> CM_LAYER_CGROUP & 1);
    if (p->fit && (wanted || !cm_layer_may_miss(CM_LAYER_CGROUP, &p->wish))) {
        p->fit = false;
        cm_layer_missing(CM_LAYER_CGROUP, &p->wish, err.text, &p->problem);
    }
}
