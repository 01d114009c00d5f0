/* SPDX-License-Identifier: Apache-2.0 */
/* A load client that is not the bottleneck: one thread, one epoll, many kept connections.
 *
 *     load MODE PORT CONNECTIONS COUNT SECONDS CODE EXPECTED
 *
 *   warm   each connection creates a session, then executes CODE in it again and again
 *   churn  each connection creates and deletes sessions
 *   first  each connection creates a session, executes CODE in it once and deletes it
 *
 * Ends after COUNT rounds or SECONDS seconds, whichever comes first, and prints one JSON object. A round is one
 * execution (warm) or one life of a session (churn, first). Every answer is checked: an execution must hold
 * "result":EXPECTED. Any other answer ends the program with status 1 and the answer on stderr.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1024
#define COUNT_MAX       2000000
#define ANSWER_MAX      65536
#define REQUEST_MAX     8192
#define ID_MAX          64
#define WAIT_MAX_MS     60000 /* the longest silence of the server */

enum step { CREATE, EXECUTE, DELETE };
enum mode { WARM, CHURN, FIRST };

struct conn {
    int fd;
    enum step step;
    char id[ID_MAX];
    char answer[ANSWER_MAX + 1];
    size_t len;
    uint64_t sent_ns, begun_ns; /* of this request; of this round */
    bool finished;
};

/* Latencies in nanoseconds; `count` may pass what is kept only where it is not recorded. */
struct series {
    uint32_t *us10; /* tenths of a microsecond: seven minutes at the most */
    size_t count;
};

static enum mode mode;
static const char *code_json, *expected;
static struct series creates, executions, rounds;
static size_t rounds_begun, rounds_max;
static uint64_t deadline_ns;

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static _Noreturn void die(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

static void record(struct series *s, uint64_t from_ns, uint64_t to_ns)
{
    if (s->count < COUNT_MAX)
        s->us10[s->count++] = (uint32_t)((to_ns - from_ns) / 100);
}

static void send_all(struct conn *c, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);
        if (n < 0)
            die("send: %s", strerror(errno));
        data += n;
        len -= (size_t)n;
    }
}

