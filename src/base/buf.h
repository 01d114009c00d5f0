/* SPDX-License-Identifier: Apache-2.0 */
/* A growable run of bytes that is born with its maximum.
 *
 * A call that would pass the maximum fails with CM_ERR_TOO_LARGE, one that finds no memory with
 * CM_ERR_NO_MEMORY; both leave the contents as they were. The bytes are always followed by a NUL that
 * does not count, so cm_buf_data() can be read as a string when they hold none.
 */
#ifndef CM_BASE_BUF_H
#define CM_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

struct cm_buf {
    char *mem;   /* what malloc gave, or NULL */
    size_t off;  /* consumed bytes in front of the contents */
    size_t len;  /* bytes of contents */
    size_t cap;  /* bytes at mem, without the final NUL */
    size_t max;  /* of len */
};

void cm_buf_init(struct cm_buf *b, size_t max);
/* Frees the memory; the buffer is empty and may be used again with the same maximum. */
void cm_buf_done(struct cm_buf *b);
/* Never NULL; valid until the next call that changes the buffer. */
char *cm_buf_data(struct cm_buf *b);
/* Forgets the contents, keeps the memory. */
void cm_buf_clear(struct cm_buf *b);
/* Room for `more` further bytes. *ret points behind the contents; cm_buf_commit() makes them count. */
int cm_buf_reserve(struct cm_buf *b, size_t more, char **ret);
void cm_buf_commit(struct cm_buf *b, size_t n);
int cm_buf_append(struct cm_buf *b, const void *data, size_t len);
int cm_buf_puts(struct cm_buf *b, const char *text);
int cm_buf_printf(struct cm_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
int cm_buf_vprintf(struct cm_buf *b, const char *format, va_list ap) __attribute__((format(printf, 2, 0)));
/* Drops n <= len bytes from the front. */
void cm_buf_consume(struct cm_buf *b, size_t n);
/* Hands the contents over as NUL-terminated memory for free(); NULL when there is no memory for the NUL alone. */
char *cm_buf_steal(struct cm_buf *b, size_t *ret_len);

#endif
