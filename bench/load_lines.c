/* load_lines: one long stream of 64-byte lines, as fast as it goes.
 *
 *   load_lines PORT SECONDS
 *
 * Line k is the number k in 63 digits, so that no two are alike and a server that wants to compare every byte can tell
 * what comes. It prints "ready" when it is connected, waits for a line, sends for so long, and ends its stream. The
 * server then answers with a line, "COUNT LAST": how many lines it had, and the last one. When that is right,
 * "lines COUNT" is printed; nothing is in flight any more, so that a CPU time can be read. */
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LINE = 64,
    BATCH = 1024 /* lines a call */
};

/* The next number, in place: much cheaper than what a server does with a line. */
static void count_up(unsigned char *digits)
{
    unsigned char *last = digits + LINE - 2;

    while (*last == '9')
        *last-- = '0';
    ++*last;
}

static void fill(unsigned char *batch, unsigned char *next)
{
    for (int i = 0; i < BATCH; i++) {
        memcpy(batch + (size_t)i * LINE, next, LINE);
        count_up(next);
    }
}

static void send_all(int fd, const unsigned char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n < 0)
            lost("send", strerror(errno));
        data += n;
        size -= (size_t)n;
    }
}

static void expect_answer(int fd, uint64_t count, const unsigned char *batch)
{
    char expected[128], answer[128];
    size_t size = 0;

    snprintf(expected, sizeof expected, "%" PRIu64 " %.*s", count, LINE, (const char *)batch + (BATCH - 1) * LINE);
    for (;;) {
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        if (poll(&readable, 1, SILENCE) <= 0)
            lost("the answer", "nothing came for 20 s");
        ssize_t n = recv(fd, answer + size, sizeof answer - size - 1, 0);
        if (n <= 0)
            break;
        size += (size_t)n;
        answer[size] = 0;
        if (size == sizeof answer - 1 || answer[size - 1] == '\n')
            break;
    }
    if (size != strlen(expected) || memcmp(answer, expected, size) != 0)
        lost("the answer", "not the lines that were sent");
}

int main(int argc, char **argv)
{
    static unsigned char batch[BATCH * LINE], next[LINE + 1];
    uint64_t lines = 0, deadline;
    double seconds;
    int fd;

    if (argc != 3) {
        fputs("load_lines: usage: load_lines PORT SECONDS\n", stderr);
        return 2;
    }
    seconds = number(argv[2], "time", 86400);
    fd = dial((unsigned)number(argv[1], "port", 65535));
    snprintf((char *)next, sizeof next, "%0*d\n", LINE - 1, 0);
    if (!say_and_wait("ready"))
        return 0;
    deadline = now() + (uint64_t)(seconds * 1e9);
    do {
        fill(batch, next);
        send_all(fd, batch, sizeof batch);
        lines += BATCH;
    } while (now() < deadline);
    shutdown(fd, SHUT_WR);
    expect_answer(fd, lines, batch);
    printf("lines %" PRIu64 "\n", lines);
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    return 0;
}
