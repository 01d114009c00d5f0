/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ev/heap.h"

#define PIECES   4096
#define PIECE    16384
#define MIB      (1 << 20)
#define PATIENCE 100 /* looks, 100 ms apart */

struct world {
    struct cm_loop *loop;
    struct cm_timer *look;
    int looks;
    long below; /* ends the loop: MiB */
};

static long resident_mib(void)
{
    long pages = 0, shared = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (!f || fscanf(f, "%*d %ld %ld", &pages, &shared) != 2)
        abort();
    fclose(f);
    return (pages - shared) * 4096 / MIB;
}

static void look(void *arg)
{
    struct world *w = arg;

    if (resident_mib() < w->below || ++w->looks == PATIENCE)
        cm_loop_stop(w->loop);
}

/* Small things that stay lie between large ones that are freed; again after what was given back is in use once more. */
static void test_what_is_freed_between_others_is_given_back(void **state)
{
    static char *piece[PIECES], *small[PIECES];
    struct world w = {.loop = cm_loop_new(NULL)};
    struct cm_heap *heap = cm_heap_open(w.loop, NULL);

    (void)state;
    assert_non_null(heap);
    w.look = cm_timer_open(w.loop, look, &w, NULL);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < PIECES; i++) {
            piece[i] = malloc(PIECE);
            small[i] = malloc(32);
            assert_true(piece[i] && small[i]);
            memset(piece[i], 'x', PIECE);
        }
        long full = resident_mib();
        assert_true(full >= PIECES * (PIECE / 1024) / 1024);
        for (int i = 0; i < PIECES; i++)
            free(piece[i]);
        assert_true(resident_mib() > full / 2); /* or there is nothing to test */
        w.below = full / 3;
        w.looks = 0;
        cm_timer_start(w.look, 100, 100);
        cm_loop_run(w.loop);
        assert_true(w.looks < PATIENCE);
        for (int i = 0; i < PIECES; i++)
            free(small[i]);
    }
    cm_timer_close(w.look);
    cm_heap_close(heap);
    cm_loop_free(w.loop);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_freed_between_others_is_given_back)};

    return cmocka_run_group_tests_name("heap", tests, NULL, NULL);
}
