/* SPDX-License-Identifier: Apache-2.0 */
/* What the docker verbs share. */
#ifndef CM_CLI_DOCKER_H
#define CM_CLI_DOCKER_H

struct cm_buf;

#define CM_DOCKER_OUT_MAX (64u << 10)

/* `docker` with these arguments (argv[0] is "docker"): 0 when it went well, else an exit code after a message that
 * begins with `what`. `out` as in cm_child_run(). */
int cm_docker_run(char *const *argv, unsigned timeout_s, struct cm_buf *out, const char *what);
/* What Docker says of a container, "Up 2 minutes", or "" when there is none of that name. */
int cm_docker_state(const char *name, struct cm_buf *ret);
/* False after a message: the name could be taken for a flag, or is none. */
int cm_docker_check_name(const char *name);

#endif
