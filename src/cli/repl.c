/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <histedit.h>
#include <limits.h>
#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/lines.h"

#define CELL_MAX     (1u << 20)
#define HISTORY_MAX  1000
#define PATH_LEN_MAX 1024

static const char help[] =
    "usage: codemode repl [-s SESSION] [--url URL] [--timeout SECONDS] [--on-error keep|rollback]\n\n"
    "An interactive Python session in a sandbox. What begins a block, or stands in open brackets or a\n"
    "triple-quoted string, goes on in the next line; an empty line ends a block. Ctrl-C interrupts the running\n"
    "code, Ctrl-D or exit() ends. Lines are remembered in codemode/history under XDG_STATE_HOME (~/.local/state).\n\n"
    "  -s, --session ID     work in this session of the sidecar, and leave it as it is then\n"
    "  --url URL            the sidecar; default CODEMODE_URL, then WASM_MANAGER_SERVICE_URL; with neither, a\n"
    "                       private sandbox is started\n"
    "  --timeout SECONDS    limit of each execution, e.g. 2.5 or 250ms\n"
    "  --on-error WHAT      keep (the default) or rollback: an input that fails leaves no trace in the variables\n\n";

/* Where lines come from: a person at a terminal, or a pipe. */
struct input {
    EditLine *edit; /* NULL for a pipe */
    History *history;
    char history_path[PATH_LEN_MAX];
    struct termios normal; /* the terminal as we found it */
    bool continued;        /* the prompt says so */
    char *line;     /* of getline */
    size_t size;
};

static char *prompt(EditLine *edit)
{
    static char first[] = ">>> ", more[] = "... ";
    struct input *in = NULL;

    el_get(edit, EL_CLIENTDATA, &in);
    return in->continued ? more : first;
}

/* One character of the terminal. libedit's own reader would take Ctrl-C for a hiccup and go on. */
static int read_char(EditLine *edit, wchar_t *ret)
{
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = cm_interrupt_fd(), .events = POLLIN}};
    mbstate_t state = {0};
    char byte;

    (void)edit;
    for (int i = 0; i < MB_LEN_MAX; i++) {
        while (poll(fds, 2, -1) < 0)
            if (errno != EINTR)
                return -1;
        if (fds[1].revents)
            return -1;
        if (read(STDIN_FILENO, &byte, 1) <= 0)
            return 0;
        size_t n = mbrtowc(ret, &byte, 1, &state);
        if (n != (size_t)-2)
            return n == (size_t)-1 ? -1 : 1;
    }
    return -1;
}

static void make_parents(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700); /* where it fails, there is just no history */
        *slash = '/';
    }
}

static void open_history(struct input *in)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    HistEvent ev;

    in->history = history_init();
    if (!in->history)
        return;
    history(in->history, &ev, H_SETSIZE, HISTORY_MAX);
    history(in->history, &ev, H_SETUNIQUE, 1);
    el_set(in->edit, EL_HIST, history, in->history);
    int n = state && *state == '/' ? snprintf(in->history_path, PATH_LEN_MAX, "%s/codemode/history", state)
            : home && *home == '/' ? snprintf(in->history_path, PATH_LEN_MAX, "%s/.local/state/codemode/history", home)
                                   : 0;
    if (n <= 0 || n >= PATH_LEN_MAX) {
        in->history_path[0] = '\0';
        return;
    }
    make_parents(in->history_path);
    history(in->history, &ev, H_LOAD, in->history_path);
}

/* While code runs, keys are kept as they are for the next prompt. In the terminal's own line mode, a Ctrl-D that
 * comes too early would be lost. Ctrl-C still interrupts. */
static void gather_keys(const struct input *in)
{
    struct termios t = in->normal;

    t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &t);
}

static void release_keys(const struct input *in)
{
    tcsetattr(STDIN_FILENO, TCSANOW, &in->normal);
}

static void open_input(struct input *in)
{
    *in = (struct input){0};
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        setlocale(LC_CTYPE, "");
    if (tcgetattr(STDIN_FILENO, &in->normal) < 0 || !(in->edit = el_init("codemode", stdin, stdout, stderr)))
        return;
    el_set(in->edit, EL_CLIENTDATA, in);
    el_set(in->edit, EL_PROMPT, prompt);
    el_set(in->edit, EL_EDITOR, "emacs");
    el_set(in->edit, EL_SIGNAL, 0);
    el_set(in->edit, EL_GETCFN, read_char);
    el_set(in->edit, EL_BIND, "^I", "ed-insert", NULL); /* a tab is an indent */
    open_history(in);
    gather_keys(in);
}

