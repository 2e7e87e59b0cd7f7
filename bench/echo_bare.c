/* echo_bare: the limit. Level-triggered epoll, a read and a write for every event, and no library at all. */
#include "bench.h"

#include <sys/epoll.h>
#include <unistd.h>

static void add(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static void accept_all(int epoll, int listener)
{
    int fd;

    while ((fd = accept_client(listener)) >= 0)
        add(epoll, fd);
}

int main(void)
{
    struct epoll_event events[512];
    int listener = listen_on_loopback();
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll < 0)
        die("epoll_create1");
    add(epoll, listener);
    for (;;) {
        int n = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_all(epoll, listener);
            else if (!echo_once(fd))
                close(fd);
        }
    }
}
