/* load_bulk: one long stream through a forwarder, between a source and a sink.
 *
 *   load_bulk sink                 prints "listening on PORT"; a line with a number of bytes: these are to be expected;
 *                                  prints "received" when it has them all
 *   load_bulk source PORT SECONDS  prints "ready", waits for a line, sends for so long, prints "bytes NUMBER", waits,
 *                                  ends its stream
 *
 * The sink compares every byte, and after the last one expects the end, in whatever way, and nothing else. Between
 * "received" and the source's second line everything stands still, so that CPU times can be read. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 1 << 18 };

static const unsigned char *pattern;

static int accept_one(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 1) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        fail("cannot listen on 127.0.0.1", strerror(errno));
    printf("listening on %d\n", ntohs(address.sin_port));
    fflush(stdout);
    fd = accept(fd, NULL, NULL);
    if (fd < 0)
        fail("accept", strerror(errno));
    return fd;
}

/* Waits for the stream; meanwhile the number of bytes may come. */
static void wait_for_more(int fd, uint64_t *total)
{
    struct pollfd both[2] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    char line[32];

    if (poll(both, *total == UINT64_MAX ? 2 : 1, SILENCE) <= 0)
        lost("the stream", "nothing came for 20 s");
    if (!both[1].revents)
        return;
    if (!fgets(line, sizeof line, stdin))
        exit(1);
    line[strcspn(line, "\n")] = 0;
    *total = (uint64_t)number(line, "number of bytes", 1e15);
}

static void sink(void)
{
    static unsigned char buffer[CHUNK];
    uint64_t total = UINT64_MAX, done = 0;
    int fd = accept_one();

    while (done < total) {
        ssize_t n = recv(fd, buffer, CHUNK, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            wait_for_more(fd, &total);
            continue;
        }
        if (n <= 0)
            lost("the stream ended early", n == 0 ? "end of stream" : strerror(errno));
        if (memcmp(buffer, pattern + done % PERIOD, (size_t)n) != 0)
            lost("the stream", "what came is not what was sent");
        done += (uint64_t)n;
    }
    if (done > total)
        lost("the stream", "more came than was sent");
    puts("received");
    fflush(stdout);
    if (recv(fd, buffer, CHUNK, 0) > 0)
        lost("the stream", "more came than was sent");
}

static void source(unsigned port, double seconds)
{
    int fd = dial(port);
    uint64_t done = 0, deadline;
    char line[32], byte;

    if (!say_and_wait("ready"))
        return;
    for (deadline = now() + (uint64_t)(seconds * 1e9); now() < deadline;) {
        ssize_t n = send(fd, pattern + done % PERIOD, CHUNK, MSG_NOSIGNAL);
        if (n < 0)
            lost("the stream could not be sent", strerror(errno));
        done += (uint64_t)n;
    }
    snprintf(line, sizeof line, "bytes %llu", (unsigned long long)done);
    if (!say_and_wait(line))
        return;
    shutdown(fd, SHUT_WR);
    if (recv(fd, &byte, 1, 0) > 0)
        lost("the other direction", "a byte came that nobody sent");
}

int main(int argc, char **argv)
{
    pattern = pattern_new(CHUNK + PERIOD);
    if (argc == 2 && strcmp(argv[1], "sink") == 0) {
        sink();
    } else if (argc == 4 && strcmp(argv[1], "source") == 0) {
        source((unsigned)number(argv[2], "port", 65535), number(argv[3], "time", 86400));
    } else {
        fputs("load_bulk: usage: load_bulk sink | source PORT SECONDS\n", stderr);
        return 2;
    }
    return 0;
}