static void close_input(struct input *in)
{
    HistEvent ev;

    if (in->history && in->history_path[0])
        history(in->history, &ev, H_SAVE, in->history_path);
    if (in->edit) {
        release_keys(in);
        el_end(in->edit);
    }
    if (in->history)
        history_end(in->history);
    free(in->line);
}

static const char *read_piped(struct input *in)
{
    return getline(&in->line, &in->size, stdin) < 0 ? NULL : in->line;
}

static const char *read_typed(struct input *in)
{
    HistEvent ev;
    int count;

    release_keys(in);
    /* el_gets() shows the prompt before it takes the terminal out of line mode: a Ctrl-D typed in between is lost. */
    el_set(in->edit, EL_PREP_TERM, 1);
    const char *line = el_gets(in->edit, &count);
    gather_keys(in);
    if (line && count > 1 && in->history)
        history(in->history, &ev, H_ENTER, line);
    return line && count > 0 ? line : NULL;
}

enum cell { CELL_READY, CELL_DROPPED, CELL_END };

/* Ctrl-C at the prompt: what was typed is forgotten. */
static enum cell drop(struct input *in)
{
    fputs("\nKeyboardInterrupt\n", stdout);
    el_reset(in->edit);
    return CELL_DROPPED;
}

/* Gathers lines until they make a whole. A text that ends early is taken as it is. */
static enum cell read_cell(struct input *in, struct cm_buf *cell)
{
    cm_buf_clear(cell);
    do {
        in->continued = cell->len > 0;
        errno = 0;
        const char *line = in->edit ? read_typed(in) : read_piped(in);
        if (cm_interrupt_take() && in->edit)
            return drop(in);
        if (!line)
            return cell->len > 0 ? CELL_READY : CELL_END;
        int rc = cm_buf_puts(cell, line);
        if (rc == 0 && line[strlen(line) - 1] != '\n')
            rc = cm_buf_puts(cell, "\n");
        if (rc < 0) {
            cm_args_error(0, "this is too long for one input");
            return CELL_DROPPED;
        }
    } while (cm_cli_needs_more(cm_buf_data(cell), cell->len));
    return CELL_READY;
}

static bool is_farewell(const char *cell)
{
    static const char *const words[] = {"exit\n", "quit\n", "exit()\n", "quit()\n", NULL};

    for (size_t i = 0; words[i]; i++)
        if (strcmp(cell, words[i]) == 0)
            return true;
    return false;
}

static bool is_blank(const char *cell)
{
    return cell[strspn(cell, " \t\r\n")] == '\0';
}

/* Exceptions and refused cells do not end the session; losing the sandbox does. */
static int run_cell(struct cm_backend *b, struct cm_buf *cell)
{
    struct cm_outcome o;
    struct cm_err err;

    fflush(stdout);
    if (b->run(b, cm_buf_data(cell), cell->len, &o, &err) < 0)
        return cm_args_error(cm_backend_is_lost(&err) ? CM_EXIT_UNAVAILABLE : CM_EXIT_OK, "%s", err.text);
    cm_cli_show(&o);
    return CM_EXIT_OK;
}

static int loop(struct cm_backend *b, struct input *in)
{
    cm_autobuf struct cm_buf cell;
    enum cell got;
    int rc = CM_EXIT_OK;

    cm_buf_init(&cell, CELL_MAX);
    while (rc == CM_EXIT_OK && (got = read_cell(in, &cell)) != CELL_END) {
        if (got == CELL_DROPPED || is_blank(cm_buf_data(&cell)))
            continue;
        if (is_farewell(cm_buf_data(&cell)))
            return CM_EXIT_OK;
        rc = run_cell(b, &cell);
    }
    if (rc == CM_EXIT_OK && in->edit)
        putchar('\n');
    return rc;
}

int cm_cli_repl(int argc, char **argv)
{
    struct cm_backend *b = NULL;
    struct cm_cli_options o;
    struct input in;
    struct cm_err err;
    int rc = cm_cli_options(argc, argv, false, &o);

    if (rc != CM_EXIT_OK)
        return rc;
    if (o.help) {
        printf("%s%s", help, cm_cli_exit_help);
        return CM_EXIT_OK;
    }
    o.target.keep_state = true;
    if (cm_interrupt_open(&err) < 0 || cm_backend_open(&o.target, &b, &err) < 0)
        return cm_args_error(err.code == CM_ERR_CONFIG ? CM_EXIT_USAGE : CM_EXIT_UNAVAILABLE, "%s", err.text);
    open_input(&in);
    if (in.edit)
        printf("Codemode %s: Python in a sandbox. Ctrl-D ends, --help tells more.\n", CM_VERSION);
    rc = loop(b, &in);
    close_input(&in);
    cm_backend_close(b);
    return rc;
}
