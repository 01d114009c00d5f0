/* SPDX-License-Identifier: Apache-2.0 */
#include "args/args.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/words.h"

/* One per process: the one that runs. */
static const struct cm_program *program;

#define WORDS_MAX 64 /* verbs, and flags of one verb */

void cm_args_print(FILE *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        bool c1 = c == 0xc2 && i + 1 < len && (unsigned char)text[i + 1] < 0xa0; /* controls beyond ASCII */
        if (c1)
            i++;
        else if (c == '\t' || c == '\n' || (c >= ' ' && c != 0x7f))
            fputc(c, out);
    }
}

int cm_args_error(int exit_code, const char *format, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, format);
    int len = vasprintf(&text, format, ap);
    va_end(ap);
    fprintf(stderr, "%s: ", program->name);
    if (len >= 0)
        cm_args_print(stderr, text, (size_t)len); /* it may quote what code or a model has said */
    fputc('\n', stderr);
    if (len >= 0)
        free(text);
    return exit_code;
}

int cm_args_unloaded(const struct cm_err *err)
{
    return cm_args_error(err->code == CM_ERR_NO_MEMORY ? CM_EXIT_UNAVAILABLE : CM_EXIT_USAGE, "%s", err->text);
}

const struct cm_program *cm_args_program(void)
{
    return program;
}

/* reading the arguments of a verb */

static const struct cm_flag *find_flag(const struct cm_verb *verb, const char *arg, const char **ret_value)
{
    for (const struct cm_flag *f = program->flags; f->words; f++) {
        size_t len = strlen(f->name);
        if (strcmp(f->words, verb->words) != 0)
            continue;
        *ret_value = NULL;
        if (strcmp(arg, f->name) == 0 || (arg[1] == f->letter[0] && arg[1] && !arg[2]))
            return f;
        *ret_value = arg + len + 1;
        if (f->kind != CM_FLAG_SWITCH && strncmp(arg, f->name, len) == 0 && arg[len] == '=')
            return f;
    }
    return NULL;
}

static int unknown_flag(const struct cm_verb *verb, const char *arg)
{
    const char *known[WORDS_MAX] = {0};
    size_t n = 0;

    for (const struct cm_flag *f = program->flags; f->words && n < WORDS_MAX - 2; f++)
        if (strcmp(f->words, verb->words) == 0)
            known[n++] = f->name;
    known[n] = "--help";
    const char *near = cm_word_nearest(arg, known);
    if (near)
        return cm_args_error(CM_EXIT_USAGE, "unknown flag \"%s\"; did you mean %s?", arg, near);
    return cm_args_error(CM_EXIT_USAGE, "unknown flag \"%s\"; %s %s --help lists all", arg, program->name, verb->words);
}

static int give(struct cm_args *a, const struct cm_flag *flag, const char *value)
{
    if (a->count == CM_ARGS_MAX)
        return cm_args_error(CM_EXIT_USAGE, "%s: more than %d values", flag->name, CM_ARGS_MAX);
    a->given[a->count].flag = flag;
    a->given[a->count++].value = value;
    return CM_EXIT_OK;
}

static bool is_flag(const char *arg)
{
    return arg[0] == '-' && arg[1] != '\0';
}

/* The flag at argv[*i] and its values; *i is the last argument that it took. */
static int read_flag(struct cm_args *a, const struct cm_flag *flag, const char *value, int argc, char **argv, int *i)
{
    bool more = !value && flag->kind == CM_FLAG_MANY;

    if (flag->kind == CM_FLAG_SWITCH)
        return give(a, flag, NULL);
    if (!value && (*i + 1 >= argc || (more && is_flag(argv[*i + 1]))))
        return cm_args_error(CM_EXIT_USAGE, "%s: needs a value", argv[*i]);
    int rc = give(a, flag, value ? value : argv[++*i]);
    while (rc == CM_EXIT_OK && more && *i + 1 < argc && !is_flag(argv[*i + 1]))
        rc = give(a, flag, argv[++*i]);
    return rc;
}

int cm_args_read(const struct cm_verb *verb, int argc, char **argv, struct cm_args *ret)
{
    struct cm_args a = {.verb = verb};

    for (int i = 0; i < argc; i++) {
        const char *value = NULL;
        const struct cm_flag *flag = is_flag(argv[i]) ? find_flag(verb, argv[i], &value) : NULL;
        if (is_flag(argv[i]) && !flag)
            return unknown_flag(verb, argv[i]);
        if (!flag && (a.operand || verb->most == 0))
            return cm_args_error(CM_EXIT_USAGE, "\"%s\" is one argument too many; %s %s --help tells more", argv[i],
                                 program->name, verb->words);
        if (!flag)
            a.operand = argv[i];
        int rc = flag ? read_flag(&a, flag, value, argc, argv, &i) : CM_EXIT_OK;
        if (rc != CM_EXIT_OK)
            return rc;
    }
    *ret = a;
    return CM_EXIT_OK;
}

const char *cm_args_text(const struct cm_args *args, const char *name)
{
    for (unsigned i = args->count; i-- > 0;)
        if (strcmp(args->given[i].flag->name, name) == 0)
            return args->given[i].value;
    for (const struct cm_flag *f = program->flags; f->words; f++)
        if (strcmp(f->words, args->verb->words) == 0 && strcmp(f->name, name) == 0)
            return *f->def ? f->def : NULL;
    return NULL;
}

