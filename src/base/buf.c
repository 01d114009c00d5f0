/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define FIRST_SIZE 256

static char empty[1];

void cm_buf_init(struct cm_buf *b, size_t max)
{
    *b = (struct cm_buf){.max = max};
}

void cm_buf_done(struct cm_buf *b)
{
    free(b->mem);
    cm_buf_init(b, b->max);
}

char *cm_buf_data(struct cm_buf *b)
{
    return b->mem ? b->mem + b->off : empty;
}

void cm_buf_clear(struct cm_buf *b)
{
    b->off = b->len = 0;
    if (b->mem)
        b->mem[0] = '\0';
}

static void move_to_front(struct cm_buf *b)
{
    if (b->off == 0)
        return;
    memmove(b->mem, b->mem + b->off, b->len + 1);
    b->off = 0;
}

static int grow(struct cm_buf *b, size_t need)
{
    size_t cap = b->cap ? b->cap : FIRST_SIZE;

    while (cap < need)
        cap = cap > b->max / 2 ? b->max : cap * 2;
    if (cap > b->max)
        cap = b->max;
    char *mem = realloc(b->mem, cap + 1);
    if (!mem)
        return CM_ERR_NO_MEMORY;
    b->mem = mem;
    b->cap = cap;
    return 0;
}

int cm_buf_reserve(struct cm_buf *b, size_t more, char **ret)
{
    if (more > b->max - b->len)
        return CM_ERR_TOO_LARGE;
    if (b->off + b->len + more > b->cap || !b->mem) {
        if (b->mem)
            move_to_front(b);
        if (b->len + more > b->cap || !b->mem) {
            int r = grow(b, b->len + more);
            if (r < 0)
                return r;
        }
        b->mem[b->len] = '\0';
    }
    if (ret)
        *ret = b->mem + b->off + b->len;
    return 0;
}

void cm_buf_commit(struct cm_buf *b, size_t n)
{
    assert(b->mem && b->off + b->len + n <= b->cap);
    b->len += n;
    b->mem[b->off + b->len] = '\0';
}

int cm_buf_append(struct cm_buf *b, const void *data, size_t len)
{
    char *to;

    if (len == 0)
        return 0;
    int r = cm_buf_reserve(b, len, &to);
    if (r < 0)
        return r;
    memcpy(to, data, len);
    cm_buf_commit(b, len);
    return 0;
}

int cm_buf_puts(struct cm_buf *b, const char *text)
{
    return cm_buf_append(b, text, strlen(text));
}

int cm_buf_vprintf(struct cm_buf *b, const char *format, va_list ap)
{
    va_list again;
    char *to;

    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (n < 0)
        return CM_ERR_SYSTEM;
    int r = cm_buf_reserve(b, (size_t)n, &to);
    if (r < 0)
        return r;
    vsnprintf(to, (size_t)n + 1, format, ap);
    cm_buf_commit(b, (size_t)n);
    return 0;
}

int cm_buf_printf(struct cm_buf *b, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    int r = cm_buf_vprintf(b, format, ap);
    va_end(ap);
    return r;
}

void cm_buf_consume(struct cm_buf *b, size_t n)
{
    assert(n <= b->len);
    b->off += n;
    b->len -= n;
    if (b->len == 0)
        cm_buf_clear(b);
}

char *cm_buf_steal(struct cm_buf *b, size_t *ret_len)
{
    if (cm_buf_reserve(b, 0, NULL) < 0)
        return NULL;
    move_to_front(b);
    char *taken = b->mem;
    if (ret_len)
        *ret_len = b->len;
    cm_buf_init(b, b->max);
    return taken;
}
