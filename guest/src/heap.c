/* SPDX-License-Identifier: Apache-2.0 */
#include "heap.h"

#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define POOL_SIZE 4096 /* pymalloc's pools on a 32-bit machine */
#define SMALL_MAX 512
#define SMALL_STEP 16
#define CHUNK_MAX (1 << 20)

/* Allocates blocks of one size class until enough follow each other to fill a pool: then they come from a fresh
 * one, and all older ones are full. Blocks that are handed out here are never freed. */
static int fill_class(size_t size)
{
    enum { TRIES = 1 << 20 };
    char *last = NULL;
    int row = 0, pool = (int)(POOL_SIZE / size) - 2;
    for (int i = 0; i < TRIES && row < pool; i++) {
        char *p = PyObject_Malloc(size);
        if (!p)
            return -1;
        row = p == last + size ? row + 1 : 0;
        last = p;
    }
    return 0;
}

/* The same for malloc: takes every free chunk below the end of the heap, from large to small. */
static int fill_chunks(void)
{
    char *end = sbrk(0);
    for (size_t size = CHUNK_MAX; size >= 16; size -= size > 4096 ? size / 16 & ~(size_t)15 : 16)
        for (;;) {
            char *p = malloc(size);
            if (!p)
                return -1;
            if (p + size > end - (64 << 10)) {
                free(p);
                break;
            }
        }
    return 0;
}

int heap_seal(void)
{
    for (size_t size = SMALL_STEP; size <= SMALL_MAX; size += SMALL_STEP)
        if (fill_class(size)) {
            PyErr_NoMemory();
            return -1;
        }
    if (fill_chunks()) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* Large enough that the interpreter's own allocator, which takes 256 KiB at a time, does not swallow it whole. Memory
 * that nobody writes to costs nothing. */
enum { RESERVE = 2 << 20, HEADROOM = 4 << 20 };

static void *reserve;

void heap_reserve_take(void)
{
    /* Only when there is room again: what a session at its limit has left is for its own next steps. */
    void *room = reserve ? NULL : malloc(RESERVE + HEADROOM);
    if (!room)
        return;
    free(room);
    reserve = malloc(RESERVE);
}

void heap_reserve_release(void)
{
    free(reserve);
    reserve = NULL;
}
