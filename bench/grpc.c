/* SPDX-License-Identifier: Apache-2.0 */
/* Executions over gRPC through libcodemode, one after the other in one session: nanoseconds of each, a line.
 *
 *     bench-grpc HOST:PORT COUNT CODE RESULT
 */
#include <codemode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static long long now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int measure(struct codemode_client *client, const struct codemode_request *request, const char *want, bool show,
                   struct codemode_error *err)
{
    struct codemode_result *result;
    long long begun = now();

    if (codemode_execute_once(client, request, &result, err) < 0)
        return -1;
    long long took = now() - begun;
    int rc = strcmp(result->result, want) == 0 ? 0 : -1;
    if (rc < 0)
        snprintf(err->text, sizeof err->text, "got %.100s %.200s", result->result, result->error);
    codemode_result_free(result);
    if (show)
        printf("%lld\n", took);
    return rc;
}

int main(int argc, char **argv)
{
    char session[CODEMODE_ID_SIZE];
    struct codemode_error err = {.text = "usage"};

    if (argc != 5)
        return 2;
    struct codemode_options options = {.target = argv[1], .api_key = ""};
    struct codemode_client *client = codemode_open(&options, &err);
    struct codemode_request request = {.session = session, .code = argv[3]};
    int count = atoi(argv[2]), rc = client ? codemode_session_create(client, NULL, 0, session, &err) : -1;
    for (int i = -100; rc == 0 && i < count; i++)
        rc = measure(client, &request, argv[4], i >= 0, &err);
    if (rc < 0)
        fprintf(stderr, "%s\n", err.text);
    if (client)
        codemode_session_delete(client, session, NULL);
    codemode_close(client);
    return rc < 0;
}
