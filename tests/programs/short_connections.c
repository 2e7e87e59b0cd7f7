/* short_connections: many connections through a forwarder, each of one question and one answer, with both its ends
 * here: what one end does must be what the other sees.
 *
 *     short_connections AT_ONCE
 *
 * It prints the port that its server listens on. Then each line of standard input, "PORT COUNT WAYS", is so many
 * connections to that port of 127.0.0.1, of which so many are open at once; when all have ended it says so in a line.
 * WAYS is how they end, one letter a connection and again from the first:
 *
 *     c  the client ends its stream; the server, which sees that, then its own
 *     s  the server answers and ends its stream; the client, which sees that, then its own
 *     C  the client resets, once it has the answer
 *     S  the server resets, once the client has said that it has the answer
 *
 * Exit status 1, with a line: one of them went another way. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SIZE = 16, BATCH = 256, SILENCE = 60000 /* ms: hung */ };

/* A question, its answer, and the client's "got it" are the same: the letter, and the connection's number in digits. */
struct message {
    char text[SIZE];
};

struct end {
    int fd;
    bool server;
    struct message message; /* a client's: what it asked; a server's: what it was asked */
    unsigned received;      /* bytes */
    bool ended;             /* has ended its stream */
};

static struct sockaddr_in forwarder = {.sin_family = AF_INET};
static unsigned count, at_once, begun; /* connections */
static unsigned done;                  /* ends */
static char ways[16];
static int set, listener;

static _Noreturn void fail(const struct end *end, const char *format, ...)
{
    va_list arguments;

    printf("short_connections: ");
    if (end)
        printf("%s of %.*s: ", end->server ? "server" : "client", SIZE, end->message.text);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    exit(1);
}

static void add(struct end *end, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = end};

    setsockopt(end->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (epoll_ctl(set, EPOLL_CTL_ADD, end->fd, &event) < 0)
        fail(end, "epoll_ctl: %s", strerror(errno));
}

static struct end *end_new(int fd, bool server)
{
    struct end *end = calloc(1, sizeof(*end));

    if (fd < 0 || !end)
        fail(NULL, "a socket: %s", strerror(errno));
    end->fd = fd;
    end->server = server;
    return end;
}

static void client_begin(void)
{
    struct end *end = end_new(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), false);

    snprintf(end->message.text, SIZE, "%c%014u", ways[begun % strlen(ways)], begun);
    begun++;
    if (connect(end->fd, (struct sockaddr *)&forwarder, sizeof(forwarder)) < 0 && errno != EINPROGRESS)
        fail(end, "connect: %s", strerror(errno));
    add(end, EPOLLOUT);
}

static void say(struct end *end)
{
    if (send(end->fd, end->message.text, SIZE, MSG_NOSIGNAL) != SIZE)
        fail(end, "send: %s", strerror(errno));
}

/* No epoll_ctl: the close takes the descriptor out of the set, for nobody duplicated it. */
static void end_close(struct end *end)
{
    close(end->fd);
    done++;
    if (!end->server && begun < count)
        client_begin();
    free(end);
}

static void end_reset(struct end *end)
{
    setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
    end_close(end);
}

static void end_stream(struct end *end)
{
    if (shutdown(end->fd, SHUT_WR) < 0)
        fail(end, "shutdown: %s", strerror(errno));
    end->ended = true;
}

/* All of a message is there. */
static void heard(struct end *end)
{
    char way = end->message.text[0];

    if (end->server && end->received == SIZE) {
        say(end);
        if (way == 's')
            end_stream(end);
    } else if (end->server) {
        end_reset(end); /* S: the client's second message */
    } else if (way == 'C') {
        end_reset(end);
    } else if (way == 'c') {
        end_stream(end);
    } else if (way == 'S') {
        say(end);
    }
}

static void read_end(struct end *end)
{
    char text[2 * SIZE];
    ssize_t n = recv(end->fd, text, sizeof(text), 0);
    char way = end->message.text[0];

    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0 && errno == ECONNRESET && end->received == SIZE && way == (end->server ? 'C' : 'S')) {
        end_close(end);
        return;
    }
    if (n < 0)
        fail(end, "recv after %u bytes: %s", end->received, strerror(errno));
    if (n == 0 && (way == 'C' || way == 'S' || end->received != SIZE || (!end->ended && end->server != (way == 'c'))))
        fail(end, "an end of stream after %u bytes", end->received);
    if (n == 0) {
        end_close(end); /* what it has not ended yet it ends by that */
        return;
    }
    if (n + end->received % SIZE > SIZE || (end->received >= SIZE && !(end->server && way == 'S')))
        fail(end, "%zd bytes too many", n);
    if (end->server && end->received < SIZE)
        memcpy(end->message.text + end->received, text, (size_t)n);
    else if (memcmp(text, end->message.text + end->received % SIZE, (size_t)n) != 0)
        fail(end, "not its message: %.*s", (int)n, text);
    end->received += (unsigned)n;
    if (end->received % SIZE == 0)
        heard(end);
}

static void accept_all(void)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
        add(end_new(fd, true), EPOLLIN);
}

static void connected(struct end *end)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = end};

    epoll_ctl(set, EPOLL_CTL_MOD, end->fd, &event);
    say(end);
}

static void prepare(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN};

    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    set = epoll_create1(EPOLL_CLOEXEC);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, SOMAXCONN) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &(socklen_t){sizeof(address)}) < 0 ||
        epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) < 0)
        fail(NULL, "cannot listen: %s", strerror(errno));
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
}

static void serve(void)
{
    struct epoll_event events[BATCH];
    int n = epoll_wait(set, events, BATCH, SILENCE);

    if (n <= 0)
        fail(NULL, "hangs: %u connections begun, %u ends done", begun, done);
    for (int i = 0; i < n; i++) {
        struct end *end = events[i].data.ptr;

        if (!end)
            accept_all();
        else if (events[i].events & EPOLLOUT)
            connected(end);
        else
            read_end(end);
    }
}

int main(int argc, char **argv)
{
    unsigned port;

    if (argc != 2) {
        fputs("short_connections: usage: short_connections AT_ONCE\n", stderr);
        return 2;
    }
    at_once = (unsigned)strtoul(argv[1], NULL, 10);
    prepare();
    while (scanf("%u %u %15s", &port, &count, ways) == 3) {
        forwarder.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        forwarder.sin_port = htons((unsigned short)port);
        begun = done = 0;
        while (begun < at_once && begun < count)
            client_begin();
        while (done < 2 * count)
            serve();
        printf("%u connections\n", count);
        fflush(stdout);
    }
    return 0;
}
