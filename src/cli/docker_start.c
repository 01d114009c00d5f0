/* SPDX-License-Identifier: Apache-2.0 */
/* `codemode docker start`: one `docker run` with everything locked. Secrets travel in the environment of the docker
 * command, named by --env NAME, so that no argument list of the machine shows them. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/child.h"
#include "cli/cli.h"
#include "cli/docker.h"
#include "conf/files.h"
#include "conf/value.h"

#define RUN_S     120 /* where the image has to be fetched, the time for that */
#define ASK_S     30
#define WORDS_MAX 256
#define TEXTS_MAX (64u << 10)
#define KEY       "CODEMODE_API_KEY"

/* The arguments of `docker run`; texts that are made for it live in `texts`, which does not move. */
struct run {
    char *argv[WORDS_MAX + 1];
    unsigned count;
    char texts[TEXTS_MAX];
    size_t used;
    bool full;
};

static void word(struct run *r, const char *text)
{
    if (r->count < WORDS_MAX)
        r->argv[r->count++] = (char *)text;
    else
        r->full = true;
}

/* A flag and its made value. */
__attribute__((format(printf, 3, 4))) static void pair(struct run *r, const char *flag, const char *format, ...)
{
    size_t room = sizeof r->texts - r->used;
    va_list ap;

    va_start(ap, format);
    int len = vsnprintf(r->texts + r->used, room, format, ap);
    va_end(ap);
    word(r, flag);
    word(r, r->texts + r->used);
    r->full |= len < 0 || (size_t)len >= room;
    r->used += r->full ? 0 : (size_t)len + 1;
}

/* What the container is told. */
struct plan {
    const struct cm_args *args;
    const char *name, *port, *image, *config; /* config: NULL without a file */
    struct cm_conf_file file;
    bool has_file, key_in_file;
    char target[300]; /* of the tools, as the container sees them */
    uint64_t memory;
};

/* reading */

static int read_config(struct plan *p)
{
    struct cm_report report;
    const char *path = cm_args_text(p->args, "--config");

    for (int kind = CM_FILE_SIDECAR; !path && kind < CM_FILE_RLM; kind++)
        if (kind != CM_FILE_CLIENT && access(cm_conf_file_kind_file((enum cm_file_kind)kind), F_OK) == 0)
            path = cm_conf_file_kind_file((enum cm_file_kind)kind);
    if (!path)
        return CM_EXIT_OK;
    cm_report_init(&report, path);
    p->has_file = true;
    int rc = cm_conf_file_read(path, CM_FILE_ANY, &p->file, &report) == 0 ? CM_EXIT_OK : CM_EXIT_FAILED;
    if (rc == CM_EXIT_OK && p->file.kind == CM_FILE_CLIENT)
        rc = cm_args_error(CM_EXIT_FAILED, "%s is a file for clients of the executor", path);
    fputs(cm_buf_data(&report.errors), stderr);
    fputs(cm_buf_data(&report.warnings), stderr);
    cm_report_done(&report);
    p->config = path;
    return rc;
}

/* "localhost" is the container itself in there. */
static void choose_target(struct plan *p)
{
    const char *variable = getenv("CODEMODE_MAIN_APP_TARGET");
    const char *key = p->has_file && p->file.kind == CM_FILE_UNIFIED ? "grpc.tool_service_url" : "main_app_grpc_target";
    const char *text = variable && *variable ? variable : p->has_file ? cm_conf_file_text(&p->file, key) : "";
    const char *colon = strrchr(text, ':');

    if (!colon)
        text = "localhost:50051", colon = strrchr(text, ':');
    if (strncmp(text, "localhost:", 10) == 0 || strncmp(text, "127.0.0.1:", 10) == 0)
        snprintf(p->target, sizeof p->target, "host.docker.internal%.20s", colon);
    else
        snprintf(p->target, sizeof p->target, "%.290s", text);
}

static int choose_memory(struct plan *p)
{
    double bytes = 512 << 20;

    if (p->has_file && p->file.kind == CM_FILE_UNIFIED &&
        !cm_conf_parse_bytes(cm_conf_file_text(&p->file, "executor.limits.memory_limit"), &bytes))
        return cm_args_error(CM_EXIT_FAILED, "executor.limits.memory_limit: not a size");
    p->memory = (uint64_t)bytes;
    return CM_EXIT_OK;
}

