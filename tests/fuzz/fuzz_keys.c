/* SPDX-License-Identifier: Apache-2.0 */
/* Files of keys. What is accepted is well formed, a key that was accepted is known by its header, and no reason ever holds
 * a part of the text but names of limits. */
#include "fuzz.h"

#include <ctype.h>
#include <unistd.h>

#include "access/access.h"
#include "access/parse.h"
#include "obs/metrics.h"

static struct cm_metrics *metrics;
static char path[] = "/tmp/cm-fuzz-keys-XXXXXX";
static int file;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    metrics = cm_metrics_new();
    file = mkstemp(path);
    CHECK(metrics && file >= 0);
    return 0;
}

/* For free(). */
static char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    CHECK(text);
    memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

static void check_secret(const struct secret *s)
{
    size_t len = strnlen(s->name, sizeof s->name);

    CHECK(len > 0 && len < sizeof s->name);
    for (size_t i = 0; i < len; i++)
        CHECK(isalnum((unsigned char)s->name[i]) || strchr("._-", s->name[i]));
    for (int i = 0; i < CM_LIMITS; i++)
        if (s->caps.named & 1u << i)
            CHECK(s->caps.value.at[i] >= cm_limit_info((enum cm_limit)i)->min);
    CHECK(s->max_sessions <= 100000);
}

static void check_lines(const uint8_t *data, size_t size, bool named)
{
    struct secrets s = {0};
    struct cm_err err = {0};
    char *text = fuzz_text(data, size);

    int rc = named ? cm_secrets_read_named(&s, "file", text, &err) : cm_secrets_read_plain(&s, "file", text, &err);
    if (rc == 0)
        for (size_t i = 0; i < s.count; i++)
            check_secret(&s.list[i]);
    else
        CHECK(err.code == rc && strncmp(err.text, "file, line ", 11) == 0);
    cm_secrets_done(&s);
    free(text);
}

/* The second word of the first line with two: it must be known if the file was taken, unless it is a hash. */
static void check_known(struct cm_access *a, const uint8_t *data, size_t size)
{
    const struct cm_key *key = NULL;
    char name[CM_KEY_NAME_MAX + 1] = "", word[KEY_MAX + 1] = "", header[KEY_MAX + 16];
    char *text = fuzz_text(data, size);

    if (sscanf(text, "%64[A-Za-z0-9._-] %512[!-~]", name, word) == 2 && strncmp(word, "sha256:", 7) != 0 &&
        word[0] != '#') {
        snprintf(header, sizeof header, "Bearer %s", word);
        CHECK(cm_access_check(a, header, NULL, &key, NULL) == 0 && strcmp(cm_key_name(key), name) == 0);
        CHECK(cm_access_check(a, NULL, word, &key, NULL) == 0);
        snprintf(header, sizeof header, "Bearer %s ", word);
        CHECK(cm_access_check(a, header, NULL, &key, NULL) == CM_ERR_NO_KEY);
    }
    free(text);
}

static void check_file(const uint8_t *data, size_t size)
{
    struct cm_access_config config = {.keys_file = path};
    struct cm_access *a = NULL;
    struct cm_err err = {0};
    const struct cm_key *key = NULL;

    CHECK(ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) == (ssize_t)size);
    int rc = cm_access_open(&config, metrics, &a, &err);
    if (rc < 0) {
        CHECK(rc == CM_ERR_CONFIG && err.text[0]);
        return;
    }
    CHECK(cm_access_on(a));
    CHECK(cm_access_check(a, NULL, NULL, &key, NULL) == CM_ERR_NO_KEY);
    CHECK(cm_access_check(a, "Bearer ", "x", &key, NULL) == CM_ERR_NO_KEY);
    check_known(a, data, size);
    CHECK(cm_access_reload(a, NULL, &err) == 0);
    cm_access_free(a);
}

/* The first byte chooses; any header at all may be asked with. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 4096)
        return 0;
    uint8_t what = data[0] % 4;
    data++;
    size--;
    if (what < 2) {
        if (!memchr(data, 0, size))
            check_lines(data, size, what == 0);
        return 0;
    }
    check_file(data, size);
    return 0;
}
