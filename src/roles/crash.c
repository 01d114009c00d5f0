/* SPDX-License-Identifier: Apache-2.0 */
#include "roles/crash.h"

#include <signal.h>
#include <unistd.h>

#include "base/fd.h"
#include "ipc/sync.h"
#include "roles/output.h"

static volatile sig_atomic_t channel = -1;

void cm_crash_channel(int fd)
{
    channel = fd;
}

static void write_to_stderr(const char *report, size_t len)
{
    static const char head[] = "codemode-sandbox crashed: ";
    if (!cm_fd_write_all(STDERR_FILENO, head, sizeof head - 1))
        cm_fd_write_all(STDERR_FILENO, report, len);
}

void cm_crash_report(const char *report, size_t len)
{
    struct cm_ipc_msg m;
    if (channel < 0) {
        write_to_stderr(report, len);
        return;
    }
    if (cm_ipc_writing() || !cm_output_end_frame())
        return;
    cm_ipc_msg_begin(&m, CM_MSG_CRASH, 0);
    cm_ipc_put_bytes(&m, CM_FIELD_ERROR, report, len);
    cm_ipc_write(channel, &m, NULL);
}
