/* SPDX-License-Identifier: Apache-2.0 */
/* What models write goes to a terminal here: control characters would move its cursor, or worse, and are left out. */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "args/args.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "rlm_cli/complete.h"
#include "wire/json.h"

#define CODE_LINES   8 /* of one block that are shown */
#define OUTPUT_LINES 6
#define LINE_BYTES   160
#define STATUS_BYTES 512
#define CODE_MARK    "  │ "
#define OUTPUT_MARK  "  → "
#define COLUMNS      80 /* where the terminal does not say */
#define DIM          "\033[2m"
#define BOLD         "\033[1m"
#define RED          "\033[31m"
#define PLAIN        "\033[0m"

static const char *style(const struct view *v, const char *code)
{
    return v->colours ? code : "";
}

/* The last line is cleared as one line: it must not be wider than the terminal, whose last column is left free. */
static size_t width(const struct view *v)
{
    struct winsize size;

    return (ioctl(fileno(v->out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : COLUMNS) - 1u;
}

static void clear_line(struct view *v)
{
    if (v->line)
        fputs("\r\033[K", v->out);
    v->line = false;
}

/* Whether a terminal can do more than write lines, and what its reader wants, is said by variables that all programs know. */
void view_init(struct view *v, FILE *out)
{
    const char *terminal = getenv("TERM"), *plain = getenv("NO_COLOR");

    *v = (struct view){.out = out, .started_ns = cm_clock_ns()};
    v->live = out && isatty(fileno(out)) == 1 && terminal && *terminal && strcmp(terminal, "dumb") != 0;
    v->colours = v->live && !(plain && *plain);
    strcpy(v->what, "starting");
}

static int put_status(const struct view *v, struct cm_buf *b)
{
    int rc = cm_buf_printf(b, "%6.1f s  turn %u  %.0f + %.0f tokens", (double)(cm_clock_ns() - v->started_ns) / 1e9,
                           v->turns, v->input, v->output);

    if (rc == 0 && v->cost > 0)
        rc = cm_buf_printf(b, "  $%.4f", v->cost);
    if (rc == 0 && v->open_calls > 0)
        rc = cm_buf_printf(b, "  %u sub-quer%s", v->open_calls, v->open_calls == 1 ? "y" : "ies");
    return rc < 0 ? rc : cm_buf_printf(b, "  %.60s", v->what);
}

void view_tick(struct view *v)
{
    cm_autobuf struct cm_buf line;

    cm_buf_init(&line, STATUS_BYTES);
    if (!v->out || !v->live || put_status(v, &line) < 0)
        return;
    size_t most = width(v), len = line.len > most ? most - cm_utf8_cut_end(cm_buf_data(&line), most) : line.len;
    clear_line(v);
    fputs(style(v, DIM), v->out);
    cm_args_print(v->out, cm_buf_data(&line), len);
    fputs(style(v, PLAIN), v->out);
    fflush(v->out);
    v->line = true;
}

/* Events */

enum {
    NODE,
    DEPTH,
    ITERATION,
    MODEL,
    KIND,
    CALL,
    CODE,
    TEXT,
    STREAM,
    PREVIEW,
    RESPONSE_PREVIEW,
    ROOT_MODEL,
    DURATION,
    ITERATION_TIME,
    ERROR,
    INPUT,
    OUTPUT,
    COST,
    USAGE,
    CONTEXT_TYPE,
    CONTEXT_LENGTH,
    BEFORE,
    AFTER,
    MEMBERS
};

struct event {
    struct cm_json_member at[MEMBERS];
};

static bool parse(char *json, size_t len, struct event *ret)
{
    static const char *const names[MEMBERS] = {
        [NODE] = "node",
        [DEPTH] = "depth",
        [ITERATION] = "iteration",
        [MODEL] = "model",
        [KIND] = "kind",
        [CALL] = "call",
        [CODE] = "code",
        [TEXT] = "text",
        [STREAM] = "stream",
        [PREVIEW] = "prompt_preview",
        [RESPONSE_PREVIEW] = "response_preview",
        [ROOT_MODEL] = "root_model",
        [DURATION] = "duration",
        [ITERATION_TIME] = "iteration_time",
        [ERROR] = "error",
        [INPUT] = "input_tokens",
        [OUTPUT] = "output_tokens",
        [COST] = "cost",
        [USAGE] = "usage",
        [CONTEXT_TYPE] = "context_type",
        [CONTEXT_LENGTH] = "context_length",
        [BEFORE] = "tokens_before",
        [AFTER] = "tokens_after",
    };

    for (int i = 0; i < MEMBERS; i++)
        ret->at[i] = (struct cm_json_member){.name = names[i]};
    return cm_json_object(json, len, ret->at, MEMBERS, NULL) == 0;
}

static double number(const struct event *e, int m)
{
    return e->at[m].value.kind == CM_JSON_NUMBER ? cm_json_number(&e->at[m].value) : 0;
}

/* Decoded in place, once; "" for what is no text. */
static const char *text(struct event *e, int m)
{
    struct cm_json_value *v = &e->at[m].value;
    size_t len = 0;

    if (v->kind != CM_JSON_STRING || !cm_json_decode(v, &len))
        return "";
    v->raw[len] = '\0';
    v->kind = CM_JSON_ABSENT;
    return v->raw;
}

/* Writing */

static unsigned node_of(const struct event *e)
{
    double node = number(e, NODE);

    return node >= 0 && node < NODES_MAX ? (unsigned)node : 0;
}

static void indent(struct view *v, unsigned node)
{
    clear_line(v);
    for (unsigned i = 0; i < v->nodes[node].depth && i < 20; i++)
        fputs("    ", v->out);
}

/* Printable characters of one line, so many bytes at the most. */
static void put_line(struct view *v, const char *from, size_t len)
{
    size_t shown = len > LINE_BYTES ? LINE_BYTES - cm_utf8_cut_end(from, LINE_BYTES) : len;

    cm_args_print(v->out, from, shown);
    if (shown < len)
        fputs(" …", v->out);
}

static void put_quiet(struct view *v, unsigned node, const char *mark, const char *from, size_t len)
{
    indent(v, node);
    fprintf(v->out, "%s%s", style(v, DIM), mark);
    put_line(v, from, len);
    fprintf(v->out, "%s\n", style(v, PLAIN));
}

static void put_more(struct view *v, unsigned node, const char *mark, unsigned more)
{
    if (more == 0)
        return;
    indent(v, node);
    fprintf(v->out, "%s%s… %u more line%s%s\n", style(v, DIM), mark, more, more == 1 ? "" : "s", style(v, PLAIN));
}

/* What a block prints comes in pieces of any size; the first lines of all of them are shown, and how many more there were. */

static void end_line(struct view *v)
{
    struct view_node *n = &v->nodes[v->printing];

    if (!v->open)
        return;
    if (n->lines++ < OUTPUT_LINES)
        put_quiet(v, v->printing, OUTPUT_MARK, v->piece, v->piece_len);
    v->open = false;
    v->piece_len = 0;
}

static void end_output(struct view *v, unsigned node)
{
    struct view_node *n = &v->nodes[node];

    if (v->printing == node)
        end_line(v);
    put_more(v, node, OUTPUT_MARK, n->lines > OUTPUT_LINES ? n->lines - OUTPUT_LINES : 0);
    n->lines = 0;
}

static void on_metadata(struct view *v, struct event *e)
{
    unsigned node = node_of(e);
    double depth = number(e, DEPTH);

    if (depth >= 0 && depth < 255)
        v->nodes[node].depth = (unsigned char)depth;
    v->nodes[node].call = number(e, CALL);
    indent(v, node);
    const char *model = text(e, ROOT_MODEL);
    fprintf(v->out, "%s● %s", style(v, BOLD), node > 0 ? "run on " : "");
    put_line(v, model, strlen(model));
    fprintf(v->out, "%s", style(v, PLAIN));
    const char *type = text(e, CONTEXT_TYPE);
    if (*type)
        fprintf(v->out, "  context: %.10s of %.0f characters", type, number(e, CONTEXT_LENGTH));
    fputc('\n', v->out);
}

static void on_turn(struct view *v, struct event *e)
{
    if (number(e, NODE) == 0)
        v->turns = (unsigned)number(e, ITERATION);
    snprintf(v->what, sizeof v->what, "the model is asked");
}

static void on_code(struct view *v, struct event *e)
{
    unsigned lines = 0;

    end_output(v, node_of(e));
    for (const char *from = text(e, CODE), *end; *from; from = *end ? end + 1 : end) {
        end = from + strcspn(from, "\n");
        if (lines++ < CODE_LINES)
            put_quiet(v, node_of(e), CODE_MARK, from, (size_t)(end - from));
    }
    put_more(v, node_of(e), CODE_MARK, lines > CODE_LINES ? lines - CODE_LINES : 0);
    snprintf(v->what, sizeof v->what, "code runs");
}

static void on_output(struct view *v, struct event *e)
{
    unsigned node = node_of(e);

    if (v->printing != node)
        end_line(v);
    v->printing = node;
    for (const char *from = text(e, TEXT), *end; *from; from = end) {
        end = from + strcspn(from, "\n");
        size_t len = (size_t)(end - from), room = sizeof v->piece - v->piece_len;
        len = len < room ? len : room;
        memcpy(v->piece + v->piece_len, from, len);
        v->piece_len += len;
        v->open = true;
        if (*end) {
            end++;
            end_line(v);
        }
    }
}

static void on_subcall_start(struct view *v, struct event *e)
{
    const char *kind = text(e, KIND), *model = text(e, MODEL), *preview = text(e, PREVIEW);

    v->calls++;
    v->open_calls++;
    indent(v, node_of(e));
    fprintf(v->out, "  ↳ %.3s_query %.0f  ", kind, number(e, CALL));
    put_line(v, model, strlen(model));
    fputs("  \"", v->out);
    put_line(v, preview, strcspn(preview, "\n"));
    fputs("\"\n", v->out);
}

static void count(struct view *v, const struct event *e)
{
    v->input += number(e, INPUT);
    v->output += number(e, OUTPUT);
    v->cost += number(e, COST);
}

/* What a run inside has used has been counted turn by turn. */
static bool counted(const struct view *v, double call)
{
    for (unsigned i = 1; i < NODES_MAX; i++)
        if (v->nodes[i].call == call)
            return true;
    return false;
}

static void on_subcall_complete(struct view *v, struct event *e)
{
    const char *error = text(e, ERROR), *preview = text(e, RESPONSE_PREVIEW);

    v->open_calls -= v->open_calls > 0;
    if (!counted(v, number(e, CALL)))
        count(v, e);
    indent(v, node_of(e));
    fprintf(v->out, "  %s↲ %.0f  %.1f s  ", *error ? style(v, RED) : "", number(e, CALL), number(e, DURATION));
    const char *words = *error ? error : preview;
    put_line(v, words, strcspn(words, "\n"));
    fprintf(v->out, "%s\n", *error ? style(v, PLAIN) : "");
}

static void on_iteration(struct view *v, struct event *e)
{
    struct cm_json_value *usage = &e->at[USAGE].value;
    struct event u;

    end_output(v, node_of(e));
    indent(v, node_of(e));
    fprintf(v->out, "  turn %.0f  %.1f s", number(e, ITERATION), number(e, ITERATION_TIME));
    if (usage->kind == CM_JSON_OBJECT && parse(usage->raw, usage->len, &u)) {
        fprintf(v->out, "  %.0f + %.0f tokens", number(&u, INPUT), number(&u, OUTPUT));
        if (number(&u, COST) > 0)
            fprintf(v->out, "  $%.4f", number(&u, COST));
        count(v, &u);
    }
    fputc('\n', v->out);
}

static void on_compaction(struct view *v, struct event *e)
{
    indent(v, node_of(e));
    fprintf(v->out, "  compaction  %.0f to %.0f tokens\n", number(e, BEFORE), number(e, AFTER));
}

void view_end(struct view *v)
{
    if (!v->out)
        return;
    end_output(v, v->printing);
    clear_line(v);
    fflush(v->out);
}

void view_event(struct view *v, const char *type, const char *json, size_t len)
{
    static const struct {
        const char *type;
        void (*show)(struct view *v, struct event *e);
    } shows[] = {
        {"metadata", on_metadata},
        {"turn", on_turn},
        {"code", on_code},
        {"output", on_output},
        {"subcall_start", on_subcall_start},
        {"subcall_complete", on_subcall_complete},
        {"iteration", on_iteration},
        {"compaction", on_compaction},
    };
    struct event e;
    char *copy = v->out ? malloc(len + 1) : NULL;

    if (!copy)
        return;
    memcpy(copy, json, len);
    copy[len] = '\0';
    for (size_t i = 0; i < sizeof shows / sizeof shows[0]; i++)
        if (strcmp(shows[i].type, type) == 0 && parse(copy, len, &e))
            shows[i].show(v, &e);
    free(copy);
    view_tick(v);
}
