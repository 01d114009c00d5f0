/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzzers share. A fuzzer is one file: it feeds libFuzzer's bytes to a decoder of ours and checks what the
 * decoder has promised. "No crash" is the least of it; AddressSanitizer watches over bounds. */
#ifndef CM_TESTS_FUZZ_H
#define CM_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* A promise. libFuzzer keeps the input of a run that aborts. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fuzz_say(__FILE__, __LINE__, #condition);                                                                  \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static inline void fuzz_say(const char *file, int line, const char *text)
{
    fprintf(stderr, "%s:%d: broken promise: %s\n", file, line, text);
}

/* Memory of exactly this size, so that one byte too far is found. For free(). */
static inline char *fuzz_copy(const void *data, size_t size)
{
    char *copy = malloc(size ? size : 1);

    CHECK(copy);
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

/* Reading decisions from the front of the input: zero when it is used up. */
struct fuzz_in {
    const uint8_t *at, *end;
};

static inline uint8_t fuzz_byte(struct fuzz_in *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static inline const uint8_t *fuzz_bytes(struct fuzz_in *in, size_t want, size_t *ret_len)
{
    const uint8_t *at = in->at;

    *ret_len = (size_t)(in->end - at) < want ? (size_t)(in->end - at) : want;
    in->at += *ret_len;
    return at;
}

/* A text up to the next newline or the input's end, NUL-terminated, for free(). */
static inline char *fuzz_line(struct fuzz_in *in)
{
    const uint8_t *nl = memchr(in->at, '\n', (size_t)(in->end - in->at));
    size_t len = (size_t)((nl ? nl : in->end) - in->at);
    char *line = malloc(len + 1);

    CHECK(line);
    memcpy(line, in->at, len);
    line[len] = '\0';
    in->at += len + (nl != NULL);
    return line;
}

#endif