bool cm_args_has(const struct cm_args *args, const char *name)
{
    for (unsigned i = 0; i < args->count; i++)
        if (strcmp(args->given[i].flag->name, name) == 0)
            return true;
    return false;
}

/* help */

void cm_verb_help(const struct cm_verb *verb, FILE *out)
{
    fprintf(out, "usage: %s %s [flags]%s%s\n\n%s\n", program->name, verb->words, *verb->operands ? " " : "",
            verb->operands, verb->brief);
    if (*verb->more)
        fprintf(out, "\n%s\n", verb->more);
    fputs("\nflags\n", out);
    for (const struct cm_flag *f = program->flags; f->words; f++) {
        if (strcmp(f->words, verb->words) != 0)
            continue;
        fprintf(out, "  %s%s%s%s%s%s%s\n      %s\n", *f->letter ? "-" : "", f->letter, *f->letter ? ", " : "", f->name,
                *f->value ? " " : "", f->value, f->kind == CM_FLAG_MANY ? "..." : "", f->help);
        if (*f->def)
            fprintf(out, "      default: %s\n", f->def);
    }
    fputs("  -h, --help\n      this text\n", out);
}

/* Those that begin with the group's word, or all: "" */
static void list_verbs(const char *group, FILE *out)
{
    size_t len = strlen(group);

    for (const struct cm_verb *v = program->verbs; v->words; v++)
        if (strncmp(v->words, group, len) == 0 && (len == 0 || v->words[len] == ' ' || !v->words[len]))
            fprintf(out, "  %-21s %s\n", v->words, v->brief);
}

static int print_help(FILE *out)
{
    fprintf(out, "usage: %s VERB [arguments]\n\n%s\n\n", program->name, program->about);
    list_verbs("", out);
    fprintf(out, "\n%s VERB --help tells more.\n%s", program->name, program->exit_help);
    return CM_EXIT_OK;
}

static int print_group(const char *group)
{
    printf("usage: %s %s VERB [flags]\n\n", program->name, group);
    list_verbs(group, stdout);
    printf("\n%s %s VERB --help tells more.\n", program->name, group);
    return CM_EXIT_OK;
}

/* finding the verb */

bool cm_args_is_help(const char *arg)
{
    return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0;
}

bool cm_args_want_help(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (cm_args_is_help(argv[i]))
            return true;
    return false;
}

static bool is_group(const char *word)
{
    size_t len = strlen(word);

    for (const struct cm_verb *v = program->verbs; v->words; v++)
        if (strncmp(v->words, word, len) == 0 && v->words[len] == ' ')
            return true;
    return false;
}

static const struct cm_verb *find_verb(const char *words)
{
    for (const struct cm_verb *v = program->verbs; v->words; v++)
        if (strcmp(v->words, words) == 0)
            return v;
    return NULL;
}

static int unknown_verb(const char *words, const char *group)
{
    const char *known[WORDS_MAX] = {0};
    size_t n = 0;

    for (const struct cm_verb *v = program->verbs; v->words && n < WORDS_MAX - 1; v++)
        known[n++] = v->words;
    const char *near = cm_word_nearest(words, known);
    if (near)
        return cm_args_error(CM_EXIT_USAGE, "unknown verb \"%s\"; did you mean %s?", words, near);
    return cm_args_error(CM_EXIT_USAGE, "unknown verb \"%s\"; %s%s%s --help lists all", words, program->name,
                         *group ? " " : "", group);
}

static int run_verb(const struct cm_verb *verb, int argc, char **argv)
{
    struct cm_args args;

    if (verb->run_raw)
        return verb->run_raw(argc, argv);
    for (int i = 0; i < argc; i++)
        if (cm_args_is_help(argv[i])) {
            cm_verb_help(verb, stdout);
            return CM_EXIT_OK;
        }
    int rc = cm_args_read(verb, argc, argv, &args);
    return rc == CM_EXIT_OK ? verb->run(&args) : rc;
}

/* `GROUP ...`; a group may be a verb of its own, too ("init"). */
static int run_group(const char *group, int argc, char **argv)
{
    const struct cm_verb *own = find_verb(group);
    char words[128];

    if (argc == 0 || is_flag(argv[0])) {
        if (argc > 0 && cm_args_is_help(argv[0])) {
            if (own)
                cm_verb_help(own, stdout);
            return print_group(group);
        }
        if (own)
            return run_verb(own, argc, argv);
        return cm_args_error(CM_EXIT_USAGE, "%s: which one? %s %s --help lists all", group, program->name, group);
    }
    snprintf(words, sizeof words, "%s %s", group, argv[0]);
    const struct cm_verb *verb = find_verb(words);
    return verb ? run_verb(verb, argc - 1, argv + 1) : unknown_verb(words, group);
}

int cm_args_run(const struct cm_program *which, int argc, char **argv)
{
    program = which;
    if (argc == 0) {
        print_help(stderr);
        return CM_EXIT_USAGE;
    }
    if (cm_args_is_help(argv[0]) || strcmp(argv[0], "help") == 0)
        return print_help(stdout);
    if (is_group(argv[0]))
        return run_group(argv[0], argc - 1, argv + 1);
    const struct cm_verb *verb = find_verb(strcmp(argv[0], "--version") == 0 ? "version" : argv[0]);
    return verb ? run_verb(verb, argc - 1, argv + 1) : unknown_verb(argv[0], "");
}
