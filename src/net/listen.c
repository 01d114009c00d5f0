/* SPDX-License-Identifier: Apache-2.0 */
#include "net/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define BACKLOG   1024
#define INHERITED 3 /* the first of such descriptors */

int cm_listen_address(const char *host, struct cm_address *ret, struct cm_err *err)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *list;
    int rc = getaddrinfo(host, "0", &hints, &list);

    if (rc != 0)
        return cm_err_set(err, CM_ERR_CONFIG, "HOST: \"%.80s\": %s", host, gai_strerror(rc));
    memcpy(&ret->sa, list->ai_addr, list->ai_addrlen);
    ret->len = list->ai_addrlen;
    freeaddrinfo(list);
    return 0;
}

bool cm_address_is_loopback(const struct cm_address *address)
{
    if (address->sa.ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)&address->sa)->sin6_addr);
    return ntohl(((const struct sockaddr_in *)&address->sa)->sin_addr.s_addr) >> 24 == 127;
}

static in_port_t *port_in(struct sockaddr_storage *sa)
{
    return sa->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)sa)->sin6_port : &((struct sockaddr_in *)sa)->sin_port;
}

int cm_listen(const struct cm_address *address, unsigned port, unsigned *ret_port, struct cm_err *err)
{
    struct sockaddr_storage sa = address->sa;
    socklen_t len = address->len;
    int on = 1;
    cm_autofd int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    *port_in(&sa) = htons((in_port_t)port);
    if (fd < 0)
        return cm_err_sys(err, errno, "socket to listen on");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* accepted sockets inherit it */
    if (bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
        return cm_err_sys(err, errno, "listen on port %u", port);
    *ret_port = ntohs(*port_in(&sa));
    return cm_steal_fd(&fd);
}

/* The number that a variable holds, 0 for none; the variable is gone then. */
static unsigned long take_number(const char *variable)
{
    const char *text = getenv(variable);
    unsigned long n = text ? strtoul(text, NULL, 10) : 0;

    unsetenv(variable);
    return n;
}

static int take_listener(int fd, unsigned *ret_port, bool *ret_loopback, struct cm_err *err)
{
    struct cm_address a = {.len = sizeof(a.sa)};
    int listens = 0, on = 1;
    socklen_t len = sizeof(listens);

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0 || !listens ||
        getsockname(fd, (struct sockaddr *)&a.sa, &a.len) < 0 ||
        (a.sa.ss_family != AF_INET && a.sa.ss_family != AF_INET6))
        return cm_err_set(err, CM_ERR_CONFIG, "LISTEN_FDS: descriptor %d is not a socket that listens for TCP", fd);
    if (cm_fd_nonblock(fd) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return cm_err_sys(err, errno, "LISTEN_FDS: descriptor %d", fd);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    *ret_port = ntohs(*port_in(&a.sa));
    *ret_loopback = cm_address_is_loopback(&a);
    return 0;
}

int cm_listen_inherit(struct cm_listen_inherited *ret, struct cm_err *err)
{
    struct cm_listen_inherited all = {.loopback = true};
    unsigned long pid = take_number("LISTEN_PID"), count = take_number("LISTEN_FDS");

    unsetenv("LISTEN_FDNAMES");
    if (pid != (unsigned long)getpid() || count == 0) { /* they are somebody else's */
        *ret = all;
        return 0;
    }
    if (count > CM_LISTEN_INHERITED_MAX)
        return cm_err_set(err, CM_ERR_CONFIG, "LISTEN_FDS: more than %d sockets", CM_LISTEN_INHERITED_MAX);
    for (; all.count < count; all.count++) {
        bool loopback = false;
        all.fds[all.count] = INHERITED + (int)all.count;
        int rc = take_listener(all.fds[all.count], &all.ports[all.count], &loopback, err);
        if (rc < 0)
            return rc;
        all.loopback &= loopback;
    }
    *ret = all;
    return 0;
}
