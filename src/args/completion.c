/* SPDX-License-Identifier: Apache-2.0 */
/* `completion`: one shell function, made of the tables of verbs and settings. */
#include <stdio.h>
#include <string.h>

#include "args/args.h"
#include "conf/schema.h"

#define FIRST_MAX 64

/* The first words of all verbs, each once, separated by blanks. */
static void put_first_words(void)
{
    const char *seen = "";

    for (const struct cm_verb *v = cm_args_program()->verbs; v->words; v++) {
        size_t len = strcspn(v->words, " ");
        bool again = strncmp(seen, v->words, len) == 0 && (seen[len] == ' ' || !seen[len]);
        if (again)
            continue;
        printf("%s%.*s", *seen ? " " : "", (int)len, v->words);
        seen = v->words;
    }
}

static void put_second_words(const char *group)
{
    size_t len = strlen(group);

    for (const struct cm_verb *v = cm_args_program()->verbs; v->words; v++)
        if (strncmp(v->words, group, len) == 0 && v->words[len] == ' ')
            printf(" %s", v->words + len + 1);
}

/* `init) second=" client sidecar" ;;` for each group. */
static void put_groups(void)
{
    char seen[FIRST_MAX] = "";

    for (const struct cm_verb *v = cm_args_program()->verbs; v->words; v++) {
        size_t len = strcspn(v->words, " ");
        char group[FIRST_MAX];
        snprintf(group, sizeof group, "%.*s", (int)len, v->words);
        if (!v->words[len] || strcmp(seen, group) == 0)
            continue;
        printf("    %s) second=\"", group);
        put_second_words(group);
        puts("\" ;;");
        snprintf(seen, sizeof seen, "%s", group);
    }
}

static bool is_own(const struct cm_flag *f, const struct cm_verb *v)
{
    return strcmp(f->words, v->words) == 0;
}

static void put_flags(const struct cm_verb *v)
{
    printf("    \"%s\") flags=\"-h --help", v->words);
    for (const struct cm_flag *f = cm_args_program()->flags; f->words; f++)
        if (is_own(f, v))
            printf("%s%s %s", *f->letter ? " -" : "", f->letter, f->name);
    for (size_t i = 0; v->settings && i < cm_args_program()->settings->count; i++)
        printf(" %s", cm_args_program()->settings->rows[i].flag);
    printf("%s\"", v->settings ? " -c --config" : "");
    if (strchr(v->operands, '|') && !strchr(v->operands, '-')) {
        printf(" operands=\"");
        for (const char *at = v->operands; *at; at++)
            if (!strchr("[]", *at))
                putchar(*at == '|' ? ' ' : *at);
        putchar('"');
    }
    puts(" ;;");
}

/* What may stand behind a flag: a file, a folder, one of some words, anything. */
static void put_value(const char *verb, const char *letter, const char *name, const char *value)
{
    printf("    \"%s %s\"", verb, name);
    if (*letter)
        printf("|\"%s -%s\"", verb, letter);
    if (strcmp(value, "FILE") == 0)
        puts(") kind=file ;;");
    else if (strcmp(value, "DIR") == 0)
        puts(") kind=folder ;;");
    else if (strchr(value, '|')) {
        fputs(") kind=words words=\"", stdout);
        for (; *value; value++)
            putchar(*value == '|' ? ' ' : *value);
        puts("\" ;;");
    } else
        puts(") kind=text ;;");
}

static const char *value_of(const struct cm_row *row)
{
    return row->type == CM_ROW_PATH    ? "FILE"
           : row->type == CM_ROW_LEVEL ? "DEBUG|INFO|WARNING|ERROR"
           : row->type == CM_ROW_BOOL  ? "true|false"
                                       : "TEXT";
}

static void put_values(const struct cm_verb *v)
{
    for (const struct cm_flag *f = cm_args_program()->flags; f->words; f++)
        if (is_own(f, v) && f->kind != CM_FLAG_SWITCH)
            put_value(v->words, f->letter, f->name, f->value);
    if (!v->settings)
        return;
    put_value(v->words, "c", "--config", "FILE");
    for (size_t i = 0; i < cm_args_program()->settings->count; i++)
        put_value(v->words, "", cm_args_program()->settings->rows[i].flag,
                  value_of(&cm_args_program()->settings->rows[i]));
}

static void put_script(void)
{
    printf("_%s() {\n", cm_args_program()->name);
    puts("    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]}\n"
         "    local second= flags= operands= kind= words=\n"
         "    COMPREPLY=()\n"
         "    if [ \"$COMP_CWORD\" -eq 1 ]; then");
    fputs("        COMPREPLY=($(compgen -W \"--help --version ", stdout);
    put_first_words();
    puts("\" -- \"$cur\"))\n"
         "        return\n"
         "    fi\n"
         "    case $verb in");
    put_groups();
    puts("    esac\n"
         "    case \"$second \" in *\" ${COMP_WORDS[2]} \"*)\n"
         "        [ \"$COMP_CWORD\" -eq 2 ] || { verb=\"$verb ${COMP_WORDS[2]}\"; second=; } ;;\n"
         "    esac\n"
         "    case \"$verb $prev\" in");
    for (const struct cm_verb *v = cm_args_program()->verbs; v->words; v++)
        put_values(v);
    puts("    esac\n"
         "    case $kind in\n"
         "    file) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
         "    folder) COMPREPLY=($(compgen -d -- \"$cur\")); return ;;\n"
         "    words) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")); return ;;\n"
         "    text) return ;;\n"
         "    esac\n"
         "    case $verb in");
    for (const struct cm_verb *v = cm_args_program()->verbs; v->words; v++)
        put_flags(v);
    puts("    esac\n"
         "    [ \"$COMP_CWORD\" -eq 2 ] || second=\n"
         "    COMPREPLY=($(compgen -W \"$second $operands $flags\" -- \"$cur\"))\n"
         "}");
    printf("complete -o default -F _%s %s\n", cm_args_program()->name, cm_args_program()->name);
}

int cm_args_completion(const struct cm_args *args)
{
    bool bash = args->operand && strcmp(args->operand, "bash") == 0;
    bool zsh = args->operand && strcmp(args->operand, "zsh") == 0;

    if (!bash && !zsh)
        return cm_args_error(CM_EXIT_USAGE, "completion: of which shell, bash or zsh?");
    if (zsh)
        puts("autoload -U +X compinit && compinit -u\nautoload -U +X bashcompinit && bashcompinit");
    put_script();
    return CM_EXIT_OK;
}
