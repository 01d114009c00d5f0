/* SPDX-License-Identifier: Apache-2.0 */
/* How long a save takes in the worker, and a restore in the next one: prints nanoseconds, one line per figure.
 *
 *     bench-checkpoint      CM_IMAGE names the image
 */
#include <fcntl.h>

#include "tests/unit/guest_run.h"

#include "image/checkpoint.h"

#define LIMIT (512 * MIB)

static int file, to;
static uint64_t found;

static void wake_up(void)
{
    struct cm_err err;
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    CHECK(!cm_image_map(&image, LIMIT, &err) && !cm_checkpoint_map(file, &image, &err));
    to = fcntl(STDOUT_FILENO, F_DUPFD, 100);
    CHECK(dup2(file, CM_JAIL_CHECKPOINT) >= 0 && dup2(pagemap, CM_JAIL_PAGEMAP) >= 0);
    uint64_t start = cm_clock_ns();
    CHECK(!cm_checkpoint_restore(0, &found, &err));
    if (found) {
        dprintf(to, "restore %llu\n", (unsigned long long)(cm_clock_ns() - start));
        return;
    }
    uint32_t result;
    cm_guest_call(CM_ENTRY_START, 0, 0);
    CHECK(cm_guest_run(&result) == CM_GUEST_FINISHED);
}

static void save(const char *name, const char *code, int times)
{
    struct cm_ipc_fields f;
    for (int i = 0; i < times; i++) {
        execute(code, &f);
        uint64_t start = cm_clock_ns();
        cm_checkpoint_save(++found);
        dprintf(to, "%s %llu\n", name, (unsigned long long)(cm_clock_ns() - start));
    }
}

static void small(void)
{
    wake_up();
    save("first", "x = 42; x * 2", 1);
    save("warm", "x = 42; x * 2", 500);
    save("work", "import json\ny = json.loads(json.dumps([{'a': n} for n in range(200)])); len(y)", 200);
}

static void large(void)
{
    wake_up();
    save("large_first", "rows = [{'n': n, 's': str(n)} for n in range(300_000)]; len(rows)", 1);
    save("large_idle", "x = 42; x * 2", 100);
    save("large_touched", "rows[::1000] = [{} for _ in rows[::1000]]; len(rows)", 30);
}

static void nothing(void)
{
    wake_up();
}

static void measure(void (*body)(void))
{
    file = memfd_create("checkpoint", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void (*const steps[])(void) = {body, nothing};
    for (int i = 0; i < 2; i++) {
        pid_t child = fork();
        if (child == 0) {
            CHECK(!cm_guest_reserve(&ops, NULL));
            steps[i]();
            _exit(0);
        }
        int status;
        if (waitpid(child, &status, 0) < 0 || status)
            exit(1);
    }
    close(file);
}

int main(void)
{
    if (set_up(NULL))
        return 1;
    for (int i = 0; i < 10; i++)
        measure(small);
    measure(large);
    return 0;
}