/* The key: of the flag, the variable or the file. Nothing beyond loopback without one. */
static int choose_key(struct plan *p)
{
    const char *flag = cm_args_text(p->args, "--api-key"), *variable = getenv(KEY);

    if (flag)
        setenv(KEY, flag, 1);
    else if (!variable || !*variable)
        p->key_in_file = p->has_file &&
                         *cm_conf_file_text(&p->file, p->file.kind == CM_FILE_UNIFIED ? "executor.api_key" : "api_key");
    if (flag || (variable && *variable) || p->key_in_file)
        return CM_EXIT_OK;
    return cm_args_error(CM_EXIT_FAILED, "docker start: callers need a key, and there is none\n"
                                         "  export " KEY "=$(openssl rand -hex 32)");
}

static int read_plan(struct plan *p)
{
    double port;
    const char *requirements = cm_args_text(p->args, "--requirements");
    int rc = cm_docker_check_name(p->name);

    if (rc == CM_EXIT_OK && (!cm_conf_parse_uint(p->port, &port) || port < 1 || port > 65535))
        rc = cm_args_error(CM_EXIT_USAGE, "--port: \"%.20s\" is not a port", p->port);
    if (rc == CM_EXIT_OK && p->image[0] == '-')
        rc = cm_args_error(CM_EXIT_USAGE, "--image: \"%.80s\" is not an image's name", p->image);
    if (rc == CM_EXIT_OK && requirements && access(requirements, R_OK) < 0)
        rc = cm_args_error(CM_EXIT_FAILED, "--requirements: %s cannot be read", requirements);
    if (rc == CM_EXIT_OK && cm_args_text(p->args, "--api-key"))
        setenv(KEY, cm_args_text(p->args, "--api-key"), 1); /* the file may name the variable */
    rc = rc ? rc : read_config(p);
    rc = rc ? rc : choose_key(p);
    rc = rc ? rc : choose_memory(p);
    if (rc == CM_EXIT_OK)
        choose_target(p);
    return rc;
}

/* the arguments */

/* Docker splits a mount at colons and commas, and wants an absolute path. */
static int mount(struct run *r, const char *from, const char *to)
{
    char *path = realpath(from, NULL);

    if (!path || strchr(path, ',')) {
        free(path);
        return cm_args_error(CM_EXIT_FAILED, "%s: cannot be mounted", from);
    }
    pair(r, "--mount", "type=bind,source=%s,target=%s,readonly", path, to);
    free(path);
    return CM_EXIT_OK;
}

/* Certificates and keys that the file names stand at the same place in the container, relative ones below /app. */
static int mount_files(const struct plan *p, struct run *r)
{
    char target[CM_CONF_TEXT_MAX + 8];
    int rc = CM_EXIT_OK;

    for (size_t i = 0; i < CM_FILE_KEYS && rc == CM_EXIT_OK; i++) {
        const struct cm_file_key *key = &cm_file_keys[i];
        const char *path = cm_conf_file_given(&p->file, key->path) ? cm_conf_file_text(&p->file, key->path) : "";
        if (key->kind != p->file.kind || key->use != CM_USE_SERVER || key->row.type != CM_ROW_PATH || !*path)
            continue;
        while (strncmp(path, "./", 2) == 0)
            path += 2;
        if (strstr(path, ".."))
            return cm_args_error(CM_EXIT_FAILED, "%s: \"%s\" has no place in the container; use a path without \"..\"",
                                 key->path, path);
        snprintf(target, sizeof target, "%s%s", *path == '/' ? "" : "/app/", path);
        rc = mount(r, path, target);
    }
    return rc;
}

/* Variables that the file names: the executor reads the file again, in there. */
static void pass_variables(struct run *r, const char *path)
{
    FILE *f = fopen(path, "re");
    char line[4096], name[200];

    while (f && fgets(line, sizeof line, f))
        for (const char *at = line; (at = strstr(at, "${")); at += 2) {
            if (sscanf(at, "${%199[A-Za-z0-9_]", name) == 1 && strcmp(name, KEY) != 0 && getenv(name))
                pair(r, "--env", "%s", name);
        }
    if (f)
        fclose(f);
}

static void pass_packages(const struct plan *p, struct run *r)
{
    char list[8192] = "CODEMODE_PACKAGES=";
    size_t start = strlen(list);

    for (unsigned i = 0; i < p->args->count; i++)
        if (strcmp(p->args->given[i].flag->name, "--packages") == 0)
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", list[start] ? "," : "",
                     p->args->given[i].value);
    if (!list[start] && !cm_args_text(p->args, "--requirements"))
        return;
    if (list[start])
        pair(r, "--env", "%s", list);
    fprintf(
        stderr,
        "note: nothing is installed: sessions have the standard library only, and importing another package raises\n"
        "ModuleNotFoundError. %s for programs that look there.\n",
        list[start] ? "The names are in the container's CODEMODE_PACKAGES"
                    : "The file is at /app/requirements.txt of the container");
}

