/* SPDX-License-Identifier: Apache-2.0 */
/* `rlm complete`: its flags, its context, and what it prints in the end. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "obs/log.h"
#include "rlm_cli/cli.h"
#include "rlm_cli/complete.h"
#include "wire/json.h"

#define TICK_MS    100
#define FLAGS_MAX  256
#define RESULT_MAX (256u << 20)

/* Flags: ours, and those of the settings, which are passed on. */

struct own_flag {
    const char *name, *letter;
    const char **text; /* or NULL, and */
    bool *on;
};

static const struct own_flag *find(const struct own_flag *flags, const char *arg, const char **ret_value)
{
    for (; flags->name; flags++) {
        size_t len = strlen(flags->name);
        *ret_value = NULL;
        if (strcmp(arg, flags->name) == 0 || (flags->letter && strcmp(arg, flags->letter) == 0))
            return flags;
        *ret_value = arg + len + 1;
        if (flags->text && strncmp(arg, flags->name, len) == 0 && arg[len] == '=')
            return flags;
    }
    return NULL;
}

static int read_flags(struct completion *c, int argc, char **argv, char **rest, int *ret_rest)
{
    const struct own_flag flags[] = {
        {"--query", "-q", &c->query, NULL},
        {"--context", NULL, &c->context_name, NULL},
        {"--type", NULL, &c->type, NULL},
        {"--url", NULL, &c->url, NULL},
        {"--trajectory", NULL, &c->trajectory, NULL},
        {"--json", NULL, NULL, &c->json},
        {"--quiet", NULL, NULL, &c->quiet},
        {NULL, NULL, NULL, NULL},
    };
    int n = 0;

    for (int i = 0; i < argc && n < FLAGS_MAX; i++) {
        const char *value = NULL;
        const struct own_flag *f = find(flags, argv[i], &value);
        if (!f) {
            rest[n++] = argv[i];
            continue;
        }
        if (f->on) {
            *f->on = true;
            continue;
        }
        if (!value && i + 1 >= argc)
            return cm_args_error(CM_EXIT_USAGE, "%s: needs a value", argv[i]);
        *f->text = value ? value : argv[++i];
    }
    *ret_rest = n;
    return CM_EXIT_OK;
}

/* The context */

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);

    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* What comes through a pipe has no length: it goes to a file in memory first. */
static int copy_stream(int from, uint64_t max, int *ret, uint64_t *ret_len)
{
    cm_autofd int fd = memfd_create("context", MFD_CLOEXEC);
    char piece[65536];
    uint64_t len = 0;
    ssize_t n = 0;

    while (fd >= 0 && len <= max && (n = read(from, piece, sizeof piece)) > 0) {
        if (cm_fd_write_all(fd, piece, (size_t)n) < 0)
            break;
        len += (uint64_t)n;
    }
    if (fd < 0 || n != 0)
        return cm_args_error(CM_EXIT_USAGE, len > max ? "the context is longer than MAX_CONTEXT" : "the context: %s",
                             strerror(errno));
    *ret = cm_steal_fd(&fd);
    *ret_len = len;
    return CM_EXIT_OK;
}

