/* SPDX-License-Identifier: Apache-2.0 */
/* Trajectory files on disks that are slow, full or gone: a pipe that nobody reads, /dev/full, a limit of the size of files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "ev/loop.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "rlm/trajectory.h"

#define LINE 8192

static struct {
    char dir[40], files[60];
    struct cm_loop *loop;
    struct cm_metrics *metrics;
    struct cm_trajectories *all;
    const char *device; /* in place of files; NULL: they are themselves */
    int pipe[2];
    int log;
} world;

int __real_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode);

int __wrap_open64(const char *path, int flags, mode_t mode)
{
    if (!strstr(path, "/rlm_") || !(flags & O_CREAT))
        return __real_open64(path, flags, mode);
    if (world.pipe[1] > 0)
        return dup(world.pipe[1]);
    return world.device ? __real_open64(world.device, O_WRONLY | O_CLOEXEC, 0) : __real_open64(path, flags, mode);
}

static int begin(void **state)
{
    (void)state;
    memset(&world, 0, sizeof world);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    strcpy(world.dir, "/tmp/trajectory.XXXXXX");
    if (!mkdtemp(world.dir))
        return -1;
    snprintf(world.files, sizeof world.files, "%s/deep", world.dir);
    world.log = memfd_create("log", MFD_CLOEXEC);
    cm_log_open(world.log, CM_LOG_INFO);
    world.loop = cm_loop_new(NULL);
    world.metrics = cm_metrics_new_rlm();
    return world.loop && world.metrics ? 0 : -1;
}

static int end(void **state)
{
    char pattern[100];
    glob_t found;

    (void)state;
    world.all = cm_trajectories_close(world.all, 10);
    world.loop = cm_loop_free(world.loop);
    world.metrics = cm_metrics_free(world.metrics);
    cm_log_open(-1, CM_LOG_INFO);
    close(world.log);
    snprintf(pattern, sizeof pattern, "%s/*", world.files);
    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++)
            unlink(found.gl_pathv[i]);
    globfree(&found);
    rmdir(world.files);
    return rmdir(world.dir);
}

static void open_all(size_t waiting_max)
{
    const struct cm_trajectories_config config = {world.files, waiting_max, world.metrics};

    assert_int_equal(cm_trajectories_open(world.loop, &config, &world.all, NULL), 0);
}

/* A line of `len` bytes with its end that begins with a number. */
static void say(struct cm_trajectory *t, unsigned number, size_t len)
{
    struct cm_buf line;
    char *at = NULL;

    cm_buf_init(&line, len);
    assert_int_equal(cm_buf_printf(&line, "%06u", number), 0);
    assert_int_equal(cm_buf_reserve(&line, len - 7, &at), 0);
    memset(at, '.', len - 7);
    cm_buf_commit(&line, len - 7);
    cm_trajectory_line(t, &line);
    cm_buf_done(&line);
}

static long metric(const char *name)
{
    cm_autobuf struct cm_buf text;
    char start[80];

    cm_buf_init(&text, 1 << 20);
    assert_int_equal(cm_metrics_render(world.metrics, &text), 0);
    snprintf(start, sizeof start, "\n%s ", name);
    const char *at = strstr(cm_buf_data(&text), start);
    assert_non_null(at);
    return at ? atol(at + strlen(start)) : -1;
}

