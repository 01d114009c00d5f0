/* SPDX-License-Identifier: Apache-2.0 */
/* Left alone, glibc raises the bound from which buffers are mappings of their own with the first large buffer that it frees,
 * and then keeps them all; and of its own accord it gives back only what lies behind the last thing in use. A server that has
 * had a crowd of clients would look ever after as if they were still there.
 *
 * Trimming walks over all that is free, and the C library does not know what it gave back before. So what is resident beside
 * what is in use is measured once a second, and trimmed when it has grown since it was trimmed last.
 */
#include "ev/heap.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"

#define MAPPED_FROM (256 << 10) /* bytes, and so the next two */
#define TOP_KEPT    (4 * MAPPED_FROM)
#define FREE_KEPT   (4 << 20)
#define LOOK_MS     1000

struct cm_heap {
    struct cm_timer *look;
    int statm;
    int64_t kept; /* after the last trim; also what is resident and was never the heap's */
};

/* Bytes that are resident and not in use; 0 when that cannot be told. Below 0 when much is in use that was not touched. */
static int64_t beside_use(struct cm_heap *heap)
{
    long long resident = 0, shared = 0;
    char text[128] = "";
    struct mallinfo2 now = mallinfo2();

    if (pread(heap->statm, text, sizeof text - 1, 0) < 0 || sscanf(text, "%*d %lld %lld", &resident, &shared) != 2)
        return 0;
    return (resident - shared) * sysconf(_SC_PAGESIZE) - (int64_t)(now.uordblks + now.hblkhd);
}

static void on_look(void *arg)
{
    struct cm_heap *heap = arg;

    if (beside_use(heap) < heap->kept + FREE_KEPT)
        return;
    malloc_trim(0);
    heap->kept = beside_use(heap);
}

struct cm_heap *cm_heap_open(struct cm_loop *loop, struct cm_err *err)
{
    struct cm_heap *heap = calloc(1, sizeof *heap);

    if (!heap) {
        cm_err_set(err, CM_ERR_NO_MEMORY, "no memory for the heap's timer");
        return NULL;
    }
    mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
    mallopt(M_TRIM_THRESHOLD, TOP_KEPT);
    heap->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (heap->statm < 0) {
        cm_err_sys(err, errno, "/proc/self/statm");
        return cm_heap_close(heap);
    }
    heap->look = cm_timer_open(loop, on_look, heap, err);
    if (!heap->look)
        return cm_heap_close(heap);
    heap->kept = beside_use(heap);
    cm_timer_start(heap->look, LOOK_MS, LOOK_MS);
    return heap;
}

struct cm_heap *cm_heap_close(struct cm_heap *heap)
{
    if (!heap)
        return NULL;
    cm_timer_close(heap->look);
    cm_fd_close(heap->statm);
    free(heap);
    return NULL;
}
