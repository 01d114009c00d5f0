/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `exec` and `repl`: the first byte says whose, each further line is one argument. */
#include "fuzz.h"

#include "cli/cli.h"

#define ARGS_MAX 12

static FILE *messages;
static char message[65536];

/* What the parser says is part of its promise; libFuzzer keeps the stream that it had before. Messages begin with the
 * name of the program that runs. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const struct cm_verb verbs[] = {{.words = NULL}};
    static const struct cm_flag flags[] = {{.words = NULL}};
    static const struct cm_program program = {
        .name = "codemode", .about = "", .verbs = verbs, .flags = flags, .exit_help = ""};

    CHECK(cm_args_run(&program, 0, NULL) == CM_EXIT_USAGE);
    (void)argc;
    (void)argv;
    messages = fmemopen(message, sizeof message, "w");
    CHECK(messages);
    unsetenv("CODEMODE_URL");
    unsetenv("WASM_MANAGER_SERVICE_URL");
    return 0;
}

static int parse(int argc, char **argv, bool with_code, struct cm_cli_options *ret)
{
    FILE *before = stderr;

    rewind(messages);
    memset(message, 0, 64);
    stderr = messages;
    int rc = cm_cli_options(argc, argv, with_code, ret);
    stderr = before;
    fflush(messages);
    return rc;
}

/* Every text of the outcome is an argument, or the end of one. */
static bool is_of(const char *text, int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (text >= argv[i] && text <= argv[i] + strlen(argv[i]))
            return true;
    return !text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, data + size};
    bool with_code = fuzz_byte(&in) & 1;
    char *argv[ARGS_MAX + 1] = {0};
    struct cm_cli_options o;
    int argc = 0;

    while (in.at < in.end && argc < ARGS_MAX)
        argv[argc++] = fuzz_line(&in);
    memset(&o, 0x5a, sizeof o);
    int rc = parse(argc, argv, with_code, &o);
    if (rc == CM_EXIT_OK) {
        CHECK(message[0] == '\0');
        CHECK(with_code || (!o.code && !o.file));
        CHECK(!o.code || !o.file);
        CHECK(o.target.timeout_s >= 0 && o.target.timeout_s < 1e19);
        CHECK(is_of(o.code, argc, argv) && is_of(o.file, argc, argv));
        CHECK(is_of(o.target.url, argc, argv) && is_of(o.target.session, argc, argv));
    } else {
        CHECK(rc == CM_EXIT_USAGE && strncmp(message, "codemode: ", 10) == 0);
        for (size_t i = 0; i < sizeof o; i++)
            CHECK(((char *)&o)[i] == 0x5a);
    }
    for (int i = 0; i < argc; i++)
        free(argv[i]);
    return 0;
}
