/* load_echo: a closed-loop load for an echo server. Each of the busy connections sends a message and, when all of it
 * came back, the next one; idle connections are opened and stay silent. Every byte that comes back is compared.
 *
 *   load_echo PORT CONNECTIONS SIZE SECONDS [IDLE [lines]]
 *
 * With "lines", for servers that answer a line with itself, each message is one: its last byte is a newline, and no
 * other.
 *
 * It speaks in lines, so that several loads can be started at once and a server's CPU time be read at the right
 * moments: "ready" when every connection is open and warm; a line on stdin starts the measuring; the result is printed
 * when nothing is in flight any more; and the connections stay open until the end of stdin. By the first echo the
 * server has accepted all idle connections, for they came first.
 *
 * Sockets are edge-triggered for both directions: one epoll_ctl() a connection, and reading until a short read. */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    SLOWEST = 1000000, /* us: the histogram's last place has all that took longer */
    WARM_UP = 50       /* ms */
};

struct connection {
    int fd;
    size_t sent, received; /* of the message in flight */
    unsigned message;      /* its number */
    uint64_t since;        /* when it was begun, ns */
};

static struct {
    unsigned port;
    size_t connections, size, idle;
    double seconds;
    bool lines;
} options;

static struct connection *busy;
static int *idle;
static unsigned char *pattern; /* with lines: PERIOD messages, one after the other */
static int epoll;
static uint64_t deadline; /* no message is begun after it, ns */
static uint64_t messages;
static size_t in_flight;
static uint32_t histogram[SLOWEST + 1];

static void parse(int argc, char **argv)
{
    if (argc < 5 || argc > 7 || (argc == 7 && strcmp(argv[6], "lines") != 0)) {
        fputs("load_echo: usage: load_echo PORT CONNECTIONS SIZE SECONDS [IDLE [lines]]\n", stderr);
        exit(2);
    }
    options.port = (unsigned)number(argv[1], "port", 65535);
    options.connections = (size_t)number(argv[2], "number of connections", 100000);
    options.size = (size_t)number(argv[3], "message size", 1 << 30);
    options.seconds = number(argv[4], "time", 86400);
    options.idle = argc > 5 ? (size_t)number(argv[5], "number of connections", 100000) : 0;
    options.lines = argc > 6;
    if (options.connections == 0 || options.size == 0)
        fail("nothing to do", "no connection, or empty messages");
}

/* -- Connections -------------------------------------------------------------------------------------------------- */

static unsigned char *lines_new(size_t size)
{
    unsigned char *lines = pattern_new(size * PERIOD);

    for (size_t k = 0; k < PERIOD; k++) {
        for (size_t i = 0; i < size; i++) {
            unsigned char c = (unsigned char)((k + i) % PERIOD);
            lines[k * size + i] = c == '\n' ? ' ' : c;
        }
        lines[k * size + size - 1] = '\n';
    }
    return lines;
}

static void open_connections(void)
{
    size_t i;

    busy = calloc(options.connections, sizeof *busy);
    idle = calloc(options.idle + 1, sizeof *idle);
    pattern = options.lines ? lines_new(options.size) : pattern_new(options.size + PERIOD);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!busy || !idle || epoll < 0)
        fail("cannot start", strerror(errno));
    for (i = 0; i < options.idle; i++)
        idle[i] = dial(options.port);
    for (i = 0; i < options.connections; i++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &busy[i]};
        busy[i].fd = dial(options.port);
        busy[i].message = (unsigned)i;
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, busy[i].fd, &event) < 0)
            fail("epoll_ctl", strerror(errno));
    }
}

/* A server that closed them was not measured among so many idle connections. */
static void check_idle(void)
{
    char byte;

    for (size_t i = 0; i < options.idle; i++)
        if (recv(idle[i], &byte, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN)
            lost("an idle connection", "the server closed it, or sent something");
}

/* -- Messages ----------------------------------------------------------------------------------------------------- */

/* Message k starts k bytes into the pattern, or is its k-th line: an old echo is not taken for a new one. */
static const unsigned char *content(const struct connection *c)
{
    return pattern + c->message % PERIOD * (options.lines ? options.size : 1);
}

static void send_more(struct connection *c)
{
    while (c->sent < options.size) {
        ssize_t n = send(c->fd, content(c) + c->sent, options.size - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            lost("send", strerror(errno));
        c->sent += (size_t)n;
    }
}

static void begin(struct connection *c, uint64_t time)
{
    c->message++;
    c->sent = c->received = 0;
    c->since = time;
    in_flight++;
    send_more(c);
}

static void complete(struct connection *c)
{
    uint64_t time = now(), us = (time - c->since) / 1000;

    histogram[us < SLOWEST ? us : SLOWEST]++;
    messages++;
    in_flight--;
    if (time < deadline)
        begin(c, time);
}

static void take(struct connection *c, const unsigned char *data, size_t n)
{
    if (n > c->sent - c->received)
        lost("echo", "more came back than was sent");
    if (memcmp(data, content(c) + c->received, n) != 0)
        lost("echo", "what came back is not what was sent");
    c->received += n;
    if (c->received == options.size)
        complete(c);
}

static void receive(struct connection *c)
{
    static unsigned char buffer[1 << 18];
    ssize_t n;

    do {
        n = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (n == 0)
            lost("recv", "the server closed a busy connection");
        if (n < 0 && errno != EAGAIN)
            lost("recv", strerror(errno));
        if (n > 0)
            take(c, buffer, (size_t)n);
    } while (n == (ssize_t)sizeof buffer);
}

static void drive(double seconds)
{
    struct epoll_event events[512];
    uint64_t start = now();

    deadline = start + (uint64_t)(seconds * 1e9);
    for (size_t i = 0; i < options.connections; i++)
        begin(&busy[i], start);
    while (in_flight > 0) {
        int n = epoll_wait(epoll, events, 512, SILENCE);
        if (n <= 0)
            fail("the server is silent", n ? strerror(errno) : "nothing came back for 20 s");
        for (int i = 0; i < n; i++) {
            if (events[i].events & ~(unsigned)EPOLLOUT)
                receive(events[i].data.ptr);
            if (events[i].events & EPOLLOUT)
                send_more(events[i].data.ptr);
        }
    }
}

/* -- Result ------------------------------------------------------------------------------------------------------- */

static unsigned percentile(double part)
{
    uint64_t seen = 0;
    unsigned us;

    for (us = 0; us < SLOWEST; us++) {
        seen += histogram[us];
        if ((double)seen >= part * (double)messages)
            break;
    }
    return us;
}

int main(int argc, char **argv)
{
    uint64_t start;
    double seconds;

    parse(argc, argv);
    open_connections();
    drive(WARM_UP / 1000.0);
    if (!say_and_wait("ready"))
        return 0;

    messages = 0;
    memset(histogram, 0, sizeof histogram);
    start = now();
    drive(options.seconds);
    seconds = (double)(now() - start) / 1e9;
    check_idle();
    printf("messages %llu seconds %.3f rate %.0f p50 %u p99 %u p999 %u\n", (unsigned long long)messages, seconds,
           (double)messages / seconds, percentile(0.5), percentile(0.99), percentile(0.999));
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    return 0;
}
