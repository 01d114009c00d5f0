/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef CM_BASE_UTF8_H
#define CM_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

bool cm_utf8_valid(const char *text, size_t len);
/* Appends the text with U+FFFD for each byte that belongs to no character. 0 or the buffer's error. */
int cm_utf8_append(struct cm_buf *to, const char *text, size_t len);
/* Bytes at the end of the text that begin a character without finishing it, 0 to 3. */
size_t cm_utf8_cut_end(const char *text, size_t len);
/* Continuation bytes at the start of the text whose character began before it, 0 to 3. */
size_t cm_utf8_cut_start(const char *text, size_t len);
/* Characters of a valid text. */
uint64_t cm_utf8_count(const char *text, size_t len);
/* The offset of the character of a valid text that has `skip` others before it; `len` when there are not that many. */
size_t cm_utf8_offset(const char *text, size_t len, uint64_t skip);

#endif
