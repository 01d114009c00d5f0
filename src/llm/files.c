/* SPDX-License-Identifier: Apache-2.0 */
/* Where a model's file is, and the program that runs it. */
#include "llm/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/utf8.h"

static bool is_gguf(const char *name)
{
    size_t len = strlen(name);

    /* An mmproj file is the eyes of another model. */
    return len > 5 && strcasecmp(name + len - 5, ".gguf") == 0 && strncasecmp(name, "mmproj", 6) != 0;
}

/* The first by name; "" when there is none. */
static int find_in(const char *path, char *ret, size_t size, struct cm_err *err)
{
    DIR *dir = opendir(path);
    const struct dirent *e;

    if (!dir)
        return cm_err_sys(err, errno, "%s", path);
    ret[0] = '\0';
    while ((e = readdir(dir)))
        if (is_gguf(e->d_name) && strlen(e->d_name) < size && (!*ret || strcmp(e->d_name, ret) < 0))
            strcpy(ret, e->d_name);
    closedir(dir);
    return 0;
}

static int check_file(const char *path, struct cm_err *err)
{
    cm_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    char magic[4] = "";

    if (fd < 0)
        return cm_err_sys(err, errno, "%s", path);
    if (read(fd, magic, 4) != 4 || memcmp(magic, "GGUF", 4) != 0)
        return cm_err_set(err, CM_ERR_CONFIG, "%s is no GGUF file", path);
    return 0;
}

int cm_llama_model_file(const char *path, struct cm_buf *ret, struct cm_err *err)
{
    char name[256] = "";
    struct stat st;
    int rc;

    if (stat(path, &st) < 0)
        return cm_err_sys(err, errno, "%s", path);
    if (S_ISDIR(st.st_mode)) {
        if ((rc = find_in(path, name, sizeof name, err)) < 0)
            return rc;
        if (!*name)
            return cm_err_set(err, CM_ERR_CONFIG, "the folder %s holds no GGUF file", path);
    }
    if (cm_buf_printf(ret, "%s%s%s", path, *name ? "/" : "", name) < 0)
        return cm_err_set(err, CM_ERR_CONFIG, "%s: the name is too long", path);
    return check_file(cm_buf_data(ret), err);
}

int cm_llama_model_name(const char *file, struct cm_buf *ret)
{
    const char *slash = strrchr(file, '/'), *name = slash ? slash + 1 : file;
    size_t len = strlen(name);

    return cm_utf8_append(ret, name, is_gguf(name) ? len - 5 : len);
}

int cm_llama_program(struct cm_buf *ret, struct cm_err *err)
{
    const char *path = getenv("PATH");
    struct stat st;

    for (path = path ? path : "/usr/local/bin:/usr/bin:/bin"; *path; path += *path == ':') {
        size_t len = strcspn(path, ":");
        cm_buf_clear(ret);
        if (len > 0 && cm_buf_printf(ret, "%.*s/llama-server", (int)len, path) == 0 &&
            stat(cm_buf_data(ret), &st) == 0 && S_ISREG(st.st_mode) && access(cm_buf_data(ret), X_OK) == 0)
            return 0;
        path += len;
    }
    return cm_err_set(err, CM_ERR_CONFIG,
                      "llama-server is not on the PATH: install llama.cpp, or name a model service by LLM_BASE_URL");
}
