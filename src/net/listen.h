/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets. */
#ifndef CM_NET_LISTEN_H
#define CM_NET_LISTEN_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/err.h"
#include "net/resolve.h"

/* The address that a host's name stands for: the first one. Waits for the resolver: before the loop runs. */
int cm_listen_address(const char *host, struct cm_address *ret, struct cm_err *err);
/* Whether nobody from outside can connect to it: 127.0.0.0/8 or ::1. */
bool cm_address_is_loopback(const struct cm_address *address);
/* A non-blocking socket that listens at `port`; 0: any free one. Negative with *err. */
int cm_listen(const struct cm_address *address, unsigned port, unsigned *ret_port, struct cm_err *err);

#define CM_LISTEN_INHERITED_MAX 4

/* Listening sockets from whoever has started this process: LISTEN_PID and LISTEN_FDS of the environment, from descriptor 3 on,
 * as sd_listen_fds(3) has it. */
struct cm_listen_inherited {
    unsigned count; /* 0: there are none */
    int fds[CM_LISTEN_INHERITED_MAX];
    unsigned ports[CM_LISTEN_INHERITED_MAX];
    bool loopback; /* nobody from outside can connect to any of them */
};

/* Makes them non-blocking, closes them in children, and removes the variables. CM_ERR_CONFIG when there are too many, or
 * what is there does not listen for TCP. */
int cm_listen_inherit(struct cm_listen_inherited *ret, struct cm_err *err);

#endif
