/* SPDX-License-Identifier: Apache-2.0 */
/* Tools in C: serves `weather` and `add` until its standard input ends, and says first on which port.
 *
 *     cc weather.c $(pkg-config --cflags --libs codemode) -o weather && ./weather [PORT]
 *
 * A sidecar that was told of this port (CODEMODE_MAIN_APP_TARGET=localhost:PORT) runs code that says
 * tools["weather"].run(city="Oslo"), or await tools["add"].run(a=1, b=2).
 */
#include <codemode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Good enough for the two schemas below, which the sidecar has checked. A real program has a JSON parser. */
static const char *member(const char *json, const char *name)
{
    char quoted[64];
    const char *at;

    snprintf(quoted, sizeof quoted, "\"%s\":", name);
    at = strstr(json, quoted);
    return at ? at + strlen(quoted) : NULL;
}

static void weather(void *arg, struct codemode_call *call)
{
    const char *city = member(codemode_call_arguments(call), "city");
    size_t len = city && *city == '"' ? strcspn(city + 1, "\"\\") : 0;
    char answer[300];

    (void)arg;
    if (len == 0 || len > 100) {
        codemode_answer_error(call, "there is no such city");
        return;
    }
    snprintf(answer, sizeof answer, "{\"city\":\"%.*s\",\"temperature\":%zu}", (int)len, city + 1, len * 3);
    codemode_answer(call, answer);
}

static void add(void *arg, struct codemode_call *call)
{
    const char *a = member(codemode_call_arguments(call), "a"), *b = member(codemode_call_arguments(call), "b");
    char answer[64];

    (void)arg;
    snprintf(answer, sizeof answer, "%.15g", strtod(a ? a : "0", NULL) + strtod(b ? b : "0", NULL));
    codemode_answer(call, answer);
}

static const struct codemode_tool list[] = {
    {.name = "weather",
     .description = "How warm it is in a city.",
     .input_schema = "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":[\"city\"]}",
     .run = weather},
    {.name = "add",
     .description = "The sum of two numbers.",
     .input_schema = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\"},\"b\":{\"type\":\"number\"}},"
                     "\"required\":[\"a\",\"b\"]}",
     .is_async = true,
     .run = add},
};

int main(int argc, char **argv)
{
    struct codemode_tools_options options = {.port = argc > 1 ? (unsigned)atoi(argv[1]) : 0};
    struct codemode_error error;
    struct codemode_tools *tools = codemode_tools_new(&options, &error);
    int rc = tools ? 0 : -1;

    for (size_t i = 0; rc == 0 && i < sizeof list / sizeof list[0]; i++)
        rc = codemode_tools_add(tools, &list[i], &error);
    rc = rc ? rc : codemode_tools_start(tools, &error);
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", codemode_status_name(error.status), error.text);
        codemode_tools_free(tools);
        return 1;
    }
    printf("%u\n", codemode_tools_port(tools));
    fflush(stdout);
    while (getchar() != EOF)
        ;
    codemode_tools_stop(tools, 5);
    codemode_tools_free(tools);
    return 0;
}
