/* load.c: see load.h. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, EXIT_LOST = 3 };

static _Noreturn void end(const char *what, const char *why, int status)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why);
    exit(status);
}

_Noreturn void fail(const char *what, const char *why)
{
    end(what, why, EXIT_FAILURE);
}

_Noreturn void lost(const char *what, const char *why)
{
    end(what, why, EXIT_LOST);
}

uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double number(const char *text, const char *what, double max)
{
    char *rest;
    double value = strtod(text, &rest);

    if (rest != text && *rest == '\0' && value >= 0 && value <= max)
        return value;
    fprintf(stderr, "%s: not a valid %s: %s\n", program_invocation_short_name, what, text);
    exit(EXIT_USAGE);
}

/* errno is 0 or EINPROGRESS when a socket is returned. */
static int begin(unsigned port, int flags)
{
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct linger reset = {.l_onoff = 1};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    server.sin_port = htons((uint16_t)port);
    if (connect(fd, (struct sockaddr *)&server, sizeof server) == 0 || errno == EINPROGRESS)
        return fd;
    close(fd);
    return -1;
}

int dial(unsigned port)
{
    int fd = begin(port, 0);

    if (fd < 0)
        fail("connect", strerror(errno));
    return fd;
}

int dial_start(unsigned port)
{
    return begin(port, SOCK_NONBLOCK);
}

unsigned char *pattern_new(size_t size)
{
    unsigned char *pattern = malloc(size);

    if (!pattern)
        fail("the pattern", strerror(errno));
    for (size_t i = 0; i < size; i++)
        pattern[i] = (unsigned char)(i % PERIOD);
    return pattern;
}

bool say_and_wait(const char *line)
{
    int c;

    puts(line);
    fflush(stdout);
    while ((c = getchar()) != EOF && c != '\n')
        continue;
    return c != EOF;
}
