/* load_connect: a closed loop of short connections. Each of the slots connects, sends 64 bytes, waits until all of them
 * came back, compares, resets the connection and begins the next.
 *
 *   load_connect PORT SLOTS SECONDS
 *
 * "ready" after a short warm-up; a line on stdin starts the measuring; when the last connection of that is gone, the
 * result is printed, and how many there were before. A connection that fails (refused, reset, ended early) is counted,
 * and not among the others; bytes that are not what was sent are the end. */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SIZE = 64, WARM_UP = 50 /* ms */ };

struct slot {
    int fd;
    bool sent;
    size_t received;
    unsigned number; /* of its connections so far: each has another message */
};

static unsigned port;
static unsigned char *pattern;
static int epoll;
static uint64_t deadline; /* no connection is begun after it, ns */
static size_t in_flight;
static uint64_t done, failed;

static void begin(struct slot *slot)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = slot};

    slot->fd = dial_start(port);
    if (slot->fd < 0)
        fail("connect", strerror(errno));
    slot->sent = false;
    slot->received = 0;
    slot->number++;
    in_flight++;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, slot->fd, &event) < 0)
        fail("epoll_ctl", strerror(errno));
}

static void finish(struct slot *slot, uint64_t *count)
{
    close(slot->fd);
    in_flight--;
    ++*count;
    if (now() < deadline)
        begin(slot);
}

static void serve(struct slot *slot, unsigned events)
{
    const unsigned char *message = pattern + slot->number % PERIOD;
    unsigned char buffer[SIZE + 1];
    ssize_t n;

    if (!slot->sent && (events & EPOLLOUT)) {
        if (send(slot->fd, message, SIZE, MSG_NOSIGNAL) != SIZE) {
            finish(slot, &failed);
            return;
        }
        slot->sent = true;
    }
    if (!(events & ~(unsigned)EPOLLOUT))
        return;
    n = recv(slot->fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        finish(slot, &failed);
        return;
    }
    if ((size_t)n > SIZE - slot->received || memcmp(buffer, message + slot->received, (size_t)n) != 0)
        lost("echo", "what came back is not what was sent");
    slot->received += (size_t)n;
    if (slot->received == SIZE)
        finish(slot, &done);
}

static void drive(struct slot *slots, size_t count, double seconds)
{
    struct epoll_event events[512];

    done = failed = 0;
    deadline = now() + (uint64_t)(seconds * 1e9);
    for (size_t i = 0; i < count; i++)
        begin(&slots[i]);
    while (in_flight > 0) {
        int n = epoll_wait(epoll, events, 512, SILENCE);
        if (n <= 0)
            fail("the server is silent", n ? strerror(errno) : "nothing came back for 20 s");
        for (int i = 0; i < n; i++)
            serve(events[i].data.ptr, events[i].events);
    }
}

int main(int argc, char **argv)
{
    static struct slot *slots;
    uint64_t before;
    size_t count;
    double seconds;

    if (argc != 4) {
        fputs("load_connect: usage: load_connect PORT SLOTS SECONDS\n", stderr);
        return 2;
    }
    port = (unsigned)number(argv[1], "port", 65535);
    count = (size_t)number(argv[2], "number of slots", 10000);
    seconds = number(argv[3], "time", 86400);
    slots = calloc(count + 1, sizeof *slots);
    pattern = pattern_new(SIZE + PERIOD);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!slots || epoll < 0)
        fail("cannot start", strerror(errno));
    drive(slots, count, WARM_UP / 1000.0);
    before = done + failed;
    if (!say_and_wait("ready"))
        return 0;
    drive(slots, count, seconds);
    printf("connections %llu failed %llu before %llu\n", (unsigned long long)done, (unsigned long long)failed,
           (unsigned long long)before);
    fflush(stdout);
    return 0;
}
