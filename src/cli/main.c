/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>

#include "base/fd.h"
#include "cli/verbs.h"

int main(int argc, char **argv)
{
    cm_fd_fill_standard();
    signal(SIGPIPE, SIG_IGN);
    return cm_cli_run(argc - 1, argv + 1);
}