static unsigned logged(const char *words)
{
    static char text[65536];
    unsigned count = 0;
    ssize_t n = pread(world.log, text, sizeof text - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    for (const char *at = text; (at = strstr(at, words)); at++)
        count++;
    return count;
}

/* The only file's text; NULL where there is none. */
static char *only_file(struct stat *ret)
{
    char pattern[100], *text = calloc(1, 1 << 20);
    glob_t found;

    snprintf(pattern, sizeof pattern, "%s/*", world.files);
    if (glob(pattern, 0, NULL, &found) != 0) {
        free(text);
        return NULL;
    }
    assert_int_equal(found.gl_pathc, 1);
    int fd = open(found.gl_pathv[0], O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && read(fd, text, (1 << 20) - 1) >= 0 && fstat(fd, ret) == 0);
    close(fd);
    globfree(&found);
    return text;
}

static void files_are_their_owners(void **state)
{
    struct stat st;

    (void)state;
    umask(022);
    open_all(1 << 20);
    struct cm_trajectory *t = cm_trajectory_open(world.all);
    for (unsigned i = 0; i < 100; i++)
        say(t, i, 1000);
    assert_int_equal(stat(world.files, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    cm_trajectory_close(t);
    world.all = cm_trajectories_close(world.all, 10); /* all of it is there then */
    char *text = only_file(&st);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 100 * 1000);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(atoi(text + 1000 * i), i);
        assert_int_equal(text[1000 * i + 999], '\n');
    }
    free(text);
    assert_int_equal(logged("trajector"), 0);
}

/* Nobody reads the pipe while lines come: who waited for it would wait for ever. */
static void a_slow_disk_holds_up_nobody(void **state)
{
    char line[LINE];
    int last = -1;
    unsigned lines = 0;

    (void)state;
    assert_int_equal(pipe2(world.pipe, O_CLOEXEC), 0);
    open_all(10 * LINE);
    struct cm_trajectory *t = cm_trajectory_open(world.all);
    for (unsigned i = 0; i < 1000; i++)
        say(t, i, LINE);
    assert_true(metric("rlm_trajectory_waiting_bytes") <= 10 * LINE);
    long lost = metric("rlm_trajectory_lines_lost_total");
    assert_true(lost > 900); /* the pipe itself takes 64 KiB, the queue 80 */
    assert_int_equal(logged("trajectory_not_written"), 1);
    cm_trajectory_close(t);
    for (int have = 0; lines < 1000 - lost; have = 0, lines++) {
        while (have < LINE) {
            ssize_t n = read(world.pipe[0], line + have, (size_t)(LINE - have));
            assert_true(n > 0);
            have += (int)n;
        }
        assert_true(atoi(line) > last); /* in their order, and whole */
        last = atoi(line);
        assert_int_equal(line[LINE - 1], '\n');
    }
    world.all = cm_trajectories_close(world.all, 10);
    close(world.pipe[1]);
    assert_int_equal(read(world.pipe[0], line, LINE), 0); /* and nothing else */
    close(world.pipe[0]);
}

static void a_full_disk_is_told_of_once(void **state)
{
    struct stat st;

    (void)state;
    world.device = "/dev/full";
    open_all(1 << 20);
    for (unsigned run = 0; run < 3; run++) {
        struct cm_trajectory *t = cm_trajectory_open(world.all);
        for (unsigned i = 0; i < 5; i++)
            say(t, i, 100);
        cm_trajectory_close(t);
    }
    world.all = cm_trajectories_close(world.all, 10);
    assert_int_equal(metric("rlm_trajectory_lines_lost_total"), 15);
    assert_int_equal(logged("trajectory_not_written"), 1);
    assert_int_equal(logged("No space left on device"), 1);
    assert_null(only_file(&st));
}

/* The files of this process may have so many bytes. */
static void limit_files(rlim_t max)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void stop(void *arg)
{
    cm_loop_stop(arg);
}

static void wait_until_written(void)
{
    struct cm_timer *timer = cm_timer_open(world.loop, stop, world.loop, NULL);

    do {
        cm_timer_start(timer, 5, 0);
        cm_loop_run(world.loop);
    } while (metric("rlm_trajectory_waiting_bytes") > 0);
    cm_timer_close(timer);
}

/* What is in the file are whole lines, also when the disk is full in the middle of one; when it has room again, it goes on. */
static void a_line_that_breaks_off_is_taken_back(void **state)
{
    struct stat st;

    (void)state;
    open_all(1 << 20);
    struct cm_trajectory *t = cm_trajectory_open(world.all);
    limit_files(1000);
    for (unsigned i = 0; i < 5; i++)
        say(t, i, 300);
    wait_until_written();
    limit_files(RLIM_INFINITY);
    assert_int_equal(metric("rlm_trajectory_lines_lost_total"), 2);
    assert_int_equal(logged("trajectory_not_written"), 1);
    say(t, 5, 300);
    cm_trajectory_close(t);
    world.all = cm_trajectories_close(world.all, 10);
    char *text = only_file(&st);
    assert_int_equal(st.st_size, 1200);
    assert_int_equal(atoi(text + 600), 2);
    assert_int_equal(atoi(text + 900), 5);
    free(text);
}

/* A file whose first line, which says what it is of, is lost is none. */
static void without_its_first_line_there_is_no_file(void **state)
{
    struct stat st;

    (void)state;
    open_all(1000);
    struct cm_trajectory *t = cm_trajectory_open(world.all);
    say(t, 0, 1001);
    say(t, 1, 100);
    cm_trajectory_close(t);
    struct cm_trajectory *other = cm_trajectory_open(world.all);
    limit_files(200);
    say(other, 0, 300);
    wait_until_written();
    limit_files(RLIM_INFINITY);
    say(other, 1, 100);
    cm_trajectory_close(other);
    world.all = cm_trajectories_close(world.all, 10);
    assert_null(only_file(&st));
    assert_int_equal(metric("rlm_trajectory_lines_lost_total"), 4);
}

/* Last: the thread that hangs stays. */
static void the_end_waits_for_no_disk_that_hangs(void **state)
{
    (void)state;
    assert_int_equal(pipe2(world.pipe, O_CLOEXEC), 0);
    open_all(1 << 20);
    struct cm_trajectory *t = cm_trajectory_open(world.all);
    for (unsigned i = 0; i < 20; i++)
        say(t, i, LINE);
    cm_trajectory_close(t);
    world.all = cm_trajectories_close(world.all, 0.05);
    assert_int_equal(logged("trajectories_left_behind"), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(files_are_their_owners),
        TEST(a_slow_disk_holds_up_nobody),
        TEST(a_full_disk_is_told_of_once),
        TEST(a_line_that_breaks_off_is_taken_back),
        TEST(without_its_first_line_there_is_no_file),
        TEST(the_end_waits_for_no_disk_that_hangs),
    };

    return cmocka_run_group_tests_name("trajectory", tests, NULL, NULL);
}
