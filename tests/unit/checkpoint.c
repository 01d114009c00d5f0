/* SPDX-License-Identifier: Apache-2.0 */
/* Saving and restoring: every life of a session is a process of its own here, with one file between them. */
#include <fcntl.h>
#include <poll.h>

#include "base/cleanup.h"
#include "guest_run.h"
#include "image/checkpoint.h"

#define LIMIT (256 * MIB)

static int file = -1;
static uint64_t undo, found; /* what a life asks for, and gets */
static int tell[2];          /* what it wants its parent to know */

static void new_file(void)
{
    if (file >= 0)
        close(file);
    file = memfd_create("checkpoint", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(file >= 0);
    undo = 0;
}

/* As a worker begins, but for the jail. Messages keep their way out. */
static void wake_up(void)
{
    struct cm_err err;
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    stderr = fdopen(fcntl(STDERR_FILENO, F_DUPFD, 100), "w");
    setvbuf(stderr, NULL, _IONBF, 0);
    CHECK(pagemap >= 0 && !cm_image_map(&image, LIMIT, &err));
    if (cm_checkpoint_map(file, &image, &err))
        fprintf(stderr, "%s\n", err.text), _exit(2);
    CHECK(dup2(file, CM_JAIL_CHECKPOINT) >= 0 && dup2(pagemap, CM_JAIL_PAGEMAP) >= 0);
    if (cm_checkpoint_restore(undo, &found, &err))
        fprintf(stderr, "%s\n", err.text), _exit(2);
    if (!found) {
        uint32_t result = 1;
        cm_guest_call(CM_ENTRY_START, 0, 0);
        CHECK(cm_guest_run(&result) == CM_GUEST_FINISHED && result == 0);
    }
}

static void run_and_save(uint64_t seq, const char *code, const char *result)
{
    CHECK(gives(code, result));
    cm_checkpoint_save(seq);
}

static void life(void (*body)(void))
{
    assert_int_equal(in_child(body), 0);
}

/* ---- one life after the other */

static void first_life(void)
{
    wake_up();
    CHECK(found == 0);
    run_and_save(1, "x = 1; rows = [{'n': n} for n in range(1000)]; len(rows)", "1000");
    run_and_save(2, "x += 1; rows[500]['n'] = 'changed'; x", "2");
    CHECK(gives("x = 99; rows.clear(); x", "99")); /* and dies with it */
}

static void second_life(void)
{
    wake_up();
    CHECK(found == 2);
    CHECK(gives("x, len(rows), rows[500], rows[501]", "(2, 1000, {'n': 'changed'}, {'n': 501})"));
    run_and_save(3, "x += 1; more = 'm' * 100_000; x", "3");
}

static void third_life(void)
{
    wake_up();
    CHECK(found == 3);
    CHECK(gives("x, len(more)", "(3, 100000)"));
}

static void lives(void **state)
{
    (void)state;
    new_file();
    life(first_life);
    life(second_life);
    life(third_life);
    life(third_life); /* a life without a save takes nothing away */
}

static void undone_life(void)
{
    wake_up();
    CHECK(found == 2);
    CHECK(gives("x, rows[500], 'more' in globals()", "(2, {'n': 'changed'}, False)"));
    run_and_save(7, "x = 70; x", "70");
}

static void life_at_seven(void)
{
    wake_up();
    CHECK(found == 7);
    CHECK(gives("x, len(rows)", "(70, 1000)"));
}

static void first_undone(void)
{
    wake_up();
    CHECK(found == 0);
    CHECK(gives("'x' in globals()", "False"));
}

static void only_first(void)
{
    wake_up();
    run_and_save(1, "x = 1; x", "1");
}

static void undo_one_step(void **state)
{
    (void)state;
    new_file();
    life(first_life);
    life(second_life);
    undo = 3;
    life(undone_life);
    undo = 3; /* not what was saved last: nothing to undo */
    life(life_at_seven);
    new_file();
    life(only_first);
    undo = 1;
    life(first_undone);
    life(only_first);
}

/* ---- large sessions: their memory is seen through the file */

static void large_life(void)
{
    wake_up();
    run_and_save(1, "big = bytearray(60_000_000); big[::4096] = b'1' * len(big[::4096]); len(big)", "60000000");
    run_and_save(2, "big[5_000_000] = 2; sum(big) == 49 * len(big[::4096]) + 2 - (49 if 5_000_000 % 4096 == 0 else 0)",
                 "True");
    run_and_save(3, "for n in range(0, len(big), 4096): big[n] = 3\nmore = bytearray(20_000_000); sum(big)", "43949");
}

static void large_again(void)
{
    wake_up();
    CHECK(found == 3);
    CHECK(gives("sum(big), len(more), any(more)", "(43949, 20000000, False)"));
    run_and_save(4, "more[7] = 7; big[1] = 9; sum(more)", "7");
}

static void large_undone(void)
{
    wake_up();
    CHECK(found == 2);
    CHECK(gives("big[4096], big[5_000_000], 'more' in globals()", "(49, 2, False)"));
    /* What the undone execution has used must be found empty. */
    CHECK(gives("other = bytearray(40_000_000); any(other)", "False"));
}

static void large_sessions(void **state)
{
    (void)state;
    new_file();
    life(large_life);
    undo = 3;
    life(large_undone);
    new_file();
    life(large_life);
    life(large_again);
}

/* ---- threads that rest between two executions */

static void threads_rest(void)
{
    wake_up();
    run_and_save(
        1,
        "import threading, time\nn = 0\ndef count():\n    global n\n    while True:\n        time.sleep(.001); n += 1\n"
        "for _ in range(20): threading.Thread(target=count, daemon=True).start()\ntime.sleep(.02); n > 0",
        "True");
}

static void threads_go_on(void)
{
    wake_up();
    CHECK(found == 1);
    CHECK(gives("before = n; time.sleep(.02); n > before, threading.active_count()", "(True, 21)"));
}

static void threads(void **state)
{
    (void)state;
    new_file();
    life(threads_rest);
    life(threads_go_on);
}

/* ---- a death at any point of a save */

static char version_code[200];
static uint64_t version;

static void say(void)
{
    if (write(tell[1], "s", 1) < 0)
        _exit(3);
}

/* A state whose parts, all over the memory, must be of one version. */
static void save_forever(void)
{
    wake_up();
    if (!found)
        CHECK(gives("parts = []\nfor _ in range(300): parts.append([0] * 400)\nlen(parts)", "300"));
    for (uint64_t v = found + 1;; v++) {
        snprintf(version_code, sizeof version_code, "for p in parts: p[0] = p[399] = %d\nv = %d", (int)v, (int)v);
        struct cm_ipc_fields f;
        execute(version_code, &f);
        if (v == found + 1)
            say();
        cm_checkpoint_save(v);
    }
}

static void look(void)
{
    wake_up();
    char want[64];
    snprintf(want, sizeof want, "(True, %d)", (int)found);
    CHECK(found == 0 || gives("{p[0] for p in parts} == {p[399] for p in parts} == {v}, v", want));
    CHECK(found >= version && write(tell[1], &found, sizeof found) == sizeof found);
}

static void death_while_saving(void **state)
{
    enum { DEATHS = 60 };
    (void)state;
    new_file();
    version = 0;
    assert_int_equal(pipe2(tell, O_CLOEXEC), 0);
    for (int i = 0; i < DEATHS; i++) {
        char c;
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            CHECK(!cm_guest_reserve(&ops, NULL));
            save_forever();
        }
        assert_int_equal(read(tell[0], &c, 1), 1);
        nanosleep(&(struct timespec){.tv_nsec = (i * 37 % 100) * 9000}, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        life(look);
        assert_int_equal(read(tell[0], &version, sizeof version), sizeof version);
    }
    assert_true(version > 0);
    close(tell[0]);
    close(tell[1]);
}

/* ---- files that somebody has changed */

static void any_life(void)
{
    uint32_t at;
    wake_up(); /* refuses by status 2 */
    begin("1 + 1");
    if (go_on(&at) == CM_GUEST_TRAPPED)
        _exit(4);
    cm_checkpoint_save(9);
}

static void patch(off_t where, uint64_t value, size_t size)
{
    assert_int_equal(pwrite(file, &value, size, where), size);
}

/* The first page holds the marks and the numbers, later ones two states of the host, the list and the undo log. Whatever
 * they say, a worker refuses or goes on with a broken guest: it never crashes by itself. */
static void changed_files(void **state)
{
    static const uint64_t values[] = {0, 1, 2, 15, 255, 4096, 1u << 20, UINT32_MAX, INT64_MAX, UINT64_MAX};
    unsigned refused = 0;
    (void)state;
    for (unsigned i = 0; i < 90; i++) {
        new_file();
        life(first_life);
        off_t where = i < 40 ? (off_t)(i * 8) : i < 70 ? (off_t)(i - 40) * 337 : (65536 + (off_t)(i - 70) * 4);
        patch(where, values[i % CM_COUNT_OF(values)], where % 8 ? 4 : 8);
        int status = in_child(any_life);
        if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 2 && WEXITSTATUS(status) != 4))
            fail_msg("offset %lld, value %llx: status %x", (long long)where,
                     (unsigned long long)values[i % CM_COUNT_OF(values)], (unsigned)status);
        refused += WIFEXITED(status) && WEXITSTATUS(status) == 2;
    }
    assert_true(refused > 10);
}

static void size_is_fixed(void)
{
    wake_up();
    CHECK(ftruncate(file, 4096) < 0 && ftruncate(file, (off_t)1 << 40) < 0);
}

static void other_size(void)
{
    struct cm_err err;
    CHECK(!cm_image_map(&image, 2 * LIMIT, &err));
    CHECK(cm_checkpoint_map(file, &image, &err) == CM_ERR_SANDBOX);
}

static void sizes(void **state)
{
    (void)state;
    new_file();
    life(size_is_fixed);
    life(other_size);
}

static void above_another_image(void)
{
    image.id[3] ^= 1;
    wake_up();
}

static void other_images(void **state)
{
    (void)state;
    new_file();
    life(first_life);
    int status = in_child(above_another_image);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 2);
    life(second_life);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lives),   cmocka_unit_test(undo_one_step),      cmocka_unit_test(large_sessions),
        cmocka_unit_test(threads), cmocka_unit_test(death_while_saving), cmocka_unit_test(changed_files),
        cmocka_unit_test(sizes),   cmocka_unit_test(other_images),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
