/* SPDX-License-Identifier: Apache-2.0 */
/* Host names to addresses, off the loop. */
#ifndef CM_NET_RESOLVE_H
#define CM_NET_RESOLVE_H

#include <sys/socket.h>

#include "base/err.h"

struct cm_loop;
struct cm_resolve;

#define CM_RESOLVE_MAX 8 /* addresses of one name that are tried */

struct cm_address {
    struct sockaddr_storage sa;
    socklen_t len;
};

struct cm_addresses {
    unsigned count;
    struct cm_address at[CM_RESOLVE_MAX];
};

/* An address given as digits needs no look-up: 0 and *ret filled. CM_ERR_NOT_FOUND when it is a name. */
int cm_resolve_literal(const char *host, unsigned port, struct cm_addresses *ret, struct cm_err *err);
/* Calls `cb` once, from the loop, with either addresses or a reason; the handle is gone then. NULL with *err filled when
 * too many look-ups are under way or no thread can be had. The thread has no deadline but the resolver's own: who does not
 * want to wait as long cancels, and the thread ends by itself. */
struct cm_resolve *cm_resolve_start(struct cm_loop *loop, const char *host, unsigned port,
                                    void (*cb)(void *arg, const struct cm_addresses *list, const struct cm_err *err),
                                    void *arg, struct cm_err *err);
/* Accepts NULL, returns NULL. */
struct cm_resolve *cm_resolve_cancel(struct cm_resolve *r);

#endif
