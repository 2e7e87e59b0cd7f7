/* forward_bare: the limit of a forwarder. Level-triggered epoll, and between the two ends of a connection either a read
 * and a write of one static buffer, or a splice into a pipe and one out of it. No library, timers, limits or log.
 *
 *   forward_bare copy|splice REMOTE_PORT [CHUNK]
 *
 * What an end's socket does not take stays with that end: in memory of its own (copy), or in its pipe (splice), which
 * comes from a pool and goes back when it is empty. Until that is gone its peer is not read. An end of stream is passed
 * on; any failure resets both ends. Pairs that were closed are freed after the batch of events that may still name
 * them. */
#include "bench.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    BUFFER = 1 << 18, /* read at once */
    PIPE = 1 << 20,   /* asked of the kernel; it may give less */
    SHORT = 1 << 16,  /* a splice that moved less has probably emptied the socket */
    READS = 4,        /* from one end in one event */
    POOL = 64         /* pipes kept */
};

struct end {
    int fd;
    unsigned events; /* in the kernel's set */
    bool added, connecting, ended, shut;
    struct end *peer;
    struct pair *pair;
    size_t held; /* read from the peer, not yet taken by this end's socket */
    char *kept;  /* copy: where it is */
    size_t start;
    int pipe[2]; /* splice: where it is */
};

struct pair {
    struct end client, remote;
    bool closed;
    struct pair *next; /* among those to be freed */
};

static int epoll;
static bool splicing;
static size_t chunk;
static char buffer[BUFFER];
static struct pair *closed;
static struct sockaddr_in remote_address = {.sin_family = AF_INET};

/* -- Pipes -------------------------------------------------------------------------------------------------------- */

static int pool[POOL][2];
static unsigned pooled;

static bool pipe_take(struct end *end)
{
    if (end->pipe[0] >= 0)
        return true;
    if (pooled > 0) {
        memcpy(end->pipe, pool[--pooled], sizeof end->pipe);
        return true;
    }
    if (pipe2(end->pipe, O_NONBLOCK | O_CLOEXEC) < 0)
        return false;
    fcntl(end->pipe[1], F_SETPIPE_SZ, PIPE);
    return true;
}

static void pipe_give(struct end *end)
{
    if (end->held == 0 && pooled < POOL) {
        memcpy(pool[pooled++], end->pipe, sizeof end->pipe);
    } else {
        close(end->pipe[0]);
        close(end->pipe[1]);
    }
    end->pipe[0] = -1;
}

/* -- Pairs -------------------------------------------------------------------------------------------------------- */

static void end_close(struct end *end, bool reset)
{
    if (reset)
        setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
    close(end->fd);
    if (end->pipe[0] >= 0)
        pipe_give(end);
    free(end->kept);
}

static void pair_close(struct pair *pair, bool reset)
{
    end_close(&pair->client, reset);
    end_close(&pair->remote, reset);
    pair->closed = true;
    pair->next = closed;
    closed = pair;
}

static void free_closed(void)
{
    while (closed) {
        struct pair *pair = closed;
        closed = pair->next;
        free(pair);
    }
}

static void end_want(struct end *end)
{
    struct epoll_event event = {.data.ptr = end};

    if (!end->ended && end->peer->held == 0)
        event.events |= EPOLLIN;
    if (end->held > 0 || end->connecting)
        event.events |= EPOLLOUT;
    if (end->added && end->events == event.events)
        return;
    if (epoll_ctl(epoll, end->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, end->fd, &event) < 0)
        die("epoll_ctl");
    end->added = true;
    end->events = event.events;
}

/* -- What flows: false means that a socket failed ------------------------------------------------------------------ */

static bool keep(struct end *to, const char *data, size_t size)
{
    to->kept = malloc(size);
    if (!to->kept)
        return false;
    memcpy(to->kept, data, size);
    to->start = 0;
    to->held = size;
    return true;
}