static void lock_down(const struct plan *p, struct run *r)
{
    pair(r, "--memory", "%llu", (unsigned long long)p->memory);
    pair(r, "--cpus", "1.0");
    pair(r, "--cap-drop", "ALL");
    pair(r, "--security-opt", "no-new-privileges:true");
    word(r, "--read-only");
    pair(r, "--user", "65534:65534");
    pair(r, "--tmpfs", "/tmp:rw,noexec,nosuid,size=100m");
}

static int put_words(const struct plan *p, struct run *r)
{
    const char *requirements = cm_args_text(p->args, "--requirements");
    int rc = CM_EXIT_OK;

    word(r, "docker");
    word(r, "run");
    word(r, "--detach");
    pair(r, "--name", "%s", p->name);
    lock_down(p, r);
    pair(r, "--publish", "%s:8001", p->port);
    pair(r, "--add-host", "host.docker.internal:host-gateway");
    if (!p->key_in_file)
        pair(r, "--env", KEY);
    pair(r, "--env", "CODEMODE_MAIN_APP_TARGET=%s", p->target);
    if (p->config) {
        rc = mount(r, p->config, p->file.kind == CM_FILE_SIDECAR ? "/app/codemode-sidecar.yaml" : "/app/codemode.yaml");
        rc = rc ? rc : mount_files(p, r);
        pass_variables(r, p->config);
    }
    if (rc == CM_EXIT_OK && requirements)
        rc = mount(r, requirements, "/app/requirements.txt");
    pass_packages(p, r);
    word(r, p->image);
    r->argv[r->count] = NULL;
    return r->full ? cm_args_error(CM_EXIT_FAILED, "docker start: too many arguments") : rc;
}

/* running */

static int image_is_there(const char *image)
{
    char *const argv[] = {"docker", "image", "inspect", "--format", "{{.Id}}", (char *)image, NULL};
    struct cm_buf out;

    cm_buf_init(&out, CM_DOCKER_OUT_MAX);
    int rc = cm_child_run(argv, ASK_S, &out, &out);
    cm_buf_done(&out);
    if (rc == CM_CHILD_NOT_FOUND)
        return cm_args_error(CM_EXIT_FAILED, "docker start: there is no docker on the PATH; install Docker Engine");
    if (rc != 0)
        return cm_args_error(CM_EXIT_FAILED, "the image %s is not there\n  codemode docker build", image);
    return CM_EXIT_OK;
}

static int name_is_free(const char *name, struct cm_buf *state)
{
    int rc = cm_docker_state(name, state);

    if (rc == CM_EXIT_OK && *cm_buf_data(state))
        rc = cm_args_error(CM_EXIT_FAILED, "container '%s' exists already (%s)\n  codemode docker remove --name %s",
                           name, cm_buf_data(state), name);
    return rc;
}

static int say_started(const struct plan *p, const char *id)
{
    struct cm_buf state;

    cm_buf_init(&state, CM_DOCKER_OUT_MAX);
    int rc = cm_docker_state(p->name, &state);
    bool up = rc == CM_EXIT_OK && strncmp(cm_buf_data(&state), "Up", 2) == 0;
    if (rc == CM_EXIT_OK && !up)
        rc = cm_args_error(CM_EXIT_FAILED, "container '%s' has ended at once (%s)\n  docker logs %s", p->name,
                           cm_buf_data(&state), p->name);
    if (rc == CM_EXIT_OK)
        printf("✓ Executor container started\n\n  Container ID: %.12s\n  Name: %s\n  Port: %s\n  Status: %s\n"
               "  ToolService: %s\n  Executor URL: http://localhost:%s\n",
               id, p->name, p->port, cm_buf_data(&state), p->target, p->port);
    cm_buf_done(&state);
    return rc;
}

int cm_cli_docker_start(const struct cm_args *args)
{
    static struct run run;
    struct plan p = {.args = args,
                     .name = cm_args_text(args, "--name"),
                     .port = cm_args_text(args, "--port"),
                     .image = cm_args_text(args, "--image")};
    struct cm_buf out;

    cm_buf_init(&out, CM_DOCKER_OUT_MAX);
    int rc = read_plan(&p);
    rc = rc ? rc : image_is_there(p.image);
    rc = rc ? rc : name_is_free(p.name, &out);
    rc = rc ? rc : put_words(&p, &run);
    cm_buf_clear(&out);
    rc = rc ? rc : cm_docker_run(run.argv, RUN_S, &out, "docker start");
    rc = rc ? rc : say_started(&p, cm_buf_data(&out));
    cm_buf_done(&out);
    if (p.has_file)
        cm_conf_file_done(&p.file);
    return rc;
}
