/* SPDX-License-Identifier: Apache-2.0 */
/* `codemode docker ...`: everything but start. */
#include "cli/docker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/assets.h"
#include "cli/child.h"
#include "cli/cli.h"
#include "conf/files.h"
#include "conf/tree.h"

#define ASK_S   30  /* questions to the daemon */
#define STOP_S  120 /* stopping takes the executor's DRAIN_TIMEOUT, 20 s unless told otherwise */
#define BUILD_S 600

#define PATH_LEN_MAX 1024

int cm_docker_run(char *const *argv, unsigned timeout_s, struct cm_buf *out, const char *what)
{
    struct cm_buf err;

    cm_buf_init(&err, CM_DOCKER_OUT_MAX);
    int rc = cm_child_run(argv, timeout_s, out, out ? &err : NULL);
    if (rc == CM_CHILD_NOT_FOUND)
        cm_args_error(CM_EXIT_FAILED, "%s: there is no docker on the PATH; install Docker Engine", what);
    else if (rc == CM_CHILD_TIMEOUT)
        cm_args_error(CM_EXIT_FAILED, "%s: docker took longer than %u s", what, timeout_s);
    else if (rc != 0)
        cm_args_error(CM_EXIT_FAILED, "%s: docker %s failed (exit code %d)%s%.2000s", what, argv[1], rc,
                      err.len ? ": " : "", cm_buf_data(&err));
    cm_buf_done(&err);
    return rc == 0 ? CM_EXIT_OK : CM_EXIT_FAILED;
}

/* The text without the newline at its end. */
static char *chomped(struct cm_buf *b)
{
    char *text = cm_buf_data(b);

    text[strcspn(text, "\n")] = '\0';
    return text;
}

int cm_docker_check_name(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";

    if (name[0] != '-' && name[0] != '.' && *name && !name[strspn(name, letters)] && strlen(name) <= 100)
        return CM_EXIT_OK;
    return cm_args_error(CM_EXIT_USAGE, "--name: \"%.80s\" is not a container's name: letters, digits, _ . -", name);
}

/* A name is matched as an expression, where a dot is any letter. */
static void put_filter(const char *name, char *to, size_t size)
{
    size_t len = (size_t)snprintf(to, size, "name=^/?");

    for (; *name && len + 5 < size; name++)
        len += (size_t)snprintf(to + len, size - len, *name == '.' ? "[.]" : "%c", *name);
    snprintf(to + len, size - len, "$");
}

int cm_docker_state(const char *name, struct cm_buf *ret)
{
    char filter[400];
    char *const argv[] = {"docker", "ps", "--all", "--filter", filter, "--format", "{{.Status}}", NULL};

    put_filter(name, filter, sizeof filter);
    int rc = cm_docker_run(argv, ASK_S, ret, "status");
    if (rc == CM_EXIT_OK)
        chomped(ret);
    return rc;
}

/* check */

int cm_cli_docker_check(const struct cm_args *args)
{
    char *const argv[] = {"docker", "info", "--format", "{{.ServerVersion}}\n{{.OperatingSystem}}", NULL};
    struct cm_buf out, err;

    (void)args;
    cm_buf_init(&out, CM_DOCKER_OUT_MAX);
    cm_buf_init(&err, CM_DOCKER_OUT_MAX);
    int rc = cm_child_run(argv, ASK_S, &out, &err);
    char *version = cm_buf_data(&out), *os = strchr(version, '\n');
    if (rc == 0 && os && os > version) {
        os[strcspn(os + 1, "\n") + 1] = '\0';
        *os = '\0';
        printf("✓ Docker is available and running\n\nDocker Information:\n  Version: %s\n  OS: %s\n", version, os + 1);
    } else if (rc == CM_CHILD_NOT_FOUND) {
        fputs("✗ Docker is not installed: there is no docker on the PATH\n", stderr);
    } else {
        fprintf(stderr, "✗ Docker is not running%s%.2000s\n", err.len ? ": " : "", chomped(&err));
        rc = rc == 0 ? CM_CHILD_FAILED : rc;
    }
    cm_buf_done(&out);
    cm_buf_done(&err);
    return rc == 0 ? CM_EXIT_OK : CM_EXIT_FAILED;
}

/* build */