static bool flush(struct end *to)
{
    ssize_t n = splicing ? splice(to->pipe[0], NULL, to->fd, NULL, to->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
                         : send(to->fd, to->kept + to->start, to->held, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN;
    to->held -= (size_t)n;
    to->start += (size_t)n;
    if (to->held > 0)
        return true;
    if (splicing)
        pipe_give(to);
    free(to->kept);
    to->kept = NULL;
    return true;
}

static bool copy_from(struct end *from)
{
    for (int i = 0; i < READS; i++) {
        ssize_t n = recv(from->fd, buffer, chunk, 0), sent;
        if (n <= 0)
            return n == 0 ? (from->ended = true) : errno == EAGAIN;
        sent = send(from->peer->fd, buffer, (size_t)n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return false;
        if (sent < n)
            return keep(from->peer, buffer + (sent > 0 ? sent : 0), (size_t)(n - (sent > 0 ? sent : 0)));
        if ((size_t)n < chunk)
            return true;
    }
    return true;
}

static bool splice_from(struct end *from)
{
    struct end *to = from->peer;

    for (int i = 0; i < READS; i++) {
        ssize_t n;
        if (!pipe_take(to))
            return false;
        n = splice(from->fd, NULL, to->pipe[1], NULL, chunk, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n <= 0)
            pipe_give(to);
        if (n <= 0)
            return n == 0 ? (from->ended = true) : errno == EAGAIN;
        to->held = (size_t)n;
        if (!flush(to))
            return false;
        if (to->held > 0 || n < SHORT)
            return true;
    }
    return true;
}

/* -- Events -------------------------------------------------------------------------------------------------------- */

static void pass_on_end(struct end *end)
{
    if (end->shut || end->held > 0 || !end->peer->ended)
        return;
    shutdown(end->fd, SHUT_WR);
    end->shut = true;
}

static void serve(struct end *end, unsigned events)
{
    struct pair *pair = end->pair;
    bool well = true;

    if (pair->closed)
        return;
    if (end->connecting && !(events & (EPOLLERR | EPOLLHUP)))
        end->connecting = false;
    else if ((events & EPOLLOUT) && end->held > 0)
        well = flush(end);
    if (well && (events & ~(unsigned)EPOLLOUT) && end->peer->held == 0)
        well = splicing ? splice_from(end) : copy_from(end);
    pass_on_end(end);
    pass_on_end(end->peer);
    if (!well || (pair->client.shut && pair->remote.shut)) {
        pair_close(pair, !well);
        return;
    }
    end_want(end);
    end_want(end->peer);
}

static void end_init(struct end *end, struct pair *pair, struct end *peer, int fd)
{
    end->fd = fd;
    end->pair = pair;
    end->peer = peer;
    end->pipe[0] = -1;
}

/* The client joins the set when its remote is connected: a socket that cannot connect takes nothing. */
static void accept_one(int client)
{
    struct pair *pair = calloc(1, sizeof *pair);
    int remote = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (!pair || remote < 0)
        die("a new connection");
    end_init(&pair->client, pair, &pair->remote, client);
    end_init(&pair->remote, pair, &pair->client, remote);
    setsockopt(remote, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (connect(remote, (struct sockaddr *)&remote_address, sizeof remote_address) < 0 && errno != EINPROGRESS) {
        pair_close(pair, true);
        return;
    }
    pair->remote.connecting = true;
    end_want(&pair->remote);
}

static void parse(int argc, char **argv)
{
    splicing = argc > 1 && strcmp(argv[1], "splice") == 0;
    chunk = argc > 3 ? strtoul(argv[3], NULL, 10) : splicing ? PIPE : BUFFER;
    if (argc < 3 || argc > 4 || (!splicing && strcmp(argv[1], "copy") != 0) || chunk == 0 ||
        chunk > (splicing ? PIPE : BUFFER)) {
        fputs("forward_bare: usage: forward_bare copy|splice REMOTE_PORT [CHUNK]\n", stderr);
        exit(2);
    }
    remote_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    remote_address.sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10));
}

int main(int argc, char **argv)
{
    struct epoll_event events[512];
    int listener, fd;

    parse(argc, argv);
    listener = listen_on_loopback();
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); /* accepted sockets inherit it */
    epoll = epoll_create1(EPOLL_CLOEXEC);
    events[0] = (struct epoll_event){.events = EPOLLIN};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &events[0]) < 0)
        die("epoll");
    for (;;) {
        int n = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                serve(events[i].data.ptr, events[i].events);
            else
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
                    accept_one(fd);
        }
        free_closed();
    }
}