static int open_context(struct completion *c)
{
    const char *name = c->context_name;
    bool standard = name && strcmp(name, "-") == 0;
    struct stat st;

    c->context.fd = -1;
    if (c->type && strcmp(c->type, "text") != 0 && strcmp(c->type, "json") != 0)
        return cm_args_error(CM_EXIT_USAGE, "--type: \"%s\" is neither text nor json", c->type);
    if (!name)
        return CM_EXIT_OK;
    c->context.kind =
        (c->type ? strcmp(c->type, "json") == 0 : ends_with(name, ".json")) ? CM_CONTEXT_JSON : CM_CONTEXT_TEXT;
    cm_autofd int fd = standard ? dup(STDIN_FILENO) : open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return cm_args_error(CM_EXIT_USAGE, "%s: %s", name, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return cm_args_error(CM_EXIT_USAGE, "%s: is a folder", name);
    if (!S_ISREG(st.st_mode) || standard)
        return copy_stream(fd, c->conf.max_context, &c->context.fd, &c->context.len);
    if ((uint64_t)st.st_size > c->conf.max_context)
        return cm_args_error(CM_EXIT_USAGE, "%s: longer than MAX_CONTEXT", name);
    c->context.len = (uint64_t)st.st_size;
    c->context.fd = cm_steal_fd(&fd);
    return CM_EXIT_OK;
}

/* While it works */

void complete_event(struct completion *c, const char *type, const char *json, size_t len)
{
    struct cm_buf line;

    view_event(&c->view, type, json, len);
    if (!c->trajectory_file || cm_infer_trajectory_part(type, json, len) == CM_PART_NONE)
        return;
    cm_buf_init(&line, RESULT_MAX);
    if (cm_infer_trajectory_put(&c->lines, type[0], json, len, &line) == 0)
        fwrite(cm_buf_data(&line), 1, line.len, c->trajectory_file);
    fflush(c->trajectory_file);
    cm_buf_done(&line);
}

static void on_tick(void *arg)
{
    struct completion *c = arg;

    view_tick(&c->view);
}

/* The first one asks, the second one does not wait for the answer. */
static void on_interrupt(void *arg, int signum)
{
    struct completion *c = arg;

    (void)signum;
    if (++c->interrupts > 1 || !c->cancel) {
        c->exit_code = CM_EXIT_INTERRUPTED;
        cm_loop_stop(c->loop);
        return;
    }
    snprintf(c->view.what, sizeof c->view.what, "stopping; once more ends it at once");
    c->cancel(c);
}

/* The end */

static int put_text(struct cm_buf *b, const char *name, const char *text, size_t len)
{
    int rc = cm_buf_printf(b, ",\"%s\":", name);

    return rc < 0 ? rc : text ? cm_json_put_string(b, text, len) : cm_buf_puts(b, "null");
}

static int put_result(struct cm_buf *b, const char *run_id, const struct cm_rlm_result *r)
{
    int rc = cm_buf_printf(b, "{\"success\":%s,\"run_id\":\"%s\"", r->answer ? "true" : "false", run_id);

    if (rc < 0 || (rc = put_text(b, "answer", r->answer, r->answer_len)) < 0 ||
        (rc = put_text(b, "error", r->err.code ? r->err.text : NULL, strlen(r->err.text))) < 0 ||
        (rc = put_text(b, "code", r->err.code ? cm_err_info(r->err.code)->short_name : NULL,
                       strlen(cm_err_info(r->err.code)->short_name))) < 0 ||
        (rc = put_text(b, "partial_answer", r->answer ? NULL : r->partial, r->partial_len)) < 0)
        return rc;
    return cm_buf_printf(b, ",\"iterations\":%u,\"execution_time\":%.6f,\"usage\":%s}\n", r->iterations, r->seconds,
                         r->usage && *r->usage ? r->usage : "{}");
}

static void print_json(const char *run_id, const struct cm_rlm_result *res)
{
    struct cm_buf b;

    cm_buf_init(&b, RESULT_MAX);
    if (put_result(&b, run_id, res) == 0)
        fwrite(cm_buf_data(&b), 1, b.len, stdout);
    cm_buf_done(&b);
}

/* As it is, but for what would work on a terminal. */
static void print_words(const char *text, size_t len)
{
    if (isatty(STDOUT_FILENO))
        cm_args_print(stdout, text, len);
    else
        fwrite(text, 1, len, stdout);
    if (len == 0 || text[len - 1] != '\n')
        fputc('\n', stdout);
}

static int exit_code_of(const struct cm_rlm_result *res)
{
    switch (res->err.code) {
    case 0:
        return CM_EXIT_OK;
    case CM_ERR_CANCELLED:
        return CM_EXIT_INTERRUPTED;
    case CM_ERR_LIMIT_TIMEOUT:
        return CM_EXIT_TIMEOUT;
    case CM_ERR_SIDECAR:
        return CM_EXIT_UNAVAILABLE;
    default:
        return CM_EXIT_FAILED;
    }
}

void complete_done(struct completion *c, const char *run_id, const struct cm_rlm_result *res)
{
    view_end(&c->view);
    c->exit_code = exit_code_of(res);
    if (!res->answer)
        cm_args_error(0, "%s%s", res->err.text, res->partial_len > 0 && !c->json ? "; what there is so far:" : "");
    if (c->json)
        print_json(run_id, res);
    else if (res->answer || res->partial_len > 0)
        print_words(res->answer ? res->answer : res->partial, res->answer ? res->answer_len : res->partial_len);
    fflush(stdout);
    c->cancel = NULL;
    cm_loop_stop(c->loop);
}

void complete_fail(struct completion *c, int exit_code, const char *text)
{
    view_end(&c->view);
    c->exit_code = cm_args_error(exit_code, "%s", text);
    c->cancel = NULL;
    cm_loop_stop(c->loop);
}

/* The whole */

static int run(struct completion *c)
{
    struct cm_err err;

    c->loop = cm_loop_new(&err);
    if (!c->loop)
        return cm_args_error(CM_EXIT_UNAVAILABLE, "%s", err.text);
    c->tick = cm_timer_open(c->loop, on_tick, c, &err);
    c->interrupt = c->tick ? cm_signal_open(c->loop, SIGINT, on_interrupt, c, &err) : NULL;
    int rc = c->interrupt ? (c->url ? complete_there(c, &err) : complete_here(c, &err)) : err.code;
    if (rc < 0) {
        c->exit_code = cm_args_error(rc == CM_ERR_CONFIG ? CM_EXIT_USAGE : CM_EXIT_UNAVAILABLE, "%s", err.text);
    } else {
        cm_timer_start(c->tick, TICK_MS, TICK_MS);
        cm_loop_run(c->loop);
        view_end(&c->view);
    }
    c->interrupt = cm_signal_close(c->interrupt);
    c->tick = cm_timer_close(c->tick);
    if (c->url)
        complete_there_end(c);
    else
        complete_here_end(c);
    c->loop = cm_loop_free(c->loop);
    return c->exit_code;
}

static int open_trajectory(struct completion *c)
{
    if (!c->trajectory)
        return CM_EXIT_OK;
    c->trajectory_file = fopen(c->trajectory, "we");
    return c->trajectory_file ? CM_EXIT_OK : cm_args_error(CM_EXIT_USAGE, "%s: %s", c->trajectory, strerror(errno));
}

static void show_help(void)
{
    puts("usage: rlm complete --query TEXT [--context FILE|-] [flags]\n\nAnswers a query about a context. The answer "
         "goes "
         "to the standard output; what is done meanwhile is\nshown on the standard error. Ctrl-C ends the run and "
         "prints "
         "what there is so far.\n\nflags");
    const struct cm_program *program = cm_args_program();
    for (const struct cm_flag *f = program->flags; f->words; f++)
        if (strcmp(f->words, "complete") == 0)
            printf("  %s%s%s%s%s%s\n      %s\n", *f->letter ? "-" : "", f->letter, *f->letter ? ", " : "", f->name,
                   *f->value ? " " : "", f->value, f->help);
    printf("  and those of rlm serve, such as --model, --max-depth, --max-iterations, --max-budget: rlm serve "
           "--help\n\n%s",
           cm_rlm_cli_exit_help);
}

int cm_rlm_cli_complete(int argc, char **argv)
{
    static struct completion c;
    static char *rest[FLAGS_MAX];
    int rest_count = 0;
    struct cm_err err;

    if (cm_args_want_help(argc, argv)) {
        show_help();
        return CM_EXIT_OK;
    }
    int rc = read_flags(&c, argc, argv, rest, &rest_count);
    if (rc != CM_EXIT_OK)
        return rc;
    if (cm_rlm_conf_load(rest_count, rest, &c.conf, &err) < 0)
        return cm_args_unloaded(&err);
    if (!c.query || !*c.query)
        return cm_args_error(CM_EXIT_USAGE, "complete: --query is required");
    if ((rc = open_context(&c)) != CM_EXIT_OK || (rc = open_trajectory(&c)) != CM_EXIT_OK)
        return rc;
    cm_log_open(-1, CM_LOG_OFF);
    view_init(&c.view, c.quiet ? NULL : stderr);
    cm_infer_trajectory_init(&c.lines, RESULT_MAX);
    rc = run(&c);
    cm_infer_trajectory_done(&c.lines);
    cm_fd_close(c.context.fd);
    if (c.trajectory_file && fclose(c.trajectory_file) != 0)
        rc = cm_args_error(CM_EXIT_FAILED, "%s: could not be written", c.trajectory);
    return rc;
}
