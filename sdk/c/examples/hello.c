/* SPDX-License-Identifier: Apache-2.0 */
/* A session, three executions, output as it is printed.
 *
 *     cc hello.c $(pkg-config --cflags --libs codemode) -o hello && ./hello [HOST:PORT]
 */
#include <codemode.h>
#include <stdio.h>

static bool show(void *arg, int stream, const char *data, size_t len, uint64_t omitted)
{
    (void)arg;
    if (omitted > 0)
        fprintf(stderr, "[%llu bytes left out]\n", (unsigned long long)omitted);
    fwrite(data, 1, len, stream == 2 ? stderr : stdout);
    return true;
}

static int run(struct codemode_client *client, const char *session, const char *code)
{
    struct codemode_request request = {.session = session, .code = code, .output = show};
    struct codemode_result *result;
    struct codemode_error error;

    if (codemode_execute(client, &request, &result, &error) < 0) {
        fprintf(stderr, "%s: %s\n", codemode_status_name(error.status), error.text);
        return 1;
    }
    if (result->success)
        printf("=> %s\n", result->result ? result->result : "None");
    else
        printf("!! %s\n", result->error);
    codemode_result_free(result);
    return 0;
}

int main(int argc, char **argv)
{
    struct codemode_options options = {.target = argc > 1 ? argv[1] : NULL};
    char session[CODEMODE_ID_SIZE];
    struct codemode_error error;
    struct codemode_client *client = codemode_open(&options, &error);

    if (!client || codemode_session_create(client, NULL, 0, session, &error) < 0) {
        fprintf(stderr, "%s: %s\n", codemode_status_name(error.status), error.text);
        codemode_close(client);
        return 1;
    }
    int rc = run(client, session, "x = 42\nprint('x is', x)");
    rc = rc ? rc : run(client, session, "x * 2");
    rc = rc ? rc : run(client, session, "1 / 0");
    codemode_session_delete(client, session, NULL);
    codemode_close(client);
    return rc;
}
