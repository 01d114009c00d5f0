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

#endif
