/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <stdint.h>

static int event = -1;

static void on_sigint(int signum)
{
    int saved = errno;
    uint64_t one = 1;
    ssize_t n = write(event, &one, sizeof(one)); /* can only fail when it is readable already */

    (void)signum;
    (void)n;
    errno = saved;
}

int cm_interrupt_open(struct cm_err *err)
{
    struct sigaction action = {.sa_handler = on_sigint};

    event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event < 0)
        return cm_err_sys(err, errno, "descriptor for Ctrl-C");
    if (sigaction(SIGINT, &action, NULL) < 0)
        return cm_err_sys(err, errno, "take SIGINT");
    return 0;
}

int cm_interrupt_fd(void)
{
    return event;
}

bool cm_interrupt_take(void)
{
    uint64_t count;

    return read(event, &count, sizeof(count)) == sizeof(count);
}
