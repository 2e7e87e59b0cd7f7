/* bench.c: see bench.h. What is not on the way of a message, or should not be. */
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

_Noreturn void die(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(1);
}

int listen_on_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, SOMAXCONN) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        die("cannot listen on 127.0.0.1");
    printf("%s: listening on 127.0.0.1:%d\n", program_invocation_short_name, ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int accept_client(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        die("accept"); /* out of descriptors, say: what would be measured after that means nothing */
    return fd;
}

/* The one buffer serves every connection, so it must be empty again before the next read: this waits. */
bool send_rest(int fd, const char *data, size_t size, ssize_t sent)
{
    size_t done = 0;

    for (;;) {
        if (sent < 0 && errno != EAGAIN)
            return false;
        done += sent > 0 ? (size_t)sent : 0;
        if (done == size)
            return true;
        poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
        sent = send(fd, data + done, size - done, MSG_NOSIGNAL);
    }
}
