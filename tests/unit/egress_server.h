/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP server of sorts on loopback, in threads of its own. */
#ifndef CM_TESTS_EGRESS_SERVER_H
#define CM_TESTS_EGRESS_SERVER_H

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The server: a thread per connection; what it does is named by the path. */

struct connection;

struct server {
    int fd;
    unsigned port;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    unsigned connections, requests, open, gone; /* `gone`: clients that hung up before their answer was whole */
    unsigned together; /* /together answers when so many are there */
    unsigned inside, peak;
    bool ending;
    int fds[1024];
    bool (*handle)(struct connection *c); /* in place of our paths; false: the connection ends */
    void *arg; /* its own */
};

struct connection {
    struct server *s;
    int fd;
    char head[65536];
    size_t head_len; /* with what came behind it */
    char *body; /* behind the head */
    size_t body_len, body_got;
};

static void send_text(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

static void say(int fd, const char *text)
{
    send_text(fd, text, strlen(text));
}

static void answer(int fd, const char *status, const char *headers, const char *body)
{
    char head[1024];

    snprintf(head, sizeof head, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n", status, headers, strlen(body));
    say(fd, head);
    say(fd, body);
}

/* Waits until the client hangs up. */
static void await_end(struct connection *c)
{
    char byte;

    while (recv(c->fd, &byte, 1, 0) > 0)
        ;
    pthread_mutex_lock(&c->s->lock);
    c->s->gone++;
    pthread_cond_broadcast(&c->s->moved);
    pthread_mutex_unlock(&c->s->lock);
}

static bool is_path(const struct connection *c, const char *path)
{
    const char *at = strchr(c->head, ' ');

    return at && strncmp(at + 1, path, strlen(path)) == 0 && strchr(" ?/", at[1 + strlen(path)]);
}

static void serve_together(struct connection *c)
{
    struct server *s = c->s;

    pthread_mutex_lock(&s->lock);
    s->inside++;
    s->peak = s->inside > s->peak ? s->inside : s->peak;
    pthread_cond_broadcast(&s->moved);
    while (s->inside < s->together && s->peak < s->together && !s->ending)
        pthread_cond_wait(&s->moved, &s->lock);
    s->inside--;
    pthread_mutex_unlock(&s->lock);
    answer(c->fd, "200 OK", "", "together");
}

static void serve_huge(struct connection *c)
{
    static char chunk[65536];

    memset(chunk, 'h', sizeof chunk);
    say(c->fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (unsigned i = 0; i < 4096 && !c->s->ending; i++) {
        say(c->fd, "10000\r\n");
        send_text(c->fd, chunk, sizeof chunk);
        say(c->fd, "\r\n");
    }
}

static void serve_echo(struct connection *c)
{
    char head[128];
    size_t all = (size_t)(c->body - c->head) + c->body_got;

    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", all);
    say(c->fd, head);
    send_text(c->fd, c->head, all);
}

/* Counts and adds up a body that may be larger than our memory for it. */
static void serve_sum(struct connection *c)
{
    static const size_t size = sizeof c->head;
    size_t got = c->body_got;
    unsigned long sum = 0;
    char text[64];
    ssize_t n = (ssize_t)got;

    for (const char *at = c->body;; at = c->head) {
        for (ssize_t i = 0; i < n; i++)
            sum += (unsigned char)at[i];
        if (got >= c->body_len || (n = recv(c->fd, c->head, size, 0)) <= 0)
            break;
        got += (size_t)n;
    }
    snprintf(text, sizeof text, "%zu %lu", got, sum);
    answer(c->fd, "200 OK", "", text);
}

/* False: the connection ends. */
static bool serve_one(struct connection *c)
{
    if (c->s->handle)
        return c->s->handle(c);
    if (is_path(c, "/echo"))
        serve_echo(c);
    else if (is_path(c, "/sum"))
        serve_sum(c);
    else if (is_path(c, "/together"))
        serve_together(c);
    else if (is_path(c, "/early"))
        say(c->fd, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 201 Created\r\nX-A: 1\r\nContent-Length: "
                   "2\r\n\r\nhi");
    else if (is_path(c, "/chunks"))
        say(c->fd,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nX-Trailer: t\r\n\r\n");
    else if (is_path(c, "/empty"))
        say(c->fd, "HTTP/1.1 204 No Content\r\n\r\n");
    else if (is_path(c, "/busy"))
        answer(c->fd, "429 Too Many Requests", "Retry-After: 7\r\n", "later");
    else if (is_path(c, "/busy_odd"))
        answer(c->fd, "503 Service Unavailable", "Retry-After: soon\r\n", "later");
    else if (is_path(c, "/busy_past"))
        answer(c->fd, "503 Service Unavailable", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", "later");
    else if (is_path(c, "/busy_date"))
        answer(c->fd, "503 Service Unavailable", "Retry-After: Fri, 01 Jan 2100 00:00:00 GMT\r\n", "later");
    else if (is_path(c, "/moved"))
        answer(c->fd, "302 Found", "Location: /echo\r\n", "elsewhere");
    else if (is_path(c, "/huge"))
        serve_huge(c);
    else if (is_path(c, "/long"))
        say(c->fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nthe first words");
    else if (is_path(c, "/silent"))
        return await_end(c), false;
    else if (is_path(c, "/stuck"))
        return say(c->fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes."), await_end(c), false;
    else if (is_path(c, "/cut"))
        return say(c->fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes."), false;
    else if (is_path(c, "/cut_chunk"))
        return say(c->fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"), false;
    else if (is_path(c, "/cut_head"))
        return say(c->fd, "HTTP/1.1 200 OK\r\nContent-Le"), false;
    else if (is_path(c, "/hang_up"))
        return false;
    else if (is_path(c, "/foreign"))
        return say(c->fd, "SSH-2.0-hello\r\n"), false;
    else if (is_path(c, "/endless_head"))
        for (say(c->fd, "HTTP/1.1 200 OK\r\n"); !c->s->ending && send(c->fd, "X-A: 1\r\n", 8, MSG_NOSIGNAL) > 0;)
            ;
    else
        answer(c->fd, "404 Not Found", "", "no");
    return true;
}

static bool read_one(struct connection *c)
{
    char *end = NULL;

    for (c->head_len = 0; !end;) {
        ssize_t n = recv(c->fd, c->head + c->head_len, sizeof c->head - 1 - c->head_len, 0);
        if (n <= 0)
            return false;
        c->head_len += (size_t)n;
        c->head[c->head_len] = '\0';
        if (c->head[0] == 0x16) { /* TLS */
            say(c->fd, "HTTP/1.1 400 Bad Request\r\n\r\n");
            return false;
        }
        end = strstr(c->head, "\r\n\r\n");
    }
    c->body = end + 4;
    c->body_got = c->head_len - (size_t)(c->body - c->head);
    char *length = strcasestr(c->head, "Content-Length: ");
    c->body_len = length && length < end ? strtoul(length + 16, NULL, 10) : 0;
    while (c->body_got < c->body_len && c->head_len < sizeof c->head - 1) {
        ssize_t n = recv(c->fd, c->head + c->head_len, sizeof c->head - 1 - c->head_len, 0);
        if (n <= 0)
            return false;
        c->head_len += (size_t)n;
        c->body_got += (size_t)n;
        c->head[c->head_len] = '\0';
    }
    return true;
}

static void *run_connection(void *arg)
{
    struct connection *c = arg;
    struct server *s = c->s;

    while (read_one(c)) {
        pthread_mutex_lock(&s->lock);
        s->requests++;
        pthread_mutex_unlock(&s->lock);
        if (!serve_one(c))
            break;
    }
    pthread_mutex_lock(&s->lock);
    s->fds[c->fd] = 0;
    close(c->fd);
    s->open--;
    pthread_cond_broadcast(&s->moved);
    pthread_mutex_unlock(&s->lock);
    free(c);
    return NULL;
}

static void *run_server(void *arg)
{
    struct server *s = arg;
    int fd;

    while ((fd = accept(s->fd, NULL, NULL)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        pthread_t thread;
        if (!c || fd >= 1024)
            abort();
        *c = (struct connection){.s = s, .fd = fd};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        pthread_mutex_lock(&s->lock);
        s->fds[fd] = 1;
        s->connections++;
        s->open++;
        pthread_mutex_unlock(&s->lock);
        if (pthread_create(&thread, NULL, run_connection, c) != 0)
            abort();
        pthread_detach(thread);
    }
    return NULL;
}

static void server_begin(struct server *s, bool (*handle)(struct connection *c), void *arg)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;

    *s = (struct server){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .handle = handle, .arg = arg};
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->moved, NULL);
    if (bind(s->fd, (struct sockaddr *)&at, len) < 0 || listen(s->fd, 512) < 0 ||
        getsockname(s->fd, (struct sockaddr *)&at, &len) < 0 || pthread_create(&s->thread, NULL, run_server, s) != 0)
        abort();
    s->port = ntohs(at.sin_port);
}

static void server_end(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    s->ending = true;
    pthread_cond_broadcast(&s->moved);
    shutdown(s->fd, SHUT_RDWR);
    for (int fd = 0; fd < 1024; fd++)
        if (s->fds[fd])
            shutdown(fd, SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_mutex_lock(&s->lock);
    while (s->open > 0)
        pthread_cond_wait(&s->moved, &s->lock);
    pthread_mutex_unlock(&s->lock);
    close(s->fd);
}

#endif