/* Requests are far smaller than a socket's buffer, so a blocking send does not block. */
static void ask(struct conn *c, enum step step)
{
    static const char *const methods[] = {[CREATE] = "POST", [EXECUTE] = "POST", [DELETE] = "DELETE"};
    char text[REQUEST_MAX], path[ID_MAX + 32] = "/session";
    const char *body = step == EXECUTE ? code_json : "";

    if (step != CREATE)
        snprintf(path, sizeof(path), "/session/%s%s", c->id, step == EXECUTE ? "/execute" : "");
    int n =
        snprintf(text, sizeof(text),
                 "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                 methods[step], path, strlen(body), body);
    if (n < 0 || (size_t)n >= sizeof(text))
        die("the code is too long");
    c->step = step;
    c->len = 0;
    c->sent_ns = now_ns();
    send_all(c, text, (size_t)n);
}

/* Begins a round, or ends the connection's part. */
static void next_round(struct conn *c)
{
    if (rounds_begun >= rounds_max || now_ns() >= deadline_ns) {
        c->finished = true;
        return;
    }
    rounds_begun++;
    ask(c, mode == WARM ? EXECUTE : CREATE);
    c->begun_ns = c->sent_ns;
}

static void take_id(struct conn *c, const char *body)
{
    const char *at = strstr(body, "\"session_id\":\"");

    if (!at || sscanf(at, "\"session_id\":\"%63[^\"]\"", c->id) != 1)
        die("no session id: %s", c->answer);
}

static void on_answer(struct conn *c, const char *body)
{
    uint64_t now = now_ns();

    if (strncmp(c->answer, "HTTP/1.1 200", 12) != 0)
        die("not a 200: %s", c->answer);
    if (c->step == EXECUTE && !strstr(body, expected))
        die("not the expected result %s: %s", expected, c->answer);
    if (c->step == CREATE) {
        take_id(c, body);
        record(&creates, c->sent_ns, now);
        if (mode == WARM)
            next_round(c);
        else
            ask(c, mode == CHURN ? DELETE : EXECUTE);
    } else if (c->step == EXECUTE) {
        record(&executions, c->sent_ns, now);
        record(&rounds, c->begun_ns, now);
        if (mode == WARM)
            next_round(c);
        else
            ask(c, DELETE);
    } else {
        if (mode == CHURN)
            record(&rounds, c->begun_ns, now);
        next_round(c);
    }
}

/* The body of a whole answer, or NULL while some of it is missing. */
static const char *whole_body(const struct conn *c)
{
    const char *end = strstr(c->answer, "\r\n\r\n");
    const char *length = end ? strcasestr(c->answer, "\r\nContent-Length:") : NULL;

    if (!end)
        return NULL;
    if (!length || length > end)
        die("an answer without a length: %s", c->answer);
    size_t need = (size_t)(end + 4 - c->answer) + strtoul(length + 17, NULL, 10);
    if (need > ANSWER_MAX)
        die("an answer longer than %d bytes", ANSWER_MAX);
    return c->len >= need ? end + 4 : NULL;
}

static void on_readable(struct conn *c)
{
    ssize_t n = recv(c->fd, c->answer + c->len, ANSWER_MAX - c->len, 0);

    if (n <= 0)
        die("the server closed a connection: %s", n < 0 ? strerror(errno) : "end of stream");
    c->len += (size_t)n;
    c->answer[c->len] = '\0';
    const char *body = whole_body(c);
    if (body)
        on_answer(c, body);
}

static void open_conn(struct conn *c, int epoll, unsigned port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int one = 1;

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        die("connect: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static bool all_finished(const struct conn *conns, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!conns[i].finished)
            return false;
    return true;
}

static void loop(struct conn *conns, unsigned count, int epoll)
{
    struct epoll_event events[64];

    while (!all_finished(conns, count)) {
        int n = epoll_wait(epoll, events, 64, WAIT_MAX_MS);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            die("the server has not answered for %d ms", WAIT_MAX_MS);
        for (int i = 0; i < n; i++)
            on_readable(events[i].data.ptr);
    }
}

/* In `warm`, the sessions exist before the clock starts. */
static void create_first(struct conn *conns, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct conn *c = &conns[i];
        ask(c, CREATE);
        const char *body;
        do {
            ssize_t n = recv(c->fd, c->answer + c->len, ANSWER_MAX - c->len, 0);
            if (n <= 0)
                die("the server closed a connection");
            c->len += (size_t)n;
            c->answer[c->len] = '\0';
            body = whole_body(c);
        } while (!body);
        if (strncmp(c->answer, "HTTP/1.1 200", 12) != 0)
            die("not a 200: %s", c->answer);
        take_id(c, body);
    }
}

/* The server closes nothing by itself: leave no session behind. */
static void delete_last(struct conn *conns, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        ask(&conns[i], DELETE);
        if (recv(conns[i].fd, conns[i].answer, ANSWER_MAX, 0) <= 0)
            die("the server closed a connection");
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void print_series(const char *name, struct series *s)
{
    static const double points[] = {0.5, 0.9, 0.99};
    static const char *const names[] = {"p50", "p90", "p99"};

    printf(", \"%s\": {\"n\": %zu", name, s->count);
    qsort(s->us10, s->count, sizeof(*s->us10), by_value);
    for (size_t i = 0; s->count > 0 && i < 3; i++)
        printf(", \"%s\": %.7f", names[i], s->us10[(size_t)(points[i] * (double)(s->count - 1) + 0.5)] / 1e7);
    printf("}");
}

static void take_mode(const char *name)
{
    if (strcmp(name, "warm") == 0)
        mode = WARM;
    else if (strcmp(name, "churn") == 0)
        mode = CHURN;
    else if (strcmp(name, "first") == 0)
        mode = FIRST;
    else
        die("unknown mode %s", name);
}

static void *must(void *memory)
{
    if (!memory)
        die("no memory");
    return memory;
}

int main(int argc, char **argv)
{
    if (argc != 8)
        die("usage: load warm|churn|first PORT CONNECTIONS COUNT SECONDS CODE_JSON EXPECTED");
    take_mode(argv[1]);
    unsigned count = (unsigned)atoi(argv[3]);
    rounds_max = (size_t)atol(argv[4]);
    code_json = argv[6];
    expected = argv[7];
    if (count < 1 || count > CONNECTIONS_MAX || rounds_max > COUNT_MAX)
        die("1 to %d connections, at most %d rounds", CONNECTIONS_MAX, COUNT_MAX);
    creates.us10 = must(calloc(COUNT_MAX, sizeof(uint32_t)));
    executions.us10 = must(calloc(COUNT_MAX, sizeof(uint32_t)));
    rounds.us10 = must(calloc(COUNT_MAX, sizeof(uint32_t)));
    struct conn *conns = must(calloc(count, sizeof(*conns)));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < count; i++)
        open_conn(&conns[i], epoll, (unsigned)atoi(argv[2]));
    if (mode == WARM)
        create_first(conns, count);

    uint64_t start = now_ns();
    deadline_ns = start + (uint64_t)(atof(argv[5]) * 1e9);
    for (unsigned i = 0; i < count; i++)
        next_round(&conns[i]);
    loop(conns, count, epoll);
    double seconds = (double)(now_ns() - start) / 1e9;

    printf("{\"connections\": %u, \"rounds\": %zu, \"seconds\": %.6f, \"per_second\": %.1f", count, rounds.count,
           seconds, (double)rounds.count / seconds);
    print_series("create", &creates);
    print_series("execute", &executions);
    print_series("round", &rounds);
    printf("}\n");
    if (mode == WARM)
        delete_last(conns, count);
    return 0;
}
