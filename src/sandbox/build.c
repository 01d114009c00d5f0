/* SPDX-License-Identifier: Apache-2.0 */
/* A guest with interpreter and driver, started from its archive. */
#include "sandbox/build.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "guest/engine.h"
#include "sandbox/build.h"

#define BUILD_LIMIT (1ull << 30)

static bool emit(int stream, const void *data, size_t len)
{
    (void)stream;
    while (len) {
        ssize_t n = write(STDERR_FILENO, data, len);
        if (n <= 0)
            return true;
        data = (const char *)data + n;
        len -= (size_t)n;
    }
    return true;
}

static void wait_for_guest(void)
{
    uint64_t now = cm_clock_ns();
    if (cm_state.deadline > (int64_t)now) {
        uint64_t left = (uint64_t)cm_state.deadline - now;
        nanosleep(&(struct timespec){.tv_sec = (time_t)(left / CM_NS_PER_S), .tv_nsec = (long)(left % CM_NS_PER_S)},
                  NULL);
    }
    cm_guest_resume(CM_WAIT_DEADLINE);
}

int cm_build_call(const char *step, enum cm_entry entry, uint32_t arg0, uint32_t arg1, uint32_t *ret,
                  struct cm_err *err)
{
    enum cm_guest_event event;
    cm_guest_call(entry, arg0, arg1);
    while ((event = cm_guest_run(ret)) == CM_GUEST_WAITS)
        wait_for_guest();
    if (event == CM_GUEST_TRAPPED)
        return cm_err_set(err, CM_ERR_SANDBOX, "%s: %s", step, cm_guest_trap_text());
    return 0;
}

static int call_ok(const char *step, enum cm_entry entry, uint32_t arg0, uint32_t arg1, struct cm_err *err)
{
    uint32_t result = 0;
    int rc = cm_build_call(step, entry, arg0, arg1, &result, err);
    if (!rc && result)
        rc = cm_err_set(err, CM_ERR_SANDBOX, "%s failed with %u", step, result);
    return rc;
}

static int mount_archive(const char *path, struct cm_err *err)
{
    cm_autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        return cm_err_sys(err, errno, "open %s", path);
    if (st.st_size > (256 << 20))
        return cm_err_set(err, CM_ERR_SANDBOX, "%s is larger than 256 MiB", path);
    uint32_t size = (uint32_t)st.st_size, at = 0;
    int rc = cm_build_call("alloc", CM_ENTRY_ALLOC, size, 0, &at, err);
    if (rc)
        return rc;
    char *to = cm_guest_memory(at, size);
    if (!at || !to)
        return cm_err_set(err, CM_ERR_SANDBOX, "no room for %s", path);
    for (uint32_t got = 0; got < size;) {
        ssize_t n = read(fd, to + got, size - got);
        if (n <= 0)
            return cm_err_sys(err, n ? errno : EIO, "read %s", path);
        got += (uint32_t)n;
    }
    return call_ok("mount", CM_ENTRY_MOUNT, at, size, err);
}

int cm_build_guest(const char *archive, bool seal, struct cm_err *err)
{
    static const struct cm_guest_ops ops = {.emit = emit};
    int rc = cm_guest_reserve(&ops, err);
    if (!rc)
        rc = cm_guest_create(BUILD_LIMIT, err);
    uint32_t unused;
    if (!rc)
        rc = cm_build_call("initialize", CM_ENTRY_INITIALIZE, 0, 0, &unused, err);
    if (!rc)
        rc = mount_archive(archive, err);
    if (!rc)
        rc = call_ok("init", CM_ENTRY_INIT, 0, 0, err);
    if (!rc && seal)
        rc = call_ok("seal", CM_ENTRY_SEAL, 0, 0, err);
    if (!rc)
        rc = cm_build_call("poll", CM_ENTRY_POLL, 0, 0, &cm_state.poll, err);
    return rc;
}
