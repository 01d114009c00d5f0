/* SPDX-License-Identifier: Apache-2.0 */
#include "obs/log.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/utf8.h"

/* One per process on purpose: every room may log, and a sink handed through every constructor says no more. */
static struct {
    int fd;
    enum cm_log_level least;
    uint64_t dropped, reported;
} sink = {.fd = -1, .least = CM_LOG_OFF};

static const char *const level_names[] = {"DEBUG", "INFO", "WARNING", "ERROR", "OFF"};

/* A line in the making; `len` never passes the end that leaves room for what closes it. */
struct line {
    char text[CM_LOG_LINE_MAX];
    size_t len, end;
};

void cm_log_open(int fd, enum cm_log_level least)
{
    sink.fd = fd;
    sink.least = least;
    sink.dropped = sink.reported = 0;
}

void cm_log_set_level(enum cm_log_level least)
{
    sink.least = least;
}

bool cm_log_parse_level(const char *text, enum cm_log_level *ret)
{
    for (int i = CM_LOG_DEBUG; i <= CM_LOG_ERROR; i++)
        if (strcasecmp(text, level_names[i]) == 0) {
            *ret = (enum cm_log_level)i;
            return true;
        }
    if (strcasecmp(text, "WARN") == 0)
        *ret = CM_LOG_WARNING;
    else if (strcasecmp(text, "CRITICAL") == 0)
        *ret = CM_LOG_ERROR;
    else
        return false;
    return true;
}

bool cm_log_on(enum cm_log_level level)
{
    return sink.fd >= 0 && level >= sink.least;
}

uint64_t cm_log_dropped(void)
{
    return sink.dropped;
}

/* All of it or nothing. */
static bool put(struct line *l, const char *text, size_t len)
{
    if (len > l->end - l->len)
        return false;
    memcpy(l->text + l->len, text, len);
    l->len += len;
    return true;
}

static size_t escape(char to[static 8], unsigned char c)
{
    if (c == '"' || c == '\\') {
        to[0] = '\\';
        to[1] = (char)c;
        return 2;
    }
    if (c < 0x20 || c == 0x7f)
        return (size_t)snprintf(to, 8, "\\u%04x", c);
    to[0] = (char)c;
    return 1;
}

/* Length of the UTF-8 character at p, 0 when the byte starts none. */
static size_t whole_char(const char *p, size_t left)
{
    for (size_t n = 1; n <= 4 && n <= left; n++)
        if (cm_utf8_valid(p, n))
            return n;
    return 0;
}

/* A JSON string; a value that does not fit is cut between characters and ends in "...". */
static void put_quoted(struct line *l, const char *text)
{
    size_t left = strlen(text), n;
    char esc[8];

    if (l->end - l->len < 8)
        return;
    put(l, "\"", 1);
    l->end -= 4; /* ..." */
    for (; left > 0; text += n, left -= n) {
        n = whole_char(text, left);
        bool fits = n > 1    ? put(l, text, n)
                    : n == 1 ? put(l, esc, escape(esc, (unsigned char)*text))
                             : put(l, "\\ufffd", 6);
        if (!fits)
            break;
        n = n ? n : 1;
    }
    l->end += 4;
    put(l, left ? "...\"" : "\"", left ? 4 : 1);
}

static void put_number(struct line *l, double value)
{
    char text[40];
    int n = isfinite(value) ? snprintf(text, sizeof text, "%.9g", value) : snprintf(text, sizeof text, "null");

    put(l, text, (size_t)n);
}

/* Room for a key and the shortest value comes first, so that a line stays JSON whatever is left out. */
static bool put_field(struct line *l, const struct cm_log_field *f)
{
    char text[32];

    if (f->type == CM_LOG_IS_STR && !f->s)
        return true;
    if (l->end - l->len < strlen(f->key) + 48)
        return false;
    put(l, l->len > 1 ? ",\"" : "\"", l->len > 1 ? 2 : 1);
    put(l, f->key, strlen(f->key));
    put(l, "\":", 2);
    switch (f->type) {
    case CM_LOG_IS_STR:
        put_quoted(l, f->s);
        break;
    case CM_LOG_IS_INT:
        put(l, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)f->i));
        break;
    case CM_LOG_IS_REAL:
        put_number(l, f->f);
        break;
    case CM_LOG_IS_BOOL:
        put(l, f->b ? "true" : "false", f->b ? 4 : 5);
        break;
    }
    return true;
}

/* Never waits: a reader that has stopped must not stop the gateway. The descriptor keeps its flags, which other
 * processes may share. */
static bool deliver(const struct line *l)
{
    struct pollfd p = {.fd = sink.fd, .events = POLLOUT};

    if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
        return false;
    ssize_t n;
    do
        n = write(sink.fd, l->text, l->len);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)l->len;
}

void cm_log_write(enum cm_log_level level, const char *event, const struct cm_log_field *fields)
{
    struct line l = {.len = 0, .end = CM_LOG_LINE_MAX - 2}; /* "}\n" */
    char ts[CM_CLOCK_ISO8601_MAX];
    uint64_t lost = sink.dropped - sink.reported;

    if (!cm_log_on(level))
        return;
    cm_clock_iso8601(ts);
    put(&l, "{", 1);
    put_field(&l, &CM_LOG_STR("ts", ts));
    put_field(&l, &CM_LOG_STR("level", level_names[level]));
    put_field(&l, &CM_LOG_STR("event", event));
    if (lost)
        put_field(&l, &CM_LOG_INT("dropped", lost));
    for (const struct cm_log_field *f = fields; f && f->key && put_field(&l, f); f++)
        ;
    l.end += 2;
    put(&l, "}\n", 2);
    if (deliver(&l))
        sink.reported += lost;
    else
        sink.dropped++;
}
