/* SPDX-License-Identifier: Apache-2.0 */
/* Where connections come in: listening sockets, how many may be at once, TLS, and which protocol it is.
 *
 * A plain connection is HTTP/2 when its first bytes say so, and HTTP/1.1 otherwise; the bytes stay in the socket. With TLS
 * the client and we agree on one of them in the handshake; HTTP/1.1 then goes on in the clear over a pair of sockets, one
 * end of which is handed out as if the client were at the other one.
 */
#ifndef CM_NET_DOOR_H
#define CM_NET_DOOR_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/err.h"
#include "net/resolve.h"

struct cm_door;
struct cm_listen_inherited;
struct cm_loop;
struct cm_metrics;
struct cm_stream;
struct cm_tls;

#define CM_DOOR_PORTS_MAX 4

/* Each takes what it is given in any case. Two NULLs in place of the h2 callbacks: such connections are closed. */
struct cm_door_ops {
    void (*http)(void *arg, int fd, const struct sockaddr *peer, socklen_t len); /* non-blocking */
    void (*h2_fd)(void *arg, int fd);
    void (*h2_stream)(void *arg, struct cm_stream *s); /* ready, nothing read */
    unsigned (*connections)(void *arg); /* those that were handed out and are still there */
};

struct cm_door_config {
    const struct cm_listen_inherited
        *inherited; /* where it has some: they are taken, and the next three do not count */
    struct cm_address address;
    const unsigned *ports;
    unsigned ports_count; /* up to CM_DOOR_PORTS_MAX */
    unsigned connections_max; /* all together; newcomers wait in the sockets' queues */
    unsigned head_ms; /* from the connection to its first bytes, or to the end of its handshake */
    struct cm_tls *tls; /* NULL: plain. A reference is taken */
    struct cm_metrics *metrics;
};

int cm_door_open(struct cm_loop *loop, const struct cm_door_config *config, const struct cm_door_ops *ops, void *arg,
                 struct cm_door **ret, struct cm_err *err);
/* The ports that it listens on, in the order of the configuration; how many. */
unsigned cm_door_ports(const struct cm_door *d);
unsigned cm_door_port(const struct cm_door *d, unsigned which);
/* A connection that was handed out has ended: there may be room for another one. */
void cm_door_more(struct cm_door *d);
/* Takes those that the kernel has connected already - closing would reset them - and stops listening for good. */
void cm_door_shut(struct cm_door *d);
/* Closes everything that was not handed out, and the pairs of sockets. Accepts NULL, returns NULL. */
struct cm_door *cm_door_free(struct cm_door *d);

#endif
