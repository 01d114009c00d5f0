/* SPDX-License-Identifier: Apache-2.0 */
/* Another program, with an argument vector and a time limit; no shell in between. */
#ifndef CM_CLI_CHILD_H
#define CM_CLI_CHILD_H

struct cm_buf;

enum { CM_CHILD_NOT_FOUND = -1, CM_CHILD_TIMEOUT = -2, CM_CHILD_FAILED = -3 };

/* Runs argv[0] from the PATH with this process's environment and an empty standard input, and waits for at most
 * `timeout_s` seconds; then it is killed. `out` takes its standard output (what is beyond the buffer's maximum is dropped);
 * NULL: it goes where ours goes. `err` the same for its standard error; it may be the same buffer. Returns its exit code,
 * 128 and the signal that ended it, or a value of above. */
int cm_child_run(char *const *argv, unsigned timeout_s, struct cm_buf *out, struct cm_buf *err);

#endif
