/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines: whatever the values hold, a line is one JSON object of bounded length. The first byte of an input line
 * says what kind of value the rest is. */
#include "fuzz.h"

#include <math.h>
#include <unistd.h>

#include "model_json.h"
#include "obs/log.h"

#define FIELDS_MAX 12

static int pipe_fds[2];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    CHECK(pipe(pipe_fds) == 0);
    cm_log_open(pipe_fds[1], CM_LOG_DEBUG);
    return 0;
}

static struct cm_log_field field(const char *line)
{
    switch (line[0]) {
    case 'i':
        return CM_LOG_INT("count", strtoll(line + 1, NULL, 10));
    case 'f':
        return CM_LOG_REAL("seconds", strtod(line + 1, NULL));
    case 'b':
        return CM_LOG_BOOL("flag", line[1]);
    case 'n':
        return CM_LOG_STR("nothing", NULL);
    default:
        return CM_LOG_STR("session", line);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, data + size};
    struct cm_log_field fields[FIELDS_MAX + 1] = {0};
    char *lines[FIELDS_MAX], *event = fuzz_line(&in), got[2 * CM_LOG_LINE_MAX];
    int count = 0;

    while (in.at < in.end && count < FIELDS_MAX) {
        lines[count] = fuzz_line(&in);
        fields[count] = field(lines[count]);
        count++;
    }
    cm_log_write(CM_LOG_INFO, event, fields);
    ssize_t n = read(pipe_fds[0], got, sizeof got);
    CHECK(n > 2 && n <= CM_LOG_LINE_MAX && got[n - 1] == '\n' && !memchr(got, '\n', (size_t)n - 1));
    struct model m = model_json(got, (size_t)n - 1, 2);
    CHECK(m.valid && m.kind == '{' && m.children <= 3u + (unsigned)count);
    free(event);
    while (count > 0)
        free(lines[--count]);
    return 0;
}