/* The folder of this executable: what the image is made of. */
static int program_folder(char ret[static PATH_LEN_MAX])
{
    ssize_t n = readlink("/proc/self/exe", ret, PATH_LEN_MAX - 1);

    ret[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(ret, '/');
    if (!slash)
        return cm_args_error(CM_EXIT_FAILED, "build: cannot find the folder of the executable");
    *slash = '\0';
    return CM_EXIT_OK;
}

static int copy_into(const char *folder, const char *name, const char *context)
{
    char from[2 * PATH_LEN_MAX], to[2 * PATH_LEN_MAX];
    char *const argv[] = {"cp", "--reflink=auto", "--", from, to, NULL};

    snprintf(from, sizeof from, "%s/%s", folder, name);
    snprintf(to, sizeof to, "%s/%s", context, name);
    if (access(from, R_OK) < 0)
        return cm_args_error(CM_EXIT_FAILED, "build: %s: %s", from, strerror(errno));
    return cm_child_run(argv, BUILD_S, NULL, NULL) == 0
               ? CM_EXIT_OK
               : cm_args_error(CM_EXIT_FAILED, "build: %s could not be copied", from);
}

/* A folder with what the Dockerfile copies, and nothing else: the daemon gets all of it. */
static int fill_context(const char *context, const char *dockerfile)
{
    char folder[PATH_LEN_MAX], path[PATH_LEN_MAX + 32];
    int rc = program_folder(folder);

    snprintf(path, sizeof path, "%.1000s/guest", context);
    if (rc == CM_EXIT_OK && mkdir(path, 0755) < 0)
        rc = cm_args_error(CM_EXIT_FAILED, "build: %s: %s", path, strerror(errno));
    rc = rc ? rc : copy_into(folder, "codemode", context);
    rc = rc ? rc : copy_into(folder, "codemode-sandbox", context);
    rc = rc ? rc : copy_into(folder, "guest/python.img", context);
    snprintf(path, sizeof path, "%.1000s/Dockerfile", context);
    if (rc == CM_EXIT_OK && !dockerfile)
        rc = cm_asset_write(cm_asset_find("Dockerfile"), path, false);
    return rc;
}

/* Of this machine's Debian: the image needs a C library at least as new as the programs. */
static void debian_release(char ret[static 32])
{
    FILE *f = fopen("/etc/os-release", "re");
    char line[256];
    unsigned release;
    bool debian = false;

    snprintf(ret, 32, "DEBIAN=12");
    while (f && fgets(line, sizeof line, f)) {
        debian |= strcmp(line, "ID=debian\n") == 0;
        if (sscanf(line, "VERSION_ID=\"%u\"", &release) == 1 && release >= 12 && release < 100)
            snprintf(ret, 32, "DEBIAN=%u", release);
    }
    if (!debian)
        snprintf(ret, 32, "DEBIAN=12");
    if (f)
        fclose(f);
}

static int build(const char *context, const char *dockerfile, const char *image)
{
    char own[PATH_LEN_MAX], release[32];
    char *const argv[] = {"docker",        "build",       "--build-arg", release,
                          "--tag",         (char *)image, "--file",      dockerfile ? (char *)dockerfile : own,
                          (char *)context, NULL};

    snprintf(own, sizeof own, "%.1000s/Dockerfile", context);
    debian_release(release);
    int rc = fill_context(context, dockerfile);
    rc = rc ? rc : cm_docker_run(argv, BUILD_S, NULL, "build");
    if (rc == CM_EXIT_OK)
        printf("✓ Built %s\n", image);
    return rc;
}

int cm_cli_docker_build(const struct cm_args *args)
{
    const char *image = cm_args_text(args, "--image"), *version = cm_args_text(args, "--version"),
               *slash = strrchr(image, '/'), *tmp = getenv("TMPDIR");
    char name[300], context[PATH_LEN_MAX];
    char *const clean[] = {"rm", "-rf", "--", context, NULL};
    bool tagged = strchr(slash ? slash : image, ':') != NULL;

    if (image[0] == '-' || version[0] == '-' || strlen(image) + strlen(version) > 250)
        return cm_args_error(CM_EXIT_USAGE, "build: that is not an image's name");
    /* -v with a name that has a tag: the tag is the version's, unless nobody has named one. */
    size_t bare = tagged ? (size_t)(strrchr(image, ':') - image) : strlen(image);
    if (tagged && !cm_args_has(args, "--version"))
        snprintf(name, sizeof name, "%s", image);
    else
        snprintf(name, sizeof name, "%.*s:%s", (int)bare, image, version);
    snprintf(context, sizeof context, "%.900s/codemode-image-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(context))
        return cm_args_error(CM_EXIT_FAILED, "build: %s: %s", context, strerror(errno));
    int rc = build(context, cm_args_text(args, "--dockerfile"), name);
    cm_child_run(clean, ASK_S, NULL, NULL);
    return rc;
}

/* status, stop, remove */

/* Reads the name and asks for its state; CM_EXIT_OK when there is such a container. */
static int find(const struct cm_args *args, const char **ret_name, struct cm_buf *state)
{
    *ret_name = cm_args_text(args, "--name");
    int rc = cm_docker_check_name(*ret_name);

    rc = rc ? rc : cm_docker_state(*ret_name, state);
    if (rc == CM_EXIT_OK && !*cm_buf_data(state)) {
        printf("Container '%s' does not exist\n", *ret_name);
        rc = CM_EXIT_FAILED;
    }
    return rc;
}

int cm_cli_docker_status(const struct cm_args *args)
{
    struct cm_buf state;
    const char *name;

    cm_buf_init(&state, CM_DOCKER_OUT_MAX);
    int rc = find(args, &name, &state);
    if (rc == CM_EXIT_OK)
        printf("Container '%s' status:\n  Status: %s\n", name, cm_buf_data(&state));
    cm_buf_done(&state);
    return rc;
}

static int end(const struct cm_args *args, char **argv, unsigned place, const char *done)
{
    struct cm_buf out;
    const char *name;

    cm_buf_init(&out, CM_DOCKER_OUT_MAX);
    int rc = find(args, &name, &out);
    argv[place] = (char *)name;
    cm_buf_clear(&out);
    rc = rc ? rc : cm_docker_run(argv, STOP_S, &out, argv[1]);
    if (rc == CM_EXIT_OK)
        printf("✓ Container '%s' %s\n", name, done);
    cm_buf_done(&out);
    return rc;
}

int cm_cli_docker_stop(const struct cm_args *args)
{
    char *argv[] = {"docker", "stop", "-t", "30", NULL, NULL};

    return end(args, argv, 4, "stopped");
}

int cm_cli_docker_remove(const struct cm_args *args)
{
    char *argv[] = {"docker", "rm", "--force", NULL, NULL};

    return end(args, argv, 3, "removed");
}

/* assets */

static int make_folder(const char *path)
{
    struct stat st;

    int problem = mkdir(path, 0755) == 0 ? 0 : errno;
    if (problem == EEXIST)
        problem = stat(path, &st) < 0 ? errno : S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
    return problem ? cm_args_error(CM_EXIT_FAILED, "%s: %s", path, strerror(problem)) : CM_EXIT_OK;
}

int cm_cli_docker_assets(const struct cm_args *args)
{
    const char *dest = cm_args_text(args, "--dest");
    bool force = cm_args_has(args, "--force");
    char path[PATH_LEN_MAX];

    if (!dest)
        return cm_args_error(CM_EXIT_USAGE, "docker assets: --dest DIR is needed");
    if (strlen(dest) > PATH_LEN_MAX - 64)
        return cm_args_error(CM_EXIT_USAGE, "--dest: the path is too long");
    int rc = make_folder(dest);
    for (const struct cm_asset *a = cm_assets; a->name && rc == CM_EXIT_OK && !force; a++) {
        snprintf(path, sizeof path, "%s/%s", dest, a->name);
        if (a->exported && access(path, F_OK) == 0) /* all or nothing */
            rc = cm_args_error(CM_EXIT_FAILED, "%s is there already; --force overwrites it", path);
    }
    for (const struct cm_asset *a = cm_assets; a->name && rc == CM_EXIT_OK; a++) {
        snprintf(path, sizeof path, "%s/%s", dest, a->name);
        rc = a->exported ? cm_asset_write(a, path, force) : CM_EXIT_OK;
        if (a->exported && rc == CM_EXIT_OK)
            printf("✓ %s\n", path);
    }
    return rc;
}

/* env */

static bool fits_line(const struct cm_yaml *n)
{
    return n->kind == CM_YAML_SCALAR && !strpbrk(n->text, "\r\n");
}

/* NAME=value for what the file says, lists with commas. A value with a newline cannot stand in such a file. */
static int put_variable(const struct cm_file_key *key, const struct cm_yaml *n, struct cm_buf *to)
{
    const struct cm_yaml *item = n && n->kind == CM_YAML_LIST ? n->first : n;

    if (!*key->env || !item)
        return CM_EXIT_OK;
    int rc = cm_buf_printf(to, "# %s\n%s=", key->path, key->env);
    for (const struct cm_yaml *at = item; at && rc == 0; at = at == n ? NULL : at->next) {
        if (!fits_line(at))
            return cm_args_error(CM_EXIT_FAILED, "env: %s: this value cannot stand in an environment file", key->path);
        rc = cm_buf_printf(to, "%s%s", at == item ? "" : ",", at->text);
    }
    rc = rc ? rc : cm_buf_puts(to, "\n");
    return rc ? cm_args_error(CM_EXIT_FAILED, "env: %s: too long", key->path) : CM_EXIT_OK;
}

int cm_cli_docker_env(const struct cm_args *args)
{
    const char *path = cm_args_text(args, "--config"), *output = cm_args_text(args, "--output");
    struct cm_report report;
    struct cm_conf_file file;
    struct cm_buf out;

    cm_report_init(&report, path);
    cm_buf_init(&out, CM_YAML_SIZE_MAX);
    int rc = cm_conf_file_read(path, CM_FILE_ANY, &file, &report) == 0 ? CM_EXIT_OK : CM_EXIT_FAILED;
    fputs(cm_buf_data(&report.errors), stderr);
    for (size_t i = 0; i < CM_FILE_KEYS && rc == CM_EXIT_OK; i++)
        rc = put_variable(&cm_file_keys[i], file.given[i], &out);
    if (rc == CM_EXIT_OK)
        rc = cm_cli_write_file(output, cm_buf_data(&out), out.len, 0600, cm_args_has(args, "--force"));
    if (rc == CM_EXIT_OK)
        printf("✓ Created %s from %s\n", output, path);
    cm_conf_file_done(&file);
    cm_buf_done(&out);
    cm_report_done(&report);
    return rc;
}
