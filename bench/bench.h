/* bench.h: what the servers that the library is compared with have in common: each listens on a free port of 127.0.0.1,
 * prints "NAME: listening on 127.0.0.1:PORT", and serves until killed. The echo servers take no argument. */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

/* A non-blocking listener; where it listens has been printed. Ends the program if there is none. */
int listen_on_loopback(void);

/* The next client, non-blocking and without Nagle's delay; -1 when none waits. */
int accept_client(int listener);

/* What is left of `size` bytes after a send() that returned `sent`. False: the connection is over. */
bool send_rest(int fd, const char *data, size_t size, ssize_t sent);

/* The work of an echo server and nothing else: one read, one write, one buffer for all connections. Whoever does this
 * straight after epoll_wait() is the limit, so not even a call is in the way. False: the connection is over. */
static inline bool echo_once(int fd)
{
    static char buffer[65536];
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    ssize_t sent;

    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    sent = send(fd, buffer, (size_t)n, MSG_NOSIGNAL);
    return sent == n || send_rest(fd, buffer, (size_t)n, sent);
}

/* "NAME: what: why errno says" on stderr, exit 1. */
_Noreturn void die(const char *what);

#endif
