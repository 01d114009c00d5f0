/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/assets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/cli.h"

#define PATH_LEN_MAX 1024

#define ASSETS                                                                                                         \
    ASSET("Dockerfile", dockerfile, true)                                                                              \
    ASSET("docker-compose.yml", docker_compose_yml, true)                                                              \
    ASSET("README.md", readme_md, true)                                                                                \
    ASSET("codemode-sidecar.yaml.template", codemode_sidecar_yaml_template, true)                                      \
    ASSET(".env.template", env_template, true)                                                                         \
    ASSET("codemode.yaml", codemode_yaml, false)                                                                       \
    ASSET("codemode-client.yaml", codemode_client_yaml, false)

#define ASSET(name, symbol, exported)                                                                                  \
    extern const unsigned char cm_asset_##symbol[];                                                                    \
    extern const size_t cm_asset_##symbol##_size;
ASSETS
#undef ASSET

#define ASSET(name, symbol, exported) {name, cm_asset_##symbol, &cm_asset_##symbol##_size, exported},
const struct cm_asset cm_assets[] = {ASSETS{NULL, NULL, NULL, false}};
#undef ASSET

const struct cm_asset *cm_asset_find(const char *name)
{
    const struct cm_asset *a = cm_assets;

    while (a->name && strcmp(a->name, name) != 0)
        a++;
    return a;
}

static int told(const char *path, int errnum)
{
    if (errnum == EEXIST)
        return cm_args_error(CM_EXIT_FAILED, "%s is there already; --force overwrites it", path);
    return cm_args_error(CM_EXIT_FAILED, "%s: %s", path, strerror(errnum));
}

/* A file that is replaced is written under another name first: whoever reads it sees the old one or the new one. */
int cm_cli_write_file(const char *path, const void *data, size_t len, unsigned mode, bool force)
{
    char beside[PATH_LEN_MAX];

    if (snprintf(beside, sizeof beside, "%s%s", path, force ? ".new" : "") >= (int)sizeof beside)
        return told(path, ENAMETOOLONG);
    if (force)
        unlink(beside);
    int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return told(path, errno);
    int bad = -cm_fd_write_all(fd, data, len);
    if (close(fd) < 0 && !bad)
        bad = errno;
    if (!bad && force && rename(beside, path) < 0)
        bad = errno;
    if (bad)
        unlink(beside);
    return bad ? told(path, bad) : CM_EXIT_OK;
}

int cm_asset_write(const struct cm_asset *asset, const char *path, bool force)
{
    return cm_cli_write_file(path, asset->data, *asset->size, 0644, force);
}
